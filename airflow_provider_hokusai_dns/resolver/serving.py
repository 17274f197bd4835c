"""Makes finished answers out of entries, and keeps them for the hit path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, repeat
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.cache import Slot, in_order
from airflow_provider_hokusai_dns.resolver.freshness import Action
from airflow_provider_hokusai_dns.resolver.lookup.live import ipv6_is_routable
from airflow_provider_hokusai_dns.resolver.metrics import Counters, Event, Tally
from airflow_provider_hokusai_dns.resolver.model import (
    Answer,
    Attempt,
    Cause,
    DNSResolutionError,
    Endpoint,
    Resolution,
    Source,
    make_resolution,
)

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.clock import Clock
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.freshness import Entry
    from airflow_provider_hokusai_dns.resolver.observers import Observers
    from airflow_provider_hokusai_dns.resolver.publishing import Publisher
    from airflow_provider_hokusai_dns.resolver.target import Target


class Ready:
    """Finished resolutions for one target string, good until a moment in time."""

    __slots__ = ("hostname", "next", "tally", "until")

    def __init__(self, resolutions: list[Resolution], tally: Tally, until: float) -> None:
        self.hostname = resolutions[0].hostname
        turns = cycle(resolutions) if len(resolutions) > 1 else repeat(resolutions[0])
        self.next: Callable[[], Resolution] = turns.__next__
        self.tally = tally
        self.until = until


class _Seen(NamedTuple):
    """What one call saw: an answer is made of this, whatever changes meanwhile."""

    target: Target
    slot: Slot
    version: int
    entry: Entry
    config: ResolverConfig
    now: float


@dataclass(slots=True)
class Serving:
    """Serves what is known of a slot.

    :param lock: the resolver's own.
    :param ready: finished resolutions by target string; read without the lock.
    """

    config: ResolverConfig
    _clock: Clock
    lock: threading.RLock
    _counters: Counters
    _observers: Observers
    _publisher: Publisher
    ready: dict[str, Ready] = field(default_factory=dict)

    def outdated(self, slot: Slot) -> None:
        """Take finished resolutions of a name off the hit path, under the lock.

        To be called after the change, not before: see :meth:`_remember`.
        """
        slot.version += 1
        hostname = slot.entry.hostname
        # Lookups are rare, so a scan will do.
        for key in [key for key, ready in self.ready.items() if ready.hostname == hostname]:
            del self.ready[key]

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
        """The best that is known now: fresh, old, stored, static, or the error.

        :param since: when the call began, for a caller who waited for a lookup. An answer that came
            since then is fresh to him, however short its lifetime.
        :param live: the caller wants to know what DNS says now, so that an answer whose lifetime is
            not over yet is old to him when the lookup failed.
        :param hold: until when a lookup that is slow may be under way: meanwhile an old answer is
            for everybody, at once.
        """
        # The version before the rest: if anything changes from here on, the versions differ.
        seen = _Seen(target, slot, slot.version, slot.entry, self.config, now)
        config, entry = seen.config, seen.entry
        answer, failure = entry.answer, entry.failure
        cause = None if failure is None else failure.cause
        fresh = now < freshness.expires_at(entry, config)
        if answer is not None and failure is None and _came_since(answer, since):
            if fresh:
                self._remember(seen, Source.CACHE, answer.endpoints, None)
            with self.lock:
                self._counters.misses += 1
            return self._make(seen, answer.source, answer.endpoints, None)
        if answer is not None and fresh and not (live and failure is not None):
            slot.served.hits.n += 1
            return self._remember(seen, Source.CACHE, answer.endpoints, None).next()
        if answer is not None and (fresh or now < freshness.old_until(entry, config)):
            source = Source.STORE if answer.source is Source.STORE else Source.STALE
            endpoints = answer.endpoints
        elif static := config.static_addresses_for(entry.hostname):
            source, endpoints = Source.STATIC, tuple(Endpoint(address) for address in static)
        else:
            with self.lock:
                self._counters.failed += 1
            raise self._error(seen)
        if fresh and source is Source.STALE:  # for this caller only: others are served fresh
            resolution = self._make(seen, source, endpoints, cause)
        else:
            resolution = self._remember(seen, source, endpoints, cause, hold).next()
        slot.served.of(source).n += 1
        kind = "static_served" if source is Source.STATIC else "stale_served"
        self._observers.emit(Event(kind, entry.hostname, cause=cause, resolution=resolution))
        return resolution

    def _remember(
        self,
        seen: _Seen,
        source: Source,
        endpoints: tuple[Endpoint, ...],
        cause: Cause | None,
        hold: float | None = None,
    ) -> Ready:
        """Keep finished resolutions for the hit path, one for each turn of the addresses.

        Not kept when the slot or the configuration changed while they were made: the change took
        away what stood there, and an older answer must not come after it.
        """
        slot, now = seen.slot, seen.now
        decision = freshness.decide(seen.entry, now, seen.config)
        limits = [until for until in slot.penalties.values() if until > now]
        keep = decision.action in (Action.FRESH, Action.OLD)
        if hold is not None and decision.action is Action.OLD_WAIT:
            keep = True
            limits.append(hold)
        until = min([decision.until, *limits]) if keep else now
        ready = Ready(
            [
                self._make(seen, source, endpoints, cause, turn)
                for turn in range(len(endpoints) if keep else 1)
            ],
            slot.served.of(source),
            until,
        )
        if keep:
            with self.lock:
                if slot.held and slot.version == seen.version and self.config is seen.config:
                    if len(self.ready) >= 4 * seen.config.max_hosts:
                        self.ready.clear()
                    self.ready[seen.target.text] = ready
        return ready

    def _make(
        self,
        seen: _Seen,
        source: Source,
        endpoints: tuple[Endpoint, ...],
        cause: Cause | None,
        turn: int = 0,
    ) -> Resolution:
        known = None if source is Source.STATIC else seen.entry.answer
        stamp = None if known is None else known.resolved_at
        expires = freshness.expires_at(seen.entry, seen.config)
        return make_resolution(
            seen.target,
            in_order(
                endpoints,
                seen.slot.penalties,
                seen.now,
                ipv6_first=len(endpoints) > 1 and ipv6_is_routable(),
                rotation=seen.slot.rotation + turn,
            ),
            source,
            clock=self._clock,
            stamp=stamp,
            expires=None if stamp is None or expires < stamp else expires,
            stale_until=freshness.old_until(seen.entry, seen.config)
            if source in (Source.STALE, Source.STORE)
            else None,
            cause=cause,
        )

    def _error(self, seen: _Seen) -> DNSResolutionError:
        entry = seen.entry
        failure = entry.failure or freshness.Failure(Cause.TIMEOUT, 0.0)
        tried = list(failure.tried)
        if entry.answer is not None:
            tried.append(Attempt("old answer", "older than the policy allows"))
        else:
            tried.append(Attempt("old answer in memory", "none"))
        tried.append(Attempt("shared store", self._publisher.outcome(seen.slot)))
        tried.append(Attempt("static address", "none configured for this hostname"))
        return DNSResolutionError(entry.hostname, failure.cause, tried, failure.detail)


def _came_since(answer: Answer, since: float | None) -> bool:
    """Whether a live lookup gave this answer after the caller began to wait."""
    return since is not None and answer.resolved_at >= since and answer.source is not Source.STORE
