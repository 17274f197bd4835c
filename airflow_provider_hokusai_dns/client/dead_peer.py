"""A server that is gone without a word: its host, or the network to it, acknowledges nothing more.

The kernel goes on sending for a quarter of an hour. These options end a connection sooner, also one
that was kept and on which an answer is awaited. A server that is slow acknowledges, and is waited
for.
"""

from __future__ import annotations

import socket

_SECONDS = 20


def socket_options() -> list[tuple[int, int, int]]:
    """For ``setsockopt`` of a TCP socket; those that the system has."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_KEEPIDLE", _SECONDS // 2),
        ("TCP_KEEPINTVL", _SECONDS // 4),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", _SECONDS * 1000),
    ):
        if (number := getattr(socket, name, None)) is not None:
            options.append((socket.IPPROTO_TCP, number, value))
    return options
