"""Numbers that add up, the health level, states and events."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from airflow_provider_hokusai_dns import observers
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import (
    Cause,
    DNSResolver,
    Event,
    Resolution,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.metrics import Served, Tally, Window
from airflow_provider_hokusai_dns.resolver.observers import Observers

NAME = "mlflow.example.local"
OTHER = "other.example.local"
STATIC = {"static_addresses": {NAME: ("10.9.9.9",)}}


# --- numbers and events


def test_the_numbers_add_up_over_every_way_a_call_can_end(make, lookup, store, clock):
    """Each call counts once: attempts = hits + misses + stale + fallback + failed."""
    resolver = make(store=store, **{"static_addresses": {"static.local": ("10.9.9.9",)}})
    script = ["10.0.0.1", Cause.TIMEOUT, Cause.NXDOMAIN, "10.0.0.2", Cause.SERVFAIL]
    lookup.script(NAME, *script)
    calls = failed = 0
    for round_ in range(300):
        for target in (NAME, f"http://{NAME}:80", "static.local", "nowhere.local"):
            calls += 1
            try:
                resolver.refresh(target) if round_ % 7 == 0 else resolver.resolve(target)
            except DNSResolutionError:
                failed += 1
        clock.advance(round_ % 11 * 10)
        if round_ % 50 == 49:
            assert resolver.wait_idle()
            resolver.cleanup()
            resolver.clear(NAME)
    assert resolver.wait_idle()
    m = resolver.metrics()
    assert m.attempts == calls == m.hits + m.misses + m.stale + m.fallback + m.failed
    assert m.failed == failed
    assert min(m.hits, m.misses, m.stale, m.fallback, m.failed) > 0
    assert m.lookups == lookup.calls()
    assert sum(m.errors.values()) + m.misses <= m.lookups
    assert m.hit_rate == pytest.approx(m.hits / m.attempts)


def test_the_numbers_add_up_over_threads(lookup):
    """Counting without a lock loses nothing on CPython."""
    resolver = DNSResolver(lookup=lookup)
    lookup.set(NAME, ("10.0.0.1", "10.0.0.2"))

    def work():
        for _ in range(3000):
            resolver.resolve(NAME)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert resolver.metrics().attempts == 24_000


def test_a_snapshot_tells_size_expired_last_success_and_latency(make, lookup, clock):
    """Frozen, and as plain values for JSON."""
    import json

    lookup.set(NAME, "10.0.0.1")
    resolver = make()
    assert resolver.metrics().last_success is None
    resolver.resolve(NAME)
    with pytest.raises(DNSResolutionError):
        resolver.resolve(OTHER)
    clock.advance(50)
    m = resolver.metrics()
    assert (m.cache_size, m.expired, m.errors) == (2, 1, {"nxdomain": 1})
    assert m.last_success == datetime.fromtimestamp(clock.time() - 50, UTC)
    assert m.latency_ms is not None
    assert json.loads(json.dumps(m.as_dict()))["last_success"] == m.last_success.isoformat()
    clock.advance(100)
    assert resolver.metrics().expired == 2
    with pytest.raises(AttributeError):
        m.hits = 5


@pytest.mark.parametrize(
    ("failures", "successes", "level", "rate"),
    [
        (9, 0, "unknown", 1.0),
        (1, 9, "healthy", 0.1),
        (2, 9, "degraded", 2 / 11),
        (7, 3, "degraded", 0.7),
        (8, 3, "unhealthy", 8 / 11),
        (0, 10, "healthy", 0.0),
    ],
)
def test_the_level_follows_the_error_rate_of_the_window(
    make, lookup, clock, failures, successes, level, rate
):
    """Healthy to 10 %, degraded to 70 %, unhealthy above; silent under ten events."""
    lookup.script(NAME, *["10.0.0.1"] * successes, *[Cause.TIMEOUT] * failures)
    resolver = make(**STATIC)
    for _ in range(failures + successes):
        resolver.refresh(NAME)
    m = resolver.metrics()
    assert (m.level, m.window_events) == (level, failures + successes)
    assert m.error_rate == pytest.approx(rate)
    clock.advance(301)
    assert resolver.metrics().level == "unknown"


def test_a_resolver_that_failed_for_an_hour_is_healthy_a_window_later(make, lookup, clock):
    """Windows look at events, and not at lifetimes."""
    lookup.set(NAME, Cause.TIMEOUT)
    resolver = make(**STATIC)
    for _ in range(360):
        resolver.refresh(NAME)
        clock.advance(10)
    assert resolver.metrics().level == "unhealthy"
    lookup.set(NAME, "10.0.0.1")
    for _ in range(31):
        resolver.refresh(NAME)
        clock.advance(10)
    assert resolver.metrics().level == "healthy"


def test_state_events_come_once_per_change(make, lookup, clock):
    """Unknown, healthy, degraded, unhealthy, healthy: each once, with what was before and why."""
    resolver = make(max_stale=110)
    events = []
    resolver.add_observer(lambda e: events.append(e) if e.kind == "state" else None)
    lookup.set(NAME, "10.0.0.1")
    for _ in range(3):
        resolver.refresh(NAME)
    lookup.set(NAME, Cause.SERVFAIL)
    for _ in range(3):
        assert resolver.wait_idle()  # a state is announced after the caller has its answer
        clock.advance(34)
        resolver.refresh(NAME)
    assert resolver.wait_idle()
    clock.advance(20)
    for _ in range(3):
        with pytest.raises(DNSResolutionError):
            resolver.refresh(NAME)
    assert resolver.wait_idle()
    lookup.set(NAME, "10.0.0.1")
    for _ in range(3):
        resolver.refresh(NAME)
    assert resolver.wait_idle()
    assert [(e.previous, e.state, e.cause) for e in events] == [
        ("unknown", "healthy", None),
        ("healthy", "degraded", Cause.SERVFAIL),
        ("degraded", "unhealthy", Cause.SERVFAIL),
        ("unhealthy", "healthy", None),
    ]


def test_observers_hear_of_lookups_and_of_what_was_served_instead(make, lookup, clock):
    """Kinds, causes, seconds and the resolution."""
    resolver = make(**STATIC)
    events: list[Event] = []
    resolver.add_observer(events.append)
    lookup.script(NAME, "10.0.0.1", Cause.NXDOMAIN)
    resolver.resolve(NAME)
    for _ in range(4):
        resolver.resolve(NAME)
    clock.advance(101)
    resolver.resolve(NAME)
    clock.advance(1000)
    assert resolver.resolve(NAME).source is Source.STATIC
    assert resolver.wait_idle()
    by_kind = {e.kind: e for e in events}
    assert by_kind["lookup"].seconds is not None
    assert by_kind["lookup_failed"].cause is Cause.NXDOMAIN
    assert isinstance(by_kind["stale_served"].resolution, Resolution)
    assert by_kind["static_served"].resolution.source is Source.STATIC
    assert sum(e.hits for e in events) == 4


def test_a_lookup_whose_second_family_is_late_is_counted_once(dns, monkeypatch):
    """The merged answer was sent to Airflow's metrics as one more lookup, which took seconds."""
    sent: Counter[str] = Counter()
    stats = SimpleNamespace(
        incr=lambda name, count=1, **_: sent.update({name: count}),
        timing=lambda name, *_, **__: sent.update([name]),
    )
    monkeypatch.setattr(observers, "_stats", lambda: stats)
    dns.set_records(NAME, ["10.0.0.1", "fd00::1"])
    dns.fault(NAME, "silent", "answer", rdtype="AAAA")
    resolver = DNSResolver(ResolverConfig(nameservers=(dns.address,)))
    resolver.add_observer(observers.count_event)
    assert resolver.resolve(NAME).addresses == ("10.0.0.1",)
    assert resolver.wait_idle()
    found = resolver.resolve(NAME)
    assert set(found.addresses) == {"10.0.0.1", "fd00::1"}
    assert sent == {"hokusai_dns.lookup": 1, "hokusai_dns.lookup_ms": 1}
    assert (resolver.metrics().lookups, resolver.metrics().window_events) == (1, 1)


def test_an_observer_that_raises_harms_nobody(make, lookup):
    """Neither the caller nor the observers after it."""
    resolver = make()
    heard = []
    resolver.add_observer(lambda event: 1 / 0)
    resolver.add_observer(heard.append)
    lookup.set(NAME, "10.0.0.1")
    assert resolver.resolve(NAME).address == "10.0.0.1"
    assert resolver.wait_idle()
    assert [e.kind for e in heard] == ["lookup", "state"]


def test_observers_are_told_outside_of_locks(make, lookup, clock):
    """Another thread can use the resolver while an observer is busy."""
    resolver = make()
    lookup.set(NAME, "10.0.0.1")
    lookup.set(OTHER, "10.0.0.2")
    seen = []

    def observer(event: Event) -> None:
        if event.hostname != NAME:
            return
        other = threading.Thread(target=lambda: seen.append(resolver.resolve(OTHER)))
        other.start()
        other.join(5)
        seen.append(resolver.metrics())

    resolver.add_observer(observer)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    assert seen[0].address == "10.0.0.2"


def test_hits_told_to_observers_add_up_over_threads(lookup):
    """Two events at the same moment do not report the same hits twice."""
    resolver = DNSResolver(ResolverConfig(cache_ttl=0.01, min_ttl=0.01), lookup=lookup)
    told = []
    resolver.add_observer(lambda event: told.append(event.hits))
    names = [f"h{n}.local" for n in range(8)]
    for name in names:
        lookup.set(name, "10.0.0.1")

    def work(name):
        for _ in range(300):
            resolver.resolve(name)
            time.sleep(0.0002)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert resolver.wait_idle()
    assert 0 < sum(told) <= resolver.metrics().hits


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_tells_observers_of_its_own_hits_alone(make, lookup):
    """Those of its parent since the last event were sent once by each child too."""
    lookup.set(NAME, "10.0.0.1")
    resolver, told = make(), []
    resolver.add_observer(told.append)
    for _ in range(8):
        resolver.resolve(NAME)  # seven hits, of which no event has told yet
    child = os.fork()
    if child == 0:
        hits = 99
        try:
            del told[:]
            resolver.resolve(NAME)
            resolver.refresh(NAME)
            hits = sum(event.hits for event in told)
        finally:
            os._exit(hits)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    resolver.refresh(NAME)
    assert sum(event.hits for event in told) == 7


class _Interrupted(Tally):
    """While it is read, a signal handler is served another kind of answer."""

    def __init__(self, served: Served) -> None:
        self._served = served

    @property
    def n(self) -> int:
        self._served.of(Source.STATIC).n += 1
        return 1


def test_a_signal_handler_may_be_served_while_the_numbers_are_added_up():
    """It may resolve a name in the thread that adds them up, which then holds the lock."""
    one = Served()
    one.others = {Source.STALE: _Interrupted(one), Source.STORE: Tally(1)}
    total = Served()
    total.absorb(one)
    assert total.numbers() == {"hits": 0, "stale": 1, "stored": 1}


def test_a_signal_handler_may_end_a_lookup_while_the_window_is_cleaned():
    """It may resolve a name in the thread that cleans the window, which then holds the lock."""
    window, times = Window(30.0), [100.0]

    class Interrupted(int):
        """A bucket: when it is first looked at, a signal handler ends a lookup."""

        def __le__(self, other: int) -> bool:
            if times:
                window.add(times.pop(), ok=True)
            return int(self) <= other

    window._buckets = {Interrupted(number): [1, 0] for number in range(3)}
    assert window.counts(100.0) == (0, 1)


def test_a_signal_handler_may_be_served_while_an_event_is_emitted():
    """It runs in the thread that emits it, and emits one too; no hit is told of twice."""
    events: list[Event] = []
    interruptions = ["signal"]

    def served() -> Counter[str]:
        if interruptions:
            interruptions.pop()
            told.emit("stale_served", OTHER)
            return Counter(hits=5)  # read before the signal came
        return Counter(hits=7)

    told = Observers(served)
    told.add(events.append)
    thread = threading.Thread(target=told.emit, args=("lookup", NAME), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    told.emit("lookup", NAME)
    assert [(event.kind, event.hits) for event in events] == [
        ("stale_served", 7),
        ("lookup", 0),
        ("lookup", 0),
    ]
