"""One behaviour of a gate in every mode, in a real Airflow: its XCom, its reason, its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SEARCH
from tests.integration.mode_dags import MODES
from tests.integration.test_gates_in_a_triggerer import Airflow, states
from tests.servers import is_installed

HERE = Path(__file__).parent
OVER = {"success", "failed", "skipped", "upstream_failed"}

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not is_installed(), reason="Airflow finds us by our entry points alone"),
]


@pytest.fixture(scope="module")
def airflow(shut_tiny, tmp_path_factory) -> Iterator[Airflow]:
    wanted = ("open_gates", "late_gates", "cut_gates", "misspelt_gates")
    with Airflow(tmp_path_factory.mktemp("modes"), HERE / "mode_dags.py", wanted) as one:
        place = {"host": shut_tiny.address, "port": shut_tiny.port, "schema": "http"}
        connection = {"connection_id": "ml", "conn_type": "mlflow", **place}
        one.call("POST", "/api/v2/connections", connection)
        yield one


def ended(airflow, dag_id):
    """All tasks of a run, when each has ended."""
    return airflow.until(
        lambda: (tasks := airflow.tasks(dag_id)) and set(states(tasks).values()) <= OVER and tasks
    )


def raw(airflow, dag_id, task):
    """An XCom as it is stored, and not as Airflow's REST API reads it for people."""
    path = f"/api/v2/dags/{dag_id}/dagRuns/one/taskInstances/{task}/xcomEntries/return_value"
    return airflow.call("GET", f"{path}?stringify=false")["value"]


def log_of(airflow, dag_id, task, attempt=1):
    path = f"/api/v2/dags/{dag_id}/dagRuns/one/taskInstances/{task}/logs/{attempt}"
    return str(airflow.call("GET", path)["content"])


def test_the_xcom_is_a_dict_downstream_in_every_mode(airflow, shut_tiny):
    """Also that of a gate that ended in the triggerer; and what only a worker does is done."""
    airflow.run("open_gates")
    waiting = {"deferred", "running", "up_for_reschedule", "scheduled", "queued"}
    gates = {*MODES, "late_outlet", "telling"}
    airflow.until(lambda: shut_tiny.count(SEARCH) > 5 and {
        states(airflow.tasks("open_gates"))[name] for name in gates} <= waiting)  # fmt: skip
    shut_tiny.answers.clear()
    try:
        tasks = ended(airflow, "open_gates")
    finally:
        shut_tiny.answers[SEARCH] = (503, {})
    assert set(states(tasks).values()) == {"success"}
    for mode in MODES:
        told = raw(airflow, "open_gates", f"after_{mode}")
        assert (mode, told["type"], told["said"].split(":")[0]) == (mode, "dict", "healthy")
    for mode in ("from_trigger",):
        assert tasks[mode]["queued_when"] is None, "no worker has ever heard of it"
    events = airflow.call("GET", "/api/v2/assets/events")["asset_events"]
    assert [event["source_task_id"] for event in events] == ["late_outlet"]
    path = "/api/v2/dags/open_gates/dagRuns/one/taskInstances/telling/xcomEntries/told"
    assert "it is open" in str(airflow.call("GET", path)["value"])


def test_a_gate_that_timed_out_says_why_in_every_mode(airflow):
    """In its log and in its XCom; it is not tried again.

    Airflow itself may end a try of a gate in reschedule mode, when its scheduler hears too late of
    the end of the last process. Such a try says nothing of a timeout, and is followed by another.
    """
    airflow.run("late_gates")
    tasks = ended(airflow, "late_gates")
    for mode in MODES:
        assert tasks[mode]["state"] == "failed", mode
        told = raw(airflow, "late_gates", f"after_{mode}")
        assert told["type"] == "dict"
        assert "check the database behind MLflow" in told["said"], mode
        reason = "Gate timed out after 15 s. MLflow is unhealthy (backend down)"
        tries = range(1, tasks[mode]["try_number"] + 1)
        assert mode == "reschedule" or len(tries) == 1, mode
        timed_out = [reason in log_of(airflow, "late_gates", mode, one) for one in tries]
        assert timed_out == [False] * (len(tries) - 1) + [True], mode


def test_execution_timeout_ends_a_gate_and_says_why(airflow):
    """A deferrable gate too, which Airflow itself would leave until its timeout; it is retried.

    In reschedule mode each check is a run of its own, so nothing is too long.
    """
    airflow.run("cut_gates")
    cut = sorted(MODES.keys() - {"reschedule"})
    airflow.until(lambda: all(
        airflow.tasks("cut_gates")[mode]["state"] in OVER for mode in cut))  # fmt: skip
    tasks = airflow.tasks("cut_gates")
    for mode in cut:
        assert (tasks[mode]["state"], tasks[mode]["try_number"]) == ("failed", 2), mode
        assert "Gate ended by execution_timeout (12 s). MLflow is unhealthy" in log_of(
            airflow, "cut_gates", mode, 2
        ), mode
    path = "/api/v2/dags/cut_gates/dagRuns/one/taskInstances/reschedule"
    assert tasks["reschedule"]["state"] not in OVER
    airflow.call("PATCH", path, {"new_state": "failed"})
    ended(airflow, "cut_gates")
    for mode in cut:
        assert "check the database" in raw(airflow, "cut_gates", f"after_{mode}")["said"], mode


def test_a_misspelt_connection_ends_a_gate_soon_in_every_mode(airflow):
    """Airflow's API server says clearly that there is none; soft_fail skips."""
    airflow.run("misspelt_gates")
    tasks = ended(airflow, "misspelt_gates")
    for mode in MODES:
        tries = range(1, tasks[mode]["try_number"] + 1)
        logs = [log_of(airflow, "misspelt_gates", mode, one)[-5000:] for one in tries]
        assert tasks[mode]["state"] == "skipped", f"{mode}: {logs}\n{airflow.log('scheduler')}"
        told = raw(airflow, "misspelt_gates", f"after_{mode}")
        assert "There is no connection 'mll'" in told["said"], mode
