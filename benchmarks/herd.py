"""A thousand callers at once, one name that is not cached: how many queries go out?"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from benchmarks import peers
from benchmarks.measure import Row, Skipped, Table
from benchmarks.stage import Nameserver

#: The server takes this long, so that all callers are there before the first answer.
_DELAY = 0.05
_LOOPS = 4
_COLUMNS = ("callers", "queries per type", "wall s", "answered")
OURS_THREADS, OURS_TASKS, OURS_LOOPS = "ours, threads", "ours, tasks", "ours, tasks in 4 loops"
OURS_FAILING, OURS_FAILING_LOOPS = "ours, threads, SERVFAIL", "ours, tasks in 4 loops, SERVFAIL"

Opened = Callable[[], AbstractAsyncContextManager[peers.AsyncCall]]


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """A thundering herd, with the queries counted at the server.

    The best time of a few herds, as elsewhere, and the queries of the worst of them.
    """
    callers, rounds = (200, 1) if quick else (1000, 3)
    table = Table("herd", f"{callers} callers at once, one unknown name", _COLUMNS)
    for number, (name, run) in enumerate(_subjects(server).items()):
        hostnames = [f"herd{number}-{each}.bench.test" for each in range(rounds)]
        for hostname in hostnames:
            server.tell(f"set {hostname} 10.0.0.1 fd00::1 ttl=60")
            server.tell(f"delay {hostname} {_DELAY}")
            if "SERVFAIL" in name:
                server.tell(f"servfail {hostname}")
        try:
            herds = [run(hostname, callers) for hostname in hostnames]
        except Skipped as reason:
            table.rows.append(Row(name, note=str(reason)))
            continue
        wall, outcomes = min(herds, key=lambda herd: herd[0])
        queries = max(map(server.per_type, hostnames))
        values = (callers, queries, wall, min(found["ok"] for _, found in herds))
        errors = ", ".join(f"{count} {kind}" for kind, count in outcomes.items() if kind != "ok")
        table.rows.append(Row(name, dict(zip(_COLUMNS, values, strict=True)), errors))
    yield table


Outcome = tuple[float, Counter[str]]


def _subjects(server: Nameserver) -> dict[str, Callable[[str, int], Outcome]]:
    def getaddrinfo(name: str) -> Any:
        return peers.getaddrinfo(name)

    def over_system(make: Callable[[], peers.Call]) -> Callable[[str, int], Outcome]:
        def run(name: str, callers: int) -> Outcome:
            peers.need_system(server)
            return _threads(make(), name, callers)

        return run

    @asynccontextmanager
    async def executor():  # type: ignore[no-untyped-def]
        peers.need_system(server)
        loop = asyncio.get_running_loop()
        yield lambda name: loop.getaddrinfo(name, peers.PORT)

    @asynccontextmanager
    async def aiohttp():  # type: ignore[no-untyped-def]
        peers.need_system(server)
        async with peers.aiohttp_cache() as call:
            yield call

    @asynccontextmanager
    async def dnspython():  # type: ignore[no-untyped-def]
        resolver = peers.dnspython(server, asynchronous=True)
        yield lambda name: resolver.resolve(name, "A")

    def dnspython_threads(name: str, callers: int) -> Outcome:
        resolver = peers.dnspython(server)
        return _threads(lambda hostname: resolver.resolve(hostname, "A"), name, callers)

    def ours_threads(name: str, callers: int) -> Outcome:
        with peers.ours(server) as resolver:
            return _threads(resolver.resolve, name, callers)

    def ours_tasks(loops: int) -> Callable[[str, int], Outcome]:
        def run(name: str, callers: int) -> Outcome:
            with peers.ours(server) as resolver:

                @asynccontextmanager
                async def opened():  # type: ignore[no-untyped-def]
                    yield resolver.aresolve

                return _tasks(opened, name, callers, loops)

        return run

    def tasks(opened: Opened, loops: int = 1) -> Callable[[str, int], Outcome]:
        return lambda name, callers: _tasks(opened, name, callers, loops)

    return {
        "getaddrinfo, threads": over_system(lambda: getaddrinfo),
        "lru_cache of getaddrinfo, threads": over_system(peers.lru_cache),
        "cachetools TTLCache of getaddrinfo, threads": over_system(
            lambda: peers.ttl_cache(lock=True)
        ),
        "getaddrinfo in an executor, tasks": tasks(executor),
        "aiohttp connector, tasks": tasks(aiohttp),
        "aiohttp connectors, tasks in 4 loops": tasks(aiohttp, _LOOPS),
        "dnspython LRUCache, threads": dnspython_threads,
        "dnspython LRUCache, tasks": tasks(dnspython),
        "aiodns, tasks": tasks(lambda: peers.aiodns(server)),
        OURS_THREADS: ours_threads,
        OURS_TASKS: ours_tasks(1),
        OURS_LOOPS: ours_tasks(_LOOPS),
        OURS_FAILING: ours_threads,
        OURS_FAILING_LOOPS: ours_tasks(_LOOPS),
    }


def _threads(call: peers.Call, name: str, callers: int) -> Outcome:
    outcomes: Counter[str] = Counter()
    started: list[float] = []
    barrier = threading.Barrier(callers, action=lambda: started.append(time.perf_counter()))

    def caller() -> None:
        barrier.wait()
        outcomes[_outcome_of(call, name)] += 1

    old = threading.stack_size(256 * 1024)
    try:
        threads = [threading.Thread(target=caller, daemon=True) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        threading.stack_size(old)
    outcomes["never ended"] += sum(thread.is_alive() for thread in threads)
    return time.perf_counter() - started[0], +outcomes


def _outcome_of(call: peers.Call, name: str) -> str:
    try:
        call(name)
    except Exception as error:
        return type(error).__name__
    return "ok"


def _tasks(opened: Opened, name: str, callers: int, loops: int) -> Outcome:
    outcomes: Counter[str] = Counter()
    started: list[float] = []
    barrier = threading.Barrier(loops, action=lambda: started.append(time.perf_counter()))

    async def caller(call: Callable[[str], Awaitable[Any]]) -> None:
        try:
            await call(name)
        except Exception as error:
            outcomes[type(error).__name__] += 1
        else:
            outcomes["ok"] += 1

    async def main() -> None:
        try:
            async with opened() as call:
                barrier.wait()
                await asyncio.gather(*(caller(call) for _ in range(callers // loops)))
        except Skipped:
            barrier.abort()
            raise

    skipped: list[Skipped] = []

    def loop() -> None:
        try:
            peers.run_async(main)
        except Skipped as reason:
            skipped.append(reason)
        except threading.BrokenBarrierError:
            pass

    threads = [threading.Thread(target=loop) for _ in range(loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if skipped:
        raise skipped[0]
    return time.perf_counter() - started[0], outcomes
