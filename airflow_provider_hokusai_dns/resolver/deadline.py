"""The deadline of a thread's current work, for the layers below that wait on its behalf.

MLflow's client and ``requests`` have a timeout for a connect and for an answer, but none for a
name, which they look up internally. So a caller with a deadline sets it here, and the pin and the
transport stop waiting at that time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

#: Not a thread's own: where gevent takes the threads' place after us, greenlets would share it.
_end: ContextVar[float] = ContextVar("deadline", default=float("inf"))


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Limit all waits of this thread to ``seconds`` from now. The earliest limit applies.

    A lookup at the deadline still gets a moment: see :mod:`~.pinned_port`.
    """
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def end() -> float:
    """The deadline of this thread, monotonic seconds; infinite if it has none."""
    return _end.get()


def seconds_left() -> float:
    """Seconds until the deadline; negative if it has passed."""
    return _end.get() - time.monotonic()
