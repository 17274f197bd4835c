"""Reading and writing the shared last known good for the resolver (policy rules 16, 17).

Every call here may block for as long as the store does, so it runs on a worker thread, or on that
of a caller that asked for a refresh.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.lookup.system import past_the_pin
from airflow_provider_hokusai_dns.resolver.metrics import Event
from airflow_provider_hokusai_dns.resolver.model import LastKnownGood, Source, Store

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.cache import RecordStatus, Slot
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.state import ResolverState

log = logging.getLogger(__name__)

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Publisher:
    """Reads and writes the store for one resolver, one access per name at a time.

    No lock is held meanwhile: a store may log, and what handles the log may resolve the name.
    """

    state: ResolverState
    store: Store | None

    def consult(self, slot: Slot) -> None:
        """Learn from the store after a lookup failed or while it is slow.

        Asked at most every ``store_recheck`` seconds and name. Where this process is the first to
        see that the name does not exist, it writes that to the store, so that the fleet has one
        clock for rule 7.
        """
        if self.store is None:
            return
        refused, record = "", self.state.record(slot)
        with self._turn(record):
            if self.state.now() - record.read_at >= self.state.config.store_recheck:
                refused = self._learn(slot)
            self._tell_nxdomain(slot)
        if refused:
            event = Event("store_rejected", slot.entry.hostname, detail=refused)
            self.state.observers.emit(event)

    def after_lookup(self, slot: Slot) -> None:
        """Keep the record young while lookups succeed: the share of every process (rule 17).

        A process compares a name's record with its own answer at most every ``store_max_age``
        seconds, which costs it one read, and a write where the record is that old, differs, or says
        that the name is gone. A store that did not accept a write is asked again after
        ``store_recheck`` seconds.
        """
        if self.is_due(slot):
            self.publish(slot, "hook")

    def is_due(self, slot: Slot) -> bool:
        """Whether a record is to be compared with an answer of this process."""
        if self.store is None:
            return False
        since = self.state.now() - self.state.record(slot).compared_at
        return since >= self.state.config.store_max_age

    def publish(self, slot: Slot, written_by: str, *, always: bool = False) -> None:
        """Write a fresh answer where rule 17 wants it.

        :param written_by: stored beside the answer, for people.
        :param always: write it in any case: the stored one is to be as young as this refresh.
        """
        if self.store is None:
            return
        config = self.state.config
        if always:
            config = replace(config, store_max_age=0.0)
        record = self.state.record(slot)
        with self._turn(record):
            now = self.state.now()
            kept = self._write(slot, self._read(slot), config, written_by)
            retry = config.store_recheck - self.state.config.store_max_age
            record.compared_at = now if kept else now + retry

    def outcome(self, slot: Slot) -> str:
        """What the store returned, for an error message."""
        if self.store is None:
            return "not configured"
        if rejected := self.state.record(slot).rejected:
            return f"refused: {rejected}"
        return "nothing usable is known"

    @contextmanager
    def _turn(self, record: RecordStatus) -> Iterator[None]:
        """Wait for the access to the store that is under way for a name, and be the next.

        No longer than a lookup may take: then two at a time are better than none. The names that
        are resolved in here pass the pin, which could only wait for this very access.
        """
        has_turn = record.turn.acquire(timeout=self.state.config.timeout)
        try:
            with past_the_pin():
                yield
        finally:
            if has_turn:
                record.turn.release()

    def _learn(self, slot: Slot) -> str:
        """Adopt what is stored; returns why it was refused, where that is news."""
        record = self._read(slot)
        status = self.state.record(slot)
        status.read_at = self.state.now()
        status.has_nxdomain = False
        if record is None:
            return ""
        try:
            self.state.adopt(slot, record)
        except ValueError as error:
            known, status.rejected = status.rejected, str(error)
            return "" if known == status.rejected else status.rejected
        status.rejected = ""
        if record.no_name_since is not None:
            status.has_nxdomain = True
            status.compared_at = _NEVER  # its writer may be dead: the next success takes it back
        return ""

    def _tell_nxdomain(self, slot: Slot) -> None:
        """Write down since when the name is gone; the answer keeps its own age (rule 16)."""
        entry, status = slot.entry, self.state.record(slot)
        if entry.answer is None or entry.no_name_since is None or status.has_nxdomain:
            return
        if not freshness.is_for_the_fleet(entry.answer):
            return
        offset = self.state.clock.time() - self.state.now()
        status.has_nxdomain = True
        status.compared_at = _NEVER  # so that the next success takes it back
        self._save(
            LastKnownGood.of(
                entry.hostname,
                entry.answer,
                offset + entry.answer.resolved_at,
                no_name_since=offset + entry.no_name_since,
            )
        )

    def _write(
        self, slot: Slot, stored: LastKnownGood | None, config: ResolverConfig, written_by: str
    ) -> bool:
        """Write the answer where the policy wants it; returns whether the store is as it should."""
        answer = slot.entry.answer
        # What a hosts file says is true for its machine alone.
        if answer is None or answer.source in (Source.STORE, Source.HOSTS):
            return True
        if stored is not None:
            try:
                freshness.check_record(slot.entry.hostname, stored)
            except ValueError:
                stored = None  # it serves no caller, so a good answer may take its place
        wall = self.state.clock.time()
        resolved_at = wall - self.state.now() + answer.resolved_at
        if not freshness.worth_writing(stored, answer, resolved_at, wall, config):
            return True
        self.state.record(slot).has_nxdomain = False
        return self._save(
            LastKnownGood.of(slot.entry.hostname, answer, resolved_at, written_by=written_by)
        )

    def _read(self, slot: Slot) -> LastKnownGood | None:
        """What is stored. A store that raises, against its protocol, knows nothing."""
        assert self.store is not None
        try:
            return self.store.read(slot.entry.hostname)
        except Exception:
            log.warning("The shared store cannot be read", exc_info=True)
            return None

    def _save(self, record: LastKnownGood) -> bool:
        """Store a record; returns whether it is kept. A store that raises has not kept it."""
        assert self.store is not None
        try:
            return self.store.write(record)
        except Exception:
            log.warning("The shared store cannot be written", exc_info=True)
            return False
