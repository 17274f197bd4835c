"""Look up connections and hostnames again, store the answers, and report what changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config import connections
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.refresh.probes import ALL_PROBES, ProbeBudget, add_to_history
from airflow_provider_hokusai_dns.refresh.report import (
    EMPTY_ROW,
    ChangeRow,
    RefreshReport,
    ResolutionRow,
    change_in_one_line,
    in_one_line,
)
from airflow_provider_hokusai_dns.resolver import DNSResolver, freshness
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.level import worst
from airflow_provider_hokusai_dns.resolver.model import LastKnownGood, Resolution, Source
from airflow_provider_hokusai_dns.resolver.target import Target, shown
from airflow_provider_hokusai_dns.resolver.workers import Workers
from airflow_provider_hokusai_dns.store.record import away_for

log = logging.getLogger(__name__)

#: Connections and hostnames of one refresh: every user who may trigger a DAG may name them.
MOST_NAMES = 100
#: Lookups at the same time: each may take as long as DNS is silent.
_MOST_LOOKUPS = 20


class WrongRefreshError(ValueError):
    """A refresh of no name at all, or of too many."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One thing to refresh.

    :param given: a connection id, or a target in any form; may contain a secret.
    """

    given: str = field(repr=False)
    conn_id: str | None = None

    @property
    def target(self) -> str:
        """What was given, as rows, lines and XComs show it."""
        return self.given if self.conn_id is not None else shown(self.given)


class _Lookup(NamedTuple):
    """A lookup in progress."""

    wanted: _Wanted
    server: MLflowServer | None  # that of the connection, if one was given
    resolver: DNSResolver
    hostname: str
    result: Future[tuple[Resolution | DNSResolutionError, float]]


def refresh_names(
    conn_ids: Iterable[str],
    hostnames: Iterable[str],
    *,
    probe: bool = True,
    tell: Callable[[int, str, str], None] = log.log,
    warn: Callable[[str, str], None] = log.warning,
) -> RefreshReport:
    """Look up connections and hostnames, bypassing every cache, and store the answers.

    An error for one of them is in its row.

    :param probe: whether to probe MLflow, once per connection.
    :param tell: called with a level, a format, and each row and change in one line.
    :param warn: called with a format and a sentence for each answer that is not stored.
    :raises WrongRefreshError: there is nothing to refresh, or more than :data:`MOST_NAMES`.
    """
    wanted = [_Wanted(conn_id, conn_id) for conn_id in conn_ids]
    wanted += [_Wanted(hostname) for hostname in hostnames]
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise WrongRefreshError(
            "there is nothing to refresh: mlflow_conn_ids and hostnames are empty"
        )
    if len(wanted) > MOST_NAMES:
        raise WrongRefreshError(
            f"a refresh takes at most {MOST_NAMES} connections and hostnames, not {len(wanted)}: "
            "each leaves two Airflow Variables behind"
        )
    changes: list[ChangeRow] = []
    seen: list[tuple[tuple[str, ...], ResolutionRow]] = []
    budget = ProbeBudget(ALL_PROBES if probe else 0.0)
    workers = Workers("hokusai-dns-refresh", limit=_MOST_LOOKUPS)
    begun = [_begin(one, workers) for one in wanted]
    for one in begun:
        row, change, asked = _end(one, budget, warn)
        seen.append((asked, row))
        level = logging.INFO if row["health"] == "healthy" else logging.WARNING
        tell(level, "%s", in_one_line(row))
        if change is not None:
            changes.append(change)
            tell(logging.INFO, "%s", change_in_one_line(change))
    add_to_history(seen)
    return _report([row for _, row in seen], changes)


def _begin(wanted: _Wanted, workers: Workers) -> _Lookup | ResolutionRow:
    """Start one live lookup; a row if there is nothing to look up."""
    server = None
    try:
        if wanted.conn_id is not None:
            server = connections.load_server(wanted.conn_id)
            target, resolver = server.connect_host, runtime.resolver_for_server(server)
        else:
            target, resolver = wanted.given, runtime.resolver()
        hostname = Target.parse(target).hostname
    except (LookupError, ValueError) as error:
        return _failed(wanted, None, "config", str(error))
    result = workers.call(partial(_look_up, resolver, hostname))
    return _Lookup(wanted, server, resolver, hostname, result)


def _look_up(resolver: DNSResolver, hostname: str) -> tuple[Resolution | DNSResolutionError, float]:
    """What a name resolves to, and the seconds that it took."""
    began = time.monotonic()
    found: Resolution | DNSResolutionError
    try:
        found = resolver.look_up(hostname)
    except DNSResolutionError as error:
        found = error
    return found, time.monotonic() - began


def _end(
    lookup: _Lookup | ResolutionRow, budget: ProbeBudget, warn: Callable[[str, str], None]
) -> tuple[ResolutionRow, ChangeRow | None, tuple[str, ...]]:
    """Store the outcome of one lookup, and probe MLflow; an error is in the row.

    Airflow and MLflow are asked one after the other: a task has one line to its supervisor.

    :returns: the row, what changed, and the nameservers that the connection names.
    """
    if not isinstance(lookup, _Lookup):
        return lookup, None, ()
    wanted, server, resolver, hostname, result = lookup
    asked = () if server is None else server.view.asked
    store = runtime.store(asked)
    before = store.examine(hostname)
    found, took = result.result()
    if isinstance(found, DNSResolutionError):
        row = _failed(wanted, hostname, found.cause.value, str(found))
        row["lookup_ms"] = _milliseconds(took)
        return row, None, asked
    resolver.publish(found, always=True)
    known = () if before.record is None else before.record.addresses
    is_storable = freshness.may_replace(known, found.addresses)
    is_kept = not found.is_stale and not found.source.is_local
    stored = None
    if is_kept:
        stored, problem, was_read = store.examine(hostname)
        if is_storable and not was_read:
            told = f"{hostname} resolves. It is not known whether it is stored as last known good: "
            warn("%s", f"{told}its Variable could not be read back.")
        elif stored is None or not set(stored.places) & set(found.places):
            why = problem or _why_not_stored(found, stored, is_storable=is_storable)
            warn("%s", f"{hostname} resolves, but is not stored as last known good. {why}")
    row = _resolved(wanted, found)
    row["lookup_ms"] = None if found.source is Source.LITERAL else _milliseconds(took)
    verdict = None if server is None else budget.probe(server, found)
    if verdict is not None:
        row["probe"], row["probe_cause"] = verdict.level.value, verdict.cause
        row["probe_ms"] = verdict.milliseconds
    is_ignored = before.problem is not None and stored is None
    is_comparable = is_kept and is_storable and before.was_read and not is_ignored
    return row, _change(before.record, found) if is_comparable else None, asked


def _why_not_stored(found: Resolution, stored: LastKnownGood | None, *, is_storable: bool) -> str:
    if not is_storable:
        return (
            f"{', '.join(found.places)} is the answer of a captive portal or a filter, not the "
            "address of a server: it never replaces a last known good."
        )
    if stored is not None and stored.resolved_at > time.time():
        return "The stored one is dated later than this one: compare the machines' clocks."
    return "Its Variable could not be written, or is set in the environment or a secrets backend."


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _failed(wanted: _Wanted, hostname: str | None, cause: str, error: str) -> ResolutionRow:
    row: ResolutionRow = {**EMPTY_ROW, "target": wanted.target, "conn_id": wanted.conn_id}
    return {**row, "hostname": hostname, "addresses": [], "cause": cause, "error": error}


def _resolved(wanted: _Wanted, found: Resolution) -> ResolutionRow:
    age = found.age()
    return {
        **EMPTY_ROW,
        "target": wanted.target,
        "conn_id": wanted.conn_id,
        "hostname": found.hostname,
        "health": "degraded" if found.is_stale else "healthy",
        "addresses": list(found.places),
        "source": found.source.value,
        "cause": None if found.cause is None else found.cause.value,
        "age": None if age is None else round(age, 1),
        "resolved_at": None if found.resolved_at is None else found.resolved_at.isoformat(),
        "expires_at": None if found.expires_at is None else found.expires_at.isoformat(),
    }


def _change(before: LastKnownGood | None, found: Resolution) -> ChangeRow | None:
    """What differs between the stored record and a live answer.

    For a name with many addresses DNS returns some of them each time (Cloud Map: 8), so only
    answers without a common address count as a change.
    """
    old: tuple[str, ...] = ()
    away = None
    if before is not None and found.resolved_at is not None:
        old, away = before.places, away_for(before, found.resolved_at.timestamp())
    if away is None and set(old) & set(found.places):
        return None
    return ChangeRow(
        hostname=found.hostname,
        old=list(old),
        new=list(found.places),
        away_seconds=None if away is None else round(away, 1),
    )


def _report(rows: list[ResolutionRow], changes: list[ChangeRow]) -> RefreshReport:
    names: dict[str, str] = {}
    for row in rows:  # two connections may see one name in two ways
        name = row["hostname"] or row["target"]
        names[name] = worst((names.get(name, row["health"]), row["health"])).value
    metrics = runtime.metrics()
    return RefreshReport(
        version=1,
        refreshed_at=datetime.now(UTC).isoformat(),
        resolutions=rows,
        changes=changes,
        metrics=metrics,
        health={
            "status": worst(names.values()).value,
            "names": names,
            "window": metrics.get("level", "unknown"),
            "error_rate": metrics.get("error_rate", 0.0),
        },
    )
