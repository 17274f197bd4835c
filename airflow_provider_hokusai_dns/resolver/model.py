"""The values that the resolver works with, and the two protocols it depends on.

Everything here is frozen: a change creates a new value, so that readers need no lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from airflow_provider_hokusai_dns.resolver.clock import Clock, SystemClock
from airflow_provider_hokusai_dns.resolver.target import Target

#: Times and durations in seconds that no other one exceeds, or precedes.
FOREVER = float("inf")
LONG_AGO = float("-inf")


class Source(StrEnum):
    """Where an address came from."""

    LITERAL = "literal"
    HOSTS = "hosts"
    CACHE = "cache"
    DNS = "dns"
    SYSTEM = "system"
    STALE = "stale"
    STORE = "store"
    STATIC = "static"

    @property
    def is_fresh(self) -> bool:
        """Whether an answer from this source is as good as a live one."""
        return self not in (Source.STALE, Source.STORE, Source.STATIC)

    @property
    def is_local(self) -> bool:
        """Whether what it says holds for this machine alone: other machines never get it."""
        return self in (Source.LITERAL, Source.HOSTS)


class Cause(StrEnum):
    """Why a lookup failed. For programs; people read the message."""

    NXDOMAIN = "nxdomain"
    NODATA = "nodata"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    NETWORK = "network"
    MALFORMED = "malformed"
    CONFIG = "config"

    @property
    def says_no_such_name(self) -> bool:
        """Whether DNS answered that there is no such name or record (policy rule 7)."""
        return self in (Cause.NXDOMAIN, Cause.NODATA)


class Endpoint(NamedTuple):
    """One address to try, with its own port if the answer contains one (SRV).

    Two endpoints are the same place if address and port, ``endpoint[:2]``, are equal.

    :param priority: endpoints with the lowest number are tried first.
    :param weight: how often this one comes first among those with its priority.
    """

    address: str
    port: int | None = None
    priority: int = 0
    weight: float = 0.0

    def __str__(self) -> str:
        """The address, with its port if it has its own: ``10.0.0.1:5001``."""
        if self.port is None:
            return self.address
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Parse the output of ``str(endpoint)``."""
        if text.startswith("[") or text.count(":") == 1:
            host, _, port = text.rpartition(":")
            return cls(host.strip("[]"), int(port))
        return cls(text)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a successful lookup, or of a read of the shared store, for one hostname.

    :param endpoints: never empty, in the order in which they were returned.
    :param ttl: the record's own time to live in seconds, or ``None`` if the source has none.
    :param source: ``HOSTS``, ``DNS``, ``SYSTEM`` or ``STORE``.
    :param name: the absolute name that answered, if search domains were tried.
    :param resolved_at: monotonic seconds at which this was resolved. The resolver sets it when a
        lookup returns, so a :class:`Lookup` need not.
    """

    endpoints: tuple[Endpoint, ...]
    source: Source
    resolved_at: float = 0.0
    ttl: float | None = None
    name: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses, without ports."""
        return tuple(endpoint.address for endpoint in self.endpoints)


class StaleLimit(NamedTuple):
    """The limit in force for an answer that is not fresh (policy rules 6 and 7).

    :param until: until when the answer is served, in monotonic seconds of this process.
    :param seconds: what the rule allows in all.
    :param no_such_name: whether it is that of rule 7, counted from the first "no such name".
    """

    until: float
    seconds: float
    no_such_name: bool = False


@dataclass(slots=True, eq=False)
class Dates:
    """When an answer was resolved, and for how long it is served, in monotonic seconds.

    :param clock: for the age of the answer.
    :param wall_offset: what to add for the time of day.
    :param stamp: when it was resolved; ``None`` for a literal or static address.
    :param expires: until when it is fresh.
    :param limit: for how long it is served after that; ``None`` for a fresh answer.
    """

    clock: Clock
    wall_offset: float
    stamp: float | None = None
    expires: float | None = None
    limit: StaleLimit | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Dates, (self.clock, self.wall_offset, self.stamp, self.expires, self.limit)

    def aware(self, seconds: float | None) -> datetime | None:
        """One of the moments as an aware time."""
        return None if seconds is None else utc(self.wall_offset + seconds)


#: Those of an address that was given, and not resolved.
_NO_DATES = Dates(SystemClock(), 0.0)


@dataclass(frozen=True, slots=True)
class Resolution:
    """The answer to one call: what to connect to, and how far it can be trusted.

    One object may serve many callers, so it has timestamps and no ages.
    ``str(resolution)`` is the target with the address in place of the name.
    """

    target: str = field(repr=False)  # a URL may hold a password
    hostname: str
    endpoints: tuple[Endpoint, ...]
    source: Source
    port: int | None = None
    cause: Cause | None = None
    dates: Dates = field(default=_NO_DATES, repr=False, compare=False)
    _rendered: str | None = field(default=None, repr=False, compare=False)

    @property
    def resolved_at(self) -> datetime | None:
        """When DNS returned this answer; ``None`` for a literal or static address."""
        return self.dates.aware(self.dates.stamp)

    @property
    def expires_at(self) -> datetime | None:
        """Until when it is fresh, or was."""
        return self.dates.aware(self.dates.expires)

    @property
    def stale_until(self) -> datetime | None:
        """Until when a stale or stored answer is served (policy rules 1, 6 and 7)."""
        limit = self.stale_limit
        return None if limit is None else self.dates.aware(limit.until)

    @property
    def stale_limit(self) -> StaleLimit | None:
        """The limit that was in force for a stale or stored answer when it was served."""
        return self.dates.limit

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses, in the order to try."""
        return tuple(endpoint.address for endpoint in self.endpoints)

    @property
    def places(self) -> tuple[str, ...]:
        """The same as strings, with the port of an address that has its own (SRV)."""
        return tuple(map(str, self.endpoints))

    @property
    def address(self) -> str:
        """The first address to try."""
        return self.endpoints[0].address

    @property
    def is_stale(self) -> bool:
        """Whether this is a stale, stored or static answer and not what DNS says now."""
        return not self.source.is_fresh

    def age(self, now: float | None = None) -> float | None:
        """Seconds since DNS returned this answer; ``None`` for a literal or static address.

        :param now: seconds on the monotonic clock of the resolver; its present reading by default.
        """
        if self.dates.stamp is None:
            return None
        return max(0.0, (self.dates.clock.monotonic() if now is None else now) - self.dates.stamp)

    def ttl_left(self) -> float | None:
        """Seconds for which this answer is still fresh; ``None`` if it is not, or always is."""
        if self.dates.expires is None or self.is_stale:
            return None
        return max(0.0, self.dates.expires - self.dates.clock.monotonic())

    def __str__(self) -> str:
        if self._rendered is not None:
            return self._rendered
        text = self.target
        if self.source is not Source.LITERAL:
            text = Target.parse(text).render(*self.endpoints[0][:2])
        object.__setattr__(self, "_rendered", text)  # the same for every writer
        return text


@dataclass(frozen=True, slots=True)
class Attempt:
    """One source that was tried for a lookup, for the error message.

    :param what: for example ``"dns 10.0.0.2:53 A mlflow.local."``, ``"hosts file"``, ``"store"``.
    :param outcome: for example ``"nxdomain"`` or ``"no answer in 2.0 s"``.
    :param seconds: how long it took, if that was measured.
    """

    what: str
    outcome: str
    seconds: float | None = None

    def __str__(self) -> str:
        took = "" if self.seconds is None else f" ({self.seconds:.2f} s)"
        return f"{self.what}: {self.outcome}{took}"


class Lookup(Protocol):
    """A live lookup. Called on a worker thread, may block for ``timeout`` seconds."""

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        """Look a hostname up.

        :param hostname: lower case, as :class:`~.target.Target` normalises it; a final dot means
            that it is absolute.
        :param timeout: seconds after which the caller gives up.
        :param hint: the absolute name that answered last time, to be tried first.
        :param thorough: whether to try further sources if DNS says that it cannot answer. False
            while the caller has a usable stale answer, and will look the name up again soon.
        :raises LookupFailed: with the cause.
        """
        ...


@dataclass(frozen=True, slots=True)
class LastKnownGood:
    """One record of the shared store. Timestamps are wall time, seconds since the epoch.

    :param no_name_since: when a process of the fleet first got "no such name" from DNS, or
        ``None`` while the name exists (policy rule 7).
    :param written_by: the writer, for people: ``"refresh"``, ``"gate"`` or ``"hook"``.
    :param services: the endpoints of an answer with ports; empty for others.
    """

    hostname: str
    addresses: tuple[str, ...]
    resolved_at: float
    ttl: float | None = None
    no_name_since: float | None = None
    written_by: str = "hook"
    services: tuple[Endpoint, ...] = ()

    @classmethod
    def of(cls, hostname: str, answer: Answer, resolved_at: float, **more: Any) -> LastKnownGood:
        """The record of an answer."""
        has_ports = any(endpoint.port is not None for endpoint in answer.endpoints)
        addresses = tuple(dict.fromkeys(answer.addresses))
        services = answer.endpoints if has_ports else ()
        return cls(hostname, addresses, resolved_at, answer.ttl, services=services, **more)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What to try."""
        return self.services or tuple(Endpoint(address) for address in self.addresses)

    @property
    def places(self) -> tuple[str, ...]:
        """The same as strings, with the port of an address that has its own (SRV)."""
        return tuple(map(str, self.endpoints))


class Store(Protocol):
    """The shared last known good. Both calls may block, within their own time limits."""

    def read(self, hostname: str) -> LastKnownGood | None:
        """The stored record, or ``None`` if none is known.

        ``None`` means "not known", never "there is none": an unreachable store may have the same
        result. A record that cannot be parsed is reported and ignored.

        :raises StoreOverdue: the answer was late.
        :raises StoreUnreadableError: there was no answer. Raises nothing else.
        """
        ...

    def write(self, record: LastKnownGood) -> bool:
        """Store a record. Returns whether it was stored. Never raises."""
        ...


def utc(seconds: float) -> datetime:
    """Seconds since the epoch as an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)
