"""The clock of the resolver and the circuit breaker, passed in so that tests need not sleep.

Memory uses the monotonic clock, the shared store wall time (``docs/policy.md``, rule 16). Other
waits and timeouts read the system's clock directly.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
_monotonic = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)


class Clock(Protocol):
    """A source of time."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps, and that goes on while the machine sleeps."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, as the system believes."""
        ...


class SystemClock:
    """The clocks of the operating system."""

    monotonic = staticmethod(_monotonic)
    time = staticmethod(time.time)
