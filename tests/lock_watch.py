"""No test may log, sleep or wait while its thread holds one of our locks.

It has to be imported before our package makes its first lock: ``conftest.py`` does, and
``pytest -p tests.lock_watch`` for tests that stand elsewhere.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

OURS = "airflow_provider_hokusai_dns"
_held = threading.local()
#: What was done under which lock, by the place that took it.
found: set[str] = set()


class WatchedLock:
    """A lock of ours that knows which thread is inside of it.

    What is acquired by hand, with a time-out or to be released by another thread, is a place in a
    queue and no lock of a state.
    """

    def __init__(self, lock: Any, made_at: str) -> None:
        self._lock = lock
        self._made_at = made_at

    def __enter__(self) -> None:
        self._lock.acquire()
        held().append(self._made_at)

    def __exit__(self, *exc_info: object) -> None:
        held().remove(self._made_at)
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


def held() -> list[str]:
    """The locks of ours that this thread holds."""
    if not hasattr(_held, "locks"):
        _held.locks = []
    return _held.locks  # type: ignore[no-any-return]


def place(frame: FrameType | None) -> str:
    """The innermost place in our package."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(OURS):
            return f"{module.removeprefix(OURS + '.')}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "?"


def note(what: str) -> None:
    if held():
        found.add(f"{place(sys._getframe(2))}: {what} under the lock of {held()[-1]}")


def watched(make: Callable[[], Any]) -> Callable[[], Any]:
    def lock() -> Any:
        frame = sys._getframe(1)
        module = frame.f_globals.get("__name__", "")
        return WatchedLock(make(), place(frame)) if module.startswith(OURS) else make()

    return lock


def before(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        note(what)
        return function(*args, **kwargs)

    return call


threading.Lock = watched(threading.Lock)  # type: ignore[misc,assignment]
threading.RLock = watched(threading.RLock)  # type: ignore[misc,assignment]
time.sleep = before("sleeps", time.sleep)  # type: ignore[assignment]
concurrent.futures.wait = before("waits", concurrent.futures.wait)
concurrent.futures.Future.result = before(  # type: ignore[method-assign]
    "waits", concurrent.futures.Future.result
)
logging.setLogRecordFactory(before("logs", logging.getLogRecordFactory()))


@pytest.fixture(autouse=True)
def _nothing_waits_under_a_lock() -> Iterator[None]:
    found.clear()
    yield
    assert not found, "\n".join(sorted(found))
