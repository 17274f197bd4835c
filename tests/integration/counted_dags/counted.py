"""DAGs for what a task costs at Airflow's API; see ``test_tasks_at_the_api.py``."""

from __future__ import annotations

import time
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

RUN_URL = "http://mlflow.example.local:5000/#/experiments/1/runs/abc"


@task(multiple_outputs=False)
def resolve(times: int = 1) -> dict[str, Any]:
    """Resolve as an author's code would, and say how long it took."""
    hook, began = MLflowHook(), time.monotonic()
    seen: dict[str, Any] = {"source": None, "addresses": [], "error": None}
    for _ in range(times):
        try:
            found = hook.resolve()
            seen |= {"source": found.source.value, "addresses": sorted(found.addresses)}
        except DNSResolutionError as error:
            seen |= {"error": error.cause.value}
    seen["seconds"] = time.monotonic() - began
    # A task goes on after this; one that ended here would leave what is in the background behind.
    hook.resolver.wait_idle(60)
    return seen


@task
def refresh() -> list[str]:
    """Write the last known good, whatever is stored."""
    return list(MLflowHook().resolver.refresh(MLflowHook().tracking_uri, always=True).addresses)


@task
def train() -> None:
    """Leave a link behind, as ``hook.run`` does."""
    from airflow.sdk import get_current_context

    from airflow_provider_hokusai_dns import runtime
    from airflow_provider_hokusai_dns.links.mlflow_run import leave_url

    ti = get_current_context()["ti"]
    runtime.store().call_in_time("The link", lambda: leave_url(ti, RUN_URL))


@task
def pretend() -> None:
    """Leave something behind that is no link to a web page."""
    from airflow.sdk import get_current_context

    get_current_context()["ti"].xcom_push("_link_MLflowRunLink", "javascript:alert(1)")


@task
def write() -> None:
    """Keep a run open until the task is stopped."""
    with MLflowHook().run():
        time.sleep(300)


with DAG("one_task") as one_task:
    resolve()

with DAG("many_calls") as many_calls:
    resolve(times=500)

with DAG("two_writers") as two_writers:
    refresh.override(task_id="first")()
    refresh.override(task_id="second")()

with DAG("links") as links:
    MLflowHealthSensor(task_id="gate", poke_interval=1, timeout=60)
    DNSRefreshOperator(task_id="refresh")
    train()
    pretend()

with DAG("stopped") as stopped:
    write()
