"""Live lookups: hosts file, DNS with real packets, the system's own, and the three together."""

from __future__ import annotations

import os
import resource
import socket
import time
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
from airflow_provider_hokusai_dns.resolver.lookup.files import WatchedFile, parse_hosts
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.resolver.lookup.system import SystemLookup
from airflow_provider_hokusai_dns.resolver.pin import pin_host
from airflow_provider_hokusai_dns.resolver.ready import ipv6_is_routable
from airflow_provider_hokusai_dns.resolver.testing import DNSServer, Fault, ScriptedLookup
from tests.resolver.lookup.dns_alone import DNSAlone

NAME = "mlflow.hokusai.test"
DEAD = "127.0.0.1:1"  # no server listens there


def free_port() -> int:
    """A UDP port of loopback that is closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resolv(folder: Path, text: str) -> Path:
    path = folder / "resolv.conf"
    path.write_text(text)
    return path


def asking(server: DNSServer, path: Path, **more) -> DNSAlone:
    return DNSAlone(resolv_conf=path, port=server.port, **more)


def failure(lookup, name: str = NAME, timeout: float = 1.0) -> LookupFailed:
    with pytest.raises(LookupFailed) as caught:
        lookup.lookup(name, timeout=timeout)
    return caught.value


def asked(server: DNSServer) -> list[str]:
    """The names asked for, each once, in order."""
    return list(dict.fromkeys(query.name for query in server.queries))


@pytest.fixture
def query(dns: DNSServer) -> DNSAlone:
    return DNSAlone((dns.address,))


# --- the hosts file


def test_the_hosts_file_is_read_as_hosts_5_says():
    """Comments, several names, several addresses of both families, any case, and junk."""
    found = parse_hosts(
        "127.0.0.1 localhost\n"
        "10.0.0.1\tMLflow.Hokusai.test mlflow # 10.0.0.9 other\n"
        "# 10.0.0.2 commented\n"
        "fd00::1 mlflow\n10.0.0.1 mlflow\n"
        "0x7f.1 odd\n10.0.0.3\n\n  \nnonsense here\n"
    )
    assert found == {
        "localhost": ("127.0.0.1",),
        "mlflow.hokusai.test": ("10.0.0.1",),
        "mlflow": ("10.0.0.1", "fd00::1"),
    }


def test_the_hosts_file_comes_before_dns_and_is_read_again_when_it_changes(dns, tmp_path):
    """Also beside custom nameservers, and for the absolute form of the name."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"10.0.0.1 {NAME}\n")
    dns.set_records(NAME, ["10.0.0.2"])
    lookup = LiveLookup(ResolverConfig(nameservers=(dns.address,)), hosts=hosts)
    expected = Answer((Endpoint("10.0.0.1"),), Source.HOSTS, ttl=10.0)  # soon looked at again
    assert lookup.lookup(NAME, timeout=1) == expected
    assert lookup.lookup(f"{NAME}.", timeout=1).source is Source.HOSTS
    assert dns.count() == 0
    hosts.write_text(f"10.0.0.33 {NAME}\n")
    assert lookup.lookup(NAME, timeout=1).addresses == ("10.0.0.33",)
    hosts.unlink()
    assert lookup.lookup(NAME, timeout=1).source is Source.DNS


def test_a_watched_file_is_parsed_once_per_version(tmp_path):
    """One ``stat`` while nothing changes; another inode of the same size is another file."""
    path, parsed = tmp_path / "file", []
    watched = WatchedFile(path, lambda text: parsed.append(text) or text)
    assert watched.value() == ""
    path.write_text("a")
    assert [watched.value() for _ in range(3)] == ["a"] * 3
    other = tmp_path / "other"
    other.write_text("b")
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    other.replace(path)
    assert watched.value() == "b"
    assert parsed == ["", "a", "b"]
    path.write_bytes(b"\xff\xfe")
    assert watched.value() == "\ufffd\ufffd"


def test_a_file_that_cannot_be_read_is_an_empty_one(tmp_path):
    """A directory in its place, for example."""
    assert WatchedFile(tmp_path, parse_hosts).value() == {}


def test_a_file_that_could_not_be_opened_for_a_moment_is_read_at_the_next_lookup(tmp_path):
    """It counted as empty until it changed: without nameservers, in a process that once had too
    many files open. glibc asks again too."""
    path = tmp_path / "hosts"
    path.write_text("10.0.0.1 mlflow.example.local\n")
    watched = WatchedFile(path, parse_hosts)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert watched.value() == {}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert watched.value() == {"mlflow.example.local": ("10.0.0.1",)}


# --- DNS: answers


def test_a_and_aaaa_are_asked_together_and_the_shortest_ttl_counts(dns, query):
    """Two queries, both answers, and the name that answered."""
    dns.set_rdata(NAME, "A", ["10.0.0.1", "10.0.0.2"], ttl=30)
    dns.set_rdata(NAME, "AAAA", ["fd00::1"], ttl=20)
    answer = query.lookup(NAME, timeout=2)
    assert set(answer.addresses) == {"10.0.0.1", "10.0.0.2", "fd00::1"}
    assert (answer.ttl, answer.source, answer.name) == (20, Source.DNS, f"{NAME}.")
    assert (dns.count(NAME, "A"), dns.count(NAME, "AAAA"), dns.count()) == (1, 1, 2)


def test_a_chain_of_names_is_followed_and_its_shortest_ttl_counts(dns, query):
    """CNAMEs, as load balancers have them."""
    dns.set_cname(NAME, "lb.hokusai.test", ttl=7)
    dns.set_records("lb.hokusai.test", ["10.0.0.1"], ttl=60)
    answer = query.lookup(NAME, timeout=2)
    assert (answer.addresses, answer.ttl) == (("10.0.0.1",), 7)


def test_a_truncated_answer_is_asked_for_over_tcp(dns, query):
    """And whole there."""
    addresses = [f"10.0.0.{n}" for n in range(1, 40)]
    dns.set_records(NAME, addresses)
    dns.truncate(NAME)
    assert set(query.lookup(NAME, timeout=2).addresses) == set(addresses)
    assert dns.count(NAME, "A", "tcp") == 1


def test_five_hundred_addresses_are_cut_to_a_number_that_can_be_tried(dns, query):
    """64 are kept; the answer itself comes over TCP."""
    dns.set_records(NAME, [f"10.0.{n // 250}.{n % 250}" for n in range(500)])
    assert len(query.lookup(NAME, timeout=2).endpoints) == 64


@pytest.mark.parametrize(
    ("ttl", "lifetime"), [(0, 5), (2**31 - 1, 300), (2**31, 5), (2**32 - 1, 5)]
)
def test_extreme_ttls_stay_between_floor_and_cap(dns, make, ttl, lifetime):
    """2**31 and above mean 0 (RFC 2181, section 8)."""
    dns.set_rdata(NAME, "A", ["10.0.0.1"], ttl=ttl)
    found = make(lookup=None, nameservers=(dns.address,)).resolve(NAME)
    assert (found.expires_at - found.resolved_at).total_seconds() == lifetime


@pytest.mark.parametrize("family", ["A", "AAAA"])
@pytest.mark.parametrize("fault", [Fault.NO_SUCH_NAME, Fault.NO_DATA, Fault.SERVFAIL, Fault.SILENT])
def test_trouble_with_one_family_cancels_nothing_of_the_other(dns, query, family, fault):
    """Rule 10, for every kind of trouble; a silent family costs a quarter of a second."""
    dns.set_records(NAME, ["10.0.0.1", "fd00::1"])
    dns.fault(NAME, fault, rdtype=family)
    started = time.monotonic()
    answer = query.lookup(NAME, timeout=5)
    assert answer.addresses == (("fd00::1",) if family == "A" else ("10.0.0.1",))
    assert time.monotonic() - started < 4


def test_a_name_that_is_gone_is_known_at_once_though_one_family_is_silent(dns, query):
    """The other family is given a moment, and not the whole time."""
    dns.silent(NAME, rdtype="AAAA")
    started = time.monotonic()
    assert failure(query, timeout=5).cause is Cause.NXDOMAIN
    assert time.monotonic() - started < 4


# --- DNS: causes


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.NO_SUCH_NAME, Cause.NXDOMAIN),
        (Fault.NO_DATA, Cause.NODATA),
        (Fault.SERVFAIL, Cause.SERVFAIL),
        (Fault.REFUSED, Cause.REFUSED),
        (Fault.FORMERR, Cause.MALFORMED),
        (Fault.SILENT, Cause.TIMEOUT),
        (Fault.HANG_UP, Cause.TIMEOUT),
        (Fault.OTHER_NAME, Cause.MALFORMED),
        # Over UDP a forger can send these: they are passed over, and the real answer is waited for.
        (Fault.WRONG_ID, Cause.TIMEOUT),
        (Fault.OTHER_QUESTION, Cause.TIMEOUT),
        (Fault.GARBAGE, Cause.TIMEOUT),
    ],
)
def test_every_fault_of_a_server_is_a_cause(dns, query, fault, cause):
    """With one sentence for people and what was tried; and within the time given."""
    dns.set_records(NAME, ["10.0.0.1", "fd00::1"])
    dns.fault(NAME, fault)
    started = time.monotonic()
    error = failure(query)
    assert error.cause is cause
    assert time.monotonic() - started < 5
    assert error.detail
    assert any(NAME in step.what for step in error.tried)


def test_a_forged_packet_does_not_hide_the_real_answer(dns, query):
    """A wrong id or garbage first, and the right packet at the next try."""
    dns.set_records(NAME, ["10.0.0.1"])
    dns.flapping(NAME, (Fault.GARBAGE, Fault.ANSWER))
    assert query.lookup(NAME, timeout=4).addresses == ("10.0.0.1",)


def test_a_loop_of_names_is_malformed(dns, query):
    """And ends at once."""
    dns.set_cname(NAME, "other.test")
    dns.set_cname("other.test", NAME)
    assert failure(query).cause is Cause.MALFORMED


def test_a_chain_to_nowhere_is_no_such_name(dns, query):
    """The alias is there, what it stands for is not."""
    dns.set_cname(NAME, "gone.test")
    assert failure(query).cause is Cause.NXDOMAIN


def test_an_alias_of_a_name_without_addresses_is_no_data(dns, query):
    """An answer that holds the alias alone is a plain "no", and no nonsense."""
    dns.set_cname(NAME, "text.test")
    dns.set_rdata("text.test", "TXT", ['"x"'])
    assert failure(query).cause is Cause.NODATA


def test_a_nameserver_that_cannot_be_reached_is_the_network():
    """The system refuses to send: no nameserver was asked."""
    error = failure(DNSAlone(("255.255.255.255:53",)))
    assert error.cause is Cause.NETWORK


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "search a.test\n", "nameserver not-an-address\n"]
)
def test_without_a_usable_nameserver_the_one_on_this_machine_is_asked(dns, tmp_path, text):
    """As resolv.conf(5) says."""
    dns.set_records(NAME, ["10.0.0.1"])
    answer = asking(dns, resolv(tmp_path, text)).lookup(NAME, timeout=2)
    assert answer.addresses == ("10.0.0.1",)


def test_one_servers_trouble_outweighs_a_plain_no_of_a_search_domain(dns):
    """Not known is not "no": SERVFAIL for one candidate and NXDOMAIN for the other is SERVFAIL."""
    dns.servfail("mlflow.a.test")
    query = DNSAlone((dns.address,), search=("a.test",))
    assert failure(query, "mlflow").cause is Cause.SERVFAIL


# --- DNS: several nameservers


def test_a_dead_first_nameserver_costs_a_second_once_and_then_nothing(dns, tmp_path):
    """It has fallen silent, and is asked after the others for a while."""
    dns.set_records(NAME, ["10.0.0.1"])
    path = resolv(tmp_path, "nameserver 127.99.99.99\nnameserver 127.0.0.1\noptions timeout:5\n")
    query = asking(dns, path)
    started = time.monotonic()
    assert query.lookup(NAME, timeout=5).addresses == ("10.0.0.1",)
    assert time.monotonic() - started < 4
    started = time.monotonic()
    assert query.lookup(NAME, timeout=5).addresses == ("10.0.0.1",)
    assert time.monotonic() - started < 0.9


def test_the_nameserver_that_answered_is_told_apart_from_its_likes(dns):
    """By address and port, and not by the first letters: 127.0.0.1 is not 127.0.0.11."""
    dns.set_records(NAME, ["10.0.0.1"])
    with DNSServer("127.0.0.11") as other:
        other.silent()
        host, port = "127.0.0.1", dns.port
        for servers in ([f"{host}:{port}", DEAD], [f"{host}:{port}", other.address]):
            query = DNSAlone(tuple(servers))
            for _ in range(3):
                started = time.monotonic()
                query.lookup(NAME, timeout=5)
                assert time.monotonic() - started < 0.9


def test_servfail_of_one_nameserver_is_made_good_by_the_next(dns, query):
    """As the system's own resolver does."""
    dns.set_records(NAME, ["10.0.0.1"])
    with DNSServer() as broken:
        broken.servfail()
        assert DNSAlone((broken.address, dns.address)).lookup(NAME, timeout=3).addresses == (
            "10.0.0.1",
        )


def test_a_nameserver_override_is_for_its_name_alone(dns, tmp_path):
    """A connection's own nameservers."""
    dns.set_records(NAME, ["10.0.0.1"])
    config = ResolverConfig(nameserver_overrides={NAME: (dns.address,)})
    path = resolv(tmp_path, "nameserver 127.0.0.2\n")
    system = ScriptedLookup({"other.test": Cause.SERVFAIL})
    lookup = LiveLookup(config, resolv_conf=path, port=free_port(), system=system)
    assert lookup.lookup(NAME, timeout=1).source is Source.DNS
    assert failure(lookup, "other.test").cause is Cause.NETWORK


# --- DNS: resolv.conf, search and ndots


def test_resolv_conf_is_read_again_when_it_changes(dns, tmp_path):
    """A laptop that changes networks, a container whose file is mounted late."""
    dns.set_records(NAME, ["10.0.0.1"])
    path = resolv(tmp_path, "nameserver 127.99.0.1\n")
    query = asking(dns, path)
    assert failure(query).cause is Cause.NETWORK
    resolv(tmp_path, "nameserver 127.0.0.1\n")
    assert query.lookup(NAME, timeout=2).addresses == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("options", "name", "order"),
    [
        ("", "mlflow", ["mlflow.a.test", "mlflow.b.test", "mlflow"]),
        ("", "mlflow.ns", ["mlflow.ns", "mlflow.ns.a.test", "mlflow.ns.b.test"]),
        ("options ndots:2\n", "mlflow.ns", ["mlflow.ns.a.test", "mlflow.ns.b.test", "mlflow.ns"]),
        ("options ndots:5\n", "mlflow.ns.", ["mlflow.ns"]),
    ],
)
def test_search_domains_are_tried_in_the_order_of_resolv_conf_5(
    dns, tmp_path, options, name, order
):
    """Enough dots: as it is first; too few: as it is last; a final dot: as it is alone."""
    path = resolv(tmp_path, f"nameserver 127.0.0.1\nsearch a.test b.test\n{options}")
    assert failure(asking(dns, path), name, timeout=3).cause is Cause.NXDOMAIN
    assert asked(dns) == order


def test_the_domain_line_is_a_search_list_of_one(dns, tmp_path):
    """Older files have it; the system's own resolver honours it."""
    dns.set_records("mlflow.old.test", ["10.0.0.1"])
    path = resolv(tmp_path, "nameserver 127.0.0.1\ndomain old.test\n")
    assert asking(dns, path).lookup("mlflow", timeout=2).name == "mlflow.old.test."


def test_the_name_that_answered_is_remembered_and_asked_first(dns, tmp_path, clock):
    """Kubernetes: three search domains and two families make eight queries, and then two."""
    dns.set_records("mlflow.ns.svc.c.test", ["10.0.0.1"], ttl=10)
    path = resolv(
        tmp_path,
        "nameserver 127.0.0.1\nsearch x.svc.c.test y.c.test svc.c.test\noptions ndots:5\n",
    )
    resolver = DNSResolver(lookup=asking(dns, path), clock=clock)
    resolver.resolve("mlflow.ns")
    first = dns.count()
    clock.advance(11)
    dns.clear_queries()
    assert resolver.resolve("mlflow.ns").source is Source.DNS
    assert (first, dns.count()) == (6, 2)
    dns.remove("mlflow.ns.svc.c.test")
    dns.set_records("mlflow.ns", ["10.0.0.2"])
    clock.advance(11)
    assert resolver.resolve("mlflow.ns").address == "10.0.0.2"  # the hint is no chain
    assert resolver.wait_idle()


def test_search_domains_of_ones_own_replace_the_systems(dns, tmp_path):
    """And beside custom nameservers nothing is searched unless it was asked for."""
    dns.set_records("mlflow.mine.test", ["10.0.0.1"])
    path = resolv(tmp_path, "nameserver 127.0.0.1\nsearch a.test\n")
    assert asking(dns, path, search=("mine.test",)).lookup("mlflow", timeout=2).endpoints
    assert "mlflow.a.test" not in asked(dns)
    dns.clear_queries()
    failure(DNSAlone((dns.address,), resolv_conf=path), "mlflow")
    assert asked(dns) == ["mlflow"]


def test_a_candidate_that_is_too_long_for_a_name_is_not_tried(dns):
    """It cannot exist, so it says nothing about the one that can."""
    long = ".".join(["a" * 60] * 4)
    query = DNSAlone((dns.address,), search=("search.domain.test",))
    assert failure(query, long).cause is Cause.NXDOMAIN
    assert asked(dns) == [long]


# --- the system's own lookup


def test_the_systems_lookup_gives_addresses_once_each():
    """Whatever it knows; "localhost" it knows everywhere."""
    answer = SystemLookup().lookup("localhost", timeout=5)
    assert answer.source is Source.SYSTEM
    assert set(answer.addresses) <= {"127.0.0.1", "::1"}
    assert len(set(answer.addresses)) == len(answer.addresses)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), Cause.NXDOMAIN),
        (socket.gaierror(socket.EAI_AGAIN, "x"), Cause.TIMEOUT),
        (socket.gaierror(socket.EAI_FAIL, "x"), Cause.SERVFAIL),
        (socket.gaierror(socket.EAI_SYSTEM, "x"), Cause.NETWORK),
        (socket.gaierror(-5, "x"), Cause.NODATA),
        (socket.gaierror(-99, "x"), Cause.MALFORMED),
        (UnicodeError("label too long"), Cause.MALFORMED),
    ],
)
def test_the_systems_errors_are_causes(monkeypatch, error, cause):
    """Number by number."""

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert failure(SystemLookup()).cause is cause


def test_the_systems_lookup_goes_past_the_pin(monkeypatch):
    """Or the resolver would wait for itself."""
    system = socket.getaddrinfo
    with pin_host("localhost", DNSResolver(lookup=ScriptedLookup({"localhost": "10.0.0.1"}))):
        assert socket.getaddrinfo("localhost", 80)[0][4][0] == "10.0.0.1"
        assert "10.0.0.1" not in SystemLookup().lookup("localhost", timeout=5).addresses
    assert socket.getaddrinfo is system


# --- the way to the IPv6 internet


@pytest.mark.parametrize("routable", [True, False])
def test_whether_ipv6_leads_anywhere_is_asked_of_the_system(monkeypatch, routable):
    """By connecting a UDP socket, which sends nothing."""

    class Socket:
        def __init__(self, *args):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def connect(self, address):
            if not routable:
                raise OSError("no route")

    monkeypatch.setattr(socket, "socket", Socket)
    assert ipv6_is_routable() is routable
