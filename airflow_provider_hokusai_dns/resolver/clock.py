"""The clock that the resolver and the circuit breaker are given, so that tests need not sleep.

Memory works on the monotonic clock, the shared store on wall time (``docs/policy.md``, rule 16).
Waits and time-outs outside of them read the clock of the system themselves.
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
