"""One request to MLflow: address from the resolver, name in the URL, TLS, time limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from airflow_provider_hokusai_dns.client import dead_peer
from airflow_provider_hokusai_dns.client.aio import resolve_result
from airflow_provider_hokusai_dns.client.relay.headers import Headers
from airflow_provider_hokusai_dns.client.retries import NoAnswer
from airflow_provider_hokusai_dns.config.server import tls_context
from airflow_provider_hokusai_dns.resolver.deadline import bounded
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.workers import NoThreadError, Workers

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.config.server import MLflowServer

#: Gives the addresses to try now, and does not wait for better ones.
AddressesNow = Callable[[], list[str]]

_CONNECT_TIMEOUT = 5.0
#: Below the five seconds after which MLflow's server closes an idle connection, and the two of
#: gunicorn: a request on a connection that is just being closed may have been carried out.
_KEEP_IDLE = 1.5
_CONNECTIONS = 100
_NO_CONNECTION = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)

_asking = Workers("hokusai-dns-relay")


class Upstream:
    """The connections of a relay to its MLflow server. Used on one event loop.

    :param addresses: called on a thread, for each new connection.
    :raises TLSFileError: a TLS file of the connection cannot be used.
    """

    def __init__(self, server: MLflowServer, addresses: AddressesNow) -> None:
        self._server = server
        tls = tls_context(server)
        self._proxy: dict[str, Any] = {}
        #: For the proxy; with https it is in the request for the tunnel instead.
        self._login: Headers = []
        if server.proxy is not None:
            self._proxy = {"proxy": server.proxy.uri}
            if (login := server.proxy.authorization) is not None and tls is None:
                self._login = [("Proxy-Authorization", login)]
            elif login is not None:
                self._proxy["proxy_headers"] = {"Proxy-Authorization": login}
        resolver = _Addresses(addresses)
        #: Of all connections on which a request was sent.
        self.transports: WeakSet[asyncio.Transport] = WeakSet()
        self._sessions = [
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=resolver,
                    use_dns_cache=False,
                    ssl=True if tls is None else tls,
                    limit=_CONNECTIONS,
                    **({"force_close": True} if fresh else {"keepalive_timeout": _KEEP_IDLE}),
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
                trust_env=False,
                read_bufsize=2**18,
                request_class=cast("Any", partial(_Request, self.transports)),
            )
            for fresh in (False, True)
        ]

    async def send(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        fresh: bool,
    ) -> aiohttp.ClientResponse:
        """Send one request, and return its answer before the body is read. Never redirects.

        :param path: raw, with the query, under the server's prefix.
        :param fresh: on a new connection, where one that is just being closed would leave open
            whether the request was carried out.
        :raises aiohttp.ClientError: see :func:`failure_of`.
        """
        response = await self._sessions[fresh].request(
            method,
            URL(self._server.uri + path, encoded=True),
            headers=[*headers, *self._login],
            data=body,
            allow_redirects=False,
            **self._proxy,
        )
        if response.status == 101:  # the client, which did not ask for it either, would wait
            response.close()
            raise aiohttp.ClientPayloadError("the server switches protocols without being asked")
        return response

    async def close(self) -> None:
        """Close the connections."""
        for session in self._sessions:
            await session.close()


def failure_of(error: BaseException) -> NoAnswer:
    """The kind of failure of an exception of :meth:`Upstream.send`."""
    if isinstance(error, aiohttp.ClientSSLError) and not isinstance(
        error.__cause__ or error.os_error, ConnectionError | TimeoutError
    ):
        return NoAnswer.FINAL
    if isinstance(error, _NO_CONNECTION):
        return NoAnswer.NOT_SENT
    return NoAnswer.CUT


def reason_of(error: BaseException) -> str:
    """Why there is no answer, in words without a secret."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"no secure connection: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error.strerror or error.os_error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refuses a tunnel: {error.status} {error.message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientResponseError):  # its text quotes the URL with its query
        return "the answer is not HTTP"
    return str(error) or type(error).__name__


class _Request(aiohttp.ClientRequest):
    """Sees its connection before it is sent: aiohttp has a factory of sockets only since 3.12."""

    def __init__(self, transports: WeakSet[asyncio.Transport], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._transports = transports

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        if conn.transport is not None:
            self._transports.add(conn.transport)
            if (sock := conn.transport.get_extra_info("socket")) is not None:
                for option in dead_peer.socket_options(self.headers):
                    sock.setsockopt(*option)
        return await super().send(conn)


class _Addresses(AbstractResolver):
    """The process's answers for one name; one lookup at a time, however many connections wait."""

    def __init__(self, addresses: AddressesNow) -> None:
        self._ask = addresses
        self._asked: asyncio.Future[list[str]] | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self._asked is None or self._asked.done():
            self._asked = asyncio.wrap_future(_asking.call(self._at_once, beside=True))
        try:
            found = await asyncio.shield(self._asked)
        except (DNSResolutionError, NoThreadError) as error:
            raise OSError(None, str(error)) from error
        return [resolve_result(host, place, port) for place in found]

    def _at_once(self) -> list[str]:
        with bounded(0):  # the waiting is done in one place, by the calls themselves
            return self._ask()

    async def close(self) -> None:
        """Nothing is held."""
