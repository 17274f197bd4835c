"""Keeps entries true: live lookups on worker threads, and what follows from their outcome."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.lookup.search import begin
from airflow_provider_hokusai_dns.resolver.metrics import Counters, Event
from airflow_provider_hokusai_dns.resolver.model import (
    Answer,
    Attempt,
    Cause,
    Lookup,
    LookupFailed,
    Search,
)
from airflow_provider_hokusai_dns.resolver.single_flight import Flight, SingleFlight

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.cache import Slot
    from airflow_provider_hokusai_dns.resolver.clock import Clock
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.observers import Observers
    from airflow_provider_hokusai_dns.resolver.publishing import Publisher
    from airflow_provider_hokusai_dns.resolver.workers import Workers


@dataclass(slots=True)
class Updater:
    """Starts lookups and writes their outcome into slots.

    :param lock: the resolver's own, under which entries are replaced.
    :param outdated: called under the lock with a slot whose finished resolutions are void.
    """

    config: ResolverConfig
    lookup: Lookup
    clock: Clock
    lock: threading.RLock
    workers: Workers
    flights: SingleFlight
    publisher: Publisher
    counters: Counters
    observers: Observers
    outdated: Callable[[Slot], None]

    def fly(self, slot: Slot, *, refresh: bool = False, seen: int | None = None) -> Flight | None:
        """The lookup under way for a name, started now if there is none.

        Joined by slot and not by name: a lookup writes into the slot it was started for, and one
        that was dropped meanwhile would leave those who join it with nothing.

        :param refresh: the caller will write the store himself.
        :param seen: the version of the slot on which the caller decided. Where it is another by
            now, and no lookup is under way, none is started: ``None`` means "decide anew".
        """
        return self.flights.join(
            slot,
            self.clock.monotonic(),
            lambda flight: self._look(slot, flight),
            refresh=refresh,
            wanted=None if seen is None else lambda: slot.version == seen,
        )

    def busy(self, slot: Slot) -> bool:
        """Whether a lookup is under way."""
        return self.flights.current(slot) is not None

    def ask_store(self, slot: Slot, flight: Flight) -> None:
        """Ask the shared store beside a slow lookup, once per flight (policy rule 3)."""
        with self.lock:
            if flight.store_asked:
                return
            flight.store_asked = True

        def ask() -> None:
            self.publisher.consult(slot, self.config)
            if self.clock.monotonic() < freshness.old_until(slot.entry, self.config):
                flight.land_early()

        self.workers.run(ask)

    def give_up(self, slot: Slot, flight: Flight) -> None:
        """The lookup hangs past its bound: count it as failed once, and let it go on alone."""
        with self.lock:
            if flight.failed or flight.final.done():
                return
            flight.failed = True
        seconds = self.clock.monotonic() - flight.started
        tried = [] if flight.search is None else flight.search.attempts()
        tried = tried or [Attempt("live lookup", "no outcome", seconds)]
        self._failed(
            slot, LookupFailed(Cause.TIMEOUT, f"no outcome within {seconds:.1f} s", tried), seconds
        )
        self.announce(slot)

    def announce(self, slot: Slot) -> None:
        """Tell observers when the state of a name is another than the one they know."""
        now = self.clock.monotonic()
        with self.lock:
            entry = slot.entry
            state = freshness.state(entry, now, self.config)
            previous, slot.announced = slot.announced, state
        if state != previous:
            failure = entry.failure
            self.observers.emit(
                Event(
                    "state",
                    entry.hostname,
                    cause=None if failure is None else failure.cause,
                    state=state,
                    previous=previous,
                    detail="" if failure is None else failure.detail,
                )
            )

    def _look(self, slot: Slot, flight: Flight) -> Callable[[], None]:
        """One live lookup, on a worker thread; returns what to do once the callers are gone."""
        hostname = slot.entry.hostname
        entry = slot.entry
        started = self.clock.monotonic()
        thorough = (
            flight.refresh
            or any(until > started for until in slot.penalties.values())  # the old one is no good
            or freshness.wants_all_sources(entry, started, self.config)
        )
        search: Search | None = None
        try:
            search = flight.search = begin(
                self.lookup,
                hostname,
                timeout=self.config.timeout,
                hint=None if entry.answer is None else entry.answer.name,
                thorough=thorough,
            )
            if flight.refresh:  # somebody may have joined meanwhile
                flight.want_all()
            search.run(self.config.timeout)
            answer = search.result()
            if not answer.endpoints:
                raise LookupFailed(Cause.NODATA, "the answer held no address")
        except Exception as error:
            if isinstance(error, LookupFailed):
                failed = error
            else:
                failed = LookupFailed(Cause.MALFORMED, f"{type(error).__name__}: {error}")
            with self.lock:
                again, flight.failed = flight.failed, True
            self._failed(slot, failed, self.clock.monotonic() - started, again=again)
            self.publisher.consult(slot, self.config)
            return partial(self._afterwards, slot, flight, search, None)
        taken = self._succeeded(slot, answer, self.clock.monotonic() - started, again=flight.failed)
        return partial(self._afterwards, slot, flight, search, taken)

    def _afterwards(
        self, slot: Slot, flight: Flight, search: Search | None, taken: Answer | None
    ) -> None:
        """What is left to do when the callers are gone.

        :param taken: the answer that the lookup gave.
        """
        self.announce(slot)
        if taken is not None and not flight.refresh:
            self.publisher.after_success(slot, self.config)
        if search is None:
            return

        def take(answer: Answer) -> None:
            """A better answer of the same lookup."""
            nonlocal taken
            now = self.clock.monotonic()
            entry = slot.entry
            is_fresh = entry.failure is None and now < freshness.expires_at(entry, self.config)
            if is_fresh and entry.answer is not taken:  # another lookup was there before it
                return
            taken = self._succeeded(slot, answer, now - flight.started, again=True)
            self.announce(slot)
            self.publisher.after_success(slot, self.config)

        search.go_on(take)

    def _succeeded(self, slot: Slot, answer: Answer, seconds: float, *, again: bool) -> Answer:
        now = self.clock.monotonic()
        with self.lock:
            answer = replace(answer, resolved_at=now)
            # Not for secrecy: jitter only has to differ between processes.
            slot.entry = freshness.succeed(slot.entry, answer, random.random())  # noqa: S311
            slot.rotation += 1
            slot.penalties = {a: until for a, until in slot.penalties.items() if until > now}
            self.outdated(slot)
            self.counters.lookups += not again
            self.counters.last_success, self.counters.latency = now, seconds
            self.counters.window.add(now, ok=True)
        self.observers.emit(Event("lookup", slot.entry.hostname, seconds=seconds))
        return answer

    def _failed(
        self, slot: Slot, failed: LookupFailed, seconds: float, *, again: bool = False
    ) -> None:
        now = self.clock.monotonic()
        with self.lock:
            slot.entry = freshness.fail(
                slot.entry, failed.cause, now, failed.detail, failed.tried, again=again
            )
            self.outdated(slot)
            if again:  # counted and told when it was given up
                return
            self.counters.lookups += 1
            self.counters.errors[failed.cause.value] += 1
            self.counters.window.add(now, ok=False)
        self.observers.emit(
            Event(
                "lookup_failed",
                slot.entry.hostname,
                cause=failed.cause,
                seconds=seconds,
                detail=failed.detail,
            )
        )
