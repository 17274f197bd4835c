"""Resolve a name so that it keeps working when DNS fails.

The path of a call: target, cache, freshness, single flight, lookup, cache and store, resolution.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.clock import Clock, SystemClock
from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
from airflow_provider_hokusai_dns.resolver.freshness import Action
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.metrics import DNSMetrics, Event
from airflow_provider_hokusai_dns.resolver.model import Endpoint, Lookup, Resolution, Source, Store
from airflow_provider_hokusai_dns.resolver.publishing import Publisher
from airflow_provider_hokusai_dns.resolver.ready import Ready
from airflow_provider_hokusai_dns.resolver.serving import Serving
from airflow_provider_hokusai_dns.resolver.single_flight import SingleFlight
from airflow_provider_hokusai_dns.resolver.state import ResolverState
from airflow_provider_hokusai_dns.resolver.steps import Steps, run_async, run_blocking
from airflow_provider_hokusai_dns.resolver.target import Target, parse_address, shown
from airflow_provider_hokusai_dns.resolver.updater import Updater
from airflow_provider_hokusai_dns.resolver.workers import NoThreadError, Workers

#: Seconds by which dnspython overshoots its lifetime, plus the handover between two threads.
_GRACE = 0.5
#: One for each lookup that hangs: the bound is that of the names held, and no healthy name queues.
_THREADS = 4096
#: No version of a slot: join the lookup under way, if it still is, and begin none.
_JOIN_ONLY = -1


class DNSResolver:
    """A resolver with cache, stale answers, a shared last known good and static addresses.

    Thread-safe, usable from any number of event loops, and survives ``fork``.

    :param config: the numbers of the policy.
    :param lookup: the live lookup; hosts file, DNS and the system's own by default.
    :param store: the shared last known good; none by default.
    :param clock: a source of time.
    """

    def __init__(
        self,
        config: ResolverConfig | None = None,
        *,
        lookup: Lookup | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._given_lookup = lookup
        self._workers = Workers("hokusai-dns", limit=_THREADS)
        flights = SingleFlight(self._workers)
        config = config or ResolverConfig()
        self._state = ResolverState(config, clock or SystemClock(), flights.busy)
        # Read on each hit, without a step in between.
        self._ready, self._monotonic = self._state.ready, self._state.now
        publisher = Publisher(self._state, store)
        self._serving = Serving(self._state, publisher)
        self._updater = Updater(
            self._state, lookup or _live_lookup(config), self._workers, flights, publisher
        )

    # --- the public interface

    @property
    def config(self) -> ResolverConfig:
        """The configuration in force."""
        return self._state.config

    def reconfigure(self, config: ResolverConfig) -> None:
        """Replace the whole configuration while running.

        Cached answers stay; the new numbers apply to them from now on.
        """
        if self._given_lookup is None:
            self._updater.lookup = _live_lookup(config)
        self._state.reconfigure(config)

    def add_observer(self, observer: Callable[[Event], None]) -> None:
        """Register an observer of events. It is called on the thread of the event, outside locks.

        :param observer: must be quick; its exceptions are logged and otherwise ignored.
        """
        self._state.observers.add(observer)

    def resolve(self, target: str) -> Resolution:
        """Resolve a target in any form of :class:`~.target.Target`.

        :param target: hostname, address, ``host:port``, ``[v6]:port`` or URL.
        :raises DNSResolutionError: there is no address to serve.
        :raises ValueError: the target is invalid.
        """
        ready = self._ready.get(target)
        if ready is not None and self._monotonic() < (turns := ready.turns).until:
            turns.tally.n += 1
            return ready.one or (ready.cycle or ready.grow)()
        return self._serving.known(target) or run_blocking(self._steps(Target.parse(target)))

    def ready(self, target: str) -> Ready | None:
        """The finished answers that :meth:`resolve` uses: the same object until the next decision.

        ``None`` if :meth:`resolve` must decide now. The caller counts the answers that it serves.
        """
        ready = self._ready.get(target)
        return ready if ready is not None and self._monotonic() < ready.turns.until else None

    async def aresolve(self, target: str) -> Resolution:
        """:meth:`resolve` for a coroutine; never blocks the event loop."""
        ready = self._ready.get(target)
        if ready is not None and self._monotonic() < (turns := ready.turns).until:
            turns.tally.n += 1
            return ready.one or (ready.cycle or ready.grow)()
        return self._serving.known(target) or await run_async(self._steps(Target.parse(target)))

    def refresh(
        self,
        target: str,
        written_by: str = "refresh",
        *,
        patience: float | None = None,
        always: bool = False,
    ) -> Resolution:
        """A live lookup that bypasses the cache; other callers join it.

        The call joins a lookup that is already in progress. If that lookup fails, the name is
        looked up again, because it may have been repaired since.

        Writes the last known good if the policy requires it (rule 17). If the lookup fails, returns
        what :meth:`resolve` would return, with the cause.

        :param written_by: stored with the answer, for people to read.
        :param always: write a fresh answer even if the stored one is recent.
        :param patience: seconds after which the lookup counts as failed, if that is less than the
            policy's timeout. The lookup continues in the background, and its answer is still used.
        :raises DNSResolutionError: there is no address to serve.
        :raises ValueError: the target is invalid.
        """
        resolution = self.look_up(target, patience=patience)
        self.publish(resolution, written_by, always=always)
        return resolution

    def look_up(self, target: str, *, patience: float | None = None) -> Resolution:
        """:meth:`refresh`, without writing the last known good."""
        return run_blocking(self._steps(Target.parse(target), live=True, patience=patience))

    def publish(
        self, resolution: Resolution, written_by: str = "refresh", *, always: bool = False
    ) -> None:
        """Write what :meth:`look_up` returned as last known good, as :meth:`refresh` does."""
        slot = self._state.find(resolution.hostname)
        if slot is not None and not resolution.is_stale:
            self._updater.publisher.publish(slot, written_by, always=always)

    async def arefresh(self, target: str, written_by: str = "refresh") -> Resolution:
        """:meth:`refresh` for a coroutine; never blocks the event loop."""
        resolution = await run_async(self._steps(Target.parse(target), live=True))
        publish = partial(self.publish, resolution, written_by)
        await asyncio.wrap_future(self._workers.call(publish, beside=True))
        return resolution

    def report_failure(self, target: str, address: str, port: int | None = None) -> None:
        """Report that an address did not accept a connection (policy rule 13).

        The address moves to the end of the list for a while, and the name is looked up again.

        :param port: the port that was tried, if answers have their own ports (SRV).
        :raises ValueError: ``address`` is not an address, or the target is invalid.
        """
        canonical = parse_address(address)
        if canonical is None:
            raise ValueError(f"{address!r} is not an IP address")
        slot = self._state.find(Target.parse(target).hostname)
        if slot is not None and self._state.penalize(slot, canonical, port):
            self._updater.start_or_join(slot)

    def warm(self, targets: Iterable[str]) -> None:
        """Look names up in the background, so that they are cached before their first use.

        :raises ValueError: a target is invalid, or ``targets`` is a single text.
        """
        if isinstance(targets, str):  # it would be a list of its letters
            raise ValueError(f"targets must be a list, not {shown(targets)!r}")
        parsed = [Target.parse(target) for target in targets]
        now = self._monotonic()
        for target in parsed:
            if target.literal is None:
                slot = self._state.slot(target.hostname)
                action = freshness.decide(slot.entry, now, self._state.config).action
                if action not in (Action.FRESH, Action.STALE, Action.FAILED):
                    self._updater.start_or_join(slot)

    def clear(self, target: str | None = None) -> None:
        """Drop one name, or all; the shared store is not changed."""
        self._state.clear(None if target is None else Target.parse(target).hostname)

    def cleanup(self) -> int:
        """Drop names that have no answer left to serve.

        :returns: how many names were dropped.
        """
        return self._state.cleanup()

    def state(self, target: str) -> Level:
        """The state of one name: ``healthy``, ``degraded``, ``unhealthy`` or ``unknown``."""
        parsed = Target.parse(target)
        if parsed.literal is not None:
            return Level.HEALTHY
        slot = self._state.find(parsed.hostname)
        if slot is None:
            return Level.UNKNOWN
        return freshness.level_of(slot.entry, self._monotonic(), self._state.config)

    def metrics(self) -> DNSMetrics:
        """A snapshot of all counters."""
        return self._state.metrics()

    def wait_idle(self, timeout: float = 10.0) -> bool:
        """Wait until no lookup and no store access is in progress, for tests and a clean shutdown.

        :param timeout: seconds.
        :returns: whether this happened in time.
        """
        return self._workers.wait_idle(timeout)

    # --- the path of a call

    def _steps(self, target: Target, *, live: bool = False, patience: float | None = None) -> Steps:
        """All decisions of one call. Yields what to wait for, and for how many seconds."""
        if target.literal is not None:
            endpoints = (Endpoint(target.literal),)
            return Resolution(target.text, target.hostname, endpoints, Source.LITERAL, target.port)
        config = self._state.config
        now = self._monotonic()
        slot = self._state.slot(target.hostname)
        if self._state.claim_cleanup(now):
            with contextlib.suppress(NoThreadError):
                self._workers.run(self.cleanup, beside=True)
        flight = None
        while flight is None:
            seen = slot.version  # before the decision: a lookup that lands from here on changes it
            now = self._monotonic()
            action = Action.WAIT if live else freshness.decide(slot.entry, now, config).action
            if action is Action.FAILED and self._updater.flights.busy(slot):
                seen = _JOIN_ONLY  # it is not the last word while the shared store is being asked
            elif action in (Action.FRESH, Action.STALE, Action.FAILED):
                return self._serving.serve(target, slot, now)
            flight = self._updater.start_or_join(
                slot,
                refresh=live,
                seen=None if live else seen,
                lead=action in (Action.WAIT, Action.STALE_WAIT),
            )
        if action in (Action.AHEAD, Action.STALE_RECHECK):
            hold = flight.started + config.timeout, seen
            return self._serving.serve(target, slot, now, hold=hold)
        if action is Action.STALE_WAIT:
            left = flight.started + config.stale_after - now
            if left > 0:
                yield flight.final, left, flight.lead
            elif flight.lead is not None:
                flight.lead(0.0)
            if not flight.final.is_set():  # until it is, no other caller has to wait
                hold = flight.started + config.timeout, seen
                return self._serving.serve(target, slot, self._monotonic(), since=now, hold=hold)
        else:
            end = flight.started + config.timeout + _GRACE
            if patience is not None:
                end = min(end, now + patience)
            event = flight.final if live else flight.early
            yield event, min(config.stale_after, max(0.0, end - now)), flight.lead
            if not event.is_set():
                self._updater.ask_store(slot, flight)
                yield event, max(0.0, end - self._monotonic()), None
            joined = flight.started < now or flight.left_out
            if live and joined and slot.entry.failure is not None:
                # It began before this call, when the name may still have been broken, or it left
                # sources out. A refresh asks all of them, and after it was called.
                flight = self._updater.start_or_join(slot, refresh=True) or flight
                event = flight.final
                yield event, max(0.0, end - self._monotonic()), None
            if not flight.final.is_set() and (not event.is_set() or self._monotonic() >= end):
                self._updater.give_up(slot, flight)
        return self._serving.serve(target, slot, self._monotonic(), since=now, live=live)


def _live_lookup(config: ResolverConfig) -> Lookup:
    """Create the default lookup. Imported here, because parsing a DAG file needs none."""
    from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup

    return LiveLookup(config)
