"""Keeps entries true: live lookups on worker threads, and what follows from their outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.model import Attempt, Cause, Lookup
from airflow_provider_hokusai_dns.resolver.single_flight import Flight, SingleFlight

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.cache import Slot
    from airflow_provider_hokusai_dns.resolver.publishing import Publisher
    from airflow_provider_hokusai_dns.resolver.state import ResolverState
    from airflow_provider_hokusai_dns.resolver.workers import Workers


@dataclass(slots=True)
class Updater:
    """Starts lookups, and hands their outcome to the state.

    :param lookup: the live lookup; another one takes its place with another configuration.
    """

    state: ResolverState
    lookup: Lookup
    workers: Workers
    flights: SingleFlight
    publisher: Publisher

    def start_or_join(
        self, slot: Slot, *, refresh: bool = False, seen: int | None = None
    ) -> Flight | None:
        """The lookup under way for a name, started now if there is none.

        Joined by slot and not by name: a lookup writes into the slot it was started for, and one
        that was dropped meanwhile would leave those who join it with nothing.

        :param refresh: the caller will write the store himself.
        :param seen: the version of the slot on which the caller decided. Where it is another by
            now, and no lookup is under way, none is started: ``None`` means "decide again".
        """
        return self.flights.join(
            slot,
            self.state.now(),
            lambda flight: self._run_lookup(slot, flight),
            refresh=refresh,
            wanted=None if seen is None else lambda: slot.version == seen,
        )

    def busy(self, slot: Slot) -> bool:
        """Whether a lookup is under way."""
        return self.flights.current(slot) is not None

    def ask_store(self, slot: Slot, flight: Flight) -> None:
        """Ask the shared store beside a slow lookup, once per flight (policy rule 3)."""
        if not flight.take("store_asked"):
            return

        def ask() -> None:
            self.publisher.consult(slot)
            if self.state.now() < freshness.stale_until(slot.entry, self.state.config):
                flight.land_early()

        self.workers.run(ask)

    def give_up(self, slot: Slot, flight: Flight) -> None:
        """The lookup hangs past its bound: count it as failed once, and let it go on alone."""
        if flight.final.done() or not flight.take("failed"):
            return
        seconds = self.state.now() - flight.started
        tried = (Attempt("live lookup", "no outcome", seconds),)
        failed = LookupFailed(Cause.TIMEOUT, f"no outcome within {seconds:.1f} s", tried)
        self.state.failed(slot, failed, seconds)
        self.state.announce(slot)

    def _run_lookup(self, slot: Slot, flight: Flight) -> Callable[[], None]:
        """One live lookup, on a worker thread; returns what to do once the callers are gone."""
        state = self.state
        entry, config, started = slot.entry, state.config, state.now()
        thorough = (
            flight.refresh
            or any(until > started for until in slot.penalties.values())  # the old one is no good
            or freshness.wants_all_sources(entry, started, config)
        )
        try:
            answer = self.lookup.lookup(
                entry.hostname,
                timeout=config.timeout,
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
            again = not flight.take("failed")
            state.failed(slot, failed, state.now() - started, again=again)
            self.publisher.consult(slot)
            return lambda: state.announce(slot)
        state.succeeded(slot, answer, state.now() - started, again=flight.failed)

        def afterwards() -> None:
            state.announce(slot)
            if not flight.refresh:
                self.publisher.after_lookup(slot)

        return afterwards
