"""``up``, ``down``, and playing in between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo import conductor, interrupt, outside, relay, remote
from demo.console import Console
from demo.errors import DemoError
from demo.layout import REPOSITORY
from demo.processes import descendants

_ROOT = outside.HOME / "up"
_PROCESS = outside.HOME / "up.json"
_LOG = "up.log"
_AIRFLOW_PORT, _MLFLOW_PORT = 8080, 5000
#: What ``make down`` leaves and the next ``make up`` finds: below the folder of the stack.
_KEPT = ("airflow/dags", "airflow/copied-dags.json", "mlflow")


def up(console: Console, *, namespace: bool) -> int:
    """Start everything, leave it running, and say where to look. Does nothing if it runs."""
    with outside.locked("up"):
        if _running() is not None:
            console.say("It is up already.")
            return _introduce(console)
        private, _ = outside.choose_surroundings(console, namespace=namespace)
        kept = outside.fresh(_ROOT, keep=_KEPT)
        if kept:
            console.say(
                "Kept from the last time: DAGs and MLflow's data (make clean removes them)."
            )
        process, lifeline = _start(private=private)
        try:
            _follow(console, process)
        except BaseException:
            os.close(lifeline)
            interrupt.ignore_signals()
            stop(process.pid)
            _PROCESS.unlink(missing_ok=True)
            raise
        os.write(lifeline, interrupt.LET_GO)
        os.close(lifeline)
        return _introduce(console)


def down(console: Console) -> int:
    """Stop what :func:`up` started. Does nothing if nothing runs."""
    outside.HOME.mkdir(mode=0o700, exist_ok=True)
    pid = _running()
    _PROCESS.unlink(missing_ok=True)
    if pid is None:
        console.say("Nothing is running.")
        return conductor.HELD
    with console.waiting("everything to stop"):
        stop(pid)
    console.say("Everything is down. DAGs and MLflow's data stay for the next make up.")
    return conductor.HELD


def ask(request: Sequence[str]) -> int:
    """Have the running stack do this; see :func:`demo.remote.ask`.

    :raises DemoError: nothing is running.
    """
    if _running() is None:
        raise DemoError("Nothing is running: make up first.")
    return remote.ask(_ROOT, request)


def stop(pid: int, *, patience: float = 15.0) -> None:
    """End a conductor, first by asking, then with everything that is below it."""
    family = descendants(pid)
    # unshare passes no signal on, so the conductor below it is asked too. Inside a PID namespace
    # it is the first process, and its end is the end of all others.
    for each in (pid, *_children(pid)):
        _signal(each, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    if _alive(pid):
        family |= descendants(pid)
        for each in (pid, *family):
            _signal(each, signal.SIGKILL)


def _start(*, private: bool) -> tuple[subprocess.Popen[bytes], int]:
    airflow, mlflow = relay.open_door(_AIRFLOW_PORT), relay.open_door(_MLFLOW_PORT)
    reading, writing = os.pipe()
    doors = {"airflow": _url(airflow), "mlflow": _url(mlflow)}
    command = conductor.command(
        "stand",
        _ROOT,
        private=private,
        lifeline=reading,
        airflow_door=airflow.fileno(),
        mlflow_door=mlflow.fileno(),
        airflow_url=doors["airflow"],
    )
    with airflow, mlflow, (_ROOT / _LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            pass_fds=(reading, airflow.fileno(), mlflow.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    os.close(reading)
    state = {"pid": process.pid, "born": _born(process.pid), "doors": doors}
    _PROCESS.write_text(json.dumps(state))
    return process, writing


def _follow(console: Console, process: subprocess.Popen[bytes]) -> None:
    """Show what the conductor writes until everything stands.

    :raises DemoError: it has ended instead.
    """
    with (_ROOT / _LOG).open() as log:
        while True:
            ready = (_ROOT / conductor.READY).exists()
            code = process.poll()
            for line in log:
                console.line(line.rstrip("\n"))
            if ready:
                return
            if code is not None:
                raise DemoError(f"It did not come up; the logs are in {_ROOT / 'logs'}.")
            time.sleep(0.2)


def _introduce(console: Console) -> int:
    doors = _state().get("doors", {})
    try:
        login = json.loads((_ROOT / conductor.READY).read_text())
    except OSError as error:
        raise DemoError("It is not ready yet: another make up is starting it.") from error
    console.line()
    root = _ROOT.relative_to(REPOSITORY)
    python = ".venv/bin/python -m demo"
    for what, text in (
        ("Airflow", doors["airflow"]),
        ("", f"user {login['user']}, password {login['password']}"),
        ("Status page", f"{doors['airflow']}/plugin/hokusai-dns"),
        ("MLflow", doors["mlflow"]),
        ("Your DAGs", f"{root / 'airflow' / 'dags'}/ (read within 5 s; they stay after make down)"),
        ("Logs", f"{root / 'logs'}/, of tasks: {root / 'airflow' / 'logs'}/"),
        ("Outage", f"{python} dns {'|'.join(remote.DNS_STATES)}"),
        ("Redeploy", f"{python} mlflow {'|'.join(remote.MLFLOW_STATES)}"),
        ("Airflow CLI", f"{python} airflow hokusai-dns status"),
        ("The end", "make down"),
    ):
        console.say(f"{what:<13}{text}")
    return conductor.HELD


def _state() -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(_PROCESS.read_text())
    except (OSError, ValueError):
        return {}
    return state


def _running() -> int | None:
    """Return the process that is up; a number that was given away since is not it."""
    state = _state()
    pid = state.get("pid")
    if isinstance(pid, int) and _born(pid) == state.get("born"):
        return pid
    return None


def _born(pid: int) -> str | None:
    """Return when this process was started, in the kernel's own count; none for a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _alive(pid: int) -> bool:
    return _born(pid) is not None


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _url(door: Any) -> str:
    return f"http://127.0.0.1:{door.getsockname()[1]}"
