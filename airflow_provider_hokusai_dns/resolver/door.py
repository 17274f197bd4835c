"""One port of a pinned host: which of its addresses take connections, and how long to wait.

A client walks over refused addresses silently, and a black-holed first one costs it a whole request
time-out. So addresses that are several, not fresh, or may have failed are tried by short connects
before they are handed out, and while none takes one DNS is asked again and again: that is how a
redeploy to a new address is ridden out.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from airflow_provider_hokusai_dns.resolver.model import (
    Attempt,
    Cause,
    DNSResolutionError,
    Endpoint,
    Resolution,
)
from airflow_provider_hokusai_dns.resolver.racing import race
from airflow_provider_hokusai_dns.resolver.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.workers import Workers

log = logging.getLogger(__name__)

#: Asks whether an address that is not fresh may be used: ``None``, or the sentence why not.
Vet = Callable[[Resolution, str, int], str | None]

#: Seconds for which an address that took a connection counts as alive. Short: a client comes back
#: for the name when its connection failed, and a dead address costs it one of its retries.
ALIVE_FOR = 1.0
#: Seconds for which the vets need not be asked again about an address that they let pass.
_VETTED_FOR = 5.0
#: A caller who comes again within this many seconds may have failed with what it was given.
_AGAIN = 60.0
#: A caller who has been away this long meets a new outage and not the rest of the old one.
_FORGET_AFTER = 300.0
#: Seconds between two rounds while nothing accepts a connection (policy rule 13).
_ROUND = 1.0

_thread = threading.local()
_vetting = Workers("hokusai-dns-vet")


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """On this thread, wait for an address until ``seconds`` from now at most, and not longer."""
    before = getattr(_thread, "end", float("inf"))
    _thread.end = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _thread.end = before


@dataclass(frozen=True, slots=True)
class Rule:
    """What one owner of a pin wants.

    :param port: the port it speaks of; ``None`` for every port.
    :param patience: seconds for which an outage is ridden out, counted from its beginning and not
        from each call, so that a client's retries do not multiply it.
    :param vet: asked before an address that is not fresh is handed out.
    """

    port: int | None
    patience: float
    vet: Vet | None = None


class Door:
    """The state of one port. Thread-safe.

    :param rules: gives the rules in force for this port, at least one.
    :param patience: gives the longest patience in force, in seconds.
    """

    def __init__(
        self,
        hostname: str,
        port: int,
        resolver: DNSResolver,
        rules: Callable[[], list[Rule]],
        patience: Callable[[], float],
    ) -> None:
        self._hostname = hostname
        self._port = port
        self._resolver = resolver
        self._rules = rules
        self._patience = patience
        self._lock = threading.Lock()
        self._outage_since: float | None = None
        self._failed_at = 0.0
        self._handed_out = float("-inf")
        self._alive: dict[str, float] = {}
        self._vetted: dict[tuple[str, Vet], float] = {}
        #: The last answer that was tried: resolution, until when it holds, addresses.
        self._last: tuple[Resolution, float, list[str]] | None = None

    def addresses(self, *, tried: bool = False) -> list[str]:
        """The addresses to connect to, in the order to try.

        :param tried: try them in any case, also one that is fresh.
        :raises DNSResolutionError: nothing can be served, or nothing that may be used.
        """
        while True:
            started = time.monotonic()
            try:
                found, alive = self._round(tried=tried)
            except DNSResolutionError as error:
                if not self._wait(started, f"cannot be resolved ({error.cause})"):
                    raise
                continue
            if alive:
                return found
            if not self._wait(started, f"none of {', '.join(found)} takes a connection"):
                return found  # never an empty list: the caller gets the error of its own connect

    def forget(self) -> None:
        """The rules have changed: what was found under the old ones holds no more."""
        self._last = None

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
        trial = race([Endpoint(address, self._port) for address in addresses])
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

        All are asked about at the same time: a black-holed one takes its vet seconds, and eight of
        them one after the other would leave no deadline standing.
        """
        asked = [
            _vetting.call(partial(self._objection, resolution, address)) for address in addresses
        ]
        refused = {a: answer.result() for a, answer in zip(addresses, asked, strict=True)}
        usable = [address for address, why in refused.items() if why is None]
        if usable:
            return usable
        tried = [Attempt(f"{resolution.source} {a}", f"not used: {refused[a]}") for a in addresses]
        raise DNSResolutionError(self._hostname, resolution.cause or Cause.TIMEOUT, tried)

    def _objection(self, resolution: Resolution, address: str) -> str | None:
        """Ask every vet: one connection's rules never take those of another away."""
        for rule in self._rules():
            if rule.vet is None or time.monotonic() < self._vetted.get((address, rule.vet), 0.0):
                continue
            why = rule.vet(resolution, address, self._port)
            if why is not None:  # asked again at the next round: the server may just be starting
                return why
            now = time.monotonic()
            with self._lock:
                kept = {key: until for key, until in self._vetted.items() if until > now}
                self._vetted = {**kept, (address, rule.vet): now + _VETTED_FOR}
        return None

    def _wait(self, started: float, why: str) -> bool:
        """Whether to try another round; waits until then."""
        patience = self._patience()
        with self._lock:
            away, self._failed_at = started - self._failed_at, time.monotonic()
            if self._outage_since is None or away > _FORGET_AFTER:
                self._outage_since = started
                log.warning(
                    "%s: %s. Trying again for up to %.0f s, and asking DNS again meanwhile.",
                    self._hostname,
                    why,
                    patience,
                )
            left = self._outage_since + patience - time.monotonic()
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
