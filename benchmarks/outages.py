"""An answer is known, its lifetime is over, and DNS is broken: what do the next calls cost?"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, product
from typing import Any

from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from benchmarks import peers
from benchmarks.measure import Row, Skipped, Table, quiet_gc, timed
from benchmarks.stage import Nameserver

FAULTS = {
    "silent": "silent",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
    "no_such_name": "no such name",
}
_CALLS = 100
_ROUNDS = 5
#: A peer that hangs at every call is not asked a hundred times.
_BUDGET = 12.0
#: Lifetime of the records, the shortest that all caches know.
_TTL = 1
_COLUMNS = (
    "first ms", "second ms", "last ms", "calls", "queries", "queries later", "served",
)  # fmt: skip


@dataclass
class _Line:
    """What one subject went through under one fault."""

    seconds: list[float] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    queries: int = 0
    later: int = 0
    skipped: str = ""

    def add(self, took: float, outcome: str) -> bool:
        """Take one call down; returns whether there is time for another."""
        self.seconds.append(took)
        self.outcomes.append(outcome)
        return sum(self.seconds) < _BUDGET


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """Timelines of an outage, one table per fault."""
    faults = dict(list(FAULTS.items())[1:2]) if quick else FAULTS
    lines: dict[str, dict[str, _Line]] = {fault: {} for fault in faults}
    for name in (peers.OURS, peers.OURS_SYSTEM):
        for fault, line in _ours(server, name, tuple(faults)).items():
            lines[fault][name] = line
    # The peers mostly wait, so all of them may do so at the same time.
    waiting = []
    for fault in faults:
        for name, run in _peers().items():
            line = lines[fault][name] = _Line()
            waiting.append(threading.Thread(target=_guarded, args=(run, server, fault, name, line)))
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    for fault, title in faults.items():
        table = Table(
            f"outage_{fault}", f"DNS broken ({title}), old answer known: 100 calls", _COLUMNS
        )
        table.rows = [_row(name, line) for name, line in lines[fault].items()]
        yield table


def _row(name: str, line: _Line) -> Row:
    if line.skipped:
        return Row(name, note=line.skipped)
    ms = [seconds * 1000 for seconds in line.seconds]
    second = ms[1] if len(ms) > 1 else None
    served = line.outcomes.count("ok")
    values = (ms[0], second, ms[-1], len(ms), line.queries, line.later, served)
    errors = sorted({outcome for outcome in line.outcomes if outcome != "ok"})
    return Row(name, dict(zip(_COLUMNS, values, strict=True)), ", ".join(errors))


def _hostname(fault: str, name: str) -> str:
    slug = "".join(letter for letter in name.lower() if letter.isalnum())
    return f"{slug}.{fault.replace('_', '-')}.bench.test"


def _prepare(server: Nameserver, hostname: str) -> None:
    server.tell(f"set {hostname} 10.0.0.1 ttl={_TTL}")


def _break(server: Nameserver, fault: str, hostname: str) -> None:
    server.tell(f"{fault} {hostname}")


def _ours(server: Nameserver, name: str, faults: tuple[str, ...]) -> dict[str, _Line]:
    """Ours alone on the machine and several times over, because its times are microseconds."""
    system = name == peers.OURS_SYSTEM
    try:
        if system:
            peers.need_system(server)
    except Skipped as reason:
        return {fault: _Line(skipped=str(reason)) for fault in faults}
    config = ResolverConfig(nameservers=() if system else (server.address,), min_ttl=_TTL, jitter=0)
    rounds: dict[str, list[_Round]] = {fault: [] for fault in faults}
    for fault, number in product(faults, range(_ROUNDS)):
        hostname = _hostname(fault, f"{name}{number}")
        _prepare(server, hostname)
        resolver = DNSResolver(config)
        resolver.resolve(hostname)
        rounds[fault].append(_Round(hostname, resolver, server.count(hostname)))
    time.sleep(_TTL + 0.2)
    for fault in faults:
        for one in rounds[fault]:
            _break(server, fault, one.hostname)
            with quiet_gc():
                for _ in range(_CALLS):
                    one.line.add(*timed(partial(one.resolver.resolve, one.hostname)))
            one.line.queries = server.count(one.hostname) - one.before
    for one in chain.from_iterable(rounds.values()):
        one.resolver.wait_idle(15)
        one.line.later = server.count(one.hostname) - one.before
    return {fault: _middle([one.line for one in rounds[fault]]) for fault in faults}


@dataclass
class _Round:
    """One of several times that the same thing is done."""

    hostname: str
    resolver: DNSResolver
    before: int
    line: _Line = field(default_factory=_Line)


def _middle(lines: list[_Line]) -> _Line:
    """The median of each call's time, and the worst of everything else."""
    return _Line(
        seconds=[
            statistics.median(times) for times in zip(*(x.seconds for x in lines), strict=True)
        ],
        outcomes=min((line.outcomes for line in lines), key=lambda found: found.count("ok")),
        queries=max(line.queries for line in lines),
        later=max(line.later for line in lines),
    )


def _guarded(
    run: Callable[[Nameserver, str, str, _Line], None],
    server: Nameserver,
    fault: str,
    name: str,
    line: _Line,
) -> None:
    try:
        run(server, fault, _hostname(fault, name), line)
    except Skipped as reason:
        line.skipped = str(reason)
    except Exception as error:  # A peer that breaks loses its row, and not the whole run.
        line.skipped = f"{type(error).__name__}: {error}"


def _timeline(server: Nameserver, fault: str, hostname: str, line: _Line, call: peers.Call) -> None:
    _prepare(server, hostname)
    call(hostname)
    time.sleep(_TTL + 0.2)
    _break(server, fault, hostname)
    before = server.count(hostname)
    for _ in range(_CALLS):
        if not line.add(*timed(partial(call, hostname))):
            break
    line.queries = line.later = server.count(hostname) - before


async def _async_timeline(
    server: Nameserver,
    fault: str,
    hostname: str,
    line: _Line,
    call: Callable[[str], Awaitable[Any]],
) -> None:
    _prepare(server, hostname)
    await call(hostname)
    await asyncio.sleep(_TTL + 0.2)
    _break(server, fault, hostname)
    before = server.count(hostname)
    for _ in range(_CALLS):
        started, outcome = time.perf_counter(), "ok"
        try:
            await call(hostname)
        except Exception as error:
            outcome = type(error).__name__
        if not line.add(time.perf_counter() - started, outcome):
            break
    line.queries = line.later = server.count(hostname) - before


def _peers() -> dict[str, Callable[[Nameserver, str, str, _Line], None]]:
    def over_system(make: Callable[[], peers.Call]) -> Any:
        def run(server: Nameserver, fault: str, hostname: str, line: _Line) -> None:
            peers.need_system(server)
            _timeline(server, fault, hostname, line, make())

        return run

    def dnspython(server: Nameserver, fault: str, hostname: str, line: _Line) -> None:
        resolver = peers.dnspython(server)
        _timeline(server, fault, hostname, line, lambda name: resolver.resolve(name, "A"))

    def aiohttp(server: Nameserver, fault: str, hostname: str, line: _Line) -> None:
        peers.need_system(server)

        async def main() -> None:
            async with peers.aiohttp_cache(ttl=_TTL) as call:
                await _async_timeline(server, fault, hostname, line, call)

        peers.run_async(main)

    def aiodns(server: Nameserver, fault: str, hostname: str, line: _Line) -> None:
        async def main() -> None:
            async with peers.aiodns(server) as call:
                await _async_timeline(server, fault, hostname, line, call)

        peers.run_async(main)

    return {
        "getaddrinfo": over_system(lambda: peers.getaddrinfo),
        "cachetools TTLCache of getaddrinfo": over_system(lambda: peers.ttl_cache(ttl=_TTL)),
        "dnspython LRUCache": dnspython,
        "aiohttp connector": aiohttp,
        "aiodns": aiodns,
    }
