"""Finished answers: the part that all answers of one hostname share, and those of one target."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from itertools import count, cycle
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.freshness import Action, Entry
from airflow_provider_hokusai_dns.resolver.model import (
    Cause,
    Dates,
    Endpoint,
    Resolution,
    Source,
    StaleLimit,
)
from airflow_provider_hokusai_dns.resolver.order import AddressAndPort, in_order, is_weighted

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.clock import Clock
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.metrics import Tally
    from airflow_provider_hokusai_dns.resolver.target import Target


class Seen(NamedTuple):
    """A snapshot of a name, from which one call's answer is built, even if the name changes."""

    version: int
    entry: Entry
    penalties: dict[AddressAndPort, float]
    rotation: int
    config: ResolverConfig
    now: float


#: Turns that are made ready where weights decide, for their shares to show.
_TURNS_BY_WEIGHT = 16


#: A lookup is under way: until it lands, what is known is served to every caller at once.
_BESIDE_A_LOOKUP = (Action.AHEAD, Action.STALE_WAIT, Action.STALE_RECHECK)


class Turns(Dates):
    """The part that all answers of one hostname share, for any target: built once.

    :param until: until when further callers may use it; the state ends it if something changes.
    :param orders: the orders in which several endpoints take turns; ``None`` for one.
    """

    __slots__ = ("_endpoints", "cause", "orders", "source", "tally", "until")

    def __init__(
        self,
        seen: Seen,
        source: Source,
        endpoints: tuple[Endpoint, ...],
        cause: Cause | None,
        clock: Clock,
        wall_offset: float,
        tally: Tally,
        hold: float | None = None,
    ) -> None:
        entry, config, now = seen.entry, seen.config, seen.now
        known = None if source is Source.STATIC else entry.answer
        stamp = None if known is None else known.resolved_at
        end = freshness.expires_at(entry, config)
        expires = None if stamp is None or end < stamp else end
        stale = source in (Source.STALE, Source.STORE)
        limit = freshness.stale_limit(entry, config) if stale else None
        if limit is not None and stamp is not None and end > limit.until:
            # A failure does not end the lifetime: the answer is stale only for its own caller.
            limit = StaleLimit(end, end - stamp)
        super().__init__(clock, wall_offset, stamp, expires, limit)
        self.source, self.cause = source, cause
        self.tally = tally
        self._endpoints = endpoints
        self.orders = None if len(endpoints) == 1 else _Orders(endpoints, seen)
        decision = freshness.decide(entry, now, config)
        limits = [decision.until, *(until for until in seen.penalties.values() if until > now)]
        keep = decision.action in (Action.FRESH, Action.STALE)
        if hold is not None and not keep:
            keep = decision.action in _BESIDE_A_LOOKUP
            limits.append(hold)
        self.until = min(limits) if keep else now

    def make(
        self, text: str, head: Target, turn: int = 0, source: Source | None = None
    ) -> Resolution:
        """The finished resolution of one turn for a target.

        :param head: the target, or its part up to the path.
        :param source: the source of the answer, for the caller for which it was fetched.
        """
        order = self._endpoints if self.orders is None else self.orders[turn]
        port = order[0].port or head.port
        return Resolution(text, head.hostname, order, source or self.source, port, self.cause, self)


def ipv6_is_routable() -> bool:
    """Whether this machine has a route to the IPv6 internet, determined as in ``getaddrinfo``.

    Connecting a UDP socket sends nothing. The address is of the documentation range (RFC 3849).
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("2001:db8::1", 53))
    except OSError:
        return False
    return True


class _Orders(dict[int, tuple[Endpoint, ...]]):
    """The orders of several endpoints by turn, each built when it is asked for.

    :param count: after how many turns the order is the first one again.
    """

    __slots__ = ("_order", "_rotation", "count")

    def __init__(self, endpoints: tuple[Endpoint, ...], seen: Seen) -> None:
        six = [":" in endpoint.address for endpoint in endpoints]
        ipv6_first = any(six) and not all(six) and ipv6_is_routable()
        self.count = _TURNS_BY_WEIGHT if is_weighted(endpoints) else len(endpoints)
        self._order = partial(in_order, endpoints, seen.penalties, seen.now, ipv6_first=ipv6_first)
        self._rotation = seen.rotation

    def __missing__(self, turn: int) -> tuple[Endpoint, ...]:
        order = self[turn] = self._order(rotation=self._rotation + turn)
        return order


class Ready:
    """The finished resolution for one target string, valid as long as its turns are.

    :param one: what every caller gets; ``None`` if several take turns: then callers get
        :attr:`cycle` once all are built, and :meth:`grow` until then.
    """

    __slots__ = ("cycle", "one", "turns")

    def __init__(self, turns: Turns, one: Resolution | None) -> None:
        self.turns = turns
        self.one = one
        self.cycle: Callable[[], Resolution] | None = None

    @staticmethod
    def of(text: str, head: Target, turns: Turns) -> Ready:
        """What callers of a target get; parameters as for :meth:`Turns.make`."""
        if turns.orders is None:
            return Ready(turns, turns.make(text, head))
        return _Several(turns, text, head, turns.orders.count)

    def grow(self) -> Resolution:
        """The resolution of this turn."""
        assert self.one is not None
        return self.one

    def next(self) -> Resolution:
        """What this caller gets."""
        return self.one or (self.cycle or self.grow)()


class _Several(Ready):
    """Resolutions that take turns, built on demand: most URLs are used for one call only."""

    __slots__ = ("_head", "_made", "_numbers", "_text", "_total")

    def __init__(self, turns: Turns, text: str, head: Target, total: int) -> None:
        self.turns, self.one, self.cycle = turns, None, None  # a call less for each new URL
        self._text, self._head, self._total = text, head, total
        self._made: list[Resolution] = []
        self._numbers = count()

    def grow(self) -> Resolution:
        turn = next(self._numbers)  # each to one caller, also of many threads
        one = self.turns.make(self._text, self._head, turn % self._total)
        if turn < self._total:
            self._made.append(one)
            if len(self._made) == self._total:  # the others may still be making theirs
                self.cycle = cycle(self._made).__next__
        return one
