"""Makes finished answers out of entries, and keeps them for the hit path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, cycle, repeat
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.cache import Slot, in_order, is_weighted
from airflow_provider_hokusai_dns.resolver.freshness import Action
from airflow_provider_hokusai_dns.resolver.lookup.ipv6 import ipv6_is_routable
from airflow_provider_hokusai_dns.resolver.metrics import Event
from airflow_provider_hokusai_dns.resolver.model import (
    Answer,
    Attempt,
    Cause,
    Endpoint,
    Resolution,
    Source,
    dates,
    make_resolution,
)

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.clock import Clock
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.freshness import Entry
    from airflow_provider_hokusai_dns.resolver.publishing import Publisher
    from airflow_provider_hokusai_dns.resolver.state import ResolverState
    from airflow_provider_hokusai_dns.resolver.target import Target


class _Seen(NamedTuple):
    """What one call saw: an answer is made of this, whatever changes meanwhile."""

    target: Target
    slot: Slot
    version: int
    entry: Entry
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
                 "_slot", "_version", "cause", "count", "keep", "source", "stamp", "tally",
                 "until")  # fmt: skip

    def __init__(
        self,
        seen: _Seen,
        source: Source,
        endpoints: tuple[Endpoint, ...],
        cause: Cause | None,
        clock: Clock,
        hold: float | None = None,
    ) -> None:
        self._endpoints, self._clock = endpoints, clock
        self._slot, self._version, self._config = seen.slot, seen.version, seen.config
        self._made_at = seen.now
        self.source, self.cause = source, cause
        decision = freshness.decide(seen.entry, seen.now, seen.config)
        limits = [decision.until]
        limits += [until for until in seen.slot.penalties.values() if until > seen.now]
        self.keep = decision.action in (Action.FRESH, Action.STALE)
        if hold is not None and not self.keep:
            self.keep = decision.action in _BESIDE_A_LOOKUP
            limits.append(hold)
        self.until = min(limits) if self.keep else seen.now
        self.tally = seen.slot.served.of(source)
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

    def serves(self, seen: _Seen, source: Source) -> bool:
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
                self._slot.penalties,
                self._made_at,
                ipv6_first=self._ipv6_first,
                rotation=self._slot.rotation + turn,
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


@dataclass(frozen=True, slots=True)
class Serving:
    """Serves what is known of a slot."""

    state: ResolverState
    publisher: Publisher

    def known(self, target: Target) -> Resolution | None:
        """A further target of a name whose answers are ready for another one already."""
        slot = self.state.find(target.hostname)
        if slot is None:
            return None
        version, config, turns = slot.version, self.state.config, slot.turns
        if turns is None or self.state.now() >= turns.until:
            return None
        turns.tally.n += 1
        ready = Ready(target, turns)
        self.state.keep(target.text, ready, turns, slot, version, config)
        return ready.next()

    def serve(
        self,
        target: Target,
        slot: Slot,
        now: float,
        *,
        since: float | None = None,
        live: bool = False,
        hold: float | None = None,
    ) -> Resolution:
        """The best that is known now: fresh, stale, stored, static, or the error.

        :param since: when the call began, for a caller that waited for a lookup. An answer that
            came since then is fresh to this caller, however short its lifetime.
        :param live: the caller wants to know what DNS says now, so that an answer whose lifetime is
            not over yet is stale to this caller when the lookup failed.
        :param hold: until when a lookup that is slow may be under way: meanwhile a stale answer is
            served to every caller at once.
        """
        # The version before the rest: if anything changes from here on, the versions differ.
        seen = _Seen(target, slot, slot.version, slot.entry, self.state.config, now)
        config, entry = seen.config, seen.entry
        answer, failure = entry.answer, entry.failure
        cause = None if failure is None else failure.cause
        fresh = now < freshness.expires_at(entry, config)
        if answer is not None and failure is None and _came_since(answer, since):
            self.state.count_miss()
            if not fresh:
                return self._make(seen, answer.source, answer.endpoints, None)
            turns = self._turns(seen, Source.CACHE, answer.endpoints, None)
            if target.text not in self.state.ready:
                self._remember(seen, turns)
            return turns.make(target, source=answer.source)
        if answer is not None and fresh and not (live and failure is not None):
            slot.served.hits.n += 1
            turns = self._turns(seen, Source.CACHE, answer.endpoints, None, hold)
            return self._remember(seen, turns).next()
        if answer is not None and (fresh or now < freshness.stale_until(entry, config)):
            source = Source.STORE if answer.source is Source.STORE else Source.STALE
            endpoints = answer.endpoints
        elif static := config.static_addresses_for(entry.hostname):
            source, endpoints = Source.STATIC, tuple(Endpoint(address) for address in static)
        else:
            self.state.count_failed()
            raise self._error(seen)
        if fresh and source is Source.STALE:  # for this caller only: others are served fresh
            resolution = self._make(seen, source, endpoints, cause)
        else:
            turns = self._turns(seen, source, endpoints, cause, hold)
            resolution = self._remember(seen, turns).next()
        slot.served.of(source).n += 1
        kind = "static_served" if source is Source.STATIC else "stale_served"
        self.state.observers.emit(Event(kind, entry.hostname, cause=cause, resolution=resolution))
        return resolution

    def _turns(
        self,
        seen: _Seen,
        source: Source,
        endpoints: tuple[Endpoint, ...],
        cause: Cause | None,
        hold: float | None = None,
    ) -> Turns:
        """What the answers of the name have in common: what is there, or made now."""
        known = seen.slot.turns
        if known is not None and known.serves(seen, source):
            return known
        return Turns(seen, source, endpoints, cause, self.state.clock, hold)

    def _remember(self, seen: _Seen, turns: Turns) -> Ready:
        """Keep finished resolutions for the hit path, one for each turn of the addresses."""
        ready = Ready(seen.target, turns)
        if turns.keep:
            text = seen.target.text
            self.state.keep(text, ready, turns, seen.slot, seen.version, seen.config)
        return ready

    def _make(
        self, seen: _Seen, source: Source, endpoints: tuple[Endpoint, ...], cause: Cause | None
    ) -> Resolution:
        """A resolution for this caller alone."""
        return Turns(seen, source, endpoints, cause, self.state.clock).make(seen.target)

    def _error(self, seen: _Seen) -> DNSResolutionError:
        entry = seen.entry
        failure = entry.failure or freshness.Failure(Cause.TIMEOUT, 0.0)
        tried = list(failure.tried)
        if entry.answer is not None:
            tried.append(Attempt("stale answer", "older than the policy allows"))
        else:
            tried.append(Attempt("stale answer in memory", "none"))
        tried.append(Attempt("shared store", self.publisher.outcome(seen.slot)))
        tried.append(Attempt("static address", "none configured for this hostname"))
        return DNSResolutionError(entry.hostname, failure.cause, tried, failure.detail)


def _came_since(answer: Answer, since: float | None) -> bool:
    """Whether a live lookup gave this answer after the caller began to wait."""
    return since is not None and answer.resolved_at >= since and answer.source is not Source.STORE
