"""Calls to Airflow with a time limit; see :mod:`~.store.variable_store`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, NamedTuple, TypeVar

from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.errors import StoreOverdue

T = TypeVar("T")

#: Seconds from its beginning for which the result of an overdue call is kept.
_KEPT = 30.0
_THREAD = "hokusai-dns-variables"


class _Overdue(NamedTuple):
    """A call that nothing waits for any more."""

    key: str
    began: float  # monotonic seconds
    future: Future[Any]


class BoundedCall:
    """One call at a time, each within a time limit.

    :param patience: seconds for one call, including the wait for a previous one.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.renew_after_fork()
        forks.renewed(self)

    def renew_after_fork(self) -> None:
        """Forget the parent's call in a child, where its thread does not exist."""
        self._free = threading.Lock()
        self._overdue: _Overdue | None = None

    def end(self, seconds: float) -> bool:
        """Wait until no call is under way, and let no further one begin; whether that succeeded."""
        return self._free.acquire(timeout=max(0.0, seconds))

    def call(self, function: Callable[[], T], key: str = "") -> T:
        """Run ``function`` on a separate thread.

        :param key: what is asked. If the last call with this key was overdue and has returned now,
            its result is returned, once. Empty for a call whose result may not be older than it.
        :raises StoreOverdue: it, or an earlier call, did not return in time.
        """
        began = time.monotonic()
        deadline = began + self.patience
        overdue = self._overdue
        if overdue is not None:
            if not overdue.future.done():
                raise StoreOverdue
            self._overdue = None
            if key and key == overdue.key and began - overdue.began < _KEPT:
                known: Future[T] = overdue.future
                return known.result()
        line, future = self._free, Future[T]()
        if not line.acquire(timeout=self.patience):
            raise StoreOverdue

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            finally:
                line.release()

        try:
            threading.Thread(target=work, name=_THREAD, daemon=True).start()
        except RuntimeError:  # no thread can be started now
            line.release()
            raise
        if not wait((future,), max(0.0, deadline - time.monotonic())).done:
            self._overdue = _Overdue(key, began, future)
            raise StoreOverdue
        return future.result()


def is_under_way() -> bool:
    """Whether a call in this process has not returned yet."""
    return any(thread.name == _THREAD for thread in threading.enumerate())
