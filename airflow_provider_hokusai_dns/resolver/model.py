"""The values that the resolver works with, and the two protocols it is given.

Everything here is frozen: a change makes a new value, so that readers need no lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hokusai_dns.resolver.clock import Clock
    from airflow_provider_hokusai_dns.resolver.target import Target


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
        """Whether an answer of this source is as good as a live one."""
        return self not in _OLD_SOURCES


_OLD_SOURCES = frozenset({Source.STALE, Source.STORE, Source.STATIC})


class Cause(StrEnum):
    """Why a lookup failed. Data, not text: callers compare it, people read the message."""

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
        """Whether DNS did answer, and said that there is nothing to give (policy rule 7)."""
        return self in (Cause.NXDOMAIN, Cause.NODATA)


class Endpoint(NamedTuple):
    """One address to try, with a port of its own where the answer carries one (SRV)."""

    address: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a successful lookup, or the shared store, says about one hostname.

    :param endpoints: never empty, in the order in which they were given.
    :param ttl: the record's own time to live in seconds, or ``None`` when the source knows none.
    :param source: ``HOSTS``, ``DNS``, ``SYSTEM`` or ``STORE``.
    :param name: the absolute name that answered, where search domains were tried.
    :param resolved_at: monotonic seconds at which this was true. The resolver stamps it with its
        own clock when a lookup returns, so a :class:`Lookup` need not.
    """

    endpoints: tuple[Endpoint, ...]
    source: Source
    resolved_at: float = 0.0
    ttl: float | None = None
    name: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses alone."""
        return tuple(endpoint.address for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class Resolution:
    """The answer to one call: what to connect to, and how far it can be trusted.

    One object may serve many callers, so it carries stamps and no ages.
    ``str(resolution)`` is the target in its own form with the address in place of the name.

    :param stale_until: until when a stale or stored answer is served (policy rules 6 and 7);
        ``None`` for every other.
    """

    target: str = field(repr=False)  # a URL may hold a password
    hostname: str
    endpoints: tuple[Endpoint, ...]
    source: Source
    port: int | None = None
    cause: Cause | None = None
    resolved_at: datetime | None = None
    expires_at: datetime | None = None
    rendered: str = field(default="", repr=False)
    stale_until: datetime | None = None
    _stamp: float | None = field(default=None, repr=False, compare=False)
    _clock: Clock | None = field(default=None, repr=False, compare=False)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses, in the order to try."""
        return tuple(endpoint.address for endpoint in self.endpoints)

    @property
    def address(self) -> str:
        """The first address to try."""
        return self.endpoints[0].address

    @property
    def is_stale(self) -> bool:
        """Whether this is an old, stored or static answer and not what DNS says now."""
        return not self.source.is_fresh

    def age(self, now: float | None = None) -> float | None:
        """Seconds since DNS gave this answer; ``None`` for a literal or static address.

        :param now: seconds on the monotonic clock of the resolver; its present reading by default.
        """
        if self._stamp is None or self._clock is None:
            return None
        return max(0.0, (self._clock.monotonic() if now is None else now) - self._stamp)

    def ttl_left(self, wall: float) -> float | None:
        """Seconds for which this answer is still fresh; ``None`` where it is not, or always is.

        :param wall: seconds since the epoch.
        """
        if self.expires_at is None or self.is_stale:
            return None
        return max(0.0, self.expires_at.timestamp() - wall)

    def __str__(self) -> str:
        return self.rendered


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that was tried for a lookup, for the error message.

    :param what: for example ``"dns 10.0.0.2:53 A mlflow.local."``, ``"hosts file"``, ``"store"``.
    :param outcome: for example ``"nxdomain"`` or ``"no answer in 2.0 s"``.
    :param seconds: how long it took, where that was measured.
    """

    what: str
    outcome: str
    seconds: float | None = None

    def __str__(self) -> str:
        took = "" if self.seconds is None else f" ({self.seconds:.2f} s)"
        return f"{self.what}: {self.outcome}{took}"


class LookupFailed(Exception):
    """A live lookup gave no address.

    :param cause: why, as data.
    :param detail: one sentence for people.
    :param tried: what was asked, in order.
    """

    def __init__(self, cause: Cause, detail: str = "", tried: Sequence[Attempt] = ()) -> None:
        super().__init__(detail or cause.value)
        self.cause = cause
        self.detail = detail or cause.value
        self.tried = tuple(tried)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.cause, self.detail, self.tried))


class DNSResolutionError(Exception):
    """Nothing can be served for a hostname (feature A6).

    :param hostname: the name, without port or path.
    :param cause: why the live lookup failed.
    :param tried: what was asked, in order; ends with the store and the static address.
    """

    def __init__(
        self, hostname: str, cause: Cause, tried: Sequence[Attempt] = (), detail: str = ""
    ) -> None:
        self.hostname = hostname
        self.cause = cause
        self.tried = tuple(tried)
        self.detail = detail
        steps = "; ".join(str(step) for step in self.tried) or "nothing was asked"
        super().__init__(
            f"{hostname!r} cannot be resolved ({cause.value}{': ' + detail if detail else ''}), "
            f"and there is no old, stored or static address left to serve. Tried: {steps}."
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.hostname, self.cause, self.tried, self.detail))


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
        :param thorough: whether to go on to further sources where DNS says that it cannot answer.
            False while the caller has a good old answer to give, and will soon ask again.
        :raises LookupFailed: with the cause as data.
        """
        ...


@dataclass(frozen=True, slots=True)
class LastKnownGood:
    """One record of the shared store. Stamps are wall time, seconds since the epoch.

    :param no_name_since: when anybody in the fleet first saw DNS say that the name does not exist,
        or ``None`` while it does (policy rule 7).
    :param written_by: who wrote it, for people: ``"refresh"``, ``"gate"`` or ``"hook"``.
    """

    hostname: str
    addresses: tuple[str, ...]
    resolved_at: float
    ttl: float | None = None
    no_name_since: float | None = None
    written_by: str = "hook"


class Store(Protocol):
    """The shared last-known-good (feature A4). Both calls may block, and bound themselves."""

    def read(self, hostname: str) -> LastKnownGood | None:
        """The stored record, or ``None`` when none is known.

        "None" means "not known", never "there is none": an unreachable store looks the same.
        A record that cannot be understood is reported and passed over, never raised.
        """
        ...

    def write(self, record: LastKnownGood) -> bool:
        """Store a record. Returns whether it was kept. Never raises."""
        ...


def utc(seconds: float) -> datetime:
    """Epoch seconds as an aware time."""
    return datetime.fromtimestamp(seconds, UTC)


def make_resolution(
    target: Target,
    endpoints: tuple[Endpoint, ...],
    source: Source,
    *,
    clock: Clock,
    stamp: float | None = None,
    expires: float | None = None,
    stale_until: float | None = None,
    cause: Cause | None = None,
) -> Resolution:
    """Build a finished :class:`Resolution`; its moments are given in monotonic seconds."""
    wall = clock.time() - clock.monotonic()
    first = endpoints[0]
    return Resolution(
        target=target.text,
        hostname=target.hostname,
        endpoints=endpoints,
        source=source,
        port=first.port if first.port is not None else target.port,
        cause=cause,
        resolved_at=None if stamp is None else utc(wall + stamp),
        expires_at=None if expires is None else utc(wall + expires),
        stale_until=None if stale_until is None else utc(wall + stale_until),
        rendered=target.text if source is Source.LITERAL else target.render(*first),
        _stamp=stamp,
        _clock=clock,
    )
