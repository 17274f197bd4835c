"""The clock, the lookup and the store that tests are given."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver.model import (
    Answer,
    Cause,
    Endpoint,
    LastKnownGood,
    Source,
)
from airflow_provider_hokusai_dns.resolver.testing import ManualClock, MemoryStore, ScriptedLookup

NAME = "mlflow.local"


def record(resolved_at: float, address: str = "10.0.0.1") -> LastKnownGood:
    return LastKnownGood(hostname=NAME, addresses=(address,), resolved_at=resolved_at)


def test_time_passes_on_both_clocks_only_when_told():
    """``advance`` moves both readings by the same seconds, and nothing else moves them."""
    clock = ManualClock(start=5.0, wall=100.0)
    assert (clock.monotonic(), clock.time()) == (5.0, 100.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (7.5, 102.5)


def test_a_wall_step_leaves_the_monotonic_clock_alone():
    """NTP may set the wall clock back; the monotonic clock does not notice."""
    clock = ManualClock(start=5.0, wall=100.0)
    clock.step_wall(-50)
    assert (clock.monotonic(), clock.time()) == (5.0, 50.0)


def test_time_does_not_run_backwards():
    """A test that advances by a negative number has a mistake, and hears of it."""
    with pytest.raises(ValueError, match=r"advance\(-1\)"):
        ManualClock().advance(-1)


def test_a_scripted_answer_carries_the_readings_of_the_given_clock():
    """Addresses become an answer that is stamped now and has the lookup's TTL."""
    clock = ManualClock(start=7.0)
    lookup = ScriptedLookup({NAME: ["10.0.0.1", "fd00::1"]}, clock=clock, ttl=30)
    assert lookup.lookup(NAME, timeout=1) == Answer(
        endpoints=(Endpoint("10.0.0.1"), Endpoint("fd00::1")),
        source=Source.DNS,
        resolved_at=7.0,
        ttl=30,
        name=NAME,
    )


def test_a_script_is_played_once_and_its_last_line_for_ever():
    """Each call takes the next outcome; the last one repeats."""
    lookup = ScriptedLookup(clock=ManualClock())
    lookup.script(NAME, "10.0.0.1", Cause.SERVFAIL, OSError("down"), lambda _name: ("10.0.0.2",))
    assert lookup.lookup(NAME, timeout=1).addresses == ("10.0.0.1",)
    with pytest.raises(LookupFailed) as failure:
        lookup.lookup(NAME, timeout=1)
    assert failure.value.cause is Cause.SERVFAIL
    with pytest.raises(OSError, match="down"):
        lookup.lookup(NAME, timeout=1)
    for _ in range(2):
        assert lookup.lookup(NAME, timeout=1).addresses == ("10.0.0.2",)
    assert (lookup.calls(NAME), lookup.calls("other"), lookup.calls()) == (5, 0, 5)


def test_a_whole_answer_is_handed_out_as_it_is():
    """A test that needs a port or another source writes the answer itself."""
    answer = Answer((Endpoint("10.0.0.1", 8080),), Source.HOSTS, resolved_at=1.0)
    assert ScriptedLookup({NAME: answer}).lookup(NAME, timeout=1) is answer


def test_a_name_without_a_script_does_not_exist():
    """As in real DNS, silence is not what an unknown name gets."""
    with pytest.raises(LookupFailed) as failure:
        ScriptedLookup().lookup("typo.local", timeout=1)
    assert failure.value.cause is Cause.NXDOMAIN


def test_an_empty_script_is_refused():
    """A script that says nothing is a mistake of the test."""
    with pytest.raises(ValueError, match=NAME):
        ScriptedLookup().script(NAME)


def test_a_held_lookup_stays_in_flight_until_it_is_released():
    """A test can look at the moment in which a lookup is under way."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    lookup.hold(NAME)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(lookup.lookup, NAME, timeout=30) for _ in range(3)]
        lookup.wait_for_calls(NAME, 3)
        assert lookup.in_flight(NAME) == lookup.in_flight() == 3
        assert not any(future.done() for future in waiting)
        lookup.release()
        assert {future.result(10).addresses for future in waiting} == {("10.0.0.1",)}
    assert lookup.in_flight() == 0


def test_a_held_lookup_keeps_its_timeout():
    """A held lookup behaves like a silent server: it fails when its time is over."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    lookup.hold(NAME)
    with pytest.raises(LookupFailed) as failure:
        lookup.lookup(NAME, timeout=0.01)
    assert failure.value.cause is Cause.TIMEOUT


def test_a_lookup_can_be_held_past_its_timeout():
    """``getaddrinfo`` knows no timeout, and so the double can ignore it too."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    event = lookup.hold(NAME, past_timeout=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lookup.lookup, NAME, timeout=0.0)
        lookup.wait_for_calls(NAME)
        assert not waiting.done()
        event.set()
        assert waiting.result(10).addresses == ("10.0.0.1",)


def test_waiting_for_calls_that_never_come_ends():
    """A broken test ends with a sentence that says how many calls there were."""
    with pytest.raises(TimeoutError, match=r"0 lookups of 'mlflow.local' in 0.01 s, not 1"):
        ScriptedLookup().wait_for_calls(NAME, timeout=0.01)


def test_the_store_keeps_the_newest_record():
    """Rule 17: an older record does not replace a newer one; one of the same age does."""
    store = MemoryStore()
    assert store.read(NAME) is None
    assert store.write(record(100))
    assert not store.write(record(99))
    assert store.write(record(100, "10.0.0.2"))
    assert store.read(NAME) == record(100, "10.0.0.2")
    assert (store.reads[NAME], store.writes[NAME]) == (2, 3)


def test_the_store_lets_a_stamp_from_the_future_be_overwritten():
    """Rule 16: one wrong clock must not make an address immortal."""
    clock = ManualClock(wall=1000.0)
    store = MemoryStore(clock)
    store.write(record(1000.0 + 301))
    assert store.write(record(1000.0))


def test_an_unreachable_store_looks_like_one_that_knows_nothing():
    """Airflow's API server out of reach looks like a missing Variable."""
    store = MemoryStore()
    store.write(record(100))
    store.unreachable = True
    assert store.read(NAME) is None
    assert not store.write(record(200))
    store.unreachable = False
    assert store.read(NAME) == record(100)


def test_a_store_can_break_its_protocol():
    """Code that is given a store must survive one that raises; the double can raise."""
    store = MemoryStore()
    store.error = RuntimeError("no database")
    with pytest.raises(RuntimeError, match="no database"):
        store.read(NAME)
    with pytest.raises(RuntimeError, match="no database"):
        store.write(record(1))


def test_a_slow_store_can_be_woken():
    """Slow calls need not be sat out by the test that started them."""
    store = MemoryStore()
    store.write(record(100))
    store.seconds = 30
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.read, NAME)
        while not store.reads[NAME]:
            time.sleep(0.001)
        assert not waiting.done()
        store.wake()
        assert waiting.result(10) == record(100)
