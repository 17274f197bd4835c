"""The names in memory, up to a limit. Every method takes ``now``; nothing here reads a clock."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
from airflow_provider_hokusai_dns.resolver.freshness import Entry, expires_at, is_spent
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.metrics import Served
from airflow_provider_hokusai_dns.resolver.model import LONG_AGO

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.order import AddressAndPort
    from airflow_provider_hokusai_dns.resolver.ready import Turns


@dataclass(slots=True, eq=False)
class RecordStatus:
    """What this process knows about one record in the shared store. Only the publisher writes it.

    :param turn: held during one access to the store, with a time limit; it guards no state.
    :param read_at: when it was last read for an answer; monotonic seconds.
    :param compared_at: when it was last compared with a fresh answer; earlier, if it was old then.
    :param has_nxdomain: whether it contains since when the name has been missing.
    :param is_unread: whether the last read failed.
    :param rejected: why it was rejected; empty if it was not.
    :param addresses: those that it contained when it was last read for an answer, or written.
    """

    turn: threading.Lock = field(default_factory=lambda: forks.free_in_child(threading.Lock()))
    read_at: float = LONG_AGO
    compared_at: float = LONG_AGO
    has_nxdomain: bool = False
    is_unread: bool = False
    rejected: str = ""
    addresses: tuple[str, ...] = ()


_NO_PENALTIES: dict[AddressAndPort, float] = {}


@dataclass(slots=True, eq=False, kw_only=True)
class Slot(Served):
    """One name: its frozen entry, and what changes too often to be frozen.

    :param penalties: until when an address stays at the back of the list (policy rule 13);
        replaced and never changed, because it is read without the lock.
    :param record: what this process knows about the name's record in the shared store, if any.
    :param version: counts the changes of everything that an answer is built from.
    :param held: whether the cache still has it; a caller may be waiting on a dropped one.
    """

    entry: Entry
    uses_at_last_eviction: int = 0
    penalties: dict[AddressAndPort, float] = field(default_factory=lambda: _NO_PENALTIES)
    reported_at: float = LONG_AGO
    # Not for secrecy: short-lived processes must not all begin with the same address.
    rotation: int = field(default_factory=partial(random.randrange, 256))
    announced: Level = Level.UNKNOWN
    record: RecordStatus | None = None
    version: int = 0
    held: bool = True
    #: What the finished answers have in common.
    turns: Turns | None = None

    @property
    def uses(self) -> int:
        """How often the name was served from memory."""
        return self.n + sum(tally.n for tally in [*(self.others or {}).values()])


class Cache(dict[str, Slot]):
    """Slots by hostname. The caller holds the resolver's lock, except for :meth:`get`."""

    def __init__(self) -> None:
        super().__init__()
        #: Uses of names that are gone, so that totals keep adding up.
        self.gone = Served()

    def add(self, hostname: str) -> Slot:
        """The slot of a name, made if there is none."""
        return self.setdefault(hostname, Slot(entry=Entry(hostname)))

    def drop(self, hostname: str) -> None:
        """Drop one name."""
        if (slot := self.pop(hostname, None)) is not None:
            slot.held = False
            self.gone.absorb(slot)

    def served(self, slot: Slot) -> Served:
        """The counter of a slot's uses: callers may still be waiting on a dropped slot."""
        return slot if slot.held else self.gone

    def cleanup(self, now: float, config: ResolverConfig, busy: Callable[[Slot], bool]) -> int:
        """Drop names that have nothing left to serve; returns how many."""
        useless = [
            name
            for name, slot in [*self.items()]  # a signal handler may add a name meanwhile
            if is_spent(slot.entry, now, config) and not busy(slot)
        ]
        for name in useless:
            self.drop(name)
        return len(useless)

    def make_room(self, now: float, config: ResolverConfig, busy: Callable[[Slot], bool]) -> bool:
        """Drop names when the limit is reached; returns whether any were dropped.

        Failures are dropped first, then stale names, then those not used lately (rule 14). A name
        that is being looked up is dropped last: later callers could not join its lookup.
        """
        if len(self) < config.max_hosts:
            return False

        def worth(slot: Slot) -> tuple[int, int]:
            if busy(slot):
                kind = 3
            elif slot.entry.answer is None:
                kind = 0
            else:
                kind = 1 if now >= expires_at(slot.entry, config) else 2
            return kind, slot.uses - slot.uses_at_last_eviction

        # An eighth at once, so that a full cache is not sorted for every new name.
        order = sorted(self.items(), key=lambda item: worth(item[1]))
        for name, _ in order[: max(1, len(order) // 8)]:
            self.drop(name)
        for slot in [*self.values()]:
            slot.uses_at_last_eviction = slot.uses
        return True
