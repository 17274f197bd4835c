"""Socket options that end a connection to a server which acknowledges nothing any more.

Its host is gone, or the network to it, and the kernel goes on sending for a quarter of an hour.
These options end a connection sooner, also one that was kept and on which an answer is awaited.
TCP_USER_TIMEOUT does not tell a dead host from one that is alive and has no room for more bytes, as
an MLflow server does while all its workers are busy. So it is used for requests that fit into an
empty receive buffer, whatever the server does; a longer one is limited by the deadline.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from urllib3.connection import HTTPConnection

#: Seconds until the kernel has found that an idle peer is gone.
_SECONDS = 20
#: Seconds for which sent bytes may stay unacknowledged.
_UNACKNOWLEDGED = 20
#: The longest body that any server's kernel takes on its own, with the headers, bytes.
_FITS = 32 * 1024


def socket_options(headers: Mapping[str, str]) -> list[tuple[int, int, int]]:
    """For ``setsockopt`` of a TCP socket.

    :param headers: of the request to send; they tell how long its body is, if that is known.
    """
    given = {name.lower(): value for name, value in headers.items()}
    fits = "transfer-encoding" not in given and int(given.get("content-length", 0)) <= _FITS
    return [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SECONDS // 2),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SECONDS // 4),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED * 1000 if fits else 0),
    ]


def with_dead_peer_detection(base: type[HTTPConnection]) -> type[HTTPConnection]:
    """urllib3's class of connections, with these options for each request."""

    class DeadPeerDetection(base):  # type: ignore[misc,valid-type]
        def request(
            self, *args: Any, headers: Mapping[str, str] | None = None, **kwargs: Any
        ) -> None:
            options = socket_options(headers or {})
            self.socket_options = [*HTTPConnection.default_socket_options, *options]
            if self.sock is not None:  # one that was kept
                for option in options:
                    self.sock.setsockopt(*option)
            super().request(*args, headers=headers, **kwargs)

    return DeadPeerDetection
