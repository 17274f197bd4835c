"""Calls to Airflow that are waited for no longer than agreed; see :mod:`~.store.variables`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class CallOverdue(Exception):
    """The line is held by a call that did not come back in time."""


class BoundedCall:
    """One call at a time, and none waited for longer than agreed.

    :param patience: seconds for one call, waiting for the line included.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._free = threading.Lock()
        self._overdue: threading.Event | None = None

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on a thread of its own.

        :raises CallOverdue: when it, or a call before it, did not come back in time.
        """
        if self._pid != os.getpid():  # the thread that held the line did not survive the fork
            self._reset()
        deadline = time.monotonic() + self._patience
        overdue = self._overdue
        if overdue is not None and not overdue.is_set():
            raise CallOverdue
        line, done = self._free, threading.Event()
        if not line.acquire(timeout=self._patience):
            raise CallOverdue
        outcome: list[tuple[T, None] | tuple[None, BaseException]] = []

        def work() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:
                outcome.append((None, error))
            finally:
                line.release()
                done.set()

        threading.Thread(target=work, name="hokusai-dns-variables", daemon=True).start()
        if not done.wait(max(0.0, deadline - time.monotonic())):
            self._overdue = done
            raise CallOverdue
        value, error = outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]
