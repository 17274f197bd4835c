"""Calls to Airflow with a time limit; see :mod:`~.store.variables`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from airflow_provider_hokusai_dns.resolver import forks

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
        self._overdue: Future[Any] | None = None

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on a separate thread.

        :raises CallOverdue: it, or an earlier call, did not return in time.
        """
        deadline = time.monotonic() + self._patience
        overdue = self._overdue
        if overdue is not None and not overdue.done():
            raise CallOverdue
        line, future = self._free, Future[T]()
        if not line.acquire(timeout=self._patience):
            raise CallOverdue

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            finally:
                line.release()

        try:
            threading.Thread(target=work, name="hokusai-dns-variables", daemon=True).start()
        except RuntimeError:  # no thread can be started now
            line.release()
            raise
        if not wait((future,), max(0.0, deadline - time.monotonic())).done:
            self._overdue = future
            raise CallOverdue
        return future.result()
