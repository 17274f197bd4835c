"""What an answer from the cache costs: a hostname, a URL, in a coroutine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from itertools import count, repeat
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_hokusai_dns.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup
from benchmarks import peers
from benchmarks.measure import Row, Skipped, Spin, Table, race
from benchmarks.stage import Nameserver

NAME = "hit.bench.test"
URL = f"http://{NAME}:5000/api/2.0/mlflow?x=1"
FLOOR = "dict and clock (the floor)"
HOST, IN_URL, ASYNC = "ours, hostname", "ours, URL in and out", "ours, async"
SEVERAL = "ours, hostname with 3 addresses"
UNSEEN = "ours, a URL never seen, 8 addresses"
_COLUMNS = ("best ns", "median ns", "x floor")


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """Cost of a hit."""
    server.tell(f"set {NAME} 10.0.0.1 ttl=86400")
    subjects: dict[str, Callable[[ExitStack], Spin]] = {
        FLOOR: lambda _stack: _sync(peers.floor(_load), NAME),
        "lru_cache (never expires)": lambda _stack: _sync(peers.lru_cache(_load), NAME),
        "cachetools TTLCache": lambda _stack: _sync(peers.ttl_cache(_load), NAME),
        "cachetools TTLCache, lock": lambda _s: _sync(peers.ttl_cache(_load, lock=True), NAME),
        "dnspython LRUCache": lambda _stack: _dnspython(server),
        "getaddrinfo (no cache)": lambda _stack: _getaddrinfo(server),
        "aiohttp connector, async": _aiohttp,
        "urlsplit, floor, urlunsplit": lambda _stack: _sync(_split_url(peers.floor(_load)), URL),
        HOST: lambda _stack: _sync(_ours().resolve, NAME),
        SEVERAL: lambda _stack: _sync(_ours("10.0.0.1", "10.0.0.2", "10.0.0.3").resolve, NAME),
        IN_URL: lambda _stack: _sync(_rendered(_ours()), URL),
        UNSEEN: lambda _stack: _never_seen(_ours(*(f"10.0.0.{n}" for n in range(1, 9)))),
        ASYNC: lambda stack: _async(stack, _ours().aresolve, NAME),
    }
    table = Table("hit", "A hit: nanoseconds per call, beside the floor of the same run", _COLUMNS)
    spins: dict[str, Spin] = {}
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        for name, make in subjects.items():
            try:
                spins[name] = make(stack)
                spins[name](1000)
            except Skipped as reason:
                skipped[name] = str(reason)
                spins.pop(name, None)
        timings = race(spins, rounds=50 if quick else 300, seconds=0.002)
    for name in subjects:
        if name in skipped:
            table.rows.append(Row(name, note=skipped[name]))
            continue
        timing = timings[name]
        ratio = timing.best / timings[FLOOR].best
        table.rows.append(
            Row(name, dict(zip(_COLUMNS, (timing.best, timing.median, ratio), strict=True)))
        )
    yield table


def _load(name: str) -> list[Any]:
    return [(name, "10.0.0.1")]


def _never_seen(resolver: DNSResolver) -> Spin:
    numbers = count()

    def spin(number: int) -> int:
        urls = [f"http://{NAME}:5000/{next(numbers)}" for _ in range(number)]
        started = time.perf_counter_ns()
        for url in urls:
            resolver.resolve(url)
        return time.perf_counter_ns() - started

    return spin


def _sync(call: Callable[[Any], object], argument: object) -> Spin:
    def spin(number: int) -> int:
        started = time.perf_counter_ns()
        for _ in repeat(None, number):
            call(argument)
        return time.perf_counter_ns() - started

    return spin


def _async(stack: ExitStack, call: Callable[[Any], Awaitable[object]], argument: object) -> Spin:
    runner = stack.enter_context(asyncio.Runner(loop_factory=asyncio.SelectorEventLoop))

    async def body(number: int) -> int:
        started = time.perf_counter_ns()
        for _ in repeat(None, number):
            await call(argument)
        return time.perf_counter_ns() - started

    return lambda number: runner.run(body(number))


def _ours(*addresses: str) -> DNSResolver:
    """With the policy's own numbers; nothing expires while it is measured."""
    return DNSResolver(lookup=ScriptedLookup({NAME: addresses or ("10.0.0.1",)}, ttl=86_400))


def _rendered(resolver: DNSResolver) -> Callable[[str], str]:
    resolve = resolver.resolve

    def call(url: str) -> str:
        return str(resolve(url))

    return call


def _split_url(resolve: peers.Call) -> Callable[[str], str]:
    """What one writes oneself; wrong for IPv6, userinfo and a port that is missing."""

    def call(url: str) -> str:
        parts = urlsplit(url)
        address = resolve(parts.hostname or "")[0][1]
        return urlunsplit(parts._replace(netloc=f"{address}:{parts.port}"))

    return call


def _dnspython(server: Nameserver) -> Spin:
    resolver = peers.dnspython(server)
    return _sync(lambda name: resolver.resolve(name, "A"), NAME)


def _getaddrinfo(server: Nameserver) -> Spin:
    peers.need_system(server)
    return _sync(peers.getaddrinfo, NAME)


def _aiohttp(stack: ExitStack) -> Spin:
    aiohttp = peers.need("aiohttp")
    runner = stack.enter_context(asyncio.Runner(loop_factory=asyncio.SelectorEventLoop))

    class Static(aiohttp.abc.AbstractResolver):  # type: ignore[misc, name-defined]
        async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
            return [{"hostname": host, "host": "10.0.0.1", "port": port, "family": family,
                     "proto": 0, "flags": 0}]  # fmt: skip

        async def close(self) -> None:
            pass

    async def make() -> Any:
        return aiohttp.TCPConnector(resolver=Static(), ttl_dns_cache=300)

    connector = runner.run(make())
    stack.callback(lambda: runner.run(connector.close()))

    async def body(number: int) -> int:
        started = time.perf_counter_ns()
        for _ in repeat(None, number):
            await connector._resolve_host(NAME, peers.PORT)
        return time.perf_counter_ns() - started

    return lambda number: runner.run(body(number))
