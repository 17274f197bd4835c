"""A proxy in front of MLflow: counts requests, and answers them itself while MLflow is down.

A load balancer without a healthy target answers 503, and so does this one. Airflow's HttpSensor is
told 404 instead: its trigger pauses after that answer only, and after any other it asks again at
once, as fast as it can.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from demo import relay
from fleet.names import HTTP_SENSOR

#: The first request of each check of a gate, which makes it one probe.
PROBE = "/health"
_HEAD = 65536


class Front:
    """A counting front on one address.

    :param target: where MLflow is.
    """

    def __init__(self, address: str, port: int, target: tuple[str, int]) -> None:
        self._place = (address, port)
        self._target = target
        self._up = True
        self._asked: list[tuple[float, str]] = []

    def start(self) -> None:
        """Listen, on threads that end with this process."""
        listener = socket.create_server(self._place, backlog=512)
        threading.Thread(target=self._accept, args=(listener,), name="front", daemon=True).start()

    def away(self) -> None:
        """From now on MLflow is not there."""
        self._up = False

    def back(self) -> None:
        """From now on it is there again."""
        self._up = True

    def count(self, path: str, since: float) -> int:
        """Return how often this was asked for since then (monotonic)."""
        return sum(at >= since and asked == path for at, asked in list(self._asked))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            client.settimeout(10)
            head = _read_head(client)
            path = head.split(b" ", 2)[1].decode()
            self._asked.append((time.monotonic(), path))
            if self._up:
                client.settimeout(None)
                relay.pass_on(client, self._target, head)
                return
            status = b"404 Not Found" if path == HTTP_SENSOR else b"503 Service Unavailable"
            client.sendall(
                b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )


def _read_head(client: socket.socket) -> bytes:
    """Read a request up to the empty line, and what came with it.

    :raises ValueError: that was no request.
    """
    head = b""
    while b"\r\n\r\n" not in head:
        data = client.recv(4096)
        if not data or len(head) > _HEAD:
            raise ValueError("no request")
        head += data
    return head
