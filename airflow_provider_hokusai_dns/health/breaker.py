"""A circuit breaker for the entry points to an MLflow server.

Per process and per server. It guards the start of a run, ``rest`` and other calls outside a run,
and never acts inside a run: writes wait, and are not refused.

No library is used: the existing ones count exceptions by type, where a 404 and a 503 look alike,
and let every caller through when half open.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.health.errors import BreakerOpenError
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.clock import Clock, SystemClock
from airflow_provider_hokusai_dns.resolver.model import utc

#: The states that mean that MLflow is down. A wrong password or a missing workspace is an answer.
_DOWN = frozenset({State.UNRESOLVED, State.UNREACHABLE, State.BACKEND_DOWN})

log = logging.getLogger(__name__)


def is_of_mlflow(verdict: Verdict) -> bool:
    """Whether MLflow has answered a probe, or was reached and has a wrong certificate.

    What stands in its place during a redeploy is neither: the error page of a proxy, or a load
    balancer that closes each connection.
    """
    if verdict.state is State.TLS_ERROR:
        return verdict.cause.startswith("certificate_")
    return verdict.state not in _DOWN | {State.CONFIG, State.NOT_MLFLOW}


class BreakerState(StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A breaker at one moment. Times are aware wall time.

    :param failures: how many in a row.
    :param opened_at: when it opened; ``None`` while closed.
    :param retry_at: when the next caller is let through; ``None`` while closed.
    :param reason: the last failure, for people.
    """

    state: BreakerState
    failures: int
    opened_at: datetime | None
    retry_at: datetime | None
    last_failure: datetime | None
    last_success: datetime | None
    reason: str


class Call:
    """One permitted call. Report its outcome with one of the methods.

    A call without a report does not count: the author's own exception, a 404 and a 400 do not show
    whether MLflow is up.
    """

    def __init__(self) -> None:
        self.outcome: bool | None = None
        self.reason = ""

    def success(self) -> None:
        """MLflow answered."""
        self.outcome = True

    def failure(self, reason: str) -> None:
        """MLflow did not answer, or reported that it is unavailable.

        :param reason: for people; never a secret.
        """
        self.outcome = False
        self.reason = reason

    def verdict(self, verdict: Verdict) -> None:
        """Report the outcome of a probe; a rejected login is an answer too."""
        if verdict.state in _DOWN:
            self.failure(verdict.sentence)
        elif verdict.state is not State.CONFIG:
            self.success()


class CircuitBreaker:
    """Fails fast while a server is down, and lets one caller try when it may be up again.

    Thread-safe; the clock is passed in. A child process starts with its parent's state.

    :param name: the server, for messages.
    :param threshold: failures in a row that open it.
    :param cooldown: seconds until one caller may try; doubles while that fails, up to the maximum.
    :raises ValueError: a number is out of range.
    """

    def __init__(
        self,
        name: str = "MLflow",
        *,
        threshold: int = 3,
        cooldown: float = 10.0,
        max_cooldown: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        if threshold < 1:
            raise ValueError(f"threshold must be a whole number from 1, not {threshold!r}")
        if not 0 < cooldown <= max_cooldown:
            raise ValueError(
                f"cooldown {cooldown!r} must be above 0 s and at most max_cooldown {max_cooldown!r}"
            )
        self.name = name
        self._threshold = threshold
        self._cooldown = cooldown
        self._max_cooldown = max_cooldown
        self._clock: Clock = clock or SystemClock()
        self._lock = forks.free_in_child(threading.RLock())
        self._clear()
        self._last_failure: float | None = None
        self._last_success: float | None = None
        #: Called with the new state after each change, without a lock.
        self.on_change: Callable[[BreakerState], None] | None = None
        forks.renewed(self)

    def _clear(self) -> None:
        self._failures = 0
        self._reason = ""
        self._wait = self._cooldown
        self._opened_at: float | None = None
        self._retry_at = 0.0
        self._prober: Call | None = None
        self._prober_until = 0.0
        self._is_half_open = False

    @contextmanager
    def attempt(self) -> Iterator[Call]:
        """Let one call through, or refuse it.

        :raises BreakerOpenError: while the server is down, and while another caller is trying.
        """
        call = self._enter()
        try:
            yield call
        finally:
            self._leave(call)

    def check(self) -> None:
        """Refuse like :meth:`attempt`, but without using the one permitted try.

        :raises BreakerOpenError: while the server is known to be down.
        """
        now = self._clock.monotonic()
        with self._lock:
            if self._opened_at is not None and now < self._retry_at:
                raise self._refusal(now)

    def status(self) -> BreakerStatus:
        """A snapshot."""
        now = self._clock.monotonic()
        wall = self._clock.time() - now
        with self._lock:
            state = BreakerState.CLOSED
            if self._opened_at is not None:
                state = BreakerState.OPEN if now < self._retry_at else BreakerState.HALF_OPEN
            return BreakerStatus(
                state=state,
                failures=self._failures,
                opened_at=_wall(wall, self._opened_at),
                retry_at=None if self._opened_at is None else utc(wall + self._retry_at),
                last_failure=_wall(wall, self._last_failure),
                last_success=_wall(wall, self._last_success),
                reason=self._reason,
            )

    def reset(self) -> None:
        """Close it, and reset the counters."""
        with self._lock:
            was_open = self._opened_at is not None
            self._clear()
        if was_open:
            self._tell(BreakerState.CLOSED)

    def _enter(self) -> Call:
        call = Call()
        now = self._clock.monotonic()
        with self._lock:
            if self._opened_at is None:
                return call
            if now < self._retry_at:
                raise self._refusal(now)
            # A prober that never comes back (its thread was killed) holds the place for one
            # cooldown only.
            if self._prober is not None and now < self._prober_until:
                raise self._refusal(now)
            self._prober = call
            self._prober_until = now + self._cooldown
            is_new, self._is_half_open = not self._is_half_open, True
        if is_new:
            self._tell(BreakerState.HALF_OPEN)
        return call

    def _leave(self, call: Call) -> None:
        now = self._clock.monotonic()
        with self._lock:
            probing = self._prober is call
            if probing:
                self._prober = None
            if call.outcome is None:
                return
            was_open = self._opened_at is not None
            if call.outcome:
                self._clear()
                self._last_success = now
            else:
                self._failures += 1
                self._last_failure = now
                self._reason = call.reason
                if probing:
                    self._is_half_open = False
                    self._wait = min(self._wait * 2, self._max_cooldown)
                    self._retry_at = now + self._wait
                elif not was_open and self._failures >= self._threshold:
                    self._opened_at = now
                    self._retry_at = now + self._wait
            is_open = self._opened_at is not None
        if is_open is not was_open or (probing and is_open):
            self._tell(BreakerState.OPEN if is_open else BreakerState.CLOSED)

    def _tell(self, state: BreakerState) -> None:
        if self.on_change is None:
            return
        try:
            self.on_change(state)
        except Exception:  # what is counted must not fail a call
            log.debug("A change of a breaker could not be reported", exc_info=True)

    def _refusal(self, now: float) -> BreakerOpenError:
        until = self._retry_at if now < self._retry_at else self._prober_until
        return BreakerOpenError(self.name, self._reason, max(0.0, until - now))

    def renew_after_fork(self) -> None:
        """Forget the prober in a child process: it may have been another thread of the parent."""
        self._prober = None


def _wall(offset: float, stamp: float | None) -> datetime | None:
    return None if stamp is None else utc(offset + stamp)


#: Maximum number of breakers that are kept: each edit of a connection leaves one.
_MOST_SERVERS = 256
_by_server: dict[tuple[object, ...], CircuitBreaker] = {}
_by_server_lock = forks.free_in_child(threading.RLock())


def breaker_for(
    server: MLflowServer, on_change: Callable[[BreakerState], None] | None = None
) -> CircuitBreaker:
    """The one breaker of this process for a server; a changed connection gets a new one.

    :param on_change: called with the new state after each change from now on, for metrics.
    """
    with _by_server_lock:
        key = (server.conn_id, server.uri, server.view, server.proxy)
        if key not in _by_server:
            if len(_by_server) >= _MOST_SERVERS:
                del _by_server[next(iter(_by_server))]
            _by_server[key] = CircuitBreaker(server.uri)
        breaker = _by_server[key]
        breaker.on_change = on_change or breaker.on_change
        return breaker
