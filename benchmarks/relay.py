"""The relay on a good day: a child through it beside a child on its own, and the parent itself.

In pairs of turns that alternate, on one real MLflow server, as in :mod:`benchmarks.overhead`. The
parent is measured twice: by the pin (``hook.run``, as it is) and by a relay in its own process, for
the question whether ``hook.run`` should go through one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Table
from benchmarks.stage import Nameserver
from benchmarks.subject import mlflow_server, told_by

CHILD, CHILD_SPINNING = "log_metric of a child", "the same, its parent busy in Python"
CHILD_UPLOAD, PARENT_UPLOAD = "artifact of 100 MB of a child", "artifact of 100 MB of the parent"
PARENT, PARENT_SPINNING = "log_metric of the parent", "the same, another thread busy in Python"
AT_ONCE = "200 calls at the same time"
START, START_COLD, END = "open", "open the first in a process (imports)", "close"
MEMORY = "open, idle"
MEMORY_UPLOAD = "while 1 GB goes through, kept for a repetition"
MEMORY_BARE = "while 1 GB goes through, not kept"
_PAIR_COLUMNS = ("without ms", "with ms", "ratio", "best pair", "worst pair")
_HOSTNAME, _ADDRESS = "relay.bench.test", "127.0.0.73"
_TURN = 25
_MEGABYTE = 10**6


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """Ratios per call and per artifact, start and end, memory."""
    with mlflow_server(server, _HOSTNAME, _ADDRESS) as process:
        connection = {
            "conn_type": "mlflow", "host": _HOSTNAME, "port": process.port,
            "extra": {"nameservers": server.address},
        }  # fmt: skip
        order = {
            "address": _ADDRESS,
            "port": process.port,
            "pairs": 4 if quick else 20,
            "uploads": 2 if quick else 6,
            "long": 100 if quick else 1000,
            "folder": str(process.folder),
        }
        told = told_by(
            "benchmarks.relay", order, process.folder,
            AIRFLOW_CONN_MLFLOW_DEFAULT=json.dumps(connection),
        )  # fmt: skip
    yield _pairs(told)
    yield _times(told)
    yield _memory(told)


def _pairs(told: dict[str, Any]) -> Table:
    table = Table("relay", "A good day: without a relay and through one", _PAIR_COLUMNS)
    for name, turns in told["pairs"].items():
        ratios = [ours / plain for plain, ours in turns]
        without, ours = (statistics.median(turn[i] for turn in turns) * 1000 for i in (0, 1))
        values = (without, ours, ours / without, min(ratios), max(ratios))
        table.rows.append(Row(name, dict(zip(_PAIR_COLUMNS, values, strict=True))))
    return table


def _times(told: dict[str, Any]) -> Table:
    table = Table("relay_time", "A relay itself: its beginning and its end", ("median ms",))
    for name, seconds in told["seconds"].items():
        table.rows.append(Row(name, {"median ms": statistics.median(seconds) * 1000}))
    return table


def _memory(told: dict[str, Any]) -> Table:
    table = Table("relay_memory", "A relay itself: memory of the task's process", ("MiB",))
    for name, kilobytes in told["memory"].items():
        table.rows.append(Row(name, {"MiB": kilobytes / 1024}))
    return table


# --- the parent, in a process of its own


def _subject(order: dict[str, Any]) -> None:
    from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

    pairs: dict[str, list[tuple[float, float]]] = {}
    seconds: dict[str, list[float]] = {START_COLD: [], START: [], END: []}
    memory: dict[str, int] = {}
    for number in range(12):
        before = _resident()
        with ExitStack() as stack:
            began = time.perf_counter()
            stack.enter_context(MLflowHook().relay())
            seconds[START if number else START_COLD].append(time.perf_counter() - began)
            if number == 1:  # what is imported once is not a relay's
                memory[MEMORY] = _resident() - before
            began = time.perf_counter()
            stack.close()
            seconds[END].append(time.perf_counter() - began)
    uri = f"http://{order['address']}:{order['port']}"
    with ExitStack() as stack:
        relay = stack.enter_context(MLflowHook().relay())
        plain = stack.enter_context(_child({**relay.environment(), **_direct(uri)}))
        ours = stack.enter_context(_child(relay.environment()))
        for name, line, count, busy in (
            (CHILD, f"log {_TURN}", order["pairs"], False),
            (CHILD_SPINNING, f"log {_TURN}", order["pairs"], True),
            (AT_ONCE, "many 200", max(3, order["pairs"] // 4), False),
            (CHILD_UPLOAD, f"upload 100 {order['folder']}", order["uploads"], False),
        ):
            scale = _TURN if line.startswith("log") else 1
            with _busy(busy):
                pairs[name] = _alternate(
                    count, partial(_told, plain, line), partial(_told, ours, line), scale
                )  # fmt: skip
        before = _reset_peak()
        _told(ours, f"upload {order['long']} {order['folder']}")
        memory[MEMORY_UPLOAD] = _peak() - before
    os.environ["AIRFLOW__HOKUSAI_DNS__RELAY_KEEP"] = "0"
    with MLflowHook().relay() as relay, _child(relay.environment()) as ours:
        before = _reset_peak()
        _told(ours, f"upload {order['long']} {order['folder']}")
        memory[MEMORY_BARE] = _peak() - before
    _parent(order, pairs)
    print("@" + json.dumps({"pairs": pairs, "seconds": seconds, "memory": memory}), flush=True)


def _parent(order: dict[str, Any], pairs: dict[str, list[tuple[float, float]]]) -> None:
    """``hook.run`` as it is, and MLflow's client of the same process through a relay."""
    import mlflow

    from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

    with MLflowHook().run(end=False) as run:
        run_id = run.info.run_id

    def pinned(work: Callable[[], float]) -> float:
        with MLflowHook().run(run_id=run_id, end=False):
            return work()

    def relayed(work: Callable[[], float]) -> float:
        with MLflowHook().relay(export=True) as relay:
            mlflow.set_tracking_uri(relay.uri)
            try:
                # A run of its own: MLflow keeps the URI of a run's artifacts, and with it the port.
                with mlflow.start_run():
                    return work()
            finally:
                mlflow.set_tracking_uri(None)  # type: ignore[arg-type]

    def upload() -> float:
        return _upload(100, order["folder"])

    for name, work, count, busy, scale in (
        (PARENT, _log, order["pairs"], False, _TURN),
        (PARENT_SPINNING, _log, order["pairs"], True, _TURN),
        (PARENT_UPLOAD, upload, order["uploads"], False, 1),
    ):
        with _busy(busy):
            pairs[name] = _alternate(count, partial(pinned, work), partial(relayed, work), scale)


def _alternate(
    count: int, without: Callable[[], float], ours: Callable[[], float], scale: int
) -> list[tuple[float, float]]:
    turns = []
    for number in range(count + 1):
        # Each goes first in every other pair: who is second finds warmer caches.
        if number % 2:
            first, second = without(), ours()
        else:
            second, first = ours(), without()
        if number:  # the first pair pays for what is made once
            turns.append((first / scale, second / scale))
    return turns


@contextmanager
def _busy(wanted: bool) -> Iterator[None]:
    """An author's loop in pure Python, on a thread of this process."""
    stopped = threading.Event()

    def spin() -> None:
        while not stopped.is_set():
            sum(range(10_000))

    thread = threading.Thread(target=spin, daemon=True)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        if wanted:
            thread.join()


# --- the child, which knows MLflow alone


def _direct(uri: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}


@contextmanager
def _child(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.relay", "--child"], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def _told(process: subprocess.Popen[str], line: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def _serve() -> None:
    import mlflow

    with mlflow.start_run():
        for line in sys.stdin:
            word, *rest = line.split()
            if word == "log":
                took = _log()
            elif word == "many":
                took = _many(int(rest[0]))
            else:
                took = _upload(int(rest[0]), rest[1])
            print(took, flush=True)


def _log() -> float:
    import mlflow

    mlflow.log_metric("warm", 0.0)  # the connection is open before the clock runs
    began = time.perf_counter()
    for step in range(_TURN):
        mlflow.log_metric("loss", 0.5, step=step)
    return time.perf_counter() - began


def _many(count: int) -> float:
    import mlflow

    began = time.perf_counter()
    client, run = mlflow.MlflowClient(), mlflow.active_run()
    assert run is not None
    threads = [
        threading.Thread(target=client.log_metric, args=(run.info.run_id, f"m{i}", 1.0))
        for i in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _upload(megabytes: int, folder: str) -> float:
    import mlflow

    file = Path(folder) / f"{megabytes}.bin"
    if not file.exists():
        with file.open("wb") as stream:
            for _ in range(megabytes):
                stream.write(os.urandom(_MEGABYTE))
    began = time.perf_counter()
    mlflow.log_artifact(str(file))
    return time.perf_counter() - began


def _resident() -> int:
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _status(name: str) -> int:
    """A line of ``/proc/self/status``, KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        _serve()
    else:
        _subject(json.loads(sys.argv[1]))
