"""A clock, a lookup and a store that do what the test says."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeAlias

from airflow_provider_hokusai_dns.resolver.clock import Clock, SystemClock
from airflow_provider_hokusai_dns.resolver.errors import LookupFailed
from airflow_provider_hokusai_dns.resolver.model import (
    Answer,
    Cause,
    Endpoint,
    LastKnownGood,
    Source,
)

#: What a :class:`ScriptedLookup` gives: one address, several, a whole answer, a cause to fail
#: with, an exception to raise, or a function of the hostname that returns one of these.
Outcome: TypeAlias = (
    "str | tuple[str, ...] | list[str] | Answer | Cause | BaseException | Callable[[str], Outcome]"
)

#: A bound for everything that waits here, so that a broken test ends instead of hanging.
_PATIENCE = 30.0


class ManualClock:
    """A clock that advances only when the test says so.

    :param start: first reading of the monotonic clock, in seconds.
    :param wall: first reading of the wall clock, in seconds since the epoch.
    """

    def __init__(self, start: float = 1000.0, wall: float = 1_767_225_600.0) -> None:
        self._lock = threading.Lock()
        self._monotonic = float(start)
        self._wall = float(wall)

    def monotonic(self) -> float:
        """Seconds on the clock that never steps."""
        return self._monotonic

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks.

        :raises ValueError: for a negative number; only :meth:`step_wall` goes back.
        """
        if seconds < 0:
            raise ValueError(f"time does not run backwards: advance({seconds!r})")
        with self._lock:
            self._monotonic += seconds
            self._wall += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does; no time passes."""
        with self._lock:
            self._wall += seconds


class ScriptedLookup:
    """A :class:`~airflow_provider_hokusai_dns.resolver.model.Lookup` that needs no network.

    ::

        lookup = ScriptedLookup({"mlflow.local": "10.0.0.1"}, clock=clock, ttl=10)
        lookup.script("mlflow.local", "10.0.0.1", Cause.NXDOMAIN, ("10.0.0.2", "fd00::2"))

    A name without an answer does not exist (``nxdomain``). Any number of threads may ask.

    :param answers: an :data:`Outcome` per hostname.
    :param clock: stamps the answers; give the resolver's own.
    :param ttl: time to live of the answers in seconds, or ``None`` for "unknown".
    """

    def __init__(
        self,
        answers: Mapping[str, Outcome] | None = None,
        *,
        clock: Clock | None = None,
        ttl: float | None = 10.0,
    ) -> None:
        self.ttl = ttl
        self._clock = clock or SystemClock()
        self._changed = threading.Condition()
        self._scripts: dict[str, list[Outcome]] = {}
        self._calls: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._held: dict[str, tuple[threading.Event, bool]] = {}
        for hostname, outcome in (answers or {}).items():
            self.set(hostname, outcome)

    def set(self, hostname: str, outcome: Outcome) -> None:
        """Return this outcome from now on, every time."""
        self.script(hostname, outcome)

    def script(self, hostname: str, *outcomes: Outcome) -> None:
        """Return these outcomes one after the other, and then repeat the last one.

        :raises ValueError: for an empty script.
        """
        if not outcomes:
            raise ValueError(f"the script for {hostname!r} is empty: give at least one outcome")
        with self._changed:
            self._scripts[hostname] = list(outcomes)

    def hold(self, hostname: str, *, past_timeout: bool = False) -> threading.Event:
        """Keep every lookup of a name in flight until the event is set or :meth:`release` called.

        :param past_timeout: also past the caller's timeout, as ``getaddrinfo`` does; otherwise a
            held lookup fails with ``timeout`` when its time is over.
        :returns: the event that lets them go.
        """
        event = threading.Event()
        with self._changed:
            self._held[hostname] = (event, past_timeout)
        return event

    def release(self, hostname: str | None = None) -> None:
        """Let the held lookups of one name, or of all, go on with their scripts."""
        with self._changed:
            for name in list(self._held) if hostname is None else [hostname]:
                if held := self._held.pop(name, None):
                    held[0].set()

    def calls(self, hostname: str | None = None) -> int:
        """How many lookups were started, for one name or for all."""
        with self._changed:
            return self._calls.total() if hostname is None else self._calls[hostname]

    def in_flight(self, hostname: str | None = None) -> int:
        """How many lookups have not ended yet."""
        with self._changed:
            return self._in_flight.total() if hostname is None else self._in_flight[hostname]

    def wait_for_calls(self, hostname: str, count: int = 1, timeout: float = _PATIENCE) -> None:
        """Return as soon as this many lookups of the name have been started.

        :param timeout: seconds of real time.
        :raises TimeoutError: says how many there were.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._calls[hostname] >= count, timeout):
                raise TimeoutError(
                    f"{self._calls[hostname]} lookups of {hostname!r} in {timeout} s, not {count}"
                )

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        """Return the next outcome of the name's script.

        :raises LookupFailed: when the outcome is a cause, or the lookup was held for too long.
        """
        with self._changed:
            self._calls[hostname] += 1
            self._in_flight[hostname] += 1
            held, past_timeout = self._held.get(hostname, (None, False))
            self._changed.notify_all()
        try:
            if held is not None and not held.wait(_PATIENCE if past_timeout else timeout):
                raise LookupFailed(Cause.TIMEOUT, f"held for {timeout} s")
            with self._changed:
                script = self._scripts.get(hostname, [Cause.NXDOMAIN])
                outcome = script.pop(0) if len(script) > 1 else script[0]
            return self._answer(hostname, outcome)
        finally:
            with self._changed:
                self._in_flight[hostname] -= 1
                self._changed.notify_all()

    def _answer(self, hostname: str, outcome: Outcome) -> Answer:
        if isinstance(outcome, Cause):
            raise LookupFailed(outcome, f"{hostname} was scripted to fail with {outcome.value}")
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, Answer):
            return outcome
        if callable(outcome):
            return self._answer(hostname, outcome(hostname))
        addresses = (outcome,) if isinstance(outcome, str) else outcome
        return Answer(
            endpoints=tuple(Endpoint(address) for address in addresses),
            source=Source.DNS,
            resolved_at=self._clock.monotonic(),
            ttl=self.ttl,
            name=hostname,
        )


class MemoryStore:
    """The shared :class:`~airflow_provider_hokusai_dns.resolver.model.Store` in a dictionary.

    Pass the same object to several resolvers to simulate several processes of one fleet. A record
    that is older than the stored one is not kept (policy rule 17), unless the stored timestamp is
    in the future (rule 16).

    :param clock: its wall time decides what "in the future" means.
    :param max_clock_skew: seconds by which a stored timestamp may be ahead of the clock.
    """

    def __init__(self, clock: Clock | None = None, max_clock_skew: float = 300.0) -> None:
        #: The records by hostname; a test may read and change them.
        self.records: dict[str, LastKnownGood] = {}
        #: How often each hostname was read and written, whatever came of it.
        self.reads: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()
        #: Behave like a store that cannot be reached: nothing is known and nothing is kept.
        self.unreachable = False
        #: Break the protocol: raise this from every call.
        self.error: BaseException | None = None
        #: Real seconds that every call takes; :meth:`wake` ends a call that is under way.
        self.seconds = 0.0
        self._clock = clock or SystemClock()
        self._skew = max_clock_skew
        self._lock = threading.Lock()
        self._awake = threading.Event()

    def wake(self) -> None:
        """End the slow calls that are in progress, and make later calls quick."""
        self.seconds = 0.0
        self._awake.set()

    def read(self, hostname: str) -> LastKnownGood | None:
        """Return the record of a hostname, or ``None``."""
        self.reads[hostname] += 1
        self._suffer()
        return None if self.unreachable else self.records.get(hostname)

    def write(self, record: LastKnownGood) -> bool:
        """Keep a record unless a newer one is there; returns whether it was kept."""
        self.writes[record.hostname] += 1
        self._suffer()
        with self._lock:
            if self.unreachable:
                return False
            old = self.records.get(record.hostname)
            in_future = old and old.resolved_at > self._clock.time() + self._skew
            if old and not in_future and old.resolved_at > record.resolved_at:
                return False
            self.records[record.hostname] = record
            return True

    def _suffer(self) -> None:
        if self.seconds:
            self._awake.clear()
            self._awake.wait(self.seconds)
        if self.error is not None:
            raise self.error
