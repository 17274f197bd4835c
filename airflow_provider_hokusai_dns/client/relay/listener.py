"""The port on loopback: access control, and forwarding."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import logging
import re
import socket
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from airflow_provider_hokusai_dns.client.relay.bodies import Body, Budget, ClientGoneError
from airflow_provider_hokusai_dns.client.relay.connections import Connections
from airflow_provider_hokusai_dns.client.relay.forwarding import Forwarder
from airflow_provider_hokusai_dns.client.relay.headers import to_client
from airflow_provider_hokusai_dns.client.relay.messages import Answer, Request

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.config.server import MLflowServer

_log = logging.getLogger(__name__)
_http_log = _log.getChild("http")

HOST = "127.0.0.1"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Bytes of the first line, headers of a request, and bytes of each. MLflow's client puts a search
#: for model versions into the URL.
_LINE, _HEADERS, _HEADER = 64 * 1024, 64, 8 * 1024
#: The relay never closes an idle connection: its client would take that for an error. Seconds.
_KEEP_IDLE = 7 * 24 * 3600.0
_DOTS = re.compile(r"(?:^|[/\\])\.\.?(?:[/\\]|$)")
#: Waits for the rest of a request that was answered early, seconds.
_LINGER = 10.0


class Listener:
    """The HTTP server of a relay. Used on one event loop.

    :param token: the token that a client must send.
    """

    def __init__(
        self, server: MLflowServer, forwarder: Forwarder, token: str, budget: Budget
    ) -> None:
        self._has_refused = False
        self._server = server
        self._forwarder = forwarder
        self._token = token.encode()
        self._budget = budget
        self._under_way: dict[asyncio.Task[object], Request] = {}
        self._web = Connections(
            self._handle,
            logger=_http_log,
            max_line_size=_LINE,
            max_headers=_HEADERS,
            max_field_size=_HEADER,
            keepalive_timeout=_KEEP_IDLE,
            lingering_time=_LINGER,
            auto_decompress=False,
            read_bufsize=2**18,
            access_log=None,
        )
        #: Of all connections of clients.
        self.transports = self._web.transports

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        loop = asyncio.get_running_loop()
        self.socket = socket.create_server((HOST, 0), backlog=512)
        self._listening = await loop.create_server(self._web.accepted, sock=self.socket)
        self.port = int(self.socket.getsockname()[1])
        self.uri = f"http://{HOST}:{self.port}"

    async def drain(self, seconds: float, *, only_while_stuck: bool = False) -> float:
        """Take no new connection, and wait for the calls under way.

        :param only_while_stuck: restart the count whenever one of them makes progress.
        :return: since when the seconds were counted in the end; monotonic.
        """
        self._listening.close()
        since, calls = time.monotonic(), dict(self._under_way)
        while calls and (left := since + seconds - time.monotonic()) > 0:
            await asyncio.wait(calls, timeout=left)
            if only_while_stuck:
                since = max(since, *(call.waiting_since for call in calls.values()))
            calls = {task: call for task, call in calls.items() if not task.done()}
        return since

    def under_way(self, end_of_path: str) -> set[asyncio.Task[object]]:
        """The calls under way whose path, without the query, ends so."""
        return {
            task
            for task, call in self._under_way.items()
            if call.path.partition("?")[0].endswith(end_of_path)
        }

    async def close(self) -> None:
        """Close all connections; calls that are still under way are cancelled."""
        self._listening.close()
        for call in self._under_way:
            call.cancel()
        await self._web.shutdown(0.5)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._is_allowed(request.headers.get("Authorization", "")):
            if not self._has_refused:
                self._has_refused = True
                _log.warning("A request without the token of this relay was refused.")
            return _error(401, "this relay is for the processes of one Airflow task: its token "
                          "is missing or wrong", "PERMISSION_DENIED")  # fmt: skip
        self._web.no_longer_stranger(request.protocol)
        path = request.raw_path
        if request.method not in _METHODS or not _is_plain(path):
            return _error(400, "this relay takes paths of MLflow only", "BAD_REQUEST")
        task = asyncio.current_task()
        assert task is not None
        headers = list(request.headers.items())
        asked = Request(request.method, path, headers, length=request.content_length)
        self._under_way[task] = asked
        try:
            return await self._forward(request, asked)
        except ClientGoneError:
            request.protocol.force_close()
            return web.Response(status=400)  # to a closed port
        finally:
            del self._under_way[task]

    async def _forward(self, request: web.BaseRequest, asked: Request) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0

        def is_wanted() -> bool:
            """Whether the client is still there."""
            return request.transport is not None and not request.transport.is_closing()

        with contextlib.ExitStack() as stack:
            if request.body_exists:
                shown = f"{asked.method} {asked.path.partition('?')[0]}"
                hashed = request.method != "PUT"  # an uploaded file is known by its path
                body = Body(request.content, self._budget, shown, hashed=hashed)
                asked.body = stack.enter_context(body)
            answer = await self._forwarder.answer(asked, is_wanted)
            return await self._pass_on(request, asked, answer)

    async def _pass_on(
        self, request: web.BaseRequest, asked: Request, answer: Answer
    ) -> web.StreamResponse:
        headers = CIMultiDict(to_client(answer.headers, self._server, self.uri))
        if answer.rest is None and request.method != "HEAD":
            headers.pop("Content-Length", None)
            return web.Response(status=answer.status, headers=headers, body=answer.head)
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        if answer.rest is not None:
            try:
                await response.write(answer.head)
                async for piece in _pieces(answer.rest, self._server.deadline):
                    await response.write(piece)
                    asked.waiting_since = time.monotonic()
            except (aiohttp.ClientError, OSError):
                # Half an answer must not look like a whole one.
                _log.error("%s %s: the answer broke off.", request.method, request.path)
                _cut(request)
                raise
            finally:
                answer.rest.close()
        await response.write_eof()
        return response

    def _is_allowed(self, authorization: str) -> bool:
        """Whether a header contains the token: as a bearer token, or as any user's password."""
        kind, _, value = authorization.partition(" ")
        given = b""
        if kind.lower() == "bearer":
            given = value.strip().encode("utf-8", "surrogateescape")
        elif kind.lower() == "basic":
            with contextlib.suppress(ValueError):
                given = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        return hmac.compare_digest(given, self._token)


async def _pieces(response: aiohttp.ClientResponse, deadline: float) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(max(5.0, deadline)):
            piece = await response.content.readany()
        if not piece:
            return
        yield piece


def _cut(request: web.BaseRequest) -> None:
    """Close a connection so that the client notices, even if a forked child has the socket open."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        request.transport.abort()


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether to log a line: for data that is not HTTP, aiohttp logs a traceback that quotes it."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_http_log.addFilter(_is_worth_a_line)


def _is_plain(path: str) -> bool:
    """Whether this is a path under the server's prefix: no other host, no way out of the prefix."""
    if not path.startswith("/") or path.startswith("//") or "#" in path or not path.isascii():
        return False
    return not _DOTS.search(unquote(path.partition("?")[0]))


def _error(status: int, message: str, code: str) -> web.Response:
    response = web.json_response({"error_code": code, "message": message}, status=status)
    response.force_close()
    return response
