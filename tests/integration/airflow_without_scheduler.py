"""A real API server and real task processes, driven by a test: DAG by DAG, and counted between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from airflow_provider_hokusai_dns.runtime.policy_variable import KEY
from tests.airflow_home import migrate
from tests.integration.counting_proxy import CountingProxy, Request
from tests.servers import _dismiss, _watch_over, free_port, session_members

HERE = Path(__file__).parent
#: Generous: a machine that is busy with something else must not fail a test.
_START = 180.0


class Airflow:
    """Runs DAGs of ``counted_dags``; every request of their tasks goes by the proxy."""

    def __init__(self, home: Path, proxy: CountingProxy, api: str, orders: IO[bytes]) -> None:
        self.home, self.proxy, self.api = home, proxy, api
        self._orders = orders
        self._runs = 0

    def run(self, dag: str, state: str = "success") -> dict[str, Any]:
        """Run one DAG to its end; gives states, XComs, and the requests that it cost.

        :param state: how it has to end.
        """
        self._runs += 1
        out = self.home / f"run-{self._runs}.json"
        self.proxy.requests.clear()
        self._orders.write(f"{dag} {out}\n".encode())
        self._orders.flush()
        end = time.monotonic() + _START
        while not out.exists():
            assert time.monotonic() < end, f"{dag} did not end:\n{self.log()[-5000:]}"
            time.sleep(0.05)
        result: dict[str, Any] = json.loads(out.read_text())
        assert "error" not in result, result["error"]
        assert result["state"] == state, self.log()[-5000:]
        requests: list[Request] = list(self.proxy.requests)
        of_policy = [one for one in requests if KEY in one.path]
        of_names = [one for one in requests if KEY not in one.path]
        return {**result, "requests": requests, "variable_gets": _count(of_names, "GET"),
                "variable_puts": _count(requests, "PUT"),
                "policy_gets": _count(of_policy, "GET")}  # fmt: skip

    def variable(self, key: str) -> Any:
        """What the database holds."""
        with contextlib.closing(sqlite3.connect(self.home / "airflow.db")) as database:
            found = database.execute("select val from variable where key = ?", [key]).fetchone()
        return None if found is None else json.loads(found[0])

    def get(self, path: str) -> Any:
        """Ask the API server as its administrator."""
        return self._call("GET", path)

    def patch(self, path: str, change: dict[str, Any]) -> Any:
        """Change something as the administrator does in the UI."""
        return self._call("PATCH", path, json.dumps(change).encode())

    def _call(self, method: str, path: str, content: bytes | None = None) -> Any:
        body = json.dumps({"username": "admin", "password": "admin-password"}).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.api}/auth/token", body, headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            token = json.load(answer)["access_token"]
        asked = urllib.request.Request(f"{self.api}{path}", content, headers, method=method)
        asked.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def log(self) -> str:
        """What the task processes printed."""
        return (self.home / "tasks.log").read_text(errors="replace")


def _count(requests: list[Request], method: str) -> int:
    return sum(request.is_variable and request.method == method for request in requests)


@contextlib.contextmanager
def airflow_without_scheduler(home: Path, connection: dict[str, Any]) -> Iterator[Airflow]:
    """Start everything, and leave nothing behind.

    :param home: an Airflow home; gets the database.
    :param connection: ``mlflow_default``.
    """
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({"admin": "admin-password"}))
    port = free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "counted_dags"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}/",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-but-long-enough-for-everybody",
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection),
        "PYTHONPATH": str(HERE.parents[1]),
    }
    migrate(environment)
    command = ["airflow", "api-server", "--host", "127.0.0.1", "--port", str(port)]
    with (
        CountingProxy(port) as proxy,
        _running(command, environment, home / "api.log", stdin=subprocess.DEVNULL) as api,
    ):
        url = f"http://127.0.0.1:{port}"
        _wait_for(f"{url}/api/v2/version", api, home / "api.log")
        environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = (
            f"http://127.0.0.1:{proxy.port}/execution/"
        )
        command = [str(HERE / "run_dags.py")]
        with _running(command, environment, home / "tasks.log") as driver:
            assert driver.stdin is not None
            try:
                yield Airflow(home, proxy, url, driver.stdin)
            finally:
                driver.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    driver.wait(20)


@contextlib.contextmanager
def _running(
    command: list[str], environment: dict[str, str], log: Path, stdin: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program in a session of its own, of which no process is left at the end."""
    start = command if command[0].endswith(".py") else ["-m", *command]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, *start], env=environment, stdin=stdin, stdout=stream,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    watchdog = _watch_over(process.pid)  # for a test run that is killed
    try:
        yield process
    finally:
        for number, seconds in ((signal.SIGINT, 20), (signal.SIGKILL, 20)):
            for pid in session_members(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                if not session_members(process.pid):
                    break
        _dismiss(watchdog)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            assert process.poll() is None, log.read_text()[-5000:]
            assert time.monotonic() < end, log.read_text()[-5000:]
            time.sleep(0.1)
