"""Counters, the rolling window, the health level, and the events that leave the resolver."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.model import Cause, Resolution, Source

#: With fewer events than this, the window's level is unknown (policy, States of one name).
MIN_EVENTS = 10
HEALTHY_UP_TO = 0.10
DEGRADED_UP_TO = 0.70
_BUCKETS = 30
#: The fields of an :class:`Event` for answers that are not fresh.
_FIELDS = {Source.STALE: "stale", Source.STORE: "stored", Source.STATIC: "static"}
#: The counters of a :class:`DNSMetrics`.
COUNTED = ("attempts", "hits", "misses", "stale", "fallback", "failed", "lookups")


@dataclass(slots=True, eq=False)
class Tally:
    """A counter that is incremented without a lock.

    ``tally.n += 1`` with nothing called in between is not interrupted by CPython's global lock; on
    a build without that lock a count may be lost, never more.
    """

    n: int = 0


@dataclass(slots=True, eq=False)
class Served(Tally):
    """Answers served without waiting: ``n`` fresh ones, and ``others`` by source."""

    others: dict[Source, Tally] | None = None  # most names never have any

    def of(self, source: Source) -> Tally:
        """The counter for answers of this source. Not to be created by two threads at once."""
        if source.is_fresh:
            return self
        if self.others is None:
            self.others = {}
        return self.others.setdefault(source, Tally())

    def numbers(self) -> Counter[str]:
        """How many, by the fields of an :class:`Event`."""
        others = [*(self.others or {}).items()]  # a signal handler may add one meanwhile
        return Counter({"hits": self.n} | {_FIELDS[source]: tally.n for source, tally in others})

    def absorb(self, other: Served) -> None:
        """Add the numbers of another one."""
        self.n += other.n
        for source, tally in [*(other.others or {}).items()]:  # as in numbers()
            self.of(source).n += tally.n


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for observers (metrics, logs).

    :param kind: ``lookup``, ``lookup_failed``, ``stale_served``, ``static_served``, ``state``,
        ``store_rejected``.
    :param seconds: how long a lookup took; ``None`` if this is a later answer of a counted one.
    :param source: what answered it, for ``lookup``.
    :param state: the new state of the name, for ``state``, with ``previous`` beside it.
    :param is_known: whether an address is known, for ``state``; one that is not served is too old.
    :param is_unread: whether the shared store could not be read, for ``state``.
    :param resolution: what is served now, if anything.
    :param hits: answers served fresh from memory since the last event of this resolver; likewise
        ``stale``, ``stored`` and ``static``.
    """

    kind: str
    hostname: str
    cause: Cause | None = None
    seconds: float | None = None
    source: Source | None = None
    state: str | None = None
    previous: str | None = None
    is_known: bool = False
    is_unread: bool = False
    resolution: Resolution | None = None
    detail: str = ""
    hits: int = 0
    stale: int = 0
    stored: int = 0
    static: int = 0


class Window:
    """Successes and failures of lookups in the last seconds, in a few buckets."""

    def __init__(self, seconds: float) -> None:
        self._width = max(seconds, 1e-3) / _BUCKETS
        self._buckets: dict[int, list[int]] = {}

    def add(self, now: float, *, ok: bool) -> None:
        """Count one event."""
        number = int(now // self._width)
        self._buckets.setdefault(number, [0, 0])[ok] += 1
        if len(self._buckets) > _BUCKETS:
            self._drop(number)

    def counts(self, now: float) -> tuple[int, int]:
        """Failures and successes inside the window."""
        self._drop(int(now // self._width))
        values = list(self._buckets.values())
        return sum(v[0] for v in values), sum(v[1] for v in values)

    def _drop(self, newest: int) -> None:
        for number in [*self._buckets]:  # a signal handler may add one, or drop some, meanwhile
            if number <= newest - _BUCKETS:
                self._buckets.pop(number, None)


def level(failures: int, successes: int) -> Level:
    """The health level by error rate: ``healthy``, ``degraded``, ``unhealthy``.

    ``unknown`` if there were too few events.
    """
    total = failures + successes
    if total < MIN_EVENTS:
        return Level.UNKNOWN
    rate = failures / total
    if rate <= HEALTHY_UP_TO:
        return Level.HEALTHY
    return Level.DEGRADED if rate <= DEGRADED_UP_TO else Level.UNHEALTHY


@dataclass(frozen=True, slots=True)
class DNSMetrics:
    """A snapshot of one process's resolver.

    Each call counts once: ``attempts = hits + misses + stale + fallback + failed``.

    :param hits: served fresh from memory.
    :param misses: waited for a live lookup that succeeded.
    :param stale: served a stale answer of this process.
    :param fallback: served from the shared store or a static address.
    :param errors: failed lookups by cause.
    :param failed: calls that ended in ``DNSResolutionError``.
    :param cache_size: names held; ``expired`` of them are not fresh.
    :param latency_ms: of the last lookup that succeeded.
    :param level: of the rolling window; informative only, it never decides about a gate.
    """

    attempts: int = 0
    hits: int = 0
    misses: int = 0
    stale: int = 0
    fallback: int = 0
    failed: int = 0
    lookups: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    hit_rate: float = 0.0
    cache_size: int = 0
    expired: int = 0
    last_success: datetime | None = None
    latency_ms: float | None = None
    window_events: int = 0
    error_rate: float = 0.0
    level: Level = Level.UNKNOWN

    @classmethod
    def total(cls, several: Sequence[DNSMetrics]) -> DNSMetrics:
        """The numbers of several resolvers together."""
        summed = {
            name: sum(getattr(one, name) for one in several)
            for name in (*COUNTED, "cache_size", "expired", "window_events")
        }
        failures = round(sum(one.error_rate * one.window_events for one in several))
        by_time = {one.last_success: one for one in several if one.last_success is not None}
        latest = by_time[max(by_time)] if by_time else cls()
        return cls(
            **summed,
            errors=dict(sum((Counter(one.errors) for one in several), Counter())),
            hit_rate=summed["hits"] / summed["attempts"] if summed["attempts"] else 0.0,
            last_success=latest.last_success,
            latency_ms=latest.latency_ms,
            error_rate=failures / summed["window_events"] if summed["window_events"] else 0.0,
            level=level(failures, summed["window_events"] - failures),
        )

    def without_state(self) -> DNSMetrics:
        """What was counted, without what is held and the rolling window."""
        return replace(self, cache_size=0, expired=0, window_events=0, error_rate=0.0)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        values = asdict(self) | {"level": self.level.value}
        if self.last_success is not None:
            values["last_success"] = self.last_success.isoformat()
        return values


@dataclass(slots=True)
class Counters:
    """Counters outside the hit path, changed under the resolver's lock."""

    window: Window
    misses: int = 0
    failed: int = 0
    lookups: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    last_success: float | None = None
    latency: float | None = None
