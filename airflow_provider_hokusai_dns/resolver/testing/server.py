"""A small DNS server over UDP and TCP, for tests and demonstrations."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from airflow_provider_hokusai_dns.resolver.model import Endpoint
from airflow_provider_hokusai_dns.resolver.testing.zone import Zone

#: Sends an answer; ``None`` closes the connection.
_Send = Callable[[bytes | None], None]
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = getattr(socket, "SO_RCVBUFFORCE", 33)


class DNSServer(Zone):
    """A real DNS server on one port, UDP and TCP, with faults per name.

    ::

        with DNSServer() as dns:
            dns.set_records("mlflow.local", ["10.0.0.1", "fd00::1"], ttl=10)
            dns.delay("mlflow.local", 0.2)
            ...
            dns.silent()              # every name
            dns.heal()
            assert dns.count("mlflow.local", "A") == 1

    :class:`Zone` describes the methods that set records and faults. Names that were never set do
    not exist (NXDOMAIN with an SOA record). The server runs on a thread of its own, where a delayed
    answer does not hold up any other. After :meth:`stop`, :meth:`start` takes the same port again,
    with the same records, as a restarted nameserver does.

    :param host: the address to listen on.
    :param port: 0 takes a free one.
    :param tcp: without it connections to the TCP port are refused.
    :param negative_ttl: seconds for which "no such name" may be remembered.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, tcp: bool = True, negative_ttl: int = 5
    ) -> None:
        super().__init__(negative_ttl=negative_ttl)
        self.host = host
        #: The port; 0 until the first start, if it was not given.
        self.port = port
        self._tcp = tcp
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        # Queries that wait for their name to be released; of the server's own thread.
        self._waiting: list[Callable[[], None]] = []
        self._connections: set[asyncio.Transport] = set()

    @property
    def address(self) -> str:
        """``"127.0.0.1:5353"``, as ``ResolverConfig.nameservers`` takes it."""
        return str(Endpoint(self.host, self.port))

    def start(self) -> DNSServer:
        """Listen, and return when queries are answered.

        :raises OSError: when the port is taken.
        :raises RuntimeError: when it runs already.
        """
        if self._thread is not None:
            raise RuntimeError(f"the DNS server on {self.address} is already running")
        sockets = _bind(self.host, self.port, tcp=self._tcp)
        self.port = sockets[0].getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(sockets, ready), name=f"dns-server-{self.port}", daemon=True
        )
        self._thread.start()
        ready.wait()
        return self

    def stop(self) -> None:
        """Close the port and end the thread; the records stay. Does nothing when stopped."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._call(cast("asyncio.Event", self._stopping).set)
        thread.join()

    def __enter__(self) -> DNSServer:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def release(self, name: str) -> None:
        """Answer the queries that :meth:`hold` kept, as things stand now."""
        super().release(name)
        if self._thread is not None:
            self._call(self._answer_released)

    def _call(self, function: Callable[[], object]) -> None:
        cast("asyncio.AbstractEventLoop", self._loop).call_soon_threadsafe(function)

    def _run(self, sockets: list[socket.socket], ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve(sockets, ready))

    async def _serve(self, sockets: list[socket.socket], ready: threading.Event) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        udp, _ = await loop.create_datagram_endpoint(lambda: _UDP(self.handle), sock=sockets[0])
        tcp = None
        if self._tcp:
            tcp = await loop.create_server(
                lambda: _TCP(self.handle, self._connections), sock=sockets[1]
            )
        ready.set()
        await self._stopping.wait()
        self._waiting.clear()
        udp.close()
        if tcp is not None:
            tcp.close()
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # The transports close their sockets in the next turn of the loop.

    def handle(self, wire: bytes, transport: str, send: _Send, again: bool = False) -> None:
        """Do about one query what the zone plans. Runs on the server's own thread."""
        plan = self.plan(wire, transport, again=again)
        if plan.held:
            self._waiting.append(partial(self.handle, wire, transport, send, again=True))
        elif plan.payload is not None or plan.hang_up:
            if plan.delay:
                asyncio.get_running_loop().call_later(plan.delay, send, plan.payload)
            else:
                send(plan.payload)

    def _answer_released(self) -> None:
        waiting, self._waiting = self._waiting, []
        for retry in waiting:
            retry()  # Whatever is held still queues up again.


class _UDP(asyncio.DatagramProtocol):
    def __init__(self, handle: Callable[..., None]) -> None:
        self._handle = handle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._handle(data, "udp", partial(self._send, addr))

    def _send(self, addr: tuple[str, int], payload: bytes | None) -> None:
        if payload is not None and not self._transport.is_closing():
            self._transport.sendto(payload, addr)


class _TCP(asyncio.Protocol):
    """Messages behind two bytes of length each (RFC 1035, 4.2.2)."""

    def __init__(self, handle: Callable[..., None], connections: set[asyncio.Transport]) -> None:
        self._handle = handle
        self._connections = connections
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2:
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < end:
                return
            wire, self._buffer = self._buffer[2:end], self._buffer[end:]
            self._handle(wire, "tcp", self._send)

    def _send(self, payload: bytes | None) -> None:
        if payload is None:
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write(len(payload).to_bytes(2, "big") + payload)


def _bind(host: str, port: int, *, tcp: bool) -> list[socket.socket]:
    """A UDP and a TCP socket on one port; for port 0 on one that is free for both."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempts_left in reversed(range(20 if port == 0 and tcp else 1)):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        sockets = [udp]
        try:
            _enlarge(udp)
            udp.bind(_sockaddr(host, port))
            if tcp:
                listener = socket.socket(family, socket.SOCK_STREAM)
                sockets.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(_sockaddr(host, udp.getsockname()[1]))
                listener.listen(1024)
        except OSError as error:
            for opened in sockets:
                opened.close()
            if not attempts_left:
                raise OSError(error.errno, f"{error.strerror}: {host} port {port}") from error
        else:
            for opened in sockets:
                opened.setblocking(False)
            return sockets
    raise AssertionError("unreachable")


def _sockaddr(host: str, port: int) -> Any:
    """The address to bind; the zone of ``fe80::1%eth0`` as the number that it is."""
    if not 0 <= port <= 65535:  # getaddrinfo takes it modulo 65536
        raise OSError(errno.EINVAL, "not a port from 0 to 65535")
    return socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)[0][4]


def _enlarge(udp: socket.socket) -> None:
    """Room for a thousand queries at once, so that a count of queries is never one of losses."""
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except OSError:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
