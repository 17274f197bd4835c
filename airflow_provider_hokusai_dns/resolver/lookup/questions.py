"""The values of a lookup over DNS: nameserver, question, and reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from airflow_provider_hokusai_dns.resolver.model import Cause, Endpoint

#: Addresses kept of one answer.
MAX_ADDRESSES = 64


class Server(NamedTuple):
    """A nameserver. The address may have a zone, as in ``fe80::1%eth0``."""

    address: str
    port: int = 53

    def __str__(self) -> str:
        return str(Endpoint(*self))


class Question(NamedTuple):
    """What is asked.

    :param name: absolute, with its final dot.
    :param kind: ``"A"``, ``"AAAA"`` or ``"SRV"``.
    """

    name: str
    kind: str


class Service(NamedTuple):
    """One SRV record (RFC 2782). The target is absolute and lower case."""

    priority: int
    weight: int
    port: int
    target: str

    def __str__(self) -> str:
        return " ".join(map(str, tuple(self)))  # as dig shows it


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of one packet to one question.

    :param cause: why it contains no address; ``None`` if it contains some.
    :param ttl: the smallest along the chain of aliases, seconds.
    :param truncated: the complete reply is available over TCP.
    :param note: for people, if the cause is not enough.
    :param services: the SRV records, for a question of that type.
    :param glue: addresses by target from the additional section.
    """

    cause: Cause | None = None
    addresses: tuple[str, ...] = ()
    ttl: float | None = None
    truncated: bool = False
    note: str = ""
    services: tuple[Service, ...] = ()
    glue: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_no(self) -> bool:
        """Whether it says that there is no such record."""
        return self.cause is not None and self.cause.says_no_such_name


@dataclass(frozen=True, slots=True)
class NameserverReply:
    """One nameserver's reply to one question, for people.

    :param cause: why it returned no address; ``None`` if it returned some.
    :param seconds: time until its answer, or the time waited for it.
    """

    nameserver: str
    name: str
    family: str
    addresses: tuple[str, ...]
    ttl: float | None
    cause: Cause | None
    seconds: float | None
    note: str = ""

    @property
    def outcome(self) -> str:
        """One line."""
        if self.cause is None:
            return ", ".join(self.addresses) or self.note
        if self.cause is Cause.TIMEOUT:
            return "no answer"
        return f"{self.cause.value}: {self.note}" if self.note else self.cause.value
