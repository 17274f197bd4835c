"""Resolve a name so that it keeps working when DNS does not.

The way of a call: target, cache, freshness, single flight, lookup, cache and store, resolution.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterable

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.cache import Cache, Slot
from airflow_provider_hokusai_dns.resolver.clock import Clock, SystemClock
from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
from airflow_provider_hokusai_dns.resolver.driving import Steps, adrive, drive
from airflow_provider_hokusai_dns.resolver.freshness import Action
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.resolver.metrics import (
    Counters,
    DNSMetrics,
    Event,
    Served,
    Window,
    level,
)
from airflow_provider_hokusai_dns.resolver.model import (
    Endpoint,
    Lookup,
    Resolution,
    Source,
    Store,
    make_resolution,
    utc,
)
from airflow_provider_hokusai_dns.resolver.observers import Observers
from airflow_provider_hokusai_dns.resolver.publishing import Publisher
from airflow_provider_hokusai_dns.resolver.serving import Serving
from airflow_provider_hokusai_dns.resolver.single_flight import SingleFlight
from airflow_provider_hokusai_dns.resolver.target import Target, parse_address
from airflow_provider_hokusai_dns.resolver.updater import Updater
from airflow_provider_hokusai_dns.resolver.workers import Workers

#: How far dnspython overshoots its lifetime, and the way through two threads.
_GRACE = 0.5
_CLEANUP_INTERVAL = 60.0
#: No version of a slot: join the lookup under way, if it still is, and begin none.
_JOIN_ONLY = -1


class DNSResolver:
    """A resolver with cache, stale answers, a shared last-known-good and static addresses.

    Thread-safe, usable from any number of event loops, and survives ``fork``.

    :param config: the numbers of the policy.
    :param lookup: the live lookup; hosts file, DNS and the system's own by default.
    :param store: the shared last-known-good; none by default.
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
        self._config = config or ResolverConfig()
        self._clock = clock or SystemClock()
        self._monotonic = self._clock.monotonic
        self._given_lookup = lookup
        self._workers = Workers("hokusai-dns")
        self._flights = SingleFlight(self._workers)
        self._lock = threading.RLock()
        self._cache = Cache()
        self._counters = Counters(Window(self._config.window))
        self._observers = Observers(self._served)
        self._cleaned_at = self._monotonic()
        self._publisher = Publisher(
            store,
            self._clock,
            self._lock,
            self._observers,
            outdated=lambda slot: self._serving.outdated(slot),
        )
        self._serving = Serving(
            self._config,
            self._clock,
            self._lock,
            self._counters,
            self._observers,
            self._publisher,
        )
        self._ready = self._serving.ready
        self._updater = Updater(
            config=self._config,
            lookup=lookup or LiveLookup(self._config),
            clock=self._clock,
            lock=self._lock,
            workers=self._workers,
            flights=self._flights,
            publisher=self._publisher,
            counters=self._counters,
            observers=self._observers,
            outdated=self._serving.outdated,
        )
        _all_resolvers.add(self)

    # --- the public face

    @property
    def config(self) -> ResolverConfig:
        """The configuration in force."""
        return self._config

    def reconfigure(self, config: ResolverConfig) -> None:
        """Swap the configuration in whole, while running (feature A15).

        What is cached stays, and is judged by the new numbers from now on.
        """
        with self._lock:
            if self._given_lookup is None:
                self._updater.lookup = LiveLookup(config)
            if config.window != self._config.window:
                self._counters.window = Window(config.window)
            self._config = self._updater.config = self._serving.config = config
            self._ready.clear()

    def add_observer(self, observer: Callable[[Event], None]) -> None:
        """Be told of events; called on the thread where they happen, outside of locks.

        :param observer: must be quick; what it raises is passed over.
        """
        self._observers.add(observer)

    def resolve(self, target: str) -> Resolution:
        """Resolve a target in any form of feature A1.

        :param target: hostname, address, ``host:port``, ``[v6]:port`` or URL.
        :raises DNSResolutionError: there is nothing to serve.
        :raises ValueError: the target can never be right.
        """
        ready = self._ready.get(target)
        if ready is not None and self._monotonic() < ready.until:
            ready.tally.n += 1
            return ready.next()
        return drive(self._steps(target))

    async def aresolve(self, target: str) -> Resolution:
        """:meth:`resolve` for a coroutine; never blocks the event loop."""
        ready = self._ready.get(target)
        if ready is not None and self._monotonic() < ready.until:
            ready.tally.n += 1
            return ready.next()
        return await adrive(self._steps(target))

    def refresh(
        self,
        target: str,
        written_by: str = "refresh",
        *,
        patience: float | None = None,
        always: bool = False,
    ) -> Resolution:
        """A live lookup past the cache, which other callers join.

        Writes the last-known-good where the policy wants it (rule 17). When the lookup fails, gives
        what :meth:`resolve` would give, with the cause.

        :param written_by: stored beside the answer, for people.
        :param always: write a fresh answer however young the stored one is.
        :param patience: seconds after which the lookup counts as failed, where that is less than
            the timeout of the policy. It goes on alone, and its answer is still taken.
        :raises DNSResolutionError: there is nothing to serve.
        :raises ValueError: the target can never be right.
        """
        resolution = drive(self._steps(target, live=True, patience=patience))
        self._publish(resolution, written_by, always=always)
        return resolution

    async def arefresh(self, target: str, written_by: str = "refresh") -> Resolution:
        """:meth:`refresh` for a coroutine; never blocks the event loop."""
        resolution = await adrive(self._steps(target, live=True))
        await asyncio.to_thread(self._publish, resolution, written_by)
        return resolution

    def report_failure(self, target: str, address: str) -> None:
        """Say that an address did not take a connection (policy rule 13).

        It goes to the back of the list for a while, and the name is looked up again.

        :raises ValueError: ``address`` is none, or the target can never be right.
        """
        canonical = parse_address(address)
        if canonical is None:
            raise ValueError(f"{address!r} is not an IP address")
        slot = self._cache.get(Target.parse(target).hostname)
        if slot is None:
            return
        now = self._monotonic()
        with self._lock:
            current = {a: until for a, until in slot.penalties.items() if until > now}
            slot.penalties = {**current, canonical: now + self._config.penalty}
            self._serving.outdated(slot)
            look = now - slot.reported_at >= self._config.report_interval
            if look:
                slot.reported_at = now
        if look:
            self._updater.fly(slot)

    def warm(self, targets: Iterable[str]) -> None:
        """Look names up in the background, so that the first use finds them (feature A13).

        :raises ValueError: a target can never be right.
        """
        parsed = [Target.parse(target) for target in targets]
        now = self._monotonic()
        for target in parsed:
            if target.literal is None:
                slot = self._slot(target.hostname, now)
                action = freshness.decide(slot.entry, now, self._config).action
                if action not in (Action.FRESH, Action.OLD, Action.FAILED):
                    self._updater.fly(slot)

    def clear(self, target: str | None = None) -> None:
        """Forget one name, or all; the shared store keeps what it has."""
        with self._lock:
            slots = self._cache.slots()
            if target is not None:
                hostname = Target.parse(target).hostname
                slots = [slot for slot in slots if slot.entry.hostname == hostname]
            for slot in slots:
                self._cache.drop(slot.entry.hostname)
                self._serving.outdated(slot)

    def cleanup(self) -> int:
        """Drop names that have nothing left to serve; returns how many (feature A9)."""
        with self._lock:
            self._cleaned_at = now = self._monotonic()
            dropped = self._cache.cleanup(now, self._config, self._updater.busy)
            for key in [key for key, ready in self._ready.items() if now >= ready.until]:
                del self._ready[key]
            return dropped

    def state(self, target: str) -> str:
        """The state of one name: ``healthy``, ``degraded``, ``unhealthy`` or ``unknown``."""
        parsed = Target.parse(target)
        if parsed.literal is not None:
            return "healthy"
        slot = self._cache.get(parsed.hostname)
        if slot is None:
            return "unknown"
        return freshness.state(slot.entry, self._monotonic(), self._config)

    def metrics(self) -> DNSMetrics:
        """A snapshot of all counters (feature E1)."""
        now = self._monotonic()
        with self._lock:
            counters, slots, cache = self._counters, self._cache.slots(), self._cache
            hits, stale, stored, static = self._served()
            fallback = stored + static
            failures, successes = counters.window.counts(now)
            attempts = hits + stale + fallback + counters.misses + counters.failed
            last = counters.last_success
            return DNSMetrics(
                attempts=attempts,
                hits=hits,
                misses=counters.misses,
                stale=stale,
                fallback=fallback,
                failed=counters.failed,
                lookups=counters.lookups,
                errors=dict(counters.errors),
                hit_rate=hits / attempts if attempts else 0.0,
                cache_size=len(cache),
                expired=sum(now >= freshness.expires_at(s.entry, self._config) for s in slots),
                last_success=None if last is None else utc(self._clock.time() - now + last),
                latency_ms=None if counters.latency is None else counters.latency * 1000,
                window_events=failures + successes,
                error_rate=failures / (failures + successes) if failures + successes else 0.0,
                level=level(failures, successes),
            )

    def wait_idle(self, timeout: float = 10.0) -> bool:
        """Wait until no lookup and no store access is under way, for tests and orderly ends.

        :param timeout: seconds.
        :returns: whether that came true.
        """
        return self._workers.wait_idle(timeout)

    # --- the way of a call

    def _steps(self, text: str, *, live: bool = False, patience: float | None = None) -> Steps:
        """All decisions of one call. Yields what to wait for, and for how many seconds."""
        target = Target.parse(text)
        if target.literal is not None:
            return make_resolution(
                target, (Endpoint(target.literal),), Source.LITERAL, clock=self._clock
            )
        config = self._config
        now = self._monotonic()
        slot = self._slot(target.hostname, now)
        if now - self._cleaned_at > _CLEANUP_INTERVAL:
            self._cleaned_at = now
            self._workers.run(self.cleanup)
        flight = None
        while flight is None:
            seen = slot.version  # before the decision: a lookup that lands from here on changes it
            now = self._monotonic()
            action = Action.WAIT if live else freshness.decide(slot.entry, now, config).action
            # "Failed" is not the last word while the shared store is being asked.
            known = action is Action.FAILED and not self._updater.busy(slot)
            if known or action in (Action.FRESH, Action.OLD):
                return self._serving.serve(target, slot, now)
            if action is Action.FAILED:
                seen = _JOIN_ONLY
            flight = self._updater.fly(slot, refresh=live, seen=None if live else seen)
        if action in (Action.AHEAD, Action.OLD_RECHECK):
            return self._serving.serve(target, slot, now)
        if action is Action.OLD_WAIT:
            left = flight.started + config.stale_after - now
            if left > 0:
                yield flight.final, left
            if not flight.final.done():  # until it is, nobody else need wait at all
                hold = flight.started + config.timeout
                return self._serving.serve(target, slot, self._monotonic(), since=now, hold=hold)
        else:
            end = flight.started + config.timeout + _GRACE
            if patience is not None:
                end = min(end, now + patience)
            landing = flight.final if live else flight.early
            yield landing, min(config.stale_after, max(0.0, end - now))
            if not landing.done():
                self._updater.ask_store(slot, flight)
                yield landing, max(0.0, end - self._monotonic())
            if live and slot.entry.failure is not None and flight.left_out:
                # It was under way without the system; a refresh asks all sources.
                flight = self._updater.fly(slot, refresh=True) or flight
                landing = flight.final
                yield landing, max(0.0, end - self._monotonic())
            if not flight.final.done() and (not landing.done() or self._monotonic() >= end):
                self._updater.give_up(slot, flight)
        return self._serving.serve(target, slot, self._monotonic(), since=now, live=live)

    # --- the rest

    def _slot(self, hostname: str, now: float) -> Slot:
        slot = self._cache.get(hostname)
        if slot is None:
            with self._lock:
                if self._cache.make_room(now, self._config, self._updater.busy):
                    self._ready.clear()
                slot = self._cache.add(hostname)
        return slot

    def _publish(self, resolution: Resolution, written_by: str, *, always: bool = False) -> None:
        slot = self._cache.get(resolution.hostname)
        if slot is not None and not resolution.is_stale:
            self._publisher.publish(slot, self._config, written_by, always=always)

    def _served(self) -> tuple[int, int, int, int]:
        """Hits, stale, stored and static over all names that are or were held."""
        total = Served()
        with self._lock:
            total.absorb(self._cache.gone)
            for slot in self._cache.slots():
                total.absorb(slot.served)
        return total.numbers()

    def _after_fork(self) -> None:
        """Replace every lock: one may have been held by a thread that did not come along."""
        self._lock = self._updater.lock = self._serving.lock = threading.RLock()
        self._publisher.after_fork(self._lock)
        self._observers.after_fork()
        self._flights.after_fork()
        for slot in self._cache.slots():
            slot.store_lock = threading.Lock()


_all_resolvers: weakref.WeakSet[DNSResolver] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for resolver in _all_resolvers:
        resolver._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
