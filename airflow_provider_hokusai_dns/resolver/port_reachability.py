"""One port of a pinned host: which of its addresses take connections, and how long to wait.

A client walks over refused addresses silently, and a black-holed first one costs it a whole request
time-out. So addresses that are several, not fresh, or may have failed are tried by short connects
before they are handed out, and while none takes one DNS is asked again and again: that is how a
redeploy to a new address is ridden out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError, PicklableError
from airflow_provider_hokusai_dns.resolver.model import Attempt, Cause, Endpoint, Resolution
from airflow_provider_hokusai_dns.resolver.racing import Trial, race
from airflow_provider_hokusai_dns.resolver.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.workers import Workers

log = logging.getLogger(__name__)

#: Asks whether an address that is not fresh may be used: ``None``, or the sentence why not.
StaleAddressCheck = Callable[[Resolution, str, int], str | None]

#: Seconds for which an address that took a connection counts as alive. Short: a client comes back
#: for the name when its connection failed, and a dead address costs it one of its retries.
ALIVE_FOR = 1.0
#: Seconds for which the stale checks need not be asked again about an address that they let pass.
_PASSED_FOR = 5.0
#: Seconds for which they need not be asked again about one that they refused, once an outage has
#: been given up on. So long it is not tried either, if it swallows connections: each retry of a
#: client comes by here, and would wait for the same black hole again.
_REFUSED_FOR = 10.0
#: A caller who comes again within this many seconds may have failed with what it was given.
_AGAIN = 60.0
#: A caller who has been away this long meets a new outage and not the rest of the old one.
_FORGET_AFTER = 300.0
#: Seconds that a client takes at most to come back after a connect that it gave up.
_SLOW = 1.5
#: Seconds between two rounds while nothing accepts a connection (policy rule 13).
_ROUND = 1.0

_NEVER = (float("-inf"), float("-inf"))

_thread = threading.local()
_checking = Workers("hokusai-dns-stale-check")


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """On this thread, wait for an address until ``seconds`` from now at most, and not longer."""
    before = getattr(_thread, "end", float("inf"))
    _thread.end = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _thread.end = before


class NoConnectionError(PicklableError, OSError):
    """Nothing comes back from any address of a host: connecting there would only hang.

    :param hostname: the name.
    :param addresses: those that were tried.
    """

    def __init__(self, hostname: str, addresses: tuple[str, ...]) -> None:
        super().__init__(
            errno.EHOSTUNREACH,
            f"{hostname}: none of {', '.join(addresses)} takes a connection, nothing comes back",
        )
        self.hostname = hostname
        self.addresses = addresses


@dataclass(frozen=True, slots=True)
class PinPolicy:
    """What one owner of a pin wants.

    :param port: the port it speaks of; ``None`` for every port.
    :param patience: seconds for which an outage is ridden out, counted from its beginning and not
        from each call, so that a client's retries do not multiply it.
    :param stale_check: asked before an address that is not fresh is handed out.
    :param connect_timeout: seconds after which the owner's client gives a connect up, 0 if unknown.
        Whoever comes back just then was sent into a black hole, and the outage began before that.
    """

    port: int | None
    patience: float
    stale_check: StaleAddressCheck | None = None
    connect_timeout: float = 0.0


class PortReachability:
    """The state of one port. Thread-safe.

    :param policies: gives the policies in force for this port, at least one.
    :param patience: gives each patience in force with the connect timeout beside it, in seconds;
        the longest counts.
    """

    def __init__(
        self,
        hostname: str,
        port: int,
        resolver: DNSResolver,
        policies: Callable[[], list[PinPolicy]],
        patience: Callable[[], list[tuple[float, float]]],
    ) -> None:
        self._hostname = hostname
        self._port = port
        self._resolver = resolver
        self._policies = policies
        self._patience = patience
        self._lock = threading.Lock()
        self._outage_since: float | None = None
        self._failed_at = 0.0
        self._handed_out = float("-inf")
        self._alive: dict[str, float] = {}
        self._passed: dict[tuple[str, StaleAddressCheck], float] = {}
        self._refused: dict[str, str] = {}
        self._silent: frozenset[str] = frozenset()
        #: When this outage was given up on, and when the patience of that moment was to end.
        self._given_up = _NEVER
        #: The last answer that was tried: resolution, until when it holds, addresses.
        self._last: tuple[Resolution, float, list[str]] | None = None

    def addresses(self, *, tried: bool = False) -> list[str]:
        """The addresses to connect to, in the order to try.

        :param tried: try them in any case, also one that is fresh.
        :raises DNSResolutionError: nothing can be served, or nothing that may be used.
        :raises NoConnectionError: patience is over, and every address swallows connections.
        """
        while True:
            started, handed_out = time.monotonic(), self._handed_out
            try:
                found, alive = self._round(tried=tried)
            except DNSResolutionError as error:
                if not self._wait(started, handed_out, f"cannot be resolved ({error.cause})"):
                    raise
                continue
            if alive:
                return found
            silent = self._silent
            why = f"none of {', '.join(found)} takes a connection"
            if not self._wait(started, handed_out, why):
                if silent.issuperset(found):
                    raise NoConnectionError(self._hostname, tuple(found))
                # The caller gets the error of its own connect, but is not left hanging in one.
                return [address for address in found if address not in silent]

    def forget(self) -> None:
        """The policies have changed: what was found under the old ones holds no more."""
        self._last = None
        self._given_up = _NEVER

    def after_fork(self) -> None:
        """Replace the lock in a child process: a thread that is gone may have held it."""
        self._lock = threading.Lock()

    def _round(self, *, tried: bool) -> tuple[list[str], bool]:
        """Resolve once, and try what has to be tried; whether there is hope in the answer."""
        resolution = self._resolver.resolve(self._hostname)
        now = time.monotonic()
        if (last := self._last) is not None and resolution is last[0] and now < last[1]:
            return [*last[2]], True
        addresses = list(resolution.addresses)
        # Only an address that took a connection ends an outage, so after one it is tried.
        doubtful = now - self._handed_out < _AGAIN or self._outage_since is not None
        self._handed_out = now
        if len(addresses) == 1 and not (resolution.is_stale or doubtful or tried):
            return addresses, True
        if resolution.is_stale:
            addresses = self._usable(resolution, addresses)
        known = [a for a in addresses if now < self._alive.get(a, 0.0)]
        if known:
            return [*known, *(a for a in addresses if a not in known)], True
        if self._gave_up_lately(now) and self._silent.issuperset(addresses):
            trial = Trial((), tuple(addresses), self._silent)
        else:
            trial = race([Endpoint(address, self._port) for address in addresses])
        self._silent = trial.silent
        for loser in trial.losers:
            self._resolver.report_failure(self._hostname, loser)
        rest = [a for a in addresses if a not in trial.winners and a not in trial.losers]
        found = [*trial.winners, *rest, *trial.losers]
        for winner in trial.winners:
            self._alive[winner] = until = time.monotonic() + ALIVE_FOR
            self._last = (resolution, until, found)
            self._over()
        return found, bool(trial.winners)

    def _usable(self, resolution: Resolution, addresses: list[str]) -> list[str]:
        """Those of several old addresses to which nobody objects.

        All are asked about at the same time: a black-holed one takes the check seconds, and eight
        of them one after the other would leave no deadline standing.
        """
        refused: dict[str, str | None] = {}
        if self._gave_up_lately(time.monotonic()):
            refused = {a: self._refused[a] for a in addresses if a in self._refused}
        asked = {
            address: _checking.call(partial(self._objection, resolution, address))
            for address in addresses
            if address not in refused
        }
        refused |= {address: answer.result() for address, answer in asked.items()}
        self._refused = {address: why for address, why in refused.items() if why is not None}
        usable = [address for address in addresses if refused[address] is None]
        if usable:
            return usable
        tried = [Attempt(f"{resolution.source} {a}", f"not used: {refused[a]}") for a in addresses]
        raise DNSResolutionError(self._hostname, resolution.cause or Cause.TIMEOUT, tried)

    def _objection(self, resolution: Resolution, address: str) -> str | None:
        """Ask each policy's check: one connection's never take those of another away."""
        for policy in self._policies():
            check = policy.stale_check
            if check is None or time.monotonic() < self._passed.get((address, check), 0.0):
                continue
            why = check(resolution, address, self._port)
            if why is not None:  # asked again at the next round: the server may just be starting
                return why
            now = time.monotonic()
            with self._lock:
                kept = {key: until for key, until in self._passed.items() if until > now}
                self._passed = {**kept, (address, check): now + _PASSED_FOR}
        return None

    def _gave_up_lately(self, now: float) -> bool:
        return now < self._given_up[0] + _REFUSED_FOR

    def _wait(self, started: float, handed_out: float, why: str) -> bool:
        """Whether to try another round; waits until then.

        :param started: when this round began, monotonic seconds.
        :param handed_out: when somebody was given addresses before that.
        """
        in_force = self._patience()
        patience = max(seconds for seconds, _ in in_force)
        with self._lock:
            away, self._failed_at = started - self._failed_at, time.monotonic()
            if self._outage_since is None or away > _FORGET_AFTER:
                spent = started - handed_out
                hung = any(limit and limit <= spent < limit + _SLOW for _, limit in in_force)
                self._outage_since = handed_out if hung else started
                log.warning(
                    "%s: %s. Trying again for up to %.0f s, and asking DNS again meanwhile.",
                    self._hostname,
                    why,
                    patience,
                )
            now, end = time.monotonic(), self._outage_since + patience
            if self._gave_up_lately(now) and end <= self._given_up[1]:
                return False
            # The next round may take as long as this one did, and has to end in time too.
            left = end - now - (now - started)
            self._given_up = (now, end) if left <= 0 else _NEVER
        left = min(left, getattr(_thread, "end", float("inf")) - time.monotonic())
        if left <= 0:
            return False
        # Not for secrecy: a client's threads must not all come back to the server in one moment.
        time.sleep(min(_ROUND * random.uniform(0.5, 1.5), left))  # noqa: S311
        return True

    def _over(self) -> None:
        if self._outage_since is None:
            return
        with self._lock:
            since, self._outage_since = self._outage_since, None
        if since is not None:
            log.warning(
                "%s: reachable again after %.1f s.", self._hostname, time.monotonic() - since
            )
