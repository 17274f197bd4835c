"""DAGs for tests of the gate, with airflow's own scheduler logic around it."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

USUAL = {"task_id": "gate", "poke_interval": 0.2, "timeout": 30}
HOPELESS = {"mlflow_conn_id": "nowhere", "fail_fast_on": ["missing"]}

for name, arguments in {
    "gate_poke": {"mode": "poke"},
    "gate_reschedule": {"mode": "reschedule"},
    "gate_deferrable": {"deferrable": True},
    "gate_missing": {**HOPELESS, "mode": "reschedule"},
    "gate_missing_soft": {**HOPELESS, "deferrable": True, "soft_fail": True},
}.items():
    with DAG(name, schedule=None) as dag:
        MLflowHealthSensor(**{**USUAL, **arguments})
    globals()[name] = dag

with DAG("refresh_with_a_bad_name", schedule=None) as bad_name:
    DNSRefreshOperator(
        task_id="refresh",
        mlflow_conn_ids="mlflow_default",
        hostnames="{{ dag_run.conf['hostnames'] }}",
    )

with DAG("summary_of_a_shut_gate", schedule=None) as shut_gate:
    gate = MLflowHealthSensor(**HOPELESS, **USUAL)

    @task(trigger_rule="all_done")
    def say(verdict):
        return verdict["sentence"]

    say(gate.output)

with DAG("killed_and_tried_again", schedule=None) as tried_again:

    @task(retries=1, retry_delay=0)
    def train(ti=None):
        hook = MLflowHook()
        if ti.try_number == 1:
            hook.run("tries").__enter__()  # as a worker that was killed leaves it
            import mlflow

            mlflow.tracking.fluent._active_run_stack.set([])
            raise RuntimeError("killed")
        with hook.run("tries") as run:
            return run.info.run_id

    train()
