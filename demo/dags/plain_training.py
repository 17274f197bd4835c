"""The same training as ``mlflow_training_example``, with MLflow's own client and nothing else.

It is here for comparison only. Left alone, MLflow's client repeats each call seven times and gives
each 120 s; the parameters say how often and how long it may, so that the comparison ends while you
watch.
"""

from __future__ import annotations

import time
from typing import Any

from airflow.sdk import BaseHook, Param, dag, get_current_context, task


@dag(
    schedule=None,
    catchup=False,
    tags=["mlflow", "demo"],
    params={
        "pause": Param(0.05, type="number", minimum=0, description="Seconds between two metrics."),
        "max_retries": Param(1, type="integer", minimum=0, description="Of one call."),
        "timeout": Param(5, type="integer", minimum=1, description="Of one call, seconds."),
    },
)
def plain_training() -> None:
    """Train without this package."""

    @task
    def train(params: dict[str, Any] | None = None) -> dict[str, str]:
        import os

        settings = params or {}
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(settings["max_retries"])
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(settings["timeout"])
        import mlflow

        server = BaseHook.get_connection("mlflow_default")
        mlflow.set_tracking_uri(f"{server.schema}://{server.host}:{server.port}")
        mlflow.set_experiment("plain-client")
        tags = {"demo.dag_run": get_current_context()["dag_run"].run_id}
        with mlflow.start_run(run_name="plain client", tags=tags) as run:
            mlflow.log_params({"steps": 200, "pause": settings["pause"]})
            for step in range(200):
                mlflow.log_metric("loss", 1 / (step + 1), step=step, synchronous=False)
                time.sleep(settings["pause"])
            mlflow.log_dict({"weights": [0.1, 0.2, 0.3]}, "model/weights.json")
            mlflow.log_text("It learned.", "notes/report.txt")
            version = register(run.info.run_id, f"{run.info.artifact_uri}/model")
            mlflow.flush_async_logging()
        return {"run_id": run.info.run_id, "model_version": version}

    train()


def register(run_id: str, source: str) -> str:
    """Register what the run has stored as the next version of the model."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        client.create_registered_model("plain-client")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(client.create_model_version("plain-client", source, run_id=run_id).version)


plain_training()
