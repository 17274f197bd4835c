"""The health of a name, a server or a process, as one ordered type."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Level(StrEnum):
    """From best to worst. Also a string: its value is used in JSON, XComs and labels."""

    HEALTHY = "healthy"
    #: Nothing has been seen yet.
    UNKNOWN = "unknown"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"

    def meets(self, least: str) -> bool:
        """Whether this is as good as ``least``, or better.

        :raises ValueError: ``least`` is not a level.
        """
        return _ORDER.index(self) <= _ORDER.index(Level(least))


_ORDER = tuple(Level)
#: What a gate may insist on.
USABLE = (Level.HEALTHY, Level.DEGRADED)


def worst(levels: Iterable[str]) -> Level:
    """The worst of some levels; ``unknown`` if there are none."""
    return max(map(Level, levels), key=_ORDER.index, default=Level.UNKNOWN)
