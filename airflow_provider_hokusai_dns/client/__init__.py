"""What MLflow's client needs to keep working: credentials, deadlines, runs, delivery, relay."""
