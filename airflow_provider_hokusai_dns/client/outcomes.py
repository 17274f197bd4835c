"""The outcome of a try by ``requests``, for the decision on sending it again."""

from __future__ import annotations

import time

import requests
from requests.exceptions import ChunkedEncodingError, ConnectionError, ConnectTimeout, ReadTimeout
from urllib3.exceptions import MaxRetryError, NewConnectionError

from airflow_provider_hokusai_dns.client.retries import NoAnswer, Try, retry_after

#: Statuses whose body says whether the request may be taken later. A body of another status may be
#: a download, which its caller reads.
EXPLAINED = frozenset({400, 500, 503})
_REFUSED_TUNNEL = "Tunnel connection failed: 4"


def try_of(outcome: requests.Response | Exception) -> Try:
    """What is known of a try from its answer or its error."""
    if not isinstance(outcome, requests.Response):
        return Try(failure=_failure_of(outcome))
    status = outcome.status_code
    return Try(
        status,
        retry_after=retry_after(outcome.headers, time.time()),
        body=outcome.content if status in EXPLAINED else b"",
    )


def _failure_of(error: Exception) -> NoAnswer:
    if isinstance(error, ConnectTimeout):
        return NoAnswer.NOT_SENT
    if isinstance(error, requests.exceptions.SSLError):
        # A server that stops in the middle of the handshake; all else is how things are set up.
        return NoAnswer.NOT_SENT if "EOF" in repr(error) else NoAnswer.FINAL
    if isinstance(error, requests.exceptions.ProxyError):
        # A 4xx to CONNECT is the proxy's last word: a login, or a host that it does not allow.
        return NoAnswer.FINAL if _REFUSED_TUNNEL in str(error) else NoAnswer.NOT_SENT
    if isinstance(error, ConnectionError):
        inner = error.args[0] if error.args else None
        reason = inner.reason if isinstance(inner, MaxRetryError) else inner
        return NoAnswer.NOT_SENT if isinstance(reason, NewConnectionError) else NoAnswer.CUT
    if isinstance(error, ReadTimeout | ChunkedEncodingError):
        return NoAnswer.CUT
    return NoAnswer.FINAL
