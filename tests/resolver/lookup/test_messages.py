"""What is read of a packet: what dnspython and glibc read, however much of it is damaged."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.resolver import Cause
from airflow_provider_hokusai_dns.resolver.lookup.messages import make_query, read_reply
from airflow_provider_hokusai_dns.resolver.lookup.questions import Question, Reply, Service

NAMES = ("mlflow.hokusai.test.", "a.hokusai.test.", "B.Hokusai.Test.", "other.example.")
DATA = {
    "A": st.sampled_from(["10.0.0.1", "10.0.0.2", "192.0.2.1"]),
    "AAAA": st.sampled_from(["fd00::1", "::ffff:10.0.0.1", "2001:db8::5"]),
    "CNAME": st.sampled_from(NAMES),
    "TXT": st.just('"x"'),
    "DNAME": st.just("example."),
}
RECORDS = st.sampled_from(sorted(DATA)).flatmap(
    lambda kind: st.tuples(
        st.sampled_from(NAMES), st.integers(0, 2**31 - 1), st.just(kind), DATA[kind]
    )
)


def reply_to(
    question: Question, *records: tuple[str, int, str, str], **more
) -> tuple[bytes, bytes]:
    """A query, and the packet that answers it."""
    query = make_query(question, edns=True)
    message = dns.message.make_response(
        dns.message.from_wire(query), recursion_available=True, **more
    )
    for owner, ttl, kind, data in records:
        message.answer.append(dns.rrset.from_text(owner, ttl, "IN", kind, data))
    return query, message.to_wire()


@pytest.mark.parametrize("edns", [False, True])
@pytest.mark.parametrize("question", [Question("Mlflow.test.", "A"), Question("_a._tcp.b.", "SRV")])
def test_a_query_is_what_dnspython_makes(question, edns):
    """But for its id, and with the name in lower case."""
    ours = dns.message.from_wire(make_query(question, edns=edns))
    more = {"use_edns": 0, "payload": 1232} if edns else {}
    theirs = dns.message.make_query(*question, **more, id=ours.id)
    assert ours == theirs
    assert (ours.edns, ours.payload, ours.flags) == (theirs.edns, theirs.payload, theirs.flags)


@given(records=st.lists(RECORDS, max_size=6), kind=st.sampled_from(["A", "AAAA"]))
@example(
    records=[
        (NAMES[2], 1, "A", "10.0.0.1"),
        (NAMES[0], 0, "CNAME", NAMES[0]),
        (NAMES[0], 1, "CNAME", NAMES[2]),
    ],
    kind="A",
)
def test_the_addresses_and_the_ttl_are_those_that_dnspython_finds(records, kind):
    """Through aliases in any order."""
    question = Question(NAMES[0], kind)
    query, wire = reply_to(question, *records)
    reply = read_reply(question, query, wire)
    assert reply is not None
    try:
        chain = dns.message.from_wire(wire).resolve_chaining()
    except dns.message.ChainTooLong:
        assert reply.cause is Cause.MALFORMED
        return
    if chain.answer is None:
        assert not reply.addresses
        assert reply.cause in (Cause.NODATA, Cause.MALFORMED)
    else:
        found = [dns.rdata.from_text("IN", kind, address).to_text() for address in reply.addresses]
        assert found == [one.to_text() for one in chain.answer]
        assert reply.ttl == chain.minimum_ttl


@given(at=st.integers(0, 200), bytes_=st.binary(max_size=4), cut=st.booleans())
def test_a_damaged_packet_raises_nothing(at, bytes_, cut):
    """It is no answer, or says something else."""
    question = Question(NAMES[0], "A")
    records = [(NAMES[0], 5, "CNAME", NAMES[1]), (NAMES[1], 5, "A", "10.0.0.1")]
    query, wire = reply_to(question, *records)
    damaged = wire[:at] + bytes_ + (b"" if cut else wire[at + len(bytes_) :])
    assert isinstance(read_reply(question, query, damaged), Reply | None)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_packet_that_is_cut_in_its_opt_record_has_its_addresses(cut):
    """As with glibc, which reads no further than the answer."""
    question = Question(NAMES[0], "A")
    query, wire = reply_to(question, (NAMES[0], 5, "A", "10.0.0.1"))
    assert dns.message.from_wire(wire).edns == 0
    reply = read_reply(question, query, wire[:-cut])
    assert reply == Reply(addresses=("10.0.0.1",), ttl=5)
    assert read_reply(question, query, wire[:-12]) is None


def test_where_a_name_has_an_alias_and_addresses_its_addresses_count():
    """Against RFC 1034, 3.6.2; glibc takes one or the other, by which of them comes first."""
    question = Question(NAMES[0], "A")
    alias, address = (NAMES[0], 5, "CNAME", NAMES[3]), (NAMES[0], 9, "A", "10.0.0.1")
    for records in [(alias, address), (address, alias)]:
        reply = read_reply(question, *reply_to(question, *records))
        assert reply == Reply(addresses=("10.0.0.1",), ttl=9)


def test_an_address_of_the_wrong_size_is_passed_over():
    """As with glibc; the others of the packet count."""
    question = Question(NAMES[0], "A")
    query, wire = reply_to(question, (NAMES[0], 5, "A", "10.0.0.1"), (NAMES[0], 5, "A", "10.0.0.2"))
    bad = wire.replace(b"\0\4\x0a\0\0\1", b"\0\3\x0a\0\0")
    assert bad != wire
    reply = read_reply(question, query, bad)
    assert reply is not None
    assert reply.addresses == ("10.0.0.2",)


def test_a_service_counts_without_the_addresses_that_are_cut_off_beside_it():
    """They would only have saved a question; each target stands once, and none for port 0."""
    question = Question("_mlflow._tcp.hokusai.test.", "SRV")
    query = make_query(question)
    message = dns.message.make_response(dns.message.from_wire(query))
    texts = ["1 2 80 a.test.", "1 2 80 A.test.", "1 2 0 b.test.", "0 5 81 b.test.", "0 0 1 ."]
    message.answer = [dns.rrset.from_text_list(question.name, 60, "IN", "SRV", texts)]
    for name, address in (("a.test.", "10.0.0.1"), ("b.test.", "10.0.0.2")):
        message.additional.append(dns.rrset.from_text(name, 30, "IN", "A", address))
    reply = read_reply(question, query, message.to_wire()[:-2])
    assert reply is not None
    assert set(reply.services) == {Service(1, 2, 80, "a.test."), Service(0, 5, 81, "b.test.")}
    assert dict(reply.glue) == {"a.test.": ("10.0.0.1",)}
    assert reply.ttl == 30


@pytest.mark.parametrize("size", [0, 6, 13, 15, 40])
def test_a_service_of_the_wrong_size_is_passed_over(size):
    """Its numbers or its target would be those of the next record; the others count."""
    question = Question("_mlflow._tcp.hokusai.test.", "SRV")
    query = make_query(question)
    message = dns.message.make_response(dns.message.from_wire(query))
    texts = ["65535 65535 65535 a.test.", "1 2 80 b.test."]
    for ttl, text in enumerate(texts, 7):
        message.answer.append(dns.rrset.from_text(question.name, ttl, "IN", "SRV", text))
    wire = message.to_wire()
    services = {Service(65535, 65535, 65535, "a.test."), Service(1, 2, 80, "b.test.")}
    whole = read_reply(question, query, wire)
    assert whole is not None
    assert (set(whole.services), whole.ttl) == (services, 7)  # of mixed TTLs the shortest
    head, data, tail = wire.partition(b"\xff" * 6 + b"\1a\4test\0")
    bad = head[:-1] + bytes([size]) + (data + bytes(40))[:size] + tail
    reply = read_reply(question, query, bad)
    assert reply is not None
    assert reply.services == (Service(1, 2, 80, "b.test."),)


@pytest.mark.parametrize("code", range(1, 12))
def test_a_refusal_without_a_question_counts_where_servers_leave_it_out(code):
    """As with dnspython and glibc."""
    question = Question(NAMES[0], "A")
    query = make_query(question)
    header = query[:2] + bytes([0x81, 0x80 | code]) + bytes(8)
    is_known = dns.message.from_wire(query).is_response(dns.message.from_wire(header))
    assert (read_reply(question, query, header) is not None) == is_known


@pytest.mark.parametrize("flags", [0x0180, 0x8980, 0xA180])
def test_a_query_and_another_operation_are_no_answers(flags):
    """Not a response; NOTIFY and UPDATE."""
    question = Question(NAMES[0], "A")
    query, wire = reply_to(question, (NAMES[0], 5, "A", "10.0.0.1"))
    assert read_reply(question, query, wire[:2] + flags.to_bytes(2, "big") + wire[4:]) is None


def test_an_alias_that_cannot_be_read_is_not_taken_for_a_name_without_addresses():
    """Stale addresses would be given up after 15 minutes instead of 24 hours, by one bad packet."""
    question = Question(NAMES[0], "A")
    query = make_query(question)
    message = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    message.answer.append(dns.rrset.from_text(NAMES[0], 5, "IN", "CNAME", "x."))
    wire = message.to_wire()
    assert read_reply(question, query, wire) == Reply(Cause.NODATA)
    size, end = wire[-5:-3], wire[-3:]
    assert (size, end) == (b"\0\3", b"\1x\0")
    for damaged in (b"\0\4" + end + b"\0", b"\0\2\xc0\xff"):
        reply = read_reply(question, query, wire[:-5] + damaged)
        assert reply is not None
        assert reply.cause is Cause.MALFORMED


def test_an_error_of_edns_is_not_taken_for_a_name_without_addresses():
    """BADVERS has a 0 in the header (RFC 6891, 6.1.3)."""
    question = Question(NAMES[0], "A")
    query, wire = reply_to(question)
    assert read_reply(question, query, wire) == Reply(Cause.NODATA)
    message = dns.message.from_wire(wire)
    message.set_rcode(dns.rcode.BADVERS)
    reply = read_reply(question, query, message.to_wire())
    assert reply is not None
    assert reply.cause is Cause.MALFORMED


@pytest.mark.parametrize("cut", [1, 12, 30])
def test_a_name_without_addresses_is_told_by_a_packet_that_is_cut_behind_its_answer(cut):
    """As with glibc, which does not read the SOA record that stands there."""
    question = Question(NAMES[0], "A")
    query = make_query(question)
    message = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    soa = "ns.example. admin.example. 1 2 3 4 5"
    message.authority.append(dns.rrset.from_text("test.", 5, "IN", "SOA", soa))
    assert read_reply(question, query, message.to_wire()[:-cut]) == Reply(Cause.NODATA)


def test_an_address_beside_a_service_that_is_there_twice_counts_once():
    """A target would get a share of the connections for each."""
    question = Question("_mlflow._tcp.hokusai.test.", "SRV")
    query = make_query(question)
    message = dns.message.make_response(dns.message.from_wire(query))
    message.answer.append(dns.rrset.from_text(question.name, 60, "IN", "SRV", "1 2 80 a.test."))
    for ttl in (30, 31, 32):
        message.additional.append(dns.rrset.from_text("a.test.", ttl, "IN", "A", "10.0.0.1"))
    reply = read_reply(question, query, message.to_wire())
    assert reply is not None
    assert dict(reply.glue) == {"a.test.": ("10.0.0.1",)}
