"""A training that loses no data when the name of the MLflow server disappears. Copy it."""

from __future__ import annotations

import logging
import time
from typing import Any

from airflow.sdk import Param, dag, task

from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

log = logging.getLogger("airflow.task")


@dag(
    schedule=None,
    catchup=False,
    tags=["mlflow", "example"],
    params={
        "run_name": Param("training", type="string", description="Name of the MLflow run."),
        "pause": Param(0.05, type="number", minimum=0, description="Seconds between two metrics."),
    },
)
def mlflow_training_example():
    """Wait for MLflow, train, and log a summary."""
    gate = MLflowHealthSensor(task_id="gate", poke_interval=15, mode="reschedule")

    @task
    def train(params: dict[str, Any] | None = None) -> dict[str, str]:
        import mlflow

        settings = params or {}
        hook = MLflowHook()
        with hook.run("hokusai-example", settings["run_name"]) as run:
            mlflow.log_params({"steps": 200, "pause": settings["pause"]})
            for step in range(200):
                mlflow.log_metric("loss", 1 / (step + 1), step=step, synchronous=False)
                time.sleep(settings["pause"])
            mlflow.log_dict({"weights": [0.1, 0.2, 0.3]}, "model/weights.json")
            mlflow.log_text("It learned.", "notes/report.txt")
            version = register(hook, run.info.run_id, f"{run.info.artifact_uri}/model")
        return {"run_id": run.info.run_id, "model_version": version}

    @task
    def summary(gate: dict[str, Any], trained: dict[str, str]) -> dict[str, Any]:
        log.info("Gate: %s", gate["sentence"])
        log.info("Training: run %(run_id)s, model version %(model_version)s", trained)
        return {"gate": gate, "trained": trained}

    trained = train()
    gate >> trained
    summary(gate.output, trained)


def register(hook: MLflowHook, run_id: str, source: str) -> str:
    """Register the stored files of the run as the next version of the model."""
    from mlflow.exceptions import MlflowException

    client = hook.get_conn()
    try:
        client.create_registered_model("hokusai-example")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(client.create_model_version("hokusai-example", source, run_id=run_id).version)


mlflow_training_example()
