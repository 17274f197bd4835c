"""One HTTP/1.1 connection to one address, with hard limits on time and on bytes read.

Used by the probe. The hostname stays in the Host header, in SNI and in the certificate check; only
the TCP connection uses the address, which is the proxy's if there is one. No retries, no redirects,
no cookies.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.health.reply import OPEN_CHECKS, Reply, ReplyFailure
from airflow_provider_hokusai_dns.resolver.racing import dial

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection

    from airflow_provider_hokusai_dns.config.server import MLflowServer

#: How http.client begins the error for a proxy that opens no tunnel.
_TUNNEL = "Tunnel connection failed: "
#: How much of a body is read; the answers that a probe needs are far smaller.
BODY_LIMIT = 1024 * 1024

_VERIFY_CODES = {
    10: ReplyFailure.CERTIFICATE_EXPIRED,
    62: ReplyFailure.CERTIFICATE_NAME,
    64: ReplyFailure.CERTIFICATE_NAME,
    **dict.fromkeys((2, 18, 19, 20, 21, 27), ReplyFailure.CERTIFICATE_UNTRUSTED),
}


class Deadline:
    """A time on the monotonic clock at which a socket is shut down.

    A socket's timeout limits one ``recv``; a server that trickles bytes can outlast it. Here one
    timer shuts the connection down, in any state.

    :param seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(max(0.0, seconds), self._cut)
        self._timer.daemon = True
        self._timer.start()

    def __enter__(self) -> Deadline:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._timer.cancel()
        self.watch(None)

    @property
    def remaining(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self._end - time.monotonic())

    def watch(self, connection: socket.socket | None) -> None:
        """Set the socket to shut down. A duplicate is kept: its owner closes the original."""
        twin = None
        if connection is not None:
            twin = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            old, self._socket = self._socket, twin
        if old is not None:
            old.close()

    def _cut(self) -> None:
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class ProbeConnection:
    """Requests to one address of one server, one after the other on one fresh connection.

    :param tls: what :func:`~.config.server.tls_context` gave.
    :param connect_timeout: seconds for the TCP connection.
    """

    def __init__(
        self,
        server: MLflowServer,
        address: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        deadline: Deadline,
        connect_timeout: float,
    ) -> None:
        self.address = address
        self.tls = tls
        self._deadline = deadline
        self._connection = _connection(server, tls, self._dial)
        # A proxy needs the whole URL, and with https a tunnel.
        forwarded = server.proxy is not None and tls is None
        self._prefix = server.uri if forwarded else server.path_prefix
        self._headers = _proxy_headers(server) if forwarded else {}
        self.port = port
        self._connect_timeout = connect_timeout
        self._connected = False

    def __enter__(self) -> ProbeConnection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._deadline.watch(None)
        self._connection.close()

    def ask(
        self,
        check: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """Send one request and read its answer. An error is in the reply, never raised."""
        began = time.perf_counter()
        reused = self._connection.sock is not None
        reply = self._exchange(check, method, path, headers or {}, body)
        if reused and reply.failure is ReplyFailure.BROKEN_OFF and self._deadline.remaining > 0:
            # The server closed an idle connection just then; a new one tells what it has to say.
            reply = self._exchange(check, method, path, headers or {}, body)
        return replace(reply, milliseconds=(time.perf_counter() - began) * 1000)

    def ask_openly(self) -> list[Reply]:
        """What needs no credentials, until a request gets no complete answer."""
        replies = []
        for check, path in OPEN_CHECKS.items():
            replies.append(self.ask(check, "GET", path))
            if replies[-1].failure is not None:
                break
        return replies

    def _exchange(
        self, check: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        try:
            if self._deadline.remaining <= 0:
                raise TimeoutError
            self._connection.timeout = self._deadline.remaining
            self._connection.request(
                method,
                self._prefix + path,
                body=body,
                headers={
                    "User-Agent": "airflow-provider-hokusai-dns",
                    "Accept-Encoding": "identity",
                    **self._headers,
                    **headers,
                },
                preload_content=False,
            )
            response = self._connection.getresponse()
            content = response.read(BODY_LIMIT + 1, decode_content=False)
            if self._deadline.remaining <= 0:
                # The timer's shutdown looks like a regular end where the length is not announced.
                raise TimeoutError
        except Exception as error:  # a foreign server can make http.client raise anything
            self._connection.close()
            failure, detail = self._explain(error)
            return Reply(check, failure=failure, detail=detail)
        reply = Reply(
            check,
            status=response.status,
            body=content[:BODY_LIMIT],
            location=response.headers.get("Location", ""),
            challenge=response.headers.get("WWW-Authenticate", ""),
        )
        if len(content) <= BODY_LIMIT:
            return reply
        self._connection.close()
        if response.status >= 300:  # it has said what is wrong, on a long error page
            return reply
        detail = f"it sends more than {BODY_LIMIT // 1024} KiB for {path}"
        return replace(reply, failure=ReplyFailure.BODY_TOO_LARGE, detail=detail)

    def _dial(self) -> socket.socket:
        left = self._deadline.remaining
        connection = dial(self.address, self.port, max(0.01, min(left, self._connect_timeout)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(max(0.01, self._deadline.remaining))
        self._deadline.watch(connection)
        self._connected = True
        return connection

    def _explain(self, error: Exception) -> tuple[ReplyFailure, str]:
        import http.client

        from urllib3.exceptions import ReadTimeoutError

        if isinstance(error, ssl.SSLCertVerificationError):
            failure = _VERIFY_CODES.get(error.verify_code, ReplyFailure.TLS)
            return failure, error.verify_message.rstrip(".")
        if self._deadline.remaining <= 0 or isinstance(error, TimeoutError | ReadTimeoutError):
            return (ReplyFailure.TIMEOUT if self._connected else ReplyFailure.CONNECT_TIMEOUT), ""
        if isinstance(error, ssl.SSLError):
            if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
                return ReplyFailure.NOT_HTTP, "it does not speak TLS"
            return ReplyFailure.TLS, (error.reason or "").replace("_", " ").lower()
        if not self._connected:
            if isinstance(error, ConnectionRefusedError):
                return ReplyFailure.REFUSED, ""
            return ReplyFailure.NETWORK, str(getattr(error, "strerror", "") or "")
        if isinstance(error, OSError) and str(error).startswith(_TUNNEL):
            return ReplyFailure.PROXY_REFUSED, str(error).removeprefix(_TUNNEL)
        if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
            return ReplyFailure.NOT_HTTP, "it does not answer in HTTP"
        return ReplyFailure.BROKEN_OFF, ""


def _connection(
    server: MLflowServer, tls: ssl.SSLContext | None, dial: Callable[[], socket.socket]
) -> HTTPConnection:
    """A urllib3 connection that keeps the name for everything and gets its socket from ``dial``."""
    from urllib3.connection import HTTPConnection, HTTPSConnection

    if tls is None:
        connection = HTTPConnection(server.hostname, server.own_port)
    else:
        connection = HTTPSConnection(server.hostname, server.own_port, ssl_context=tls)
        if server.proxy is not None:
            connection.set_tunnel(server.hostname, server.own_port, _proxy_headers(server))
    connection._new_conn = dial  # type: ignore[method-assign]
    return connection


def _proxy_headers(server: MLflowServer) -> dict[str, str]:
    login = None if server.proxy is None else server.proxy.authorization
    return {} if login is None else {"Proxy-Authorization": login}
