"""Owns the mutable state of a resolver.

Two things are changed elsewhere: the served tallies (``Tally.n``), and :class:`RecordStatus`, which
the publisher owns.

Readers take no lock: an entry, the configuration and the finished answers are replaced and never
changed; replaced answers are marked as expired. Each is replaced here, under one lock, together
with everything that depends on it. No logging, callbacks or waiting under that lock.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver import forks, freshness
from airflow_provider_hokusai_dns.resolver.cache import Cache, RecordStatus, Slot
from airflow_provider_hokusai_dns.resolver.metrics import (
    Counters,
    DNSMetrics,
    Served,
    Tally,
    Window,
    level,
)
from airflow_provider_hokusai_dns.resolver.model import LONG_AGO, Answer, LastKnownGood, Source, utc
from airflow_provider_hokusai_dns.resolver.observers import Observers
from airflow_provider_hokusai_dns.resolver.target import parse_address

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.clock import Clock
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.errors import LookupFailed
    from airflow_provider_hokusai_dns.resolver.freshness import Entry
    from airflow_provider_hokusai_dns.resolver.ready import Ready, Turns

#: Shared random numbers from 0 to 1: a float for each name would cost memory.
_SHARES = [share / 255 for share in range(256)]
#: Seconds between two cleanups.
_CLEANUP_INTERVAL = 60.0


class ResolverState:
    """Configuration, names in memory, finished answers and counters of one resolver. Thread-safe.

    :param busy: whether a lookup is under way for a slot.
    """

    def __init__(self, config: ResolverConfig, clock: Clock, busy: Callable[[Slot], bool]) -> None:
        self.config = config
        self.clock = clock
        self.now = clock.monotonic
        self._busy = busy
        #: Finished resolutions by target string; the hit path reads them without the lock.
        self.ready: dict[str, Ready] = {}
        self.observers = Observers(self.served)
        # Reentrant: a signal handler may resolve a name in the thread that was interrupted here.
        self._lock = forks.free_in_child(threading.RLock())
        self._cache = Cache()
        self._counters = Counters(Window(config.window))
        self._cleaned_at = self.now()
        self._wall_offset = 0.0

    def wall_offset(self) -> float:
        """What to add to monotonic seconds for the time of day.

        Rounded to milliseconds: it stays the same until the clock is set, and until then finished
        answers share one float object.
        """
        offset = round(self.clock.time() - self.now(), 3)
        if offset != self._wall_offset:
            self._wall_offset = offset  # without the lock: concurrent callers compute the same
        return self._wall_offset

    # --- names

    def find(self, hostname: str) -> Slot | None:
        """The slot of a name, without a lock; ``None`` if the name is not in memory."""
        return self._cache.get(hostname)

    def slot(self, hostname: str) -> Slot:
        """The slot of a name, created if there is none (policy rule 14)."""
        slot = self._cache.get(hostname)
        if slot is None:
            with self._lock:
                if self._cache.make_room(self.now(), self.config, self._busy):
                    self._forget_ready()
                slot = self._cache.add(hostname)
        return slot

    def claim_cleanup(self, now: float) -> bool:
        """Claim the next cleanup if it is due; true for one caller only."""
        if now - self._cleaned_at <= _CLEANUP_INTERVAL:  # every call comes here: without the lock
            return False
        with self._lock:
            is_due = now - self._cleaned_at > _CLEANUP_INTERVAL
            if is_due:
                self._cleaned_at = now
            return is_due

    def cleanup(self) -> int:
        """Drop names that have nothing left to serve; returns how many."""
        with self._lock:
            self._cleaned_at = now = self.now()
            dropped = self._cache.cleanup(now, self.config, self._busy)
            for text, ready in [*self.ready.items()]:
                if now >= ready.turns.until:
                    self.ready.pop(text, None)
            return dropped

    def clear(self, hostname: str | None = None) -> None:
        """Drop one name, or all."""
        with self._lock:
            slots = [*self._cache.values()] if hostname is None else [self._cache.get(hostname)]
            for slot in slots:
                if slot is not None:
                    self._cache.drop(slot.entry.hostname)
                    self._replace(slot, slot.entry)

    def reconfigure(self, config: ResolverConfig) -> None:
        """Replace the policy; it applies to names in memory from now on."""
        with self._lock:
            if config.window != self.config.window:
                self._counters.window = Window(config.window)
            self.config = config
            self._forget_ready()

    # --- changes of an entry

    def _replace(self, slot: Slot, entry: Entry) -> None:
        """Replace an entry, and drop the answers that were built from the previous one.

        The lock is held. The version is incremented after the change: a caller that read the
        previous version has seen the previous entry, or :meth:`keep` ignores its answer.
        """
        self._replace_turns(slot, None)
        slot.entry = entry
        slot.version += 1

    @staticmethod
    def _replace_turns(slot: Slot, turns: Turns | None) -> None:
        """Replace the finished answers. The lock is held."""
        previous, slot.turns = slot.turns, turns
        if previous is not None:
            previous.until = LONG_AGO

    def succeeded(self, slot: Slot, answer: Answer, seconds: float, *, again: bool) -> Answer:
        """Record a lookup that returned addresses.

        :param seconds: how long it took.
        :param again: whether it was already counted, when its caller gave it up.
        :returns: the answer as it was recorded, with its timestamp.
        """
        with self._lock:
            now = self.now()
            slot.rotation += 1
            if slot.penalties:
                slot.penalties = {a: until for a, until in slot.penalties.items() if until > now}
            # Not for secrecy: it only has to differ between processes.
            shorten = random.choice(_SHARES)  # noqa: S311
            answer = replace(answer, resolved_at=now)
            self._replace(slot, freshness.succeed(slot.entry, answer, shorten))
            self._counters.last_success, self._counters.latency = now, seconds
            if not again:
                self._counters.lookups += 1
                self._counters.window.add(now, ok=True)
        took = None if again else seconds
        self.observers.emit("lookup", slot.entry.hostname, seconds=took, source=answer.source)
        return answer

    def failed(
        self, slot: Slot, error: LookupFailed, seconds: float, *, again: bool = False
    ) -> None:
        """Record a lookup that failed or was given up; parameters as in :meth:`succeeded`."""
        with self._lock:
            now = self.now()
            entry = freshness.fail(
                slot.entry, error.cause, now, error.detail, error.tried, again=again
            )
            self._replace(slot, entry)
            if again:
                return
            self._counters.lookups += 1
            self._counters.errors[error.cause.value] += 1
            self._counters.window.add(now, ok=False)
        self.observers.emit(
            "lookup_failed", entry.hostname, cause=error.cause, seconds=seconds, detail=error.detail
        )

    def adopt(self, slot: Slot, record: LastKnownGood) -> None:
        """Apply the record of the shared store (policy rules 15 to 17).

        :raises ValueError: a field of the record is invalid; the error names it.
        """
        with self._lock:
            now, wall = self.now(), self.clock.time()
            self._replace(slot, freshness.adopt(slot.entry, record, now, wall, self.config))

    def penalize(self, slot: Slot, address: str, port: int | None = None) -> bool:
        """Put an address at the back of the list (policy rule 13).

        :param port: if the answer contains ports, the one that did not accept a connection; all of
            the address if that is not known.
        :returns: whether the caller should look the name up again because of it.
        """
        with self._lock:
            now = self.now()
            current = {a: until for a, until in slot.penalties.items() if until > now}
            answer = slot.entry.answer
            endpoints = () if answer is None else answer.endpoints
            places = {
                endpoint[:2]
                for endpoint in endpoints
                if parse_address(endpoint.address) == address
                and (None in (port, endpoint.port) or port == endpoint.port)
            } or {(address, None)}
            until = now + self.config.penalty
            slot.penalties = {**current, **dict.fromkeys(places, until)}
            self._replace(slot, slot.entry)
            due = now - slot.reported_at >= self.config.report_interval
            if due:
                slot.reported_at = now
            return due

    def announce(self, slot: Slot) -> None:
        """Notify observers if the level of a name has changed."""
        with self._lock:
            entry = slot.entry
            current = freshness.level_of(entry, self.now(), self.config)
            previous, slot.announced = slot.announced, current
            is_unread = slot.record is not None and slot.record.is_unread
        if current == previous:
            return
        failure = entry.failure
        self.observers.emit(
            "state",
            entry.hostname,
            cause=None if failure is None else failure.cause,
            state=current,
            previous=previous,
            is_known=entry.answer is not None,
            is_unread=is_unread,
            detail="" if failure is None else failure.detail,
        )

    # --- answers served

    def keep(
        self, text: str, ready: Ready, slot: Slot, version: int, config: ResolverConfig
    ) -> None:
        """Keep a finished answer for the hit path.

        Ignored if the slot or the policy has changed since it was built: the change dropped the
        previous answer, and an older one must not replace it.
        """
        with self._lock:
            if slot.held and slot.version == version and self.config is config:
                if len(self.ready) >= 4 * config.max_hosts:
                    self._forget_ready()
                self.ready[text] = ready
                if slot.turns is not ready.turns:
                    self._replace_turns(slot, ready.turns)

    def _forget_ready(self) -> None:
        """Drop every finished answer. The lock is held."""
        self.ready.clear()
        for slot in [*self._cache.values()]:
            self._replace_turns(slot, None)

    def tally(self, slot: Slot, source: Source) -> Tally:
        """The counter for answers of a name that are served from memory."""
        with self._lock:
            return self._cache.served(slot).of(source)

    def record(self, slot: Slot) -> RecordStatus:
        """What this process knows about the record of a name in the shared store."""
        with self._lock:
            if slot.record is None:
                slot.record = RecordStatus()
            return slot.record

    def count_miss(self) -> None:
        """Count a caller that waited for a lookup that succeeded."""
        with self._lock:
            self._counters.misses += 1

    def count_failed(self) -> None:
        """Count a call that ended in an error."""
        with self._lock:
            self._counters.failed += 1

    def served(self) -> Counter[str]:
        """How many answers were served from memory, over all names that are or were there."""
        with self._lock:
            total = Served()
            for one in (self._cache.gone, *self._cache.values()):
                total.absorb(one)
            return total.numbers()

    def metrics(self) -> DNSMetrics:
        """A snapshot of all counters."""
        with self._lock:
            now, counters, slots = self.now(), self._counters, [*self._cache.values()]
            served = self.served()
            failures, successes = counters.window.counts(now)
            attempts = served.total() + counters.misses + counters.failed
            last = counters.last_success
            return DNSMetrics(
                attempts=attempts,
                hits=served["hits"],
                misses=counters.misses,
                stale=served["stale"],
                fallback=served["stored"] + served["static"],
                failed=counters.failed,
                lookups=counters.lookups,
                errors=dict(counters.errors),
                hit_rate=served["hits"] / attempts if attempts else 0.0,
                cache_size=len(slots),
                expired=sum(now >= freshness.expires_at(s.entry, self.config) for s in slots),
                last_success=None if last is None else utc(self.clock.time() - now + last),
                latency_ms=None if counters.latency is None else counters.latency * 1000,
                window_events=failures + successes,
                error_rate=failures / (failures + successes) if failures + successes else 0.0,
                level=level(failures, successes),
            )
