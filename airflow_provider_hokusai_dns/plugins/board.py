"""What the API server knows of each connection, and how often it may look.

A web endpoint must not let its callers cause work without bound: one look per connection at a time,
and none while the last one is young. Who comes while somebody is looking gets what is known.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns import gate, runtime, settings
from airflow_provider_hokusai_dns.resolver.target import Target

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.tracking.verdict import Verdict

log = logging.getLogger(__name__)

#: Seconds for which a look, or a Variable that was read, is good enough.
_PROBE_EVERY = 15.0
_READ_EVERY = 10.0
#: From best to worst, for "the worst of all".
_WORDS = ("healthy", "unknown", "degraded", "unhealthy")


@dataclass
class _Known:
    """The last that is known of one connection."""

    looking: threading.Lock = field(default_factory=threading.Lock)
    verdict: Verdict | None = None
    looked_at: float = float("-inf")
    stored: dict[str, Any] | None = None
    dns: str = "unknown"
    read_at: float = float("-inf")


class Board:
    """The last known state of the listed connections. Thread-safe; every call is bounded.

    :param look: one look at a connection.
    :param now: seconds on a clock that never steps.
    """

    def __init__(
        self,
        look: Callable[[str], Verdict] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look or (lambda conn_id: gate.look(conn_id))
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._complained = ""

    def words(self) -> dict[str, str]:
        """``overall``, ``dns`` and ``mlflow`` in one word each. Never probes, never asks DNS.

        Never raises either: with a list of connections that cannot be read, nothing is known.
        """
        try:
            listed = settings.listed_connections()
        except ValueError as error:
            if self._complained != str(error):
                self._complained = str(error)
                log.error("Health of MLflow is unknown: %s", error)
            listed = ()
        known = [self._read(conn_id) for conn_id in listed]
        dns = _worst(one.dns for one in known)
        mlflow = _worst(one.verdict.level if one.verdict else "unknown" for one in known)
        return {"overall": _worst((dns, mlflow)), "dns": dns, "mlflow": mlflow}

    def connections(self) -> list[dict[str, Any]]:
        """Each listed connection: what is stored for its name, and a recent verdict."""
        return [self._one(conn_id) for conn_id in settings.listed_connections()]

    def _one(self, conn_id: str) -> dict[str, Any]:
        known = self._read(conn_id)
        if self._now() - known.looked_at >= _PROBE_EVERY and known.looking.acquire(blocking=False):
            try:
                known.verdict = self._look(conn_id)
                known.looked_at = self._now()
            finally:
                known.looking.release()
        return {
            "conn_id": conn_id,
            "dns": known.dns,
            "last_known_good": known.stored,
            "mlflow": known.verdict.level if known.verdict else "unknown",
            "verdict": dict(known.verdict.as_dict()) if known.verdict else None,
        }

    def _read(self, conn_id: str) -> _Known:
        with self._lock:
            known = self._known.setdefault(conn_id, _Known())
            if self._now() - known.read_at < _READ_EVERY:
                return known
            known.read_at = self._now()  # so that nobody else reads meanwhile
        known.stored, known.dns = _last_known_good(conn_id)
        return known


def _worst(words: Any) -> str:
    return max(words, key=_WORDS.index, default="unknown")


def _last_known_good(conn_id: str) -> tuple[dict[str, Any] | None, str]:
    """What the fleet wrote down about the name of a connection, and what that means."""
    try:
        hostname = Target.parse(settings.load_server(conn_id).hostname).hostname
        config = runtime.resolver().config
    except (LookupError, ValueError):
        return None, "unknown"
    record = runtime.stored(hostname)
    if record is None:
        return None, "unknown"
    away = None if record.no_name_since is None else time.time() - record.no_name_since
    shown = {
        "hostname": hostname,
        "addresses": list(record.addresses),
        "age": round(max(0.0, time.time() - record.resolved_at), 1),
        "name_away_for": None if away is None else round(max(0.0, away), 1),
        "written_by": record.written_by,
    }
    if away is None:
        return shown, "healthy"
    return shown, "degraded" if away < config.max_stale_no_name else "unhealthy"
