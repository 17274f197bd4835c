"""DNS messages, good and bad, for the little server. Works on bytes and opens no socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from airflow_provider_hokusai_dns.resolver.testing.faults import Fault, Payload

if TYPE_CHECKING:
    from dns.message import Message, QueryMessage
    from dns.rrset import RRset

#: The records of one name: type -> (ttl, records as text).
Records: TypeAlias = Mapping[str, tuple[int, tuple[str, ...]]]

#: The largest UDP answer, as DNS flag day 2020 advises; a client's own limit may be lower.
_UDP_PAYLOAD = 1232
_WITHOUT_EDNS = 512
_LARGEST = 65_535
_LONGEST_CHAIN = 16
_NONSENSE = b"\x81\x80" + b"\xff" * 40
_STRANGER = "stranger.invalid."
_STRANGERS_ADDRESS = "192.0.2.66"


def parse_query(wire: bytes) -> QueryMessage | bytes | None:
    """Read a query: the message, or the bytes of a refusal, or ``None`` for what gets no answer."""
    import dns.exception
    import dns.message
    import dns.opcode

    if len(wire) < 12 or wire[2] & 0x80:  # An answer to an answer would never end.
        return None
    try:
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        return wire[:2] + b"\x80\x01" + bytes(8)
    if message.opcode() != dns.opcode.QUERY or len(message.question) != 1:
        return wire[:2] + b"\x80\x04" + bytes(8)
    return message  # type: ignore[return-value]


def build(
    asked: QueryMessage,
    fault: Fault,
    find: Callable[[str], Records | None],
    *,
    transport: str,
    negative_ttl: int,
    nonsense: Payload | None = None,
) -> bytes:
    """The bytes of an answer with a fault.

    :param find: the records of a name in lower case without final dot, ``None`` for no such name.
    :param negative_ttl: the SOA's minimum in seconds.
    :param nonsense: the payload of :attr:`Fault.GARBAGE`, or what makes it of the right answer.
    """
    import dns.message
    import dns.name
    import dns.rcode

    if fault is Fault.GARBAGE and not callable(nonsense):
        return asked.id.to_bytes(2, "big") + _NONSENSE if nonsense is None else nonsense
    response = dns.message.make_response(asked, recursion_available=True, our_payload=_UDP_PAYLOAD)
    if fault in (Fault.SERVFAIL, Fault.REFUSED, Fault.FORMERR):
        response.set_rcode(dns.rcode.from_text(fault))
    elif fault is Fault.NO_SUCH_NAME:
        _deny(response, negative_ttl, exists=False)
    elif fault is Fault.NO_DATA:
        _deny(response, negative_ttl, exists=True)
    else:
        _answer(response, find, negative_ttl)
    if fault is Fault.WRONG_ID:
        response.id ^= 0x5555
    elif fault is Fault.OTHER_NAME:
        response.answer = [_rrset(_STRANGER, "A", (3600, (_STRANGERS_ADDRESS,)))]
        response.authority = []
    elif fault is Fault.OTHER_QUESTION:
        for rrset in (*response.question, *response.answer):
            rrset.name = dns.name.from_text(_STRANGER)
    wire = _to_wire(response, asked, transport, truncate=fault is Fault.TRUNCATE)
    return nonsense(wire) if callable(nonsense) else wire


def type_text(rdtype: int) -> str:
    """``"A"`` for 1, and so on."""
    import dns.rdatatype

    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rdtype))


def check_records(name: str, rdtype: str, records: tuple[str, ...], ttl: int) -> None:
    """Refuse what cannot be put into a message.

    :raises ValueError: names the value.
    """
    import dns.exception

    if isinstance(ttl, bool) or not isinstance(ttl, int) or not 0 <= ttl < 2**32:
        raise ValueError(f"ttl must be a whole number from 0 to 4294967295, not {ttl!r}")
    try:
        _rrset(name, rdtype, (ttl, records))
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"{name!r}: {records!r} are not {rdtype} records: {error}") from None


def _rrset(name: str, rdtype: str, value: tuple[int, tuple[str, ...]]) -> RRset:
    import dns.rrset

    ttl, records = value
    rrset = dns.rrset.from_text_list(name.rstrip(".") + ".", 0, "IN", rdtype, records)
    rrset.ttl = ttl  # Past dnspython's check: servers do send such things.
    return rrset


def _answer(response: Message, find: Callable[[str], Records | None], negative_ttl: int) -> None:
    """Fill in the records, along a chain of aliases as far as it is ours."""
    import dns.flags
    import dns.rdataclass

    question = response.question[0]
    wanted = type_text(question.rdtype)
    owner = question.name.to_text()
    seen: set[str] = set()
    response.flags |= dns.flags.AA
    while len(seen) < _LONGEST_CHAIN:
        key = owner.rstrip(".").lower()
        records = find(key) if question.rdclass == dns.rdataclass.IN else None
        if records is None:
            return _deny(response, negative_ttl, exists=False)
        if wanted in records:
            ttl, values = records[wanted]
            # One set per record: dnspython shuffles within a set, and tests want what they set.
            response.answer += [_rrset(owner, wanted, (ttl, (value,))) for value in values]
            return None
        if "CNAME" not in records:
            return _deny(response, negative_ttl, exists=True)
        if key in seen:  # A loop: real servers send each alias once and leave it at that.
            return None
        seen.add(key)
        response.answer.append(_rrset(owner, "CNAME", records["CNAME"]))
        owner = records["CNAME"][1][0]
    return None


def _deny(response: Message, negative_ttl: int, *, exists: bool) -> None:
    import dns.flags
    import dns.rcode

    zone = response.question[0].name.to_text().partition(".")[2] or "."
    soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {negative_ttl}"
    response.flags |= dns.flags.AA
    response.set_rcode(dns.rcode.NOERROR if exists else dns.rcode.NXDOMAIN)
    response.authority.append(_rrset(zone, "SOA", (negative_ttl, (soa,))))


def _to_wire(response: Message, asked: QueryMessage, transport: str, *, truncate: bool) -> bytes:
    import dns.flags

    wire = response.to_wire(max_size=_LARGEST)
    if transport != "udp":
        return wire
    limit = _WITHOUT_EDNS
    if asked.edns >= 0:
        limit = min(max(asked.payload, _WITHOUT_EDNS), _UDP_PAYLOAD)
    if truncate or len(wire) > limit:
        response.answer, response.authority = [], []
        response.flags |= dns.flags.TC
        wire = response.to_wire(max_size=limit)
    return wire
