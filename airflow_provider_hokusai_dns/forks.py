"""What has to be new in a child process: locks that a thread of the parent may have held.

A thread that holds a lock does not come along when a process forks, and never releases it in the
child. So locks, and the owners of what else belongs to the parent's threads, register here, and are
renewed before the child runs anything else.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class HasThreads(Protocol):
    """An object with threads, or with what only they could end."""

    def renew_after_fork(self) -> None:
        """Begin without them, in a child that has one thread."""
        ...


Lock = TypeVar("Lock")
Owner = TypeVar("Owner", bound=HasThreads)

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_owners: weakref.WeakSet[HasThreads] = weakref.WeakSet()
_functions: list[Callable[[], object]] = []


def free_in_child(lock: Lock) -> Lock:
    """A lock, or a condition, that is free in each child, whichever thread held it."""
    _locks.add(lock)
    return lock


def renewed(owner: Owner) -> Owner:
    """Renew an object in each child, for as long as it lives."""
    _owners.add(owner)
    return owner


def in_child(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in each child: for what belongs to a module. Usable as a decorator."""
    _functions.append(function)
    return function


def _renew() -> None:
    for lock in list(_locks):
        lock._at_fork_reinit()  # not public, and what Python's own modules do with theirs
    for function in _functions:
        function()
    for owner in list(_owners):
        owner.renew_after_fork()


os.register_at_fork(after_in_child=_renew)
