"""DNS messages, built, parsed and checked by dnspython; what comes out is one :class:`Reply`."""

from __future__ import annotations

import os
import secrets
import threading
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.resolver.lookup.questions import (
    MAX_ADDRESSES,
    Question,
    Reply,
    Service,
)
from airflow_provider_hokusai_dns.resolver.model import Cause

if TYPE_CHECKING:
    from dns.message import Message

#: What glibc says it takes over UDP with ``options edns0``; DNS flag day 2020 advises 1232.
_EDNS: dict[str, Any] = {"use_edns": 0, "payload": 1232}
#: Bytes of a reply that is remembered as it was read: all that fits without EDNS (RFC 1035, 2.3.4).
_KEPT = 512

#: Held while dnspython is imported. A fork waits for it: a child that came into being half-way
#: would have modules that are never finished, and no lookup would ever succeed there.
_importing = threading.RLock()
os.register_at_fork(
    before=_importing.acquire,
    after_in_parent=_importing.release,
    after_in_child=_importing.release,
)

#: What comes over TCP and cannot be read: there no third party can have sent it.
NONSENSE = Reply(Cause.MALFORMED, note="bytes that are no answer")


def unsendable(error: Exception) -> Reply:
    """Stands for the reply to a query that cannot be made, or not be sent."""
    if isinstance(error, OSError):
        return Reply(Cause.NETWORK, note=error.strerror or str(error) or type(error).__name__)
    return Reply(Cause.MALFORMED, note=f"cannot be asked for: {error}")


def prepare() -> None:
    """Import what the first lookup would import otherwise, with its time running."""
    with _importing:
        import dns.message
        import dns.rdtypes.ANY.CNAME
        import dns.rdtypes.ANY.SOA
        import dns.rdtypes.IN.A
        import dns.rdtypes.IN.AAAA
        import dns.rdtypes.IN.SRV  # noqa: F401


def make_query(question: Question, *, edns: bool = False) -> bytes:
    """A query with a random id, recursion desired.

    :raises Exception: the name is none.
    """
    return secrets.token_bytes(2) + (_query(question, edns) if edns else _query(question))[1]


def read_reply(question: Question, query: bytes, wire: bytes, *, tcp: bool = False) -> Reply | None:
    """What a packet says to a query; ``None`` where it is no answer to it.

    Over UDP any host can send such a packet: it is ignored, and the wait for the answer continues.

    :param tcp: it came over TCP, so that nothing more can be had even if it is marked truncated.
    """
    if wire[:2] != query[:2]:
        return None
    # A record that does not change is read once, however often it is looked up.
    read = _read if len(wire) <= _KEPT else _read.__wrapped__
    return read(question, wire[2:], tcp)


@lru_cache(maxsize=256)
def _query(question: Question, edns: bool = False) -> tuple[Message, bytes]:
    """The query for a question, with the id 0; and what follows the id on the wire."""
    import dns.message

    message = dns.message.make_query(*question, **_EDNS if edns else {}, id=0)
    return message, message.to_wire()[2:]


@lru_cache(maxsize=256)
def _read(question: Question, rest: bytes, whole: bool) -> Reply | None:
    """What stands behind the id says everything else."""
    import dns.message

    query, _ = _query(question)
    wire = b"\0\0" + rest
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=not whole)
    except dns.message.Truncated as error:
        cut: Message = error.message()  # type: ignore[no-untyped-call]
        return Reply(truncated=True) if query.is_response(cut) else None
    except Exception:  # whatever bytes can do to a parser
        return None
    if not query.is_response(message):
        return None
    try:
        return _reply(message)
    except Exception as error:  # chains that are too long, answers beside a "no such name"
        return Reply(Cause.MALFORMED, note=str(error) or type(error).__name__)


def _reply(message: Any) -> Reply:
    import dns.flags
    import dns.rcode
    import dns.rdatatype

    code = message.rcode()
    if code != dns.rcode.NOERROR and code != dns.rcode.NXDOMAIN:
        cause = {dns.rcode.SERVFAIL: Cause.SERVFAIL, dns.rcode.REFUSED: Cause.REFUSED}.get(code)
        return Reply(cause or Cause.MALFORMED, note="" if cause else dns.rcode.to_text(code))
    chain = message.resolve_chaining()
    if chain.answer is not None:
        return _records(message, chain)
    if code == dns.rcode.NXDOMAIN:
        return Reply(Cause.NXDOMAIN)
    kind = message.question[0].rdtype
    if any(rrset.rdtype == kind for rrset in message.answer):
        # Records of the type that was asked for, but of a name that was not, are no "no".
        return Reply(Cause.MALFORMED, note="records of another name")
    if not message.answer and not message.flags & dns.flags.AA:
        authority = {rrset.rdtype for rrset in message.authority}
        referral = dns.rdatatype.NS in authority and dns.rdatatype.SOA not in authority
        if referral or not message.flags & dns.flags.RA:
            return Reply(Cause.SERVFAIL, note="it does not look names up for others")
    return Reply(Cause.NODATA)


def _records(message: Any, chain: Any) -> Reply:
    import dns.rdatatype

    ttl = float(chain.minimum_ttl)
    if chain.answer.rdtype == dns.rdatatype.SRV:
        return _services(message, chain, ttl)
    addresses = [_canonical(record.address) for record in chain.answer]
    return Reply(addresses=tuple(addresses[:MAX_ADDRESSES]), ttl=ttl)


def _services(message: Any, chain: Any, ttl: float) -> Reply:
    import dns.rdatatype

    services = tuple(
        Service(record.priority, record.weight, record.port, record.target.to_text().lower())
        for record in chain.answer
        if record.port  # 0 is no port that anything listens on
    )
    services = tuple(service for service in services if service.target != ".")
    if not services:
        return Reply(Cause.NODATA, note="there is no such service here")
    glue: dict[str, tuple[str, ...]] = {}
    targets = {service.target for service in services}
    for rrset in message.additional:
        owner = rrset.name.to_text().lower()
        if owner in targets and rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            found = tuple(_canonical(record.address) for record in rrset)
            glue[owner] = (*glue.get(owner, ()), *found)[:MAX_ADDRESSES]
            ttl = min(ttl, float(rrset.ttl))
    return Reply(services=services, ttl=ttl, glue=MappingProxyType(glue))


def _canonical(address: str) -> str:
    """Dnspython and :mod:`ipaddress` write an IPv4-mapped address in different ways."""
    if ":" in address and "." in address:
        from ipaddress import IPv6Address

        return str(IPv6Address(address))
    return address
