"""Tasks whose MLflow is away, for a scheduler of Airflow 3.4; see ``test_reschedule.py``."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.mlflow import mlflow_for_children
from airflow_provider_hokusai_dns.policies.retry import MLflowRetryPolicy

POLICY = MLflowRetryPolicy(
    "mlflow_away", delay=timedelta(seconds=3), max_delay=timedelta(seconds=3)
)
CALL = (
    'curl -sS --fail-with-body -H "Authorization: Bearer $MLFLOW_TRACKING_TOKEN" '
    "$MLFLOW_TRACKING_URI/api/2.0/mlflow/experiments/get?experiment_id=0"
)

with DAG("rescheduled"):

    @task(retries=1, retry_delay=timedelta(seconds=1), retry_policy=POLICY)
    def of_the_task() -> None:
        """Without a run: a call is enough."""
        MLflowHook("mlflow_away").rest("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")

    of_the_task()
    BashOperator(
        task_id="of_a_child", bash_command=CALL, retries=1, retry_policy=POLICY,
        pre_execute=mlflow_for_children("mlflow_away"),
    )  # fmt: skip
