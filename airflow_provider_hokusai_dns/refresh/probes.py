"""A probe of MLflow after each refresh, and the point that both add to the history."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from airflow_provider_hokusai_dns import observers, runtime
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.health.verdict import Verdict
from airflow_provider_hokusai_dns.refresh.report import ResolutionRow
from airflow_provider_hokusai_dns.resolver import Resolution, Source
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.store.history import HistoryPoint
from airflow_provider_hokusai_dns.store.record import iso_seconds

log = logging.getLogger(__name__)

#: The state in the history for the health of a name.
_STATES = {"healthy": "resolved", "degraded": "stale", "unhealthy": "failed"}
#: Seconds for one probe of MLflow after a refresh, and for all of them.
_ONE_PROBE = 10.0
ALL_PROBES = 60.0


class ProbeBudget:
    """Probes MLflow at the addresses just resolved, until the time for all probes is used up.

    :param seconds: for all of them together.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def probe(self, server: MLflowServer, found: Resolution) -> Verdict | None:
        """One probe; ``None`` when no time is left for it."""
        from airflow_provider_hokusai_dns.health.probe import probe

        if self._left <= 0:
            return None
        begun = time.monotonic()
        verdict = probe(server, found, deadline=min(_ONE_PROBE, self._left))
        self._left -= time.monotonic() - begun
        observers.count_probe(server.hostname, verdict.milliseconds)
        level = logging.INFO if verdict.level is not Level.UNHEALTHY else logging.WARNING
        log.log(level, "MLflow is %s: %s", verdict.level, verdict.sentence)
        return verdict


def add_to_history(seen: Iterable[tuple[tuple[str, ...], ResolutionRow]]) -> None:
    """Add one point per name; of two rows for one name, the one with a probe of MLflow.

    A static address belongs to one connection, so it is not part of the name's shared history.

    :param seen: each row, with the nameservers set on its connection.
    """
    best: dict[tuple[str, tuple[str, ...]], ResolutionRow] = {}
    for asked, row in seen:
        if row["hostname"] is None or row["source"] == Source.LITERAL:
            continue
        name = (row["hostname"], asked)
        if name not in best or _rank(row) > _rank(best[name]):
            best[name] = row
    now = iso_seconds(time.time())
    for (hostname, asked), row in best.items():
        runtime.store(asked).remember(
            hostname,
            HistoryPoint(
                at=now,
                state=_STATES[row["health"]],
                addresses=[] if row["source"] == Source.STATIC else row["addresses"],
                cause=row["cause"],
                lookup_ms=row["lookup_ms"],
                probe=row["probe"],
                probe_ms=row["probe_ms"],
            ),
        )


def _rank(row: ResolutionRow) -> tuple[bool, bool]:
    return row["source"] != Source.STATIC, row["probe"] is not None
