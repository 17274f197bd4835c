"""Whatever comes from the network or out of the store: no crash, no poison, no waiting, a cause."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import ip_address

import dns.flags
import dns.message
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError, LookupFailed
from airflow_provider_hokusai_dns.resolver import (
    Answer,
    Cause,
    DNSResolver,
    Endpoint,
    LastKnownGood,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.testing import (
    DNSServer,
    Fault,
    ManualClock,
    MemoryStore,
    ScriptedLookup,
)
from tests.resolver.lookup.dns_alone import DNSAlone

NAME = "mlflow.hokusai.test"
OFTEN = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def server():
    with DNSServer() as running:
        yield running


def ask(server: DNSServer, timeout: float = 0.02) -> Answer | LookupFailed:
    """What a lookup brings, which must be one of the two, and in time."""
    started = time.monotonic()
    try:
        result: Answer | LookupFailed = DNSAlone((server.address,)).lookup(NAME, timeout=timeout)
    except LookupFailed as error:
        result = error
    assert time.monotonic() - started < timeout + 1
    if isinstance(result, Answer):
        assert result.endpoints
        assert all(ip_address(address) for address in result.addresses)
    return result


@OFTEN
@given(payload=st.binary(max_size=600))
def test_any_bytes_in_a_packet_are_a_failure_with_a_cause(server, payload):
    """They hold no answer to our question under our id."""
    server.garbage(NAME, payload=payload)
    result = ask(server)
    assert isinstance(result, LookupFailed)
    assert result.cause in (Cause.TIMEOUT, Cause.MALFORMED)


@OFTEN
@given(tail=st.binary(max_size=200), counts=st.binary(min_size=10, max_size=10))
def test_any_bytes_behind_the_right_id_are_no_answer_either(server, tail, counts):
    """The server puts the id in front; flags and counts may be anything."""
    server.fault(NAME, Fault.GARBAGE)
    original = server.plan

    def plan(wire, transport, *, again=False):
        made = original(wire, transport, again=again)
        return replace(made, payload=wire[:2] + counts + wire[12:] + tail)

    server.plan = plan
    try:
        result = ask(server)
    finally:
        del server.plan
    if isinstance(result, LookupFailed):
        assert isinstance(result.cause, Cause)


@OFTEN
@given(data=st.data())
def test_an_answer_with_flipped_bits_never_crashes(server, data):
    """A real packet, and up to eight of its bytes changed behind the question."""
    server.set_records(NAME, ["10.0.0.1", "10.0.0.2", "fd00::1"])
    changes = data.draw(st.lists(st.tuples(st.integers(2, 150), st.integers(0, 255)), max_size=8))
    original = server.plan

    def plan(wire, transport, *, again=False):
        made = original(wire, transport, again=again)
        payload = bytearray(made.payload)
        for position, value in changes:
            if position < len(payload):
                payload[position] = value
        return replace(made, payload=bytes(payload))

    server.plan = plan
    try:
        ask(server)
    finally:
        del server.plan


def test_garbage_over_tcp_is_malformed(server):
    """No third party can forge a packet there: what comes is what the server said."""
    server.set_records(NAME, ["10.0.0.1"])
    original = server.plan

    def plan(wire, transport, *, again=False):
        made = original(wire, transport, again=again)
        if transport == "tcp":
            return replace(made, payload=wire[:2] + b"\xff" * 40)
        message = dns.message.make_response(dns.message.from_wire(wire))
        message.flags |= dns.flags.TC
        return replace(made, payload=message.to_wire())

    server.plan = plan
    try:
        result = ask(server, 1.0)
    finally:
        del server.plan
    assert isinstance(result, LookupFailed)
    assert result.cause in (Cause.MALFORMED, Cause.TIMEOUT)


@pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.WRONG_ID, Fault.OTHER_NAME])
def test_garbage_is_counted_by_cause_and_the_stale_answer_served(server, fault):
    """The whole resolver: never crashes, never poisons, never blocks."""
    clock = ManualClock()
    resolver = DNSResolver(
        ResolverConfig(nameservers=(server.address,), timeout=0.2, jitter=0), clock=clock
    )
    server.set_records(NAME, ["10.0.0.1"])
    resolver.resolve(NAME)
    clock.advance(11)
    server.fault(NAME, fault)
    found = resolver.resolve(NAME)
    assert (found.source, found.address) == (Source.STALE, "10.0.0.1")
    assert resolver.wait_idle()
    assert sum(resolver.metrics().errors.values()) == 1
    assert set(resolver.metrics().errors) <= {"timeout", "malformed"}


# --- lookups and records of any kind

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
ADDRESSES = st.ip_addresses().map(str)


@settings(deadline=None, max_examples=100)
@given(ttl=st.none() | st.floats() | st.integers(), address=ADDRESSES)
def test_any_ttl_gives_a_lifetime_between_floor_and_cap(ttl, address):
    """Also nan, infinite and negative ones of a lookup that is not ours."""
    clock = ManualClock()
    lookup = ScriptedLookup({NAME: Answer((Endpoint(address),), Source.DNS, ttl=ttl)}, clock=clock)
    found = DNSResolver(ResolverConfig(jitter=0), lookup=lookup, clock=clock).resolve(NAME)
    assert 5 <= (found.expires_at - found.resolved_at).total_seconds() <= 300


@settings(deadline=None, max_examples=100)
@given(
    hostname=st.just(NAME) | ANYTHING,
    addresses=st.lists(ADDRESSES, max_size=3).map(tuple) | ANYTHING,
    resolved_at=st.floats()
    | st.integers(-(10**6), 10**6).map(lambda n: 1_767_225_600.0 + n)
    | ANYTHING,
    ttl=st.none() | st.floats() | ANYTHING,
    no_name_since=st.none() | st.floats() | ANYTHING,
)
def test_any_record_of_a_store_is_served_right_or_refused(
    hostname, addresses, resolved_at, ttl, no_name_since
):
    """What is served are addresses of the record, within the limits; the rest is one event."""
    clock, store, events = ManualClock(), MemoryStore(), []
    record = LastKnownGood(hostname, addresses, resolved_at, ttl, no_name_since, "unknown")
    store.records[NAME] = record
    store.write = lambda record: True  # type: ignore[method-assign]
    lookup = ScriptedLookup({NAME: Cause.SERVFAIL})
    resolver = DNSResolver(lookup=lookup, store=store, clock=clock)
    resolver.add_observer(events.append)
    try:
        found = resolver.resolve(NAME)
    except DNSResolutionError:
        pass
    else:
        assert found.source is Source.STORE
        assert found.addresses == tuple(str(ip_address(a)) for a in addresses) or set(
            found.addresses
        ) == set(addresses)
        assert hostname == NAME
        assert 0 <= found.age() <= 86_400
        assert all(e.kind != "store_rejected" for e in events)
    assert resolver.wait_idle()
    assert resolver.metrics().errors == {"servfail": 1}
    lookup.set(NAME, "10.0.0.1")
    assert resolver.refresh(NAME).source is Source.DNS  # whatever is stored, one answer heals
    assert resolver.state(NAME) == "healthy"
    assert resolver.wait_idle()
