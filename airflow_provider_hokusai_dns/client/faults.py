"""Why an attempt to send a request failed, and whether to send it again. Pure functions."""

from __future__ import annotations

from enum import Enum

import requests
from requests.exceptions import ChunkedEncodingError, ConnectionError, ConnectTimeout, ReadTimeout
from urllib3.exceptions import MaxRetryError, NewConnectionError

from airflow_provider_hokusai_dns.client.routes import PATIENCE_WITH_500, is_full_pool

_MAX_PAUSE = 10.0
_REFUSED_TUNNEL = "Tunnel connection failed: 4"


class Fault(Enum):
    """Why an attempt failed."""

    NOT_SENT = "there was no connection, or the server did not accept the request"
    UNSURE = "there was no complete answer"
    AWAY = "the server reported that it is unavailable"
    BUSY = "the server reported that it could not do it now"


def pause_before_next(
    fault: Fault, attempt: int, *, elapsed: float, patience: float, may_repeat: bool, jitter: float
) -> float | None:
    """Seconds to wait before a request is sent again; ``None`` to give up.

    :param attempt: how often it has been sent, from 1.
    :param elapsed: seconds since the call began.
    :param patience: seconds for which it may wait.
    :param may_repeat: whether nothing can happen twice.
    :param jitter: a random number from 0 to 1.
    """
    if fault is Fault.BUSY:
        patience = min(patience, PATIENCE_WITH_500)
    left = patience - elapsed
    if left <= 0 or not (may_repeat or fault is Fault.NOT_SENT):
        return None
    pause = min(_MAX_PAUSE, 0.25 * 2.0**attempt)
    return min(left, pause * (0.5 + jitter / 2))


def fault_of(outcome: requests.Response | Exception) -> Fault | None:
    """The kind of a failure; ``None`` if another attempt would not help."""
    if isinstance(outcome, requests.Response):
        status = outcome.status_code
        if status in (502, 503, 504):
            return Fault.AWAY
        if status in (408, 429):  # MLflow 3.18 repeats these for every call
            return Fault.NOT_SENT
        is_busy = status == 500 or (status == 400 and is_full_pool(outcome.content))
        return Fault.BUSY if is_busy else None
    if isinstance(outcome, ConnectTimeout):
        return Fault.NOT_SENT
    if isinstance(outcome, requests.exceptions.SSLError):
        # A server that stops in the middle of the handshake; all else is how things are set up.
        return Fault.NOT_SENT if "EOF" in repr(outcome) else None
    if isinstance(outcome, requests.exceptions.ProxyError):
        # A 4xx to CONNECT is the proxy's last word: a login, or a host that it does not allow.
        return None if _REFUSED_TUNNEL in str(outcome) else Fault.NOT_SENT
    if isinstance(outcome, ConnectionError):
        inner = outcome.args[0] if outcome.args else None
        reason = inner.reason if isinstance(inner, MaxRetryError) else inner
        return Fault.NOT_SENT if isinstance(reason, NewConnectionError) else Fault.UNSURE
    if isinstance(outcome, ReadTimeout | ChunkedEncodingError):
        return Fault.UNSURE
    return None
