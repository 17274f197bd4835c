"""A proxy in front of Airflow's API server that writes down what it was asked, and can be slow."""

from __future__ import annotations

import http.client
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
    """Forwards to one port of loopback.

    ``before`` is called with each request on its own thread, and may take its time.
    """

    def __init__(self, port: int) -> None:
        self.requests: list[Request] = []
        self.before: Callable[[Request], None] = lambda request: None
        proxy = self

        class Forwarding(Handler):
            def forward(self) -> None:
                request = Request(time.monotonic(), self.command, self.path)
                proxy.requests.append(request)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.before(request)
                behind = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                    behind.request(self.command, self.path, body, headers)
                    answer = behind.getresponse()
                    data = answer.read()
                    self.send_response(answer.status)
                    for name, value in answer.getheaders():
                        if name.lower() not in _HOP:
                            self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    self.close_connection = True
                finally:
                    behind.close()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = forward

        super().__init__(Forwarding)

    def variables(self, method: str = "") -> list[Request]:
        """The requests for Variables, all of them or those of one method."""
        return [r for r in self.requests if r.is_variable and r.method.startswith(method)]


_HOP = ("connection", "content-length", "transfer-encoding", "keep-alive")
