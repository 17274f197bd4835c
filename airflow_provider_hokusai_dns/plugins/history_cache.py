"""The history written by refreshes, as the API server shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.gates.connection_health import ConnectionTarget
from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.store.history import HistoryPoint

#: Seconds for which the data is recent enough.
_READ_EVERY = 10.0
#: The same for a caller that expects data written a moment ago.
_FRESH_EVERY = 2.0
#: Seconds that a caller waits while another reads names that have not been read yet.
_PATIENCE = 3.0
#: Seconds without a refresh after which the note asks for a check.
_OUTDATED_AFTER = 7200.0
_SCHEDULE = 'build_refresh_dag(schedule="*/5 * * * *")'

_Wanted = Mapping[str | None, ConnectionTarget]
_Names = dict[str | None, tuple[tuple[HistoryPoint, ...], str | None]]


class HistoryCache:
    """The last day of some names; read by one caller at a time, and not while it is recent."""

    def __init__(self) -> None:
        self._reading = forks.free_in_child(threading.Lock())
        self._read_at = float("-inf")
        self._names: _Names = {}

    def report(self, targets: Iterable[ConnectionTarget], *, fresh: bool = False) -> dict[str, Any]:
        """The history of some names, how old it is, and what to do about that.

        :param fresh: read it again after 2 seconds already.
        """
        wanted = {target.history_name: target for target in targets if target.hostname is not None}
        every = _FRESH_EVERY if fresh else _READ_EVERY
        if self._is_due(wanted, every):
            self._read(wanted, every)
        shown = {name: self._names[name] for name in wanted if name in self._names}
        points = {name: list(known) for name, (known, _) in shown.items()}
        newest = max((known[-1]["at"] for known in points.values() if known), default=None)
        age = None
        if newest is not None:
            age = max(0.0, time.time() - datetime.fromisoformat(newest).timestamp())
        return {
            "generated_at": datetime.now(UTC),
            "newest": newest,
            "age": None if age is None else round(age, 1),
            "note": note(age, unread=any(problem for _, problem in shown.values())),
            "names": points,
            "problems": {name: problem for name, (_, problem) in shown.items() if problem},
        }

    def _is_due(self, wanted: _Wanted, every: float) -> bool:
        return time.monotonic() - self._read_at >= every or not wanted.keys() <= self._names.keys()

    def _read(self, wanted: _Wanted, every: float) -> None:
        known = wanted.keys() <= self._names.keys()
        # While another caller reads, what is known will do; that nothing is known would be wrong.
        if not self._reading.acquire(timeout=0 if known else _PATIENCE):
            return
        try:
            if not self._is_due(wanted, every):
                return
            self._names = {
                name: runtime.store(target.asked).history(target.hostname or "")
                for name, target in wanted.items()
            }
            # What could not be read is read again for the next caller.
            if all(points or not problem for points, problem in self._names.values()):
                self._read_at = time.monotonic()
        finally:
            self._reading.release()


def note(age: float | None, *, unread: bool = False) -> str:
    """How old a history is, and what to do about it.

    :param age: seconds since the newest point; ``None`` where there is none.
    :param unread: whether something that was written could not be read.
    """
    if age is None and unread:
        return "The last day of a name could not be read; its row gives the reason."
    if age is None:
        return (
            "No refresh has written a history of the last day yet: unpause and trigger the DAG "
            f"hokusai_dns_refresh, and give it a schedule, for example {_SCHEDULE}."
        )
    ago = _in_words(age)
    if age < _OUTDATED_AFTER:
        return f"The last refresh was {ago} ago."
    return (
        f"The last refresh was {ago} ago: check whether the DAG hokusai_dns_refresh is paused or "
        f"fails. It may have no schedule: {_SCHEDULE} gives it one."
    )


def _in_words(seconds: float) -> str:
    for size, word in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {word}{'' if count == 1 else 's'}"
    return "less than a minute"
