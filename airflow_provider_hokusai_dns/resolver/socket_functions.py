"""Functions in the place of those of the :mod:`socket` module, and found there again.

An earlier patch may restore the system's own functions at any time (``mock.patch`` does, so does
gevent when it patches later), and a later one may wrap ours. So nothing is remembered: whether a
function still calls ours is found out by calling it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

Function = Callable[..., Any]


class Sentinel(str):
    """An address to ask for as this very object: the system's function needs no DNS for it.

    It has no hash, so that a function that remembers answers cannot give one of an equal address.
    Such a function hides what stands behind it, and counts as one that does not lead there.
    """

    was_seen: bool
    __hash__ = None  # type: ignore[assignment]

    def __new__(cls) -> Sentinel:
        """One that nothing has seen yet."""
        made = super().__new__(cls, "127.0.0.1")
        made.was_seen = False
        return made


class SocketFunctions:
    """Puts functions into the place of the system's and takes them out again.

    :param makers: by name, what makes a function that hands on to the one it is given, and notes a
        :class:`Sentinel` that it is asked for.
    """

    def __init__(self, makers: Mapping[str, Callable[[Function], Function]]) -> None:
        self._makers = makers
        #: Each function that was made, and what stood there before.
        self._made: list[tuple[Function, Function]] = []

    def missing(self) -> dict[str, Function]:
        """What stands where calls do not come by ours; calls what others put there."""
        found = {name: getattr(socket, name) for name in self._makers}
        return {name: there for name, there in found.items() if not self._leads_here(name, there)}

    def put_in(self, missing: Mapping[str, Function]) -> None:
        """Take the place of what was missing, unless something else stands there by now.

        A function of its own each time: one that was wrapped still leads to what it was put before,
        and a second use of it would lead to itself.
        """
        for name, there in missing.items():
            if getattr(socket, name) is there:
                ours = self._makers[name](there)
                self._made.append((ours, there))
                setattr(socket, name, ours)

    def take_out(self) -> None:
        """Put back what stood there, where ours stands there still."""
        for name in self._makers:
            while (original := self._original_of(getattr(socket, name))) is not None:
                ours = getattr(socket, name)
                self._made = [pair for pair in self._made if pair[0] is not ours]
                setattr(socket, name, original)

    def _leads_here(self, name: str, function: Function) -> bool:
        if self._original_of(function) is not None:
            return True
        asked = Sentinel()
        with contextlib.suppress(Exception):
            function(asked, None) if name == "getaddrinfo" else function(asked)
        return asked.was_seen

    def _original_of(self, function: object) -> Function | None:
        """What one of ours was put before; ``None`` for all others, wrappers of ours too."""
        return next((original for ours, original in self._made if ours is function), None)
