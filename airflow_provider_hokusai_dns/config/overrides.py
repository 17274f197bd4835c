"""The environment variables that this package sets for MLflow, and their previous values.

Runs and exported relays set them, and may be open at the same time. Each has its own
:class:`Changes`. Those of relays stay in force inside a run: they are for child processes, which
cannot use the URI of a run. This process has it from MLflow's API.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_hokusai_dns.resolver import forks


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
#: Those of the run, if any, then those of relays, oldest first. Replaced and never changed, so that
#: readers need no lock.
_open: tuple[Changes, ...] = ()


def begin(
    conn_id: str,
    values: Mapping[str, str | None],
    *,
    exported: bool = False,
    restored: Iterable[str] = (),
) -> Changes:
    """Save the current values of variables, and set new ones.

    A run sets only those that no open relay has set. The others come into force at the end of that
    relay, if the run is still open then.

    :param values: the new values; ``None`` removes a variable.
    :param exported: whether they are those of an exported relay.
    :param restored: further variables, which others set meanwhile, and which :func:`end` restores.
    """
    global _open
    with _lock:
        above = () if exported else _open
        before = {name: _get(name, above) for name in (*values, *restored)}
        changes = Changes(conn_id, dict(values), before)
        _open = (*_open, changes) if exported else (changes, *_open)
        for name, value in values.items():
            _put(name, above, value)
    return changes


def end(changes: Changes, *, keep_others: bool = False) -> None:
    """Restore the variables.

    Where other changes to a variable are in force, they restore it instead.

    :param keep_others: except those that other code has changed meanwhile.
    """
    global _open
    with _lock:
        above = _open[_open.index(changes) + 1 :]
        for name, value in changes.before.items():
            if not keep_others or _get(name, above) == changes.ours.get(name):
                _put(name, above, value)
        # Afterwards: a reader without the lock must not take ours for the author's.
        _open = tuple(each for each in _open if each is not changes)


def _first_with(name: str, above: tuple[Changes, ...]) -> Changes | None:
    return next((each for each in above if name in each.before), None)


def _get(name: str, above: tuple[Changes, ...]) -> str | None:
    """A variable's value below some changes."""
    over = _first_with(name, above)
    return os.environ.get(name) if over is None else over.before[name]


def _put(name: str, above: tuple[Changes, ...], value: str | None) -> None:
    over = _first_with(name, above)
    if over is None:
        put(name, value)
    else:
        over.before[name] = value


def is_below_another(changes: Changes) -> bool:
    """Whether a relay of another connection is exported, for whose children variables are."""
    return any(each.conn_id != changes.conn_id for each in _open)


@contextlib.contextmanager
def kept(*names: str) -> Iterator[None]:
    """Undo what the block does to variables."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            put(name, value)


def put(name: str, value: str | None) -> None:
    """Set a variable; ``None`` removes it."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def original_value(name: str, *, but: str | None = None) -> str | None:
    """A variable's value without our runs and relays, for code that reads settings from it.

    Inside a run of another connection, ``MLFLOW_TRACKING_URI`` is that of the run. As a setting it
    would point to the wrong server, without credentials.

    :param but: a connection whose runs and relays count as the author's.
    """
    # No lock: MLflow may just be imported for the first time under the run's.
    while True:
        in_force, value = _open, os.environ.get(name)
        for changes in reversed(in_force):
            if changes.conn_id != but and name in changes.ours and value == changes.ours[name]:
                value = changes.before[name]
        if _open is in_force:  # a run or relay that begins or ends replaces it
            return value
