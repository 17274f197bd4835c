"""A client's request, and the answer to it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.client.creates import json_object

if TYPE_CHECKING:
    import aiohttp

    from airflow_provider_hokusai_dns.client.relay.bodies import Body
    from airflow_provider_hokusai_dns.client.relay.headers import Headers

#: As much of an answer as is read before it is passed on, so that a cut can be mended.
_HEAD = 2**20


@dataclass
class Request:
    """A client's request. ``body`` is complete or still being received; ``None`` for none.

    :param path: raw, with the query.
    :param waiting_since: when it came, or when it got further for the last time; monotonic.
    """

    method: str
    path: str
    headers: Headers
    body: Body | bytes | None = None
    length: int | None = None
    waiting_since: float = field(default_factory=time.monotonic)


@dataclass
class Answer:
    """The answer to a client.

    :param head: the body, or its beginning if there is a ``rest``.
    """

    status: int
    headers: Headers
    head: bytes = b""
    rest: aiohttp.ClientResponse | None = None

    @property
    def document(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty if it is not one."""
        return json_object(self.head)


async def begun(response: aiohttp.ClientResponse) -> Answer:
    """An answer with its beginning read, or all of it if it is short."""
    head = bytearray()
    headers = list(response.headers.items())
    if response.content_type != "text/event-stream":
        while len(head) <= _HEAD:
            piece = await response.content.readany()
            if not piece:
                response.release()
                return Answer(response.status, headers, bytes(head))
            head += piece
    return Answer(response.status, headers, bytes(head), response)


def an_error(status: int, code: str, message: str) -> Answer:
    """An error in MLflow's own form, which its clients show."""
    content = json.dumps({"error_code": code, "message": message}).encode()
    return Answer(status, [("Content-Type", "application/json")], content)


def release(answer: Answer | None) -> None:
    """Release an answer that is not read to its end."""
    if answer is not None and answer.rest is not None:
        answer.rest.close()
