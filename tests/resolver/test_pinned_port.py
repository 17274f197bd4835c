"""One port of a pinned host, in a world that is written down beforehand. Nothing here sleeps."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import takewhile
from types import FrameType

import pytest

from airflow_provider_hokusai_dns.resolver import Cause, DNSResolutionError, DNSResolver
from airflow_provider_hokusai_dns.resolver.handouts import Handout
from airflow_provider_hokusai_dns.resolver.one_time_event import OneTimeEvent
from airflow_provider_hokusai_dns.resolver.pinned_port import (
    Edge,
    NoConnectionError,
    PinnedPort,
)
from airflow_provider_hokusai_dns.resolver.port_reachability import (
    Patience,
    PinPolicy,
    StaleAddressCheck,
)
from airflow_provider_hokusai_dns.resolver.racing import Trial
from airflow_provider_hokusai_dns.resolver.testing import ManualClock, ScriptedLookup

NAME = "mlflow.test.local"
PORT = 5000
A, B = "10.0.0.1", "10.0.0.2"


class World:
    """Addresses that take connections, refuse them or are silent, and the time that this takes."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.refuses: set[str] = set()
        self.silent: set[str] = set()
        self.races: list[tuple[str, ...]] = []
        self.slept: list[float] = []
        self.when_slept: Callable[[], object] = lambda: None
        #: A round that never ends.
        self.hangs = False

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        self.when_slept()

    def start(self, job: Callable[[], None]) -> None:
        if not self.hangs:
            job()

    def wait(self, done: OneTimeEvent, seconds: float) -> None:
        if not done.is_set():
            self.clock.advance(seconds)

    def race(self, addresses: Sequence[str], port: int) -> Trial:
        self.races.append(tuple(addresses))
        losers = []
        for address in addresses:
            if address not in self.refuses | self.silent:
                return Trial((address,), tuple(losers), self.silent.intersection(losers))
            losers.append(address)
            self.clock.advance(1.0 if address in self.silent else 0.0)
        return Trial((), tuple(losers), frozenset(self.silent.intersection(losers)))

    def edge(self) -> Edge:
        return Edge(self.clock.monotonic, self.sleep, self.race, self.start, self.wait)


@pytest.fixture
def world(clock: ManualClock) -> World:
    return World(clock)


@pytest.fixture
def resolver(make: Callable[..., DNSResolver], lookup: ScriptedLookup) -> DNSResolver:
    lookup.set(NAME, A)
    return make()


@pytest.fixture
def port(resolver: DNSResolver, world: World) -> Callable[..., PinnedPort]:
    def build(
        patience: float = 30.0,
        connect_timeout: float = 0.0,
        stale_check: StaleAddressCheck | None = None,
        family: int = 0,
        edge: Edge | None = None,
    ) -> PinnedPort:
        policy = PinPolicy(PORT, Patience(patience, connect_timeout), stale_check)
        return PinnedPort(
            NAME,
            PORT,
            resolver,
            lambda: [policy],
            lambda: [policy.patience],
            family=family,
            edge=edge or world.edge(),
        )

    return build


def connect(found: list[str]) -> None:
    """What a client does that succeeds at the first address."""
    found.connected(found[0])  # type: ignore[attr-defined]


def test_on_a_good_day_no_connection_is_made_but_the_clients(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock
) -> None:
    """One address, connections further apart than an address counts as alive."""
    pinned = port()
    for _ in range(20):
        connect(pinned.addresses())
        clock.advance(5.0)
    assert world.races == []


def test_of_several_addresses_one_is_tried_and_then_the_clients_successes_count(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock, lookup: ScriptedLookup
) -> None:
    lookup.set(NAME, (A, B))
    pinned = port()
    for _ in range(20):
        connect(pinned.addresses())
        clock.advance(5.0)
    assert len(world.races) == 1


def test_an_answer_of_which_nothing_is_heard_is_a_reason_to_doubt(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock
) -> None:
    """A client that comes back may have failed with it, until a minute has passed."""
    pinned = port()
    pinned.addresses()
    assert world.races == []
    clock.advance(5.0)
    pinned.addresses()
    assert world.races == [(A,)]
    pinned.addresses()  # it took a connection a moment ago
    assert world.races == [(A,)]
    clock.advance(61.0)
    pinned.addresses()
    assert world.races == [(A,)]


def test_a_client_that_is_still_connecting_is_no_reason_to_doubt_for_a_second(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock
) -> None:
    pinned = port()
    busy = [pinned.addresses() for _ in range(10)]
    assert world.races == []
    clock.advance(1.1)
    busy.append(pinned.addresses())
    assert world.races == [(A,)]


def test_a_client_that_stopped_at_the_second_address_is_believed_about_both(
    port: Callable[..., PinnedPort], world: World, lookup: ScriptedLookup, clock: ManualClock
) -> None:
    lookup.set(NAME, (A, B))
    pinned = port()
    first = pinned.addresses()
    world.refuses = {first[0]}
    first.connected(first[1])
    second = first[1]
    assert pinned.addresses()[0] == second
    clock.advance(2.0)
    pinned.addresses()
    assert len(world.races) == 2  # the first one may be dead


def test_an_outage_is_ridden_out_until_an_address_takes_a_connection(
    port: Callable[..., PinnedPort], world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pinned = port()
    pinned.addresses()
    world.refuses = {A}
    world.when_slept = lambda: world.refuses.clear() if len(world.slept) > 5 else None
    with caplog.at_level(logging.WARNING):
        assert pinned.addresses() == [A]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert f"none of {A} accepts a connection. Trying again for up to 30 s" in told[0]
    assert "reachable again after" in told[1]


def test_patience_is_counted_from_the_beginning_of_the_outage(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock, resolver: DNSResolver
) -> None:
    """A client that comes back for the name does not multiply it."""
    pinned = port(patience=10.0)
    pinned.addresses()
    world.refuses = {A}
    began = clock.monotonic()
    assert pinned.addresses() == [A]  # the client gets the refusal itself
    assert clock.monotonic() - began == pytest.approx(10.0, abs=0.1)
    for _ in range(5):
        pinned.addresses()
    assert clock.monotonic() - began == pytest.approx(10.0, abs=0.1)


def test_with_every_address_silent_the_caller_is_told_and_not_left_hanging(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock
) -> None:
    pinned = port(patience=5.0)
    pinned.addresses()
    world.silent = {A}
    with pytest.raises(NoConnectionError, match=A):
        pinned.addresses()
    races, at = len(world.races), clock.monotonic()
    with pytest.raises(NoConnectionError):
        pinned.addresses()
    assert (len(world.races), clock.monotonic()) == (races, at)  # not tried again so soon


def test_what_a_client_spent_in_a_black_hole_counts(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock
) -> None:
    """Its own connect time-out comes first, and a deadline holds both."""
    pinned = port(patience=4.0, connect_timeout=2.0)
    pinned.addresses()
    world.silent = {A}
    began = clock.monotonic()
    clock.advance(2.05)  # as long as the client hangs
    with pytest.raises(NoConnectionError):
        pinned.addresses()
    assert clock.monotonic() - began <= 4.0


def test_a_lookup_that_hangs_is_left_when_patience_ends(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock
) -> None:
    """The round goes on for others: they join it and have a patience of their own."""
    world.hangs = True
    pinned = port(patience=2.0)
    began = clock.monotonic()
    with pytest.raises(DNSResolutionError, match=r"no outcome \(2\.10 s\)"):
        pinned.addresses()
    assert clock.monotonic() - began == pytest.approx(2.1)
    for _ in range(4):  # a client's retries
        with pytest.raises(DNSResolutionError):
            pinned.addresses()
    assert clock.monotonic() - began == pytest.approx(2.1)


def test_slow_lookups_leave_all_of_the_patience_for_a_nameserver_that_comes_back(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock, lookup: ScriptedLookup
) -> None:
    """Silent nameservers make a round as long as ``timeout``; the last one may begin late."""
    lookup.script(NAME, Cause.TIMEOUT, Cause.TIMEOUT, A)
    began = clock.monotonic()

    def start(job: Callable[[], None]) -> None:
        clock.advance(min(10.0, began + 25.0 - clock.monotonic()))
        job()

    pinned = port(patience=30.0, edge=replace(world.edge(), start=start))
    assert pinned.addresses() == [A]
    assert clock.monotonic() - began == pytest.approx(25.0)


def test_one_who_wants_less_patience_leaves_earlier(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock
) -> None:
    pinned = port(patience=600.0)
    pinned.addresses()
    world.refuses = {A}
    began = clock.monotonic()
    pinned.addresses(max_patience=2.0)
    assert 1.0 < clock.monotonic() - began <= 2.0


def test_a_refusal_of_the_stale_check_is_remembered_once_patience_is_over(
    port: Callable[..., PinnedPort],
    world: World,
    clock: ManualClock,
    lookup: ScriptedLookup,
    resolver: DNSResolver,
) -> None:
    """Each retry of a client comes by here, and a black hole costs each check seconds."""
    asked: list[str] = []

    def stale_check(resolution: object, address: str, port: int) -> str | None:
        asked.append(address)
        clock.advance(0.7)
        return "no MLflow answers there"

    pinned = port(patience=1.0, stale_check=stale_check)
    pinned.addresses()
    clock.advance(200.0)
    lookup.set(NAME, Cause.SERVFAIL)
    resolver.refresh(NAME)

    def is_refused() -> None:
        with pytest.raises(DNSResolutionError, match="no MLflow answers there"):
            pinned.addresses()

    is_refused()
    assert len(asked) == 1  # a second round would end too late
    is_refused()
    assert len(asked) == 1
    clock.advance(10.1)
    is_refused()
    assert len(asked) == 2
    lookup.set(NAME, B)
    resolver.refresh(NAME)
    assert pinned.addresses() == [B]  # it is news, and tried at once


def test_a_stale_address_is_asked_about_and_tried(
    port: Callable[..., PinnedPort], world: World, lookup: ScriptedLookup, resolver: DNSResolver
) -> None:
    asked: list[str] = []
    pinned = port(stale_check=lambda resolution, address, port: asked.append(address))
    connect(pinned.addresses())
    world.clock.advance(2.0)
    lookup.set(NAME, Cause.SERVFAIL)
    resolver.refresh(NAME)
    world.clock.advance(200.0)
    for _ in range(3):
        assert pinned.addresses() == [A]
    assert (asked, world.races) == ([A], [(A,)])


def test_a_caller_of_one_family_waits_while_only_the_other_lives(
    port: Callable[..., PinnedPort], world: World, lookup: ScriptedLookup
) -> None:
    """An address that the caller cannot use does not end its outage."""
    import socket

    six = "fd00::1"
    lookup.set(NAME, (A, six))
    world.refuses = {A}
    world.when_slept = lambda: world.refuses.clear() if len(world.slept) > 3 else None
    pinned = port(family=socket.AF_INET)
    assert pinned.addresses(must_be_tested=True) == [A]
    assert len(world.slept) > 3
    assert six not in {address for race in world.races for address in race}
    lookup.set(NAME, six)
    assert port(family=socket.AF_INET6).addresses() in ([six], [])


def test_a_hundred_threads_make_one_trial(
    port: Callable[..., PinnedPort], world: World, clock: ManualClock
) -> None:
    """Those who come while one is under way wait for it."""
    inside, go_on = threading.Event(), threading.Event()

    def race(addresses: Sequence[str], port: int) -> Trial:
        inside.set()
        go_on.wait(30)
        return world.race(addresses, port)

    with ThreadPoolExecutor(100) as pool:
        edge = Edge(clock.monotonic, race=race)
        pinned = port(edge=edge)
        first = pool.submit(pinned.addresses, must_be_tested=True)
        inside.wait(30)
        others = [pool.submit(pinned.addresses, must_be_tested=True) for _ in range(99)]
        go_on.set()
        assert [each.result(30) for each in (first, *others)] == [[A]] * 100
    assert world.races == [(A,)]


def test_a_round_that_raises_is_heard_and_the_next_one_runs(
    port: Callable[..., PinnedPort], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = port()

    def broken(addresses: Sequence[str], port: int) -> Trial:
        raise RuntimeError("no file descriptors")

    world.race, usual = broken, world.race  # type: ignore[method-assign]
    pinned = port()
    with pytest.raises(RuntimeError, match="no file descriptors"):
        pinned.addresses(must_be_tested=True)
    world.race = usual  # type: ignore[method-assign]
    assert port().addresses(must_be_tested=True) == [A]


def test_an_answer_that_is_gone_is_settled_by_the_garbage_collector_without_a_lock(
    port: Callable[..., PinnedPort],
) -> None:
    """It may run at any time, also on a thread that holds the lock."""
    pinned = port()
    circle: list[object] = [pinned.addresses()]
    circle.append(circle)
    del circle
    with ThreadPoolExecutor(1) as other:
        other.submit(pinned._lock.acquire).result(30)
        gc.collect()
        other.submit(pinned._lock.release).result(30)
    assert len(pinned._handouts.in_doubt) == 1


@pytest.mark.parametrize("refuses", [set(), {A}])
def test_a_signal_handler_may_connect_wherever_it_interrupts_a_connection(
    port: Callable[..., PinnedPort], world: World, refuses: set[str]
) -> None:
    """Python calls it where a function begins; here, once in each function of the call."""
    world.refuses = refuses
    modules = {sys.modules[each.__module__].__file__ for each in (PinnedPort, Handout, Patience)}

    def interrupted(call: int) -> bool:
        pinned = port(patience=2.0)
        connect(pinned.addresses())
        passed, found = 0, []

        def trace(frame: FrameType, event: str, _: object) -> None:
            nonlocal passed
            if frame.f_code.co_filename in modules:
                passed += 1
                if passed == call:
                    found.append(pinned.addresses(must_be_tested=True))

        sys.settrace(trace)
        found.append(pinned.addresses(must_be_tested=True))
        sys.settrace(None)
        assert found == [[A]] * len(found)
        return passed >= call

    calls: list[int] = []
    everywhere = partial(calls.extend, takewhile(interrupted, range(1, 99)))
    thread = threading.Thread(target=everywhere, daemon=True)
    thread.start()
    thread.join(20)
    assert len(calls) > 15


def test_an_ipv4_address_in_the_form_of_ipv6_goes_to_the_back_as_well(
    port: Callable[..., PinnedPort], world: World, lookup: ScriptedLookup, resolver: DNSResolver
) -> None:
    """There is more than one way to write it, and DNS may give any."""
    mapped = "::ffff:10.0.0.9"
    lookup.set(NAME, (mapped, A))
    world.refuses = {mapped}
    port().addresses(must_be_tested=True)
    assert {resolver.resolve(NAME).address for _ in range(4)} == {A}


@pytest.mark.parametrize("step", [-3600.0, 0.0, 3600.0])
def test_a_step_of_the_wall_clock_makes_no_caller_look_up_the_name_itself(
    port, resolver, clock, world, monkeypatch, step
):
    """A round does, on a thread beside the caller, who has less patience than DNS takes."""
    assert resolver.resolve(NAME).address == A
    clock.step_wall(step)
    there = port(patience=0.1)
    assert there.addresses() == [A]
    clock.advance(200.0)  # the answer is over
    monkeypatch.setattr(resolver, "resolve", lambda name: pytest.fail("on the caller's thread"))
    world.hangs = True
    with pytest.raises(DNSResolutionError):
        there.addresses()


def test_an_error_that_is_kept_keeps_nothing_of_its_callers(
    port: Callable[..., PinnedPort], lookup: ScriptedLookup
) -> None:
    """Its traceback would hold their frames, and so all their variables, as long as the outage."""
    one, variables = port(0.0), []
    lookup.set(NAME, Cause.NXDOMAIN)

    class Big:
        pass

    def caller() -> int:
        big = Big()
        variables.append(weakref.ref(big))
        with pytest.raises(DNSResolutionError, match=NAME) as caught:
            one.addresses()
        return len(caught.traceback)

    assert len({caller() for _ in range(20)}) <= 2  # with the call that starts the round
    gc.collect()
    assert not [each for each in variables if each() is not None]
