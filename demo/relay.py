"""A door from the machine into the demo's private network, for a browser.

The listening sockets are opened outside, before the namespaces are made, and inherited: a socket
stays in the network it was born in. What they accept is passed on to the address inside.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

_CHUNK = 65536


def open_door(wanted: int) -> socket.socket:
    """Listen on this port of 127.0.0.1, or on a free one where it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", wanted))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.set_inheritable(True)
    return listener


def serve(listener: socket.socket, target: Callable[[], tuple[str, int]]) -> None:
    """Pass every connection on to the target, on threads that end with the process.

    :param target: asked for each connection: what is behind the door may move.
    """

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=pass_on, args=(client, target()), daemon=True).start()

    threading.Thread(target=accept, name="relay", daemon=True).start()


def pass_on(client: socket.socket, target: tuple[str, int], already: bytes = b"") -> None:
    """Pass one connection on, until both sides have ended it.

    :param already: what has been read from the client.
    """
    with client:
        try:
            server = socket.create_connection(target, timeout=10)
        except OSError:
            return
        with server:
            server.settimeout(None)
            with contextlib.suppress(OSError):
                server.sendall(already)
            answers = threading.Thread(target=_copy, args=(server, client), daemon=True)
            answers.start()
            _copy(client, server)
            answers.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
