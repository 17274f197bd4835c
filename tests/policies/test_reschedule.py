"""The retry policy in a real scheduler of Airflow 3.4, which can run a task again for nothing."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from tests.page.real_airflow import RealAirflow
from tests.servers import Stranger, free_port, has_program, looks_like_mlflow, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not hasattr(RetryAction, "RESCHEDULE"),
        reason="Airflow before 3.4 cannot reschedule by a policy; test_next.py runs this there",
    ),
    pytest.mark.skipif(not has_program("curl"), reason="needs curl"),
]

TASKS = ("of_the_task", "of_a_child")
ADDRESS = "127.0.0.61"


@pytest.fixture
def port() -> int:
    """Of an MLflow that is away."""
    return free_port(ADDRESS)


@pytest.fixture
def airflow(tmp_path: Path, port: int) -> Iterator[RealAirflow]:
    connection = {
        "conn_type": "mlflow", "host": ADDRESS, "port": port,
        "extra": {"deadline": 2, "request_timeout": 2},
    }  # fmt: skip
    there = RealAirflow(tmp_path, {"AIRFLOW_CONN_MLFLOW_AWAY": json.dumps(connection)})
    folder = Path(__file__).parent / "dags"
    shutil.copy(folder / "rescheduled.py", tmp_path / "dags" / "rescheduled.py")
    with there:
        yield there


def test_a_task_whose_mlflow_is_away_is_rescheduled(airflow: RealAirflow, port: int) -> None:
    """Again and again, with one retry at most: no try is spent, and no slot is held meanwhile.

    Although the policy has a delay of 3 s: the process of an attempt may end later, above all one
    with a relay, and Airflow 3.4.0b2 counts that as a failure of the next attempt.
    """
    dag = "/api/v2/dags/rescheduled"
    wait_until(
        lambda: _there(airflow, dag), 240, pause=0.5, told=lambda: airflow.log("dag-processor")
    )
    run = airflow.ask("POST", f"{dag}/dagRuns", {"logical_date": None})["dag_run_id"]

    def of(task: str) -> dict[str, Any]:
        return dict(airflow.ask("GET", f"{dag}/dagRuns/{run}/taskInstances/{task}"))

    starts: dict[str, set[str]] = {task: set() for task in TASKS}
    slots = []

    def rescheduled_often() -> bool:
        found = {task: of(task) for task in TASKS}
        for task, one in found.items():
            assert one["try_number"] <= 1 + not_started(airflow, task), airflow.log("scheduler")
            assert one["state"] != "failed", airflow.log("scheduler")
            if one["state"] == "up_for_reschedule":
                starts[task].add(one["start_date"])
        if all(one["state"] == "up_for_reschedule" for one in found.values()):
            pool = airflow.ask("GET", "/api/v2/pools/default_pool")
            slots.append(pool["running_slots"] + pool["queued_slots"])
        return bool(slots) and min(map(len, starts.values())) >= 2

    wait_until(rescheduled_often, 240, pause=0.3, told=lambda: f"{starts} {slots}")
    assert 0 in slots
    with Stranger(looks_like_mlflow, host=ADDRESS, port=port):
        wait_until(
            lambda: all(of(task)["state"] == "success" for task in TASKS),
            120, pause=0.5, told=lambda: str([of(task)["state"] for task in TASKS]),
        )  # fmt: skip
    for task in TASKS:
        assert of(task)["try_number"] == 1 + not_started(airflow, task), airflow.log("scheduler")


def not_started(airflow: RealAirflow, task: str) -> int:
    """Tries that were spent before the task began: on a busy machine its process may not start."""
    log = (airflow.home / "scheduler.log").read_text(errors="replace")
    return len(re.findall(rf"TaskInstance: rescheduled\.{task} .* finished with state failed", log))


def _there(airflow: RealAirflow, dag: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(airflow.ask("GET", dag))
    return False
