"""How the deadlines of a connection become time-out, retries and the patience of its pin.

Pure arithmetic: the requests themselves are sent by :mod:`~.transport`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.server import MLflowServer

#: MLflow refuses more retries than this.
_MAX_RETRIES = 10
#: urllib3 never waits longer than this between two tries, seconds.
_MAX_BACKOFF = 120.0
#: MLflow's own default, for an artifact that is passed on to a slow store, seconds.
_MAX_TIMEOUT = 120
#: With a number of retries given: how much of the time may be spent between them.
_WAITING_SHARE = 0.85
_BACKOFF_FACTOR = 2
_JITTER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class HTTPSettings:
    """MLflow's own time-out and retries.

    :param timeout: seconds for connecting, and for each wait for an answer.
    :param retries: tries after the first.
    :param backoff: urllib3's factor: the waits are 0, 2, 4, 8 ... times this, at most 120 s.
    """

    timeout: int
    retries: int
    backoff: int = _BACKOFF_FACTOR

    @property
    def waits(self) -> float:
        """Seconds between the tries of a call, all of them together, at most."""
        return sum(
            min(_MAX_BACKOFF, self.backoff * 2.0**n + _JITTER_SECONDS)
            for n in range(1, self.retries)
        )

    @property
    def worst_case(self) -> float:
        """Seconds until a call gives up against a server that takes requests and never answers."""
        return (self.retries + 1) * self.timeout + self.waits

    @classmethod
    def within(cls, seconds: float, max_retries: int | None = None) -> HTTPSettings:
        """The most patient settings whose worst case is no longer than ``seconds``.

        They cover what breaks in the middle of a request, and a server that answers 5xx while it
        starts. A server that takes no connection is waited for by the pin, inside the name
        resolution, so that the two waits do not multiply.

        :param max_retries: the author's own number; the time-out is then made to fit.
        """
        if max_retries is not None:
            retries = min(max_retries, _MAX_RETRIES)
            for backoff in range(_BACKOFF_FACTOR, -1, -1):
                waits = cls(0, retries, backoff).waits
                if waits <= seconds * _WAITING_SHARE:
                    break
            timeout = int(max(0.0, seconds - waits) / (retries + 1))
            return cls(min(_MAX_TIMEOUT, max(1, timeout)), retries, backoff)
        timeout = max(1, min(_MAX_TIMEOUT, int(max(seconds / 10, min(seconds / 4, 60)))))
        fitting = [
            settings
            for retries in range(_MAX_RETRIES + 1)
            if (settings := cls(timeout, retries)).worst_case <= seconds
        ]
        return fitting[-1] if fitting else cls(timeout, 0)


def http_settings(server: MLflowServer, *, in_run: bool = False) -> HTTPSettings:
    """What MLflow's client is to use for a call outside a run, or inside one."""
    seconds = server.deadline if in_run else server.request_timeout
    return HTTPSettings.within(seconds, server.max_retries)


def patience(server: MLflowServer, *, in_run: bool = False) -> float:
    """How long a pin may wait for an address, seconds.

    MLflow's client asks for the name again at each of its tries, and the outage counts from the
    first: what it waits between them is taken off, so that the call is over by its deadline.
    """
    seconds = server.deadline if in_run else server.request_timeout
    return max(0.0, seconds - http_settings(server, in_run=in_run).waits)


def connect_timeout(server: MLflowServer, *, in_run: bool = False) -> float:
    """How long MLflow's client waits for one connection, seconds."""
    return http_settings(server, in_run=in_run).timeout
