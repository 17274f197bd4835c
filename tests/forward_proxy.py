"""A forward proxy, as a network has one that lets nothing out past it."""

from __future__ import annotations

import http.client
import select
import socket
from urllib.parse import urlsplit

from tests.servers import Handler, HTTPThread


class ForwardProxy(HTTPThread):
    """Forwards requests with a whole URL, and opens tunnels; it resolves names itself.

    :param names: the addresses that it knows. For any other name it answers :attr:`refusal`.
    :param login: the ``Proxy-Authorization`` that it wants; without it, it answers 407.
    """

    def __init__(self, names: dict[str, str], *, host: str, login: str | None = None) -> None:
        self.refusal = 502
        #: Method, and the URL or the host and port that were asked for.
        self.asked: list[tuple[str, str]] = []
        proxy = self

        class Forwarding(Handler):
            def forward(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if (address := self._address(parts.hostname or "")) is None:
                    return
                behind = http.client.HTTPConnection(address, parts.port or 80, timeout=60)
                try:
                    path = parts._replace(scheme="", netloc="").geturl()
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                    behind.request(self.command, path, body, headers)
                    answer = behind.getresponse()
                    data = answer.read()
                except OSError:
                    return self._refuse(502)
                finally:
                    behind.close()
                self.pass_on(answer, data)

            def do_CONNECT(self) -> None:
                name, _, port = self.path.rpartition(":")
                if (address := self._address(name)) is None:
                    return
                try:
                    behind = socket.create_connection((address, int(port)), timeout=10)
                except OSError:
                    return self._refuse(502)
                self.send_response(200)
                self.end_headers()
                self.wfile.flush()
                self.close_connection = True
                with behind:
                    _pass_on(self.connection, behind)

            def _address(self, name: str) -> str | None:
                proxy.asked.append((self.command, self.path))
                if login is not None and self.headers.get("Proxy-Authorization") != login:
                    self._refuse(407)
                    return None
                if name not in proxy.names:
                    self._refuse(proxy.refusal)
                return proxy.names.get(name)

            def _refuse(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = forward

        super().__init__(Forwarding, host)
        self.names = names


_HOP = (
    "connection", "content-length", "keep-alive", "proxy-authorization", "proxy-connection",
    "transfer-encoding",
)  # fmt: skip


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes on in both directions until one end has none left."""
    while True:
        for source in select.select([one, other], [], [], 60)[0] or [None]:
            try:
                data = b"" if source is None else source.recv(65536)
            except OSError:
                return
            if not data:
                return
            (other if source is one else one).sendall(data)
