"""The last table of the policy: what was promised, and what this run measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks import herd, hits, losses, memory, overhead, peers, relay
from benchmarks.measure import Row, Table

_COLUMNS = ("measured", "at most", "met")


def judge(tables: Mapping[str, Table]) -> Iterator[Row]:
    """One line per goal that this run can judge."""
    for title, key, row, column, limit in _goals():
        table = tables.get(key)
        value = None if table is None else table.value(row, column)
        if value is not None:
            yield Row(title, {"measured": value, "at most": limit, "met": value <= limit})


def table_of(tables: Mapping[str, Table]) -> Table:
    """The goals as a table of their own."""
    return Table("goals", "The goals of the policy", _COLUMNS, list(judge(tables)))


def _goals() -> Iterator[tuple[str, str, str, str, float]]:
    yield "hit, hostname: x floor", "hit", hits.HOST, "x floor", 2.0
    yield "hit, URL in and out: x floor", "hit", hits.IN_URL, "x floor", 3.0
    yield "4090 URLs of one name: MB", "urls", memory.OURS, "MB", 20
    yield "1000 names: bytes per name", "memory", memory.OURS, "bytes per name", 900
    yield "hit, async: x floor", "hit", hits.ASYNC, "x floor", 3.0
    for name in (herd.OURS_THREADS, herd.OURS_TASKS, herd.OURS_LOOPS, herd.OURS_FAILING,
                 herd.OURS_FAILING_LOOPS):  # fmt: skip
        yield f"herd, {name}: queries per type", "herd", name, "queries per type", 1
    for name in (peers.OURS, peers.OURS_SYSTEM):
        silent = ("outage_silent", name)
        yield f"{name}, DNS silent: first call, ms", *silent, "first ms", 600
        yield f"{name}, DNS silent: second call, ms", *silent, "second ms", 0.05
        for key, title in (("silent", "DNS silent"), ("servfail", "SERVFAIL"),
                           ("refused", "REFUSED"), ("no_such_name", "no such name")):  # fmt: skip
            yield f"{name}, {title}: queries per 100 calls", f"outage_{key}", name, "queries", 4
    yield "good day: log_metric, x without the hook", "overhead", overhead.WITH, "ratio", 1.05
    yield "good day: the pin, us per new connection", "pin", overhead.EXTRA, "best us", 5
    yield "good day: a new connection, x by name", "connections", overhead.BY_PIN, "ratio", 1.02
    for name, limit in ((relay.CHILD, 1.2), (relay.PARENT, 1.2), (relay.CHILD_UPLOAD, 1.3)):
        yield f"relay, {name}: x without", "relay", name, "ratio", limit
    yield "relay: open, ms", "relay_time", relay.START, "median ms", 50
    for what in ("metrics", "artifacts", "traces"):
        yield f"name gone half-way, ours: {what} lost", "losses", losses.OURS, f"{what} lost", 0


def met(goals: Table) -> dict[str, Any]:
    """A summary for people and scripts."""
    missed = [row.name for row in goals.rows if not row.values["met"]]
    return {"goals": len(goals.rows), "missed": missed}
