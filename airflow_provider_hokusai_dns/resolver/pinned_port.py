"""One port of a pinned host: its :class:`PortReachability` with threads, clock and sockets.

Rounds run on a separate thread, one at a time, and all callers that need one wait for the same
round: a hundred threads cause one trial. Each caller stops waiting when its own patience is over.
"""

from __future__ import annotations

import errno
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from airflow_provider_hokusai_dns.resolver import deadline, forks
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError, PicklableError
from airflow_provider_hokusai_dns.resolver.handouts import Handout, Handouts
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.metrics import Tally
from airflow_provider_hokusai_dns.resolver.model import (
    FOREVER,
    Attempt,
    Cause,
    Endpoint,
    Resolution,
    Source,
)
from airflow_provider_hokusai_dns.resolver.one_time_event import OneTimeEvent
from airflow_provider_hokusai_dns.resolver.port_reachability import (
    PASSED_FOR,
    ROUND,
    Patience,
    PinPolicy,
    PortReachability,
    Round,
    StaleAddressCheck,
)
from airflow_provider_hokusai_dns.resolver.racing import Trial, race
from airflow_provider_hokusai_dns.resolver.ready import Ready
from airflow_provider_hokusai_dns.resolver.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.target import parse_address
from airflow_provider_hokusai_dns.resolver.workers import Workers

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds that a round gets even if less patience is left: a nameserver and a closed port answer
#: within that time, so that a recovery is noticed. Deadlines promise half a second.
GRACE = 0.25
#: Seconds beyond the end of patience for a round that should have ended by then.
_OVERRUN = 0.1

_rounds = Workers("hokusai-dns-round")
_checking = Workers("hokusai-dns-stale-check")


class NoConnectionError(PicklableError, OSError):
    """No address of a host answers: connecting would only hang.

    :param addresses: those that were tried.
    """

    def __init__(self, hostname: str, addresses: tuple[str, ...]) -> None:
        super().__init__(
            errno.EHOSTUNREACH,
            f"{hostname}: none of {', '.join(addresses)} accepts a connection, and no packet "
            "comes back",
        )
        self.hostname = hostname
        self.addresses = addresses


class ReusableAnswer(NamedTuple):
    """An answer that may be reused until something happens that could make it wrong.

    :param port: where it was given.
    :param state: the state of the port, which leaves no doubt about the addresses.
    :param ready: the resolver's answer that it was built from.
    :param until: until when it may be reused, monotonic seconds.
    :param items: what the client gets.
    :param places: the addresses, in the order of ``items``.
    """

    port: PinnedPort
    state: PortReachability
    ready: Ready
    until: float
    items: list[Any]
    places: tuple[str, ...]


@dataclass(frozen=True)
class Edge:
    """The side effects of a port; tests pass a scripted one.

    :param start: runs a round on another thread.
    :param wait: waits for the end of a round for this many seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    race: Callable[[Sequence[str], int], Trial] = race
    start: Callable[[Callable[[], None]], object] = _rounds.run
    wait: Callable[[OneTimeEvent, float], object] = OneTimeEvent.wait


@dataclass(slots=True, eq=False)
class _RunningRound:
    """A round in progress. When it is done, it has found something, or raised an error."""

    started: float
    done: OneTimeEvent = field(default_factory=OneTimeEvent)
    found: Round | None = None
    error: BaseException | None = None
    #: The thread that is starting it: a signal handler there does not wait for it.
    starter: int | None = field(default_factory=threading.get_ident)


class PinnedPort:
    """Answers for one port of a pinned host. Thread-safe.

    :param name: the name to resolve; a final dot means that it is absolute.
    :param policies: returns the policies in force for this port, at least one.
    :param patience: returns all patience values in force; the longest applies.
    :param family: the address family that the callers can use, 0 for any.
    """

    def __init__(
        self,
        name: str,
        port: int,
        resolver: DNSResolver,
        policies: Callable[[], list[PinPolicy]],
        patience: Callable[[], list[Patience]],
        *,
        family: int = 0,
        edge: Edge | None = None,
    ) -> None:
        self._name = name
        self._port = port
        self._resolver = resolver
        self._policies = policies
        self._patience = patience
        self._family = family
        self._edge = edge or Edge()
        self._lock = forks.free_in_child(threading.RLock())
        self._state = PortReachability()
        self._running: _RunningRound | None = None
        #: The last resolution, and what of it can be used here.
        self._last: tuple[Resolution, Resolution] | None = None
        self._ready: Callable[[str], Ready | None] = resolver.ready
        if parse_address(name) is not None:  # the resolver keeps none for an address
            turns = SimpleNamespace(tally=Tally())
            always: Any = SimpleNamespace(next=partial(resolver.resolve, name), turns=turns)
            self._ready = lambda name: always
        self._handouts = Handouts(self._edge.monotonic)
        forks.renewed(self)

    def addresses(self, *, must_be_tested: bool = False, max_patience: float = FOREVER) -> Handout:
        """The addresses to connect to, in the order to try; empty if the family has none.

        Parameters as of :meth:`.Pin.addresses`; patience counts from the beginning of the outage.

        :raises DNSResolutionError: there is no address, or none that may be used.
        :raises NoConnectionError: patience is over, and no address answers.
        """
        now, handed_out = self._edge.monotonic, self._handouts.last
        bound = deadline.end()
        while True:
            started = now()
            known = self._known_fresh()
            at_once = self._at_once(started, known, must_be_tested=must_be_tested)
            if at_once is not None:
                return at_once
            state = self._state
            in_force = [
                each._replace(seconds=min(each.seconds, max_patience)) for each in self._patience()
            ]
            end = state.patience_end(started, handed_out, in_force)
            running = self._join(must_be_tested=must_be_tested)
            until = max(min(end, bound) + _OVERRUN, running.started + GRACE)
            if not (self._waiting_is_pointless(known) and state.is_hopeless(started, end, known)):
                self._edge.wait(running.done, max(0.0, until - now()))
            if running.error is not None:
                raise running.error
            result = running.found
            if result is not None and must_be_tested and result.is_untested:
                continue  # started by a caller that did not need tested addresses
            if result is not None and result.ends_an_outage:
                return self._hand_out(result.addresses)
            result = result or self._state.last or self._unfinished(now() - running.started)
            verdict = self._change(PortReachability.failed, now(), started, handed_out, in_force)
            if verdict.begins:
                log.warning(
                    "%s: %s. Trying again for up to %.0f s, and asking DNS again meanwhile.",
                    self._name,
                    result.why,
                    verdict.patience,
                )
            left = min(verdict.left, bound - now())
            if left <= 0:
                return self._give_up(result)
            # Not for secrecy: a client's threads must not all come back to the server at once.
            self._edge.sleep(min(ROUND * random.uniform(0.5, 1.5), left))  # noqa: S311

    def forget(self, *, for_good: bool = False) -> None:
        """Discard what depends on the policies, which have changed.

        :param for_good: this port is no longer used; late callers reuse no answer.
        """
        if for_good:
            self._ready = lambda name: None
        self._change(lambda state: (state.forget(), None))

    def renew_after_fork(self) -> None:
        """In a child: the threads that ran a round or connected are gone."""
        self._running = None
        self._handouts.open.clear()

    # --- handing out

    def reusable_answer(self, handout: Handout) -> ReusableAnswer | None:
        """The answer to reuse; ``None`` if there is doubt about the addresses."""
        state, ready, places = self._state, self._ready(self._name), handout.places
        if ready is None or not places:
            return None
        current = self._usable(ready.next())
        if current.is_stale or {*current.places} != {*places}:
            return None
        until = state.reusable_until(self._edge.monotonic(), places)
        return ReusableAnswer(self, state, ready, until, list(handout), places)

    def again(self, last: ReusableAnswer) -> Handout | None:
        """Reuse an answer if nothing has happened that could make it wrong.

        Every connection takes this path while all is well: without the lock, without a decision,
        and with as little code as possible, because it runs with cold CPU caches.
        """
        handouts = self._handouts
        if (
            self._state is last.state
            and not handouts.open
            and not handouts.in_doubt
            and self._edge.monotonic() < last.until
            and self._ready(self._name) is last.ready
        ):
            last.ready.turns.tally.n += 1
            return Handout(last.items, last.places, handouts)
        return None

    def _at_once(
        self, now: float, known: Resolution | None, *, must_be_tested: bool
    ) -> Handout | None:
        """An answer that needs no round; takes the outcomes of earlier answers into account."""
        if outcomes := self._handouts.take_outcomes():
            self._change(lambda state: (state.learn(outcomes), None))
        if known is None:
            return None
        begun = self._handouts.begun()
        found = self._state.at_once(now, known.places, begun, must_be_tested=must_be_tested)
        return None if found is None else self._hand_out(found)

    def _change(self, change: Callable[..., tuple[PortReachability, T]], *arguments: Any) -> T:
        """Replace the state; returns the other part of what ``change`` returns.

        The lock is held for one comparison, and by no other call: a signal handler that connects
        waits for a round, which needs it.
        """
        while True:
            before = self._state
            after, result = change(before, *arguments)
            with self._lock:
                if self._state is before:
                    self._state = after
                    return result

    def _hand_out(self, addresses: tuple[str, ...]) -> Handout:
        return Handout(addresses, addresses, self._handouts if addresses else None)

    def _give_up(self, result: Round) -> Handout:
        if result.error is not None:
            raise copy(result.error)  # raised itself, it would keep the frames of all its callers
        # The caller gets the error of its own connect, but is not left hanging in one.
        usable = tuple(each for each in result.addresses if each not in result.silent)
        if not usable:
            raise NoConnectionError(self._name, result.addresses)
        return self._hand_out(usable)

    def _unfinished(self, seconds: float) -> Round:
        attempt = Attempt("live lookup and trial connects", "no outcome", seconds)
        return Round(error=DNSResolutionError(self._name, Cause.TIMEOUT, (attempt,)))

    # --- resolving

    def _known_fresh(self) -> Resolution | None:
        """The fresh answer that the resolver has at hand; ``None`` if it may have to query DNS."""
        if self._last is None:
            return None
        found, _ = self._last
        if found.source is not Source.LITERAL and not found.ttl_left():
            return None
        try:
            resolution = self._resolve()
        except DNSResolutionError:
            return None
        return None if resolution.is_stale else resolution

    def _waiting_is_pointless(self, known: Resolution | None) -> bool:
        """Whether DNS cannot change the result: it is known, or the name is not healthy."""
        return known is not None or self._resolver.state(self._name) is not Level.HEALTHY

    def _resolve(self) -> Resolution:
        """The resolver's answer, as far as a caller of this family can use it."""
        found = self._resolver.resolve(self._name)
        last = self._last
        if last is not None and found is last[0]:
            return last[1]
        usable = self._usable(found)
        self._last = found, usable
        return usable

    def _usable(self, found: Resolution) -> Resolution:
        endpoints = tuple(e for e in found.endpoints if is_of_family(e.address, self._family))
        return found if endpoints == found.endpoints else replace(found, endpoints=endpoints)

    # --- rounds

    def _join(self, *, must_be_tested: bool) -> _RunningRound:
        """The round in progress, started now if there is none."""
        new, me = _RunningRound(self._edge.monotonic()), threading.get_ident()
        with self._lock:
            running = self._running
            if running is None or running.starter == me:
                running = self._running = new
        if running is not new:
            return running
        try:
            self._edge.start(partial(self._run_round, running, must_be_tested=must_be_tested))
            running.starter = None
        except BaseException:
            self._finish(running)
            raise
        return running

    def _run_round(self, running: _RunningRound, *, must_be_tested: bool) -> None:
        lasted = None
        try:
            found = self._round(must_be_tested=must_be_tested)
            lasted = self._change(PortReachability.after, self._edge.monotonic(), found)
            running.found = found
        except BaseException as error:
            running.error = error
        self._finish(running)
        if lasted is not None:
            log.warning("%s: reachable again after %.1f s.", self._name, lasted)
        running.done.set()

    def _finish(self, running: _RunningRound) -> None:
        with self._lock:
            if self._running is running:
                self._running = None

    def _round(self, *, must_be_tested: bool) -> Round:
        """Resolve once, and test the addresses that need it."""
        try:
            resolution = self._resolve()
        except DNSResolutionError as error:
            return Round(error=error.with_traceback(None))  # kept, and with it every frame of it
        addresses = resolution.places
        checked = Round(addresses)
        if resolution.is_stale and addresses:
            checked = self._check_stale(resolution)
            addresses = checked.addresses
        now, state = self._edge.monotonic(), self._state
        if not addresses or checked.error is not None:
            return checked
        if known := state.known_alive(addresses, now):
            return replace(checked, addresses=known, winners=(known[0],))
        if not resolution.is_stale:
            begun = self._handouts.begun()
            at_once = state.at_once(now, addresses, begun, must_be_tested=must_be_tested)
            if at_once is not None:
                return Round(at_once, is_untested=True)
        if (again := state.trial(now, addresses)) is not None:
            return replace(again, passed=checked.passed, refused=checked.refused)
        trial = self._edge.race(addresses, self._port)
        for loser in map(Endpoint.parse, trial.losers):
            self._resolver.report_failure(self._name, loser.address, loser.port)
        rest = (a for a in addresses if a not in trial.winners and a not in trial.losers)
        return replace(
            checked,
            addresses=(*trial.winners, *rest, *trial.losers),
            winners=trial.winners,
            silent=trial.silent,
            tried_at=self._edge.monotonic(),
        )

    def _check_stale(self, resolution: Resolution) -> Round:
        """Which of several stale addresses may be used.

        All are checked at the same time: the check of a black-holed one takes seconds, and eight of
        them in sequence would exceed every deadline.
        """
        now, state = self._edge.monotonic(), self._state
        known = {address: state.objection(now, address) for address in resolution.places}
        asked = {
            address: _checking.call(partial(self._ask_checks, resolution, address))
            for address, refusal in known.items()
            if refusal is None
        }
        answers = {address: answer.result() for address, answer in asked.items()}
        passed = {key: until for _, several in answers.values() for key, until in several.items()}
        refused = {a: why for a in known if (why := known[a] or answers[a][0]) is not None}
        usable = tuple(address for address in known if address not in refused)
        error = None
        if not usable:
            tried = [Attempt(f"{resolution.source} {a}", f"not used: {refused[a]}") for a in known]
            error = DNSResolutionError(self._name, resolution.cause or Cause.TIMEOUT, tried)
        return Round(usable, passed=passed, refused=refused, error=error)

    def _ask_checks(
        self, resolution: Resolution, address: str
    ) -> tuple[str | None, dict[tuple[str, StaleAddressCheck], float]]:
        """Call each policy's check: one connection's check never removes another's addresses."""
        passed: dict[tuple[str, StaleAddressCheck], float] = {}
        for policy in self._policies():
            check, passed_until = policy.stale_check, self._state.passed
            if check is None or self._edge.monotonic() < passed_until.get((address, check), 0.0):
                continue
            place = Endpoint.parse(address)
            why = check(resolution, place.address, place.port or self._port)
            if why is not None:  # asked again at the next round: the server may just be starting
                return why, passed
            passed[address, check] = self._edge.monotonic() + PASSED_FOR
        return None, passed


def is_of_family(address: str, family: int) -> bool:
    """Whether a caller that wants this family can use an address; 0 is any."""
    if family == socket.AF_INET:
        return ":" not in address
    return family != socket.AF_INET6 or ":" in address
