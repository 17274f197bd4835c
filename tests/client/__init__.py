"""Tests of what knows MLflow and the resolver, and nothing of Airflow."""
