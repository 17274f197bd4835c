"""The plain training again, in a process of its own that knows MLflow alone.

What makes the difference is one argument: ``pre_execute``.
"""

from __future__ import annotations

import sys

from airflow.sdk import Param, dag, task

from airflow_provider_hokusai_dns.operators.mlflow import mlflow_for_children


@dag(
    schedule=None,
    catchup=False,
    tags=["mlflow", "demo"],
    params={"pause": Param(0.05, type="number", minimum=0, description="Seconds between metrics.")},
)
def child_training() -> None:
    """Train in another process, without this package in it."""

    @task.external_python(
        python=sys.executable, expect_airflow=False, pre_execute=mlflow_for_children()
    )
    def train(pause: str) -> str:
        import time

        import mlflow

        mlflow.set_experiment("child-process")
        with mlflow.start_run(run_name="child process") as run:
            for step in range(200):
                mlflow.log_metric("loss", 1 / (step + 1), step=step, synchronous=False)
                time.sleep(float(pause))
            mlflow.log_dict({"weights": [0.1, 0.2, 0.3]}, "model/weights.json")
            mlflow.log_text("It learned.", "notes/report.txt")
            client = mlflow.MlflowClient()
            client.create_registered_model("child-process")
            source = f"{run.info.artifact_uri}/model"
            client.create_model_version("child-process", source, run_id=run.info.run_id)
            mlflow.flush_async_logging()
        return str(run.info.run_id)

    train("{{ params.pause }}")


child_training()
