"""The shared last known good and the history, kept in Airflow Variables."""
