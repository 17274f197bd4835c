"""A real Airflow for a browser: API server behind a path, scheduler, DAG processor, on SQLite."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.airflow_home import migrate
from tests.servers import _watch_over, end_session, free_port, wait_until

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 240.0
#: Airflow's own roles; a viewer may see everything and start nothing.
USERS = ("admin", "viewer")


class RealAirflow:
    """Airflow's processes. A context manager.

    :param home: its folder; kept.
    :param settings: further environment variables, for connections and configuration.
    """

    def __init__(self, home: Path, settings: dict[str, str]) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/team/airflow"
        self.passwords = {user: secrets.token_urlsafe(9) for user in USERS}
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps(self.passwords))
        (home / "dags").mkdir()
        (home / "dags" / "refresh.py").write_text(
            (REPOSITORY / "dags" / "hokusai_dns_refresh.py").read_text()
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))}
        self.environment = kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "PYTHONWARNINGS": "ignore",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{u}" for u in USERS),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **settings,
        }
        self._processes: dict[str, tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> RealAirflow:
        migrate(self.environment)
        try:
            for part in ("api-server", "scheduler", "dag-processor"):
                self.start(part)
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for part in list(self._processes):
            self.stop(part)

    def start(self, part: str) -> None:
        """Start one of Airflow's processes."""
        options = ["--skip-serve-logs"] if part == "scheduler" else []
        with (self.home / f"{part}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", part, *options],
                env=self.environment, cwd=self.home, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._processes[part] = process, _watch_over(process.pid)

    def stop(self, part: str) -> None:
        """End one of them, and all of its children, at once: what it knows is thrown away."""
        process, watchdog = self._processes.pop(part)
        end_session(process, watchdog)

    def token(self, user: str) -> str:
        """A token of a user, as the login form would leave it in a cookie."""
        given = {"username": user, "password": self.passwords[user]}
        return self._request("POST", "/auth/token", given, {})["access_token"]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call of Airflow's REST API, by the administrator.

        :raises urllib.error.HTTPError: for an answer that is no success.
        """
        headers = {"Authorization": f"Bearer {self.token('admin')}"}
        return self._request(method, path, body, headers)

    def _request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {**headers, "Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def wait(self) -> None:
        """Return when the API server answers and knows the refresh DAG."""

        def up() -> bool:
            for part, (process, _) in self._processes.items():
                assert process.poll() is None, self.log(part)
            with contextlib.suppress(OSError, urllib.error.HTTPError):
                self.ask("GET", "/api/v2/dags/hokusai_dns_refresh")
                return True
            return False

        def logs() -> str:
            return "\n".join(self.log(part) for part in self._processes)

        wait_until(up, START_SECONDS, pause=1.0, told=logs)

    def log(self, part: str) -> str:
        """The end of what a process wrote."""
        return (self.home / f"{part}.log").read_text(errors="replace")[-3000:]
