"""What has to be new in a child process: locks that a thread of the parent may have held.

A thread that holds a lock does not come along when a process forks, and never releases it in the
child. So the owners of locks register here, and replace them before the child runs anything else.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar


class HoldsLocks(Protocol):
    """An object with locks, or with threads that a child does not have."""

    def renew_after_fork(self) -> None:
        """Replace every lock, in a child that has one thread."""
        ...


Owner = TypeVar("Owner", bound=HoldsLocks)

_owners: weakref.WeakSet[HoldsLocks] = weakref.WeakSet()
_functions: list[Callable[[], object]] = []


def renewed(owner: Owner) -> Owner:
    """Renew the locks of an object in each child, for as long as the object lives."""
    _owners.add(owner)
    return owner


def in_child(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function in each child: for locks that belong to a module. Usable as a decorator."""
    _functions.append(function)
    return function


def _renew() -> None:
    for function in _functions:
        function()
    for owner in list(_owners):
        owner.renew_after_fork()


os.register_at_fork(after_in_child=_renew)
