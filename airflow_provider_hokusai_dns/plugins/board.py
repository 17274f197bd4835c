"""What the API server knows of each connection, and how often it may look.

A web endpoint must not let its callers cause work without bound. So reading Airflow and looking at
MLflow happen on a few threads of our own: per connection one at a time, and none while the last is
young. The caller who set it going waits for a moment, which is enough while all is well; who comes
meanwhile gets what is known, and nobody waits for a server that hangs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns import gate, runtime, settings
from airflow_provider_hokusai_dns.plugins import options
from airflow_provider_hokusai_dns.plugins.state import Known, Place, worst
from airflow_provider_hokusai_dns.resolver import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.resolver.workers import Workers
from airflow_provider_hokusai_dns.tracking.probe import login_age_limit

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver import Resolution
    from airflow_provider_hokusai_dns.tracking.verdict import Verdict

log = logging.getLogger(__name__)

#: Seconds for which what was read from Airflow is good enough, where looks are not rarer.
_READ_EVERY = 10.0
#: Seconds for which the settings that were read are good enough.
_SETTINGS_EVERY = 2.0
#: Seconds that a caller waits for what it set going.
_PATIENCE = 3.0
#: Seconds for which a check is good enough for a caller who asks for a fresh one.
_FRESH_EVERY = 2.0
#: Seconds after which a verdict says nothing any more: nobody asked, so nobody looked.
_FORGET_AFTER = 300.0
#: Seconds after which work under way is taken for lost, as after a fork.
_LOST_AFTER = 120.0
#: Before a connection was read for the first time.
_UNREAD = Place()


@dataclass
class _Entry:
    """One connection: what is known, and what is under way."""

    known: Known
    read_at: float = float("-inf")
    looked_from: float = float("-inf")
    reading: bool = False
    looking: bool = False
    first_read: Future[None] | None = None
    told: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class _Wishes:
    """The settings as they were a moment ago; asking Airflow for each call takes milliseconds."""

    read_at: float
    every: float
    listed: tuple[str, ...]
    problem: str | None = None


class Board:
    """The last known state of the listed connections. Thread-safe; every call is bounded.

    :param look: one look at a connection.
    :param now: seconds on a clock that never steps.
    :param patience: seconds that a caller waits for what it set going.
    """

    def __init__(
        self,
        look: Callable[[str], Verdict] | None = None,
        now: Callable[[], float] = time.monotonic,
        patience: float = _PATIENCE,
    ) -> None:
        self._look = look or (lambda conn_id: gate.look(conn_id))
        self._now = now
        self._patience = patience
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._complained = ""
        self._wishes: _Wishes | None = None
        self._readers = Workers("hokusai-dns-board-read", limit=4)
        self._lookers = Workers("hokusai-dns-board-look", limit=8)

    def listed(self) -> tuple[tuple[str, ...], str | None]:
        """The connections to look after; none, and a sentence, where the setting is wrong."""
        wishes = self._wishes_now()
        return wishes.listed, wishes.problem

    def _wishes_now(self) -> _Wishes:
        now, wishes = self._now(), self._wishes
        if wishes is None or now - wishes.read_at >= _SETTINGS_EVERY:
            wishes = self._wishes = self._read_wishes(now)
        return wishes

    def _read_wishes(self, now: float) -> _Wishes:
        every = options.look_every()
        try:
            return _Wishes(now, every, tuple(dict.fromkeys(settings.listed_connections())))
        except ValueError as error:
            if self._complained != str(error):
                self._complained = str(error)
                log.error("Health of MLflow is unknown: %s", error)
            return _Wishes(now, every, (), str(error))

    def words(self) -> dict[str, str]:
        """``overall``, ``dns`` and ``mlflow`` in one word each. Never probes, never asks DNS.

        Never raises either: with a list of connections that cannot be read, nothing is known.
        """
        return _words(self._up_to_date(self.listed()[0], look=False))

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether every listed connection can be used, and the words. Looks where it is due."""
        known = self._up_to_date(self.listed()[0], look=True)
        usable = bool(known) and all(one.mlflow in ("healthy", "degraded") for one in known)
        return usable, _words(known)

    def connections(
        self, conn_ids: Sequence[str] | None = None, *, fresh: bool = False
    ) -> list[Known]:
        """What is known of some listed connections, or of all. Looks where it is due.

        :param fresh: it is due after 2 seconds already: something is known to have changed.
        """
        listed = self.listed()[0]
        wanted = listed if conn_ids is None else [one for one in listed if one in conn_ids]
        return self._up_to_date(wanted, look=True, fresh=fresh)

    def places(self) -> list[Known]:
        """The listed connections as they are described, without a look at their servers."""
        return self._up_to_date(self.listed()[0], look=False)

    def _up_to_date(
        self, conn_ids: Sequence[str], *, look: bool, fresh: bool = False
    ) -> list[Known]:
        """Begin what is due, wait for it a moment, and give what is known then."""
        wishes, now = self._wishes_now(), self._now()
        every = min(wishes.every, _FRESH_EVERY) if fresh else wishes.every
        begun: list[Future[None]] = []
        with self._lock:
            for gone in self._entries.keys() - set(wishes.listed):
                del self._entries[gone]
            entries = [
                self._entries.setdefault(conn_id, _Entry(Known(conn_id, _UNREAD)))
                for conn_id in conn_ids
            ]
            for entry in entries:
                since = now - entry.read_at
                if since >= (_LOST_AFTER if entry.reading else min(every, _READ_EVERY)):
                    entry.reading, entry.read_at = True, now
                    begun.append(self._readers.call(partial(self._read, entry)))
                    if entry.known.place is _UNREAD:
                        entry.first_read = begun[-1]
                elif entry.first_read is not None and not entry.first_read.done():
                    begun.append(entry.first_read)  # or this caller would be told of no name
                since = now - entry.looked_from
                if look and since >= (max(_LOST_AFTER, every) if entry.looking else every):
                    entry.looking, entry.looked_from = True, now
                    begun.append(self._lookers.call(partial(self._see, entry)))
        wait(begun, self._patience)
        now = self._now()
        with self._lock:
            return [entry.known.at(now, _FORGET_AFTER + wishes.every) for entry in entries]

    def _read(self, entry: _Entry) -> None:
        conn_id = entry.known.conn_id
        try:
            place = _place(conn_id)
        except Exception as error:
            log.warning("Connection %r cannot be read: %s", conn_id, type(error).__name__)
            place = Place()
        with self._lock:
            entry.known = entry.known.with_place(place)
            entry.reading = False

    def _see(self, entry: _Entry) -> None:
        conn_id = entry.known.conn_id
        verdict = found = None
        try:
            verdict = self._look(conn_id)
            found = _found(conn_id)
        except Exception as error:
            log.warning("The look at connection %r ended in %s", conn_id, type(error).__name__)
        with self._lock:
            entry.looking = False
            if verdict is None:
                return
            entry.known = entry.known.with_look(verdict, found, seen_at=self._now())
            before, entry.told = entry.told, (verdict.state.value, verdict.cause)
        _tell(verdict, before)


def _words(known: Sequence[Known]) -> dict[str, str]:
    dns, mlflow = worst(one.dns for one in known), worst(one.mlflow for one in known)
    return {"overall": worst((dns, mlflow)), "dns": dns, "mlflow": mlflow}


def _tell(verdict: Verdict, before: tuple[str, str]) -> None:
    """One line per change of what is wrong; the sentence says what was used, and what to do."""
    now = (verdict.state.value, verdict.cause)
    if now == before or (verdict.level == "healthy" and before[0] in ("", "healthy")):
        return
    level = logging.INFO if verdict.level == "healthy" else logging.WARNING
    log.log(
        level,
        "Connection %r is %s (%s, %s): %s",
        verdict.conn_id,
        verdict.level,
        *now,
        verdict.sentence,
    )


def _place(conn_id: str) -> Place:
    """A connection as Airflow describes it, and what the fleet wrote down about its name."""
    try:
        server = settings.load_server(conn_id)
        target = Target.parse(server.hostname)
        config = runtime.resolver().config
    except (LookupError, ValueError):
        return Place()
    if target.literal is not None:
        return Place(target.literal, server.uri)
    record, problem = runtime.store().examine(target.hostname)
    return Place(
        target.hostname,
        server.uri,
        record,
        problem,
        no_name_limit=config.max_stale_no_name,
        max_stale=config.max_stale_for(target.hostname),
        login_limit=login_age_limit(server),
    )


def _found(conn_id: str) -> Resolution | None:
    """All addresses of the name as this process has them after a look."""
    try:
        server = settings.load_server(conn_id)
        return runtime.resolver_for(server).resolve(server.hostname)
    except (LookupError, ValueError, DNSResolutionError):
        return None
