"""Garbage from the network never crashes, never poisons, never blocks, and has a cause."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError, LookupFailed
from airflow_provider_hokusai_dns.resolver import Answer, Cause, DNSResolver, ResolverConfig
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.resolver.target import parse_address
from airflow_provider_hokusai_dns.resolver.testing import DNSServer, Fault, ManualClock

NAME = "mlflow.test"
GOOD = "10.0.0.1"


def live(*servers: DNSServer) -> LiveLookup:
    return LiveLookup(ResolverConfig(nameservers=tuple(server.address for server in servers)))


def look(server: DNSServer, name: str = NAME, timeout: float = 3.0) -> Answer | Cause:
    try:
        return live(server).lookup(name, timeout=timeout)
    except LookupFailed as failure:
        told = (failure.detail, failure.tried, failure.cause)
    assert all(told)
    return told[-1]


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(2, 200), st.integers(0, 255)), min_size=1, max_size=8))
def test_an_answer_with_changed_bytes_is_an_answer_or_a_failure(
    dns: DNSServer, changes: list[tuple[int, int]]
):
    """Whatever bytes are wrong behind the id: valid addresses come out of it, or a cause."""

    def change(wire: bytes) -> bytes:
        changed = bytearray(wire)
        for place, value in changes:
            changed[2 + place % (len(wire) - 2)] = value
        return bytes(changed)

    dns.set_records(NAME, [GOOD, "fd00::1"])
    dns.garbage(NAME, payload=change)
    found = look(dns, timeout=0.02)
    if isinstance(found, Answer):
        assert all(parse_address(address) == address for address in found.addresses)
        assert found.ttl is None or 0 <= found.ttl < 2**31


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_at_all_are_survived(dns: DNSServer, junk: bytes, with_id: bool):
    """Empty datagrams, short ones, noise under the right id."""
    dns.set_records(NAME, [GOOD])
    dns.garbage(NAME, payload=lambda wire: wire[:2] + junk if with_id else junk)
    assert isinstance(look(dns, timeout=0.02), Answer | Cause)


@pytest.mark.parametrize(
    ("fault", "causes"),
    [
        (Fault.NO_SUCH_NAME, {Cause.NXDOMAIN}),
        (Fault.NO_DATA, {Cause.NODATA}),
        (Fault.SERVFAIL, {Cause.SERVFAIL}),
        (Fault.REFUSED, {Cause.REFUSED}),
        (Fault.FORMERR, {Cause.MALFORMED}),
        (Fault.SILENT, {Cause.TIMEOUT}),
        (Fault.HANG_UP, {Cause.TIMEOUT, Cause.NETWORK}),
        (Fault.WRONG_ID, {Cause.TIMEOUT, Cause.MALFORMED}),
        (Fault.GARBAGE, {Cause.TIMEOUT, Cause.MALFORMED}),
        (Fault.OTHER_QUESTION, {Cause.TIMEOUT, Cause.MALFORMED}),
        (Fault.OTHER_NAME, {Cause.NODATA, Cause.MALFORMED}),
    ],
)
def test_every_fault_of_a_server_has_its_cause(dns: DNSServer, fault: Fault, causes: set[Cause]):
    """The cause is data, and the lookup keeps its time (dnspython overshoots by 0.4 s)."""
    dns.set_records(NAME, [GOOD, "fd00::1"])
    dns.fault(NAME, fault)
    started = time.monotonic()
    assert look(dns, timeout=1) in causes
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "fault", [Fault.WRONG_ID, Fault.OTHER_QUESTION, Fault.OTHER_NAME, Fault.GARBAGE, Fault.SILENT]
)
def test_a_forged_answer_poisons_nothing(dns: DNSServer, fault: Fault):
    """The old answer stays, and is served as what it is; nothing of the forgery is cached."""
    clock = ManualClock()
    resolver = DNSResolver(
        ResolverConfig(nameservers=(dns.address,), timeout=0.2, stale_after=0.1), clock=clock
    )
    dns.set_records(NAME, [GOOD])
    resolver.resolve(NAME)
    dns.fault(NAME, fault)
    clock.advance(60)
    for _ in range(3):
        resolution = resolver.refresh(NAME)
        assert (resolution.addresses, resolution.is_stale) == ((GOOD,), True)
    assert resolver.metrics().errors
    assert resolver.state("stranger.invalid") == "unknown"
    assert resolver.wait_idle()


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.SERVFAIL, Fault.REFUSED, Fault.NO_SUCH_NAME])
def test_a_hundred_calls_during_an_outage_send_few_queries(dns: DNSServer, fault: Fault):
    """The last table of the policy: all of them are served, and the server is asked 4 times."""
    resolver = DNSResolver(ResolverConfig(nameservers=(dns.address,), min_ttl=0.1, timeout=2))
    dns.set_records(NAME, [GOOD], ttl=0)
    resolver.resolve(NAME)
    dns.fault(NAME, fault)
    time.sleep(0.11)
    dns.clear_queries()
    for _ in range(100):
        resolution = resolver.resolve(NAME)
        assert (resolution.addresses, resolution.is_stale) == ((GOOD,), True)
    assert 1 <= len(dns.queries) <= 4
    assert resolver.wait_idle()


def test_a_loop_of_aliases_ends(dns: DNSServer):
    """CNAME to itself by way of another: a cause, at once."""
    dns.set_cname("one.test", "two.test")
    dns.set_cname("two.test", "one.test")
    started = time.monotonic()
    assert look(dns, "one.test") in (Cause.MALFORMED, Cause.NODATA)
    assert time.monotonic() - started < 2.9


def test_five_hundred_addresses_are_bounded(dns: DNSServer):
    """They come over TCP, and a bounded number of them is kept."""
    many = [f"10.1.{i // 250}.{i % 250}" for i in range(500)]
    dns.set_records(NAME, many)
    found = look(dns)
    assert isinstance(found, Answer)
    assert 1 < len(found.addresses) <= 64
    assert set(found.addresses) <= set(many)
    resolution = DNSResolver(ResolverConfig(nameservers=(dns.address,))).resolve(NAME)
    assert set(resolution.addresses) == set(found.addresses)


@pytest.mark.parametrize(
    ("ttl", "lifetime"), [(0, 5), (2**31 - 1, 300), (2**31, 5), (2**32 - 1, 5)]
)
def test_a_ttl_at_the_edges_becomes_a_sane_lifetime(dns: DNSServer, ttl: int, lifetime: float):
    """Floor and cap hold; a TTL past 2**31 - 1 counts as 0 (RFC 2181, section 8)."""
    clock = ManualClock()
    resolver = DNSResolver(
        ResolverConfig(nameservers=(dns.address,), jitter=0, refresh_ahead=0), clock=clock
    )
    dns.set_records(NAME, [GOOD], ttl=ttl)
    resolver.resolve(NAME)
    asked = dns.count(NAME, "A")
    clock.advance(lifetime - 0.01)
    resolver.resolve(NAME)
    assert dns.count(NAME, "A") == asked
    clock.advance(0.02)
    resolver.resolve(NAME)
    assert dns.count(NAME, "A") == asked + 1
    assert resolver.wait_idle()


def test_a_storm_of_random_faults_leaves_no_error_while_anything_may_be_served(dns: DNSServer):
    """The server changes its mind all the time: after the first answer no caller sees an error."""
    choice = random.Random(7)
    clock = ManualClock()
    resolver = DNSResolver(
        ResolverConfig(nameservers=(dns.address,), timeout=0.2, stale_after=0.01), clock=clock
    )
    dns.set_records(NAME, [GOOD])
    resolver.resolve(NAME)
    faults = [fault for fault in Fault if fault is not Fault.ANSWER]
    for step in range(100):
        dns.set_records(NAME, [GOOD])
        if step % 5:  # One good moment in five: rule 7 allows 900 s without the name.
            dns.fault(NAME, choice.choice(faults))
        else:
            resolver.wait_idle()
        clock.advance(choice.choice([0, 1, 5, 30]))
        assert resolver.resolve(NAME).addresses == (GOOD,)
        if not step % 5:
            resolver.wait_idle()
    metrics = resolver.metrics()
    assert metrics.attempts == (
        metrics.hits + metrics.misses + metrics.stale + metrics.fallback + metrics.failed
    )
    assert metrics.failed == 0
    assert resolver.wait_idle()


def test_a_name_that_never_resolved_gets_the_error_whatever_the_fault(dns: DNSServer):
    """Rule 9: nothing old, nothing stored, nothing static."""
    resolver = DNSResolver(ResolverConfig(nameservers=(dns.address,), timeout=0.05))
    for fault in Fault:
        if fault in (Fault.ANSWER, Fault.TRUNCATE):
            continue
        name = f"{fault.value.replace('_', '-')}.test"
        dns.set_records(name, [GOOD])
        dns.fault(name, fault)
        with pytest.raises(DNSResolutionError) as error:
            resolver.resolve(name)
        assert error.value.hostname == name
        assert error.value.tried
    assert resolver.wait_idle()
