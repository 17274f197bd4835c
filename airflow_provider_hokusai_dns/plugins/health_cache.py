"""The API server's state of each connection, and how often it may check.

The callers of a web endpoint must not cause an unlimited amount of work. So Airflow is read and
MLflow is checked on a few threads of our own: one at a time per connection, and none while the last
result is recent. The caller that started it waits a moment, which is enough while MLflow is
healthy; a later caller gets the known state. No caller waits for a server that hangs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.gates.check import Check, check_connection, target_of
from airflow_provider_hokusai_dns.gates.connection_health import ConnectionHealth, ConnectionTarget
from airflow_provider_hokusai_dns.gates.decision import log_level
from airflow_provider_hokusai_dns.health.verdict import Verdict
from airflow_provider_hokusai_dns.plugins import options
from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.clock import SystemClock
from airflow_provider_hokusai_dns.resolver.level import USABLE, Level, worst
from airflow_provider_hokusai_dns.resolver.workers import Workers

log = logging.getLogger(__name__)

#: Seconds for which data from Airflow is recent enough, unless checks are less frequent.
_READ_EVERY = 10.0
#: Seconds for which the settings are recent enough.
_SETTINGS_EVERY = 2.0
#: Seconds that a caller waits for the work that it started.
_PATIENCE = 3.0
#: Seconds for which a check is recent enough for a caller that requests a fresh one.
_FRESH_EVERY = 2.0
#: Seconds after which a verdict is dropped: no request came, so no check was made.
_FORGET_AFTER = 300.0
#: Seconds after which work in progress counts as lost, as after a fork.
_LOST_AFTER = 120.0
#: Before a connection was read for the first time.
_UNREAD = ConnectionTarget()


@dataclass
class _CachedConnection:
    """One connection: its known state, and work in progress."""

    known: ConnectionHealth
    read_at: float = float("-inf")
    checked_from: float = float("-inf")
    reading: bool = False
    checking: bool = False
    first_read: Future[None] | None = None
    told: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class _Settings:
    """The settings, read a moment ago; asking Airflow in each call would take milliseconds."""

    read_at: float
    every: float
    listed: tuple[str, ...]
    problem: str | None = None


class HealthCache:
    """The last known state of the listed connections. Thread-safe; every call is bounded.

    :param check: one check of a connection.
    :param now: seconds on a clock that never steps, and goes on while the machine sleeps.
    :param patience: seconds that a caller waits for the work that it started.
    """

    def __init__(
        self,
        check: Callable[[str], Check] = check_connection,
        now: Callable[[], float] = SystemClock.monotonic,
        patience: float = _PATIENCE,
    ) -> None:
        self._check = check
        self._now = now
        self._patience = patience
        self._lock = forks.free_in_child(threading.Lock())
        self._entries: dict[str, _CachedConnection] = {}
        self._settings: _Settings | None = None
        self._readers = Workers("hokusai-dns-health-read", limit=4)
        self._checkers = Workers("hokusai-dns-health-check", limit=8)

    def listed(self) -> tuple[tuple[str, ...], str | None]:
        """The listed connections; none, and a sentence, if the setting is wrong."""
        settings_now = self._settings_now()
        return settings_now.listed, settings_now.problem

    def _settings_now(self) -> _Settings:
        now, known = self._now(), self._settings
        if known is not None and now - known.read_at < _SETTINGS_EVERY:
            return known
        every = options.look_every()
        try:
            listed = tuple(dict.fromkeys(settings.listed_connections()))
            self._settings = _Settings(now, every, listed)
        except ValueError as error:
            if known is None or known.problem != str(error):
                log.error("Health of MLflow is unknown: %s", error)
            self._settings = _Settings(now, every, (), str(error))
        return self._settings

    def words(self) -> dict[str, str]:
        """``overall``, ``dns`` and ``mlflow`` in one word each. Never probes, never asks DNS.

        Never raises either: if the list of connections cannot be read, nothing is known.
        """
        return _words(self.connections(check=False))

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether every listed connection can be used, and the words. Starts due checks."""
        known = self.connections()
        usable = bool(known) and all(one.mlflow in USABLE for one in known)
        return usable, _words(known)

    def connections(
        self, conn_ids: Sequence[str] | None = None, *, check: bool = True, fresh: bool = False
    ) -> list[ConnectionHealth]:
        """The known state of some or all listed connections. Starts what is due, and waits a moment
        for it.

        :param check: whether checks of their servers are started too.
        :param fresh: a check is due after 2 seconds already: something is known to have changed.
        """
        settings_now, now = self._settings_now(), self._now()
        wanted = [one for one in settings_now.listed if conn_ids is None or one in conn_ids]
        every = min(settings_now.every, _FRESH_EVERY) if fresh else settings_now.every
        begun: list[Future[None]] = []
        due: list[Callable[[], object]] = []
        with self._lock:
            for gone in self._entries.keys() - set(settings_now.listed):
                del self._entries[gone]
            entries = [
                self._entries.setdefault(
                    conn_id, _CachedConnection(ConnectionHealth(conn_id, _UNREAD))
                )
                for conn_id in wanted
            ]
            for entry in entries:
                since = now - entry.read_at
                if since >= (_LOST_AFTER if entry.reading else min(every, _READ_EVERY)):
                    entry.reading, entry.read_at = True, now
                    begun.append(Future())
                    due.append(partial(self._readers.call, partial(self._read, entry), begun[-1]))
                    if entry.known.target is _UNREAD:
                        entry.first_read = begun[-1]
                elif entry.first_read is not None and not entry.first_read.done():
                    begun.append(entry.first_read)  # or this caller would be told of no name
                since = now - entry.checked_from
                if check and since >= (max(_LOST_AFTER, every) if entry.checking else every):
                    entry.checking, entry.checked_from = True, now
                    begun.append(Future())
                    work = partial(self._run_check, entry)
                    due.append(partial(self._checkers.call, work, begun[-1]))
        for start in due:  # without the lock: where no thread can be started, it runs here and now
            start()
        wait(begun, self._patience)
        now = self._now()
        with self._lock:
            return [entry.known.at(now, _FORGET_AFTER + settings_now.every) for entry in entries]

    def _read(self, entry: _CachedConnection) -> None:
        """Read a connection, and the stored record of its name."""
        conn_id = entry.known.conn_id
        target = ConnectionTarget()
        try:
            runtime.follow_policy()
            target = target_of(connections.load_server(conn_id))
        except (LookupError, ValueError):
            pass  # its check tells
        except Exception as error:
            log.warning("Connection %r cannot be read: %s", conn_id, type(error).__name__)
        with self._lock:
            known, entry.reading = replace(entry.known, target=target), False
            if known.is_of_former_server:
                known = replace(known, verdict=None, found=None)
                entry.checked_from = entry.checked_from if entry.checking else float("-inf")
            entry.known = known

    def _run_check(self, entry: _CachedConnection) -> None:
        conn_id = entry.known.conn_id
        done = None
        try:
            done = self._check(conn_id)
        except Exception as error:
            log.warning("The check of connection %r ended in %s", conn_id, type(error).__name__)
        with self._lock:
            entry.checking = False
            if done is None:
                return
            known = replace(
                entry.known, verdict=done.verdict, found=done.resolution, seen_at=self._now()
            )
            if done.verdict.tracking_uri and known.is_of_former_server:
                entry.read_at = entry.checked_from = float("-inf")
                return
            entry.known = known
            before, entry.told = entry.told, (done.verdict.state.value, done.verdict.cause)
        _tell(done.verdict, before)


def _words(known: Sequence[ConnectionHealth]) -> dict[str, str]:
    dns, mlflow = worst(one.dns for one in known), worst(one.mlflow for one in known)
    return {"overall": worst((dns, mlflow)).value, "dns": dns.value, "mlflow": mlflow.value}


def _tell(verdict: Verdict, before: tuple[str, str]) -> None:
    """One line per change of what is wrong; the sentence says what was used, and what to do."""
    now = (verdict.state.value, verdict.cause)
    if now == before or (verdict.level is Level.HEALTHY and before[0] in ("", "healthy")):
        return
    log.log(
        log_level(verdict),
        "Connection %r is %s (%s, %s): %s",
        verdict.conn_id,
        verdict.level,
        *now,
        verdict.sentence,
    )
