"""Since when MLflow is away, for all calls of a relay. Reads no clock.

A client that keeps logging does not wait the whole deadline at each call (see :mod:`..retries`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from airflow_provider_hokusai_dns.client.retries import Try

_log = logging.getLogger(__name__)

#: A failure after this many seconds without one is that of a new outage.
_FORGET_AFTER = 300.0


@dataclass
class Outage:
    """What the calls of a relay have met. Times are monotonic seconds.

    :param deadline: that of the connection.
    :param since: when MLflow went away; ``None`` while it is there.
    """

    deadline: float
    since: float | None = None
    _last_failure: float = 0.0
    _under_way: int = 0

    def call_begins(self, now: float) -> None:
        """Take note of a call.

        A pause without calls says nothing of MLflow, and is no part of an outage.
        """
        forget_after = min(self.deadline, _FORGET_AFTER)
        if not self._under_way and now - self._last_failure > forget_after:
            self.since = None
        self._under_way += 1

    def call_ends(self) -> None:
        """Take note of its end."""
        self._under_way -= 1

    def note(self, last: Try, now: float) -> None:
        """Take note of one try."""
        if not last.says_away:
            if self.since is not None and last.failure is None:
                _log.info("MLflow answers again, after %.1f s.", now - self.since)
                self.since = None
            return
        if self.since is None or now - self._last_failure > _FORGET_AFTER:
            self.since = now
        self._last_failure = now
