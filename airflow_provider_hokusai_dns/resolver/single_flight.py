"""One lookup per name, however many threads, tasks and event loops wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.lookup.pending import PendingLookup
from airflow_provider_hokusai_dns.resolver.one_time_event import OneTimeEvent
from airflow_provider_hokusai_dns.resolver.workers import NoThreadError, Workers

#: Seconds after which a thread runs a lookup that its caller has not started to run itself: the
#: caller may have been interrupted in between.
_UNLED = 1.0
#: Puts the outcome of a flight into the cache; returns what remains when no caller waits any more.
Work: TypeAlias = "Callable[[Flight], Callable[[], None]]"


@dataclass(slots=True, eq=False)
class Flight:
    """A lookup in progress. Its two events only signal that the cache can be read now."""

    key: Hashable
    work: Work
    started: float  # monotonic seconds
    #: Done when anything can be served: the lookup ended, or the store had a stale answer.
    early: OneTimeEvent = field(default_factory=OneTimeEvent)
    #: Done when the lookup ended.
    final: OneTimeEvent = field(default_factory=OneTimeEvent)
    _taken: dict[str, object] = field(default_factory=dict)
    #: A caller that writes the store itself waits for it.
    refresh: bool = False
    #: Why it cannot be made at all; empty where it can.
    refused: str = ""
    #: What is under way; ``None`` until it began.
    pending: PendingLookup | None = None
    #: Set where the caller that started it drives it: called with the seconds it has left;
    #: with none it sends its queries, and a thread waits for the answers.
    lead: Callable[[float], None] | None = None
    leader: int | None = None

    @property
    def left_out(self) -> bool:
        """Whether sources were skipped that a caller who joined late may need."""
        return self.pending is not None and self.pending.left_out

    def want_all(self) -> None:
        """Record that a caller joined who needs every source."""
        if self.pending is not None:
            self.pending.thorough = True

    @property
    def failed(self) -> bool:
        """Whether its failure was counted: it was given up, or the store is being read."""
        return "failed" in self._taken

    def take(self, mark: str) -> bool:
        """Set ``store_asked`` or ``failed``; returns whether this caller was the first to.

        Without a lock: a signal handler may come in between.
        """
        caller = object()
        return self._taken.setdefault(mark, caller) is caller


class SingleFlight:
    """Joins callers of one key to one piece of work."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._lock = forks.free_in_child(threading.RLock())
        self._flights: dict[Hashable, Flight] = {}
        forks.renewed(self)

    def join(
        self,
        key: Hashable,
        now: float,
        work: Work,
        *,
        refresh: bool = False,
        wanted: Callable[[], bool] | None = None,
        lead: Callable[[Flight, float], Callable[[], None] | None] | None = None,
    ) -> Flight | None:
        """The flight for a key, started here if there is none.

        :param wanted: whether to start a new flight; called under the lock. One may have landed
            since the caller decided; the caller then gets ``None``, and finds the outcome.
        :param lead: as ``work``, on the caller's own thread, for this many seconds; returns
            ``None`` if ``work`` has to continue. The caller must then call :attr:`Flight.lead`.
        """
        with self._lock:
            flight = self._flights.get(key)
            # In a signal handler, above the frame that drives it: nothing would ever come of it.
            if flight is not None and flight.leader != threading.get_ident():
                if refresh:
                    flight.refresh = True
                    flight.want_all()
                if flight.lead is None or now - flight.started <= _UNLED:
                    return flight
                flight.lead = lead = None
            elif wanted is not None and not wanted():
                return None
            else:
                flight = self._flights[key] = Flight(key, work, now, refresh=refresh)
                if lead is not None:
                    flight.leader = threading.get_ident()
                    flight.lead = partial(self._lead, flight, lead)
        if lead is None:
            self._start(flight, beside=True)
        return flight

    def _start(self, flight: Flight, *, beside: bool) -> None:
        try:
            self._workers.run(partial(self._run, flight), beside=beside)
        except NoThreadError as error:
            flight.refused = str(error)
            self._run(flight)

    def _run(self, flight: Flight) -> None:
        try:
            afterwards = flight.work(flight)
        finally:
            self._end(flight)
        afterwards()

    def _lead(
        self,
        flight: Flight,
        lead: Callable[[Flight, float], Callable[[], None] | None],
        seconds: float,
    ) -> None:
        flight.lead = None
        afterwards = None
        try:
            afterwards = lead(flight, seconds)
        finally:  # also where the caller was interrupted: others wait for it
            flight.leader = None
            if afterwards is None:
                self._start(flight, beside=not seconds)
        if afterwards is not None:
            self._end(flight)
            afterwards()

    def _end(self, flight: Flight) -> None:
        # Only its creator removes it, and always; a caller that asks now finds the cache.
        with self._lock:
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
        flight.early.set()
        flight.final.set()

    def busy(self, key: Hashable) -> bool:
        """Whether a lookup is in progress."""
        return key in self._flights

    def renew_after_fork(self) -> None:
        """Forget the parent's flights: its threads do not exist in the child."""
        self._flights = {}
