"""What a refresh publishes by XCom, and the command line shows."""

from __future__ import annotations

from typing import Any, TypedDict

from airflow_provider_hokusai_dns.resolver import Source
from airflow_provider_hokusai_dns.resolver.wording import ORIGINS


class ResolutionRow(TypedDict):
    """One target, as in the XCom ``resolutions``."""

    target: str
    conn_id: str | None
    hostname: str | None
    health: str
    addresses: list[str]
    source: str | None
    cause: str | None
    age: float | None
    resolved_at: str | None
    expires_at: str | None
    error: str | None
    lookup_ms: float | None
    probe: str | None
    probe_cause: str | None
    probe_ms: float | None


#: A row of which nothing is known yet. Copied; its list is always replaced.
EMPTY_ROW = ResolutionRow(
    target="", conn_id=None, hostname=None, health="unhealthy", addresses=[], source=None,
    cause=None, age=None, resolved_at=None, expires_at=None, error=None, lookup_ms=None,
    probe=None, probe_cause=None, probe_ms=None,
)  # fmt: skip


class ChangeRow(TypedDict):
    """One name in the XCom ``changes``: its address changed, or it was missing meanwhile."""

    hostname: str
    old: list[str]
    new: list[str]
    away_seconds: float | None


class RefreshReport(TypedDict):
    """The XCom ``return_value``."""

    version: int
    refreshed_at: str
    resolutions: list[ResolutionRow]
    changes: list[ChangeRow]
    metrics: dict[str, Any]
    health: dict[str, Any]


def in_one_line(row: ResolutionRow) -> str:
    """A row for the log and the error."""
    name = row["hostname"] or row["target"]
    if row["conn_id"] is not None and row["conn_id"] != name:
        name += f" (connection {row['conn_id']})"
    if row["error"] is not None:
        return f"{name}: {row['error'].rstrip('.')}"
    origin = ORIGINS[Source(row["source"] or Source.DNS)]
    line = f"{name}: {', '.join(row['addresses'])} from {origin}"
    if row["health"] == "degraded":
        age = "" if row["age"] is None else f" {row['age']:.0f} s old,"
        line += f",{age} because DNS returns no address right now ({row['cause']})"
    return line


def change_in_one_line(change: ChangeRow) -> str:
    """A change for the log."""
    new = ", ".join(change["new"])
    away = change["away_seconds"]
    if not change["old"]:
        return f"{change['hostname']}: {new} is the first address known for it"
    line = f"{change['hostname']}: {', '.join(change['old'])} -> {new}"
    return line if away is None else f"{line}, after the name had been missing for {away:.0f} s"
