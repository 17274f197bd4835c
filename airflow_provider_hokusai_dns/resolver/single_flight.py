"""One lookup per name, however many threads, tasks and event loops wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from functools import partial

from airflow_provider_hokusai_dns import forks
from airflow_provider_hokusai_dns.resolver.landing import Landing
from airflow_provider_hokusai_dns.resolver.lookup.search import Search
from airflow_provider_hokusai_dns.resolver.workers import NoThreadError, Workers

#: Seconds after which a lookup whose caller has not begun to drive it is driven by a thread: it may
#: have been interrupted in between.
_UNLED = 1.0


class Flight:
    """A lookup under way. Its two moments only tell that something can be read from the cache now.

    :param started: monotonic seconds.
    """

    __slots__ = (
        "_lock",
        "early",
        "failed",
        "final",
        "lead",
        "leader",
        "refresh",
        "refused",
        "search",
        "started",
        "store_asked",
    )

    def __init__(self, started: float) -> None:
        self.started = started
        self._lock = threading.Lock()
        #: Done when anything can be served: the lookup ended, or the store had a stale answer.
        self.early = Landing()
        #: Done when the lookup ended.
        self.final = Landing()
        self.store_asked = False
        #: Its failure was counted: it was given up, or it ended, and the store is being asked.
        self.failed = False
        #: A caller waits for it that writes the store itself.
        self.refresh = False
        #: Why it cannot be made at all; empty where it can.
        self.refused = ""
        #: What is under way; ``None`` until it began.
        self.search: Search | None = None
        #: Set where the caller that started it drives it: called with the seconds it has left,
        #: or with ``None`` to have it driven by a thread.
        self.lead: Callable[[float | None], None] | None = None
        self.leader: int | None = None

    @property
    def left_out(self) -> bool:
        """Whether sources were left out that a caller that joined late may want."""
        return self.search is not None and self.search.left_out

    def want_all(self) -> None:
        """A caller joined that wants every source asked."""
        if self.search is not None:
            self.search.thorough = True

    def take(self, mark: str) -> bool:
        """Set ``store_asked`` or ``failed``; returns whether this caller was the first to."""
        with self._lock:
            first = not getattr(self, mark)
            setattr(self, mark, True)
            return first

    def land(self) -> None:
        """Wake all waiters."""
        self.early.land()
        self.final.land()


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
        work: Callable[[Flight], Callable[[], None]],
        *,
        refresh: bool = False,
        wanted: Callable[[], bool] | None = None,
        lead: Callable[[Flight, float], Callable[[], None] | None] | None = None,
    ) -> Flight | None:
        """The flight for a key, started here if there is none.

        :param work: runs on a worker thread; puts its outcome into the cache itself, and returns
            what is left to do once no caller waits.
        :param wanted: whether a new flight is; asked under the lock. One may have landed since the
            caller decided that it needs one; the caller then gets ``None``, and finds the outcome.
        :param lead: the same as ``work`` on the caller's own thread, for this many seconds; returns
            ``None`` where ``work`` has to go on with it. The caller then has to call
            :attr:`Flight.lead`.
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
                flight = self._flights[key] = Flight(now)
                flight.refresh = refresh
                if lead is not None:
                    flight.leader = threading.get_ident()
                    flight.lead = partial(self._lead, key, flight, work, lead)
        if lead is None:
            self._start(key, flight, work, beside=True)
        return flight

    def _start(
        self,
        key: Hashable,
        flight: Flight,
        work: Callable[[Flight], Callable[[], None]],
        *,
        beside: bool,
    ) -> None:
        try:
            self._workers.run(partial(self._run, key, flight, work), beside=beside)
        except NoThreadError as error:
            flight.refused = str(error)
            self._run(key, flight, work)

    def _run(
        self, key: Hashable, flight: Flight, work: Callable[[Flight], Callable[[], None]]
    ) -> None:
        try:
            afterwards = work(flight)
        finally:
            self._end(key, flight)
        afterwards()

    def _lead(
        self,
        key: Hashable,
        flight: Flight,
        work: Callable[[Flight], Callable[[], None]],
        lead: Callable[[Flight, float], Callable[[], None] | None],
        seconds: float | None,
    ) -> None:
        flight.lead = None
        afterwards = None
        try:
            if seconds is not None:
                afterwards = lead(flight, seconds)
        finally:  # also where the caller was interrupted: others wait for it
            flight.leader = None
            if afterwards is None:
                self._start(key, flight, work, beside=seconds is None)
        if afterwards is not None:
            self._end(key, flight)
            afterwards()

    def _end(self, key: Hashable, flight: Flight) -> None:
        # Only its creator removes it, and always; a caller that asks now finds the cache.
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.land()

    def current(self, key: Hashable) -> Flight | None:
        """The flight under way, if there is one."""
        return self._flights.get(key)

    def renew_after_fork(self) -> None:
        """Forget what the parent had under way: its threads did not come along."""
        self._flights = {}
