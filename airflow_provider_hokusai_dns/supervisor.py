"""The connection of a task or trigger to its supervisor, through which it asks Airflow."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_RUNNER, _NAME = "airflow.sdk.execution_time.task_runner", "SUPERVISOR_COMMS"


def connection() -> Any:
    """The connection; ``None`` in a process that is neither a task nor a triggerer."""
    return getattr(sys.modules.get(_RUNNER), _NAME, None)


def kind() -> str:
    """The name of its class, which tells a task, a trigger and ``dag.test()`` apart."""
    return type(connection()).__name__


def has_database() -> bool:
    """Whether this process reads Airflow's database directly, by Airflow's own mark.

    A task that was forked from the scheduler is marked as a server too, and has no database.
    """
    return os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server" and connection() is None


def in_triggerer() -> bool:
    """Whether this process is the one in which Airflow runs triggers; false under `dag.test()`."""
    return kind() == "TriggerCommsDecoder"


#: In a forked child: the connection of its parent. Nothing there tells whose answer comes next: one
#: that a child reads is missed by the parent, which would wait for it forever.
_of_parent: Any = None


class _Withheld:
    """In place of the connection of a parent, while its child must not use it."""

    def send(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("a forked child has no connection to Airflow's supervisor")


_withheld = _Withheld()
_lock = threading.Lock()
#: Blocks of :func:`withheld_from_child` that are open.
_blocks = 0


def belongs_to_parent() -> bool:
    """Whether this is a forked child that has no other connection than its parent's."""
    present = connection()
    return present is _withheld or (_of_parent is not None and present is _of_parent)


@contextmanager
def withheld_from_child() -> Iterator[None]:
    """While the block runs in a forked child, no function of Airflow uses its parent's connection.

    For functions that use it besides other sources, such as the environment.
    """
    global _blocks
    if not belongs_to_parent():
        yield
        return
    runner = sys.modules[_RUNNER]
    with _lock:
        _blocks += 1
        setattr(runner, _NAME, _withheld)
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                setattr(runner, _NAME, _of_parent)


def _leave_it_to_the_parent() -> None:
    global _of_parent, _blocks, _lock
    _of_parent, _blocks, _lock = connection(), 0, threading.Lock()
    # A thread of ours may have held it at the fork: then all that asks Airflow would wait forever.
    lock = getattr(_of_parent, "_thread_lock", None)
    getattr(lock, "_at_fork_reinit", lambda: None)()


os.register_at_fork(after_in_child=_leave_it_to_the_parent)
