"""What the resolver and the shared last-known-good tell each other (policy rules 16, 17).

Every call here may block for as long as the store does, so it runs on a worker thread, or on that
of a caller who asked for a refresh.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.metrics import Event
from airflow_provider_hokusai_dns.resolver.model import LastKnownGood, Source, Store

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.cache import Slot
    from airflow_provider_hokusai_dns.resolver.clock import Clock
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.observers import Observers

log = logging.getLogger(__name__)


class Publisher:
    """Reads and writes the store for one resolver.

    :param lock: the resolver's own, under which entries are replaced. Never held while the store
        is asked. A slot's ``store_lock`` may be held when it is taken, never the other way round.
    :param invalidate: called under the lock with a slot whose finished resolutions are void.
    """

    def __init__(
        self,
        store: Store | None,
        clock: Clock,
        lock: AbstractContextManager[object],
        observers: Observers,
        invalidate: Callable[[Slot], None],
    ) -> None:
        self._invalidate = invalidate
        self._store = store
        self._clock = clock
        self._lock = lock
        self._observers = observers

    def consult(self, slot: Slot, config: ResolverConfig) -> None:
        """Learn from the store after a lookup failed or while it is slow.

        Asked at most every ``store_recheck`` seconds and name. Where this process is the first to
        see that the name is gone, the store is told, so that the fleet has one clock for rule 7.
        """
        if self._store is None:
            return
        refused = ""
        with slot.store_lock:
            if self._clock.monotonic() - slot.store_read_at >= config.store_recheck:
                refused = self._learn(slot, config)
            self._store_nxdomain(slot)
        if refused:
            self._observers.emit(Event("store_rejected", slot.entry.hostname, detail=refused))

    def after_success(self, slot: Slot, config: ResolverConfig) -> None:
        """Once per process and name, and after a time without the name: see that the store agrees.

        This is the hook's share of rule 17: it writes where there is none. It also takes back a
        ``no_name_since`` that is no longer true, or the next outage would seem to be an old one.
        """
        if self._store is None or slot.published:
            return
        with slot.store_lock:
            if slot.published:
                return
            slot.published = True
            stored = self._read(slot)
            if stored is None or stored.no_name_since is not None:
                self._write(slot, stored, config, "hook")

    def publish(
        self, slot: Slot, config: ResolverConfig, written_by: str, *, always: bool = False
    ) -> None:
        """Write a fresh answer where rule 17 wants it: the share of the gate and the refresh.

        :param always: write it in any case: the stored one is to be as young as this refresh.
        """
        if self._store is None:
            return
        if always:
            config = replace(config, store_max_age=0.0)
        with slot.store_lock:
            slot.published = True
            self._write(slot, self._read(slot), config, written_by)

    def outcome(self, slot: Slot) -> str:
        """What the store had to say, for an error message."""
        if self._store is None:
            return "not configured"
        if slot.rejected:
            return f"refused: {slot.rejected}"
        return "nothing usable is known"

    def after_fork(self, lock: AbstractContextManager[object]) -> None:
        """Take the new lock of the resolver in a child process."""
        self._lock = lock

    def _learn(self, slot: Slot, config: ResolverConfig) -> str:
        """Adopt what is stored; returns why it was refused, where that is news."""
        record = self._read(slot)
        slot.store_read_at = self._clock.monotonic()
        slot.nxdomain_stored = False
        if record is None:
            return ""
        try:
            with self._lock:
                slot.entry = freshness.adopt(
                    slot.entry, record, self._clock.monotonic(), self._clock.time(), config
                )
                self._invalidate(slot)
        except ValueError as error:
            told, slot.rejected = slot.rejected, str(error)
            return "" if told == slot.rejected else slot.rejected
        slot.rejected = ""
        if record.no_name_since is not None:
            slot.nxdomain_stored = True
            slot.published = False  # whoever told it may be dead: the next success takes it back
        return ""

    def _store_nxdomain(self, slot: Slot) -> None:
        """Write down since when the name is gone; the answer keeps its own age (rule 16)."""
        entry = slot.entry
        if entry.answer is None or entry.no_name_since is None or slot.nxdomain_stored:
            return
        offset = self._clock.time() - self._clock.monotonic()
        slot.nxdomain_stored = True
        slot.published = False  # so that the next success takes it back
        self._save(
            LastKnownGood(
                hostname=entry.hostname,
                addresses=entry.answer.addresses,
                resolved_at=offset + entry.answer.resolved_at,
                ttl=entry.answer.ttl,
                no_name_since=offset + entry.no_name_since,
                written_by="hook",
            )
        )

    def _write(
        self, slot: Slot, stored: LastKnownGood | None, config: ResolverConfig, written_by: str
    ) -> None:
        answer = slot.entry.answer
        # What a hosts file says is true for its machine alone.
        if answer is None or answer.source in (Source.STORE, Source.HOSTS):
            return
        if stored is not None:
            try:
                freshness.check_record(slot.entry.hostname, stored)
            except ValueError:
                stored = None  # it serves nobody, so a good answer may take its place
        wall = self._clock.time()
        resolved_at = wall - self._clock.monotonic() + answer.resolved_at
        if not freshness.worth_writing(stored, answer, resolved_at, wall, config):
            return
        slot.nxdomain_stored = False
        self._save(
            LastKnownGood(
                slot.entry.hostname, answer.addresses, resolved_at, answer.ttl, None, written_by
            )
        )

    def _read(self, slot: Slot) -> LastKnownGood | None:
        """What is stored. A store that raises, against its protocol, knows nothing."""
        assert self._store is not None
        try:
            return self._store.read(slot.entry.hostname)
        except Exception:
            log.warning("The shared store cannot be read", exc_info=True)
            return None

    def _save(self, record: LastKnownGood) -> None:
        assert self._store is not None
        try:
            self._store.write(record)
        except Exception:
            log.warning("The shared store cannot be written", exc_info=True)
