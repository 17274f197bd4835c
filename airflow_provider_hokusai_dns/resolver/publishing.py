"""Reading and writing the shared last known good for the resolver (policy rules 16, 17).

Every call here may block for as long as the store does, so it runs on a worker thread, or on the
thread of a caller that requested a refresh.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.errors import StoreOverdue, StoreUnreadableError
from airflow_provider_hokusai_dns.resolver.lookup.system import bypassing_pin
from airflow_provider_hokusai_dns.resolver.model import LONG_AGO, LastKnownGood, Source, Store

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.cache import RecordStatus, Slot
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.state import ResolverState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Publisher:
    """Reads and writes the store for one resolver, one access per name at a time.

    No lock is held during an access: a store may log, and a log handler may resolve the name.
    """

    state: ResolverState
    store: Store | None

    def consult(self, slot: Slot) -> bool:
        """Read the store after a lookup failed or while it is slow.

        At most once per ``store_recheck`` seconds and name. If this process is the first to get "no
        such name", it writes that to the store, so that the whole fleet counts rule 7's time from
        then.

        :returns: whether it need not be asked again now: not if its answer is late, and no other
            address is known.
        """
        if self.store is None:
            return True
        refused, record = "", self.state.record(slot)
        with self._turn(record):
            if self.state.now() - record.read_at >= self.state.config.store_recheck:
                try:
                    refused = self._learn(slot)
                except StoreOverdue:
                    if slot.entry.answer is None:
                        record.read_at = LONG_AGO
                        return False
            self._tell_nxdomain(slot)
        if refused:
            self.state.observers.emit("store_rejected", slot.entry.hostname, detail=refused)
        return True

    def after_lookup(self, slot: Slot) -> None:
        """Keep the record recent while lookups succeed: every process does its part (rule 17)."""
        if self.is_due(slot):
            self.publish(slot, "hook")

    def is_due(self, slot: Slot) -> bool:
        """Whether it is time to compare a record with an answer of this process."""
        if self.store is None:
            return False
        since = self.state.now() - self.state.record(slot).compared_at
        return since >= self.state.config.store_max_age

    def publish(self, slot: Slot, written_by: str, *, always: bool = False) -> None:
        """Write a fresh answer if rule 17 requires it.

        :param written_by: stored with the answer, for people to read.
        :param always: write it in any case, so that the stored one is as recent as this refresh.
        """
        if self.store is None:
            return
        config = self.state.config
        if always:
            config = replace(config, store_max_age=0.0)
        record = self.state.record(slot)
        with self._turn(record):
            now = self.state.now()
            try:
                wait = self._write(slot, self._read(slot), config, written_by)
            except StoreOverdue:  # what is stored may be newer
                wait = config.store_recheck
            record.compared_at = now + wait - self.state.config.store_max_age

    def outcome(self, slot: Slot) -> tuple[str, bool]:
        """What the store returned, for an error message; and whether it could not be read."""
        if self.store is None:
            return "not configured", False
        record = self.state.record(slot)
        if record.is_unread:
            return "could not be read", True
        if record.rejected:
            return f"refused: {record.rejected}", False
        return "nothing usable is known", False

    @contextmanager
    def _turn(self, record: RecordStatus) -> Iterator[None]:
        """Wait until the current access to the store for a name has ended, then start the next.

        It waits at most as long as a lookup may take: after that, two at a time are better than
        none. Names resolved inside an access bypass the pin, which would wait for this access.
        """
        has_turn = record.turn.acquire(timeout=self.state.config.timeout)
        try:
            with bypassing_pin():
                yield
        finally:
            if has_turn:
                record.turn.release()

    def _learn(self, slot: Slot) -> str:
        """Adopt the stored record; returns why it was rejected, if that is new."""
        status = self.state.record(slot)
        status.read_at = self.state.now()  # not after it: the next lookup may take less time
        record = self._read(slot)
        status.has_nxdomain = False
        status.addresses = ()
        if record is None:
            return ""
        try:
            self.state.adopt(slot, record)
        except ValueError as error:
            known, status.rejected = status.rejected, str(error)
            return "" if known == status.rejected else status.rejected
        status.rejected, status.addresses = "", record.addresses
        if record.no_name_since is not None:
            status.has_nxdomain = True
            status.compared_at = LONG_AGO  # its writer may be dead: the next success takes it back
        return ""

    def _tell_nxdomain(self, slot: Slot) -> None:
        """Store since when the name has been missing; the answer keeps its age (rule 16)."""
        entry, status = slot.entry, self.state.record(slot)
        if entry.answer is None or entry.no_name_since is None or status.has_nxdomain:
            return
        is_local = entry.answer.source.is_local
        if is_local or not freshness.may_replace(status.addresses, entry.answer.addresses):
            return
        offset = self.state.clock.time() - self.state.now()
        status.has_nxdomain = True
        status.compared_at = LONG_AGO  # so that the next success takes it back
        self._save(
            slot,
            LastKnownGood.of(
                entry.hostname,
                entry.answer,
                offset + entry.answer.resolved_at,
                no_name_since=offset + entry.no_name_since,
            ),
        )

    def _write(
        self, slot: Slot, stored: LastKnownGood | None, config: ResolverConfig, written_by: str
    ) -> float:
        """Write the answer if the policy requires it; returns seconds until the next comparison."""
        answer, interval = slot.entry.answer, self.state.config.store_max_age
        if answer is None or answer.source is Source.STORE or answer.source.is_local:
            return interval
        if stored is not None:
            try:
                freshness.check_record(slot.entry.hostname, stored)
            except ValueError:
                stored = None  # it serves no caller, so a good answer may take its place
        wall = self.state.clock.time()
        resolved_at = wall - self.state.now() + answer.resolved_at
        if not freshness.worth_writing(stored, answer, resolved_at, wall, config):
            return freshness.compare_again_after(stored, wall, self.state.config)
        self.state.record(slot).has_nxdomain = False
        record = LastKnownGood.of(slot.entry.hostname, answer, resolved_at, written_by=written_by)
        return interval if self._save(slot, record) else config.store_recheck

    def _read(self, slot: Slot) -> LastKnownGood | None:
        """The stored record; none if there is no answer."""
        assert self.store is not None
        status = self.state.record(slot)
        status.is_unread = True
        try:
            record = self.store.read(slot.entry.hostname)
        except StoreOverdue:
            raise
        except StoreUnreadableError:
            return None
        except Exception:  # which its protocol forbids
            log.warning("The shared store cannot be read", exc_info=True)
            return None
        status.is_unread = False
        return record

    def _save(self, slot: Slot, record: LastKnownGood) -> bool:
        """Store a record; returns whether it was stored: not if the store raises."""
        assert self.store is not None
        try:
            is_stored = self.store.write(record)
        except Exception:
            log.warning("The shared store cannot be written", exc_info=True)
            return False
        if is_stored:
            self.state.record(slot).addresses = record.addresses
        return is_stored
