"""DNS and the system's own lookup together: real packets, and a system that is written down."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver import (
    Answer,
    Cause,
    DNSResolver,
    Endpoint,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.resolver.testing import DNSServer, Fault, ScriptedLookup

NAME = "mlflow.hokusai.test"
SYSTEM = Answer((Endpoint("10.0.0.2"),), Source.SYSTEM, ttl=10.0)

#: What a nameserver may do, and the cause that it is.
FAULTS = {
    Fault.NO_SUCH_NAME: Cause.NXDOMAIN,
    Fault.NO_DATA: Cause.NODATA,
    Fault.SERVFAIL: Cause.SERVFAIL,
    Fault.REFUSED: Cause.REFUSED,
    Fault.SILENT: Cause.TIMEOUT,
    Fault.FORMERR: Cause.MALFORMED,
    Fault.HANG_UP: Cause.TIMEOUT,
    Fault.GARBAGE: Cause.TIMEOUT,
}


@pytest.fixture
def live(dns: DNSServer, tmp_path: Path) -> Callable[..., LiveLookup]:
    """The default lookup beside a nameserver of resolv.conf, with a short head start."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\n")

    def make(system: ScriptedLookup, **more) -> LiveLookup:
        given = {"hosts": tmp_path / "none", "head_start": 0.05, **more}
        return LiveLookup(ResolverConfig(), resolv_conf=path, port=dns.port, system=system, **given)

    return make


@pytest.fixture
def system() -> Iterator[ScriptedLookup]:
    scripted = ScriptedLookup({NAME: SYSTEM})
    yield scripted
    scripted.release()


def failure(lookup: LiveLookup, timeout: float = 1.0, **more) -> LookupFailed:
    with pytest.raises(LookupFailed) as caught:
        lookup.lookup(NAME, timeout=timeout, **more)
    return caught.value


@pytest.mark.parametrize("delay", [0.0, 0.2])
@pytest.mark.parametrize("fault", FAULTS)
def test_whenever_the_systems_own_lookup_succeeds_so_does_ours(dns, live, system, fault, delay):
    """Never worse than the plain client, whatever DNS does: says no, breaks, or is silent."""
    dns.fault(NAME, fault)
    dns.delay(NAME, delay)
    started = time.monotonic()
    assert live(system).lookup(NAME, timeout=2) == SYSTEM
    assert time.monotonic() - started < 1.9


def test_with_the_nameservers_port_closed_the_system_is_asked_at_once(dns, live, system):
    """Nothing is there to be waited for."""
    dns.stop()
    started = time.monotonic()
    assert live(system, head_start=5.0).lookup(NAME, timeout=10) == SYSTEM
    assert time.monotonic() - started < 4


def test_where_no_nameserver_can_be_asked_the_systems_no_such_name_is_the_word(dns, live):
    """The machine has another way to know; "no usable nameserver" would keep old answers a day."""
    dns.stop()
    failed = failure(live(ScriptedLookup({NAME: Cause.NXDOMAIN})))
    assert failed.cause is Cause.NXDOMAIN
    assert "Connection refused" in " ".join(str(step) for step in failed.tried)


def test_on_a_good_day_the_system_is_not_asked(dns, live, system):
    """Nothing is asked twice."""
    dns.set_records(NAME, ["10.0.0.1"])
    assert live(system, head_start=1.0).lookup(NAME, timeout=2).source is Source.DNS
    assert system.calls() == 0


def test_dns_may_still_win_after_the_system_failed(dns, live):
    """The first answer wins, and a failure is no answer."""
    dns.set_records(NAME, ["10.0.0.1"])
    dns.delay(NAME, 0.2)
    assert live(ScriptedLookup()).lookup(NAME, timeout=2).source is Source.DNS


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.SILENT])
def test_a_system_that_hangs_is_waited_for_no_longer_than_agreed(dns, live, system, fault):
    """``getaddrinfo`` cannot be cancelled; the caller can go."""
    dns.fault(NAME, fault)
    system.hold(NAME, past_timeout=True)
    started = time.monotonic()
    error = failure(live(system), timeout=0.3)
    assert 0.25 < time.monotonic() - started < 5
    assert error.cause is FAULTS[fault]
    assert "system: no answer in time" in [str(step) for step in error.tried]


def test_when_both_fail_the_cause_is_what_dns_said(dns, live):
    """What the system said stands beside it."""
    dns.servfail(NAME)
    error = failure(live(ScriptedLookup({NAME: Cause.NXDOMAIN})))
    assert error.cause is Cause.SERVFAIL
    assert "nxdomain" in str(error.tried[-1])


def test_a_system_that_breaks_is_told_as_it_is(dns, live):
    """And DNS may still answer."""
    odd = ScriptedLookup({NAME: OSError(24, "Too many open files")})
    dns.servfail(NAME)
    assert "Too many open files" in str(failure(live(odd)).tried[-1])
    dns.set_records(NAME, ["10.0.0.1"])
    dns.delay(NAME, 0.2)
    assert live(odd).lookup(NAME, timeout=2).source is Source.DNS


def test_with_nameservers_of_ones_own_the_system_is_not_asked(dns, system, tmp_path):
    """Their answer is wanted, and no other."""
    lookup = LiveLookup(
        ResolverConfig(nameservers=(dns.address,)), hosts=tmp_path / "none", system=system
    )
    assert failure(lookup).cause is Cause.NXDOMAIN
    assert system.calls() == 0


def test_lookups_of_one_name_share_one_call_of_the_system(dns, live, system):
    """It may hang for minutes: those who come again must not add a thread each."""
    dns.servfail(NAME)
    system.hold(NAME, past_timeout=True)
    lookup = live(system)
    with ThreadPoolExecutor(40) as pool:
        failures = list(pool.map(lambda _: failure(lookup, timeout=2.0), range(40)))
    assert {failed.cause for failed in failures} == {Cause.SERVFAIL}
    assert system.calls(NAME) == 1


def test_hanging_system_lookups_do_not_hold_up_other_names(dns, live):
    """Seventy hung ``getaddrinfo``, and DNS and the system still answer."""
    system = ScriptedLookup({"last.test": SYSTEM})
    for number in range(70):
        system.hold(f"hang{number}.test", past_timeout=True)
    resolver = DNSResolver(ResolverConfig(timeout=2.0), lookup=live(system))
    resolver.warm([f"hang{number}.test" for number in range(70)])
    assert resolver.wait_idle(20)
    dns.set_records(NAME, ["10.0.0.1"])
    started = time.monotonic()
    assert resolver.resolve(NAME).source is Source.DNS
    assert resolver.resolve("last.test").source is Source.SYSTEM
    assert time.monotonic() - started < 1.9
    system.release()


def test_a_hundred_names_at_once_do_not_wait_for_each_others_threads(dns, live):
    """All are answered."""
    names = [f"h{n}.test" for n in range(100)]
    for name in names:
        dns.set_records(name, ["10.0.0.1"])
    resolver = DNSResolver(lookup=live(ScriptedLookup(), head_start=1.0))
    resolver.warm(names)
    assert resolver.wait_idle(20)
    assert resolver.metrics().errors == {}
    assert {resolver.resolve(name).source for name in names} == {Source.CACHE}


def test_sixty_four_names_that_hang_hold_up_no_healthy_one(tmp_path):
    """Nor do coroutines that were cancelled: the bound is the cache's, and not a pool's."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    hanging = [f"hang{number}.test" for number in range(140)]
    for name in hanging:
        lookup.hold(name, past_timeout=True)
    resolver = DNSResolver(lookup=lookup)
    resolver.warm(hanging[:70])

    async def cancelled() -> None:
        waits = [asyncio.ensure_future(resolver.aresolve(name)) for name in hanging[70:]]
        await asyncio.sleep(0.05)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    asyncio.run(cancelled())
    started = time.monotonic()
    assert resolver.resolve(NAME).address == "10.0.0.1"
    assert time.monotonic() - started < 0.5
    lookup.release()
    assert resolver.wait_idle()


# --- the caller who starts a lookup drives it


def test_an_answer_that_comes_soon_needs_no_other_thread(dns, live):
    """Neither a worker nor a hand-over; a caller that joins waits for it."""
    dns.set_records(NAME, ["10.0.0.1", "fd00::1"])
    resolver = DNSResolver(lookup=live(ScriptedLookup(), head_start=1.0))
    assert resolver.resolve(NAME).source is Source.DNS
    assert resolver._workers._threads == 0
    dns.delay(NAME, 0.8)
    resolver.clear()
    assert resolver.resolve(NAME).source is Source.DNS  # his patience ended, a thread took over
    assert resolver._workers._threads > 0


class Alarm(Exception):
    """What a signal handler raises."""


def test_a_signal_that_interrupts_a_lookup_leaves_it_to_others(dns, live):
    """The handler's error reaches whom it was meant for; those who joined get their answer."""
    dns.set_records(NAME, ["10.0.0.1"])
    dns.hold(NAME)
    resolver = DNSResolver(
        ResolverConfig(stale_after=5.0), lookup=live(ScriptedLookup(), head_start=9.0)
    )
    handler = types.FunctionType(_raise_alarm.__code__, {"Alarm": Alarm, "__name__": "author"})
    before = signal.signal(signal.SIGALRM, handler)
    with ThreadPoolExecutor(1) as pool:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        threading.Timer(0.1, lambda: joined.append(pool.submit(resolver.resolve, NAME))).start()
        joined: list = []
        try:
            with pytest.raises(Alarm):
                resolver.resolve(NAME)
        finally:
            signal.signal(signal.SIGALRM, before)
        dns.release(NAME)
        assert joined[0].result(10).address == "10.0.0.1"
    assert resolver.wait_idle()


def _raise_alarm(number, frame):
    raise Alarm


def test_a_signal_handler_may_resolve_the_name_that_was_interrupted(dns, live):
    """It does not wait for the frame below it, which waits for it."""
    dns.set_records(NAME, ["10.0.0.1"])
    dns.delay(NAME, 0.3)
    lookup = live(ScriptedLookup(), head_start=9.0)
    resolver = DNSResolver(ResolverConfig(stale_after=5.0), lookup=lookup)
    found: list = []
    before = signal.signal(signal.SIGALRM, lambda *_: found.append(resolver.resolve(NAME)))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    started = time.monotonic()
    try:
        assert resolver.resolve(NAME).address == "10.0.0.1"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [one.address for one in found] == ["10.0.0.1"]
    assert time.monotonic() - started < 3
    assert resolver.wait_idle()


# --- what comes after the outcome


def late(lookup: LiveLookup, timeout: float) -> list[Answer]:
    """The outcome of one lookup, and each better answer after it."""
    pending = lookup.begin(NAME, timeout=timeout)
    pending.run(timeout)
    answers = [pending.outcome] if isinstance(pending.outcome, Answer) else []
    pending.go_on(answers.append)
    return answers


def test_dns_takes_over_when_it_answers_after_the_system(dns, live, system):
    """The system does not tell the record's TTL, so DNS is listened to, and its answer follows."""
    dns.set_records(NAME, ["10.0.0.1"], ttl=7)
    dns.delay(NAME, 0.3)
    first, second = late(live(system), 2)
    assert (first.source, first.ttl) == (Source.SYSTEM, 10)
    assert (second.source, second.ttl, second.addresses) == (Source.DNS, 7, ("10.0.0.1",))


def test_a_family_that_is_late_is_merged(dns, system, live):
    """RFC 8305, section 3: a caller is not kept waiting for it, and it is not lost either."""
    dns.set_rdata(NAME, "A", ["10.0.0.1"])
    dns.set_rdata(NAME, "AAAA", ["fd00::1"])
    dns.fault(NAME, Fault.SILENT, Fault.ANSWER, rdtype="AAAA")  # the first packet is lost
    first, second = late(live(system, head_start=1.0), 5)
    assert first.addresses == ("10.0.0.1",)
    assert second.addresses == ("10.0.0.1", "fd00::1")


def test_an_answer_of_the_system_that_comes_after_the_time_is_taken(dns, live, system):
    """Its own caller no longer waits; the next caller finds it."""
    dns.silent(NAME)
    event = system.hold(NAME, past_timeout=True)
    resolver = DNSResolver(ResolverConfig(timeout=0.3, failure_ttl=10), lookup=live(system))
    with pytest.raises(Exception, match="cannot be resolved"):
        resolver.resolve(NAME)
    event.set()
    assert resolver.wait_idle()
    deadline = time.monotonic() + 5
    while resolver.state(NAME) != "healthy" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert resolver.resolve(NAME).address == "10.0.0.2"


def test_a_lost_packet_costs_no_ttl(dns, live, system, clock):
    """The system is not asked, or its answer is replaced: a record that moves is followed."""
    dns.set_records(NAME, ["10.0.0.1"], ttl=10)
    dns.fault(NAME, Fault.SILENT, Fault.ANSWER, rdtype="A")
    config = ResolverConfig(jitter=0)
    resolver = DNSResolver(config, lookup=live(system, head_start=1.0), clock=clock)
    assert resolver.resolve(NAME).address == "10.0.0.1"
    assert resolver.wait_idle()
    dns.set_records(NAME, ["10.0.0.7"], ttl=10)
    clock.advance(11)
    assert resolver.resolve(NAME).address == "10.0.0.7"
    assert resolver.wait_idle()


# --- where an old answer is at hand


@pytest.fixture
def broken(dns, live, clock) -> Callable[..., tuple[DNSResolver, ScriptedLookup]]:
    """A resolver that has had its answer from DNS, which has a fault from now on."""
    system = ScriptedLookup({NAME: SYSTEM})

    def make(
        fault: Fault = Fault.SERVFAIL, head_start: float = 0.05, **numbers
    ) -> tuple[DNSResolver, ScriptedLookup]:
        dns.set_records(NAME, ["10.0.0.1"], ttl=10)
        lookup = live(system, head_start=9.0)
        resolver = DNSResolver(ResolverConfig(jitter=0.0, **numbers), lookup=lookup, clock=clock)
        assert resolver.resolve(NAME).address == "10.0.0.1"
        assert resolver.wait_idle()
        lookup.head_start = head_start
        dns.fault(NAME, fault)
        clock.advance(11)
        return resolver, system

    return make


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED])
def test_where_a_stale_answer_is_at_hand_the_system_is_asked_at_the_second_failure(
    broken, clock, fault
):
    """It mostly asks the same servers, each of them twice: not while it is not needed."""
    resolver, system = broken(fault)
    for _ in range(100):
        found = resolver.resolve(NAME)
        assert (found.address, found.source) == ("10.0.0.1", Source.STALE)
        assert found.cause is FAULTS[fault]
    assert resolver.wait_idle()
    assert system.calls() == 0
    clock.advance(resolver.config.failure_recheck)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    found = resolver.resolve(NAME)
    assert (found.address, found.is_stale) == ("10.0.0.2", False)


@pytest.mark.parametrize(
    ("why", "numbers"),
    [("refresh", {}), ("refused", {}), ("too old", {"max_stale": 11}), ("soon", {"max_stale": 40})],
)
def test_the_system_is_asked_at_once_where_the_stale_answer_does_not_help(broken, why, numbers):
    """An admin wants to know, the address is dead, or it may not be served until the next look."""
    resolver, _system = broken(**numbers)
    if why == "refresh":
        assert resolver.refresh(NAME).source is Source.SYSTEM
    elif why == "refused":
        resolver.report_failure(NAME, "10.0.0.1")
        assert resolver.wait_idle()
    assert resolver.resolve(NAME).address == "10.0.0.2"


def test_a_refresh_that_joins_a_lookup_without_the_system_asks_it(broken, dns):
    """A refresh asks all sources, whatever is under way when it comes."""
    resolver, system = broken(head_start=5.0)
    dns.hold(NAME)
    assert resolver.resolve(NAME).is_stale  # the lookup behind it leaves the system out
    with ThreadPoolExecutor(1) as pool:
        refreshed = pool.submit(resolver.refresh, NAME)
        time.sleep(0.02)
        dns.release(NAME)
        assert refreshed.result(10).source is Source.SYSTEM
    assert system.calls() == 1
    assert resolver.wait_idle()


@pytest.mark.parametrize("fault", [Fault.NO_SUCH_NAME, Fault.NO_DATA, Fault.SILENT, Fault.FORMERR])
def test_the_system_is_asked_at_once_where_dns_says_anything_else(broken, fault):
    """Only a nameserver that says itself that it cannot answer is believed for the moment."""
    resolver, _system = broken(fault)
    assert resolver.resolve(NAME).source is Source.SYSTEM


# --- what an answer is worth to others


SINKHOLES = ["0.0.0.0", "::", "169.254.1.1", "fe80::1", "240.240.0.7", "224.0.0.1"]


@pytest.mark.parametrize("address", [*SINKHOLES, "127.0.0.1", "::1"])
def test_an_answer_that_leads_nowhere_replaces_no_last_known_good(dns, live, store, clock, address):
    """A portal or a filter answers for every name; it is used, as the system would use it."""
    dns.set_records(NAME, ["10.0.0.1"])
    resolver = DNSResolver(lookup=live(ScriptedLookup()), store=store, clock=clock)
    resolver.refresh(NAME)
    clock.advance(700)
    dns.set_records(NAME, [address])
    assert resolver.refresh(NAME).addresses == (address,)
    assert store.records[NAME].addresses == ("10.0.0.1",)
    assert resolver.wait_idle()


@pytest.mark.parametrize("address", SINKHOLES)
def test_an_answer_that_leads_nowhere_is_not_stored(dns, live, store, clock, address):
    """Nor with the "no such name" that is seen later; loopback is, for a fleet of one machine."""
    dns.set_records(NAME, [address])
    resolver = DNSResolver(lookup=live(ScriptedLookup()), store=store, clock=clock)
    resolver.refresh(NAME)
    dns.no_such_name(NAME)
    clock.advance(60)
    assert resolver.refresh(NAME).is_stale
    assert store.records == {}
    assert resolver.wait_idle()


@pytest.mark.parametrize("number", [1e12, 10**400], ids=["float", "int"])
@pytest.mark.parametrize("field", ["cache_ttl", "timeout", "penalty", "failure_recheck"])
def test_a_duration_that_no_calendar_holds_is_refused(field, number):
    """It would be a ValueError at each resolve; the setting is the place to say so."""
    with pytest.raises(ValueError, match=f"{field} must be at most"):
        ResolverConfig(**{field: number})


CLOCKS = {
    "resolver": "from airflow_provider_hokusai_dns.resolver.clock import SystemClock; "
    "now = SystemClock().monotonic()",
    "gates": "import asyncio; from airflow_provider_hokusai_dns.gates import shared_probes; "
    "check = lambda key: asyncio.sleep(0); "
    "now = asyncio.run(shared_probes.SharedProbe(None, check).next(30)).at",
    "page": "from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache; "
    "now = HealthCache()._now()",
}


@pytest.mark.parametrize("whose", CLOCKS)
def test_the_clock_goes_on_while_the_machine_sleeps(whose):
    """Ages are those of the world; a virtual machine that was suspended is no younger for it."""
    code = f"import time; {CLOCKS[whose]}; print(now - time.monotonic())"
    asleep = ["unshare", "--map-root-user", "--time", "--boottime", "100000", "--fork"]
    if not shutil.which("unshare") or subprocess.run([*asleep, "true"], check=False).returncode:
        pytest.skip("this system allows no time namespace")
    ran = subprocess.run(
        [*asleep, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(ran.stdout) == pytest.approx(100_000, abs=60)
