"""Keeps MLflow reachable from Airflow when DNS fails."""

__version__ = "0.1.0"
