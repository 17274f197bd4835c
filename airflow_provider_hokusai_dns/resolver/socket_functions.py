"""Replaces functions of the :mod:`socket` module, and detects whether they are still replaced.

An earlier patch may restore the system's own functions at any time (``mock.patch`` does, and
gevent when it patches later), and a later one may wrap ours. So nothing is remembered: the current
function is called to find out whether it still calls ours.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

Function = Callable[..., Any]


class Sentinel(str):
    """An address whose lookup marks this object; the system's function needs no DNS for it.

    It has no hash, so that a caching wrapper cannot return the answer for an equal address. Such a
    wrapper hides the function that it wraps, and counts as one that does not call it.
    """

    was_seen = False
    __hash__ = None  # type: ignore[assignment]


class SocketFunctions:
    """Replaces the system's functions, and restores them.

    :param makers: by name, a factory of a function that delegates to the given one, and records a
        :class:`Sentinel` that is passed to it.
    """

    def __init__(self, makers: Mapping[str, Callable[[Function], Function]]) -> None:
        self._makers = makers
        #: Each function that was made, and what stood there before.
        self._made: list[tuple[Function, Function]] = []

    def missing(self) -> dict[str, Function]:
        """The current functions that do not call ours; calls functions of other packages."""
        found = {name: getattr(socket, name) for name in self._makers}
        return {name: there for name, there in found.items() if not self._leads_here(name, there)}

    def install(self, missing: Mapping[str, Function]) -> None:
        """Replace the functions in ``missing``, unless they have been replaced in the meantime.

        A new function each time: a wrapped one still delegates to its original, and used a second
        time it would call itself.
        """
        for name, there in missing.items():
            if getattr(socket, name) is there:
                ours = self._makers[name](there)
                self._made.append((ours, there))
                setattr(socket, name, ours)

    def uninstall(self) -> None:
        """Restore the originals where our functions are still in place."""
        for name in self._makers:
            while (original := self._original_of(getattr(socket, name))) is not None:
                ours = getattr(socket, name)
                self._made = [pair for pair in self._made if pair[0] is not ours]
                setattr(socket, name, original)

    def _leads_here(self, name: str, function: Function) -> bool:
        if self._original_of(function) is not None:
            return True
        asked = Sentinel("127.0.0.1")
        with contextlib.suppress(Exception):
            function(asked, None) if name == "getaddrinfo" else function(asked)
        return asked.was_seen

    def _original_of(self, function: object) -> Function | None:
        """The original of one of our functions; ``None`` for any other, even a wrapper of ours."""
        return next((original for ours, original in self._made if ours is function), None)
