"""A good day: what the hook and the pin cost while nothing is wrong.

The same calls with and without the hook, in pairs of turns that alternate, in one process and on
one real MLflow server. The ratio is that of the two medians; those of the best and the worst pair
stand beside it, and tell how quiet the machine was.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import repeat
from typing import Any

from benchmarks.measure import Row, Spin, Table, race
from benchmarks.stage import Nameserver
from benchmarks.subject import mlflow_server, told_by

WITHOUT, WITH = "without the hook", "with the hook"
LITERAL, PINNED = "getaddrinfo of an address", "getaddrinfo of a pinned host"
TRIAL = "a trial connect (in doubt only)"
EXTRA = "the pin, per new connection"
BY_ADDRESS, BY_NAME, BY_PIN = "by address", "by name, without asking", "by a pinned name"
#: The ratio is that of the time on the processor: it is the same on a busy machine.
_CONNECTION_COLUMNS = ("requests", "connections", "median us", "CPU us", "ratio")
_CALL_COLUMNS = ("calls", "median ms", "ratio", "best pair", "worst pair")
_PIN_COLUMNS = ("best us", "median us")
_HOSTNAME = "overhead.bench.test"
_ADDRESS = "127.0.0.72"
_TURN = 25


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """Ratio of logging calls, and the cost of a pinned lookup."""
    with mlflow_server(server, _HOSTNAME, _ADDRESS) as process:
        order = {
            # Without the hook a resolver has to know the name; else both take the address.
            "hostname": _HOSTNAME if server.is_the_systems else _ADDRESS,
            "port": process.port,
            "nameservers": server.address,
            "pairs": 4 if quick else 1000 // _TURN,
        }
        told = told_by("benchmarks.overhead", order, process.folder)
    yield _calls(told, server)
    yield _pin(server, rounds=50 if quick else 300)
    yield _connections(server, pairs=100 if quick else 2000)


def _calls(told: dict[str, Any], server: Nameserver) -> Table:
    table = Table("overhead", "A good day: log_metric with and without the hook", _CALL_COLUMNS)
    turns = list(zip(told["without"], told["with"], strict=True))
    ratios = [ours / plain for plain, ours in turns]
    medians = [statistics.median(turn[index] for turn in turns) for index in (0, 1)]
    for index, name in enumerate((WITHOUT, WITH)):
        pairs = ratios if index else [1.0]
        ratio = medians[index] / medians[0]
        values = (
            len(turns) * _TURN, medians[index] / _TURN * 1000, ratio, min(pairs), max(pairs),
        )  # fmt: skip
        note = "" if server.is_the_systems else f"by address; {server.why_not}"
        table.rows.append(Row(name, dict(zip(_CALL_COLUMNS, values, strict=True)), note))
    return table


# --- the pin


def _pin(server: Nameserver, *, rounds: int) -> Table:
    """What a new connection pays for its lookup, and how much of that is ours."""
    from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
    from airflow_provider_hokusai_dns.resolver.pin import pin_host
    from airflow_provider_hokusai_dns.resolver.racing import race as connect

    table = Table("pin", "A good day: the lookup before a new connection", _PIN_COLUMNS)
    with _listener() as port:
        pin = pin_host(_HOSTNAME, DNSResolver(ResolverConfig(nameservers=(server.address,))))
        try:
            _lookup(_HOSTNAME, port)
            timings = race(
                {
                    LITERAL: _spin(lambda: _lookup(_ADDRESS, port, socket.AI_NUMERICHOST)),
                    PINNED: _spin(lambda: _lookup(_HOSTNAME, port)),
                },
                rounds=rounds,
                seconds=0.002,
            )
            # Apart: who accepts these connections is a thread of this process.
            timings |= race(
                {TRIAL: _spin(lambda: connect([_ADDRESS], port))}, rounds=20, seconds=0.002
            )
        finally:
            pin.release()
    for name, timing in timings.items():
        table.rows.append(_pin_row(name, timing.best, timing.median))
    ours, floor = timings[PINNED], timings[LITERAL]
    extra = _pin_row(EXTRA, ours.best - floor.best, ours.median - floor.median)
    extra.note = "the first row taken off the second"
    table.rows.append(extra)
    return table


def _connections(server: Nameserver, *, pairs: int) -> Table:
    """Requests on a new connection each, in turns, and the connections that the server counts.

    A name costs a client more than an address, with every resolver. So the plain one is a name
    that the system's function resolves without asking: it is given the address.
    """
    import urllib3

    from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
    from airflow_provider_hokusai_dns.resolver.pin import pin_host

    def ask(host: str) -> str:
        with urllib3.HTTPConnectionPool(host, port, timeout=10) as pool:
            return pool.request("GET", "/").data.decode()

    plain = socket.getaddrinfo

    def known(host: str, *arguments: Any, **more: Any) -> Any:
        return plain(_ADDRESS if host == _HOSTNAME else host, *arguments, **more)

    title = "A good day: requests to a local server, each on a new connection"
    table = Table("connections", title, _CONNECTION_COLUMNS)
    resolver = DNSResolver(ResolverConfig(nameservers=(server.address,)))
    with _counting_server() as port, pin_host(_HOSTNAME, resolver, port=port):
        ways: list[tuple[str, str, Any]] = [
            (BY_ADDRESS, _ADDRESS, plain),
            (BY_NAME, _HOSTNAME, known),
            (BY_PIN, _HOSTNAME, socket.getaddrinfo),
        ]
        took: dict[str, list[int]] = {name: [] for name, *_ in ways}
        ran: dict[str, list[int]] = {name: [] for name, *_ in ways}
        counted = dict.fromkeys(took, 0)
        for number in range(pairs + 1):
            for turn in range(len(ways)):
                name, host, function = ways[(number + turn) % len(ways)]
                socket.getaddrinfo = plain
                before = int(ask(_ADDRESS))
                socket.getaddrinfo = function
                started, began = time.perf_counter_ns(), time.thread_time_ns()
                after = int(ask(host))
                if number:  # the first turn pays for what is made once
                    ran[name].append(time.thread_time_ns() - began)
                    took[name].append(time.perf_counter_ns() - started)
                counted[name] += after - before
        socket.getaddrinfo = ways[-1][2]  # for the pin to take out
    work = {name: statistics.median(each) for name, each in ran.items()}
    for name, times in took.items():
        values = (
            pairs + 1, counted[name], statistics.median(times) / 1000,
            work[name] / 1000, work[name] / work[BY_NAME],
        )  # fmt: skip
        table.rows.append(Row(name, dict(zip(_CONNECTION_COLUMNS, values, strict=True))))
    return table


#: Answers each request with the number of connections so far; in a process of its own, so that its
#: work is none of ours.
_COUNTING = """
import asyncio, sys
count = 0
async def serve(reader, writer):
    global count
    count += 1
    await reader.readline()
    writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n%d" % count)
    writer.close()
async def main():
    server = await asyncio.start_server(serve, sys.argv[1], 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def _counting_server() -> Iterator[int]:
    command = [sys.executable, "-c", _COUNTING, _ADDRESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _pin_row(name: str, *nanoseconds: float) -> Row:
    values = [number / 1000 for number in nanoseconds]
    return Row(name, dict(zip(_PIN_COLUMNS, values, strict=True)))


def _lookup(host: str, port: int, flags: int = 0) -> Any:
    """As a client does that connects to the first address."""
    for found in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags):
        return found
    return None


def _spin(call: Callable[[], object]) -> Spin:
    def spin(number: int) -> int:
        started = time.perf_counter_ns()
        for _ in repeat(None, number):
            call()
        return time.perf_counter_ns() - started

    return spin


@contextmanager
def _listener() -> Iterator[int]:
    """Takes connections as a server does; no process needs to accept them for that."""
    import threading

    with socket.create_server((_ADDRESS, 0), backlog=1024) as server:
        stopped = threading.Event()

        def accept() -> None:
            while not stopped.is_set():
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stopped.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


# --- the calls, in a process of their own


def _subject(order: dict[str, Any]) -> None:
    import mlflow

    from airflow_provider_hokusai_dns import runtime
    from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

    os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = json.dumps({
        "conn_type": "mlflow",
        "host": order["hostname"],
        "port": order["port"],
        "extra": {"nameservers": order["nameservers"]},
    })  # fmt: skip
    uri = f"http://{order['hostname']}:{order['port']}"
    mlflow.set_tracking_uri(uri)
    plain_id = mlflow.MlflowClient().create_run("0").info.run_id

    def without() -> float:
        runtime.forget()  # takes the pin out
        with ExitStack() as stack:
            stack.enter_context(mlflow.start_run(run_id=plain_id))
            return _turn(mlflow)

    def with_hook() -> float:
        with MLflowHook().run(run_id=ours_id, end=False):
            return _turn(mlflow)

    with MLflowHook().run(end=False) as run:
        ours_id = run.info.run_id
    times: dict[str, list[float]] = {"without": [], "with": []}
    for number in range(order["pairs"] + 1):
        # Each goes first in every other pair: who is second finds warmer caches.
        pair = [("without", without), ("with", with_hook)]
        for name, turn in pair if number % 2 else pair[::-1]:
            took = turn()
            if number:  # the first pair pays for what is made once
                times[name].append(took)
    print("@" + json.dumps(times), flush=True)


def _turn(mlflow: Any) -> float:
    mlflow.log_metric("warm", 0.0)  # the connection is open before the clock runs
    started = time.perf_counter()
    for step in range(_TURN):
        mlflow.log_metric("loss", 0.5, step=step)
    return time.perf_counter() - started


if __name__ == "__main__":
    _subject(json.loads(sys.argv[1]))
