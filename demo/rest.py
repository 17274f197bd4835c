"""JSON over HTTP with nothing but the standard library: the demo drives and reads by REST alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from demo.errors import DemoError, TryAgain

# A proxy of the machine must not come between processes on loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RestError(DemoError):
    """A request that failed.

    :param status: the HTTP status, or ``None`` when there was no answer at all.
    """

    def __init__(self, text: str, status: int | None) -> None:
        super().__init__(text)
        self.status = status


class NoAnswer(RestError, TryAgain):
    """The server was too busy, or is not there (yet)."""


def call(
    method: str,
    url: str,
    *,
    params: Mapping[str, Any] | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> Any:
    """Send one request and return the decoded JSON answer.

    :param timeout: seconds for connecting and for each read.
    :raises NoAnswer: there was none in time.
    :raises RestError: an answer that is not a success.
    """
    if params:
        url = f"{url}?{urllib.parse.urlencode(params, doseq=True)}"
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"}
        | dict(headers or {}),
    )
    try:
        with _OPENER.open(request, timeout=timeout) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        excerpt = error.read(400).decode(errors="replace")
        raise RestError(f"{method} {url} answered {error.code}: {excerpt}", error.code) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswer(f"{method} {url} got no answer: {reason}", None) from error
    return json.loads(content) if content else None
