"""A Redis of our own, for Celery's queue: in memory only, with a password, on a free port."""

from __future__ import annotations

import secrets
import shutil
import socket
from pathlib import Path

from demo.console import Console
from demo.errors import DemoError
from demo.layout import AIRFLOW_ADDRESS
from demo.processes import Processes
from demo.stack import plain_environment


class Redis:
    """One Redis server.

    :param folder: for its settings.
    """

    def __init__(self, folder: Path, port: int, processes: Processes, console: Console) -> None:
        self._folder = folder
        self._port = port
        self._processes = processes
        self._console = console
        self._password = secrets.token_urlsafe(16)

    def start(self) -> None:
        """Start it, and return when it listens."""
        program = find_program()
        if program is None:
            raise DemoError("There is no Redis server on this machine (Debian: redis-server).")
        self._folder.mkdir(mode=0o700)
        settings = self._folder / "redis.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"bind {AIRFLOW_ADDRESS}\nport {self._port}\nrequirepass {self._password}\n"
            f'dir "{self._folder}"\nsave ""\nappendonly no\n'
        )
        self._processes.start("redis", [program, str(settings)], plain_environment())
        self._console.until(
            "Redis", self._listens, seconds=60, alive=self._processes.check, pause=0.1
        )

    @property
    def url(self) -> str:
        """Where it is, with its password."""
        return f"redis://:{self._password}@{AIRFLOW_ADDRESS}:{self._port}/0"

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(2)
            return probe.connect_ex((AIRFLOW_ADDRESS, self._port)) == 0


def find_program() -> str | None:
    """Return the server program."""
    return shutil.which("redis-server")
