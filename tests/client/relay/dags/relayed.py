"""Operators that start processes, and tasks that a retry policy judges; see ``test_airflow.py``."""

from __future__ import annotations

import importlib.metadata
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.mlflow import mlflow_for_children
from airflow_provider_hokusai_dns.policies.retry import MLflowRetryPolicy

# With a space: what ends in .sh is the name of a template to Airflow.
SCRIPT = f"bash {os.environ['RELAY_TEST_SCRIPT']} "
PYTHON = os.environ["RELAY_TEST_PYTHON"]
MLFLOW = f"mlflow-skinny=={importlib.metadata.version('mlflow-skinny')}"
POLICY = MLflowRetryPolicy(delay=timedelta(seconds=2), max_delay=timedelta(seconds=5))


def train() -> str:
    """A training that knows MLflow alone, in an interpreter that has nothing of ours."""
    import importlib.util
    import os

    import mlflow

    assert importlib.util.find_spec("airflow_provider_hokusai_dns") is None
    assert os.environ["MLFLOW_TRACKING_URI"].startswith("http://127.0.0.1:")
    with mlflow.start_run() as run:
        mlflow.log_param("python", os.environ.get("VIRTUAL_ENV", "") + mlflow.__version__)
        mlflow.log_metric("later", 1.0, synchronous=False)
        mlflow.log_text("an artifact", "note.txt")
    return str(run.info.run_id)


with DAG("bash_operator"):
    BashOperator(task_id="t", bash_command=SCRIPT, pre_execute=mlflow_for_children())

with DAG("bash_that_dies"):
    BashOperator(
        task_id="t",
        bash_command=f'echo "token: $MLFLOW_TRACKING_TOKEN"; {SCRIPT}; '
        f"{SCRIPT.replace('child.sh', 'begin.sh')}; exit 3",
        pre_execute=mlflow_for_children(),
    )

with DAG("task_bash"):

    @task.bash(task_id="t", pre_execute=mlflow_for_children())
    def bash() -> str:
        return SCRIPT

    bash()

with DAG("external_python"):
    task.external_python(task_id="t", python=PYTHON, pre_execute=mlflow_for_children())(train)()

with DAG("virtualenv"):
    task.virtualenv(
        task_id="t", requirements=[MLFLOW], system_site_packages=False,
        pre_execute=mlflow_for_children(),
    )(train)()  # fmt: skip


def train_through(folder: str) -> str:
    """Half of it before an outage, half in it."""
    import pathlib
    import time

    import mlflow

    here = pathlib.Path(folder)
    with mlflow.start_run() as run:
        for step in range(40):
            if step == 20:
                mlflow.flush_async_logging()
                (here / "half").write_text(run.info.run_id)
                while not (here / "go").exists():
                    time.sleep(0.05)
            mlflow.log_metric("later", step, step=step, synchronous=False)
            mlflow.log_metric("at_once", step, step=step)
        mlflow.log_text("an artifact", "note.txt")
    return str(run.info.run_id)


with DAG("outage"):
    for name, kind in (
        ("external", task.external_python(python=PYTHON)),
        ("virtual", task.virtualenv(requirements=[MLFLOW], system_site_packages=False)),
    ):
        kind(train_through).override(task_id=name, pre_execute=mlflow_for_children())(
            f"{os.environ['RELAY_TEST_FOLDER']}/{name}"
        )

with DAG("in_a_run"):

    @task(task_id="t")
    def in_a_run() -> str:
        """Children of a run join it."""
        import subprocess
        import sys

        hook = MLflowHook()
        with hook.run("in a run") as run, hook.relay() as relay:
            code = "import mlflow\nwith mlflow.start_run(): mlflow.log_param('of', 'a child')"
            environment = relay.environment()
            assert "AIRFLOW_CONN_MLFLOW_DEFAULT" not in environment
            subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        return str(run.info.run_id)

    in_a_run()

with DAG("without_a_run"):

    @task(task_id="t")
    def without_a_run() -> str:
        """A model by its alias, and a search, by MLflow's fluent API while no run is open."""
        import mlflow

        def double(model_input: list[str]) -> list[str]:
            return [each * 2 for each in model_input]

        hook = MLflowHook()
        with hook.run("trained") as run:
            mlflow.pyfunc.log_model(
                name="model", python_model=double, pip_requirements=[],
                registered_model_name="doubling",
            )  # fmt: skip
        hook.get_conn().set_registered_model_alias("doubling", "live", "1")
        before = mlflow.get_tracking_uri()
        with hook.fluent():
            assert mlflow.pyfunc.load_model("models:/doubling@live").predict(["a"]) == ["aa"]
            experiments = [run.info.experiment_id]
            (found,) = mlflow.search_runs(experiments, output_format="list")
            assert mlflow.active_run() is None
        assert mlflow.get_tracking_uri() == before
        return str(found.info.run_id)

    without_a_run()

with DAG("killed"):
    BashOperator(
        task_id="t",
        bash_command=f"{SCRIPT.replace('child.sh', 'begin.sh')}; sleep 300",
        pre_execute=mlflow_for_children(),
    )

# --- the retry policy


def _count_try(context: Any) -> None:
    flag = Path(os.environ["RELAY_TEST_FOLDER"]) / "tries"
    with flag.open("a") as file:
        file.write(f"{context['ti'].task_id}\n")


with DAG("policy"):

    @task(
        retries=3, retry_delay=timedelta(seconds=1), pre_execute=_count_try,
        retry_policy=MLflowRetryPolicy("mlflow_away", delay=timedelta(seconds=2)),
    )  # fmt: skip
    def away_once() -> None:
        """MLflow is away in the first try."""
        with MLflowHook("mlflow_away").run("policy"):
            pass

    @task(retries=3, retry_delay=timedelta(seconds=1), retry_policy=POLICY, pre_execute=_count_try)
    def unknown_run() -> None:
        """It does not exist, and never will."""
        with MLflowHook().run(run_id="f" * 32):
            pass

    @task(
        retries=3, retry_delay=timedelta(seconds=1), pre_execute=_count_try,
        retry_policy=MLflowRetryPolicy("mlflow_refused", delay=timedelta(seconds=2)),
    )  # fmt: skip
    def refused_host() -> None:
        """The server does not take this name."""
        MLflowHook("mlflow_refused").get_conn().search_experiments()

    @task(retries=1, retry_delay=timedelta(seconds=1), retry_policy=POLICY, pre_execute=_count_try)
    def own_error() -> None:
        """The author's own."""
        raise ValueError("mine")

    away_once()
    unknown_run()
    refused_host()
    own_error()
