"""A proxy in front of a server that writes down what it was asked, and can be slow or at fault."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.servers import Handler, HTTPThread


class Request(NamedTuple):
    """One request that arrived, and when (monotonic seconds)."""

    at: float
    method: str
    path: str

    @property
    def is_variable(self) -> bool:
        """Whether it is for a Variable."""
        return "/variables/" in self.path


class CountingProxy(HTTPThread):
    """Forwards to one port of loopback, which knows nothing of ``prefix``.

    ``before`` is called with each request on its own thread, and may take its time. So is
    ``after``, when the server has answered. Each may give a status to answer in place of the
    server, or 0 to cut the connection.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", prefix: str = "") -> None:
        self.requests: list[Request] = []
        self.before: Callable[[Request], int | None] = lambda request: None
        self.after: Callable[[Request], int | None] = lambda request: None
        proxy = self

        class Forwarding(Handler):
            def forward(self) -> None:
                request = Request(time.monotonic(), self.command, self.path)
                proxy.requests.append(request)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if (status := proxy.before(request)) is not None:
                    return self.answer(status)
                behind = http.client.HTTPConnection(host, port, timeout=60)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                    behind.request(self.command, self.path.removeprefix(prefix), body, headers)
                    answer = behind.getresponse()
                    data = answer.read()
                    if (status := proxy.after(request)) is not None:
                        return self.answer(status)
                    self.pass_on(answer, data)
                except OSError:
                    self.close_connection = True
                finally:
                    behind.close()

            def answer(self, status: int) -> None:
                if not status:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                data = b"<html>as a load balancer says it</html>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = forward

        super().__init__(Forwarding, host)

    def variables(self, method: str = "") -> list[Request]:
        """The requests for Variables, all of them or those of one method."""
        return [r for r in self.requests if r.is_variable and r.method.startswith(method)]
