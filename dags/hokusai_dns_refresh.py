"""Ask DNS for MLflow again, from the Airflow UI. A schedule keeps the fallback up to date."""

from airflow_provider_hokusai_dns.refresh_dag import build_refresh_dag

dag = build_refresh_dag()
