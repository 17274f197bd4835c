"""The environment variables that this package sets for MLflow, and their previous values.

Runs and exported relays set them, and may be open at the same time. Each has its own
:class:`Changes`, in the order in which they were begun.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow_provider_hokusai_dns import forks


@dataclass(eq=False, slots=True)
class Changes:
    """What one run or one exported relay has changed.

    :param conn_id: its connection.
    :param ours: the new values; ``None`` for a variable that was removed.
    :param before: the values before that, also of variables that only :func:`end` changes.
    """

    conn_id: str
    ours: dict[str, str | None]
    before: dict[str, str | None]


_lock = forks.free_in_child(threading.Lock())
#: Oldest first. Replaced and never changed, so that readers need no lock.
_open: tuple[Changes, ...] = ()


def begin(conn_id: str, values: Mapping[str, str | None], restored: Iterable[str] = ()) -> Changes:
    """Save the current values of variables, and set them.

    :param conn_id: the connection of the run or relay.
    :param values: the new values; ``None`` removes a variable.
    :param restored: further variables, which others set meanwhile, and which :func:`end` restores.
    """
    global _open
    with _lock:
        before = {name: os.environ.get(name) for name in (*values, *restored)}
        changes = Changes(conn_id, dict(values), before)
        _open = (*_open, changes)
        for name, value in values.items():
            put(name, value)
    return changes


def end(changes: Changes, *, keep_others: bool = False) -> None:
    """Restore the variables.

    Where later changes to a variable are still in force, they restore it instead.

    :param keep_others: except those that other code has changed meanwhile.
    """
    global _open
    with _lock:
        later = _open[_open.index(changes) + 1 :]
        _open = tuple(each for each in _open if each is not changes)
        for name, value in changes.before.items():
            above = next((each.before for each in later if name in each.before), None)
            now = os.environ.get(name) if above is None else above[name]
            if keep_others and now != changes.ours.get(name):
                continue
            if above is None:
                put(name, value)
            else:
                above[name] = value


def put(name: str, value: str | None) -> None:
    """Set a variable; ``None`` removes it."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def without_us(name: str, *, but: str | None = None) -> str | None:
    """A variable's value without our runs and relays, for code that reads settings from it.

    Inside a run of another connection, ``MLFLOW_TRACKING_URI`` is that of the run. As a setting it
    would point to the wrong server, without credentials.

    :param but: a connection whose runs and relays count as the author's.
    """
    value = os.environ.get(name)
    # No lock: MLflow may just be imported for the first time under the run's.
    for changes in reversed(_open):
        if changes.conn_id != but and name in changes.ours and value == changes.ours[name]:
            value = changes.before[name]
    return value
