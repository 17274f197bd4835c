"""A DNS server, an MLflow server and Airflow, each a separate real process.

Airflow's API server, scheduler, DAG processor and triggerer are started directly: they are what
``airflow standalone`` starts, on the same SQLite database and with the same simple login, but
up sooner, with a third less memory, and the death of one is noticed instead of swallowed.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo.airflow_api import AirflowAPI
from demo.console import Console
from demo.errors import DemoError
from demo.layout import (
    AIRFLOW_ADDRESS,
    DNS_ADDRESS,
    FIRST_ADDRESS,
    MLFLOW_NAME,
    REPOSITORY,
    Layout,
)
from demo.mlflow_api import MLflowAPI
from demo.names import Names
from demo.processes import Child, Processes

USER = "admin"
CONNECTION = "mlflow_default"
# Log servers of their own ports would be for workers on other machines.
_PARTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
# Foreign settings would change what the story shows; a proxy has no place on loopback.
_FOREIGN = ("AIRFLOW", "MLFLOW", "DNS_", "PYTHON", "OTEL_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Stack:
    """Everything that runs, and the ports to it.

    :param layout: where it lives.
    :param processes: who starts and ends it.
    """

    #: Airflow's processes by name, each with its arguments of the ``airflow`` command.
    parts: Mapping[str, Sequence[str]] = _PARTS
    dag_folders: Sequence[Path] = (REPOSITORY / "dags", REPOSITORY / "demo" / "dags")
    database = "SQLite"

    def __init__(self, layout: Layout, processes: Processes, console: Console) -> None:
        self.layout = layout
        self.processes = processes
        self.console = console
        self.password = secrets.token_urlsafe(9)
        self.names = Names(layout)
        self.airflow = AirflowAPI(layout.airflow_base, USER, self.password)
        self._mlflow: Child | None = None
        self._mlflow_address = FIRST_ADDRESS
        self._home = layout.root / "airflow"
        self._hidden = {
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        }

    @property
    def mlflow_address(self) -> str:
        """Where the MLflow server runs, or ran last."""
        return self._mlflow_address

    @property
    def mlflow(self) -> MLflowAPI:
        """The MLflow server that runs now."""
        layout = self.layout
        return MLflowAPI(self._mlflow_address, layout.mlflow_port, layout.mlflow_host)

    def start(self) -> None:
        """Start everything, and return when all of it is usable."""
        self._copy_dags()
        self._passwords.touch(mode=0o600)
        self._passwords.write_text(json.dumps({USER: self.password}))

        migration = self.processes.run(
            "airflow-db-migrate", [*python_module("airflow"), *_MIGRATE], self.airflow_env()
        )
        self.start_names()
        self.start_mlflow(FIRST_ADDRESS)
        self.console.until(
            "Airflow to create its database",
            lambda: self.processes.finished(migration),
            seconds=300,
            alive=self.processes.check,
        )
        self.console.say(f"Airflow's database exists ({self.database})")
        for part in self.parts:
            self.start_part(part)
        self.await_mlflow()
        self.await_airflow()
        self.console.say(
            f"Airflow is running: {', '.join(self.parts)}"
            + ("" if self.layout.private else f" (port {self.layout.airflow_port})")
        )
        self.airflow.add_connection(
            connection_id=CONNECTION,
            conn_type="mlflow",
            host=MLFLOW_NAME,
            port=self.layout.mlflow_port,
            schema="http",
            description="The demo's MLflow, by its name",
        )

    def _copy_dags(self) -> None:
        """Copy our DAGs; one that was edited since the last time stays as it is."""
        dags = self._home / "dags"
        dags.mkdir(parents=True, exist_ok=True)
        memory = self._home / "copied-dags.json"
        copied = json.loads(memory.read_text()) if memory.exists() else {}
        for folder in self.dag_folders:
            for file in sorted(folder.glob("*.py")):
                target = dags / file.name
                if target.exists() and target.read_text() != copied.get(file.name):
                    self.console.say(f"{file.name} was edited and stays")
                    continue
                shutil.copy(file, target)
                copied[file.name] = file.read_text()
        memory.write_text(json.dumps(copied))

    def start_part(self, part: str) -> Child:
        """Start one of Airflow's processes."""
        command = [*python_module("airflow"), *self.parts[part]]
        return self.processes.start(f"airflow-{part}", command, self.airflow_env(part))

    def await_airflow(self) -> None:
        """Return when Airflow says that it is healthy."""
        unhealthy: list[str] = []

        def healthy() -> bool:
            unhealthy[:] = self.airflow.unhealthy_parts()
            return not unhealthy

        self.console.until(
            "Airflow to be healthy",
            healthy,
            seconds=300,
            alive=self.processes.check,
            detail=lambda: f"not yet: {', '.join(unhealthy)}" if unhealthy else "",
            pause=0.5,
        )

    def await_dags(self, wanted: set[str]) -> None:
        """Return when Airflow knows these DAGs.

        :raises DemoError: one cannot be imported.
        """
        missing = set(wanted)

        ours = {file.name for folder in self.dag_folders for file in folder.glob("*.py")}

        def parsed() -> bool:
            for error in self.airflow.import_errors():
                if Path(error.partition(":")[0]).name in ours:
                    raise DemoError(f"A DAG file cannot be imported. {error}")
            missing.difference_update(self.airflow.dag_ids())
            return not missing

        self.console.until(
            "Airflow to read the DAGs",
            parsed,
            seconds=180,
            alive=self.processes.check,
            detail=lambda: f"not yet: {', '.join(sorted(missing))}",
        )
        self.console.say(f"Airflow has read {', '.join(sorted(wanted))}")

    def start_names(self) -> None:
        """Start the DNS server, and let the name point to the first MLflow."""
        self.processes.start("dns", self.names.command(), plain_environment(), cwd=self.layout.root)
        self.console.until(
            "the DNS server", self.names.is_up, seconds=20, alive=self.processes.check, pause=0.05
        )
        self.names.answer(FIRST_ADDRESS)
        self.console.say(f"DNS server is running on {DNS_ADDRESS}:{self.layout.dns_port}")

    def start_mlflow(self, address: str) -> None:
        """Start an MLflow server on this address, over the one database and artifact folder."""
        store = self.layout.root / "mlflow"
        store.mkdir(exist_ok=True)
        hosts = (MLFLOW_NAME, f"{MLFLOW_NAME}:*", "localhost:*", "127.0.0.1:*")
        command = [
            *python_module("mlflow"),
            "server",
            *("--host", address, "--port", str(self.layout.mlflow_port), "--workers", "1"),
            *("--artifacts-destination", str(store / "artifacts")),
            *("--allowed-hosts", ",".join(hosts)),
        ]
        # Not on the command line, where other users could read a password in it.
        store_uri = {"MLFLOW_BACKEND_STORE_URI": self.tracking_store(store)}
        env = plain_environment() | _MLFLOW_SETTINGS | store_uri
        self._mlflow_address = address
        self._mlflow = self.processes.start(f"mlflow-{address}", command, env, cwd=store)

    def await_mlflow(self) -> None:
        """Return when the MLflow server started last answers."""
        self.console.until(
            f"MLflow on {self._mlflow_address} to answer",
            self.mlflow.is_up,
            seconds=300,
            alive=self.processes.check,
        )
        self.console.say(f"MLflow is running on {self._mlflow_address}:{self.layout.mlflow_port}")

    def stop_mlflow(self) -> None:
        """Stop the MLflow server that runs now."""
        if self._mlflow is not None:
            self.processes.stop(self._mlflow)
            self._mlflow = None

    def tracking_store(self, folder: Path) -> str:
        """Where MLflow keeps its runs."""
        return f"sqlite:///{folder}/mlflow.db"

    @property
    def _passwords(self) -> Path:
        return self._home / "passwords.json"

    def airflow_env(self, part: str = "") -> dict[str, str]:
        """Return the settings of one of Airflow's processes, secrets included."""
        base = self.layout.airflow_base
        env = plain_environment() | {
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{base}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords),
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__API__HOST": AIRFLOW_ADDRESS,
            "AIRFLOW__API__PORT": str(self.layout.airflow_port),
            "AIRFLOW__API__BASE_URL": self.layout.airflow_url or base,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # The default of 1 s is paid at almost every hop from task to task.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # Airflow may notice the end of a task's process this much too late. With the default of
            # 5 s a gate that is due again after 5 s is then taken for failed.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        if not self.layout.private:
            # The stand-in for a real outage: see demo/stand_in/sitecustomize.py.
            server = f"{DNS_ADDRESS}:{self.layout.dns_port}"
            env |= {
                "AIRFLOW__HOKUSAI_DNS__NAMESERVERS": server,
                "PYTHONPATH": str(REPOSITORY / "demo" / "stand_in"),
                "HOKUSAI_DEMO_NAMESERVER": server,
                "HOKUSAI_DEMO_NAME": MLFLOW_NAME,
            }
        return env | self._hidden


_MIGRATE = ("db", "migrate")
_MLFLOW_SETTINGS = {
    # Without its job runners MLflow is 2 processes instead of 10, and up in half the time.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # After an outage every client comes back at once. With the default pool of 15 database
    # connections this server was seen to block itself for minutes ("QueuePool limit reached"),
    # and to answer 400, which no client repeats.
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "50",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "50",
}


def python_module(module: str) -> list[str]:
    """Return how to start a module of this environment."""
    return [sys.executable, "-m", module]


def plain_environment() -> dict[str, str]:
    """Return this environment without what would change the story."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_FOREIGN) and key.upper() not in _PROXIES
    }
    # Airflow and MLflow call their own scripts from PATH.
    scripts = str(Path(sys.executable).parent)
    return env | {
        "PATH": f"{scripts}{os.pathsep}{env.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "NO_COLOR": "1",
    }
