"""What MLflow's own client needs to keep working: credentials, deadlines, runs, delivery."""
