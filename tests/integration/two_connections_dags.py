"""Two connections to one hostname; read by ``test_two_connections.py``."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_hokusai_dns.exceptions import ConnectionConflictError
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

GATE = {"poke_interval": 1, "timeout": 300, "deferrable": True}

# Never opens, so that its connection is checked in the triggerer again and again.
with DAG("evil", schedule=None):
    MLflowHealthSensor(task_id="gate", mlflow_conn_id="evil", checks=["dns", "artifact"], **GATE)

with DAG("victim", schedule=None):
    gate = MLflowHealthSensor(task_id="gate", mlflow_conn_id="victim", **GATE)
    refresh = DNSRefreshOperator(task_id="refresh", mlflow_conn_ids=["evil", "victim"])

    @task
    def use_both() -> dict[str, object]:
        seen = {name: MLflowHook(name).resolve().address for name in ("evil", "victim")}
        search = ("GET", "/api/2.0/mlflow/registered-models/search")
        MLflowHook("victim").rest(*search)
        try:
            MLflowHook("evil").rest(*search)
        except ConnectionConflictError as error:
            return {**seen, "refused": str(error)}
        return seen

    gate >> refresh >> use_both()
