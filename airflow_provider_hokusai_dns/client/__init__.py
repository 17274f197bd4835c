"""Keeps MLflow's client working: credentials, deadlines, runs, delivery, relay."""
