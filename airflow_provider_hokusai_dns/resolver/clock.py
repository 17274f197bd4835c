"""The only place that reads a clock.

Memory works on the monotonic clock; what is stored works on wall time (``policy``, section Time).
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time, passed in so that tests need not sleep."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, as the system believes."""
        ...


class SystemClock:
    """The clocks of the operating system."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
