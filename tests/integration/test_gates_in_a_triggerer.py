"""Gates in a real Airflow: scheduler, triggerer, API server and DAG processor as processes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from airflow_provider_hokusai_dns.runtime.policy_variable import KEY
from tests.airflow_home import migrate
from tests.conftest import SEARCH
from tests.servers import _dismiss, _watch_over, free_port, wait_until

#: One that no connection leads to.
LISTED = "files.triggerer-test.local"
HERE = Path(__file__).parent
PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
PATIENCE = 180.0

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


class Airflow:
    """An Airflow on SQLite, and its REST API. A context manager.

    :param dags: a file with the DAGs.
    :param wanted: ids of DAGs without which it is not ready.
    :param settings: further environment variables.
    """

    def __init__(
        self,
        home: Path,
        dags: Path = HERE / "triggerer_dags.py",
        wanted: Collection[str] = ("gates", "one_gate", "shut_gates"),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self._wanted = set(wanted)
        self._base = f"http://127.0.0.1:{free_port()}"
        self._running: dict[str, tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]] = {}
        self._token = ""
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({"admin": "admin-password"}))
        (home / "dags").mkdir()
        shutil.copy(dags, home / "dags")
        foreign = ("AIRFLOW", "MLFLOW", "DNS_", "OTEL_")
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(HERE.parents[1]),
            "PYTHONWARNINGS": "ignore",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self._base.rpartition(":")[2],
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self._base}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": key,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # On a busy machine a request of a task may take longer than Airflow's 5 s.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            # So that the triggers of a triggerer that was killed are soon given to another.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **(settings or {}),
        }

    def __enter__(self) -> Airflow:
        migrate(self._environment)
        try:
            for part in PARTS:
                self.start(part)
            self.until(lambda: self._sign_in() and self._wanted <= self._dags())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for part in reversed([*self._running]):
            self.kill(part, signal.SIGTERM)

    def start(self, part: str, name: str = "") -> None:
        """Start a part of Airflow; a second one of a kind under a name of its own."""
        name = name or part
        arguments = ["--skip-serve-logs"] if part in ("scheduler", "triggerer") else []
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", part, *arguments],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._running[name] = process, _watch_over(process.pid)

    def kill(self, part: str, how: signal.Signals) -> None:
        process, watchdog = self._running.pop(part)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(15)
        _dismiss(watchdog)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is true; gives what it is."""

        def while_all_run() -> Any:
            for part, (process, _) in self._running.items():
                assert process.poll() is None, self.log(part)
            return condition()

        def logs() -> str:
            return "\n".join(f"--- {part}\n{self.log(part)}" for part in self._running)

        return wait_until(while_all_run, PATIENCE, pause=1.0, told=logs)

    def log(self, part: str) -> str:
        return (self.home / f"{part}.log").read_text(errors="replace")[-3000:]

    def call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"{self._base}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def _sign_in(self) -> bool:
        given = {"username": "admin", "password": "admin-password"}
        try:
            self._token = self.call("POST", "/auth/token", given)["access_token"]
        except OSError:
            return False
        return True

    def _dags(self) -> set[str]:
        return {dag["dag_id"] for dag in self.call("GET", "/api/v2/dags")["dags"]}

    def run(self, dag_id: str, **conf: str) -> None:
        body = {"logical_date": None, "dag_run_id": "one", "conf": conf}
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)

    def tasks(self, dag_id: str) -> dict[str, dict[str, Any]]:
        path = f"/api/v2/dags/{dag_id}/dagRuns/one/taskInstances"
        found = self.call("GET", path)["task_instances"]
        return {
            one["task_id"] + (f"[{one['map_index']}]" if one["map_index"] >= 0 else ""): one
            for one in found
        }

    def verdict(self, dag_id: str, task: str) -> dict[str, Any]:
        task_id, _, index = task.removesuffix("]").partition("[")
        path = f"/api/v2/dags/{dag_id}/dagRuns/one/taskInstances/{task_id}/xcomEntries/return_value"
        value = self.call("GET", f"{path}?map_index={index or -1}&stringify=false")["value"]
        assert isinstance(value, dict), value
        return value


@pytest.fixture(scope="module")
def names() -> Iterator[DNSServer]:
    with DNSServer() as server:
        server.set_records(LISTED, ["127.0.0.9"], ttl=600)
        yield server


@pytest.fixture(scope="module")
def airflow(shut_tiny, names, tmp_path_factory) -> Iterator[Airflow]:
    settings = {
        "AIRFLOW__HOKUSAI_DNS__HOSTNAMES": LISTED,
        "AIRFLOW__HOKUSAI_DNS__NAMESERVERS": names.address,
    }
    with Airflow(tmp_path_factory.mktemp("triggerer"), settings=settings) as one:
        for team, port in (("a", shut_tiny.port), ("b", 1)):
            connection = {"connection_id": f"ml_{team}", "conn_type": "mlflow"}
            place = {"host": shut_tiny.address, "port": port, "schema": "http"}
            one.call("POST", "/api/v2/connections", {**connection, **place})
        yield one


def states(tasks):
    return {task: one["state"] for task, one in tasks.items()}


def test_listed_names_are_looked_up_and_the_policy_followed_in_running_processes(airflow, names):
    """The API server at its start, the triggerer with its first gate; no restart for the policy."""
    lookups = lambda: sum(one.name == LISTED and one.rdtype == "A" for one in names.queries)  # noqa: E731
    airflow.until(lambda: lookups() == 1)
    airflow.call("POST", "/api/v2/variables", {"key": KEY, "value": '{"window": 299}'})
    airflow.run("one_gate", team="a")
    airflow.until(lambda: lookups() == 2)
    log = airflow.home / "triggerer.log"
    airflow.until(lambda: "policy changed by the Variable" in log.read_text())
    answer = airflow.call("GET", "/hokusai-dns/health/mlflow")
    assert answer["policy"]["problem"] is None
    wrong = {"key": KEY, "value": '{"window": 298, "max_stale": "hunter2"}'}
    airflow.call("PATCH", f"/api/v2/variables/{KEY}", wrong)
    seen = airflow.until(
        lambda: (
            (policy := airflow.call("GET", "/hokusai-dns/health/mlflow")["policy"])["problem"]
            and policy
        )
    )
    assert seen["values"] in ({"window": 299}, {})  # the page may not have been open before
    assert "hunter2" not in seen["problem"]
    airflow.until(lambda: "The policy stays as it was" in log.read_text())
    assert "hunter2" not in log.read_text()
    airflow.call("DELETE", f"/api/v2/variables/{KEY}")


def test_gates_wait_survive_their_triggerer_and_open_without_a_worker(airflow, shut_tiny):
    """They begin there, with the connection their template names, and end there, with their XCom.

    Two that wait on the wrong port open when the connection is corrected.
    """
    airflow.run("gates", team="a")
    airflow.until(lambda: len(waiting := states(airflow.tasks("gates"))) == 15
                  and set(waiting.values()) == {"deferred"})  # fmt: skip
    airflow.kill("triggerer", signal.SIGKILL)
    airflow.start("triggerer")
    asked = shut_tiny.count(SEARCH)
    airflow.until(lambda: shut_tiny.count(SEARCH) >= asked + 3)
    asked, began = shut_tiny.count(SEARCH), time.monotonic()
    time.sleep(5)
    assert (
        shut_tiny.count(SEARCH) - asked <= (time.monotonic() - began) / 0.9 + 1
    )  # 14 gates ask it

    shut_tiny.answers.clear()
    tasks = airflow.until(
        lambda: (
            sorted(states(tasks := airflow.tasks("gates")).values())
            == ["deferred"] + ["success"] * 14
            and tasks
        )
    )
    assert tasks["mapped[1]"]["state"] == "deferred"  # its connection leads nowhere
    for number in range(10):
        task = tasks[f"gate_{number}"]
        assert task["queued_when"] is None  # no executor has ever heard of it
        assert task["try_number"] == 1
        verdict = airflow.verdict("gates", f"gate_{number}")
        assert (verdict["level"], verdict["conn_id"]) == ("healthy", "ml_a")
    assert tasks["from_worker"]["queued_when"] is not None
    assert airflow.verdict("gates", "from_worker")["level"] == "healthy"
    assert tasks["to_worker"]["queued_when"] is not None
    assert airflow.call("GET", "/api/v2/assets/events")["total_entries"] == 1
    assert airflow.call("GET", "/api/v2/variables/opened")["value"] == "told"

    place = {"connection_id": "ml_b", "conn_type": "mlflow", "port": shut_tiny.port}
    airflow.call("PATCH", "/api/v2/connections/ml_b?update_mask=port", place)
    airflow.until(lambda: states(airflow.tasks("gates"))["mapped[1]"] == "success")
    assert airflow.verdict("gates", "mapped[0]")["conn_id"] == "ml_a"
    assert airflow.verdict("gates", "mapped[1]")["conn_id"] == "ml_b"


def test_gates_that_stay_shut_end_as_their_flags_say(airflow, shut_tiny):
    """A timeout, and a cause that waiting cannot cure: neither is tried again."""
    shut_tiny.answers[SEARCH] = (503, {})
    airflow.run("shut_gates")
    over = {"success", "failed", "skipped"}
    tasks = airflow.until(
        lambda: (
            set(states(tasks := airflow.tasks("shut_gates")).values()) <= over
            and len(tasks) == 6
            and tasks
        )
    )
    assert states(tasks) == {
        "late": "failed",
        "late_soft": "skipped",
        "late_never": "failed",
        "hopeless": "failed",
        "hopeless_soft": "skipped",
        "hopeless_never": "skipped",
    }
    assert {one["try_number"] for one in tasks.values()} == {1}
    for name in ("late", "late_soft", "late_never"):
        assert airflow.verdict("shut_gates", name)["state"] == "backend_down"
    for name in ("hopeless", "hopeless_soft", "hopeless_never"):
        assert airflow.verdict("shut_gates", name)["cause"] == "undefined"
