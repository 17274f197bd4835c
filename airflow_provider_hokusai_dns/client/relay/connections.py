"""The connections of a relay's clients, and the limits for those that are strangers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from aiohttp import web

#: Connections at the same time; what comes beyond is closed at once.
_CONNECTIONS = 1024
#: Those of them that have not shown the token yet. One more, and the oldest of them is closed: so
#: another user of the machine can neither keep the clients out nor fill the memory.
_STRANGERS = 256
#: Bytes that all of them may have sent. More, and the one that has sent most is closed.
_SENT_BY_STRANGERS = 32 * 2**20
#: Seconds in which a new connection has to bring a request with the token.
_FIRST_REQUEST = 30.0


@dataclass
class _Stranger:
    """A connection that has not shown the token yet."""

    limit: asyncio.TimerHandle
    sent: int = 0


class Connections(web.Server):
    """aiohttp's server, which counts what strangers have opened and sent."""

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, **options)
        self._options = options
        self.transports: WeakSet[asyncio.Transport] = WeakSet()
        self._strangers: dict[web.RequestHandler, _Stranger] = {}
        self._sent_by_strangers = 0

    def accepted(self) -> asyncio.BaseProtocol:
        """What handles a new connection."""
        return self() if len(self.connections) < _CONNECTIONS else _Refusal()

    def __call__(self) -> web.RequestHandler:
        """A connection of ours, as aiohttp asks for one of its own."""
        return _Connection(self, self._options)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """A connection is open: of a stranger, until it has shown the token."""
        super().connection_made(handler, transport)
        self.transports.add(transport)
        loop = asyncio.get_running_loop()
        limit = loop.call_later(_FIRST_REQUEST, self._close, handler)
        self._strangers[handler] = _Stranger(limit)
        if len(self._strangers) > _STRANGERS:
            self._close(next(iter(self._strangers)))

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """A connection is closed."""
        super().connection_lost(handler, exc)
        self.no_longer_stranger(handler)

    def note_sent(self, connection: web.RequestHandler, count: int) -> None:
        """Count bytes, if they are a stranger's."""
        if (stranger := self._strangers.get(connection)) is None:
            return
        stranger.sent += count
        self._sent_by_strangers += count
        if self._sent_by_strangers > _SENT_BY_STRANGERS:
            self._close(max(self._strangers, key=lambda each: self._strangers[each].sent))

    def no_longer_stranger(self, connection: web.RequestHandler) -> None:
        """It has shown the token, or is closed."""
        if (stranger := self._strangers.pop(connection, None)) is not None:
            stranger.limit.cancel()
            self._sent_by_strangers -= stranger.sent

    def _close(self, stranger: web.RequestHandler) -> None:
        self.no_longer_stranger(stranger)
        stranger.force_close()


class _Connection(web.RequestHandler):
    """aiohttp's connection, which tells what comes."""

    def __init__(self, connections: Connections, options: dict[str, Any]) -> None:
        super().__init__(connections, loop=asyncio.get_running_loop(), **options)
        self._connections = connections

    def data_received(self, data: bytes) -> None:
        self._connections.note_sent(self, len(data))
        super().data_received(data)


class _Refusal(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
