"""Own connections in the pools of urllib3, as ``requests`` uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class OwnConnections(HTTPAdapter):
    """Sends a request once, on a connection of our own class; to a proxy too.

    :param connection: makes that class from the one of urllib3.
    :param pools: as of :class:`requests.adapters.HTTPAdapter`.
    """

    def __init__(
        self, connection: Callable[[type[HTTPConnection]], type[HTTPConnection]], **pools: Any
    ) -> None:
        super().__init__(max_retries=0, **pools)
        self._pool_classes = {
            scheme: type(pool.__name__, (pool,), {"ConnectionCls": connection(base)})
            for scheme, pool, base in (
                ("http", HTTPConnectionPool, HTTPConnection),
                ("https", HTTPSConnectionPool, HTTPSConnection),
            )
        }
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The pools of connections to a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pool_classes
        return manager
