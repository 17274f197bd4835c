"""The system's own lookup, with all of its sources."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from functools import partial

from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.errors import LookupFailed
from airflow_provider_hokusai_dns.resolver.model import (
    Answer,
    Attempt,
    Cause,
    Endpoint,
    Lookup,
    Source,
)
from airflow_provider_hokusai_dns.resolver.workers import Workers

#: Seconds for which an answer of the system lives. It does not tell the record's own TTL, which may
#: be over at once: short, then, as that of the names that need it most (Cloud Map's is 10).
SYSTEM_TTL = 10.0
#: Threads, each for one name. The names held are fewer by default, so nothing queues here.
_LIMIT = 4096

_CAUSES = {
    socket.EAI_NONAME: Cause.NXDOMAIN,
    getattr(socket, "EAI_NODATA", -5): Cause.NODATA,
    getattr(socket, "EAI_ADDRFAMILY", -9): Cause.NODATA,
    socket.EAI_AGAIN: Cause.TIMEOUT,
    socket.EAI_FAIL: Cause.SERVFAIL,
    socket.EAI_SYSTEM: Cause.NETWORK,
}


#: Whether this thread works for the resolver: the pin, which would wait for the resolver, then
#: stays out of its way. Not a thread's own: where gevent takes the threads' place after us,
#: greenlets would share it.
unpinned: ContextVar[bool] = ContextVar("unpinned", default=False)


@contextlib.contextmanager
def bypassing_pin() -> Iterator[None]:
    """While the block runs, resolve names on this thread as the system does, bypassing all pins."""
    token = unpinned.set(True)
    try:
        yield
    finally:
        unpinned.reset(token)


class SystemLookup:
    """The system's ``getaddrinfo``, bypassing our own pin. Blocks without a time limit."""

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        """Look a hostname up; see :class:`~.model.Lookup`. The caller limits the time."""
        started = time.monotonic()
        try:
            with bypassing_pin():  # wherever in the chain it is
                # By position: eventlet's own has other names for what follows.
                found = socket.getaddrinfo(hostname, None, 0, socket.SOCK_STREAM)
        except Exception as error:
            # With EAI_SYSTEM it is the OSError of the call that failed, and no gaierror.
            code = error.errno if isinstance(error, socket.gaierror) else None
            otherwise = Cause.NETWORK if isinstance(error, OSError) else Cause.MALFORMED
            cause = _CAUSES.get(code, Cause.MALFORMED) if code is not None else otherwise
            text = str(error) or type(error).__name__
            took = time.monotonic() - started
            raise LookupFailed(
                cause, f"the system's lookup failed: {text}", (Attempt("system", text, took),)
            ) from error
        addresses = dict.fromkeys(str(item[4][0]) for item in found)
        endpoints = tuple(Endpoint(address) for address in addresses)
        return Answer(endpoints, Source.SYSTEM, ttl=SYSTEM_TTL)


class SystemCalls:
    """The system's lookups in progress: one per name, however many callers wait for it.

    They cannot be cancelled, and continue when no caller waits any more. A later caller of the same
    name joins the one that hangs, and needs no further thread.
    """

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.renew_after_fork()
        forks.renewed(self)
        self._workers = Workers("hokusai-dns-system", limit=_LIMIT)

    def renew_after_fork(self) -> None:
        """Forget the parent's flights: its threads do not exist in the child."""
        self._calls: dict[str, Future[Answer]] = {}

    def call(self, hostname: str, timeout: float) -> Future[Answer]:
        """The call for a name, started now if there is none.

        If the system allows no thread, it runs on this one for as long as ``getaddrinfo`` takes:
        the only case in which ``timeout`` does not limit a lookup.
        """
        future: Future[Answer] = Future()
        held = self._calls.setdefault(hostname, future)
        if held is future:
            self._workers.call(partial(self._run, hostname, timeout), future)
        return held

    def _run(self, hostname: str, timeout: float) -> Answer:
        try:
            return self._lookup.lookup(hostname, timeout=timeout)
        finally:
            self._calls.pop(hostname, None)
