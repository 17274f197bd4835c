"""DNS messages: queries, and what a packet says to one, as a :class:`Reply`.

Names are dnspython's. The records between them are read here, and only those that the answer needs,
as glibc does it: a packet whose last record is cut, or of a kind that cannot be read, still has
its addresses.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_hokusai_dns.resolver.lookup.questions import (
    MAX_ADDRESSES,
    Question,
    Reply,
    Service,
)
from airflow_provider_hokusai_dns.resolver.model import Cause

if TYPE_CHECKING:
    from dns.name import Name
    from dns.wire import Parser

# RFC 1035, 4.1: behind the id, behind a name that is asked for, behind one that owns a record.
_HEADER, _QUESTION, _RECORD = "!5H", "!HH", "!HHIH"
_RESPONSE, _OPCODE, _AUTHORITATIVE, _TRUNCATED = 0x8000, 0x7800, 0x0400, 0x0200
_RECURSION_DESIRED, _RECURSION_AVAILABLE, _RCODE = 0x0100, 0x0080, 0x000F
_NOERROR, _FORMERR, _SERVFAIL, _NXDOMAIN, _NOTIMP, _REFUSED = range(6)
_INTERNET = 1
_A, _NS, _CNAME, _SOA, _AAAA, _SRV, _OPT = 1, 2, 5, 6, 28, 33, 41
#: From here on, what stands in the place of an OPT record's TTL has an error (RFC 6891, 6.1.3).
_EXTENDED_RCODE = 1 << 24
_KINDS = {"A": _A, "AAAA": _AAAA, "SRV": _SRV}
#: Address families by the type and the size of a record.
_FAMILIES = {(_A, 4): socket.AF_INET, (_AAAA, 16): socket.AF_INET6}
#: The root, OPT, and what glibc says it takes over UDP with ``options edns0``; DNS flag day 2020
#: advises 1232 (RFC 6891, 6.1.2).
_EDNS = struct.pack("!BHHIH", 0, _OPT, 1232, 0, 0)
#: Servers that refuse to look at a query may leave its question out.
_WITHOUT_QUESTION = (_FORMERR, _SERVFAIL, _NOTIMP, _REFUSED)
#: A pointer to the name of the question: most records are of that name.
_OF_THE_QUESTION = b"\xc0\x0c"
_LONGEST_CHAIN = 16

#: Held while dnspython is imported. A fork waits for it: a child that came into being half-way
#: would have modules that are never finished, and no lookup would ever succeed there.
_importing = threading.RLock()
os.register_at_fork(
    before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release
)

#: What comes over TCP and cannot be read: there no third party can have sent it.
NONSENSE = Reply(Cause.MALFORMED, note="bytes that are not an answer")


class _Record(NamedTuple):
    """A record, with its data where it is of a kind that a lookup needs."""

    owner: Name
    kind: int
    ttl: float
    data: Any


def unsendable(error: Exception) -> Reply:
    """The substitute reply for a query that cannot be built or sent."""
    if isinstance(error, OSError):
        return Reply(Cause.NETWORK, note=error.strerror or str(error) or type(error).__name__)
    return Reply(Cause.MALFORMED, note=f"cannot be asked for: {error}")


def prepare() -> None:
    """Import modules that the first lookup would otherwise import within its time limit."""
    with _importing:
        import dns.name
        import dns.rcode
        import dns.wire  # noqa: F401


def make_query(question: Question, *, edns: bool = False) -> bytes:
    """A query with a random id, recursion desired.

    :raises Exception: it is not a valid name.
    """
    header = struct.pack(_HEADER, _RECURSION_DESIRED, 1, 0, 0, edns)
    wire = secrets.token_bytes(2) + header + _name(question.name)[1]
    wire += struct.pack(_QUESTION, _KINDS[question.kind], _INTERNET)
    return wire + _EDNS if edns else wire


def read_reply(question: Question, query: bytes, wire: bytes, *, tcp: bool = False) -> Reply | None:
    """The reply in a packet; ``None`` if it is not an answer to the query.

    Over UDP any host can send such a packet: it is ignored, and the wait for the answer continues.

    :param tcp: it arrived over TCP, so there is nothing more even if it is marked as truncated.
    """
    if wire[:2] != query[:2]:
        return None
    try:
        return _read(question, wire, whole=tcp)
    except Exception:  # whatever bytes can do to a parser
        return None


@lru_cache(maxsize=256)
def _name(text: str) -> tuple[Name, bytes]:
    """A name that is asked for, and its wire form in lower case: both families need it, twice."""
    import dns.name

    if text.isascii() and "\\" not in text:  # without what from_text() does per character
        name = dns.name.Name(text.encode().split(b"."))
    else:
        name = dns.name.from_text(text)
    return name, name.to_digestable()


def _read(question: Question, wire: bytes, *, whole: bool) -> Reply | None:
    import dns.wire  # "from dns.wire import" costs ten times as much

    name, asked = _name(question.name)
    kind, parser = _KINDS[question.kind], dns.wire.Parser(wire, 2)
    asked += struct.pack(_QUESTION, kind, _INTERNET)
    flags, questions, answers, authorities, additional = parser.get_struct(_HEADER)
    code = flags & _RCODE
    if flags & (_RESPONSE | _OPCODE) != _RESPONSE:
        return None
    is_told = questions or code not in _WITHOUT_QUESTION
    if is_told and (questions != 1 or parser.get_bytes(len(asked)).lower() != asked):
        return None
    if flags & _TRUNCATED and not whole:
        return Reply(truncated=True)
    if code not in (_NOERROR, _NXDOMAIN):
        from dns.rcode import to_text

        cause = {_SERVFAIL: Cause.SERVFAIL, _REFUSED: Cause.REFUSED}.get(code)
        return Reply(cause or Cause.MALFORMED, note="" if cause else to_text(code))
    records = list(_records(parser, answers, name if questions else None))
    found, ttl = _follow(records, name, kind)
    if found is None:
        return Reply(Cause.MALFORMED, note="an endless chain of aliases")
    if found and code == _NXDOMAIN:
        return Reply(Cause.MALFORMED, note="records together with a 'no such name'")
    if found and kind == _SRV:
        return _services(found, ttl, parser, authorities + additional)
    if found:
        addresses = tuple(dict.fromkeys(found))
        return Reply(addresses=addresses[:MAX_ADDRESSES], ttl=ttl)
    if code == _NXDOMAIN:
        return Reply(Cause.NXDOMAIN)
    beside = _readable(parser, authorities + additional)
    return _without_answer(kind, records, beside, flags)


def _readable(parser: Parser, count: int) -> list[_Record]:
    """The next records of a packet, up to one that is cut or damaged: glibc reads none of them."""
    found = []
    with contextlib.suppress(Exception):
        for record in _records(parser, count):
            found.append(record)
    return found


def _without_answer(
    kind: int, records: Sequence[_Record], beside: Sequence[_Record], flags: int
) -> Reply:
    """What an answer without a record for the name means: no data, or no answer at all."""
    if any(one.kind == kind or (one.kind == _CNAME and one.data is None) for one in records):
        # Records of the type that was asked for, but of another name, are no "no"; nor is an alias
        # that cannot be read.
        return Reply(Cause.MALFORMED, note="records of another name, or a damaged alias")
    if any(one.kind == _OPT and one.ttl >= _EXTENDED_RCODE for one in beside):
        return Reply(Cause.MALFORMED, note="an EDNS error")
    if not records and not flags & _AUTHORITATIVE:
        kinds = {one.kind for one in beside}
        if (_NS in kinds and _SOA not in kinds) or not flags & _RECURSION_AVAILABLE:
            return Reply(Cause.SERVFAIL, note="a referral, or it offers no recursion")
    return Reply(Cause.NODATA)


def _records(parser: Parser, count: int, asked: Name | None = None) -> Iterator[_Record]:
    """The next records of a packet. The next one begins behind each, whatever is in it.

    :param asked: the name in the question of the packet, which need not be read for each.
    """
    import dns.name

    for _ in range(count):
        pointer = parser.wire[parser.current : parser.current + 2]
        if asked is not None and pointer == _OF_THE_QUESTION:
            owner = asked
            parser.seek(parser.current + 2)
        else:
            owner = dns.name.from_wire_parser(parser)
        kind, group, ttl, size = parser.get_struct(_RECORD)
        start, end = parser.current, parser.current + size
        parser.seek(end)
        data = _data(parser.wire[:end], start, kind) if group == _INTERNET else None
        # RFC 2181, 8: a TTL of more than 31 bits is 0.
        yield _Record(owner, kind, float(ttl) if ttl < 1 << 31 else 0.0, data)


def _data(wire: bytes, start: int, kind: int) -> str | Name | Service | None:
    """What a record says that a packet ends with, if it is of a kind that a lookup needs."""
    if family := _FAMILIES.get((kind, len(wire) - start)):
        return _canonical(socket.inet_ntop(family, wire[start:]))
    if kind not in (_CNAME, _SRV):
        return None
    import dns.name
    import dns.wire

    parser = dns.wire.Parser(wire, start)
    try:
        numbers = parser.get_struct("!3H") if kind == _SRV else None
        target = dns.name.from_wire_parser(parser)
    except Exception:  # it is none
        return None
    if parser.remaining():
        return None
    if numbers is None:
        return target
    priority, weight, port = numbers
    return Service(priority, weight, port, target.to_text().lower())


def _follow(records: Sequence[_Record], name: Name, kind: int) -> tuple[list[Any] | None, float]:
    """What records say of a name, along its aliases, and the smallest TTL on the way.

    In any order of the records, and ``None`` where the aliases do not end. Where a name has both an
    alias and records, against RFC 1034, 3.6.2, its records count.
    """
    ttl = math.inf
    for _ in range(_LONGEST_CHAIN):
        own = [
            one
            for one in records
            if one.data is not None and (one.owner is name or one.owner == name)
        ]
        if found := [one for one in own if one.kind == kind]:
            return [one.data for one in found], min(ttl, *(one.ttl for one in found))
        aliases = [one for one in own if one.kind == _CNAME]
        if not aliases:
            return [], ttl
        name, ttl = aliases[-1].data, min(ttl, *(one.ttl for one in aliases))
    return None, ttl


def _services(found: Sequence[Service], ttl: float, parser: Parser, further: int) -> Reply:
    """The targets of a service, with the addresses that stand beside the answer."""
    # Port 0 is none that anything listens on; the root as a target is "no such service".
    services = tuple(one for one in dict.fromkeys(found) if one.port and one.target != ".")
    if not services:
        return Reply(Cause.NODATA, note="there is no such service here")
    targets = {service.target for service in services}
    glue: dict[str, tuple[str, ...]] = {}
    with contextlib.suppress(Exception):  # they would only have saved a question
        for record in _records(parser, further):
            owner = record.owner.to_text().lower()
            if record.kind in (_A, _AAAA) and record.data is not None and owner in targets:
                known = dict.fromkeys((*glue.get(owner, ()), record.data))
                glue[owner] = tuple(known)[:MAX_ADDRESSES]
                ttl = min(ttl, record.ttl)
    return Reply(services=services, ttl=ttl, glue=MappingProxyType(glue))


def _canonical(address: str) -> str:
    """The C library and :mod:`ipaddress` write an IPv4-mapped address in different ways."""
    if ":" in address and "." in address:
        from ipaddress import IPv6Address

        return str(IPv6Address(address))
    return address
