"""What a real lookup over UDP costs, the server being ours on the same machine."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle, repeat
from typing import Any

from benchmarks import peers
from benchmarks.measure import Row, Skipped, Spin, Table, race
from benchmarks.stage import Nameserver

NAME = "miss.bench.test"
FLOOR = "one packet there and back (the floor)"
OURS = "ours, A and AAAA"
#: More than are remembered as they are sent, so that nothing of a lookup is there before it.
_NAMES = 300
_COLUMNS = ("best us", "median us", "x floor")


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """Cost of a miss."""
    server.tell(f"set {NAME} 10.0.0.1 fd00::1 ttl=0")
    subjects: dict[str, Callable[[Nameserver, ExitStack], Spin]] = {
        FLOOR: _floor,
        "getaddrinfo, A and AAAA": _getaddrinfo,
        "aiodns, A and AAAA": _aiodns,
        "dnspython, A alone": _dnspython,
        OURS: _ours,
    }
    table = Table("miss", "A miss: microseconds per lookup over UDP", _COLUMNS)
    spins: dict[str, Spin] = {}
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        for name, make in subjects.items():
            try:
                spins[name] = make(server, stack)
                spins[name](20)
            except Skipped as reason:
                skipped[name] = str(reason)
                spins.pop(name, None)
        timings = race(spins, rounds=10 if quick else 60, seconds=0.01)
    for name in subjects:
        if name in skipped:
            table.rows.append(Row(name, note=skipped[name]))
            continue
        timing = timings[name]
        values = (timing.best / 1e3, timing.median / 1e3, timing.best / timings[FLOOR].best)
        table.rows.append(Row(name, dict(zip(_COLUMNS, values, strict=True))))
    yield table


def _spin(call: Callable[[], object]) -> Spin:
    def spin(number: int) -> int:
        started = time.perf_counter_ns()
        for _ in repeat(None, number):
            call()
        return time.perf_counter_ns() - started

    return spin


def _floor(server: Nameserver, stack: ExitStack) -> Spin:
    import dns.message

    query = dns.message.make_query(NAME, "A").to_wire()
    client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.connect((server.host, server.port))
    client.settimeout(5)

    def call() -> None:
        client.send(query)
        client.recv(4096)

    return _spin(call)


def _getaddrinfo(server: Nameserver, _stack: ExitStack) -> Spin:
    peers.need_system(server)
    return _spin(lambda: peers.getaddrinfo(NAME))


def _dnspython(server: Nameserver, _stack: ExitStack) -> Spin:
    resolver = peers.dnspython(server)
    resolver.cache = None
    return _spin(lambda: resolver.resolve(NAME, "A"))


def _aiodns(server: Nameserver, stack: ExitStack) -> Spin:
    peers.need("aiodns")
    runner = stack.enter_context(asyncio.Runner(loop_factory=asyncio.SelectorEventLoop))
    opened = peers.aiodns(server)
    resolve: Any = runner.run(opened.__aenter__())
    stack.callback(lambda: runner.run(opened.__aexit__(None, None, None)))

    async def body(number: int) -> int:
        started = time.perf_counter_ns()
        for _ in repeat(None, number):
            await resolve(NAME)
        return time.perf_counter_ns() - started

    return lambda number: runner.run(body(number))


def _ours(server: Nameserver, stack: ExitStack) -> Spin:
    resolver = stack.enter_context(peers.ours(server))
    names = [f"n{number}.{NAME}" for number in range(_NAMES)]
    for name in names:
        server.tell(f"set {name} 10.0.0.1 fd00::1 ttl=0")
    for name in names:  # our server makes each answer once: that is no part of a lookup
        resolver.resolve(name)
    turns = cycle(names)

    def spin(number: int) -> int:
        total = 0
        for _ in repeat(None, number):
            resolver.clear()
            name = next(turns)
            started = time.perf_counter_ns()
            resolver.resolve(name)
            total += time.perf_counter_ns() - started
        return total

    return spin
