"""Our live lookup against the nameservers of the field: nsd, knot, unbound before nsd, dnsmasq.

They come from Debian; where one is missing its tests are skipped with that reason.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import pytest

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver import Cause, DNSResolver, ResolverConfig, Source
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.resolver.testing import DNSServer, ManualClock
from tests.nameservers import (
    MANY,
    NAME,
    RECORDS,
    TTL,
    ZONE,
    Dnsmasq,
    Knot,
    Nsd,
    RealServer,
    Unbound,
    free_port,
)

pytestmark = pytest.mark.integration


@pytest.fixture(params=["nsd", "knot", "unbound", "dnsmasq"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealServer]:
    """Each of them, running."""
    with ExitStack() as stack:
        made: RealServer
        if request.param == "dnsmasq":
            made = Dnsmasq(tmp_path)
        else:
            made = nsd = Knot(tmp_path) if request.param == "knot" else Nsd(tmp_path)
            if request.param == "unbound":
                made = Unbound(tmp_path, nsd)
                stack.callback(nsd.stop)
                nsd.start()
        stack.callback(made.stop)
        made.start()
        yield made


@pytest.fixture
def nsd(tmp_path: Path) -> Iterator[Nsd]:
    """One authoritative server, where it does not matter which."""
    made = Nsd(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def live(*nameservers: str, hosts: Path = Path("/nonexistent/hosts"), **fields: object):
    """Our lookup as the resolver builds it."""
    config = ResolverConfig(nameservers=nameservers, **fields)  # type: ignore[arg-type]
    return LiveLookup(config, hosts=hosts)


def fails_with(lookup: LiveLookup, name: str, timeout: float = 5.0) -> Cause:
    with pytest.raises(LookupFailed) as failure:
        lookup.lookup(name, timeout=timeout)
    assert failure.value.tried
    return failure.value.cause


def test_both_families_come_with_the_ttl_of_the_records(server: RealServer):
    """All addresses of A and AAAA, the record's own lifetime, and the name that answered."""
    answer = live(server.address).lookup(NAME, timeout=5)
    assert set(answer.addresses) == set(RECORDS["mlflow"])
    assert answer.source is Source.DNS
    assert answer.name == f"{NAME}."
    assert answer.ttl is not None
    assert answer.ttl == (1 if isinstance(server, Unbound) else TTL)  # capped by its settings


@pytest.mark.parametrize("name", ["v4only", "v6only"])
def test_a_family_without_records_cancels_nothing_of_the_other(server: RealServer, name: str):
    """Rule 10: real servers answer "no data" for the other family."""
    answer = live(server.address).lookup(f"{name}.{ZONE}", timeout=5)
    assert answer.addresses == RECORDS[name]


def test_a_service_has_a_port_for_each_address(server: RealServer):
    """SRV records by priority, with glue or looked up, and the TTL of the whole chain."""
    srv = {NAME: f"_mlflow._tcp.service.{ZONE}"}
    answer = live(server.address, srv=srv).lookup(NAME, timeout=8)
    places = {(one.address, one.port, one.priority) for one in answer.endpoints}
    assert places >= {("10.0.0.3", 5001, 1), ("fd00::3", 5002, 1)}
    assert {(address, 5003, 2) for address in RECORDS["mlflow"]} <= places
    assert answer.name == f"_mlflow._tcp.service.{ZONE}."
    assert answer.ttl is not None
    assert answer.ttl <= TTL


def test_a_named_port_of_kubernetes_and_a_service_that_is_not_there(server: RealServer):
    """One target is enough; a target that is the root means that there is no such service."""
    lookup = live(server.address, srv={NAME: f"_http._tcp.mlflow.{ZONE}"})
    (one,) = lookup.lookup(NAME, timeout=8).endpoints
    assert one[:2] == ("10.0.0.3", 5000)
    for name, cause in (("_gone._tcp", Cause.NODATA), ("_typo._tcp", Cause.NXDOMAIN)):
        found = fails_with(live(server.address, srv={NAME: f"{name}.{ZONE}"}), NAME)
        assert found in (cause, Cause.NODATA)


def test_an_answer_that_is_too_large_for_udp_is_fetched_over_tcp(server: RealServer):
    """200 addresses are truncated over UDP; what is kept comes from the whole answer."""
    question = dns.message.make_query(f"many.{ZONE}", "A", use_edns=0, payload=1232)
    over_udp = dns.query.udp(question, "127.0.0.1", timeout=5, port=server.port)
    assert over_udp.flags & dns.flags.TC
    answer = live(server.address).lookup(f"many.{ZONE}", timeout=5)
    assert len(answer.addresses) > 28
    assert set(answer.addresses) <= set(MANY)


def test_an_alias_is_followed(server: RealServer):
    """CNAME to a name with addresses."""
    answer = live(server.address).lookup(f"alias.{ZONE}", timeout=5)
    assert set(answer.addresses) == set(RECORDS["mlflow"])


def test_a_name_that_does_not_exist(server: RealServer):
    """``nxdomain``, from every server alike."""
    assert fails_with(live(server.address), f"typo.{ZONE}") is Cause.NXDOMAIN


def test_a_name_without_addresses(server: RealServer):
    """``nodata``: the name exists, and has a TXT record only."""
    assert fails_with(live(server.address), f"text.{ZONE}") is Cause.NODATA


def test_upper_case_and_a_final_dot_change_nothing(server: RealServer):
    """Names are compared without regard to case; the dot means "absolute"."""
    resolver = DNSResolver(lookup=live(server.address))
    for target in (NAME.upper(), f"{NAME}."):
        assert set(resolver.resolve(target).addresses) == set(RECORDS["mlflow"])


def test_a_search_domain_completes_a_short_name(server: RealServer):
    """``mlflow`` is found in the zone, and the answer says under which name."""
    answer = live(server.address, search=("other.invalid", ZONE)).lookup("mlflow", timeout=8)
    assert set(answer.addresses) == set(RECORDS["mlflow"])
    assert answer.name == f"{NAME}."


def test_a_server_that_is_stopped_and_comes_back(server: RealServer):
    """No server listens: the lookup ends within its time, with a cause; afterwards all is well."""
    lookup = live(server.address)
    assert lookup.lookup(NAME, timeout=5).addresses
    server.stop()
    started = time.monotonic()
    assert fails_with(lookup, NAME, timeout=1.0) in (Cause.TIMEOUT, Cause.NETWORK)
    assert time.monotonic() - started < 8
    server.start()
    assert set(lookup.lookup(NAME, timeout=5).addresses) == set(RECORDS["mlflow"])


def test_a_server_that_falls_silent(server: RealServer):
    """It takes the packets and answers nothing: ``timeout``, and no longer than was given."""
    lookup = live(server.address)
    assert lookup.lookup(NAME, timeout=5).addresses
    with server.frozen():
        started = time.monotonic()
        assert fails_with(lookup, NAME, timeout=1.0) is Cause.TIMEOUT
        assert time.monotonic() - started < 8
    assert lookup.lookup(NAME, timeout=5).addresses


def test_an_outage_is_ridden_out_on_the_stale_answer(server: RealServer):
    """The whole way: fresh, then stale with its cause while the server is down, then fresh."""
    clock = ManualClock()
    resolver = DNSResolver(ResolverConfig(nameservers=(server.address,), timeout=1.0), clock=clock)
    assert resolver.resolve(NAME).source is Source.DNS
    server.stop()
    clock.advance(60)
    assert set(resolver.refresh(NAME).addresses) == set(RECORDS["mlflow"])
    old = resolver.resolve(NAME)
    assert (old.source, old.cause) in {
        (Source.STALE, Cause.TIMEOUT),
        (Source.STALE, Cause.NETWORK),
    }
    assert resolver.state(NAME) == "degraded"
    server.start()
    assert not resolver.refresh(NAME).is_stale
    assert resolver.state(NAME) == "healthy"
    assert resolver.wait_idle()


@pytest.mark.parametrize("host", ["127.0.0.2", "127.0.0.1"])
def test_a_dead_first_nameserver_costs_its_time_once_only(nsd: Nsd, host: str):
    """The one that answered is asked first from then on, also beside another on its address."""
    lookup = live(f"{host}:{free_port()}", nsd.address)
    started = time.monotonic()
    assert set(lookup.lookup(NAME, timeout=5).addresses) == set(RECORDS["mlflow"])
    assert time.monotonic() - started < 4.5
    started = time.monotonic()
    for _ in range(3):
        assert lookup.lookup(NAME, timeout=5).addresses
    assert time.monotonic() - started < 0.9


def test_a_refusing_nameserver_is_passed_over(nsd: Nsd, tmp_path: Path):
    """nsd refuses zones that are not its own; the next server knows the name."""
    with DNSServer() as other:
        other.set_records("elsewhere.example", ["10.0.0.9"])
        lookup = live(nsd.address, other.address)
        assert lookup.lookup("elsewhere.example", timeout=5).addresses == ("10.0.0.9",)
    assert fails_with(live(nsd.address), "elsewhere.example") is Cause.REFUSED


def test_a_resolver_that_cannot_reach_the_zone_says_servfail(tmp_path: Path):
    """unbound is there, what it should ask is not: ``servfail``, and not "no such name"."""
    nsd = Nsd(tmp_path)
    unbound = Unbound(tmp_path, nsd)
    try:
        nsd.start()
        unbound.start()
        nsd.stop()
        time.sleep(1.1)  # Until unbound has forgotten the answer of its start.
        assert fails_with(live(unbound.address), f"alias.{ZONE}", timeout=20) is Cause.SERVFAIL
    finally:
        unbound.stop()
        nsd.stop()


def test_chains_that_lead_nowhere(nsd: Nsd):
    """An alias to a missing name does not exist; a loop of aliases is an unusable answer."""
    lookup = live(nsd.address)
    assert fails_with(lookup, f"nowhere.{ZONE}") is Cause.NXDOMAIN
    assert fails_with(lookup, f"loop.{ZONE}") in (Cause.NODATA, Cause.MALFORMED)


def test_the_hosts_file_goes_before_the_nameserver(nsd: Nsd, tmp_path: Path):
    """As for everything else on the machine."""
    hosts = tmp_path / "hosts-file"
    hosts.write_text(f"10.9.9.9 {NAME}\n")
    answer = live(nsd.address, hosts=hosts).lookup(NAME, timeout=5)
    assert (answer.addresses, answer.source) == (("10.9.9.9",), Source.HOSTS)


def test_the_ports_are_free_afterwards(nsd: Nsd):
    """A stopped server leaves its port to others."""
    nsd.stop()
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", nsd.port))
