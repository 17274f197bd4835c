"""Renews, in a forked child process, the locks that a thread of the parent may have held.

Only the forking thread exists in the child, so a lock held by another thread would never be
released there. Locks, and objects that own other state of the parent's threads, register here and
are renewed before the child runs anything else.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar


class HasThreads(Protocol):
    """An object that owns threads, or state that only its threads can clean up."""

    def renew_after_fork(self) -> None:
        """Start again without them, in a child that has one thread."""
        ...


Lock = TypeVar("Lock")

_locks: weakref.WeakSet[Any] = weakref.WeakSet()
_owners: weakref.WeakSet[HasThreads] = weakref.WeakSet()
_functions: list[Callable[[], object]] = []


def free_in_child(lock: Lock) -> Lock:
    """A lock, or a condition, that is free in each child, even if a thread held it.

    That includes the forking thread: it must not fork while it holds one.
    """
    _locks.add(lock)
    return lock


def renewed(owner: HasThreads) -> None:
    """Renew an object in each child, for as long as the object exists."""
    _owners.add(owner)


def in_child(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in each child: for the state of a module. Usable as a decorator."""
    _functions.append(function)
    return function


def _free_imports() -> None:
    """Forget the locks of modules that other threads were importing.

    MLflow tries to import modules that are not installed at each request. Without this, a child
    that was forked at that moment would wait at its first request, forever. A module that another
    thread was half-way through stays so in the child, and an import from it may fail.
    """
    locks = getattr(sys.modules["_frozen_importlib"], "_module_locks", {})  # Python's own; private
    for name, lock in list(locks.items()):
        if getattr(lock(), "owner", None) != threading.get_ident():
            locks.pop(name, None)


def _renew() -> None:
    _free_imports()
    for lock in list(_locks):
        lock._at_fork_reinit()  # not public, and what Python's own modules do with theirs
    for function in _functions:
        function()
    for owner in list(_owners):
        owner.renew_after_fork()


os.register_at_fork(after_in_child=_renew)
