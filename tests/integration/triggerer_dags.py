"""Gates that wait in a real triggerer; read by ``test_gates_in_a_triggerer.py``."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, Variable

from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

USUAL = {
    "poke_interval": 1,
    "timeout": 600,
    "deferrable": True,
    "start_from_trigger": True,
    "retries": 2,
    "retry_delay": 0,
}
TEAM = {"mlflow_conn_id": "ml_{{ dag_run.conf['team'] }}"}


def opened(context):
    """Where Airflow runs it can be seen outside."""
    Variable.set("opened", context["ti"].task_id)


with DAG("gates", schedule=None):
    for number in range(10):
        MLflowHealthSensor(task_id=f"gate_{number}", **TEAM, **USUAL)
    MLflowHealthSensor(task_id="from_worker", **TEAM, **{**USUAL, "start_from_trigger": False})
    MLflowHealthSensor(task_id="to_worker", outlets=[Asset("opened")], **TEAM, **USUAL)
    MLflowHealthSensor(task_id="told", on_success_callback=opened, **TEAM, **USUAL)
    mapped = MLflowHealthSensor.partial(task_id="mapped", **USUAL)
    mapped.expand(mlflow_conn_id=["ml_a", "ml_b"])

with DAG("one_gate", schedule=None):
    MLflowHealthSensor(task_id="gate", **TEAM, **USUAL)

with DAG("shut_gates", schedule=None):
    for name, flags in {
        "": {},
        "_soft": {"soft_fail": True},
        "_never": {"never_fail": True},
    }.items():
        late = {**USUAL, "timeout": 6, "mlflow_conn_id": "ml_a"}
        MLflowHealthSensor(task_id=f"late{name}", **flags, **late)
        MLflowHealthSensor(task_id=f"hopeless{name}", mlflow_conn_id="nowhere", **flags, **USUAL)
