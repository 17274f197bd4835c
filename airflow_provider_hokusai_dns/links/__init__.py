"""Buttons on a task's page in Airflow's UI: to its MLflow run, and to the status page."""
