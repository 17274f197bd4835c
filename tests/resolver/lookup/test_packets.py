"""Lookups over DNS on real packets: what glibc does with the same nameservers, or better."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver import (
    Answer,
    Cause,
    DNSResolutionError,
    DNSResolver,
    ResolverConfig,
)
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.resolver.lookup.system import SystemLookup
from airflow_provider_hokusai_dns.resolver.testing import DNSServer, Fault
from tests.resolver.lookup.dns_alone import DNSAlone
from tests.resolver.lookup.parity import lame

NAME = "mlflow.hokusai.test"


def look(*servers: str, name: str = NAME, timeout: float = 10.0) -> Answer | LookupFailed:
    try:
        return DNSAlone(servers).lookup(name, timeout=timeout)
    except LookupFailed as failed:
        return failed


def from_file(folder: Path, text: str, port: int) -> DNSAlone:
    path = folder / "resolv.conf"
    path.write_text(text)
    return DNSAlone(resolv_conf=path, port=port)


@pytest.fixture
def other():
    with DNSServer() as server:
        yield server


def test_a_nameserver_that_takes_its_time_is_listened_to(dns):
    """1.3 s per answer is what glibc takes too, and its late reply counts."""
    dns.set_records(NAME, ["10.0.0.1", "fd00::1"])
    dns.delay(NAME, 1.3)
    started = time.monotonic()
    assert look(dns.address).addresses == ("10.0.0.1", "fd00::1")
    assert time.monotonic() - started < 1.3 + 0.9
    assert dns.count(NAME, "A") <= 2


def test_servfail_for_another_name_does_not_change_who_is_asked_first(dns, other):
    """``[inside, public]``: ``public`` knows no such name, and is not asked for it."""
    dns.set_records(NAME, ["10.0.0.1"])
    dns.servfail("elsewhere.test")
    other.set_records("elsewhere.test", ["10.0.0.9"])
    query = DNSAlone((dns.address, other.address))
    assert query.lookup("elsewhere.test", timeout=5).addresses == ("10.0.0.9",)
    for _ in range(3):
        assert query.lookup(NAME, timeout=5).addresses == ("10.0.0.1",)
    assert other.count(NAME) == 0


@pytest.mark.parametrize("empty", [True, False])
def test_a_nameserver_that_looks_nothing_up_is_followed_by_the_next(dns, other, empty):
    """A referral, or an empty answer without recursion, is no "no" (RFC 2308, 2.2)."""
    other.set_records(NAME, ["10.0.0.1"])
    dns.garbage(NAME, payload=lame if empty else referral)
    assert look(dns.address, other.address).addresses == ("10.0.0.1",)
    alone = look(dns.address)
    assert alone.cause is Cause.SERVFAIL
    assert "offers no recursion" in str(alone.tried[0])


def referral(wire: bytes) -> bytes:
    """The nameservers of a zone, with recursion available and no SOA."""
    import dns.flags
    import dns.message
    import dns.rrset

    message = dns.message.from_wire(wire)
    message.answer = []
    message.authority = [dns.rrset.from_text("hokusai.test.", 60, "IN", "NS", "ns.other.test.")]
    message.set_rcode(0)
    message.flags &= ~dns.flags.AA
    return message.to_wire()


def test_a_closed_port_is_the_network_at_once(dns):
    """Connected UDP sockets are told; alone it is the cause, and beside another no time is lost."""
    dns.set_records(NAME, ["10.0.0.1"])
    started = time.monotonic()
    assert look("127.0.0.1:1").cause is Cause.NETWORK
    assert look("127.0.0.1:1", dns.address).addresses == ("10.0.0.1",)
    assert time.monotonic() - started < 0.9


def test_truncated_and_tcp_refused_is_the_network(other):
    """And where another nameserver has the whole answer, it is taken."""
    many = [f"10.0.0.{n}" for n in range(1, 40)]
    with DNSServer(tcp=False) as cut:
        cut.set_records(NAME, many)
        other.set_records(NAME, many)
        failed = look(cut.address)
        assert failed.cause is Cause.NETWORK
        assert "Connection refused" in str(failed) or "Connection refused" in str(failed.tried)
        assert set(look(cut.address, other.address).addresses) == set(many)


def test_a_tcp_connection_that_is_closed_without_an_answer_is_the_network(dns):
    """The same for one that hangs up."""
    dns.fault(NAME, Fault.TRUNCATE, Fault.HANG_UP, every=2)
    assert look(dns.address).cause is Cause.NETWORK


def test_the_unspecified_address_is_this_machine(dns):
    """As with glibc: ``nameserver 0.0.0.0``."""
    dns.set_records(NAME, ["10.0.0.1"])
    assert look(f"0.0.0.0:{dns.port}").addresses == ("10.0.0.1",)


def test_use_vc_asks_over_tcp_alone(dns, tmp_path):
    """``options use-vc``."""
    dns.set_records(NAME, ["10.0.0.1"])
    query = from_file(tmp_path, "nameserver 127.0.0.1\noptions use-vc\n", dns.port)
    assert query.lookup(NAME, timeout=5).addresses == ("10.0.0.1",)
    assert (dns.count(transport="tcp"), dns.count(transport="udp")) == (2, 0)


def test_edns0_saves_the_way_over_tcp(dns, tmp_path):
    """``options edns0``: 39 addresses fit into one larger packet."""
    dns.set_records(NAME, [f"10.0.0.{n}" for n in range(1, 40)])
    query = from_file(tmp_path, "nameserver 127.0.0.1\noptions edns0\n", dns.port)
    assert len(query.lookup(NAME, timeout=5).addresses) == 39
    assert dns.count(transport="tcp") == 0


def test_rotate_begins_with_another_nameserver_each_time(dns, tmp_path):
    """``options rotate``."""
    with DNSServer("127.0.0.2", dns.port) as second:
        for server in (dns, second):
            server.set_records(NAME, ["10.0.0.1"])
        text = "nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions rotate\n"
        query = from_file(tmp_path, text, dns.port)
        for _ in range(4):
            query.lookup(NAME, timeout=5)
        assert (dns.count(), second.count()) == (4, 4)


def test_single_request_asks_for_one_family_after_the_other(dns, tmp_path):
    """``options single-request``: AAAA goes out when A has its answer."""
    dns.set_records(NAME, ["10.0.0.1", "fd00::1"])
    query = from_file(tmp_path, "nameserver 127.0.0.1\noptions single-request\n", dns.port)
    assert len(query.lookup(NAME, timeout=5).addresses) == 2
    assert [one.rdtype for one in dns.queries] == ["A", "AAAA"]


def test_the_error_says_whom_it_asked_for_what(dns):
    """By nameserver, name and family, with what came of it."""
    dns.silent(NAME, rdtype="A")
    dns.servfail(NAME, rdtype="AAAA")
    resolver = DNSResolver(ResolverConfig(nameservers=(dns.address,), timeout=0.3))
    with pytest.raises(DNSResolutionError) as caught:
        resolver.resolve(NAME)
    assert f"dns {dns.address} A {NAME}.: no answer (0.3" in str(caught.value)
    assert f"dns {dns.address} AAAA {NAME}.: servfail" in str(caught.value)


def test_a_lookup_that_is_given_up_early_says_whom_it_asked_so_far(dns):
    """A gate has less patience than the timeout."""
    dns.silent(NAME)
    resolver = DNSResolver(ResolverConfig(nameservers=(dns.address,), timeout=1.5))
    with pytest.raises(DNSResolutionError) as caught:
        resolver.refresh(NAME, patience=0.2)
    assert f"dns {dns.address} A {NAME}.: no answer" in str(caught.value)
    assert resolver.wait_idle()


def test_packets_of_strangers_change_nothing(dns, other):
    """A socket hears its nameserver alone: the kernel drops what others send to its port."""
    dns.set_records(NAME, ["10.0.0.1"])
    dns.delay(NAME, 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for port in range(32768, 33268):
            stranger.sendto(b"\0" * 40, ("127.0.0.1", port))
        assert look(dns.address).addresses == ("10.0.0.1",)


@pytest.mark.parametrize("count", [1, 5])
def test_no_socket_is_left_open(dns, count):
    """Whatever came of the lookup."""
    dns.set_records(NAME, ["10.0.0.1"])
    dns.silent("silent.test")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(count):
        look(dns.address)
        look(dns.address, name="silent.test", timeout=0.05)
        look("127.0.0.1:1")
        LiveLookup(ResolverConfig(nameservers=(dns.address,))).lookup(NAME, timeout=1)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


# --- the system's own


def test_an_error_of_the_system_is_said_as_it_is(monkeypatch):
    """With ``EAI_SYSTEM`` Python raises the OSError of the call that failed, and no gaierror."""

    def refuse(*args):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(LookupFailed, match="Too many open files") as caught:
        SystemLookup().lookup(NAME, timeout=1)
    assert caught.value.cause is Cause.NETWORK


def test_a_getaddrinfo_with_other_names_for_its_parameters_is_called_by_position(monkeypatch):
    """eventlet's has ``socktype`` for ``type``."""
    system = socket.getaddrinfo

    def green(host, port, family=0, socktype=0, proto=0, flags=0):
        return system(host, port, family, socktype, proto, flags)

    monkeypatch.setattr(socket, "getaddrinfo", green)
    assert SystemLookup().lookup("localhost", timeout=1).addresses


def test_without_poll_lookups_still_work(monkeypatch, dns):
    """eventlet takes ``select.poll`` away."""
    import select

    monkeypatch.delattr(select, "poll")
    dns.set_records(NAME, ["10.0.0.1"])
    assert look(dns.address).addresses == ("10.0.0.1",)
    assert look("127.0.0.1:1").cause is Cause.NETWORK
