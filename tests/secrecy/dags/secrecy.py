"""A DAG that does all that one can do with connections, good and bad ones."""

from __future__ import annotations

import json
import logging
import os
import traceback
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

log = logging.getLogger("airflow.task")
GOOD = "mlflow_default"
BAD = ("mlflow_wrong", "mlflow_token", "mlflow_lost", "mlflow_tls")
ALL_DONE = {"trigger_rule": "all_done"}


def dump_environment(where: str) -> None:
    """What a subprocess of the task would inherit."""
    target = Path(os.environ["SECRECY_FOLDER"]) / f"environment-{where}.txt"
    target.write_text("\n".join(f"{key}={value}" for key, value in os.environ.items()))


def look(hook: MLflowHook) -> dict[str, Any]:
    """Everything that a hook tells without raising."""
    found = {
        "status": hook.get_mlflow_status(),
        "dns": hook.get_dns_info(),
        "button": hook.test_connection(),
        "uri": hook.tracking_uri,
        "repr": repr(hook) + repr(hook.server) + repr(vars(hook)),
    }
    log.info("%s", found)
    return found


with DAG("secrecy", schedule=None) as dag:
    refresh = DNSRefreshOperator(
        task_id="refresh", mlflow_conn_ids=(GOOD, *BAD), hostnames="{{ var.value.hostnames }}"
    )
    gate = MLflowHealthSensor(
        task_id="gate", checks=("dns", "tracking", "registry", "artifact"), poke_interval=0.2,
        timeout=60, **ALL_DONE,
    )  # fmt: skip

    @task(**ALL_DONE)
    def train() -> dict[str, Any]:
        import mlflow

        hook = MLflowHook()
        with hook.run("secrecy", "good", tags={"by": "us"}) as run:
            dump_environment("run")
            mlflow.log_param("depth", 1)
            for step in range(20):
                mlflow.log_metric("loss", step, step=step, synchronous=False)
            mlflow.log_text("text", "note.txt")
            mlflow.trace(lambda: 1)()
            uri = mlflow.get_tracking_uri()
            answer = hook.rest(
                "POST", "/api/2.0/mlflow/experiments/search", json={"max_results": 1}
            )
        dump_environment("after")
        return {**look(hook), "fluent": uri, "artifacts": run.info.artifact_uri, "rest": answer}

    @task(**ALL_DONE)
    def stumble() -> dict[str, Any]:
        """Every bad connection by every door, with the whole exception as an author may log it."""
        texts: dict[str, Any] = {}
        for conn_id in BAD:
            hook = MLflowHook(conn_id)
            for name, call in {
                "run": lambda h=hook: h.run().__enter__(),
                "client": lambda h=hook: h.get_conn().search_experiments(),
                "rest": lambda h=hook: h.rest("GET", "/api/2.0/mlflow/runs/get"),
                "rest_post": lambda h=hook: h.rest("POST", "/api/2.0/mlflow/runs/create", json={}),
                "look": lambda h=hook: look(h),
            }.items():
                try:
                    texts[f"{conn_id}.{name}"] = json.dumps(call(), default=repr)
                except Exception as error:
                    log.exception("%s by %s", conn_id, name)
                    chain = [repr(error), str(error), traceback.format_exc()]
                    texts[f"{conn_id}.{name}"] = f"raised {chain}"
                    dump_environment(f"{conn_id}-{name}")
        return texts

    @task(**ALL_DONE)
    def fails_by_itself() -> None:
        """Airflow writes what comes out of a task."""
        with MLflowHook("mlflow_wrong").run():
            pass

    shut = MLflowHealthSensor(
        task_id="shut", mlflow_conn_id="mlflow_wrong", poke_interval=0.1, timeout=30, **ALL_DONE
    )

    refresh >> gate >> train() >> stumble() >> fails_by_itself() >> shut
