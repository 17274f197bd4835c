"""One lookup in progress, driven by its caller: DNS and, in parallel, the system's own."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial

from airflow_provider_hokusai_dns.resolver.errors import LookupFailed
from airflow_provider_hokusai_dns.resolver.lookup.exchange import Exchange
from airflow_provider_hokusai_dns.resolver.lookup.pending import PendingLookup
from airflow_provider_hokusai_dns.resolver.lookup.plan import Plan
from airflow_provider_hokusai_dns.resolver.model import FOREVER, Answer, Attempt, Cause, Source

#: What a nameserver says that was reached and has no answer, neither yes nor no.
_CANNOT_ANSWER = (Cause.SERVFAIL, Cause.REFUSED)


class PendingDNSLookup(PendingLookup):
    """DNS with a head start; then the system's own lookup in parallel. The first answer is used.

    The system mostly asks the same servers, which report when they cannot answer, and asks each of
    them twice: so it is skipped if the caller does not need it for now.

    :param system: starts the system's lookup, given the remaining seconds; ``None`` if the
        nameservers are configured.
    :param head_start: seconds.
    """

    def __init__(
        self,
        plan: Plan,
        system: Callable[[float], Future[Answer]] | None = None,
        head_start: float = 0.0,
    ) -> None:
        super().__init__()
        self._plan = plan
        self._exchange = Exchange()
        self._begin_system = system
        self._system: Future[Answer] | None = None
        #: Whether the last decision knew the system's outcome, and nothing is left to wake it for.
        self._heard = False
        #: When to start it; never, once it was.
        self._system_at = FOREVER if system is None else time.monotonic() + head_start
        self._bell: tuple[socket.socket, socket.socket] | None = None

    def run(self, seconds: float) -> bool:
        """See :class:`~.pending.PendingLookup`, as for those below."""
        plan = self._plan
        until = min(time.monotonic() + seconds, plan.end)
        while not self._decide():
            now = time.monotonic()
            if plan.outcome is None:
                self._pump(min(until, self._system_at))
            elif self._system is not None:  # DNS has failed: the system alone is left
                wait((self._system,), max(0.0, until - now))
            if until <= now < plan.end:
                return self._decide()
        return True

    def go_on(self, take: Callable[[Answer], None]) -> None:
        """Continue until DNS can return nothing more; the system's answer is used when it comes."""
        if isinstance(self.outcome, Answer):
            self._listen(self.outcome, take)
        elif self._system is not None:
            self._system.add_done_callback(lambda future: _pass_on(future, take))
        self.close()

    def is_over(self) -> bool:
        """Whether no further answer from DNS is expected."""
        return isinstance(self.outcome, LookupFailed) or self._plan.is_over(time.monotonic())

    def attempts(self) -> list[Attempt]:
        """Each nameserver, name and family; then the system."""
        told = [] if self._system is None else _attempts_of(self._system)
        return [*self._plan.attempts(time.monotonic()), *told]

    def close(self) -> None:
        """Close all sockets."""
        self._exchange.close()
        bell, self._bell = self._bell, None
        for end in bell or ():
            end.close()

    # --- inside

    def _decide(self) -> bool:
        """Set the outcome, if there is one; start the system's lookup, if it is time."""
        plan, system, now = self._plan, self._system, time.monotonic()
        self._heard = system is not None and system.done()
        if plan.outcome is None and now >= plan.end:
            plan.tick(now)
        failed = plan.outcome
        if isinstance(failed, Answer):
            self.outcome = failed
        elif system is not None and self._heard and system.exception() is None:
            self.outcome = system.result()
        elif failed is None:
            if now >= self._system_at:
                self._ask_system(plan.end - now)
        elif now < plan.end and system is None and self._wants_system(failed):
            self._ask_system(plan.end - now)
        elif now >= plan.end or system is None or self._heard:
            self.outcome = self._failure(failed)
        return self.outcome is not None

    def _wants_system(self, failed: LookupFailed) -> bool:
        if self._begin_system is None:
            return False
        self.left_out = not self.thorough and failed.cause in _CANNOT_ANSWER
        return not self.left_out

    def _ask_system(self, seconds: float) -> None:
        assert self._begin_system is not None
        self._bell = bell = socket.socketpair()
        for end in bell:
            end.setblocking(False)
        self._system, self._system_at = self._begin_system(seconds), FOREVER
        self._system.add_done_callback(lambda _: _wake(bell[1]))

    def _pump(self, until: float) -> None:
        plan, bell = self._plan, self._bell
        wake = None if bell is None or self._heard else bell[0]
        self._exchange.pump((plan,), until, lambda: plan.outcome is not None, wake)

    def _listen(self, taken: Answer, take: Callable[[Answer], None]) -> None:
        """Pass on each answer of DNS that is better than the previous one."""
        plan = self._plan
        while True:
            known = plan.outcome
            if isinstance(known, Answer) and (
                taken.source is not Source.DNS or known.endpoints != taken.endpoints
            ):
                taken = known
                take(taken)
            if plan.is_over(time.monotonic()):
                return
            self._exchange.pump((plan,), plan.end, partial(self._is_news, known))

    def _is_news(self, known: Answer | LookupFailed | None) -> bool:
        return self._plan.outcome is not known or self._plan.is_over(time.monotonic())

    def _failure(self, failed: LookupFailed) -> LookupFailed:
        """The cause is that of DNS; the system's error is added.

        If no nameserver could be asked at all, the system's "no such name" is the cause.
        """
        if self._system is None:
            return failed
        tried = [*failed.tried, *_attempts_of(self._system)]
        error = self._system.exception() if self._system.done() else None
        word = failed
        if failed.cause is Cause.NETWORK and isinstance(error, LookupFailed):
            word = error if error.cause.says_no_such_name else failed
        return LookupFailed(word.cause, word.detail, tried)


def _attempts_of(system: Future[Answer]) -> list[Attempt]:
    if not system.done():
        return [Attempt("system", "no answer in time")]
    error = system.exception()
    if isinstance(error, LookupFailed):
        return list(error.tried) or [Attempt("system", error.detail)]
    return [] if error is None else [Attempt("system", f"{type(error).__name__}: {error}")]


def _wake(bell: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed: the lookup is over
        bell.send(b"\0")


def _pass_on(future: Future[Answer], take: Callable[[Answer], None]) -> None:
    if future.exception() is None:
        take(future.result())
