"""The clock that the resolver and the circuit breaker are given, so that tests need not sleep.

Memory works on the monotonic clock, the shared store on wall time (``docs/policy.md``, rule 16).
Waits and time-outs outside of them read the clock of the system themselves.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Protocol

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
_monotonic = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)


class Clock(Protocol):
    """A source of time, passed in so that tests need not sleep."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps, and that goes on while the machine sleeps."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, as the system believes."""
        ...


class SystemClock:
    """The clocks of the operating system.

    The first goes on while the machine sleeps, where there is such a clock: what was resolved
    before is as old as it is, and not as old as the machine was awake.
    """

    monotonic = staticmethod(_monotonic)
    time = staticmethod(time.time)
