"""SRV: a hostname that a service stands for, with a port per address (RFC 2782)."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError, LookupFailed
from airflow_provider_hokusai_dns.resolver import (
    Answer,
    Cause,
    DNSResolver,
    Endpoint,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.resolver.order import in_turn
from airflow_provider_hokusai_dns.resolver.testing import DNSServer

NAME = "mlflow.service.test"
SERVICE = "_mlflow._tcp.service.test"
URL = f"http://{NAME}/api"


def config(dns: DNSServer, **more) -> ResolverConfig:
    given = {"nameservers": (dns.address,), "srv": {NAME: SERVICE}, "jitter": 0.0, **more}
    return ResolverConfig(**given)


def look(dns: DNSServer, timeout: float = 5.0, **more) -> Answer:
    return LiveLookup(config(dns), **more).lookup(NAME, timeout=timeout)


def fails(dns: DNSServer, timeout: float = 5.0) -> LookupFailed:
    with pytest.raises(LookupFailed) as caught:
        look(dns, timeout)
    return caught.value


def places(answer) -> set[tuple[str, int | None]]:
    return {endpoint[:2] for endpoint in answer.endpoints}


@pytest.fixture
def two(dns: DNSServer) -> DNSServer:
    """Two targets on ports of their own, and one for when both are gone."""
    targets = [(1, 10, 5001, "a.test"), (1, 30, 5002, "b.test"), (2, 0, 5003, "c.test")]
    dns.set_srv(SERVICE, targets, ttl=60)
    dns.set_records("a.test", ["10.0.0.1", "fd00::1"], ttl=50)
    dns.set_records("b.test", ["10.0.0.2"], ttl=7)
    dns.set_records("c.test", ["10.0.0.3"], ttl=90)
    return dns


def with_glue(wire: bytes) -> bytes:
    """The answer with the addresses of its targets beside it, as Consul gives it."""
    import dns.message
    import dns.rrset

    message = dns.message.from_wire(wire)
    message.additional = [
        dns.rrset.from_text("a.test.", 5, "IN", "A", "10.7.0.1"),
        dns.rrset.from_text("b.test.", 9, "IN", "A", "10.7.0.2"),
        dns.rrset.from_text("stranger.test.", 1, "IN", "A", "10.7.0.9"),
    ]
    return message.to_wire()


# --- the lookup


def test_each_target_has_its_addresses_its_port_and_its_part_of_the_weight(two):
    """And the TTL is the shortest of the whole chain."""
    answer = look(two)
    assert set(answer.endpoints) == {
        Endpoint("10.0.0.1", 5001, 1, 5.0),
        Endpoint("fd00::1", 5001, 1, 5.0),
        Endpoint("10.0.0.2", 5002, 1, 30.0),
        Endpoint("10.0.0.3", 5003, 2, 0.0),
    }
    assert (answer.ttl, answer.source, answer.name) == (7, Source.DNS, f"{SERVICE}.")
    assert two.count(SERVICE) == two.count(SERVICE, "SRV") == 1


def test_addresses_beside_the_answer_are_not_asked_for(two):
    """Glue; what stands there for other names is ignored."""
    two.garbage(SERVICE, payload=with_glue)
    answer = look(two)
    assert places(answer) == {("10.7.0.1", 5001), ("10.7.0.2", 5002), ("10.0.0.3", 5003)}
    assert (answer.ttl, two.count("a.test"), two.count("c.test", "A")) == (5, 0, 1)


@pytest.mark.parametrize("exists", [True, False])
def test_beside_an_ipv6_address_alone_the_other_is_asked_for(two, exists):
    """A nameserver need not add all; without a route for IPv6 the service could not be reached."""

    def with_one(wire: bytes) -> bytes:
        import dns.message
        import dns.rrset

        message = dns.message.from_wire(wire)
        message.additional = [dns.rrset.from_text("a.test.", 5, "IN", "AAAA", "fd00::7")]
        return message.to_wire()

    two.garbage(SERVICE, payload=with_one)
    if not exists:
        two.no_such_name("a.test")
    expected = {("10.0.0.1", 5001), ("fd00::1", 5001)} if exists else {("fd00::7", 5001)}
    assert {place for place in places(look(two)) if place[1] == 5001} == expected


@pytest.mark.parametrize("beside", [None, with_glue])
def test_a_target_in_the_hosts_file_is_taken_from_there(two, tmp_path, beside):
    """As for any other name on this machine, also where its address is beside the answer."""
    two.garbage(SERVICE, payload=beside) if beside else None
    hosts = tmp_path / "hosts"
    hosts.write_text("10.9.9.9 a.test\n")
    of_a = {place for place in places(look(two, hosts=hosts)) if place[1] == 5001}
    assert of_a == {("10.9.9.9", 5001)}


def test_a_target_that_is_silent_holds_the_others_up_for_a_second(two):
    """Not for the whole time."""
    two.silent("b.test")
    started = time.monotonic()
    assert places(look(two)) >= {("10.0.0.1", 5001), ("10.0.0.3", 5003)}
    assert time.monotonic() - started < 2


def test_a_family_that_never_answers_is_not_waited_for_once_the_answer_is_whole(two, monkeypatch):
    """It was, until the timeout of the lookup, and at the cost of a whole processor."""
    monkeypatch.setattr("airflow_provider_hokusai_dns.resolver.lookup.plan._LISTEN_ON", 0.2)
    two.silent("b.test", "AAAA")
    pending = LiveLookup(config(two)).begin(NAME, timeout=5.0)
    assert pending.run(5.0)
    begun, used = time.monotonic(), time.process_time()
    pending.go_on(lambda answer: None)
    assert time.monotonic() - begun < 2.0
    assert time.process_time() - used < 1.0


def test_of_five_hundred_targets_the_best_are_followed(dns):
    """As many as can be tried, by priority and then by weight."""
    dns.set_srv(SERVICE, [(500 - n, 0, 5000 + n, f"t{n}.test") for n in range(500)])
    for n in range(500):
        dns.set_records(f"t{n}.test", [f"10.1.{n // 250}.{n % 250}"])
    answer = look(dns)
    assert {one.port for one in answer.endpoints} == set(range(5468, 5500))
    assert len({query.name for query in dns.queries}) == 33


@pytest.mark.parametrize(
    ("targets", "cause"),
    [
        ([(0, 0, 5000, ".")], Cause.NODATA),
        ([(0, 0, 0, "a.test")], Cause.NODATA),
        ([(0, 0, 5000, "gone.test"), (0, 0, 5000, SERVICE)], Cause.NODATA),
        ([(0, 0, 5000, "gone.test"), (0, 0, 5000, "broken.test")], Cause.SERVFAIL),
        ([(0, 0, 5000, "loop.test")], Cause.MALFORMED),
    ],
)
def test_a_service_without_a_usable_target_is_a_failure(dns, targets, cause):
    """With everything that was asked."""
    dns.set_rdata(SERVICE, "SRV", [f"{p} {w} {port} {t.rstrip('.')}." for p, w, port, t in targets])
    dns.set_records("a.test", ["10.0.0.1"])
    dns.servfail("broken.test")
    dns.set_cname("loop.test", "pool.test")
    dns.set_cname("pool.test", "loop.test")
    failed = fails(dns)
    assert failed.cause is cause
    assert any("SRV" in step.what for step in failed.tried)


def test_targets_without_an_address_are_passed_over(two):
    """The others are tried, with the ports and places of their own."""
    targets = ["gone.test", "text.test", "loop.test", SERVICE, "b.test"]
    two.set_srv(SERVICE, [(n, 0, 5000 + n, target) for n, target in enumerate(targets)])
    two.set_rdata("text.test", "TXT", ['"x"'])
    two.set_cname("loop.test", "loop.test")
    assert look(two).endpoints == (Endpoint("10.0.0.2", 5004, 4, 0.0),)


@pytest.mark.parametrize("length", [1, 2, 15, 40])
def test_a_service_behind_aliases_is_found_and_a_loop_of_them_ends(two, length):
    """RFC 2782 allows them before the record; a loop, or more than 15, is an error that says so."""
    names = [f"_{n}._tcp.service.test" for n in range(length)]
    for name, after in zip(names, [*names[1:], SERVICE], strict=True):
        two.set_cname(name, after)
    lookup = LiveLookup(config(two, srv={NAME: names[0]}))
    if length < 16:
        assert places(lookup.lookup(NAME, timeout=5)) == places(look(two))
    two.set_cname(names[-1], names[0])
    with pytest.raises(LookupFailed) as caught:
        lookup.lookup(NAME, timeout=5)
    assert caught.value.cause in (Cause.MALFORMED, Cause.NODATA)


@pytest.mark.parametrize(("fault", "cause"), [("no_such_name", "nxdomain"), ("refused", "refused")])
def test_the_cause_is_that_of_the_service(two, fault, cause):
    """The rules of stale apply to it as to any name."""
    two.fault(SERVICE, fault)
    assert fails(two).cause == cause
    two.heal(SERVICE)
    two.silent()
    assert fails(two, 0.3).cause is Cause.TIMEOUT


# --- the order


def test_priority_goes_before_weight_and_weight_decides_how_often_one_is_first():
    """RFC 2782's draw, without chance."""
    endpoints = [
        Endpoint("10.0.0.1", 1, 1, 10.0),
        Endpoint("10.0.0.2", 2, 1, 30.0),
        Endpoint("10.0.0.3", 3, 0, 0.0),
        Endpoint("10.0.0.4", 4, 1, 0.0),
    ]
    turns = [in_turn(endpoints, turn) for turn in range(1000)]
    assert {turn[0].port for turn in turns} == {3}
    first = Counter(turn[1].port for turn in turns)
    assert first[2] == pytest.approx(750, abs=20)
    assert first[1] == pytest.approx(250, abs=20)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 65535)), min_size=1, max_size=9),
    st.integers(0, 1 << 20),
)
def test_every_turn_holds_every_endpoint_once(ranks, turn):
    """Whatever the weights are; priorities never mix."""
    endpoints = [Endpoint(f"10.0.0.{n}", n, *rank) for n, rank in enumerate(ranks)]
    order = in_turn(endpoints, turn)
    assert sorted(order) == sorted(endpoints)
    assert [one.priority for one in order] == sorted(one.priority for one in endpoints)


# --- the resolver


def test_the_port_of_the_service_is_in_the_answer_and_the_hostname_stays(two, clock):
    """And comes in the order of priority and weight, with turns that show it."""
    resolver = DNSResolver(config(two), clock=clock)
    found = [resolver.resolve(URL) for _ in range(160)]
    assert {one.hostname for one in found} == {NAME}
    assert {one.port for one in found} == {5001, 5002}
    assert all(one.endpoints[-1].port == 5003 for one in found)
    assert str(found[0]) == f"http://{_shown(found[0].address)}:{found[0].port}/api"
    assert resolver.wait_idle()


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def test_a_failure_is_one_address_and_port(dns, clock):
    """Two servers on one machine: the one that is down goes to the back, and the other stays."""
    dns.set_srv(SERVICE, [(0, 0, 5001, "a.test"), (0, 0, 5002, "a.test"), (1, 0, 5003, "a.test")])
    dns.set_records("a.test", ["10.0.0.1"])
    resolver = DNSResolver(config(dns), clock=clock)
    resolver.resolve(NAME)
    resolver.report_failure(NAME, "10.0.0.1", 5001)
    assert resolver.wait_idle()
    assert [one.port for one in resolver.resolve(NAME).endpoints] == [5002, 5003, 5001]
    resolver.report_failure(NAME, "10.0.0.1", 5002)
    assert resolver.wait_idle()
    assert resolver.resolve(NAME).port == 5003


def test_a_service_that_is_gone_is_served_stale_and_its_new_port_is_followed(two, clock):
    """Stale, with its ports; then the record that moved to another port."""
    resolver = DNSResolver(config(two), clock=clock)
    resolver.resolve(NAME)
    two.no_such_name(SERVICE)
    clock.advance(8)
    old = resolver.refresh(NAME)
    assert (old.is_stale, old.cause, old.port in (5001, 5002)) == (True, Cause.NXDOMAIN, True)
    two.heal(SERVICE)
    two.set_srv(SERVICE, [(0, 0, 6001, "a.test")])
    clock.advance(6)
    assert resolver.refresh(NAME).port == 6001
    assert resolver.wait_idle()


def test_the_store_keeps_ports_and_a_fresh_process_has_them(two, store, clock):
    """The same set in another order is the same; another port is a change."""
    DNSResolver(config(two), store=store, clock=clock).refresh(NAME)
    assert {one.port for one in store.records[NAME].services} == {5001, 5002, 5003}
    two.silent()
    with_store = DNSResolver(config(two, timeout=0.2), store=store, clock=clock)
    found = with_store.resolve(NAME)
    assert (found.source, found.port in (5001, 5002)) == (Source.STORE, True)
    assert with_store.wait_idle()
    written = store.writes[NAME]
    two.heal()
    DNSResolver(config(two), store=store, clock=clock).refresh(NAME)
    assert store.records[NAME].resolved_at == clock.time()  # the same second: nothing is newer
    two.set_srv(SERVICE, [(0, 0, 6001, "a.test")])
    clock.advance(1)
    DNSResolver(config(two), store=store, clock=clock).refresh(NAME)
    assert {one.port for one in store.records[NAME].services} == {6001}
    assert store.writes[NAME] > written


def test_a_service_that_never_was_is_an_error_that_names_it(dns):
    """Nothing old, nothing stored: what was asked is told."""
    with pytest.raises(DNSResolutionError, match=f"SRV {SERVICE}"):
        DNSResolver(config(dns)).resolve(NAME)


@pytest.mark.parametrize("name", ["", "10.0.0.1", "_a..b", "http://x.test", "x" * 64, "a.test:53"])
def test_a_name_that_is_none_is_refused(name):
    """Before anything is asked, with the field and the value."""
    with pytest.raises(ValueError, match="srv"):
        ResolverConfig(srv={NAME: name})
