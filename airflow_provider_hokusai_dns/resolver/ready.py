"""Finished answers: what all answers of one hostname share, and those of one target."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, cycle, repeat
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.freshness import Action
from airflow_provider_hokusai_dns.resolver.lookup.ipv6 import ipv6_is_routable
from airflow_provider_hokusai_dns.resolver.model import (
    Cause,
    Endpoint,
    Resolution,
    Source,
    dates,
    make_resolution,
)
from airflow_provider_hokusai_dns.resolver.order import in_order, is_weighted

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.clock import Clock
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.freshness import Entry
    from airflow_provider_hokusai_dns.resolver.metrics import Served
    from airflow_provider_hokusai_dns.resolver.order import AddressAndPort
    from airflow_provider_hokusai_dns.resolver.target import Target


class Seen(NamedTuple):
    """What one call saw of a name: an answer is made of this, whatever changes meanwhile."""

    version: int
    entry: Entry
    penalties: dict[AddressAndPort, float]
    rotation: int
    served: Served
    config: ResolverConfig
    now: float


#: Turns that are made ready where weights decide, for their shares to show.
_TURNS_BY_WEIGHT = 16


#: A lookup is under way: until it lands, what is known is served to every caller at once.
_BESIDE_A_LOOKUP = (Action.AHEAD, Action.STALE_WAIT, Action.STALE_RECHECK)


class Turns:
    """All that the answers of one hostname have in common, whatever the target: made once.

    :param until: for how long they are good.
    :param keep: whether further callers may have them too.
    """

    __slots__ = ("_clock", "_config", "_dates", "_endpoints", "_ipv6_first", "_made_at", "_orders",
                 "_penalties", "_rotation", "_version", "cause", "count", "keep", "source", "stamp",
                 "tally", "until")  # fmt: skip

    def __init__(
        self,
        seen: Seen,
        source: Source,
        endpoints: tuple[Endpoint, ...],
        cause: Cause | None,
        clock: Clock,
        hold: float | None = None,
    ) -> None:
        self._endpoints, self._clock = endpoints, clock
        self._penalties, self._rotation = seen.penalties, seen.rotation
        self._version, self._config = seen.version, seen.config
        self._made_at = seen.now
        self.source, self.cause = source, cause
        decision = freshness.decide(seen.entry, seen.now, seen.config)
        limits = [decision.until]
        limits += [until for until in seen.penalties.values() if until > seen.now]
        self.keep = decision.action in (Action.FRESH, Action.STALE)
        if hold is not None and not self.keep:
            self.keep = decision.action in _BESIDE_A_LOOKUP
            limits.append(hold)
        self.until = min(limits) if self.keep else seen.now
        self.tally = seen.served.of(source)
        known = None if source is Source.STATIC else seen.entry.answer
        self.stamp = None if known is None else known.resolved_at
        expires: float | None = freshness.expires_at(seen.entry, seen.config)
        if self.stamp is None or expires is None or expires < self.stamp:
            expires = None
        self.count = _TURNS_BY_WEIGHT if is_weighted(endpoints) else len(endpoints)
        six = [":" in endpoint.address for endpoint in endpoints]
        self._ipv6_first = any(six) and not all(six) and ipv6_is_routable()
        self._orders: dict[int, tuple[Endpoint, ...]] | None = None
        stale = source in (Source.STALE, Source.STORE)
        stale_until = freshness.stale_until(seen.entry, seen.config) if stale else None
        self._dates = dates(clock, self.stamp, expires, stale_until)

    def serves(self, seen: Seen, source: Source) -> bool:
        """Whether another caller of the name can have these."""
        return (
            self.keep
            and self._version == seen.version
            and self._config is seen.config
            and self.source is source
            and seen.now < self.until
        )

    def make(self, target: Target, turn: int = 0, source: Source | None = None) -> Resolution:
        """The finished resolution of one turn for a target.

        :param source: where the answer is from, for the caller for whom it was fetched.
        """
        order = self._endpoints if self.count == 1 else self._order(turn)
        return make_resolution(
            target,
            order,
            source or self.source,
            clock=self._clock,
            stamp=self.stamp,
            dates=self._dates,
            cause=self.cause,
        )

    def _order(self, turn: int) -> tuple[Endpoint, ...]:
        if self._orders is None:
            self._orders = {}
        order = self._orders.get(turn)
        if order is None:
            order = self._orders[turn] = in_order(
                self._endpoints,
                self._penalties,
                self._made_at,
                ipv6_first=self._ipv6_first,
                rotation=self._rotation + turn,
            )
        return order


class Ready:
    """Finished resolutions for one target string, good until a moment in time.

    Made when they are asked for: of most URLs there is one call only.
    """

    __slots__ = ("_count", "_made", "_target", "_turns", "next", "tally", "until")

    def __init__(self, target: Target, turns: Turns) -> None:
        self.tally = turns.tally
        self.until = turns.until
        self.next: Callable[[], Resolution]
        if turns.count == 1:
            self.next = repeat(turns.make(target)).__next__
            return
        self._target, self._turns = target, turns
        self._made: list[Resolution] = []
        self._count = count()
        self.next = self._grow

    def _grow(self) -> Resolution:
        turn = next(self._count)  # each to one caller, also of many threads
        total = self._turns.count
        one = self._turns.make(self._target, turn % total)
        if turn < total:
            self._made.append(one)
            if len(self._made) == total:  # the others may still be making theirs
                self.next = cycle(self._made).__next__
        return one
