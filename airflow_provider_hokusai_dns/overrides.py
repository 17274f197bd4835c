"""The environment variables that an open run sets for MLflow, and their previous values.

One set per process: that of the first open run, until the last one ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

_ours: dict[str, str] = {}
_before: dict[str, str | None] | None = None


def begin(values: Mapping[str, str], restored: Iterable[str]) -> None:
    """Save the current values of variables, before a run sets them.

    :param values: the values that the run, or MLflow on its behalf, sets.
    :param restored: the variables that :func:`end` restores; contains the names in ``values``.
    """
    global _before
    _before = {name: os.environ.get(name) for name in restored}
    _ours.update(values)


def end() -> None:
    """Restore the variables."""
    global _before
    before, _before = _before or {}, None
    for name, value in before.items():
        put(name, value)


def put(name: str, value: str | None) -> None:
    """Set a variable; ``None`` removes it."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def without_us(name: str) -> str | None:
    """A variable's value without our runs, for code that reads settings from it.

    Inside a run of another connection, ``MLFLOW_TRACKING_URI`` is that of the run. As a setting it
    would point to the wrong server, without credentials.
    """
    now = os.environ.get(name)
    # No lock: MLflow may just be imported for the first time under the run's.
    if (before := _before) is not None and now is not None and now == _ours.get(name):
        return before[name]
    return now
