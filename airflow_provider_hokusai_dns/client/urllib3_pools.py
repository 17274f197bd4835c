"""Own connections in the pools of urllib3, as ``requests`` uses them."""

from __future__ import annotations

from collections.abc import Callable

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


def pool_classes(
    connection: Callable[[type[HTTPConnection]], type[HTTPConnection]],
) -> dict[str, type[HTTPConnectionPool]]:
    """For ``PoolManager.pool_classes_by_scheme``.

    :param connection: makes the class of connections from that of urllib3.
    """
    return {
        scheme: type(pool.__name__, (pool,), {"ConnectionCls": connection(base)})
        for scheme, pool, base in (
            ("http", HTTPConnectionPool, HTTPConnection),
            ("https", HTTPSConnectionPool, HTTPSConnection),
        )
    }
