"""The policy for one name: pure functions of values and ``now``.

Nothing here reads a clock, takes a lock or queries a server. ``now`` is monotonic seconds. The
numbers in brackets are the rules of the policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.model import (
    LONG_AGO,
    Answer,
    Attempt,
    Cause,
    Endpoint,
    LastKnownGood,
    Source,
    StaleLimit,
)
from airflow_provider_hokusai_dns.resolver.target import parse_address

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig


@dataclass(frozen=True, slots=True)
class Failure:
    """The last of one or more failed lookups in a row."""

    cause: Cause
    at: float
    count: int = 1
    detail: str = ""
    tried: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything that is known about one hostname.

    :param shorten: a share from 0 to 1 of the configured jitter, drawn once per answer.
    :param failure: why the name is not fresh; ``None`` after a success.
    :param no_name_since: when DNS first said "no such name" after the answer.
    """

    hostname: str
    answer: Answer | None = None
    shorten: float = 0.0
    failure: Failure | None = None
    no_name_since: float | None = None


class Action(Enum):
    """What to do for a caller."""

    FRESH = "serve"
    AHEAD = "serve, and refresh in the background"
    STALE = "serve the stale answer"
    STALE_RECHECK = "serve the stale answer, and look the name up again in the background"
    STALE_WAIT = "wait a moment for a lookup, then serve the stale answer"
    WAIT = "wait for a lookup"
    FAILED = "answer with the failure that is known"


class Decision(NamedTuple):
    """An action, and the time until which it is valid."""

    action: Action
    until: float


def lifetime(hostname: str, ttl: float | None, config: ResolverConfig, shorten: float) -> float:
    """Seconds for which an answer is fresh; ``ttl`` is the record's own, if that is known."""
    jitter = 1 - config.jitter * shorten  # [12] downwards only
    override = config.ttl_override_for(hostname)
    if override is not None:  # [1]
        return override * jitter
    capped = config.cache_ttl if ttl is None else min(ttl, config.cache_ttl)
    return max(config.min_ttl, capped * jitter)  # [1] the floor holds after the jitter too


def expires_at(entry: Entry, config: ResolverConfig) -> float:
    """When the answer stops being fresh; an answer from the store never was [16]."""
    if entry.answer is None or entry.answer.source is Source.STORE:
        return LONG_AGO
    return entry.answer.resolved_at + lifetime(
        entry.hostname, entry.answer.ttl, config, entry.shorten
    )


def stale_limit(entry: Entry, config: ResolverConfig) -> StaleLimit:
    """For how long the answer may be served although it is not fresh, and by which rule."""
    if entry.answer is None:  # [9] a name that never resolved has no stale answer
        return StaleLimit(LONG_AGO, 0.0)
    max_stale = config.max_stale_for(entry.hostname)  # [6]
    by_age = StaleLimit(entry.answer.resolved_at + max_stale, max_stale)
    if entry.no_name_since is None:
        return by_age
    # [7] no later failure extends this limit again
    until = entry.no_name_since + config.max_stale_no_name
    return min(by_age, StaleLimit(until, config.max_stale_no_name, no_such_name=True))


def stale_until(entry: Entry, config: ResolverConfig) -> float:
    """Until when the answer may be served although it is not fresh."""
    return stale_limit(entry, config).until


def recheck_at(entry: Entry, config: ResolverConfig) -> float:
    """When a failed name that is served a stale answer is looked up again."""
    if entry.failure is None:
        return LONG_AGO
    pause = config.failure_recheck if entry.no_name_since is None else config.no_name_recheck
    return entry.failure.at + pause  # [4], [8]


def wants_all_sources(entry: Entry, now: float, config: ResolverConfig) -> bool:
    """Whether a lookup must also try the system's own when DNS says that it cannot answer.

    Not if a name that DNS has answered before fails for the first time, and the stale answer can be
    served until the next lookup [4], which does try every source.
    """
    if entry.answer is None or entry.answer.source is not Source.DNS or entry.failure is not None:
        return True
    return now + config.failure_recheck >= stale_until(entry, config)


def decide(entry: Entry, now: float, config: ResolverConfig) -> Decision:
    """Decide what a caller gets now."""
    expires = expires_at(entry, config)
    if now < expires:
        assert entry.answer is not None
        ahead = expires - config.refresh_ahead * (expires - entry.answer.resolved_at)  # [11]
        ahead = max(ahead, recheck_at(entry, config))
        if now < ahead:
            return Decision(Action.FRESH, min(ahead, expires))
        return Decision(Action.AHEAD, expires)
    until = stale_until(entry, config)
    has_static = bool(config.static_addresses_for(entry.hostname))
    if now < until or (has_static and entry.failure is not None):  # [9]
        if entry.failure is None:
            return Decision(Action.STALE_WAIT, until)  # [2]
        recheck = recheck_at(entry, config)
        if now < recheck:
            # Not beyond the time at which the stale answer expires.
            return Decision(Action.STALE, min(recheck, until) if now < until else recheck)
        return Decision(Action.STALE_RECHECK, until)
    if entry.failure is not None:
        # [5] the exponent is bounded so that a long outage does not overflow
        pause = config.failure_ttl * 2.0 ** min(entry.failure.count - 1, 16)
        again = entry.failure.at + min(pause, config.failure_ttl_max)
        if now < again:
            return Decision(Action.FAILED, again)
    return Decision(Action.WAIT, now)  # [3]


def is_spent(entry: Entry, now: float, config: ResolverConfig) -> bool:
    """Whether the entry can be dropped: it has nothing to serve, and delays no new lookup."""
    if entry.answer is None and entry.failure is None:
        return False  # just made: its first lookup is about to begin
    if now < expires_at(entry, config) or now < stale_until(entry, config):
        return False
    if entry.failure is None:
        return True
    if config.static_addresses_for(entry.hostname):
        return False  # without the failure, the next caller would wait for a dead DNS again [9]
    return now >= entry.failure.at + config.failure_ttl_max


def level_of(entry: Entry, now: float, config: ResolverConfig) -> Level:
    """``healthy``, ``degraded``, ``unhealthy``, or ``unknown`` before the first lookup.

    A slow lookup does not make a name degraded, a failed one does [2].
    """
    if now < expires_at(entry, config):
        return Level.HEALTHY
    if entry.failure is None:
        if entry.answer is None:
            return Level.UNKNOWN
        return Level.DEGRADED if entry.answer.source is Source.STORE else Level.HEALTHY
    if now < stale_until(entry, config) or config.static_addresses_for(entry.hostname):
        return Level.DEGRADED
    return Level.UNHEALTHY


def succeed(entry: Entry, answer: Answer, shorten: float) -> Entry:
    """The entry after a successful lookup: one fresh answer makes the name healthy."""
    return Entry(entry.hostname, answer, shorten)


def fail(
    entry: Entry,
    cause: Cause,
    now: float,
    detail: str = "",
    tried: tuple[Attempt, ...] = (),
    *,
    again: bool = False,
) -> Entry:
    """The entry after a failed lookup: a failure never replaces a good answer [15].

    :param again: the failure was already counted, when a caller gave up on the lookup.
    """
    count = 1 if entry.failure is None else entry.failure.count + (not again)
    since = entry.no_name_since
    if since is None and cause.says_no_such_name:
        since = now
    return replace(entry, failure=Failure(cause, now, count, detail, tried), no_name_since=since)


def adopt(
    entry: Entry, record: LastKnownGood, now: float, wall: float, config: ResolverConfig
) -> Entry:
    """The entry after a read of the shared store, whose timestamps are wall time.

    A stored answer keeps its age and is never fresh [16], so it does not replace one that still is
    [15]; the newer of two stale answers wins [17].

    :raises ValueError: a timestamp is too far ahead of the clock [16], or a field is invalid; the
        error names it.
    """
    check_record(entry.hostname, record)
    resolved = _monotonic("resolved_at", record.resolved_at, now, wall, config)
    answer = entry.answer
    if answer is None or (
        now >= expires_at(entry, config)
        and (resolved > answer.resolved_at or not may_replace(record.addresses, answer.addresses))
    ):
        answer = Answer(record.endpoints, Source.STORE, resolved, record.ttl)
    since = [entry.no_name_since]
    if record.no_name_since is not None:
        since.append(_monotonic("no_name_since", record.no_name_since, now, wall, config))
    # Only a "no such name" after the answer counts.
    later = [stamp for stamp in since if stamp is not None and stamp >= answer.resolved_at]
    if not later and entry.failure is not None and entry.failure.cause.says_no_such_name:
        later = [entry.failure.at]
    return replace(entry, answer=answer, no_name_since=min(later, default=None))


def check_record(hostname: str, record: LastKnownGood) -> None:
    """Validate a record: a store may be of any kind.

    :raises ValueError: a field is invalid; the error names it and its value.
    """
    if record.hostname != hostname:
        raise ValueError(f"hostname is {record.hostname!r} and not {hostname!r}")
    addresses = record.addresses
    if not isinstance(addresses, tuple | list) or not addresses:
        raise ValueError(f"addresses must be a list of at least one, not {addresses!r}")
    for address in addresses:
        if not isinstance(address, str) or parse_address(address) is None:
            raise ValueError(f"addresses: {address!r} is not an IP address")
    for service in record.services:
        if not isinstance(service, Endpoint) or parse_address(service.address) is None:
            raise ValueError(f"services: {service!r} is not an endpoint")
        if not isinstance(service.port, int) or not 0 < service.port <= 65535:
            raise ValueError(f"services: {service.port!r} is not a port from 1 to 65535")
    for field in ("resolved_at", "ttl", "no_name_since"):
        number = getattr(record, field)
        if number is None and field != "resolved_at":
            continue
        if not isinstance(number, int | float) or not math.isfinite(number) or number < 0:
            raise ValueError(f"{field} must be a number of seconds, not {number!r}")


def _monotonic(field: str, stamp: float, now: float, wall: float, config: ResolverConfig) -> float:
    ahead = stamp - wall
    if ahead > config.max_clock_skew:
        raise ValueError(
            f"{field} is {ahead:.0f} s ahead of this machine's clock "
            f"({config.max_clock_skew:.0f} s are allowed)"
        )
    return now + min(ahead, 0.0)


def _reach(addresses: Sequence[str]) -> int:
    """Where addresses are valid: 0 nowhere, 1 on one machine, 2 in the whole fleet.

    A captive portal, a filter or a wildcard answers for every name, with 0.0.0.0 or a loopback,
    link-local or reserved address. Such an answer is used, as the system would use it, but it never
    replaces a last known good.
    """
    kinds = []
    for text in addresses:
        address = ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        useless = address.is_unspecified or address.is_link_local or address.is_multicast
        if address.version == 4:  # 240.0.0.0/4, which meshes use, and 0.0.0.0/8
            useless |= address.is_reserved or address.packed[0] == 0
        kinds.append(0 if useless else 1 if address.is_loopback else 2)
    return max(kinds, default=0)


def may_replace(stored: Sequence[str], addresses: Sequence[str]) -> bool:
    """Whether addresses are such that they may replace stored ones, or be stored if there are none.

    That is so if they are valid somewhere, and on no fewer machines than the stored ones.
    """
    return _reach(addresses) >= max(1, _reach(stored))


def worth_writing(
    stored: LastKnownGood | None,
    answer: Answer,
    resolved_at: float,
    wall: float,
    config: ResolverConfig,
) -> bool:
    """Whether a fresh answer replaces the stored one [17].

    :param resolved_at: when the answer was resolved, in seconds since the epoch.
    :param wall: the current time, in seconds since the epoch.
    """
    if stored is None or stored.resolved_at - wall > config.max_clock_skew:  # [16]
        return may_replace((), answer.addresses)
    if stored.resolved_at >= resolved_at or not may_replace(stored.addresses, answer.addresses):
        return False
    return (
        stored.no_name_since is not None
        or resolved_at - stored.resolved_at >= config.store_max_age
        or not {one[:2] for one in stored.endpoints} & {one[:2] for one in answer.endpoints}
    )


def compare_again_after(stored: LastKnownGood | None, wall: float, config: ResolverConfig) -> float:
    """Seconds until a stored answer that was not replaced is compared again [17].

    That is when it is due to be rewritten: its writer may have ended. One that is due already may
    not be replaced by this process, and waits for a whole interval.
    """
    interval = config.store_max_age
    left = 0.0 if stored is None else interval - (wall - stored.resolved_at)
    return max(config.store_recheck, left) if 0 < left < interval else interval
