"""What the DNS server answers: records and faults per name. Opens no socket."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import product
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver.testing import packets
from airflow_provider_hokusai_dns.resolver.testing.faults import (
    ANY,
    Fault,
    Payload,
    Plan,
    Query,
    Trouble,
)

if TYPE_CHECKING:
    from dns.message import QueryMessage

_LOG_LENGTH = 100_000
_READY_LENGTH = 10_000


class Zone:
    """Records and faults per name, and the log of what was asked.

    Every method may be called from any thread at any time; the next query sees the change. Names
    are compared without regard to case and final dot. ``name`` may be :data:`ANY` in every fault:
    the fault then applies to all names that have none of their own. ``rdtype`` (``"A"``,
    ``"AAAA"``, ...) limits a fault to one type of query. A fault hides the records but does not
    remove them: :meth:`heal` brings them back, and :meth:`set_records` heals too.

    :param negative_ttl: seconds for which resolvers may remember that something does not exist
        (the SOA's minimum, RFC 2308).
    """

    def __init__(self, *, negative_ttl: int = 5) -> None:
        self.negative_ttl = negative_ttl
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        # By name, then by type.
        self._records: dict[str, dict[str, tuple[int, tuple[str, ...]]]] = {}
        self._troubles: dict[str, dict[str | None, Trouble]] = {}
        self._delays: dict[str, float] = {}
        self._held: set[str] = set()
        self._log: deque[Query] = deque(maxlen=_LOG_LENGTH)
        self._counts: Counter[Query] = Counter()
        # Plain answers by transport and query without its id: a benchmark measures its subject
        # and not the building of packets here.
        self._ready: dict[tuple[str, bytes], tuple[Query, bytes]] = {}

    # -- records -----------------------------------------------------------------------------------

    def set_records(self, name: str, addresses: Iterable[str], *, ttl: int = 10) -> None:
        """Give a name these IPv4 and IPv6 addresses and nothing else, without any fault.

        :raises ValueError: for a text that is no address.
        """
        kinds: dict[str, list[str]] = {"A": [], "AAAA": []}
        for address in addresses:
            kinds["A" if ip_address(address).version == 4 else "AAAA"].append(address)
        self._replace(name, {rdtype: tuple(texts) for rdtype, texts in kinds.items() if texts}, ttl)

    def set_cname(self, name: str, target: str, *, ttl: int = 10) -> None:
        """Make a name an alias of another, which may be an alias too, or form a loop."""
        self._replace(name, {"CNAME": (f"{target.rstrip('.')}.",)}, ttl)

    def set_srv(
        self, name: str, targets: Iterable[tuple[int, int, int, str]], *, ttl: int = 10
    ) -> None:
        """Give a name SRV records: ``(priority, weight, port, target)`` each."""
        texts = [
            f"{priority} {weight} {port} {target.rstrip('.')}."
            for priority, weight, port, target in targets
        ]
        self.set_rdata(name, "SRV", texts, ttl=ttl)

    def set_rdata(self, name: str, rdtype: str, texts: Iterable[str], *, ttl: int = 10) -> None:
        """Set the records of any one type, written as in a zone file; other types stay.

        :param ttl: seconds, 0 to 2**32 - 1: also those that no server should send (RFC 2181).
        :raises ValueError: for a text that is no record of that type.
        """
        records = tuple(texts)
        packets.check_records(name, rdtype, records, ttl)
        with self._change():
            self._records.setdefault(_key(name), {})[rdtype.upper()] = (ttl, records)

    def _replace(self, name: str, kinds: dict[str, tuple[str, ...]], ttl: int) -> None:
        """Give a name these records and no others, at once, or change nothing at all."""
        for rdtype, records in kinds.items():
            packets.check_records(name, rdtype, records, ttl)
        with self._lock:
            self.remove(name)
            for rdtype, records in kinds.items():
                self.set_rdata(name, rdtype, records, ttl=ttl)

    def remove(self, name: str) -> None:
        """Remove a name, its records and its faults: it no longer exists."""
        self.heal(name)
        with self._change():
            self._records.pop(_key(name), None)

    # -- faults ------------------------------------------------------------------------------------

    def no_such_name(self, name: str = ANY, rdtype: str | None = None) -> None:
        """Answer NXDOMAIN, as Cloud Map does while a task is restarted."""
        self.fault(name, Fault.NO_SUCH_NAME, rdtype=rdtype)

    def no_data(self, name: str = ANY, rdtype: str | None = None) -> None:
        """Answer that the name exists and has no record of the type."""
        self.fault(name, Fault.NO_DATA, rdtype=rdtype)

    def servfail(self, name: str = ANY, rdtype: str | None = None) -> None:
        """Answer SERVFAIL."""
        self.fault(name, Fault.SERVFAIL, rdtype=rdtype)

    def refused(self, name: str = ANY, rdtype: str | None = None) -> None:
        """Answer REFUSED."""
        self.fault(name, Fault.REFUSED, rdtype=rdtype)

    def silent(self, name: str = ANY, rdtype: str | None = None) -> None:
        """Do not answer."""
        self.fault(name, Fault.SILENT, rdtype=rdtype)

    def truncate(self, name: str = ANY, rdtype: str | None = None) -> None:
        """Answer "truncated" over UDP, and completely over TCP."""
        self.fault(name, Fault.TRUNCATE, rdtype=rdtype)

    def wrong_id(self, name: str = ANY, rdtype: str | None = None) -> None:
        """Answer with another message id."""
        self.fault(name, Fault.WRONG_ID, rdtype=rdtype)

    def garbage(
        self, name: str = ANY, rdtype: str | None = None, *, payload: Payload | None = None
    ) -> None:
        """Answer with bytes that are not a DNS message.

        :param payload: the whole datagram, or a function that makes it of the right one, for
            fuzzing; by default the right id, followed by garbage.
        """
        self.fault(name, Fault.GARBAGE, rdtype=rdtype, payload=payload)

    def flapping(
        self,
        name: str = ANY,
        pattern: Sequence[Fault | str] = (Fault.ANSWER, Fault.SERVFAIL),
        *,
        every: int = 1,
        rdtype: str | None = None,
    ) -> None:
        """Cycle through a pattern of faults.

        :param every: queries after which the next element is taken, counted for A and AAAA apart.
        """
        for kind in (None, "A", "AAAA") if rdtype is None else (rdtype,):
            self.fault(name, *pattern, rdtype=kind, every=every)

    def fault(
        self,
        name: str,
        *pattern: Fault | str,
        rdtype: str | None = None,
        every: int = 1,
        payload: Payload | None = None,
    ) -> None:
        """Set any fault; the named methods above are more readable.

        :raises ValueError: for an unknown fault.
        """
        faults = tuple(Fault(fault) for fault in pattern)
        if not faults or every < 1:
            raise ValueError(f"give at least one fault, and every from 1, not {every!r}")
        with self._change():
            if rdtype is None:
                self._troubles.pop(_key(name), None)
            kind = None if rdtype is None else rdtype.upper()
            self._troubles.setdefault(_key(name), {})[kind] = Trouble(faults, every, payload)

    def delay(self, name: str, seconds: float) -> None:
        """Answer later than asked, beside any fault; other queries are not held up by it."""
        with self._change():
            self._delays[_key(name)] = seconds

    def hold(self, name: str) -> None:
        """Keep the queries for a name unanswered until :meth:`release`."""
        with self._change():
            self._held.add(_key(name))

    def release(self, name: str) -> None:
        """Answer the queries that :meth:`hold` kept, as things stand now."""
        with self._change():
            self._held.discard(_key(name))

    def heal(self, name: str = ANY) -> None:
        """Remove every fault, delay and hold of a name."""
        self.release(name)
        with self._change():
            self._troubles.pop(_key(name), None)
            self._delays.pop(_key(name), None)

    # -- what was asked ----------------------------------------------------------------------------

    @property
    def queries(self) -> tuple[Query, ...]:
        """What was asked, oldest first; the last 100,000 at most."""
        with self._lock:
            return tuple(self._log)

    def count(
        self, name: str | None = None, rdtype: str | None = None, transport: str | None = None
    ) -> int:
        """How many queries arrived: all, or those for a name, of a type, over a transport.

        :param transport: ``"udp"`` or ``"tcp"``.
        """
        wanted = (None if name is None else _key(name), rdtype, transport)
        with self._lock:
            return sum(
                number
                for query, number in self._counts.items()
                if all(want in (None, got) for want, got in zip(wanted, query, strict=True))
            )

    def clear_queries(self) -> None:
        """Reset the counters."""
        with self._lock:
            self._log.clear()
            self._counts.clear()

    def wait_for_queries(
        self, count: int, name: str | None = None, rdtype: str | None = None, timeout: float = 10.0
    ) -> None:
        """Return as soon as this many queries have arrived.

        :param timeout: seconds of real time.
        :raises TimeoutError: says how many there were.
        """
        deadline = time.monotonic() + timeout
        with self._arrived:
            while (seen := self.count(name, rdtype)) < count:
                if not self._arrived.wait(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"{seen} queries for {name or 'any name'}, not {count}")

    # -- answering ---------------------------------------------------------------------------------

    def plan(self, wire: bytes, transport: str, *, again: bool = False) -> Plan:
        """Decide about one query.

        :param again: it was held and counted before.
        """
        with self._lock:
            if ready := self._ready.get((transport, wire[2:])):
                query, payload = ready
                self._count(query)
                return Plan(wire[:2] + payload)
        asked = packets.parse_query(wire)
        if asked is None or isinstance(asked, bytes):
            return Plan(asked)
        question = asked.question[0]
        query = Query(_key(question.name.to_text()), packets.type_text(question.rdtype), transport)
        with self._lock:
            if not again:
                self._count(query)
            if self._held & {query.name, ANY}:
                return Plan(held=True)
            return self._decide(asked, wire, query)

    def _decide(self, asked: QueryMessage, wire: bytes, query: Query) -> Plan:
        trouble = self._trouble(query)
        fault = Fault.ANSWER if trouble is None else trouble.next()
        delay = self._delays.get(query.name, self._delays.get(ANY, 0.0))
        if fault is Fault.HANG_UP:
            return Plan(delay=delay, hang_up=True)
        if fault is Fault.SILENT:
            return Plan()
        payload = packets.build(
            asked,
            fault,
            self._records.get,
            transport=query.transport,
            negative_ttl=self.negative_ttl,
            nonsense=trouble.payload if trouble else None,
        )
        if trouble is None and not delay:
            if len(self._ready) >= _READY_LENGTH:
                self._ready.clear()
            self._ready[query.transport, wire[2:]] = (query, payload[2:])
        return Plan(payload, delay)

    def _trouble(self, query: Query) -> Trouble | None:
        for name, kind in product((query.name, ANY), (query.rdtype, None)):
            if trouble := self._troubles.get(name, {}).get(kind):
                return trouble
        return None

    def _count(self, query: Query) -> None:
        self._log.append(query)
        self._counts[query] += 1
        self._arrived.notify_all()

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._lock:
            yield
            self._ready.clear()


def _key(name: str) -> str:
    return name.rstrip(".").lower()
