"""The system's own lookup: whatever it knows, we know."""

from __future__ import annotations

import socket
import threading
import time

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver.model import Answer, Attempt, Cause, Endpoint, Source

_CAUSES = {
    socket.EAI_NONAME: Cause.NXDOMAIN,
    getattr(socket, "EAI_NODATA", -5): Cause.NODATA,
    getattr(socket, "EAI_ADDRFAMILY", -9): Cause.NODATA,
    socket.EAI_AGAIN: Cause.TIMEOUT,
    socket.EAI_FAIL: Cause.SERVFAIL,
    socket.EAI_SYSTEM: Cause.NETWORK,
}


_here = threading.local()


def is_looking_up() -> bool:
    """Whether this thread is inside the system's own lookup, for the pin to stay out of its way."""
    return getattr(_here, "inside", False)


def original(function: object) -> object:
    """What stood behind :func:`socket.getaddrinfo` before the pin took its place."""
    while hasattr(function, "__hokusai_original__"):
        function = function.__hokusai_original__
    return function


class SystemLookup:
    """``getaddrinfo`` as the system has it, past our own pin. Blocks as long as it likes."""

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        """Look a hostname up; see :class:`~.model.Lookup`. The caller bounds it in time."""
        del timeout, hint, thorough
        started = time.monotonic()
        getaddrinfo = original(socket.getaddrinfo)
        _here.inside = True  # somebody may have wrapped our pin, so that it cannot be seen through
        try:
            found = getaddrinfo(hostname, None, type=socket.SOCK_STREAM)  # type: ignore[operator]
        except (socket.gaierror, UnicodeError) as error:
            code = error.errno if isinstance(error, socket.gaierror) else None
            cause = _CAUSES.get(code or 0, Cause.MALFORMED)
            took = time.monotonic() - started
            raise LookupFailed(
                cause,
                f"the system's lookup failed: {error}",
                (Attempt("system", str(error), took),),
            ) from error
        finally:
            _here.inside = False
        addresses = dict.fromkeys(str(item[4][0]) for item in found)
        return Answer(tuple(Endpoint(address) for address in addresses), Source.SYSTEM)
