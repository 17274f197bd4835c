"""Keeps entries up to date: runs live lookups on worker threads, and handles their outcome."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from traceback import walk_tb
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.errors import LookupFailed
from airflow_provider_hokusai_dns.resolver.lookup.pending import PendingLookup, begin
from airflow_provider_hokusai_dns.resolver.model import Answer, Attempt, Cause, Lookup
from airflow_provider_hokusai_dns.resolver.single_flight import Flight, SingleFlight
from airflow_provider_hokusai_dns.resolver.workers import NoThreadError, Workers

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.cache import Slot
    from airflow_provider_hokusai_dns.resolver.publishing import Publisher
    from airflow_provider_hokusai_dns.resolver.state import ResolverState

#: Seconds until a store whose answer was late is asked for it again.
_STORE_PAUSE = 0.25


@dataclass(slots=True)
class Updater:
    """Starts lookups, and passes their outcome to the state.

    :param lookup: the live lookup; replaced when the configuration changes.
    """

    state: ResolverState
    lookup: Lookup
    workers: Workers
    flights: SingleFlight
    publisher: Publisher

    def start_or_join(
        self, slot: Slot, *, refresh: bool = False, seen: int | None = None, lead: bool = False
    ) -> Flight | None:
        """The lookup in progress for a name, started now if there is none.

        Callers join by slot and not by name: a lookup writes to the slot for which it was started;
        if that has been dropped, callers that joined by name would get nothing.

        :param refresh: whether the caller writes the store itself.
        :param seen: the version of the slot on which the caller based its decision. If it has
            changed and no lookup is in progress, none is started: ``None`` means "decide again".
        :param lead: whether the caller runs a lookup that is started for it (:attr:`Flight.lead`):
            a quick answer then needs no other thread.
        """
        return self.flights.join(
            slot,
            self.state.now(),
            lambda flight: self._run_lookup(slot, flight),
            refresh=refresh,
            wanted=None if seen is None else lambda: slot.version == seen,
            lead=partial(self._lead_lookup, slot) if lead else None,
        )

    def ask_store(self, slot: Slot, flight: Flight) -> None:
        """Read the shared store during a slow lookup, once per flight (policy rule 3).

        If it is slow as well, its answer is waited for as long as the lookup may take.
        """
        if not flight.take("store_asked"):
            return

        def ask() -> None:
            end = flight.started + self.state.config.timeout
            while not self.publisher.consult(slot):
                if flight.final.wait(_STORE_PAUSE) or self.state.now() >= end:
                    return
            if self.state.now() < freshness.stale_until(slot.entry, self.state.config):
                flight.early.set()

        with contextlib.suppress(NoThreadError):
            self.workers.run(ask, beside=True)

    def give_up(self, slot: Slot, flight: Flight) -> None:
        """Count a lookup that exceeds its time limit as failed, once; it continues on its own."""
        if flight.final.is_set() or not flight.take("failed"):
            return
        seconds = self.state.now() - flight.started
        tried = [] if flight.pending is None else flight.pending.attempts()
        tried = tried or [Attempt("live lookup", "no outcome", seconds)]
        failed = LookupFailed(Cause.TIMEOUT, f"no outcome within {seconds:.1f} s", tried)
        self.state.failed(slot, failed, seconds)
        self.state.announce(slot)

    def _begin(self, slot: Slot, flight: Flight) -> PendingLookup:
        entry, config, now = slot.entry, self.state.config, self.state.now()
        thorough = (
            flight.refresh
            or any(until > now for until in slot.penalties.values())  # its address failed
            or freshness.wants_all_sources(entry, now, config)
        )
        pending = flight.pending = begin(
            self.lookup,
            entry.hostname,
            timeout=config.timeout,
            hint=None if entry.answer is None else entry.answer.name,
            thorough=thorough,
        )
        if flight.refresh:  # one may have joined meanwhile
            flight.want_all()
        return pending

    def _lead_lookup(self, slot: Slot, flight: Flight, seconds: float) -> Callable[[], None] | None:
        """One live lookup on the caller's thread; ``None`` if a worker has to continue it.

        That is the case if it takes longer than the caller can wait, or if the store must be read.
        """
        pending: PendingLookup | None = None
        try:
            pending = self._begin(slot, flight)
            if not pending.can_be_driven or not pending.run(seconds):
                return None
        except BaseException as error:
            # A signal handler may raise anything in here. The worker begins again.
            if pending is not None:
                pending.close()
            flight.pending = None
            if isinstance(error, Exception) and not _is_foreign(error):
                return None
            raise
        if self.publisher.store is not None and not isinstance(pending.outcome, Answer):
            return None
        taken = self._conclude(slot, flight, pending)

        def afterwards() -> None:
            rest = partial(self._afterwards, slot, flight, pending, taken)
            is_due = taken is not None and self.publisher.is_due(slot) and not flight.refresh
            if not is_due and pending.is_over():
                rest()
                return
            try:
                self.workers.run(rest, beside=True)
            except NoThreadError:  # the next lookup makes up for it
                pending.close()

        return afterwards

    def _run_lookup(self, slot: Slot, flight: Flight) -> Callable[[], None]:
        """One live lookup, on a worker thread; returns the work for after the callers have left."""
        pending = flight.pending
        try:
            if flight.refused:
                raise LookupFailed(Cause.NETWORK, flight.refused)
            pending = pending or self._begin(slot, flight)
            pending.run(self.state.config.timeout)
        except Exception as error:
            if pending is not None:
                pending.close()
            if not isinstance(error, LookupFailed):
                error = LookupFailed(Cause.MALFORMED, f"{type(error).__name__}: {error}")
            pending = PendingLookup(error)
        taken = self._conclude(slot, flight, pending)
        return partial(self._afterwards, slot, flight, pending, taken)

    def _conclude(self, slot: Slot, flight: Flight, pending: PendingLookup) -> Answer | None:
        """Pass the outcome to the state; returns the answer as recorded, if there is one."""
        state, outcome = self.state, pending.outcome
        seconds = state.now() - flight.started
        if isinstance(outcome, Answer) and outcome.endpoints:
            return state.succeeded(slot, outcome, seconds, again=flight.failed)
        if not isinstance(outcome, LookupFailed):
            outcome = LookupFailed(Cause.NODATA, "the answer held no address")
        state.failed(slot, outcome, seconds, again=not flight.take("failed"))
        if not flight.refused:
            self.publisher.consult(slot)
        return None

    def _afterwards(
        self, slot: Slot, flight: Flight, pending: PendingLookup, taken: Answer | None
    ) -> None:
        """The work that remains after the callers have left."""
        state = self.state
        state.announce(slot)
        if taken is not None and (flight.failed or not flight.refresh):  # else its caller does
            self.publisher.after_lookup(slot)

        def take(answer: Answer) -> None:
            """Record a better answer of the same lookup."""
            nonlocal taken
            now, entry = state.now(), slot.entry
            is_fresh = entry.failure is None and now < freshness.expires_at(entry, state.config)
            if is_fresh and entry.answer is not taken:  # another lookup was there before it
                return
            taken = state.succeeded(slot, answer, now - flight.started, again=True)
            state.announce(slot)
            self.publisher.after_lookup(slot)

        pending.go_on(take)


def _is_foreign(error: BaseException) -> bool:
    """Whether an error comes from code that a lookup does not call, such as a signal handler."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    package = module.partition(".")[0]
    return package not in (__name__.partition(".")[0], "dns") and (
        package not in sys.stdlib_module_names
    )
