"""Keeps entries true: live lookups on worker threads, and what follows from their outcome."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.metrics import Counters, Event
from airflow_provider_hokusai_dns.resolver.model import Answer, Attempt, Cause, Lookup
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
    :param invalidate: called under the lock with a slot whose finished resolutions are void.
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
    invalidate: Callable[[Slot], None]

    def start_or_join(
        self, slot: Slot, *, refresh: bool = False, seen: int | None = None
    ) -> Flight | None:
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
            lambda flight: self._run_lookup(slot, flight),
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
            if self.clock.monotonic() < freshness.stale_until(slot.entry, self.config):
                flight.land_early()

        self.workers.run(ask)

    def give_up(self, slot: Slot, flight: Flight) -> None:
        """The lookup hangs past its bound: count it as failed once, and let it go on alone."""
        with self.lock:
            if flight.failed or flight.final.done():
                return
            flight.failed = True
        seconds = self.clock.monotonic() - flight.started
        tried = (Attempt("live lookup", "no outcome", seconds),)
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

    def _run_lookup(self, slot: Slot, flight: Flight) -> Callable[[], None]:
        """One live lookup, on a worker thread; returns what to do once the callers are gone."""
        hostname = slot.entry.hostname
        entry = slot.entry
        started = self.clock.monotonic()
        thorough = (
            flight.refresh
            or any(until > started for until in slot.penalties.values())  # the old one is no good
            or freshness.wants_all_sources(entry, started, self.config)
        )
        try:
            answer = self.lookup.lookup(
                hostname,
                timeout=self.config.timeout,
                hint=None if entry.answer is None else entry.answer.name,
                thorough=thorough,
            )
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
            return lambda: self.announce(slot)
        self._succeeded(slot, answer, self.clock.monotonic() - started, again=flight.failed)

        def afterwards() -> None:
            self.announce(slot)
            if not flight.refresh:
                self.publisher.after_success(slot, self.config)

        return afterwards

    def _succeeded(self, slot: Slot, answer: Answer, seconds: float, *, again: bool) -> None:
        now = self.clock.monotonic()
        with self.lock:
            answer = replace(answer, resolved_at=now)
            # Not for secrecy: jitter only has to differ between processes.
            slot.entry = freshness.succeed(slot.entry, answer, random.random())  # noqa: S311
            slot.rotation += 1
            slot.penalties = {a: until for a, until in slot.penalties.items() if until > now}
            self.invalidate(slot)
            self.counters.lookups += not again
            self.counters.last_success, self.counters.latency = now, seconds
            self.counters.window.add(now, ok=True)
        self.observers.emit(Event("lookup", slot.entry.hostname, seconds=seconds))

    def _failed(
        self, slot: Slot, failed: LookupFailed, seconds: float, *, again: bool = False
    ) -> None:
        now = self.clock.monotonic()
        with self.lock:
            slot.entry = freshness.fail(
                slot.entry, failed.cause, now, failed.detail, failed.tried, again=again
            )
            self.invalidate(slot)
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
