"""Lookups of SRV records: a name, its targets, their addresses, each with a port (RFC 2782)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from airflow_provider_hokusai_dns.resolver.errors import LookupFailed
from airflow_provider_hokusai_dns.resolver.lookup.exchange import Exchange
from airflow_provider_hokusai_dns.resolver.lookup.pending import PendingLookup
from airflow_provider_hokusai_dns.resolver.lookup.plan import Plan
from airflow_provider_hokusai_dns.resolver.lookup.questions import MAX_ADDRESSES, Reply, Service
from airflow_provider_hokusai_dns.resolver.lookup.stub_resolver import StubResolver
from airflow_provider_hokusai_dns.resolver.model import Answer, Attempt, Cause, Endpoint, Source

#: Targets followed of one answer, the best of them.
_MAX_TARGETS = 32
#: How long further targets are waited for once one has addresses, seconds.
_LATE_TARGET = 1.0


class PendingSRVLookup(PendingLookup):
    """Looks up an SRV name, then each target for which the answer contained no IPv4 address.

    The system's own lookup cannot return a port, so it is not used.

    :param hosts: addresses of a target from the hosts file, if it has any.
    """

    def __init__(
        self,
        stub: StubResolver,
        name: str,
        timeout: float,
        hint: str | None,
        hosts: Callable[[str], tuple[str, ...]],
    ) -> None:
        super().__init__()
        self._stub = stub
        self._hosts = hosts
        self._plan = stub.plan(name, timeout, hint=hint, kinds=("SRV",))
        self._end = self._plan.end
        self._exchange = Exchange()
        self._reply: Reply | None = None
        self._known: dict[str, tuple[str, ...]] = {}
        self._asked: dict[str, Plan] = {}
        self._first_at = inf

    def run(self, seconds: float) -> bool:
        """See :class:`~.pending.PendingLookup`, as for those below."""
        until = min(time.monotonic() + seconds, self._end)
        while not self._decide():
            now = time.monotonic()
            if until <= now < self._end:
                return False
            plans = self._plans()
            due = min(until, self._first_at + _LATE_TARGET)
            self._exchange.pump(plans, due, partial(_any_outcome, plans))
        return True

    def go_on(self, take: Callable[[Answer], None]) -> None:
        """Wait for late targets and families."""
        plans, taken = list(self._asked.values()), self.outcome
        while isinstance(taken, Answer):
            answer = self._answer()
            if answer.endpoints != taken.endpoints:
                taken = answer
                take(answer)
            now = time.monotonic()
            plans = [plan for plan in plans if not plan.is_over(now)]
            if not plans:
                break
            news = partial(self._is_news, plans, len(taken.endpoints))
            self._exchange.pump(plans, self._end, news)
        self.close()

    def is_over(self) -> bool:
        """Whether no further answer is expected for any target."""
        now = time.monotonic()
        return isinstance(self.outcome, LookupFailed) or all(
            plan.is_over(now) for plan in self._asked.values()
        )

    def attempts(self) -> list[Attempt]:
        """Each nameserver, name and family."""
        now = time.monotonic()
        return [step for plan in (self._plan, *self._asked.values()) for step in plan.attempts(now)]

    def close(self) -> None:
        """Close all sockets."""
        self._exchange.close()

    # --- inside

    def _is_news(self, plans: Sequence[Plan], known: int) -> bool:
        if len(self._answer().endpoints) > known:
            return True
        now = time.monotonic()
        return any(plan.is_over(now) for plan in plans)

    def _plans(self) -> list[Plan]:
        plans = [self._plan] if self._reply is None else list(self._asked.values())
        return [plan for plan in plans if plan.outcome is None]

    def _decide(self) -> bool:
        now, outcome = time.monotonic(), self._plan.outcome
        if isinstance(outcome, LookupFailed):
            self.outcome = outcome
        elif outcome is not None:
            if self._reply is None:
                self._reply = self._plan.reply()
                self._follow(self._reply, now)
            self._conclude(now)
        return self.outcome is not None

    def _follow(self, reply: Reply, now: float) -> None:
        """Look up the targets that have no address yet."""
        for service in _best(reply.services):
            target = service.target
            in_hosts = self._hosts(target)
            found = in_hosts or reply.glue.get(target, ())
            if found:
                self._known[target] = found
                self._first_at = now
            # A nameserver need not add all addresses, and this machine may have no IPv6.
            is_partial = not in_hosts and all(":" in address for address in found)
            if is_partial and target not in self._asked:
                self._asked[target] = self._stub.plan(target, max(self._end - now, 0.01))

    def _conclude(self, now: float) -> None:
        outcomes = [plan.outcome for plan in self._asked.values()]
        found = bool(self._known) or any(isinstance(one, Answer) for one in outcomes)
        if found:
            self._first_at = min(self._first_at, now)
        waited = found and now >= self._first_at + _LATE_TARGET
        if None in outcomes and not waited:
            return
        if found:
            self.outcome = self._answer()
            return
        causes = [one.cause for one in outcomes if isinstance(one, LookupFailed)]
        unclear = [cause for cause in causes if not cause.says_no_such_name]
        self.outcome = LookupFailed(
            unclear[0] if unclear else Cause.NODATA,
            f"no target of the SRV record {self._plan.name()} has an address",
            self.attempts(),
        )

    def _answer(self) -> Answer:
        assert self._reply is not None
        endpoints: dict[tuple[str, int | None], Endpoint] = {}
        ttls = [] if self._reply.ttl is None else [self._reply.ttl]
        for priority, weight, port, target in _best(self._reply.services):
            addresses = self._known.get(target, ())
            plan = self._asked.get(target)
            answer = None if plan is None else plan.outcome
            if isinstance(answer, Answer):
                addresses = answer.addresses
                ttls += [] if answer.ttl is None else [answer.ttl]
            for address in addresses:
                # The weight is the target's, however many addresses it has.
                one = Endpoint(address, port, priority, weight / len(addresses))
                endpoints.setdefault(one[:2], one)
        return Answer(
            tuple(endpoints.values())[:MAX_ADDRESSES],
            Source.DNS,
            ttl=min(ttls, default=None),
            name=self._plan.name(),
        )


def _any_outcome(plans: Sequence[Plan]) -> bool:
    return any(plan.outcome is not None for plan in plans)


def _best(services: Sequence[Service]) -> list[Service]:
    return sorted(services, key=lambda one: (one.priority, -one.weight))[:_MAX_TARGETS]
