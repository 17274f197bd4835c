"""A PostgreSQL of our own: Debian's programs, our folder, a free port, gone at the end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
from pathlib import Path

from demo.console import Console
from demo.errors import DemoError
from demo.layout import AIRFLOW_ADDRESS
from demo.processes import Processes
from demo.stack import plain_environment

_USER = "fleet"
# The data is thrown away at the end, so nothing has to survive a crash of the machine.
_SETTINGS = {
    "listen_addresses": AIRFLOW_ADDRESS,
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class Postgres:
    """One database server with some empty databases.

    :param folder: where its data goes; it must not exist yet.
    """

    def __init__(self, folder: Path, port: int, processes: Processes, console: Console) -> None:
        self._folder = folder
        self._port = port
        self._processes = processes
        self._console = console
        self._password = secrets.token_urlsafe(16)

    def start(self, *databases: str) -> None:
        """Start it, and return when these databases are there."""
        programs = find_programs()
        if programs is None:
            raise DemoError("There is no PostgreSQL server on this machine (Debian: postgresql).")
        password = self._folder.parent / "postgres-password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        self._folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self._folder, _ordinary_user().pw_uid, -1)
        options = ("-D", str(self._folder), "-U", _USER, "--auth", "scram-sha-256", "--no-sync")
        initdb = [str(programs / "initdb"), *options, "--encoding", "UTF8", "--locale", "C"]
        making = self._processes.run(
            "postgres-initdb",
            as_ordinary_user([*initdb, "--pwfile", str(password)]),
            plain_environment(),
        )
        self._until("an empty PostgreSQL", lambda: self._processes.finished(making))
        password.unlink()
        settings = [each for key, value in _SETTINGS.items() for each in ("-c", f"{key}={value}")]
        server = [str(programs / "postgres"), "-D", str(self._folder), "-p", str(self._port)]
        self._processes.start(
            "postgres", as_ordinary_user([*server, *settings]), plain_environment()
        )
        self._until("PostgreSQL", lambda: self._make(databases))

    def url(self, database: str) -> str:
        """Return where a database is, for SQLAlchemy, with its password."""
        # With the driver named: without it SQLAlchemy 2.1 takes one that may not be there.
        server = f"{_USER}:{self._password}@{AIRFLOW_ADDRESS}:{self._port}"
        return f"postgresql+psycopg2://{server}/{database}"

    def _make(self, databases: tuple[str, ...]) -> bool:
        import psycopg2

        try:
            connection = psycopg2.connect(
                host=AIRFLOW_ADDRESS,
                port=self._port,
                user=_USER,
                password=self._password,
                dbname="postgres",
            )
        except psycopg2.OperationalError:
            return False
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                for database in databases:
                    cursor.execute(f'CREATE DATABASE "{database}"')
        finally:
            connection.close()
        return True

    def _until(self, what: str, check: object) -> None:
        assert callable(check)
        self._console.until(what, check, seconds=60, alive=self._processes.check, pause=0.1)


def find_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL server's programs; Debian has it off the PATH."""
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    debian = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(debian, key=lambda path: int(path.parent.name), default=None)


def as_ordinary_user(command: list[str]) -> list[str]:
    """Return this command such that PostgreSQL accepts it, which refuses to be run by root.

    Started by root it becomes an ordinary user, who keeps one right: to walk through folders that
    are closed to others, as the home of root is, where this clone may be.
    """
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        raise DemoError("PostgreSQL does not run as root, and there is no setpriv (util-linux).")
    user = _ordinary_user()
    return [
        *("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"),
        *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"),
        # The kernel forgets what the parent has asked for when the user changes.
        *("--pdeathsig=KILL", "--"),
        *command,
    ]


def _ordinary_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise DemoError("PostgreSQL does not run as root, and there is no user postgres or nobody.")
