"""A one-time event that threads and coroutines wait for, on any number of event loops."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable


class OneTimeEvent:
    """A one-time event. A wait costs a thread one lock, an event loop one call for all coroutines.

    It has no lock of its own, so that a signal handler may wait in the middle of it: it is marked
    as done before the waiters are taken from their lists, and each waiter checks the mark after it
    has registered.
    """

    __slots__ = ("_bells", "_futures", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._bells: list[threading.Lock] = []
        self._futures: dict[asyncio.AbstractEventLoop, set[asyncio.Future[None]]] = {}

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """Wake all waiters; later ones do not wait."""
        self._is_set = True
        while self._bells:
            with contextlib.suppress(IndexError):  # another thread took the last one
                self._bells.pop().release()
        while self._futures:
            with contextlib.suppress(KeyError, RuntimeError):  # taken; the loop is closed
                loop, futures = self._futures.popitem()
                loop.call_soon_threadsafe(_wake, futures)

    def wait(self, seconds: float) -> bool:
        """Block this thread until it happens; returns whether it has."""
        bell = threading.Lock()
        bell.acquire()
        self._bells.append(bell)
        if not self._is_set:
            bell.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        return self._is_set

    async def wait_async(self, seconds: float) -> bool:
        """Wait until it happens; returns whether it has."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        # Changed by this loop's thread alone.
        futures = self._futures.setdefault(loop, set())
        futures.add(future)
        if not self._is_set:
            timer = loop.call_later(seconds, _wake, (future,))
            try:
                await future
            finally:
                timer.cancel()
                futures.discard(future)
        return self._is_set


def _wake(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
