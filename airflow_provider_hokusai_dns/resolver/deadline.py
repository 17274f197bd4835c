"""The deadline of what a thread does now, for the layers below that wait on its behalf.

MLflow's client and ``requests`` take a time-out for a connect and for an answer, and none for a
name: its lookup happens inside of them. So a caller with a deadline sets it here, and the pin and
the transport end their waits by it.
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
    """On this thread, let nothing wait longer than until ``seconds`` from now. The earliest counts.

    What is asked meanwhile still gets a moment: see :mod:`~.pinned_port`.
    """
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def end() -> float:
    """When the deadline of this thread is, monotonic seconds; infinite where it has none."""
    return _end.get()


def seconds_left() -> float:
    """Seconds until then; negative where it has passed."""
    return _end.get() - time.monotonic()
