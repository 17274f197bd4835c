"""What happened, read from Airflow and MLflow over REST: nothing is recorded by the demo itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from demo.airflow_api import AirflowAPI
from demo.mlflow_api import MLflowAPI

GATE_OPERATOR = "MLflowHealthSensor"
METRIC = "loss"
VARIABLE_PREFIX = "hokusai_dns_"
#: Tags by which a run at MLflow names the DAG run it belongs to: the hook's, and the plain DAG's.
_DAG_RUN_TAGS = ("airflow.run_id", "demo.dag_run")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a DAG run. Times are seconds since the epoch."""

    task_id: str
    state: str
    start: float | None
    end: float | None
    pid: int | None
    is_gate: bool


@dataclass(frozen=True, slots=True)
class Tracked:
    """One run, as the MLflow server has it."""

    run_id: str
    status: str
    start: float
    end: float | None
    metrics: int
    artifacts: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DagRun:
    """One DAG run with what its gate said and what arrived at MLflow."""

    dag_id: str
    run_id: str
    state: str
    queued: float
    start: float | None
    end: float | None
    conf: dict[str, Any]
    tasks: tuple[Task, ...]
    gate: dict[str, Any] | None = None
    refresh: dict[str, Any] | None = None
    tracked: Tracked | None = None

    @property
    def seconds(self) -> float:
        """From being triggered to its end."""
        return (self.end or self.queued) - self.queued

    @property
    def gate_task(self) -> Task | None:
        """The task that waited for MLflow."""
        return next((task for task in self.tasks if task.is_gate), None)

    @property
    def train_task(self) -> Task | None:
        """The task that wrote to MLflow."""
        return next((task for task in self.tasks if task.task_id == "train"), None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it, at the end of the story."""

    runs: dict[str, DagRun]
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)


def collect(airflow: AirflowAPI, mlflow: MLflowAPI) -> Evidence:
    """Ask both servers for everything that the report shows."""
    models = mlflow.model_versions()
    tracked = {}
    for run in mlflow.runs():
        if (dag_run := dag_run_of(run)) is not None:
            tracked[dag_run] = _tracked(run, mlflow, models)
    runs = {
        each["dag_run_id"]: _dag_run(each, airflow, tracked.get(each["dag_run_id"]))
        for each in airflow.dag_runs()
    }
    return Evidence(runs, stored(airflow))


def stored(airflow: AirflowAPI) -> dict[str, dict[str, Any]]:
    """Return the shared last known good Variables, read by key."""
    found = airflow.variables(VARIABLE_PREFIX)
    return {key: json.loads(value) for key, value in found.items()}


def dag_run_of(run: dict[str, Any]) -> str | None:
    """Return the id of the DAG run that an MLflow run is tagged with."""
    tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
    return next((tags[key] for key in _DAG_RUN_TAGS if key in tags), None)


def _tracked(run: dict[str, Any], mlflow: MLflowAPI, models: dict[str, list[str]]) -> Tracked:
    info = run["info"]
    run_id = info["run_id"]
    end = info.get("end_time")
    return Tracked(
        run_id=run_id,
        status=info["status"],
        start=info["start_time"] / 1000,
        end=end / 1000 if end else None,
        metrics=mlflow.metric_counts(run_id).get(METRIC, 0),
        artifacts=tuple(mlflow.artifacts(run_id)),
        models=tuple(models.get(run_id, ())),
    )


def _dag_run(run: dict[str, Any], airflow: AirflowAPI, tracked: Tracked | None) -> DagRun:
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    tasks = sorted(
        (_task(each) for each in airflow.tasks(dag_id, run_id)), key=lambda task: task.start or 0
    )
    gate = next((task for task in tasks if task.is_gate), None)
    refresh = next((task for task in tasks if task.task_id == "refresh"), None)
    return DagRun(
        dag_id=dag_id,
        run_id=run_id,
        state=run["state"],
        queued=seconds(run["queued_at"]) or 0.0,
        start=seconds(run["start_date"]),
        end=seconds(run["end_date"]),
        conf=run.get("conf") or {},
        tasks=tuple(tasks),
        gate=airflow.xcom(dag_id, run_id, gate.task_id) if gate else None,
        refresh=airflow.xcom(dag_id, run_id, refresh.task_id) if refresh else None,
        tracked=tracked,
    )


def _task(task: dict[str, Any]) -> Task:
    return Task(
        task_id=task["task_id"],
        state=task["state"] or "none",
        start=seconds(task["start_date"]),
        end=seconds(task["end_date"]),
        pid=task["pid"],
        is_gate=GATE_OPERATOR in (task.get("operator_name"), task.get("operator")),
    )


def seconds(stamp: str | None) -> float | None:
    """Return a time as Airflow writes it in seconds since the epoch."""
    return None if stamp is None else datetime.fromisoformat(stamp).timestamp()
