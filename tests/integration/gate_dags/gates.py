"""DAGs for tests of the gate, with airflow's own scheduler logic around it."""

from __future__ import annotations

import threading
import time

from airflow.sdk import DAG, task

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
from airflow_provider_hokusai_dns.resolver import LastKnownGood
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

with DAG("xcoms_beside_the_store", schedule=None) as xcoms_beside_the_store:

    @task
    def talk(ti=None):
        """What a relay does for a child, while the task talks to Airflow."""
        over = threading.Event()
        hostname, store = MLflowHook().resolve().hostname, runtime.store()
        stored = []

        def use_the_store():
            number = 0
            while not over.is_set():
                record = LastKnownGood(hostname, (f"10.0.0.{number % 250}",), time.time(), ttl=10.0)
                stored.append(store.write(record) and store.read(hostname) is not None)
                number += 1

        thread = threading.Thread(target=use_the_store)
        thread.start()
        try:
            for number in range(100):
                ti.xcom_push(key="number", value=number)
                assert ti.xcom_pull(task_ids="talk", key="number") == number
        finally:
            over.set()
            thread.join()
        assert len(stored) > 10
        assert all(stored)
        return number

    talk()
