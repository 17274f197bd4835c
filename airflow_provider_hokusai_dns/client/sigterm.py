"""Runs jobs when a task is told to stop.

Airflow sends SIGTERM, raises nothing in the task, and sends SIGKILL five seconds later: a ``with``
block is never left. So the signal handler is chained, in the main thread, while there are jobs. The
jobs run on separate threads: the main thread may have been interrupted while it held a lock that
they need.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import FrameType

from airflow_provider_hokusai_dns.resolver import forks

_log = logging.getLogger(__name__)

#: Seconds for all jobs; Airflow leaves five, and its own handler needs some of them.
SECONDS = 3.0

_lock = forks.free_in_child(threading.Lock())
_jobs: list[Callable[[float], None]] = []
#: Our handler, with the one that it calls; ``None`` if none is installed.
_installed: partial[None] | None = None
#: Whether the jobs have run, and the handler before ours is being called.
_passing_on = False
#: The process of these jobs. A forked child has the list too, and must not run them.
_owner = os.getpid()


@contextlib.contextmanager
def on_sigterm(job: Callable[[float], None]) -> Iterator[None]:
    """While the block runs, call ``job(seconds)`` on SIGTERM, before other handlers.

    Python allows signal handlers only in the main thread, so a block entered in another thread has
    none, unless an outer block has installed it. The next try of the task cleans up after SIGKILL.
    """
    with _lock:
        _jobs.append(job)
        _install()
    try:
        yield
    finally:
        with _lock:
            if job in _jobs:  # not in a child that was forked inside the block
                _jobs.remove(job)
            if not _jobs:
                _uninstall()


def _install() -> None:
    """Install our handler, unless it is installed. The lock is held."""
    global _installed
    if threading.current_thread() is not threading.main_thread():
        return
    current = signal.getsignal(signal.SIGTERM)
    if isinstance(current, partial) and current.func is _handle:
        _installed = current  # other code may have put it back after its run had ended
    # None was set outside Python, so that it cannot be chained; SIG_IGN: the process is to live on.
    elif current not in (None, signal.SIG_IGN):
        _installed = partial(_handle, current)
        signal.signal(signal.SIGTERM, _installed)


def _uninstall() -> None:
    global _installed
    if (ours := _installed) is None or threading.current_thread() is not threading.main_thread():
        return
    # Another handler set meanwhile may chain ours, which does nothing without jobs.
    is_last = signal.getsignal(signal.SIGTERM) is ours
    if is_last:
        signal.signal(signal.SIGTERM, ours.args[0])
    _installed = None


def _handle(
    previous: Callable[[int, FrameType | None], object] | int, number: int, frame: FrameType | None
) -> None:
    global _passing_on
    # In a forked child the signal may come before the list is emptied. And `previous`, which was
    # set while another run was open, may chain the handler of that run.
    jobs = tuple(_jobs) if os.getpid() == _owner and not _passing_on else ()
    run_side_by_side([partial(job, SECONDS) for job in jobs], SECONDS)
    outer, _passing_on = _passing_on, True
    try:
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        _passing_on = outer


def run_side_by_side(jobs: Iterable[Callable[[], object]], seconds: float) -> None:
    """Run each job on a thread of its own, and wait for so many seconds in all; never raises.

    A job for which the system allows no thread is left out: on this one it could take any time.
    """
    end = time.monotonic() + seconds
    threads = []
    for job in jobs:
        thread = threading.Thread(
            target=_run, args=(job,), name="hokusai-dns-end-of-run", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("A step at the end of an MLflow run is skipped: %s", error)
        else:
            threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _run(job: Callable[[], object]) -> None:
    try:
        job()
    except Exception as error:
        _log.warning(
            "A step at the end of an MLflow run failed: %s: %s", type(error).__name__, error
        )


@forks.in_child
def _after_fork_in_child() -> None:
    """A child that gets SIGTERM, as each worker of a pool does, ends no run of its parent."""
    global _owner
    _jobs.clear()
    _uninstall()
    _owner = os.getpid()
