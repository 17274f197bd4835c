"""The little DNS server, asked over real sockets by dnspython."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from airflow_provider_hokusai_dns.resolver.testing import (
    ANY,
    DNSServer,
    Fault,
    Query,
    Zone,
)

NAME = "mlflow.local"


@pytest.fixture
def server() -> Iterator[DNSServer]:
    with DNSServer() as running:
        running.set_records(NAME, ["10.0.0.1", "10.0.0.2", "fd00::1"], ttl=10)
        yield running


def ask(
    server: DNSServer,
    name: str = NAME,
    rdtype: str = "A",
    *,
    tcp: bool = False,
    timeout: float = 5.0,
    **query: object,
) -> dns.message.Message:
    question = dns.message.make_query(name, rdtype, **query)  # type: ignore[arg-type]
    send = dns.query.tcp if tcp else dns.query.udp
    return send(question, server.host, timeout=timeout, port=server.port)


def texts(answer: dns.message.Message) -> list[str]:
    return [record.to_text() for rrset in answer.answer for record in rrset]


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_records_are_answered_over_udp_and_tcp(server: DNSServer, tcp: bool):
    """Each family is answered with its own addresses and the TTL that was set."""
    answer = ask(server, tcp=tcp)
    assert texts(answer) == ["10.0.0.1", "10.0.0.2"]
    assert answer.answer[0].ttl == 10
    assert answer.flags & dns.flags.AA
    assert texts(ask(server, rdtype="AAAA", tcp=tcp)) == ["fd00::1"]


def test_the_question_comes_back_in_the_case_it_was_asked_in(server: DNSServer):
    """Clients that randomise the case check the echo; the answer is the same."""
    answer = ask(server, "MLflow.LOCAL.")
    assert answer.question[0].name.to_text() == "MLflow.LOCAL."
    assert answer.answer[0].name.to_text() == "MLflow.LOCAL."
    assert texts(answer) == ["10.0.0.1", "10.0.0.2"]


def test_edns_is_answered_with_edns_and_only_then(server: DNSServer):
    """An OPT record goes to those who sent one."""
    assert ask(server, use_edns=0).edns == 0
    assert ask(server).edns == -1


def test_an_unknown_name_does_not_exist(server: DNSServer):
    """NXDOMAIN comes with the SOA record from which resolvers take how long to remember it."""
    answer = ask(server, "typo.local")
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert answer.authority[0].name.to_text() == "local."
    assert answer.authority[0][0].minimum == answer.authority[0].ttl == 5


def test_a_type_without_records_is_no_data_and_not_no_name(server: DNSServer):
    """AAAA of an IPv4-only name: the name exists, the answer is empty."""
    server.set_records("v4.local", ["10.0.0.1"])
    answer = ask(server, "v4.local", "AAAA")
    assert answer.rcode() == dns.rcode.NOERROR
    assert not answer.answer
    assert answer.authority


def test_records_can_be_changed_and_removed_while_it_runs(server: DNSServer):
    """The next query sees the change, also where an answer was kept ready."""
    ask(server)
    server.set_records(NAME, ["10.0.0.9"])
    assert texts(ask(server)) == ["10.0.0.9"]
    assert not ask(server, rdtype="AAAA").answer
    server.remove(NAME)
    assert ask(server).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.NO_SUCH_NAME, dns.rcode.NXDOMAIN),
        (Fault.NO_DATA, dns.rcode.NOERROR),
        (Fault.SERVFAIL, dns.rcode.SERVFAIL),
        (Fault.REFUSED, dns.rcode.REFUSED),
        (Fault.FORMERR, dns.rcode.FORMERR),
    ],
)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_fault_covers_the_records_until_it_is_healed(
    server: DNSServer, fault: Fault, code: dns.rcode.Rcode, tcp: bool
):
    """The fault has its code and no records; afterwards the records are there as before."""
    server.fault(NAME, fault)
    answer = ask(server, tcp=tcp)
    assert (answer.rcode(), texts(answer)) == (code, [])
    server.heal(NAME)
    assert texts(ask(server, tcp=tcp)) == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    "fault",
    ["no_such_name", "no_data", "servfail", "refused", "silent", "truncate", "wrong_id", "garbage"],
)
def test_the_named_faults_are_the_general_ones(fault: str, transport: str):
    """``zone.servfail(name)`` and its like do what their names say, and for that type only."""
    by_method, by_name = Zone(), Zone()
    for zone in (by_method, by_name):
        zone.set_records(NAME, ["10.0.0.1", "fd00::1"])
    getattr(by_method, fault)(NAME, "AAAA")
    by_name.fault(NAME, Fault(fault), rdtype="AAAA")
    for rdtype in ("A", "AAAA"):
        wire = dns.message.make_query(NAME, rdtype).to_wire()
        assert by_method.plan(wire, transport) == by_name.plan(wire, transport)


def test_setting_records_ends_every_fault(server: DNSServer):
    """A redeployed service is back at once, whatever was wrong with its name before."""
    server.no_such_name(NAME)
    server.delay(NAME, 60)
    server.set_records(NAME, ["10.0.0.3"])
    assert texts(ask(server)) == ["10.0.0.3"]


def test_a_fault_may_concern_one_type_only(server: DNSServer):
    """AAAA fails and A works: what rule 10 of the policy is about."""
    server.servfail(NAME, "AAAA")
    assert ask(server, rdtype="AAAA").rcode() == dns.rcode.SERVFAIL
    assert texts(ask(server)) == ["10.0.0.1", "10.0.0.2"]


def test_a_fault_for_any_name_gives_way_to_one_of_the_name(server: DNSServer):
    """``servfail()`` means the whole server, except where a name was told something else."""
    server.servfail()
    server.fault("well.local", Fault.ANSWER)
    server.set_rdata("well.local", "A", ["10.0.0.5"])
    assert ask(server).rcode() == dns.rcode.SERVFAIL
    assert texts(ask(server, "well.local")) == ["10.0.0.5"]
    server.heal(ANY)
    assert texts(ask(server)) == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_silence_is_no_packet_at_all(server: DNSServer, tcp: bool):
    """The client runs into its timeout, and the query is counted."""
    server.silent(NAME)
    with pytest.raises(dns.exception.Timeout):
        ask(server, tcp=tcp, timeout=0.05)
    assert server.count(NAME, "A", "tcp" if tcp else "udp") == 1


def test_a_truncated_answer_is_whole_over_tcp(server: DNSServer):
    """The client is sent from UDP to TCP, and gets everything there."""
    server.truncate(NAME)
    assert ask(server).flags & dns.flags.TC
    question = dns.message.make_query(NAME, "A")
    answer, used_tcp = dns.query.udp_with_fallback(question, server.host, 5, server.port)
    assert used_tcp
    assert texts(answer) == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize(
    ("payload", "addresses", "fits"),
    [(None, 28, True), (None, 40, False), (1232, 70, True), (4096, 100, False)],
)
def test_an_answer_that_does_not_fit_is_truncated(
    server: DNSServer, payload: int | None, addresses: int, fits: bool
):
    """512 bytes without EDNS, and with it what the client takes, up to 1232."""
    server.set_records("big.local", [f"10.0.0.{i}" for i in range(addresses)])
    edns = {} if payload is None else {"use_edns": 0, "payload": payload}
    assert bool(ask(server, "big.local", **edns).flags & dns.flags.TC) is not fits
    assert len(texts(ask(server, "big.local", tcp=True))) == addresses


def test_a_wrong_id_is_the_right_answer_under_another_id(server: DNSServer):
    """What a blind forger sends; a client must not take it."""
    server.wrong_id(NAME)
    with pytest.raises(dns.query.BadResponse):
        ask(server)


def test_garbage_is_no_message_but_has_the_right_id(server: DNSServer):
    """The bytes get as far as the client's parser, and no further."""
    server.garbage(NAME)
    with pytest.raises(dns.exception.DNSException):
        ask(server)


def test_garbage_can_be_given(server: DNSServer):
    """A fuzzer chooses the bytes itself."""
    server.garbage(NAME, payload=b"\x00")
    with pytest.raises(dns.message.ShortHeader):
        ask(server)


def test_garbage_can_be_made_of_the_right_answer(server: DNSServer):
    """A fuzzer changes some bytes, and leaves the id right."""
    server.garbage(
        NAME, payload=lambda wire: wire.replace(b"\x0a\x00\x00\x01", b"\x0a\x09\x09\x09")
    )
    assert texts(ask(server)) == ["10.9.9.9", "10.0.0.2"]


def test_answers_for_a_name_nobody_asked_for(server: DNSServer):
    """Poison in the answer section: the question is right, the records are a stranger's."""
    server.fault(NAME, Fault.OTHER_NAME)
    answer = ask(server)
    assert answer.question[0].name.to_text() == "mlflow.local."
    assert answer.answer[0].name.to_text() == "stranger.invalid."


def test_an_answer_to_another_question(server: DNSServer):
    """The whole answer belongs to a question that was not asked."""
    server.fault(NAME, Fault.OTHER_QUESTION)
    with pytest.raises(dns.query.BadResponse):
        ask(server)


def test_a_server_that_hangs_up_on_tcp(server: DNSServer):
    """The connection is closed without an answer; over UDP there is silence."""
    server.fault(NAME, Fault.HANG_UP)
    with pytest.raises(EOFError):
        ask(server, tcp=True)
    with pytest.raises(dns.exception.Timeout):
        ask(server, timeout=0.05)


def test_flapping_goes_round_for_each_type_apart(server: DNSServer):
    """A resolver that asks A and AAAA together sees both in the same state."""
    server.flapping(NAME, ["answer", Fault.NO_SUCH_NAME], every=2)
    seen = [[ask(server, rdtype=kind).rcode() for kind in ("A", "AAAA")] for _ in range(6)]
    good, bad = [dns.rcode.NOERROR] * 2, [dns.rcode.NXDOMAIN] * 2
    assert seen == [good, good, bad, bad, good, good]


def test_a_delay_holds_up_nobody_else(server: DNSServer):
    """A slow name answers late, beside its fault; another name answers at once meanwhile."""
    server.set_records("quick.local", ["10.0.0.7"])
    server.servfail(NAME)
    server.delay(NAME, 0.3)
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        slow = pool.submit(ask, server)
        server.wait_for_queries(1, NAME)
        assert texts(ask(server, "quick.local")) == ["10.0.0.7"]
        assert not slow.done()
        assert slow.result(5).rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - started >= 0.3


def test_held_queries_are_answered_on_release_as_things_stand_then(server: DNSServer):
    """A test looks at a query in flight, and decides afterwards what comes of it."""
    server.hold(NAME)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, server, tcp=tcp) for tcp in (False, True)]
        server.wait_for_queries(2, NAME, "A")
        assert not any(future.done() for future in waiting)
        server.set_records(NAME, ["10.0.0.8"])
        assert [texts(future.result(5)) for future in waiting] == [["10.0.0.8"]] * 2
    assert server.count() == 2


def test_releasing_one_name_leaves_the_others_held(server: DNSServer):
    """Holds are per name."""
    server.hold("a.local")
    server.hold("b.local")
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(ask, server, name) for name in ("a.local", "b.local"))
        server.wait_for_queries(2)
        server.release("a.local")
        assert first.result(5).rcode() == dns.rcode.NXDOMAIN
        assert not second.done()
        server.release("b.local")
        assert second.result(5).rcode() == dns.rcode.NXDOMAIN


def test_aliases_are_followed_as_far_as_they_are_known(server: DNSServer):
    """The answer holds the chain and the addresses at its end."""
    server.set_cname("one.local", "two.local", ttl=3)
    server.set_cname("two.local", NAME)
    answer = ask(server, "one.local")
    assert [rrset.name.to_text() for rrset in answer.answer] == [
        "one.local.", "two.local.", "mlflow.local.",
    ]  # fmt: skip
    assert answer.answer[0].ttl == 3
    assert texts(answer)[-2:] == ["10.0.0.1", "10.0.0.2"]


def test_an_alias_to_nowhere_does_not_exist(server: DNSServer):
    """The code is that of the last name of the chain (RFC 6604)."""
    server.set_cname("one.local", "gone.local")
    answer = ask(server, "one.local")
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert texts(answer) == ["gone.local."]


def test_an_alias_loop_is_sent_once_round(server: DNSServer):
    """As real servers do it; to notice the loop is the client's part."""
    server.set_cname("one.local", "two.local")
    server.set_cname("two.local", "one.local")
    answer = ask(server, "one.local")
    assert texts(answer) == ["two.local.", "one.local."]


def test_a_very_long_chain_of_aliases_is_cut(server: DNSServer):
    """No answer grows without bound."""
    for i in range(40):
        server.set_cname(f"n{i}.local", f"n{i + 1}.local")
    assert len(ask(server, "n0.local", tcp=True).answer) == 16


def test_srv_records_have_a_port_per_target(server: DNSServer):
    """A service with a port per target, as Consul gives it."""
    server.set_srv("_mlflow._tcp.local", [(1, 5, 5000, "a.local"), (2, 5, 5001, "b.local")])
    assert texts(ask(server, "_mlflow._tcp.local", "SRV")) == [
        "1 5 5000 a.local.",
        "2 5 5001 b.local.",
    ]


@pytest.mark.parametrize("ttl", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_ttl_may_be_anything_that_fits_the_packet(server: DNSServer, ttl: int):
    """Also what RFC 2181 forbids to send, because some servers send it."""
    server.set_records(NAME, ["10.0.0.1"], ttl=ttl)
    question = dns.message.make_query(NAME, "A")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(question.to_wire(), (server.host, server.port))
        wire = client.recv(4096)
    assert wire[-10:-6] == ttl.to_bytes(4, "big")


def test_wrong_records_are_refused(server: DNSServer):
    """A mistake of the test is told by field and value, and changes nothing."""
    with pytest.raises(ValueError, match=r"10\.0"):
        server.set_records(NAME, ["10.0"])
    with pytest.raises(ValueError, match=r"ttl .* not -1"):
        server.set_records(NAME, ["10.0.0.1"], ttl=-1)
    with pytest.raises(ValueError, match="SRV records"):
        server.set_rdata(NAME, "SRV", ["nonsense"])
    with pytest.raises(ValueError, match="explode"):
        server.fault(NAME, "explode")
    with pytest.raises(ValueError, match="at least one fault"):
        server.fault(NAME)
    assert texts(ask(server)) == ["10.0.0.1", "10.0.0.2"]


def test_every_query_is_logged_and_counted(server: DNSServer):
    """Name in lower case, type, transport; counters for any part of it."""
    ask(server, "MLFLOW.local.")
    ask(server, rdtype="AAAA", tcp=True)
    ask(server, "typo.local")
    ask(server, "typo.local")
    assert server.queries == (
        Query(NAME, "A", "udp"),
        Query(NAME, "AAAA", "tcp"),
        Query("typo.local", "A", "udp"),
        Query("typo.local", "A", "udp"),
    )
    assert (server.count(), server.count(NAME), server.count(NAME + ".", "A")) == (4, 2, 1)
    assert (server.count(transport="tcp"), server.count(rdtype="A")) == (1, 3)
    server.clear_queries()
    assert (server.queries, server.count()) == ((), 0)


def test_waiting_for_queries_that_never_come_ends(server: DNSServer):
    """A broken test ends with a sentence."""
    with pytest.raises(TimeoutError, match=r"0 queries for mlflow.local, not 1"):
        server.wait_for_queries(1, NAME, timeout=0.01)


def test_many_clients_at_once_are_all_answered_and_counted(server: DNSServer):
    """A thousand queries that arrive together: none is lost, none is counted twice."""
    questions = [dns.message.make_query(f"n{i % 7}.local", "A") for i in range(1000)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        client.settimeout(5)
        for sent, question in enumerate(questions, 1):
            client.sendto(question.to_wire(), (server.host, server.port))
            if sent % 100 == 0:
                for _ in range(100):
                    client.recv(4096)
    assert server.count() == 1000


def test_what_is_no_query_gets_no_answer_or_a_refusal(server: DNSServer):
    """Short datagrams and answers are passed over; broken queries get FORMERR, others NOTIMP."""
    query = bytearray(dns.message.make_query(NAME, "A").to_wire())
    answer = bytes(query[:2]) + b"\x81" + bytes(query[3:])
    notify = bytes(query[:2]) + b"\x20" + bytes(query[3:])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((server.host, server.port))
        for wire in (b"", b"\x00\x01", answer):
            client.send(wire)
        client.send(bytes(query[:-3]))
        assert client.recv(512)[3] & 15 == dns.rcode.FORMERR
        client.send(notify)
        assert client.recv(512)[3] & 15 in (dns.rcode.NOTIMP, dns.rcode.FORMERR)
    assert server.count() == 0


def test_tcp_messages_may_arrive_in_pieces_and_together(server: DNSServer):
    """A TCP stream knows no packets."""
    wire = dns.message.make_query(NAME, "A").to_wire()
    message = len(wire).to_bytes(2, "big") + wire
    with socket.create_connection((server.host, server.port), timeout=5) as client:
        stream = client.makefile("rb")
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(message), 7):
            client.sendall(message[i : i + 7])
        client.sendall(message + message)
        with stream:
            for _ in range(3):
                length = int.from_bytes(stream.read(2), "big")
                assert texts(dns.message.from_wire(stream.read(length)))[0] == "10.0.0.1"


def test_without_tcp_the_connection_is_refused():
    """A nameserver behind a firewall that lets UDP through only."""
    with DNSServer(tcp=False) as server:
        server.set_records(NAME, ["10.0.0.1"])
        assert texts(ask(server)) == ["10.0.0.1"]
        with pytest.raises(ConnectionRefusedError):
            ask(server, tcp=True)


def test_it_speaks_ipv6():
    """The server itself may have an IPv6 address."""
    try:
        server = DNSServer("::1").start()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    with_port = f"[::1]:{server.port}"
    try:
        server.set_records(NAME, ["10.0.0.1"])
        assert server.address == with_port
        assert texts(ask(server)) == ["10.0.0.1"]
    finally:
        server.stop()


def test_a_stopped_server_comes_back_on_its_port_with_its_records(server: DNSServer):
    """A nameserver that was restarted: no answer in between, then all is as before."""
    port = server.port
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server, tcp=True)
    server.start()
    assert server.port == port
    assert texts(ask(server)) == ["10.0.0.1", "10.0.0.2"]


def test_a_taken_port_is_told_and_nothing_is_left_open(server: DNSServer):
    """The error names address and port."""
    with pytest.raises(OSError, match=rf"127\.0\.0\.1 port {server.port}"):
        DNSServer(port=server.port).start()


def test_it_is_started_once(server: DNSServer):
    """A second start is a mistake; a second stop is none."""
    with pytest.raises(RuntimeError, match="is already running"):
        server.start()
    server.stop()
    server.stop()


def open_sockets() -> int:
    return sum(
        1
        for entry in Path("/proc/self/fd").iterdir()
        if entry.is_symlink() and str(entry.readlink()).startswith("socket:")
    )


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_nothing_is_left_behind():
    """No thread and no descriptor, also with a connection open and queries delayed and held."""
    threads, descriptors = threading.active_count(), open_sockets()
    server = DNSServer().start()
    server.set_records(NAME, ["10.0.0.1"])
    client = socket.create_connection((server.host, server.port), timeout=5)
    wire = dns.message.make_query(NAME, "A").to_wire()
    with client:
        for prepare in (lambda: server.delay(NAME, 60), lambda: server.hold(NAME)):
            prepare()
            client.sendall(len(wire).to_bytes(2, "big") + wire)
        server.wait_for_queries(2)
        server.stop()
        assert client.recv(1) == b""
    assert threading.active_count() == threads
    assert open_sockets() == descriptors
