"""A client's request, and the answer to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.client.creates import json_object
from airflow_provider_hokusai_dns.client.relay.bodies import Body, ClientGoneError
from airflow_provider_hokusai_dns.client.relay.headers import WORKSPACE, Headers

if TYPE_CHECKING:
    import aiohttp

#: The longest body of a create.
LONGEST_CREATE = 8 * 2**20
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

    @property
    def workspace(self) -> str:
        """The workspace that a client names; the connection's takes precedence. Empty for none."""
        return next((value for name, value in self.headers if name.lower() == WORKSPACE), "")

    @property
    def incoming(self) -> Body | None:
        """The body, if it comes from a client."""
        return self.body if isinstance(self.body, Body) else None

    @property
    def can_send_again(self) -> bool:
        """Whether all of the body that has come so far is still there."""
        return self.incoming is None or self.incoming.can_send_again

    def content(self) -> bytes | AsyncIterator[bytes] | None:
        """The body to send: as it comes in, if it comes from a client."""
        return self.body.pieces() if isinstance(self.body, Body) else self.body

    def text(self) -> str:
        """The body as far as it is there, at most as long as that of a create."""
        body = self.body
        if isinstance(body, Body):
            body = body.kept_beginning(LONGEST_CREATE)
        return (body or b"").decode("utf-8", "replace")

    async def whole(self, seconds: float) -> bytes | None:
        """The whole body; ``None`` where it is longer than that of a create.

        :raises ClientGoneError: the client hung up, or sends nothing more.
        """
        if not isinstance(self.body, Body):
            return self.body or b""
        try:
            async with asyncio.timeout(seconds):
                return await self.body.whole(LONGEST_CREATE)
        except TimeoutError as error:
            raise ClientGoneError("the client sends nothing more") from error


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


def in_json(status: int, document: Mapping[str, Any]) -> Answer:
    """An answer of the relay's own."""
    return Answer(status, [("Content-Type", "application/json")], json.dumps(document).encode())


def an_error(status: int, code: str, message: str) -> Answer:
    """An error in MLflow's own form, which its clients show."""
    return in_json(status, {"error_code": code, "message": message})


def release(answer: Answer | None) -> None:
    """Release an answer that is not read to its end."""
    if answer is not None and answer.rest is not None:
        answer.rest.close()
