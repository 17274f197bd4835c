"""Where a peer is ahead: each such row of this run, as a ratio. README quotes all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from benchmarks import herd, hits, memory, misses
from benchmarks.measure import Row, Table


class _Line(NamedTuple):
    """Our row of a table, and how the names of the rows end with which it can be compared."""

    table: str
    ours: str
    column: str
    peers: tuple[str, ...] = ("",)


_LINES = (
    _Line("hit", hits.HOST, "best ns"),
    _Line("miss", misses.OURS, "median us"),
    _Line("herd", herd.OURS_THREADS, "wall s", (", threads",)),
    _Line("herd", herd.OURS_TASKS, "wall s", (", tasks",)),
    _Line("herd", herd.OURS_LOOPS, "wall s", (" loops",)),
    _Line("memory", memory.OURS, "bytes per name"),
)
#: What a peer answers is no lookup, or no cache.
_NO_PEERS = (misses.FLOOR, hits.FLOOR, memory.FLOOR, "urlsplit, floor, urlunsplit")


def table_of(tables: Mapping[str, Table]) -> Table:
    """The rows in which a peer takes less than we do."""
    return Table("behind", "Where a peer is ahead", ("ours x peer",), list(_rows(tables)))


def _rows(tables: Mapping[str, Table]) -> Iterator[Row]:
    for line in _LINES:
        table = tables.get(line.table)
        mine = None if table is None else table.value(line.ours, line.column)
        if table is None or mine is None:
            continue
        for row in table.rows:
            other = row.values.get(line.column)
            is_peer = not row.name.startswith("ours") and row.name not in _NO_PEERS
            if is_peer and other and row.name.endswith(line.peers) and mine > other:
                title = f"{line.table}, {line.column}: {line.ours} beside {row.name}"
                yield Row(title, {"ours x peer": mine / other})
