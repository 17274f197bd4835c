"""The login of a relay's connection, which is read again when MLflow answers 401."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer

#: A login that was read, and is the one that was refused, is not read again for so long, seconds.
_IS_CURRENT = 30.0


class Login:
    """The login that requests to MLflow have now. Used on one event loop.

    :param renew: reads the login of the connection again; called on a thread.
    """

    def __init__(self, server: MLflowServer, renew: Callable[[], Credentials | None]) -> None:
        #: The server with that login.
        self.server = server
        self._renew = renew
        self._reading: asyncio.Task[None] | None = None
        self._is_current_until = 0.0

    async def differs_from(self, used: Credentials, left: float) -> bool:
        """Whether the connection has another login than the one used; it is used from now on.

        One reading serves all calls, and is not repeated at once where it found the same login.

        :param left: seconds to wait for it at most.
        """
        if self.server.credentials == used:
            if self._reading is None and time.monotonic() >= self._is_current_until:
                self._reading = asyncio.create_task(self._read(used))
            if self._reading is not None:
                await asyncio.wait({self._reading}, timeout=max(0.0, left))
        return self.server.credentials != used

    async def _read(self, used: Credentials) -> None:
        try:
            login = await asyncio.to_thread(self._renew)
            if login is None or login == used:
                self._is_current_until = time.monotonic() + _IS_CURRENT
            else:
                self.server = replace(self.server, credentials=login)
        finally:
            self._reading = None
