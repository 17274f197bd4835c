"""The sockets of lookups: sends the queries of plans, and passes the replies to them.

UDP sockets are connected, so that a closed port is detected at once and only the nameserver can
answer. They stay open until the lookup ends, so that late replies are received.
"""

from __future__ import annotations

import math
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from airflow_provider_hokusai_dns.resolver.lookup import messages
from airflow_provider_hokusai_dns.resolver.lookup.pending_question import Query
from airflow_provider_hokusai_dns.resolver.lookup.plan import Plan
from airflow_provider_hokusai_dns.resolver.lookup.questions import Reply, Server

_LARGEST = 65_535
#: Packets read in a row: a flooded socket must not keep the others waiting.
_AT_ONCE = 8
_READ, _WRITE = 0x1, 0x4  # select.POLLIN and POLLOUT, which eventlet takes away

Report = Callable[[Query, Reply | Exception], None]


class Exchange:
    """The sockets of any number of plans; used by one thread at a time."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}

    def pump(
        self,
        plans: Sequence[Plan],
        until: float,
        done: Callable[[], bool],
        wake: socket.socket | None = None,
    ) -> None:
        """Run plans until one has an outcome, or the time is over.

        :param until: monotonic seconds.
        :param wake: return early when this becomes readable.
        """
        while not done():
            now = time.monotonic()
            for plan in plans:
                if now >= plan.wake_at:
                    plan.tick(now)
                while plan.outbox:
                    self._send(plan)
            if now >= until:
                return
            left = min([until, *(plan.wake_at for plan in plans)]) - now
            if self._wait(left, wake):
                return

    def close(self) -> None:
        """Close every socket."""
        for line in self._lines.values():
            line.sock.close()
        self._lines.clear()

    def _wait(self, seconds: float, wake: socket.socket | None) -> bool:
        """Wait for packets and pass them on; returns whether ``wake`` can be read."""
        ready = _poll(
            [(fd, line.events) for fd, line in self._lines.items()]
            + ([] if wake is None else [(wake.fileno(), _READ)]),
            max(0.0, seconds),
        )
        for fd in ready:
            line = self._lines.get(fd)
            if line is not None and not line.turn():
                self._drop(line)
        return wake is not None and wake.fileno() in ready

    def _send(self, plan: Plan) -> None:
        """Send the queries of a plan; simultaneous ones to one server share a socket."""
        queries, report = plan.outbox[:], partial(_report, plan)
        plan.outbox.clear()
        # All are made before any is sent: a server that wakes up in between takes the processor.
        outgoing: list[tuple[_Datagrams, bytes]] = []
        shared: dict[Server, _Datagrams] = {}
        for query in queries:
            try:
                if query.tcp:
                    self._add(_Stream(query, report))
                    continue
                line = None if query.fresh_port else shared.get(query.server)
                if line is None:
                    line = shared[query.server] = _Datagrams(query.server, report)
                    self._add(line)
                outgoing.append((line, line.add(query)))
            except Exception as error:  # no name that fits into a message, no way to the server
                report(query, error)
        for line, wire in outgoing:
            if line.sock.fileno() >= 0 and not line.send(wire):
                self._drop(line)

    def _add(self, line: _Line) -> None:
        self._lines[line.sock.fileno()] = line

    def _drop(self, line: _Line) -> None:
        del self._lines[line.sock.fileno()]
        line.sock.close()


def _report(plan: Plan, query: Query, what: Reply | Exception) -> None:
    now = time.monotonic()
    if isinstance(what, Exception):
        plan.broke(query, messages.unsendable(what), now)
    else:
        plan.replied(query, what, now)


class _Datagrams:
    """A connected UDP socket."""

    events = _READ

    def __init__(self, server: Server, report: Report) -> None:
        self.sock = _connected(server, socket.SOCK_DGRAM)
        self._report = report
        #: By id: two questions on one socket are told apart by it.
        self._expected: dict[bytes, tuple[Query, bytes]] = {}

    def add(self, query: Query) -> bytes:
        """Expect the answer to one more query; returns what to send."""
        while (wire := messages.make_query(query.question, edns=query.edns))[:2] in self._expected:
            pass
        self._expected[wire[:2]] = (query, wire)
        return wire

    def send(self, wire: bytes) -> bool:
        """Send one query; returns whether the socket is of further use."""
        try:
            self.sock.send(wire)
        except OSError as error:
            return self._fail(error)
        return True

    def turn(self) -> bool:
        """Do what the socket is ready for; returns whether it is of further use."""
        for _ in range(_AT_ONCE):  # the answer to the other family is mostly there too
            try:
                wire = self.sock.recv(_LARGEST)
            except BlockingIOError:
                return True
            except OSError as error:
                return self._fail(error)
            query, sent = self._expected.get(wire[:2], (None, b""))
            if query and (reply := messages.read_reply(query.question, sent, wire)):
                del self._expected[wire[:2]]
                self._report(query, reply)
                if not self._expected:
                    return False
        return True

    def _fail(self, error: OSError) -> bool:
        """Report an error, once: it may be about any query that was sent from this socket."""
        for query, _ in self._expected.values():
            self._report(query, error)
        return False


class _Stream:
    """A TCP connection for one query."""

    def __init__(self, query: Query, report: Report) -> None:
        self._query = query
        self._report = report
        self._sent = messages.make_query(query.question, edns=query.edns)
        self._out = len(self._sent).to_bytes(2, "big") + self._sent
        self._in = b""
        self.events = _WRITE
        self.sock = _connected(query.server, socket.SOCK_STREAM)

    def turn(self) -> bool:
        try:
            if self._out:
                error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error))
                self._out = self._out[self.sock.send(self._out) :]
                if not self._out:
                    self.events = _READ
                return True
            piece = self.sock.recv(_LARGEST)
            if not piece:
                raise ConnectionError("the connection was closed before an answer")
        except BlockingIOError:
            return True
        except OSError as error:
            self._report(self._query, error)
            return False
        self._in += piece
        length = int.from_bytes(self._in[:2], "big")
        if len(self._in) < 2 or len(self._in) < 2 + length:
            return True
        wire = self._in[2 : 2 + length]
        reply = messages.read_reply(self._query.question, self._sent, wire, tcp=True)
        self._report(self._query, reply or messages.NONSENSE)
        return False


#: One socket and the queries on it.
_Line: TypeAlias = _Datagrams | _Stream


def _connected(server: Server, kind: socket.SocketKind) -> socket.socket:
    """A socket that is connected to a nameserver, or over TCP still connects."""
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        sock.connect(_sockaddr(server))
    except BaseException as error:
        if not (kind is socket.SOCK_STREAM and isinstance(error, BlockingIOError)):
            sock.close()
            raise
    return sock


def _sockaddr(server: Server) -> tuple[str, int] | tuple[str, int, int, int]:
    """The address of a nameserver; a zone as the number of its interface."""
    address, _, zone = server.address.partition("%")
    if not zone:
        return address, server.port
    number = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return address, server.port, 0, number


def _poll(wanted: Iterable[tuple[int, int]], seconds: float) -> list[int]:
    """The descriptors that are ready; any error counts as ready."""
    if not hasattr(select, "poll"):  # taken away by eventlet
        reads = [fd for fd, events in wanted if events & _READ]
        writes = [fd for fd, events in wanted if events & _WRITE]
        ready = select.select(reads, writes, [], None if math.isinf(seconds) else seconds)
        return [*ready[0], *ready[1]]
    poll = select.poll()
    for fd, events in wanted:
        poll.register(fd, events)
    return [fd for fd, _ in poll.poll(None if math.isinf(seconds) else math.ceil(seconds * 1000))]
