"""Kinds of children, kinds of outages, and what of the children arrives through an outage.

For the tests, and for the table in ``docs/children.md`` (``python -m benchmarks --only children``).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.client.relay import child
from tests.client.relay.support import API
from tests.servers import MLflowProcess, _watch_over, end_session, wait_until

HERE = Path(__file__).parent
#: An interpreter with MLflow and without this package, as ``@task.virtualenv`` makes one, and as
#: ``@task.external_python`` takes one.
OTHER_PYTHON = os.environ.get("RELAY_TEST_PYTHON", "")
#: PyTorch's launcher, in whatever environment; MLflow has to be there too.
TORCHRUN = shutil.which(os.environ.get("RELAY_TEST_TORCHRUN", "torchrun"))


class ChildError(Exception):
    """A child that did not end well; the text says how."""


class Kind(Protocol):
    """Runs a child to its end.

    :raises ChildError: it did not end well, or was killed ``seconds`` after it might go on.
    """

    def __call__(self, environment: Mapping[str, str], folder: Path, seconds: float) -> None: ...


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what this repository's tests put into the path."""
    return {k: v for k, v in environment.items() if k != "PYTHONPATH"}


# --- the kinds of children


def a_command(*command: str) -> Kind:
    def run(environment: Mapping[str, str], folder: Path, seconds: float) -> None:
        given = [part.replace("FOLDER", str(folder)) for part in command]
        with (folder / "stderr").open("w+") as said:
            process = subprocess.Popen(
                given, env=environment, stdout=subprocess.DEVNULL, stderr=said,
                start_new_session=True,
            )  # fmt: skip
            watchdog = _watch_over(process.pid)
            try:
                _wait(lambda: process.poll() is not None, folder, seconds, process.kill)
            finally:  # all that came out of it, also where this process is gone
                end_session(process, watchdog)
            if process.returncode:
                said.seek(0)
                last = (said.read().split("\n") or [""])[-2:][0]
                raise ChildError(f"exit {process.returncode}: {last}")

    return run


def a_process_of(method: str) -> Kind:
    """It has the environment of its parent: the relay was opened with ``export``."""

    def run(environment: Mapping[str, str], folder: Path, seconds: float) -> None:
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=child.train, args=(folder,))
        process.start()
        _wait(lambda: not process.is_alive(), folder, seconds, process.kill)
        if process.exitcode:
            raise ChildError(f"exit {process.exitcode}")

    return run


def a_joblib_worker(environment: Mapping[str, str], folder: Path, seconds: float) -> None:
    import joblib
    from joblib.externals.loky import get_reusable_executor

    def train() -> None:
        joblib.Parallel(n_jobs=2, backend="loky")(
            joblib.delayed(child.train_in)(str(one)) for one in [folder]
        )

    def end(*, kill: bool) -> None:
        """Or its workers would be there for the next relay, with the variables of this one."""
        get_reusable_executor().shutdown(wait=True, kill_workers=kill)

    with ThreadPoolExecutor(1) as thread:
        trained = thread.submit(train)
        _wait(trained.done, folder, seconds, lambda: end(kill=True))
        trained.result()
    end(kill=False)


def _wait(
    has_ended: Callable[[], bool], folder: Path, seconds: float, kill: Callable[[], None]
) -> None:
    """Wait for a child, which is killed so many seconds after it may go on."""
    end = math.inf
    while not has_ended():
        if end == math.inf and (folder / "go").exists():
            end = time.monotonic() + seconds
        if time.monotonic() > end:
            kill()
            wait_until(has_ended)
            raise ChildError(f"killed after {seconds:.0f} s")
        time.sleep(0.05)


#: As torchrun does it, where that is not installed.
_LAUNCHER = """
import os, subprocess, sys
training = [sys.executable, *sys.argv[1:]]
ranks = [subprocess.Popen(training, env={**os.environ, "RANK": str(rank)}) for rank in range(2)]
sys.exit(max(rank.wait() for rank in ranks))
"""
_CHILD = str(HERE / "child.py")
_TORCHRUN = ("--standalone", "--nproc-per-node", "2", _CHILD, "FOLDER")


def kinds(other_python: str = OTHER_PYTHON) -> dict[str, Kind]:
    """Those that this machine can start."""
    count = str(child.METRICS)
    found: dict[str, Kind] = {
        "subprocess": a_command(sys.executable, _CHILD, "FOLDER"),
        "spawn": a_process_of("spawn"),
        "fork": a_process_of("fork"),
    }
    if TORCHRUN:
        found["torchrun"] = a_command(TORCHRUN, *_TORCHRUN)
    else:
        found["launcher"] = a_command(sys.executable, "-c", _LAUNCHER, _CHILD, "FOLDER")
    if importlib.util.find_spec("joblib"):
        found["joblib"] = a_joblib_worker
    if other_python:
        found["other python"] = a_command(other_python, _CHILD, "FOLDER")
    if shutil.which("curl"):
        found["bash with curl"] = a_command("bash", str(HERE / "train.sh"), "FOLDER", count)
    if shutil.which("java"):
        found["java"] = a_command("java", str(HERE / "Train.java"), "FOLDER", count)
    if _has_r():
        found["R"] = a_command("Rscript", str(HERE / "train.R"), "FOLDER", count)
    return found


def _has_r() -> bool:
    """Whether R is here, with its HTTP client (Debian: r-base-core r-cran-httr r-cran-jsonlite)."""
    needed = "stopifnot(requireNamespace('httr'), requireNamespace('jsonlite'))"
    return (
        bool(shutil.which("Rscript"))
        and not subprocess.run(
            ["Rscript", "-e", needed], capture_output=True, check=False
        ).returncode
    )


#: What these do not do: asynchronous logging and traces are MLflow's Python client's.
WITHOUT_PYTHON = frozenset({"bash with curl", "java", "R"})


def everything(kind: str) -> dict[str, Any]:
    """What has arrived when nothing is lost."""
    python = kind not in WITHOUT_PYTHON
    return {
        "status": "FINISHED",
        "later": 2 * child.METRICS if python else 0,
        "at_once": 2 * child.METRICS,
        "artifacts": {"model.bin": 2**20},
        "traces": 1 if python else 0,
    }


# --- the outages


class Names(Protocol):
    """What DNS says about the name of the server."""

    def answer(self, address: str) -> None: ...
    def gone(self) -> None: ...
    def silent(self) -> None: ...


@contextlib.contextmanager
def no_such_name(names: Names, server: MLflowProcess, seconds: float) -> Iterator[None]:
    """To the end of the children."""
    names.gone()
    yield


@contextlib.contextmanager
def silent(names: Names, server: MLflowProcess, seconds: float) -> Iterator[None]:
    """To the end of the children."""
    names.silent()
    yield


@contextlib.contextmanager
def down(names: Names, server: MLflowProcess, seconds: float) -> Iterator[None]:
    """Killed, and started again at the same address."""
    server.stop(kill=True)
    with _after(seconds, server.start):
        yield


@contextlib.contextmanager
def redeployed(names: Names, server: MLflowProcess, seconds: float) -> Iterator[None]:
    """As ECS does it: name gone, server gone, a new one elsewhere, and then the name again."""

    def start() -> None:
        server.start()
        names.answer(server.host)

    names.gone()
    server.stop(kill=True)
    server.host = "127.0.0.54"
    with _after(seconds, start):
        yield


@contextlib.contextmanager
def _after(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, work)
    timer.start()
    try:
        yield
    finally:
        timer.join()


OUTAGES = {
    "no_such_name": no_such_name, "silent": silent, "down": down, "redeployed": redeployed,
}  # fmt: skip


# --- the children through an outage


#: For a child to start and to get half-way, on a busy machine.
_HALF_WAY = 300.0


@dataclass(frozen=True)
class Outcome:
    """What became of a child.

    :param arrived: what MLflow has of it.
    :param error: how it ended, where not well.
    :param seconds: from the middle of its work to its end.
    """

    arrived: dict[str, Any]
    error: str
    seconds: float


def through(
    outage: str,
    names: Names,
    server: MLflowProcess,
    children: Mapping[str, tuple[Kind, Mapping[str, str]]],
    folder: Path,
    *,
    seconds: float,
    patience: float = 300.0,
    pause: float = 2.5,
) -> dict[str, Outcome]:
    """What became of each child; all run at the same time, the outage comes half-way.

    :param children: by name, each with its environment.
    :param seconds: how long MLflow is away, where it comes back.
    :param patience: seconds from there, after which a child is killed.
    :param pause: seconds in which idle connections are closed, so that the name is needed again.
    """
    errors: dict[str, str] = dict.fromkeys(children, "")
    ended: dict[str, float] = {}

    def run(name: str) -> None:
        kind, environment = children[name]
        try:
            kind(environment, folder / name, patience)
        except Exception as error:
            errors[name] = str(error) or type(error).__name__
        ended[name] = time.monotonic()

    threads = {name: threading.Thread(target=run, args=(name,)) for name in children}
    for name, thread in threads.items():
        (folder / name).mkdir(parents=True)
        thread.start()
    halves = {name: folder / name / "half" for name in children}
    for name, half in halves.items():
        wait_until(
            lambda name=name, half=half: name in ended or (half.exists() and half.read_text()),
            _HALF_WAY, told=lambda name=name: f"{name} is not half-way",
        )  # fmt: skip
    with OUTAGES[outage](names, server, seconds):
        time.sleep(pause)
        began = time.monotonic()
        for name in children:
            (folder / name / "go").touch()
        for thread in threads.values():
            thread.join()
    return {
        name: Outcome(
            arrived(server, half.read_text().strip()) if half.exists() else {},
            errors[name], ended[name] - began,
        )
        for name, half in halves.items()
    }  # fmt: skip


def arrived(server: MLflowProcess, run_id: str) -> dict[str, Any]:
    """What the server says of a run, asked by its address."""
    run = direct(server, "GET", f"{API}/runs/get?run_id={run_id}")["run"]
    metrics = {}
    for key in ("later", "at_once"):
        path = f"{API}/metrics/get-history?run_id={run_id}&metric_key={key}"
        metrics[key] = len({m["step"] for m in direct(server, "GET", path).get("metrics", ())})
    artifacts = direct(server, "GET", f"{API}/artifacts/list?run_id={run_id}").get("files", [])
    experiment = {"mlflow_experiment": {"experiment_id": run["info"]["experiment_id"]}}
    traces = direct(server, "POST", "/api/3.0/mlflow/traces/search", {
        "locations": [{"type": "MLFLOW_EXPERIMENT", **experiment}],
        "filter": f"attributes.run_id = '{run_id}'",
    }).get("traces", [])  # fmt: skip
    return {
        "status": run["info"]["status"],
        **metrics,
        "artifacts": {one["path"]: one.get("file_size") for one in artifacts},
        "traces": len(traces),
    }


def direct(server: MLflowProcess, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """One call of the server by its address, without a relay."""
    request = urllib.request.Request(
        server.uri + path,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))
