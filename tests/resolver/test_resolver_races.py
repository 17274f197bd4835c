"""Names that are forgotten while something is under way, and changes in the middle of a call."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import Cause, Source
from airflow_provider_hokusai_dns.resolver.testing import ManualClock, ScriptedLookup

NAME = "mlflow.example.local"
OTHER = "other.example.local"


# --- clear, eviction and cleanup while something is under way


def test_clear_forgets_one_name_or_all(make, lookup, store):
    """Memory only: the store keeps what it has."""
    for name in (NAME, OTHER):
        lookup.set(name, "10.0.0.1")
    resolver = make(store=store)
    resolver.resolve(NAME)
    resolver.resolve(OTHER)
    resolver.clear(f"http://{NAME}:80/")
    assert resolver.state(NAME) == "unknown"
    assert resolver.resolve(OTHER).source is Source.CACHE
    assert resolver.resolve(NAME).source is Source.DNS
    resolver.clear()
    assert resolver.metrics().cache_size == 0
    assert resolver.wait_idle()
    assert store.records[NAME].addresses == ("10.0.0.1",)


@pytest.mark.parametrize("how", ["clear", "evict"])
def test_a_name_dropped_with_its_lookup_under_way_is_served_to_old_and_new_callers(
    make, lookup, how
):
    """Who waited gets the answer; who comes afterwards gets one too, and not an empty error."""
    lookup.set(NAME, "10.0.0.1")
    lookup.hold(NAME)
    resolver = make(max_hosts=2)
    found, errors = [], []

    def call():
        try:
            found.append(resolver.resolve(NAME))
        except DNSResolutionError as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(2)]
    threads[0].start()
    lookup.wait_for_calls(NAME)
    if how == "clear":
        resolver.clear(NAME)
    else:
        for number in range(5):
            lookup.set(f"h{number}.local", "10.0.0.2")
            resolver.resolve(f"h{number}.local")
    threads[1].start()
    time.sleep(0.05)
    lookup.release()
    for thread in threads:
        thread.join(10)
    assert errors == []
    assert [f.source for f in found] == [Source.DNS, Source.DNS]
    assert lookup.calls(NAME) == (2 if how == "clear" else 1)
    resolver.report_failure(NAME, "10.0.0.1")
    assert resolver.state(NAME) == "healthy"
    calls = 2 + (0 if how == "clear" else 5)
    assert resolver.metrics().attempts == calls


def test_a_name_cleared_under_a_waiting_caller_leaves_nothing_on_the_hit_path(make, lookup):
    """What is not held is not served from memory, nor counted where it is not read."""
    lookup.set(NAME, "10.0.0.1")
    lookup.hold(NAME)
    resolver = make()
    caller = threading.Thread(target=resolver.resolve, args=(NAME,))
    caller.start()
    lookup.wait_for_calls(NAME)
    resolver.clear()
    lookup.release()
    caller.join(10)
    assert resolver.wait_idle()
    assert NAME not in resolver._ready
    assert resolver.resolve(NAME).source is Source.DNS


# --- races between serving and learning, made certain by a clock that acts when it is read


class ActingClock(ManualClock):
    """Does something once, in the middle of the making of a resolution."""

    act = None

    def time(self) -> float:
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().time()


def test_an_answer_that_arrives_while_an_old_one_is_served_is_not_hidden_by_it(make):
    """The old one is for that one caller; it is not kept as the finished answer of the name."""
    clock = ActingClock()
    lookup = ScriptedLookup(clock=clock, ttl=100)
    lookup.script(NAME, "10.0.0.1", Cause.SERVFAIL, "10.0.0.2")
    resolver = make(clock=clock, lookup=lookup)
    resolver.resolve(NAME)
    clock.advance(101)
    resolver.resolve(NAME)  # the failure is known now
    resolver._state._forget_ready()
    clock.act = lambda: resolver.refresh(NAME)
    assert resolver.resolve(NAME).address == "10.0.0.1"
    found = resolver.resolve(NAME)
    assert (found.source, found.address) == (Source.CACHE, "10.0.0.2")


def test_a_lookup_that_ends_before_the_stale_answer_is_served_lets_the_next_caller_ask(
    make, lookup, clock, monkeypatch
):
    """The old answer was kept for ten seconds, as beside a slow lookup, with none under way."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    # Without a thread the lookup in the background ends on the caller's own, before it is served.
    monkeypatch.setattr(threading.Thread, "start", refuse)
    lookup.script(NAME, "10.0.0.1", Cause.SERVFAIL, "10.0.0.2", "10.0.0.3")
    resolver = make(cache_ttl=0)
    resolver.resolve(NAME)
    clock.advance(1)
    resolver.resolve(NAME)  # the failure is known now
    clock.advance(31)
    assert resolver.resolve(NAME).is_stale
    clock.advance(1)
    assert not resolver.resolve(NAME).is_stale


def test_a_report_that_arrives_while_answers_are_made_is_not_lost(make):
    """The order that was computed before it is not kept."""
    clock = ActingClock()
    lookup = ScriptedLookup({NAME: ("10.0.0.1", "10.0.0.2", "10.0.0.3")}, clock=clock, ttl=100)
    resolver = make(clock=clock, lookup=lookup)
    resolver.resolve(NAME)
    resolver._state._forget_ready()
    clock.act = lambda: resolver.report_failure(NAME, "10.0.0.2")
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    for _ in range(6):
        assert resolver.resolve(NAME).addresses[-1] == "10.0.0.2"


def test_a_reconfiguration_while_answers_are_made_is_not_lost(make):
    """What was made under the old numbers is not kept."""
    clock = ActingClock()
    lookup = ScriptedLookup({NAME: "10.0.0.1"}, clock=clock, ttl=100)
    resolver = make(clock=clock, lookup=lookup)
    resolver.resolve(NAME)
    resolver._state._forget_ready()
    clock.act = lambda: resolver.reconfigure(replace(resolver.config, cache_ttl=20))
    resolver.resolve(NAME)
    clock.advance(50)
    assert resolver.resolve(NAME).source is Source.DNS


def test_the_first_calls_of_a_url_by_many_threads_all_get_an_answer(make, lookup):
    """While the turns of its addresses are still being made for the first of them."""
    lookup.set(NAME, ("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    resolver = make()
    resolver.resolve(NAME)
    errors = []

    def ask():
        for number in range(300):
            try:
                resolver.resolve(f"http://{NAME}/{number}")
            except Exception as error:
                errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert errors == []


@pytest.mark.parametrize("broken", [Cause.NXDOMAIN, Cause.SERVFAIL])
def test_a_refresh_that_joins_a_lookup_of_the_broken_name_asks_again(make, lookup, clock, broken):
    """Its caller has just mended the record; the lookup in progress was begun before that."""
    lookup.script(NAME, "10.0.0.1", broken, "10.0.0.2")
    resolver = make(clock=clock)
    resolver.resolve(NAME)
    clock.advance(100_000)
    held = lookup.hold(NAME)
    resolver.warm([NAME])
    lookup.wait_for_calls(NAME, 2)
    clock.advance(0.1)
    with ThreadPoolExecutor(1) as pool:
        refreshed = pool.submit(resolver.refresh, NAME)
        threading.Timer(0.2, held.set).start()  # once the refresh has joined
        assert refreshed.result(10).address == "10.0.0.2"
    assert lookup.calls(NAME) == 3
