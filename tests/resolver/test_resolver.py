"""What callers of the resolver see: every source, their order, errors, slow lookups, refresh."""

from __future__ import annotations

import asyncio
import pickle
import time
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import (
    Answer,
    Attempt,
    Cause,
    DNSResolver,
    Endpoint,
    LastKnownGood,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.testing import ManualClock, MemoryStore, ScriptedLookup

NAME = "mlflow.example.local"
OTHER = "other.example.local"
STATIC = {"static_addresses": {NAME: ("10.9.9.9",)}}


def stored(clock: ManualClock, age: float = 100.0, *addresses: str, **more) -> LastKnownGood:
    return LastKnownGood(NAME, addresses or ("10.0.0.9",), clock.time() - age, **more)


def age_out(resolver: DNSResolver, clock: ManualClock) -> None:
    """Let the answer in memory become old."""
    clock.advance(resolver.config.cache_ttl + 1)


# --- the sources and their order


@pytest.mark.parametrize(
    ("target", "address", "port", "rendered"),
    [
        ("10.0.0.1", "10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1:80", "10.0.0.1", 80, "10.0.0.1:80"),
        ("fd00::1", "fd00::1", None, "fd00::1"),
        ("[fd00::1]:80", "fd00::1", 80, "[fd00::1]:80"),
        ("http://[fd00::1]:80/a?b", "fd00::1", 80, "http://[fd00::1]:80/a?b"),
    ],
)
def test_a_literal_address_is_its_own_answer(make, lookup, target, address, port, rendered):
    """No lookup, no age, healthy, and given back to the letter."""
    resolver = make()
    found = resolver.resolve(target)
    assert (found.source, found.address, found.port) == (Source.LITERAL, address, port)
    assert str(found) == rendered
    assert found.age() is None
    assert not found.is_stale
    assert resolver.state(target) == "healthy"
    resolver.warm([target])
    resolver.report_failure(target, address)
    assert lookup.calls() == 0
    assert resolver.metrics().attempts == 0


@pytest.mark.parametrize(
    ("target", "rendered"),
    [
        (NAME, "10.0.0.1"),
        (f"{NAME}:5000", "10.0.0.1:5000"),
        (
            f"http://u:p@{NAME.upper()}:5000/{NAME}?q={NAME}",
            f"http://u:p@10.0.0.1:5000/{NAME}?q={NAME}",
        ),
    ],
)
def test_every_form_renders_back_in_its_own_form(make, lookup, target, rendered):
    """Only the host is replaced; and all forms share one cache entry."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make()
    resolver.resolve(NAME)
    found = resolver.resolve(target)
    assert str(found) == rendered
    assert (found.target, found.hostname) == (target, NAME)
    assert lookup.calls() == 1


def test_an_ipv6_answer_gets_brackets_where_the_form_wants_them(make, lookup):
    """In a URL and before a port, and nowhere else."""
    lookup.set(NAME, "fd00::1")
    resolver = make()
    assert str(resolver.resolve(NAME)) == "fd00::1"
    assert str(resolver.resolve(f"{NAME}:80")) == "[fd00::1]:80"
    assert str(resolver.resolve(f"https://{NAME}/x")) == "https://[fd00::1]/x"


@pytest.mark.parametrize(
    "target", ["", " ", "a b", "http://", "host:99999", "1.2", "0x7f.1", None, 7]
)
def test_what_can_never_be_right_is_a_value_error_and_asks_nobody(make, lookup, target):
    """Bad input is told apart from a name that does not resolve."""
    resolver = make()
    for call in (resolver.resolve, resolver.refresh, resolver.state, resolver.clear):
        if call == resolver.clear and target is None:
            continue
        with pytest.raises(ValueError, match=r"\S"):
            call(target)
    with pytest.raises(ValueError, match=r"\S"):
        resolver.warm([NAME, target])
    assert lookup.calls() == 0


@pytest.mark.parametrize("source", [Source.DNS, Source.HOSTS, Source.SYSTEM])
def test_a_live_answer_names_its_source_once_and_is_cache_afterwards(make, lookup, clock, source):
    """Who waited for it learns where it came from; who comes later gets it from the cache."""
    lookup.set(NAME, Answer((Endpoint("10.0.0.1"),), source, ttl=100))
    resolver = make()
    found = resolver.resolve(NAME)
    assert (found.source, found.cause, found.is_stale) == (source, None, False)
    clock.advance(10)
    again = resolver.resolve(NAME)
    assert (again.source, again.is_stale) == (Source.CACHE, False)
    assert again.age() == 10
    assert again.age(clock.monotonic() + 5) == 15
    assert again.resolved_at == datetime.fromtimestamp(clock.time() - 10, UTC)
    assert again.expires_at - again.resolved_at == timedelta(seconds=100)
    assert resolver.state(NAME) == "healthy"


def test_a_stale_answer_is_flagged_with_age_and_reason(make, lookup, clock):
    """Stale, how old, why, and until when it was fresh."""
    lookup.script(NAME, "10.0.0.1", Cause.SERVFAIL)
    resolver = make()
    resolver.resolve(NAME)
    clock.advance(150)
    found = resolver.resolve(NAME)
    assert (found.source, found.cause, found.is_stale) == (Source.STALE, Cause.SERVFAIL, True)
    assert found.age() == 150
    assert found.address == "10.0.0.1"
    assert found.expires_at < datetime.fromtimestamp(clock.time(), UTC)
    assert resolver.state(NAME) == "degraded"


def test_a_fresh_process_that_meets_a_dead_dns_gets_the_stored_address(make, lookup, store, clock):
    """With the age it has in the store."""
    store.records[NAME] = stored(clock, 100)
    lookup.set(NAME, Cause.SERVFAIL)
    resolver = make(store=store)
    found = resolver.resolve(NAME)
    assert (found.source, found.address, found.cause) == (Source.STORE, "10.0.0.9", Cause.SERVFAIL)
    assert found.age() == pytest.approx(100)
    assert resolver.state(NAME) == "degraded"
    assert resolver.metrics().fallback == 1


@pytest.mark.parametrize("cause", list(Cause))
def test_a_static_address_is_for_its_hostname_only_and_for_every_cause(make, lookup, cause):
    """Also for a name that never resolved; and never for another name."""
    lookup.set(NAME, cause)
    lookup.set(OTHER, cause)
    resolver = make(**STATIC)
    found = resolver.resolve(f"{NAME}:80")
    assert (found.source, str(found), found.cause) == (Source.STATIC, "10.9.9.9:80", cause)
    assert found.age() is None
    assert found.is_stale
    assert resolver.state(NAME) == "degraded"
    with pytest.raises(DNSResolutionError):
        resolver.resolve(OTHER)


def test_the_order_is_memory_then_store_then_static(make, lookup, store, clock):
    """Each steps in only when the one before has nothing left."""
    lookup.script(NAME, "10.0.0.1", Cause.TIMEOUT)
    resolver = make(store=store, **STATIC)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    age_out(resolver, clock)
    assert resolver.resolve(NAME).source is Source.STALE
    resolver.clear()
    assert resolver.resolve(NAME).source is Source.STORE
    resolver.clear()
    store.records.clear()
    assert resolver.resolve(NAME).source is Source.STATIC
    plain = make(store=store)
    with pytest.raises(DNSResolutionError):
        plain.resolve(NAME)


def test_nothing_slow_stands_before_a_live_lookup(make, lookup, store):
    """On a good day the store is read after the answer was given, never before."""
    store.seconds = 30
    lookup.set(NAME, "10.0.0.1")
    resolver = make(store=store)
    started = time.monotonic()
    assert resolver.resolve(NAME).source is Source.DNS
    assert time.monotonic() - started < 15
    store.wake()


# --- errors


def test_the_error_names_hostname_cause_and_all_that_was_tried(make, lookup, store):
    """As fields and as a sentence; and it can be sent to another process."""
    lookup.set(NAME, Cause.REFUSED)
    with pytest.raises(DNSResolutionError) as caught:
        make(store=store).resolve(f"http://user:secret@{NAME}/path")
    error = caught.value
    assert (error.hostname, error.cause) == (NAME, Cause.REFUSED)
    assert [str(step.what) for step in error.tried] == [
        "stale answer in memory",
        "shared store",
        "static address",
    ]
    assert f"'{NAME}' cannot be resolved (refused" in str(error)
    assert "nothing usable is known" in str(error)
    assert "secret" not in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.hostname, copy.cause, copy.tried, str(copy)) == (
        error.hostname,
        error.cause,
        error.tried,
        str(error),
    )


def test_the_error_says_when_there_is_a_stale_answer_that_is_too_old(make, lookup, clock):
    """People ask why the address they saw an hour ago is not used."""
    lookup.script(NAME, "10.0.0.1", Cause.TIMEOUT)
    resolver = make(max_stale=200)
    resolver.resolve(NAME)
    clock.advance(200)
    with pytest.raises(DNSResolutionError, match="its limit has passed") as caught:
        resolver.resolve(NAME)
    assert Attempt("shared store", "not configured") in caught.value.tried


def test_what_a_lookup_raises_beside_its_protocol_is_malformed(make, lookup):
    """A foreign exception is a cause, and its text is kept."""
    lookup.set(NAME, ZeroDivisionError("oops"))
    with pytest.raises(DNSResolutionError, match="ZeroDivisionError: oops") as caught:
        make().resolve(NAME)
    assert caught.value.cause is Cause.MALFORMED


def test_a_lookup_without_any_address_is_no_data(make, lookup):
    """An empty answer is never served."""
    lookup.set(NAME, ())
    with pytest.raises(DNSResolutionError) as caught:
        make().resolve(NAME)
    assert caught.value.cause is Cause.NODATA


def test_a_resolution_can_be_sent_to_another_process(lookup):
    """With the system's clock; ages are then those of this machine."""
    lookup.set(NAME, "10.0.0.1")
    found = DNSResolver(lookup=lookup).resolve(NAME)
    assert pickle.loads(pickle.dumps(found)) == found


# --- slow lookups: these need the real clock


def test_a_slow_lookup_costs_half_a_second_once_where_a_stale_answer_exists(clock):
    """First call 0.5 s, second at once, one lookup; slow alone does not degrade the name."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"}, ttl=0)
    resolver = DNSResolver(ResolverConfig(min_ttl=0.1, refresh_ahead=0), lookup=lookup)
    resolver.resolve(NAME)
    time.sleep(0.11)
    lookup.hold(NAME)
    try:
        started = time.monotonic()
        first = resolver.resolve(NAME)
        took = time.monotonic() - started
        assert (first.source, first.cause) == (Source.STALE, None)
        assert 0.4 <= took < 5
        assert resolver.state(NAME) == "healthy"
        started = time.monotonic()
        for _ in range(99):
            assert resolver.resolve(NAME).source is Source.STALE
        assert time.monotonic() - started < 0.45
        assert lookup.calls(NAME) == 2
    finally:
        lookup.release()
    assert resolver.wait_idle()


async def test_a_slow_lookup_costs_coroutines_the_same_without_blocking_the_loop():
    """The loop goes on ticking while a slow lookup is waited for."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"}, ttl=0)
    resolver = DNSResolver(ResolverConfig(min_ttl=0.1, refresh_ahead=0), lookup=lookup)
    await resolver.aresolve(NAME)
    await asyncio.sleep(0.11)
    lookup.hold(NAME)
    try:
        task = asyncio.create_task(resolver.aresolve(NAME))
        gaps, last = [], time.monotonic()
        while not task.done():
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        assert (await task).source is Source.STALE
        assert len(gaps) > 5
        assert max(gaps) < 0.45
    finally:
        lookup.release()
    assert resolver.wait_idle()


def test_the_store_is_asked_beside_a_slow_lookup(store):
    """Nothing in memory: after half a second the stored answer is there, the lookup goes on."""
    real_store = MemoryStore()
    real_store.records[NAME] = LastKnownGood(NAME, ("10.0.0.9",), time.time() - 50)
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    resolver = DNSResolver(lookup=lookup, store=real_store)
    lookup.hold(NAME)
    try:
        started = time.monotonic()
        assert resolver.resolve(NAME).source is Source.STORE
        assert 0.4 < time.monotonic() - started < 5
        assert real_store.reads[NAME] == 1
        assert lookup.in_flight(NAME) == 1
    finally:
        lookup.release()
    assert resolver.wait_idle()
    assert resolver.resolve(NAME).source is Source.CACHE
    assert resolver.state(NAME) == "healthy"


def test_a_lookup_that_never_ends_is_given_up_and_counted_once():
    """The caller's bound holds though the lookup ignores it; the failure counts once, not twice."""
    lookup = ScriptedLookup({NAME: Cause.SERVFAIL})
    resolver = DNSResolver(ResolverConfig(timeout=0.2), lookup=lookup)
    lookup.hold(NAME, past_timeout=True)
    try:
        started = time.monotonic()
        with pytest.raises(DNSResolutionError) as caught:
            resolver.resolve(NAME)
        assert time.monotonic() - started < 10
        assert caught.value.cause is Cause.TIMEOUT
        assert resolver.metrics().errors == {"timeout": 1}
        started = time.monotonic()
        with pytest.raises(DNSResolutionError):
            resolver.resolve(NAME)
        assert time.monotonic() - started < 0.6
    finally:
        lookup.release()
    assert resolver.wait_idle()
    assert resolver.metrics().errors == {"timeout": 1}
    assert resolver.metrics().lookups == 1


def test_a_given_up_lookup_that_succeeds_after_all_heals():
    """Late is better than never."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    resolver = DNSResolver(ResolverConfig(timeout=0.1), lookup=lookup)
    lookup.hold(NAME, past_timeout=True)
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)
    lookup.release()
    assert resolver.wait_idle()
    assert resolver.resolve(NAME).source is Source.CACHE


def test_a_refresh_of_a_hanging_name_falls_back_on_the_store_too():
    """ "When the lookup fails, gives what resolve would give", also when it never ends."""
    real_store = MemoryStore()
    real_store.records[NAME] = LastKnownGood(NAME, ("10.0.0.9",), time.time() - 50)
    lookup = ScriptedLookup()
    resolver = DNSResolver(ResolverConfig(timeout=0.3), lookup=lookup, store=real_store)
    lookup.hold(NAME, past_timeout=True)
    try:
        found = resolver.refresh(NAME)
        assert (found.source, found.cause) == (Source.STORE, Cause.TIMEOUT)
    finally:
        lookup.release()
    assert resolver.wait_idle()


# --- refresh


def test_a_refresh_waits_no_longer_than_its_caller_wants():
    """The lookup counts as failed then, goes on alone, and its answer is still taken."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    resolver = DNSResolver(ResolverConfig(timeout=9), lookup=lookup)
    lookup.hold(NAME, past_timeout=True)
    try:
        started = time.monotonic()
        with pytest.raises(DNSResolutionError) as caught:
            resolver.refresh(NAME, patience=0.1)
        assert time.monotonic() - started < 7
        assert caught.value.cause is Cause.TIMEOUT
    finally:
        lookup.release()
    assert resolver.wait_idle()
    assert resolver.resolve(NAME).source is Source.CACHE


def test_refresh_asks_dns_past_a_fresh_answer(make, lookup):
    """And other callers get the new one."""
    lookup.script(NAME, "10.0.0.1", "10.0.0.2")
    resolver = make()
    resolver.resolve(NAME)
    found = resolver.refresh(NAME)
    assert (found.source, found.address) == (Source.DNS, "10.0.0.2")
    assert resolver.resolve(NAME).address == "10.0.0.2"


def test_a_refresh_that_fails_gives_what_is_known_with_the_cause_and_writes_nothing(
    make, lookup, store
):
    """Stale for this caller, who asked for what DNS says now; still fresh for the others."""
    lookup.script(NAME, "10.0.0.1", Cause.REFUSED)
    resolver = make(store=store)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    before = dict(store.records)
    found = resolver.refresh(NAME)
    assert (found.source, found.cause) == (Source.STALE, Cause.REFUSED)
    assert resolver.resolve(NAME).source is Source.CACHE
    assert resolver.state(NAME) == "healthy"
    assert store.records == before


async def test_arefresh_and_aresolve_are_the_same_for_coroutines(make, lookup, store, clock):
    """Same answers, same errors, same writes."""
    lookup.script(NAME, "10.0.0.1", "10.0.0.2")
    resolver = make(store=store)
    assert (await resolver.aresolve(NAME)).source is Source.DNS
    assert (await resolver.aresolve(NAME)).source is Source.CACHE
    clock.advance(1)
    assert (await resolver.arefresh(NAME, written_by="gate")).address == "10.0.0.2"
    assert store.records[NAME].addresses == ("10.0.0.2",)
    with pytest.raises(DNSResolutionError):
        await resolver.aresolve(OTHER)
    with pytest.raises(ValueError, match=r"1\.2"):
        await resolver.aresolve("1.2")
