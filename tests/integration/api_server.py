"""Airflow's real API server in a process of its own, on SQLite, with our plugin in it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from tests.airflow_home import migrate
from tests.servers import _watch_over, end_session, free_port, wait_until

START_SECONDS = 200.0
USERS = ("viewer", "admin")


class ApiServer:
    """A context manager.

    :param home: its folder.
    :param settings: further environment variables.
    :param prefix: the path of ``[api] base_url``.
    """

    def __init__(self, home: Path, settings: dict[str, str], prefix: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{prefix}"
        self.log_file = home / "api-server.log"
        passwords = home / "passwords.json"
        passwords.write_text(json.dumps({user: f"{user}-password" for user in USERS}))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))}
        self.environment = kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "PYTHONWARNINGS": "ignore",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{u}" for u in USERS),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-but-long-enough-for-everybody",
            **settings,
        }
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> ApiServer:
        migrate(self.environment)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "api-server"],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._watchdog = _watch_over(self._process.pid)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        end_session(self._process, self._watchdog)

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors="replace")

    def _wait(self) -> None:
        def up() -> bool:
            assert self._process.poll() is None, self.log[-5000:]
            with contextlib.suppress(requests.RequestException):
                return requests.get(f"{self.url}/hokusai-dns/health", timeout=5).ok
            return False

        wait_until(up, START_SECONDS, pause=0.2, told=lambda: self.log[-5000:])

    def token(self, user: str) -> str:
        """A token, as the login form would leave it in a cookie."""
        if user not in self._tokens:
            given = {"username": user, "password": f"{user}-password"}
            answer = requests.post(f"{self.url}/auth/token", json=given, timeout=60)
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def get(
        self, path: str, user: str | None = None, *, cookie: bool = False, **given: Any
    ) -> requests.Response:
        """One of our endpoints, asked without a login or by a user, with a header or a cookie."""
        if user is not None and cookie:
            given["cookies"] = {"_token": self.token(user)}
        elif user is not None:
            given["headers"] = {"Authorization": f"Bearer {self.token(user)}"}
        return requests.get(f"{self.url}/hokusai-dns{path}", timeout=60, **given)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One call of Airflow's own REST API, by the administrator."""
        answer = requests.request(
            method, self.url + path, json=body, timeout=60,
            headers={"Authorization": f"Bearer {self.token('admin')}"},
        )  # fmt: skip
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def connect(self, **fields: Any) -> dict[str, Any]:
        """Make or change ``mlflow_default``; gives what the Test button would send."""
        body = {"connection_id": "mlflow_default", "conn_type": "mlflow", "login": None,
                "password": None, "schema": None, **fields}  # fmt: skip
        body["extra"] = json.dumps(body.get("extra", {}))
        try:
            self.api("PATCH", "/api/v2/connections/mlflow_default", body)
        except requests.HTTPError as error:
            if error.response.status_code != 404:
                raise
            self.api("POST", "/api/v2/connections", body)
        return body

    def set_variable(self, key: str, value: str) -> None:
        """Make or change a Variable, as an admin does in the UI."""
        body = {"key": key, "value": value}
        try:
            self.api("PATCH", f"/api/v2/variables/{key}", body)
        except requests.HTTPError as error:
            if error.response.status_code != 404:
                raise
            self.api("POST", "/api/v2/variables", body)
