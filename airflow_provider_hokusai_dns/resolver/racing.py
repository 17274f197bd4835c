"""Test addresses by short TCP connects with staggered starts (RFC 8305)."""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_hokusai_dns.resolver.model import Endpoint
from airflow_provider_hokusai_dns.resolver.system_answers import numeric

#: Seconds within which an address must accept the connection (policy rule 13).
CONNECT_TIMEOUT = 1.0
#: Seconds between two starts. RFC 8305 section 5 advises 250 ms, and 100 ms at least.
CONNECTION_ATTEMPT_DELAY = 0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a race.

    :param winners: the address that accepted a connection, if one did. Attempts in progress then
        are in neither list.
    :param losers: addresses that refused, or did not accept one in time.
    :param silent: the losers that sent no packet at all.
    """

    winners: tuple[str, ...]
    losers: tuple[str, ...]
    silent: frozenset[str] = frozenset()


def dial(address: str, port: int, timeout: float) -> socket.socket:
    """Connect to a literal address, bypassing every pin: the caller has its own deadline.

    :param timeout: seconds.
    :raises OSError: no connection within the time.
    """
    connection, where = _socket_for(address, port)
    try:
        connection.settimeout(timeout)
        connection.connect(where)
    except BaseException:
        connection.close()
        raise
    return connection


def race(addresses: Sequence[str], port: int, timeout: float = CONNECT_TIMEOUT) -> Trial:
    """Connect to several addresses until one accepts, and close the connection.

    :param addresses: with its port if one has its own, as in :attr:`.Resolution.places`.
    :param timeout: seconds for each of them.
    """
    waiting = list(addresses)
    losers: list[str] = []
    silent: set[str] = set()
    next_start = time.monotonic()
    with selectors.DefaultSelector() as selector:
        open_ = selector.get_map()
        try:
            while waiting or open_:
                now = time.monotonic()
                if waiting and (now >= next_start or not open_):
                    address = waiting.pop(0)
                    connection = _start(address, port)
                    if connection is None:
                        losers.append(address)
                        continue
                    attempt = connection, address, now + timeout
                    selector.register(connection, selectors.EVENT_WRITE, attempt)
                    next_start = now + CONNECTION_ATTEMPT_DELAY
                first_end = min(key.data[2] for key in open_.values())
                until = min(first_end, next_start) if waiting else first_end
                for key, _ in selector.select(max(0.0, until - time.monotonic())):
                    connection, address, _ = key.data
                    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        return Trial((address,), tuple(losers), frozenset(silent))
                    losers.append(address)
                    _close(selector, connection)
                    next_start = time.monotonic()  # a quick refusal: the next one need not wait
                now = time.monotonic()
                for connection, address, end in [key.data for key in open_.values()]:
                    if now >= end:
                        losers.append(address)
                        silent.add(address)
                        _close(selector, connection)
            return Trial((), tuple(losers), frozenset(silent))
        finally:
            for connection, *_ in [key.data for key in open_.values()]:
                _close(selector, connection)


def _socket_for(address: str, port: int) -> tuple[socket.socket, Any]:
    """A new socket, and what it is to be connected to."""
    place = Endpoint.parse(address)
    [found, *_] = numeric(place.address, place.port or port, type=socket.SOCK_STREAM)
    return socket.socket(found[0], socket.SOCK_STREAM), found[4]


def _start(address: str, port: int) -> socket.socket | None:
    try:
        connection, where = _socket_for(address, port)
    except OSError:
        return None
    connection.setblocking(False)
    code = connection.connect_ex(where)
    if code in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        return connection
    connection.close()
    return None


def _close(selector: selectors.BaseSelector, connection: socket.socket) -> None:
    selector.unregister(connection)
    connection.close()
