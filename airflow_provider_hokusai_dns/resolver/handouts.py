"""Records, without a lock, what clients do with the addresses they get.

Every new connection runs this code, with cold CPU caches, so there is as little of it as possible.
Each record is one atomic step: the garbage collector may be the caller, while a lock is held.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_hokusai_dns.resolver.model import LONG_AGO, Endpoint
from airflow_provider_hokusai_dns.resolver.port_reachability import Outcome


@dataclass(slots=True, eq=False)
class Handouts:
    """The handouts of one port, and their outcomes."""

    monotonic: Callable[[], float]
    #: When addresses were last handed out.
    last: float = LONG_AGO
    #: When clients were given the addresses with which they are busy now, by handout.
    open: dict[int, float] = field(default_factory=dict)
    #: By address, of the latest client that connected at its first try: when it was given the
    #: address, and when it connected.
    connected: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: What became of all others.
    in_doubt: deque[Outcome] = field(default_factory=deque)

    def begun(self) -> list[float]:
        """When each that is open was given."""
        return list(self.open.values())  # one step, in which no garbage is collected

    def take_outcomes(self) -> list[Outcome]:
        """The outcomes since the last call, in order; each is taken by one caller."""
        found = []
        with contextlib.suppress(IndexError, KeyError):  # another caller took the last ones
            while self.in_doubt:
                found.append(self.in_doubt.popleft())
            while self.connected:
                address, times = self.connected.popitem()
                found.append(Outcome(*times, address))
        return sorted(found, key=lambda outcome: outcome.at)


class Handout(list[Any]):
    """Addresses returned to a client; :mod:`~.pin` converts them to the system's result format.

    The outcome is recorded once. A client that iterates over them and stops in the middle has
    connected to that address. Without an outcome, the client may have failed with all of them; this
    is recorded when they are garbage-collected.

    :param places: the addresses as strings, in the order of the items.
    :param handouts: where the outcome is recorded; ``None`` if nothing depends on it.
    """

    __slots__ = ("_handouts", "places")

    def __init__(
        self, items: Sequence[Any], places: tuple[str, ...], handouts: Handouts | None = None
    ) -> None:
        list.__init__(self, items)
        self.places = places
        self._handouts = handouts
        if handouts is not None:
            handouts.last = handouts.open[id(self)] = handouts.monotonic()

    def __iter__(self) -> Iterator[Any]:
        for item in list.__iter__(self):
            try:
                yield item
            except GeneratorExit:
                self.connected(*item[4][:2] if isinstance(item, tuple) else (item,))
                raise

    def __reduce__(self) -> tuple[type, tuple[list[Any]]]:
        return list, (self[:],)  # nothing is known of a copy in another process

    def connected(self, address: str, port: int | None = None) -> None:
        """The client stopped at this address."""
        places, handouts = self.places, self._handouts
        place = address if address in places else str(Endpoint(address, port))
        if handouts is None or place not in places:
            return
        self._handouts = None
        began, now = handouts.open.pop(id(self), LONG_AGO), handouts.monotonic()
        if place == places[0]:
            handouts.connected[place] = began, now
        else:
            skipped = places[: places.index(place)]
            handouts.in_doubt.append(Outcome(began, now, place, skipped))

    def refused(self) -> None:
        """No address accepts a connection, even if one did a moment ago."""
        if (handouts := self._handouts) is not None:
            self._handouts = None
            began, now = handouts.open.pop(id(self), LONG_AGO), handouts.monotonic()
            handouts.in_doubt.append(Outcome(began, now, skipped=self.places))

    def __del__(self) -> None:
        if (handouts := self._handouts) is not None:
            began = handouts.open.pop(id(self), LONG_AGO)
            handouts.in_doubt.append(Outcome(began, handouts.monotonic()))
