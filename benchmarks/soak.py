"""``python -m benchmarks.soak``: hours of trouble in minutes, against a real DNS server.

Eight threads and two event loops resolve for as long as they are told while a random fault is put
on a random name again and again. At the end nothing may have leaked, the counters must add up, and
no caller may have got an error while something could be served.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from airflow_provider_hokusai_dns.resolver.testing import DNSServer, MemoryStore

NAMES = tuple(f"soak-{number}.test.local" for number in range(20))
#: Lifetimes and pauses as short as they go, so that every second holds many decisions. The limits
#: on old answers stay long: nothing runs out, so every error is one too many.
CONFIG = {
    "min_ttl": 0.05,
    "stale_after": 0.05,
    "timeout": 0.5,
    "failure_recheck": 0.1,
    "no_name_recheck": 0.05,
    "failure_ttl": 0.05,
    "failure_ttl_max": 0.2,
    "store_recheck": 0.5,
}


@dataclass
class Soak:
    """What one soak found."""

    calls: int = 0
    cancelled: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)


def soak(seconds: float, *, seed: int = 1, threads: int = 8, loops: int = 2) -> Soak:
    """Run it; ``complaints`` is empty when all went well.

    :param seconds: how long.
    """
    found = Soak()
    with DNSServer() as dns:
        others = set(threading.enumerate())  # the nameserver's among them
        for number, name in enumerate(NAMES):
            dns.set_records(
                name, [f"10.0.{number}.1", f"10.0.{number}.2", f"fd00::{number}"], ttl=1
            )
        resolver = DNSResolver(
            ResolverConfig(nameservers=(dns.address,), **CONFIG),  # type: ignore[arg-type]
            store=MemoryStore(),
        )
        for name in NAMES:  # from here on there is an old answer for each
            resolver.resolve(name)
        # A tenth of the time to reach what it keeps; after that, nothing may grow.
        _work(resolver, dns, found, seconds * 0.1, seed, threads, loops)
        before = _footprint(dns, resolver, others)
        _work(resolver, dns, found, seconds * 0.9, seed + 1, threads, loops)
        after = _footprint(dns, resolver, others)
        _judge(found, resolver, before, after)
    return found


def _work(
    resolver: DNSResolver,
    dns: DNSServer,
    found: Soak,
    seconds: float,
    seed: int,
    threads: int,
    loops: int,
) -> None:
    stop = threading.Event()
    lock = threading.Lock()
    jobs: list[Callable[[], None]] = [
        lambda number=number: _thread(resolver, stop, found, lock, seed + number)  # type: ignore[misc]
        for number in range(threads)
    ]
    jobs += [
        lambda number=number: asyncio.run(_loop(resolver, stop, found, lock, seed - number))  # type: ignore[misc]
        for number in range(1, loops + 1)
    ]
    workers = [threading.Thread(target=job, daemon=True) for job in jobs]
    for worker in workers:
        worker.start()
    _trouble(dns, found, seconds, random.Random(seed))
    stop.set()
    for worker in workers:
        worker.join(30)
        if worker.is_alive():
            found.complaints.append("a worker hangs")
    dns.heal()
    resolver.wait_idle(30)


def _trouble(dns: DNSServer, found: Soak, seconds: float, dice: random.Random) -> None:
    end = time.monotonic() + seconds
    faults: list[Callable[[str], None]] = [
        dns.no_such_name,
        dns.no_data,
        dns.servfail,
        dns.refused,
        dns.silent,
        dns.truncate,
        dns.wrong_id,
        dns.garbage,
        dns.heal,
        dns.heal,
        dns.heal,
    ]
    while time.monotonic() < end:
        name, fault = dice.choice(NAMES), dice.choice(faults)
        fault(name)
        found.faults[fault.__name__] += 1
        dns.clear_queries()
        time.sleep(dice.uniform(0.001, 0.05))


def _one(resolver: DNSResolver, name: str, dice: random.Random) -> str | None:
    """What a thread does besides resolving, now and then."""
    draw = dice.random()
    if draw < 0.02:
        resolver.report_failure(name, f"10.0.{NAMES.index(name)}.{dice.choice((1, 2))}")
    elif draw < 0.03:
        resolver.metrics()
    elif draw < 0.031:
        resolver.cleanup()
    return resolver.resolve(name if draw < 0.5 else f"http://{name}:5000/x").source.value


def _thread(
    resolver: DNSResolver, stop: threading.Event, found: Soak, lock: threading.Lock, seed: int
) -> None:
    dice = random.Random(seed)
    calls, sources, errors = 0, Counter[str](), Counter[str]()
    while not stop.is_set():
        name = dice.choice(NAMES)
        calls += 1
        try:
            sources[_one(resolver, name, dice) or ""] += 1
        except DNSResolutionError as error:
            errors[f"{error.cause.value}: {error}"[:200]] += 1
        if calls % 200 == 0:
            time.sleep(0.001)
    with lock:
        found.calls += calls
        found.sources += sources
        found.errors += errors


async def _loop(
    resolver: DNSResolver, stop: threading.Event, found: Soak, lock: threading.Lock, seed: int
) -> None:
    dice = random.Random(seed)
    while not stop.is_set():
        names = [dice.choice(NAMES) for _ in range(20)]
        tasks = [asyncio.ensure_future(resolver.aresolve(name)) for name in names]
        if dice.random() < 0.2:  # a waiter that is cancelled harms no other
            await asyncio.sleep(0)
            dice.choice(tasks).cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        with lock:
            for outcome in outcomes:
                if isinstance(outcome, asyncio.CancelledError):
                    found.cancelled += 1
                    continue
                found.calls += 1
                if isinstance(outcome, BaseException):
                    found.errors[f"{type(outcome).__name__}: {outcome}"[:200]] += 1
                else:
                    found.sources[outcome.source.value] += 1
        await asyncio.sleep(0.001)


def _footprint(
    dns: DNSServer, resolver: DNSResolver, others: set[threading.Thread]
) -> dict[str, int]:
    """What must not grow, once everything has come to rest.

    :param others: threads that were there before, such as those of other tests.
    """
    dns.clear_queries()
    deadline = time.monotonic() + 15
    while len(set(threading.enumerate()) - others) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)  # idle workers go after a while
    resolver.cleanup()
    return {
        "threads": len(set(threading.enumerate()) - others),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "bytes": tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0,
    }


def _judge(
    found: Soak, resolver: DNSResolver, before: dict[str, int], after: dict[str, int]
) -> None:
    numbers = resolver.metrics()
    # A name was looked up first, for each; a call that was cancelled may have been counted or not.
    for what, counted, seen in (
        ("calls", numbers.attempts, found.calls + len(NAMES)),
        ("hits", numbers.hits, found.sources["cache"]),
        ("stale answers", numbers.stale, found.sources["stale"]),
        ("misses", numbers.misses, found.sources["dns"] + len(NAMES)),
        ("errors", numbers.failed, found.errors.total()),
    ):
        if not seen <= counted <= seen + found.cancelled:
            found.complaints.append(
                f"{seen} {what}, and {found.cancelled} calls cancelled, but {counted} were counted"
            )
    for what, count in found.errors.items():
        found.complaints.append(f"{count} x {what}")
    for what, allowed in (("threads", 1), ("descriptors", 2)):
        if after[what] > before[what] + allowed:
            found.complaints.append(f"{what} grew from {before[what]} to {after[what]}")
    if after["bytes"] > before["bytes"] * 1.2 + 2_000_000:
        found.complaints.append(f"memory grew from {before['bytes']} to {after['bytes']} bytes")


def main(arguments: list[str] | None = None) -> int:
    """Soak, print what was found; 0 when all went well."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    tracemalloc.start()
    found = soak(options.seconds, seed=options.seed)
    print(f"{found.calls} calls in {options.seconds:.0f} s, by source:", dict(found.sources))
    print("faults:", dict(found.faults))
    for complaint in found.complaints:
        print("WRONG:", complaint)
    print("nothing wrong" if not found.complaints else f"{len(found.complaints)} things wrong")
    return 1 if found.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
