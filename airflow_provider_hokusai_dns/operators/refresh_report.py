"""What a refresh publishes by XCom, and the command line shows."""

from __future__ import annotations

from typing import Any, TypedDict


class ResolutionRow(TypedDict):
    """One target in the XCom ``resolutions``."""

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
    """One name in the XCom ``changes``: its address is another one, or it was away."""

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
