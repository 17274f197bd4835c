"""What Airflow knows about the task that this process runs, for its MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_hokusai_dns import runtime

#: With these a task neither succeeds nor fails; not every Airflow version has all of them.
_NO_FAILURES = (
    "AirflowSkipException",
    "AirflowRescheduleException",
    "DagRunTriggerException",
    "DownstreamTasksSkipped",
    "TaskAwaitingInput",
    "TaskDeferred",
)


def _context() -> Mapping[str, Any] | None:
    """The context of the task that this process runs; ``None`` outside a task."""
    from airflow.sdk import get_current_context

    try:
        return get_current_context()
    except RuntimeError:
        return None


def link_to_run(url: str) -> None:
    """Store the URL of a run, for a button on the task's page."""
    from airflow_provider_hokusai_dns.links.mlflow_run import leave_url

    if (context := _context()) is None:
        return
    ti = context["ti"]
    if getattr(getattr(ti, "task", None), "do_xcom_push", True):
        runtime.store().call_in_time("The link to the MLflow run", lambda: leave_url(ti, url))


def tags() -> dict[str, str]:
    """Which task and which try this is, and a link to it; empty outside a task."""
    from airflow_provider_hokusai_dns.client import orphaned_runs

    if (context := _context()) is None:
        return {}
    ti = context["ti"]
    named = {
        orphaned_runs.TAG_DAG: ti.dag_id,
        orphaned_runs.TAG_TASK: ti.task_id,
        orphaned_runs.TAG_DAG_RUN: ti.run_id,
        orphaned_runs.TAG_MAP_INDEX: "-1" if ti.map_index is None else str(ti.map_index),
        orphaned_runs.TAG_TRY: str(ti.try_number),
    }
    if rescheduled := context.get("task_reschedule_count"):
        named[orphaned_runs.TAG_RESCHEDULES] = str(rescheduled)
    if link := getattr(ti, "log_url", None):
        named[orphaned_runs.TAG_URL] = str(link)
    return named


def status_of(error: BaseException) -> str:
    """The run's final status. A task that skips, defers or triggers has not failed."""
    from airflow.sdk import exceptions

    from airflow_provider_hokusai_dns.client import run_end

    kinds = tuple(getattr(exceptions, name) for name in _NO_FAILURES if hasattr(exceptions, name))
    return run_end.FINISHED if isinstance(error, kinds) else run_end.status_of(error)
