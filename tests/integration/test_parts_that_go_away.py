"""Gates while parts of Airflow go away: two triggerers of which one dies, and the API server."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SEARCH
from tests.integration.test_gates_in_a_triggerer import Airflow, states
from tests.servers import is_installed

HERE = Path(__file__).parent
OVER = {"success", "failed", "skipped"}
#: Seconds between two heartbeats of a task, and how many may fail before Airflow stops it. The
#: defaults are 5 and 3.
HEARTBEAT, FAILED_HEARTBEATS = 2, 3
AWAY = 30.0

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not is_installed(), reason="Airflow finds us by our entry points alone"),
]


@pytest.fixture(scope="module")
def airflow(shut_tiny, tmp_path_factory) -> Iterator[Airflow]:
    settings = {
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": str(HEARTBEAT),
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": str(FAILED_HEARTBEATS),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
        "AIRFLOW__CORE__PARALLELISM": "4",
    }
    home = tmp_path_factory.mktemp("away")
    with Airflow(home, HERE / "mode_dags.py", ("many_gates", "away_gates"), settings) as one:
        place = {"host": shut_tiny.address, "port": shut_tiny.port, "schema": "http"}
        connection = {"connection_id": "ml", "conn_type": "mlflow", **place}
        one.call("POST", "/api/v2/connections", connection)
        yield one


def test_two_triggerers_share_gates_and_one_takes_over_from_the_other(airflow, shut_tiny):
    """Each checks once per interval for all of its gates; each gate opens once, with its XCom."""
    airflow.start("triggerer", "second triggerer")
    airflow.run("many_gates")
    airflow.until(lambda: len(found := states(airflow.tasks("many_gates"))) == 20
                  and set(found.values()) == {"deferred"})  # fmt: skip
    asked, began = shut_tiny.count(SEARCH), time.monotonic()
    time.sleep(6)
    each = (time.monotonic() - began) / 0.9 + 1
    assert shut_tiny.count(SEARCH) - asked <= 2 * each, "not one for each gate"
    airflow.kill("triggerer", signal.SIGKILL)
    shut_tiny.answers.clear()
    try:
        tasks = airflow.until(
            lambda: (
                set(states(tasks := airflow.tasks("many_gates")).values()) == {"success"} and tasks
            )
        )
    finally:
        shut_tiny.answers[SEARCH] = (503, {})
        airflow.start("triggerer")
    assert {one["try_number"] for one in tasks.values()} == {1}
    for number in range(20):
        assert airflow.verdict("many_gates", f"gate_{number}")["level"] == "healthy"


def test_what_survives_an_api_server_that_is_away(airflow, shut_tiny):
    """As docs/dag-authors.md says: what waits in the triggerer; not what waits on a worker."""
    asked = shut_tiny.count(SEARCH)
    airflow.run("away_gates")
    waiting = {
        "poke": "running",
        "reschedule": "up_for_reschedule",
        **dict.fromkeys(("deferrable", "from_trigger", "to_worker"), "deferred"),
    }
    airflow.until(lambda: states(airflow.tasks("away_gates")) == waiting
                  and shut_tiny.count(SEARCH) > asked + 3)  # fmt: skip
    airflow.kill("api-server", signal.SIGKILL)
    time.sleep(AWAY)
    airflow.start("api-server")
    airflow.until(airflow._sign_in)
    shut_tiny.answers.clear()
    try:
        tasks = airflow.until(
            lambda: set(states(tasks := airflow.tasks("away_gates")).values()) <= OVER and tasks
        )
    finally:
        shut_tiny.answers[SEARCH] = (503, {})
    ends = states(tasks)
    assert {ends[mode] for mode in ("deferrable", "from_trigger", "to_worker")} == {"success"}
    assert (ends["poke"], ends["reschedule"]) == ("failed", "failed"), "they have no retries"
