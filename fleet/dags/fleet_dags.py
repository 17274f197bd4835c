"""The DAGs of ``make fleet``: gates that wait, gated trainings, and the same without a gate."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor
from fleet import names
from fleet.sizes import GATES_PER_RUN, INTERVAL, TIMEOUT

#: A gate that begins, waits and ends in the triggerer.
_NO_WORKER: dict[str, Any] = {"deferrable": True, "start_from_trigger": True}


def _dag(name: str) -> Callable[[Callable[[], None]], Callable[[], object]]:
    return dag(
        dag_id=name,
        schedule=None,
        catchup=False,
        tags=["mlflow", "fleet"],
        params={
            "metrics": Param(100, type="integer", minimum=1, description="Values to log."),
            "seconds": Param(3, type="number", minimum=0, description="How long it trains."),
        },
    )


# While the API server is restarted no task can begin, and each attempt to is a try.
@task(retries=20, retry_delay=timedelta(seconds=5))
def train(params: dict[str, Any] | None = None) -> str:
    """Log values one by one, as a training does."""
    import mlflow

    settings = params or {}
    name = get_current_context()["dag_run"].run_id
    with MLflowHook().run("fleet", name) as run:
        for step in range(settings["metrics"]):
            mlflow.log_metric("loss", 1 / (step + 1), step=step, synchronous=False)
            time.sleep(settings["seconds"] / settings["metrics"])
    return str(run.info.run_id)


def _gate(task_id: str = "gate", **arguments: Any) -> MLflowHealthSensor:
    return MLflowHealthSensor(
        task_id=task_id, poke_interval=INTERVAL, timeout=TIMEOUT, retries=0, **arguments
    )


@_dag(names.GATES)
def gates() -> None:
    """Nothing but gates."""
    for number in range(GATES_PER_RUN):
        _gate(f"gate_{number}", mlflow_conn_id=names.COUNTED, **_NO_WORKER)


@_dag(names.TRAINING)
def training() -> None:
    """A gate that needs no worker, then a training."""
    _gate(**_NO_WORKER) >> train()


@_dag(names.UNGATED)
def ungated() -> None:
    """A training alone."""
    train()


@_dag(names.POKE)
def poke() -> None:
    """A gate that waits on a worker."""
    _gate(mode="poke") >> train()


@_dag(names.RESCHEDULE)
def reschedule() -> None:
    """A gate that releases its worker between two checks."""
    _gate(mode="reschedule") >> train()


@_dag(names.DEFERRABLE)
def deferrable() -> None:
    """A gate that makes its first check on a worker, and the others in the triggerer."""
    _gate(deferrable=True) >> train()


@_dag(names.FROM_TRIGGER)
def from_trigger() -> None:
    """A gate that needs no worker."""
    _gate(**_NO_WORKER) >> train()


for each in (gates, training, ungated, poke, reschedule, deferrable, from_trigger):
    each()
