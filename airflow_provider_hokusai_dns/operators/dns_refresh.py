"""Look up connections and hostnames again, and report what changed."""

from __future__ import annotations

import ast
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.operators.probes import ALL_PROBES, ProbeBudget, add_to_history
from airflow_provider_hokusai_dns.operators.refresh_report import (
    EMPTY_ROW,
    ChangeRow,
    RefreshReport,
    ResolutionRow,
)
from airflow_provider_hokusai_dns.resolver import Source
from airflow_provider_hokusai_dns.resolver.level import worst
from airflow_provider_hokusai_dns.resolver.target import Target, shown
from airflow_provider_hokusai_dns.resolver.wording import ORIGINS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_hokusai_dns.resolver import LastKnownGood, Resolution

log = logging.getLogger(__name__)

#: Connections and hostnames of one refresh: every user who may trigger a DAG may name them.
MOST_NAMES = 100
_FAIL_ON = ("unresolved", "degraded", "never")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One thing to refresh.

    :param given: a connection id, or a target in any form; may hold a secret.
    """

    given: str = field(repr=False)
    conn_id: str | None = None

    @property
    def target(self) -> str:
        """What was given, as rows, lines and XComs show it."""
        return self.given if self.conn_id is not None else shown(self.given)


class DNSRefreshOperator(BaseOperator):
    """Live lookups that bypass every cache, for connections and plain hostnames.

    Writes the shared last known good, and publishes ``resolutions``, ``changes``, ``metrics`` and
    ``health`` by XCom, and all of it as ``return_value``. One bad name does not keep the others
    from being refreshed and published.

    Each refresh also adds a point to the history of the name, which the status page draws: how the
    name resolved, and one probe of MLflow where a connection leads there. A probe takes 10 s at
    most, all of them a minute; a bad probe fails nothing; use a gate for that.

    :param mlflow_conn_ids: connections (templated); ``None`` means those of
        ``[hokusai_dns] connections``.
    :param hostnames: further targets in any form (templated).
    :param probe: whether to probe MLflow, once per connection.
    :param fail_on: ``"unresolved"`` fails when there is nothing to serve for a name, ``"degraded"``
        also when there is only a stale answer, ``"never"`` does not fail (templated).
    :raises ValueError: for another ``fail_on``.
    """

    template_fields: Sequence[str] = ("mlflow_conn_ids", "hostnames", "fail_on")
    ui_color = "#e3ecf8"

    def __init__(
        self,
        *,
        mlflow_conn_ids: Sequence[str] | str | None = None,
        hostnames: Sequence[str] | str = (),
        fail_on: str = "unresolved",
        probe: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_ids = mlflow_conn_ids
        self.hostnames = _shown(hostnames)  # as Airflow's UI shows what was serialized
        self.fail_on = fail_on
        self.probe = probe

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Fill in the templates; Airflow stores what comes out, so secrets are left out here."""
        super().render_template_fields(context, jinja_env)
        self.hostnames = _shown(self.hostnames)

    def execute(self, context: Context) -> RefreshReport:
        """Refresh, publish, and only then fail if ``fail_on`` says so."""
        if self.fail_on not in _FAIL_ON:
            raise ValueError(f"fail_on is one of {', '.join(_FAIL_ON)}, not {self.fail_on!r}")
        report = refresh_names(
            self._conn_ids(), _names(self.hostnames), probe=self.probe, say=self.log.info
        )
        rows = report["resolutions"]
        if self.do_xcom_push:
            for key in ("resolutions", "changes", "metrics", "health"):
                context["ti"].xcom_push(key=key, value=report[key])
        bad = _reasons_to_fail(rows, self.fail_on)
        if bad:
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=report)
            raise AirflowException(
                f"{len(bad)} of {len(rows)} names did not resolve as required "
                f"(fail_on={self.fail_on!r}): " + " ".join(bad)
            )
        return report

    def _conn_ids(self) -> Iterable[str]:
        if self.mlflow_conn_ids is None:
            return settings.listed_connections()
        return _names(self.mlflow_conn_ids)


def refresh_names(
    conn_ids: Iterable[str],
    hostnames: Iterable[str],
    *,
    probe: bool = True,
    say: Callable[[str, str], None] = log.info,
) -> RefreshReport:
    """Look up connections and hostnames, bypassing every cache, and store the answers.

    An error of one of them is in its row.

    :param probe: whether to probe MLflow, once per connection.
    :param say: called with a format and each row and change in one line.
    :raises ValueError: there is nothing to refresh, or more than :data:`MOST_NAMES`.
    """
    wanted = [_Wanted(conn_id, conn_id) for conn_id in conn_ids]
    wanted += [_Wanted(hostname) for hostname in hostnames]
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise ValueError("there is nothing to refresh: mlflow_conn_ids and hostnames are empty")
    if len(wanted) > MOST_NAMES:
        raise ValueError(
            f"a refresh takes at most {MOST_NAMES} connections and hostnames, not {len(wanted)}: "
            "each leaves two Airflow Variables behind"
        )
    rows: list[ResolutionRow] = []
    changes: list[ChangeRow] = []
    seen: list[tuple[tuple[str, ...], ResolutionRow]] = []
    budget = ProbeBudget(ALL_PROBES if probe else 0.0)
    for one in wanted:
        row, change, asked = _refresh(one, budget)
        rows.append(row)
        seen.append((asked, row))
        say("%s", _in_one_line(row))
        if change is not None:
            changes.append(change)
            say("%s", _change_in_one_line(change))
    add_to_history(seen)
    runtime.wait_under_dag_test()
    return _report(rows, changes)


def _shown(hostnames: Any) -> Any:
    """Targets without userinfo, path and query; templates and what other tasks give stay."""
    if isinstance(hostnames, str) and "://" in hostnames and "{" not in hostnames:
        hostnames = _names(hostnames)
    if isinstance(hostnames, list | tuple):
        return [shown(one) if isinstance(one, str) and "{" not in one else one for one in hostnames]
    return hostnames


def _names(value: Sequence[str] | str | None) -> list[str]:
    """Names out of a list, a text with commas, or a list that a template has turned into text."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(("[", "(")):
            try:
                value = json.loads(text)
            except ValueError:
                try:
                    value = ast.literal_eval(text)
                except (ValueError, SyntaxError):
                    raise ValueError("it begins like a list of names but is not one") from None
        else:
            value = text.replace(",", " ").split()
    names = [str(name).strip() for name in value or ()]
    return [name for name in names if name]


def _refresh(
    wanted: _Wanted, budget: ProbeBudget
) -> tuple[ResolutionRow, ChangeRow | None, tuple[str, ...]]:
    """One live lookup and one probe of MLflow; an error is in the row.

    :returns: the row, what changed, and the nameservers that the connection names.
    """
    server = None
    asked: tuple[str, ...] = ()
    try:
        if wanted.conn_id is not None:
            server = connections.load_server(wanted.conn_id)
            asked = server.asked
            target, resolver = server.connect_host, runtime.resolver_for(server)
        else:
            target, resolver = wanted.given, runtime.resolver()
        store = runtime.store(asked)
        target = hostname = Target.parse(target).hostname
    except (LookupError, ValueError) as error:
        return _failed(wanted, None, "config", str(error)), None, asked
    before = store.read(hostname)
    begun = time.monotonic()
    try:
        found = resolver.refresh(target, always=True)
    except DNSResolutionError as error:
        row = _failed(wanted, hostname, error.cause.value, str(error))
        row["lookup_ms"] = _milliseconds(time.monotonic() - begun)
        return row, None, asked
    took: float | None = _milliseconds(time.monotonic() - begun)
    if not found.is_stale:  # without the writing of the Variable
        took = resolver.metrics().latency_ms
    if _should_be_kept(found) and not _is_kept(store.read(hostname), found):
        log.warning(
            "%s resolves, but is not stored as last known good: its Variable could not be "
            "written, or belongs to another program (see the log above)",
            hostname,
        )
    row = _resolved(wanted, found)
    row["lookup_ms"] = None if found.source is Source.LITERAL or took is None else round(took, 1)
    verdict = None if server is None else budget.probe(server, found)
    if verdict is not None:
        row["probe"], row["probe_cause"] = verdict.level.value, verdict.cause
        row["probe_ms"] = round(sum(verdict.latencies.values()), 1) or None
    return row, _change(before, found), asked


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _should_be_kept(found: Resolution) -> bool:
    """What a hosts file or a literal says holds for this machine alone."""
    return not found.is_stale and found.source not in (Source.HOSTS, Source.LITERAL)


def _is_kept(stored: LastKnownGood | None, found: Resolution) -> bool:
    return stored is not None and bool(set(stored.places) & set(found.places))


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
    """What differs from the stored record; an answer that is not fresh changes nothing.

    A name with many addresses gets a part of them each time (Cloud Map gives 8), so only answers
    without a common address count as a change.
    """
    if found.is_stale or not found.endpoints or found.resolved_at is None:
        return None
    old = () if before is None else before.places
    away = None if before is None else before.no_name_since
    if away is None and set(old) & set(found.places):
        return None
    return ChangeRow(
        hostname=found.hostname,
        old=list(old),
        new=list(found.places),
        away_seconds=None
        if away is None
        else max(0.0, round(found.resolved_at.timestamp() - away, 1)),
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


def _reasons_to_fail(rows: list[ResolutionRow], fail_on: str) -> list[str]:
    bad = {"never": (), "unresolved": ("unhealthy",), "degraded": ("unhealthy", "degraded")}
    return [_in_one_line(row) + "." for row in rows if row["health"] in bad[fail_on]]


def _in_one_line(row: ResolutionRow) -> str:
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


def _change_in_one_line(change: ChangeRow) -> str:
    new = ", ".join(change["new"])
    away = change["away_seconds"]
    if not change["old"]:
        return f"{change['hostname']}: {new} is the first address known for it"
    line = f"{change['hostname']}: {', '.join(change['old'])} -> {new}"
    return line if away is None else f"{line}, after the name had been missing for {away:.0f} s"
