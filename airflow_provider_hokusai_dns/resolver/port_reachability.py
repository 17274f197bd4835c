"""The state of one port of a pinned host: which addresses accept connections, how long to wait.

Frozen values and pure functions of ``now``; :mod:`~.pinned_port` has the sockets, the clock and the
threads. A client skips addresses that refuse silently, and a black-holed first one costs it a whole
connect timeout. So an address whose state is in doubt is tested by a short connect before it is
returned; and while none accepts a connection, DNS is queried repeatedly, so that a redeploy to a
new address is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.model import FOREVER, LONG_AGO, Resolution
from airflow_provider_hokusai_dns.resolver.racing import CONNECT_TIMEOUT

#: Checks whether an address that is not fresh may be used: ``None``, or a sentence why not.
StaleAddressCheck = Callable[[Resolution, str, int], str | None]

#: Seconds for which an address that accepted a connection counts as alive in any case.
ALIVE_FOR = 1.0
#: The same while there is no doubt.
_ALIVE_WITHOUT_DOUBT_FOR = 60.0
#: Seconds for which an answer whose outcome is unknown is a reason to doubt: a caller that calls
#: again may have failed with it.
_DOUBT_FOR = 60.0
#: Seconds for which the stale checks are not repeated for an address that they accepted.
PASSED_FOR = 5.0
#: Seconds for which, after patience ran out, addresses that refused or did not answer are not
#: tested again: each retry of a client calls this, and would wait for the same result again.
REFUSED_FOR = 10.0
#: Maximum seconds that a round takes after its lookup: a stale check (2 s), then a connect (1 s).
_LONGEST_TRIAL = 3.0
#: Seconds without a failed call at a port after which the next failure begins a new outage.
_FORGET_AFTER = 300.0
#: Maximum seconds between a connect that a client gave up and its next call.
_SLOW = 1.5
#: Seconds between two rounds while nothing accepts a connection (policy rule 13).
ROUND = 1.0


class Patience(NamedTuple):
    """How long to wait for an outage to end.

    :param seconds: from its beginning and not from each call, so that a client's retries do not
        multiply it.
    :param connect_timeout: seconds after which the client gives up a connect, 0 if unknown. A
        caller that calls again after just that time had received a black-holed address, and the
        outage began before that.
    """

    seconds: float
    connect_timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class PinPolicy:
    """The policy of one owner of a pin.

    The fields are as the parameters of :func:`~.pin.pin_host`; without a port it is for every one.

    :param absolute: whether the owner's name is absolute: then no search domain is appended.
    """

    port: int | None
    patience: Patience
    stale_check: StaleAddressCheck | None = None
    absolute: bool = False


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one round: one resolution, and one trial of its addresses.

    :param addresses: those that may be used, in the order to try.
    :param winners: those that accepted a connection.
    :param silent: those that did not answer.
    :param tried_at: when they were tested, monotonic seconds; long ago if none had to be.
    :param passed: by address, until when a stale check need not be repeated.
    :param refused: by address, why a stale check rejected it.
    :param error: why there is no address at all.
    :param is_untested: whether there was no doubt about the addresses, so that none was tested.
    """

    addresses: tuple[str, ...] = ()
    winners: tuple[str, ...] = ()
    silent: frozenset[str] = frozenset()
    tried_at: float = LONG_AGO
    passed: Mapping[tuple[str, StaleAddressCheck], float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    error: DNSResolutionError | None = None
    is_untested: bool = False

    @property
    def ends_an_outage(self) -> bool:
        """Whether the addresses can be returned. The system explains an empty answer."""
        answered = self.is_untested or not self.addresses
        return bool(self.winners) or (self.error is None and answered)

    @property
    def why(self) -> str:
        """What is wrong, as the end of a sentence."""
        if self.error is not None:
            return f"cannot be resolved ({self.error.cause})"
        return f"none of {', '.join(self.addresses)} accepts a connection"


class Outcome(NamedTuple):
    """The outcome of addresses that were returned to a client.

    :param began: when they were returned, monotonic seconds.
    :param at: when their outcome was known.
    :param address: where the client connected; ``None`` if that is not known.
    :param skipped: the addresses before it, which the client skipped; all if none could be used.
    """

    began: float
    at: float
    address: str | None = None
    skipped: tuple[str, ...] = ()


class NextRound(NamedTuple):
    """What a failed round means for one caller.

    :param left: maximum seconds until the next round; 0 if patience is over.
    :param begins: whether it is the first of an outage.
    :param patience: the longest patience in force, seconds.
    """

    left: float
    begins: bool
    patience: float


class PortReachability(NamedTuple):
    """The state of one port. All times are monotonic seconds.

    While all is well it stays the same object, so that a new connection need not query it.

    :param outage_since: since when no address has accepted a connection.
    :param failed_at: when that last affected a caller.
    :param unconfirmed: when addresses were last returned for which it is not known whether the
        client could connect.
    :param alive: by address, when it last accepted a connection.
    :param passed: by address, until when a stale check need not be repeated.
    :param last: the last round, if it found nothing.
    :param given_up: when patience with this outage last ran out, and when it was due to end.
    """

    outage_since: float | None = None
    failed_at: float = LONG_AGO
    unconfirmed: float = LONG_AGO
    alive: Mapping[str, float] = MappingProxyType({})
    passed: Mapping[tuple[str, StaleAddressCheck], float] = MappingProxyType({})
    last: Round | None = None
    given_up: tuple[float, float] = (LONG_AGO, LONG_AGO)

    # --- what may be handed out without a round

    def at_once(
        self,
        now: float,
        addresses: tuple[str, ...],
        connecting: Iterable[float],
        *,
        must_be_tested: bool,
    ) -> tuple[str, ...] | None:
        """The addresses, which are not stale, in the order to try, if none has to be tested first.

        :param connecting: when clients received the addresses that they are connecting to now.
        :param must_be_tested: return only addresses of which one has just accepted a connection.
        :returns: ``None`` if a round is needed.
        """
        doubt = must_be_tested or self.in_doubt(now, connecting)
        if len(addresses) <= 1 and not doubt:
            return addresses
        seconds = ALIVE_FOR if doubt else _ALIVE_WITHOUT_DOUBT_FOR
        return self.known_alive(addresses, now, seconds) or None

    def known_alive(
        self, addresses: Sequence[str], now: float, seconds: float = ALIVE_FOR
    ) -> tuple[str, ...]:
        """The addresses, those first that accepted a connection lately; empty if none did."""
        known = [a for a in addresses if now - self.alive.get(a, LONG_AGO) < seconds]
        return (*known, *(a for a in addresses if a not in known)) if known else ()

    def in_doubt(self, now: float, connecting: Iterable[float]) -> bool:
        """Whether an address from DNS may be dead nevertheless; parameters as in :meth:`at_once`.

        Only an address that accepted a connection ends an outage, so after one it is tested.
        """
        return (
            self.outage_since is not None
            or now - self.unconfirmed < _DOUBT_FOR
            or any(CONNECT_TIMEOUT < now - at < _DOUBT_FOR for at in connecting)
        )

    def reusable_until(self, now: float, addresses: Sequence[str]) -> float:
        """Until when addresses from DNS may be returned in this order, as far as is known.

        Several addresses only while the first one is known to accept connections.
        """
        if self.in_doubt(now, ()):
            return LONG_AGO
        first = self.alive.get(addresses[0], LONG_AGO)
        return first + _ALIVE_WITHOUT_DOUBT_FOR if len(addresses) > 1 else FOREVER

    def learn(self, outcomes: Iterable[Outcome]) -> PortReachability:
        """The state after the outcome of addresses that were returned."""
        alive, unconfirmed = dict(self.alive), self.unconfirmed
        for outcome in outcomes:
            if outcome.address is None or outcome.skipped:
                unconfirmed = max(unconfirmed, outcome.began)
            elif outcome.began > unconfirmed:
                unconfirmed = LONG_AGO
            if outcome.address is not None:
                alive[outcome.address] = outcome.at
            for address in outcome.skipped:
                alive.pop(address, None)
        return self._replace(alive=alive, unconfirmed=unconfirmed)

    # --- what a round need not repeat

    def objection(self, now: float, address: str) -> str | None:
        """Why the stale checks rejected an address, if they need not be repeated."""
        if self.last is None or not self._gave_up_lately(now):
            return None
        return self.last.refused.get(address)

    def trial(self, now: float, addresses: Sequence[str]) -> Round | None:
        """The last trial of these addresses, if it is too recent to be repeated."""
        last = self.last
        if last is None or last.error is not None or set(last.addresses) != set(addresses):
            return None
        again = self._gave_up_lately(now) and last.silent.issuperset(addresses)
        return last if again or now - last.tried_at < ROUND / 2 else None

    # --- what follows from a round

    def after(self, now: float, found: Round) -> tuple[PortReachability, float | None]:
        """The state after a round; and if it ended an outage, how many seconds that lasted."""
        passed = {key: until for key, until in self.passed.items() if until > now}
        alive = {
            address: at
            for address, at in self.alive.items()
            if now - at < _ALIVE_WITHOUT_DOUBT_FOR
            and (address not in found.addresses or address in found.winners)
        }
        alive |= {a: max(found.tried_at, self.alive.get(a, LONG_AGO)) for a in found.winners}
        state = self._replace(passed={**passed, **found.passed}, alive=alive)
        if not found.ends_an_outage:
            return state._replace(last=found), None
        since = self.outage_since
        state = state._replace(last=None, outage_since=None, given_up=(LONG_AGO, LONG_AGO))
        return state, None if since is None else now - since

    def patience_end(
        self, started: float, handed_out: float, in_force: Sequence[Patience]
    ) -> float:
        """When a caller whose round began at ``started`` gives up.

        :param handed_out: when addresses were returned before that.
        """
        begun = self._outage_begun(started, handed_out, in_force)
        return begun + max(patience.seconds for patience in in_force)

    def is_hopeless(self, now: float, end: float, known: Resolution | None) -> bool:
        """Whether patience ran out lately, and nothing has changed since.

        :param end: when this caller's patience is over.
        :param known: the answer of DNS, if it is known without a query.
        """
        if self.last is None or not self._gave_up_lately(now) or end > self.given_up[1]:
            return False
        dead = {*self.last.silent, *self.last.refused}
        return known is None or dead.issuperset(known.places)

    def failed(
        self, now: float, started: float, handed_out: float, in_force: Sequence[Patience]
    ) -> tuple[PortReachability, NextRound]:
        """Whether to start another round after a caller's round found nothing."""
        begun = self._outage_begun(started, handed_out, in_force)
        patience = max(patience.seconds for patience in in_force)
        end = begun + patience
        state = self._replace(outage_since=begun, failed_at=now)
        # The next round has to end in time too, and its trials may take as long as this one's did.
        # A lookup need not: the caller leaves it when patience ends.
        left = end - now - min(now - started, _LONGEST_TRIAL)
        if self._gave_up_lately(now) and end <= self.given_up[1]:
            left = 0.0
        else:
            state = state._replace(given_up=(now, end) if left <= 0 else (LONG_AGO, LONG_AGO))
        return state, NextRound(max(0.0, left), begun != self.outage_since, patience)

    def forget(self) -> PortReachability:
        """The state after a change of policies: addresses given up on are tested again."""
        return self._replace(last=None, given_up=(LONG_AGO, LONG_AGO))

    def _outage_begun(
        self, started: float, handed_out: float, in_force: Sequence[Patience]
    ) -> float:
        if self.outage_since is not None and started - self.failed_at <= _FORGET_AFTER:
            return self.outage_since
        spent = started - handed_out
        hung = any(limit and limit <= spent < limit + _SLOW for _, limit in in_force)
        return handed_out if hung else started

    def _gave_up_lately(self, now: float) -> bool:
        return now < self.given_up[0] + REFUSED_FOR
