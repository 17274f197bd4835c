"""What one caller gets: a fresh, stale, stored or static address, or the error.

Answers are built once, from entries, and kept for the hit path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.model import (
    Answer,
    Attempt,
    Cause,
    Endpoint,
    Resolution,
    Source,
)
from airflow_provider_hokusai_dns.resolver.ready import Ready, Seen, Turns
from airflow_provider_hokusai_dns.resolver.target import Target

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.cache import Slot
    from airflow_provider_hokusai_dns.resolver.publishing import Publisher
    from airflow_provider_hokusai_dns.resolver.state import ResolverState


@dataclass(frozen=True, slots=True)
class Serving:
    """Serves the best known answer of a slot."""

    state: ResolverState
    publisher: Publisher

    def known(self, text: str) -> Resolution | None:
        """The answer for a new target, from the finished answers of its hostname.

        :returns: ``None`` if there are none.
        :raises ValueError: the target is invalid.
        """
        head, state = Target.head(text), self.state
        slot = state.find(head.hostname)
        if slot is None:
            return None
        version, config, turns = slot.version, state.config, slot.turns
        if turns is None or state.now() >= turns.until:
            return None
        turns.tally.n += 1
        ready = Ready.of(text, head, turns)
        state.keep(text, ready, slot, version, config)
        return ready.next()

    def serve(
        self,
        target: Target,
        slot: Slot,
        now: float,
        *,
        since: float | None = None,
        live: bool = False,
        hold: tuple[float, int] | None = None,
    ) -> Resolution:
        """The best answer known now, by the rules of :mod:`.freshness`: fresh, stale or static.

        :param since: when the call began, for a caller that waited for a lookup. An answer that
            arrived after that is fresh for this caller, however short its lifetime.
        :param live: the caller wants the current answer of DNS: if the lookup failed, an answer
            within its lifetime is stale for this caller.
        :param hold: until when a slow lookup may run: during that time every caller is served a
            stale answer at once. Not if it has ended: the slot then has another version than this.
        :raises DNSResolutionError: there is no address to serve.
        """
        # The version before the rest: if anything changes from here on, the versions differ.
        version = slot.version
        until = None if hold is None or hold[1] != version else hold[0]
        seen = Seen(version, slot.entry, slot.penalties, slot.rotation, self.state.config, now)
        config, entry = seen.config, seen.entry
        answer, failure = entry.answer, entry.failure
        cause = None if failure is None else failure.cause
        fresh = now < freshness.expires_at(entry, config)
        if answer is not None and failure is None and _came_since(answer, since):
            self.state.count_miss()
            if not fresh:
                turns = self._turns(slot, seen, answer.source, answer.endpoints, None, own=True)
                return turns.make(target.text, target)
            turns = self._turns(slot, seen, Source.CACHE, answer.endpoints, None)
            if target.text not in self.state.ready:
                self._remember(target, slot, seen, turns)
            return turns.make(target.text, target, source=answer.source)
        if answer is not None and fresh and not (live and failure is not None):
            turns = self._turns(slot, seen, Source.CACHE, answer.endpoints, None, until)
            turns.tally.n += 1
            return self._remember(target, slot, seen, turns).next()
        if answer is not None and (fresh or now < freshness.stale_until(entry, config)):
            source = Source.STORE if answer.source is Source.STORE else Source.STALE
            endpoints = answer.endpoints
        elif static := config.static_addresses_for(entry.hostname):
            source, endpoints = Source.STATIC, tuple(Endpoint(address) for address in static)
        else:
            self.state.count_failed()
            raise self._error(slot, seen)
        if fresh and source is Source.STALE:  # for this caller only: others are served fresh
            turns = self._turns(slot, seen, source, endpoints, cause, own=True)
            resolution = turns.make(target.text, target)
        else:
            turns = self._turns(slot, seen, source, endpoints, cause, until)
            resolution = self._remember(target, slot, seen, turns).next()
        self.state.tally(slot, source).n += 1
        kind = "static_served" if source is Source.STATIC else "stale_served"
        self.state.observers.emit(kind, entry.hostname, cause=cause, resolution=resolution)
        return resolution

    def _turns(
        self,
        slot: Slot,
        seen: Seen,
        source: Source,
        endpoints: tuple[Endpoint, ...],
        cause: Cause | None,
        hold: float | None = None,
        *,
        own: bool = False,
    ) -> Turns:
        """The shared part of the name's answers: the existing one, or a new one.

        :param own: for one caller only, so never the existing one.
        """
        known, state = slot.turns, self.state
        if not own and known is not None and known.source is source and seen.now < known.until:
            return known
        tally = state.tally(slot, source)
        return Turns(seen, source, endpoints, cause, state.clock, state.wall_offset(), tally, hold)

    def _remember(self, target: Target, slot: Slot, seen: Seen, turns: Turns) -> Ready:
        """Keep finished resolutions for the hit path, one for each turn of the addresses."""
        ready = Ready.of(target.text, target, turns)
        if seen.now < turns.until:
            self.state.keep(target.text, ready, slot, seen.version, seen.config)
        return ready

    def _error(self, slot: Slot, seen: Seen) -> DNSResolutionError:
        entry = seen.entry
        failure = entry.failure or freshness.Failure(Cause.TIMEOUT, 0.0)
        tried = list(failure.tried)
        is_known = entry.answer is not None
        if is_known:
            tried.append(Attempt("stale answer", "its limit has passed"))
        else:
            tried.append(Attempt("stale answer in memory", "none"))
        outcome, is_unread = self.publisher.outcome(slot)
        tried.append(Attempt("shared store", outcome))
        tried.append(Attempt("static address", "none configured for this hostname"))
        return DNSResolutionError(
            entry.hostname, failure.cause, tried, failure.detail, is_known, is_unread
        )


def _came_since(answer: Answer, since: float | None) -> bool:
    """Whether a live lookup returned this answer after the caller began to wait."""
    return since is not None and answer.resolved_at >= since and answer.source is not Source.STORE
