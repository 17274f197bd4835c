"""Ask DNS anew for MLflow from the Airflow UI; give it a schedule to keep the fallback warm."""

from airflow_provider_hokusai_dns.refresh_dag import build_refresh_dag

dag = build_refresh_dag()
