"""The connection of a task or trigger to its supervisor, through which it asks Airflow."""

from __future__ import annotations

import sys
from typing import Any

from airflow_provider_hokusai_dns.resolver import forks


def connection() -> Any:
    """The connection; ``None`` in a process that is neither a task nor a triggerer."""
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return getattr(runner, "SUPERVISOR_COMMS", None)


def kind() -> str:
    """The name of its class, which tells a task, a trigger and ``dag.test()`` apart."""
    return type(connection()).__name__


def in_triggerer() -> bool:
    """Whether this process is the one in which Airflow runs triggers; false under `dag.test()`."""
    return kind() == "TriggerCommsDecoder"


#: In a forked child: the connection of its parent. Nothing there tells whose answer comes next: one
#: that a child reads is missed by the parent, which would wait for it forever.
_of_parent: Any = None


def belongs_to_parent() -> bool:
    """Whether this is a forked child that has no other connection than its parent's."""
    return _of_parent is not None and connection() is _of_parent


@forks.in_child
def _leave_it_to_the_parent() -> None:
    global _of_parent
    _of_parent = connection()
    # A thread of ours may have held it at the fork: then all that asks Airflow would wait forever.
    lock = getattr(_of_parent, "_thread_lock", None)
    getattr(lock, "_at_fork_reinit", lambda: None)()
