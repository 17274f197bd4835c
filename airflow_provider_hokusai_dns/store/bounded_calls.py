"""Calls to Airflow with a time limit; see :mod:`~.store.variables`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_hokusai_dns import forks

T = TypeVar("T")


class CallOverdue(Exception):
    """The connection to the supervisor is busy with a call that did not return in time."""


class BoundedCall:
    """One call at a time, each within a time limit.

    :param patience: seconds for one call, including the wait for a previous one.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.renew_after_fork()
        forks.renewed(self)

    def renew_after_fork(self) -> None:
        """Forget the parent's call in a child, where its thread does not exist."""
        self._free = threading.Lock()
        self._overdue: threading.Event | None = None

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on a separate thread.

        :raises CallOverdue: it, or an earlier call, did not return in time.
        """
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

        try:
            threading.Thread(target=work, name="hokusai-dns-variables", daemon=True).start()
        except RuntimeError:  # no thread can be started now
            line.release()
            raise
        if not done.wait(max(0.0, deadline - time.monotonic())):
            self._overdue = done
            raise CallOverdue
        value, error = outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]
