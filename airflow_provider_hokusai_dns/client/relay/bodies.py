"""Request bodies that are stored while they are forwarded, so that they can be sent again.

A client's data is forwarded at once and also stored: in memory up to 256 KiB, which is enough for
every call but artifacts, then in an unnamed temporary file. All files of a relay share one budget.
If that is used up, or the disk is full, a body is sent once and not stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp

_log = logging.getLogger(__name__)

_IN_MEMORY = 256 * 1024
_PIECE = 256 * 1024


class ClientGoneError(ConnectionError):
    """The client disconnected before it had sent its whole request."""


class Budget:
    """The maximum total size of all temporary files, in bytes. Used by one thread."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, count: int) -> bool:
        """Reserve bytes, if enough are left."""
        if self.used + count > self.limit:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """Give bytes back."""
        self.used -= count


class Body:
    """One body of a client. A context manager: stored data is deleted at its end.

    :param name: the name of the call, for the log.
    :param hashed: whether :attr:`digest` is needed: it costs a second per gigabyte.
    """

    def __init__(
        self, source: aiohttp.StreamReader, budget: Budget, name: str, *, hashed: bool
    ) -> None:
        #: Called when more of it has come than ever before.
        self.on_progress: Callable[[], None] = lambda: None
        self.received = 0
        self.is_complete = False
        self.client_is_gone = False
        #: Whether a sending waits, or ended while it waited, for the client and not for MLflow.
        self.is_waiting = False
        #: Of all that has come, also where it is not stored.
        self.digest = hashlib.blake2b(digest_size=16)
        self._hashed = hashed
        self._source = source
        self._budget = budget
        self._name = name
        self._kept: io.BytesIO | io.FileIO | None = io.BytesIO()
        self._in_file = 0
        self._pulling = asyncio.Lock()

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._forget()

    @property
    def can_send_again(self) -> bool:
        """Whether everything received so far is still stored."""
        return self._kept is not None or self.received == 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body from its beginning, while it is still being received.

        :raises ClientGoneError: the client disconnected in the middle.
        """
        at = 0
        self.is_waiting = False
        while True:
            piece = self._kept_at(at)
            if not piece:
                async with self._pulling:  # an earlier sending may still hold the source
                    piece = self._kept_at(at)
                    if not piece and not self.is_complete:
                        piece = await self._pull()
            if not piece:
                return
            at += len(piece)
            yield piece

    def kept_beginning(self, limit: int) -> bytes:
        """The stored data received so far, up to ``limit`` bytes."""
        if self._kept is None:
            return b""
        self._kept.seek(0)
        return self._kept.read(limit)

    async def whole(self, limit: int) -> bytes | None:
        """The whole body; ``None`` when it is longer than ``limit``."""
        parts = bytearray()
        async for piece in self.pieces():
            parts += piece
            if len(parts) > limit:
                return None
        return bytes(parts)

    async def _pull(self) -> bytes:
        self.is_waiting = True
        try:
            piece = await self._source.readany()
        except (OSError, ValueError, RuntimeError) as error:
            # aiohttp's own errors of a request that broke off are all of these.
            self.client_is_gone = True
            raise ClientGoneError(f"the client hung up: {type(error).__name__}") from error
        self.is_waiting = False
        if not piece:
            self.is_complete = True
            return b""
        self.received += len(piece)
        if self._hashed:
            self.digest.update(piece)
        self._keep(piece)
        self.on_progress()
        return piece

    def _keep(self, piece: bytes) -> None:
        if self._kept is None:
            return
        try:
            if isinstance(self._kept, io.BytesIO) and self.received > _IN_MEMORY:
                if not self._take(self.received - len(piece)):
                    return
                memory = self._kept
                # Without a buffer: a full disk is met in the write, and nowhere else.
                self._kept = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                _write_all(self._kept, memory.getbuffer())
            if isinstance(self._kept, io.BytesIO) or self._take(len(piece)):
                self._kept.seek(0, os.SEEK_END)
                _write_all(self._kept, piece)
        except OSError as error:
            self._let_go(f"{tempfile.gettempdir()}: {error.strerror}")

    def _take(self, count: int) -> bool:
        if not self._budget.take(count):
            self._let_go(f"the files of all bodies: {self._budget.limit >> 20} MiB, relay_keep")
            return False
        self._in_file += count
        return True

    def _kept_at(self, at: int) -> bytes:
        if self._kept is None or at >= self.received:
            return b""
        self._kept.seek(at)
        return self._kept.read(_PIECE)

    def _let_go(self, why: str) -> None:
        self._forget()
        _log.warning(
            "%s: %d bytes so far are more than can be kept (%s). It is sent once: if MLflow goes "
            "away before it has arrived, the client gets an error.",
            self._name,
            self.received,
            why,
        )

    def _forget(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
            self._budget.give_back(self._in_file)
            self._in_file = 0


def _write_all(file: io.BytesIO | io.FileIO, content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) or 0 :]
