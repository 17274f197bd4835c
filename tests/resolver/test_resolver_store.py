"""The resolver and the shared store: slow, failing, wrong, and what a wall clock does to it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import (
    Cause,
    DNSResolver,
    Event,
    LastKnownGood,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.errors import StoreOverdue
from airflow_provider_hokusai_dns.resolver.testing import ManualClock, MemoryStore, ScriptedLookup
from tests.servers import wait_until

NAME = "mlflow.example.local"
STATIC = {"static_addresses": {NAME: ("10.9.9.9",)}}


def stored(clock: ManualClock, age: float = 100.0, *addresses: str, **more) -> LastKnownGood:
    return LastKnownGood(NAME, addresses or ("10.0.0.9",), clock.time() - age, **more)


def age_out(resolver: DNSResolver, clock: ManualClock) -> None:
    """Let the answer in memory become old."""
    clock.advance(resolver.config.cache_ttl + 1)


# --- the store: slow, failing


def test_a_slow_store_does_not_make_a_healthy_name_stale(make, lookup, store, clock):
    """While the store hangs, the next lookup is made all the same and its answer is fresh."""
    lookup.set(NAME, "10.0.0.1")
    store.seconds = 30
    resolver = make(store=store)
    resolver.resolve(NAME)
    age_out(resolver, clock)
    lookup.set(NAME, "10.0.0.2")
    found = resolver.resolve(NAME)
    store.wake()
    assert (found.source, found.address) == (Source.DNS, "10.0.0.2")


def test_a_refresh_asks_dns_also_while_the_store_is_slow(make, lookup, store):
    """A landed lookup is not joined."""
    lookup.script(NAME, "10.0.0.1", "10.0.0.2")
    store.seconds = 0.5
    resolver = make(store=store)
    resolver.resolve(NAME)
    found = resolver.refresh(NAME)
    store.wake()
    assert (found.source, found.address) == (Source.DNS, "10.0.0.2")


@pytest.mark.parametrize("outcome", ["10.0.0.1", Cause.NXDOMAIN])
def test_a_store_that_raises_harms_nobody(make, lookup, store, outcome, caplog):
    """It may not, says the protocol; if it does, answers, refreshes and events come as ever."""
    store.error = OSError("no database")
    lookup.set(NAME, outcome)
    resolver = make(store=store, **STATIC)
    events = []
    resolver.add_observer(events.append)
    expected = Source.STATIC if isinstance(outcome, Cause) else Source.DNS
    assert resolver.resolve(NAME).source is expected
    assert resolver.refresh(NAME).source is expected
    assert resolver.wait_idle()
    assert [e.state for e in events if e.kind == "state"] == [
        "degraded" if isinstance(outcome, Cause) else "healthy"
    ]
    assert "A background job of the resolver failed" not in caplog.text


def test_a_second_caller_during_the_read_of_the_store_gets_the_stored_answer(
    make, lookup, store, clock
):
    """DNS has failed and the store is about to answer: no caller is told "failed" meanwhile."""
    store.records[NAME] = stored(clock)
    lookup.set(NAME, Cause.SERVFAIL)
    reading, go_on = threading.Event(), threading.Event()

    class Slow:
        def read(self, hostname):
            reading.set()
            assert go_on.wait(10)
            return store.read(hostname)

        write = store.write

    resolver = make(store=Slow())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(resolver.resolve(NAME))) for _ in range(2)
    ]
    threads[0].start()
    assert reading.wait(10)
    threads[1].start()
    time.sleep(0.05)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert [f.source for f in found] == [Source.STORE, Source.STORE]


class Late(MemoryStore):
    """Each read is answered too late, until there have been as many as this."""

    late = 2

    def read(self, hostname):
        found = super().read(hostname)
        if self.reads[hostname] <= self.late:
            raise StoreOverdue
        return found


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_stored_answer_that_is_late_serves_who_has_no_other(make, lookup, clock, is_silent):
    """The store was not asked again for ``store_recheck``, by when a call has failed."""
    store = Late(clock)
    store.records[NAME] = stored(clock)
    lookup.set(NAME, Cause.SERVFAIL)
    held = lookup.hold(NAME) if is_silent else None
    resolver = make(store=store, stale_after=0.05)
    if held is None:
        for _ in range(2):  # the caller waits for none of them
            with pytest.raises(DNSResolutionError):
                resolver.resolve(NAME)
            clock.advance(3)
    assert resolver.resolve(NAME).source is Source.STORE
    assert store.reads[NAME] == 3


def test_a_store_that_stays_late_is_left_when_the_lookup_ends(make, lookup, clock):
    """No thread goes on to ask."""
    store = Late(clock)
    store.late = 1_000_000
    lookup.set(NAME, Cause.SERVFAIL)
    held = lookup.hold(NAME)
    resolver = make(store=store, stale_after=0.05)
    with ThreadPoolExecutor() as threads:
        failing = threads.submit(resolver.resolve, NAME)
        wait_until(lambda: store.reads[NAME] > 1)
        held.set()
        assert isinstance(failing.exception(10), DNSResolutionError)
    assert resolver.wait_idle()


def test_a_late_store_is_read_no_more_often_where_an_answer_is_in_memory(make, lookup, clock):
    """A read occupies a task's connection to Airflow, and nothing needs it."""
    store = Late(clock)
    store.late = 1_000_000
    lookup.script(NAME, "10.0.0.1", Cause.SERVFAIL)
    resolver = make(store=store, failure_recheck=1.0)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    age_out(resolver, clock)
    reads = store.reads[NAME]
    for _ in range(10):
        assert resolver.resolve(NAME).source is Source.STALE
        assert resolver.wait_idle()
        clock.advance(2)
    assert store.reads[NAME] == reads + 1
    assert not store.writes[NAME]


def test_the_cause_stays_the_one_of_dns_when_the_store_hangs():
    """Waiting for the store is not a time-out of DNS, and not a second failure."""
    real_store = MemoryStore()
    real_store.seconds = 30
    lookup = ScriptedLookup({NAME: Cause.REFUSED})
    resolver = DNSResolver(ResolverConfig(timeout=0.1), lookup=lookup, store=real_store)
    with pytest.raises(DNSResolutionError) as caught:
        resolver.resolve(NAME)
    real_store.wake()
    assert caught.value.cause is Cause.REFUSED
    assert resolver.wait_idle()
    assert resolver.metrics().errors == {"refused": 1}


def test_an_unreachable_store_is_told_of_the_missing_name_when_it_comes_back(
    make, lookup, store, clock
):
    """A write that was not kept is tried again, so that the fleet gets its clock."""
    lookup.script(NAME, "10.0.0.1", Cause.NXDOMAIN)
    resolver = make(store=store)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    store.unreachable = True
    clock.advance(101)
    gone_at = clock.time()
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    store.unreachable = False
    clock.advance(31)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    assert store.records[NAME].no_name_since == pytest.approx(gone_at)


def test_a_slow_store_is_read_as_often_as_a_quick_one(make, lookup, clock):
    """The thirty seconds began after a read. A failed lookup thirty seconds later, if it was
    quicker than the read, came just too early, so the store was read once a minute."""

    class SlowStore(MemoryStore):
        def read(self, hostname):
            clock.advance(0.2)
            return super().read(hostname)

    lookup.script(NAME, "10.0.0.1", Cause.TIMEOUT)
    store = SlowStore(clock)
    resolver = make(store=store)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    age_out(resolver, clock)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    reads = store.reads[NAME]
    for _ in range(4):
        clock.advance(29.9)  # 30.1 since the failure
        resolver.resolve(NAME)
        assert resolver.wait_idle()
    assert store.reads[NAME] == reads + 4


def test_the_answer_that_comes_after_the_patience_of_a_refresh_is_stored(make, lookup, store):
    """The caller that would have written it was gone, and nothing else wrote it."""
    lookup.set(NAME, "10.0.0.1")
    lookup.hold(NAME)
    resolver = make(store=store)
    with pytest.raises(DNSResolutionError):
        resolver.refresh(NAME, patience=0.1)
    lookup.release(NAME)
    assert resolver.wait_idle()
    assert store.records[NAME].addresses == ("10.0.0.1",)


@pytest.mark.parametrize("useless", ["0.0.0.0", "127.0.0.1", "169.254.1.1"])
def test_the_answer_of_a_captive_portal_does_not_hide_the_stored_one(
    make, lookup, store, clock, useless
):
    """It replaced the good one in memory, and was served for a day when DNS failed after it."""
    lookup.script(NAME, "10.0.0.1", (useless,), Cause.SERVFAIL)
    resolver = make(store=store)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    age_out(resolver, clock)
    assert resolver.resolve(NAME).address == useless  # as the system would
    age_out(resolver, clock)
    found = resolver.resolve(NAME)
    assert (found.source, found.address) == (Source.STORE, "10.0.0.1")


def test_rule_7s_clock_is_taken_back_by_whoever_sees_the_name_again(make, lookup, store, clock):
    """Not only by the process that started it: that one may be dead."""
    lookup.set(NAME, "10.0.0.1")
    first, second = make(store=store), make(store=store)
    for resolver in (first, second):
        resolver.resolve(NAME)
        assert resolver.wait_idle()
    lookup.set(NAME, Cause.NXDOMAIN)
    clock.advance(101)
    for resolver in (first, second):
        assert resolver.resolve(NAME).is_stale
        assert resolver.wait_idle()
    assert store.records[NAME].no_name_since is not None
    lookup.set(NAME, "10.0.0.1")
    clock.advance(6)
    second.resolve(NAME)
    assert second.wait_idle()
    assert store.records[NAME].no_name_since is None
    assert store.records[NAME].resolved_at == pytest.approx(clock.time())


def test_a_fresh_process_does_not_serve_past_the_fleets_900_s(make, lookup, store, clock):
    """A restart does not restart rule 7's clock."""
    lookup.script(NAME, "10.0.0.1", Cause.NXDOMAIN)
    resolver = make(store=store)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    clock.advance(101)
    for _ in range(9):
        resolver = make(store=store)
        assert resolver.resolve(NAME).source is Source.STORE
        assert resolver.wait_idle()
        clock.advance(99)
    clock.advance(10)
    with pytest.raises(DNSResolutionError):
        make(store=store).resolve(NAME)


def test_what_the_store_knows_takes_finished_answers_off_the_hit_path(make, lookup, store, clock):
    """A limit learnt from the store holds at once, not after the next recheck."""
    lookup.script(NAME, "10.0.0.1", Cause.SERVFAIL)
    resolver = make(store=store)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    clock.advance(2000)
    store.records[NAME] = replace(store.records[NAME], no_name_since=clock.time() - 950)
    reading, go_on = threading.Event(), threading.Event()
    read = store.read

    def slow_read(hostname):
        reading.set()
        assert go_on.wait(10)
        return read(hostname)

    store.read = slow_read
    errors = []

    def call():
        try:
            resolver.resolve(NAME)
        except DNSResolutionError as error:
            errors.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert reading.wait(10)
    resolver.resolve(NAME)  # the failure is known, the limit is not yet
    go_on.set()
    caller.join(10)
    assert len(errors) == 1
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)


def test_a_record_of_a_wrong_clock_is_reported_once_and_overwritten(make, lookup, store, clock):
    """The reason is in the event and in the error; a good answer takes its place."""
    store.records[NAME] = stored(clock, -1000)
    lookup.set(NAME, Cause.SERVFAIL)
    resolver = make(store=store)
    events = []
    resolver.add_observer(events.append)
    for _ in range(3):
        with pytest.raises(DNSResolutionError, match="refused: resolved_at is 1000 s ahead"):
            resolver.resolve(NAME)
        store.records[NAME] = stored(clock, -1000)
        clock.advance(0)
        resolver.clear()
    kinds = [e.kind for e in events]
    assert kinds.count("store_rejected") == 3  # once per name that was forgotten in between
    lookup.set(NAME, "10.0.0.1")
    clock.advance(2)
    resolver.refresh(NAME)
    assert resolver.wait_idle()
    assert store.records[NAME].addresses == ("10.0.0.1",)


def test_observers_of_a_refused_record_may_use_the_resolver(make, lookup, store, clock):
    """No lock is held while they are told."""
    store.records[NAME] = stored(clock, -1000)
    lookup.set(NAME, Cause.SERVFAIL)
    resolver = make(store=store, **STATIC)
    done = threading.Event()

    def observer(event: Event) -> None:
        if event.kind == "store_rejected":
            resolver._updater.publisher.publish(resolver._state.find(NAME), "test")
            done.set()

    resolver.add_observer(observer)
    resolver.resolve(NAME)
    assert done.wait(5)


# --- the wall clock


def test_a_step_of_the_wall_clock_moves_no_expiry(make, lookup, clock):
    """Memory works on the monotonic clock."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make()
    resolver.resolve(NAME)
    for step in (86_400 * 365, -86_400 * 700):
        clock.step_wall(step)
        assert resolver.resolve(NAME).source is Source.CACHE
        assert resolver.resolve(NAME).age() == 0
    clock.advance(101)
    assert resolver.resolve(NAME).source is Source.DNS


def test_a_record_written_after_a_step_carries_the_wall_time_of_now(make, lookup, store, clock):
    """Conversion happens at the boundary, at the moment of writing."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make(store=store)
    clock.step_wall(-5000)
    resolver.refresh(NAME)
    assert resolver.wait_idle()
    assert store.records[NAME].resolved_at == pytest.approx(clock.time())
    clock.step_wall(-5000)  # the stored stamp is now in the future: invalid, and overwritten
    lookup.set(NAME, "10.0.0.1")
    resolver.refresh(NAME)
    assert resolver.wait_idle()
    assert store.records[NAME].resolved_at == pytest.approx(clock.time())


def test_a_refresh_that_was_asked_for_is_written_however_young_the_stored_answer_is(
    store, clock, lookup, make
):
    """So that the fallback is as young as the last run of the refresh DAG."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make(store=store)
    resolver.refresh(NAME)
    clock.advance(60)
    resolver.refresh(NAME)
    assert clock.time() - store.records[NAME].resolved_at == pytest.approx(60)
    resolver.refresh(NAME, always=True)
    assert store.records[NAME].resolved_at == pytest.approx(clock.time())
