"""Daemon threads that run lookups, so that a hanging one does not block others.

Not :class:`concurrent.futures.ThreadPoolExecutor`: the interpreter joins that at exit, and the
process would wait for a lookup whose result is no longer needed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from airflow_provider_hokusai_dns.resolver import forks

log = logging.getLogger(__name__)
T = TypeVar("T")


class NoThreadError(RuntimeError):
    """No thread can be started, and the caller's own thread must not block."""


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Workers:
    """Threads that start on demand and end after a while without work; survives fork.

    :param limit: maximum number of threads; further jobs wait for one.
    :param linger: seconds for which an idle thread waits for work.
    """

    def __init__(self, name: str, limit: int = 64, linger: float = 5.0) -> None:
        self._name = name
        self._limit = limit
        self._linger = linger
        self.renew_after_fork()
        forks.renewed(self)

    def renew_after_fork(self) -> None:
        """Start without threads in a child process: the parent's do not exist there."""
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], object]] = deque()
        self._threads = 0
        self._idle = 0

    def run(self, job: Callable[[], object], *, beside: bool = False) -> None:
        """Run a job on a thread; one that raises is logged.

        If no thread can be started, it runs on the caller's own thread.

        :param beside: the caller does not wait for it; then it does not run on the thread of an
            event loop either.
        :raises NoThreadError: the caller is on such a thread.
        """
        with self._changed:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
                return
            if self._threads >= self._limit:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError as error:
            is_refused = beside and _is_on_a_loop()
            with self._changed:
                self._threads -= 1
                if self._threads:  # another takes it
                    return
                if is_refused and job in self._jobs:
                    self._jobs.remove(job)
                    raise NoThreadError(f"the system allows no further thread ({error})") from error
            self._drain()

    def call(
        self, job: Callable[[], T], future: Future[T] | None = None, *, beside: bool = False
    ) -> Future[T]:
        """Run a job on a thread; the future has its result or exception.

        :param future: the future to use; a new one by default.
        :param beside: as for :meth:`run`; a waiting coroutine does not block on it either.
        """
        future = future or Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                result = job()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        try:
            self.run(work, beside=beside)
        except NoThreadError as error:
            future.set_exception(error)
        return future

    def wait_idle(self, timeout: float = 10.0) -> bool:
        """Wait until all jobs have ended; returns whether they did within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._jobs and self._idle == self._threads, timeout
            )

    def _drain(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:
                log.exception("A background job of the resolver failed")

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._idle += 1
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._jobs, self._linger)
                    self._idle -= 1
                    if not self._jobs:
                        self._threads -= 1
                        self._changed.notify_all()
                        return
                job = self._jobs.popleft()
            try:
                job()
            except BaseException:  # SystemExit, for one: it ends a job and not the thread
                log.exception("A background job of the resolver failed")
