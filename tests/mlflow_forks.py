"""Forks MLflow servers from a process that has imported most of MLflow: one starts in a second.

A script. It is told on its standard input which servers to start, one JSON object a line, and
answers each with the number of the process, which leads a session. What runs there is
``mlflow server`` with its own command line. Only its last step, uvicorn, runs in the same process
and not in a new interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

DATABASE = "mlflow.db"
#: Not MLflow's server itself, which reads its environment while it is imported.
_IMPORTED = (
    "aiohttp",
    "alembic.command",
    "fastapi",
    "flask_cors",
    "graphene",
    "mlflow.gateway.guardrails",
    "mlflow.genai",
    "mlflow.metrics",
    "mlflow.sagemaker.cli",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "prometheus_client",
    "pydantic.v1",
    "uvicorn",
)


def _fork(environment: dict[str, str], folder: str, log: str) -> int:
    """0 in the child, which has these."""
    sys.stdout.flush()
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        os.read(read, 1)
        os.close(read)
        return pid
    os.close(read)
    os.setsid()
    os.close(write)  # the parent goes on: now there is a session of this number
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.environ.clear()
    os.environ.update(environment)
    return 0


def _serve(arguments: list[str]) -> None:
    import mlflow.cli
    import mlflow.server

    def run_here(command: list[str], *, extra_env: dict[str, str], **_: Any) -> None:
        os.environ.update(extra_env)
        sys.argv = command[2:]  # without "python -m"
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

    mlflow.server._exec_cmd = run_here
    mlflow.cli.cli(["server", *arguments])


def _make_database(folder: Path) -> None:
    """Make it as the first start of a server does, which takes two seconds."""
    from mlflow.server.handlers import initialize_backend_stores

    uri = f"sqlite:///{folder / DATABASE}"
    initialize_backend_stores(uri, uri, "mlflow-artifacts:/")


def _to_its_end(work: Callable[..., None], *given: Any) -> NoReturn:
    """In a child: what follows in the parent is not for it."""
    try:
        work(*given)
    except SystemExit as end:
        if end.code:
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def main() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    assert "mlflow.server" not in sys.modules
    gc.freeze()  # or each server's garbage collections go through all of it
    folder = Path(tempfile.mkdtemp(prefix="mlflow-forks-"))
    try:
        environment = dict(os.environ)
        child = _fork(environment, str(folder), os.devnull)
        if child == 0:
            _to_its_end(_make_database, folder)
        os.waitpid(child, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
        for line in sys.stdin:
            given = json.loads(line)
            database = Path(given["folder"]) / DATABASE
            if not database.exists():
                shutil.copy(folder / DATABASE, database)
            pid = _fork(given["environment"], given["folder"], given["log"])
            if pid == 0:
                _to_its_end(_serve, given["arguments"])
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
