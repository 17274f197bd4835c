"""What a client asks, and what it is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

    from airflow_provider_hokusai_dns.client.relay.bodies import Body
    from airflow_provider_hokusai_dns.client.relay.headers import Headers

#: As much of an answer as is read before it is passed on, so that a cut can be mended.
_HEAD = 2**20


@dataclass
class Request:
    """What a client asks for. ``body`` is whole, or still coming; ``None`` for none.

    :param path: raw, with the query.
    """

    method: str
    path: str
    headers: Headers
    body: Body | bytes | None = None
    length: int | None = None


@dataclass
class Answer:
    """What the client gets.

    :param head: the body, or its beginning where ``rest`` is there.
    """

    status: int
    headers: Headers
    head: bytes = b""
    rest: aiohttp.ClientResponse | None = None

    @property
    def document(self) -> Mapping[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            document = json.loads(self.head)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}


async def begun(response: aiohttp.ClientResponse) -> Answer:
    """An answer with its beginning read; the whole of it where it is short."""
    head = bytearray()
    headers = [(name, value) for name, value in response.headers.items()]
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
    """Let go of an answer that is not read to its end."""
    if answer is not None and answer.rest is not None:
        answer.rest.close()
