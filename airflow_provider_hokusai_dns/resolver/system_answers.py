"""The results and errors of the system's functions for given addresses. Queries no nameserver."""

from __future__ import annotations

import _socket
import socket
from functools import lru_cache
from typing import Any

from airflow_provider_hokusai_dns.resolver.model import Cause, Endpoint

# As plain numbers: each operation on the enum's members costs a microsecond.
NUMERICHOST = int(socket.AI_NUMERICHOST)
CANONNAME = int(socket.AI_CANONNAME)
_V4MAPPED = int(socket.AI_V4MAPPED)
_ALL = int(socket.AI_ALL)

#: The error of the system's lookup, by the cause of ours.
ERRORS = {
    Cause.NXDOMAIN: socket.EAI_NONAME,
    Cause.NODATA: getattr(socket, "EAI_NODATA", socket.EAI_NONAME),
    Cause.MALFORMED: socket.EAI_FAIL,
    Cause.CONFIG: socket.EAI_FAIL,
}
#: The system's error for an address that is not of the requested family.
_NO_SUCH_FAMILY = {
    socket.EAI_NONAME,
    getattr(socket, "EAI_ADDRFAMILY", socket.EAI_NONAME),
    getattr(socket, "EAI_NODATA", socket.EAI_NONAME),
}


@lru_cache(256, typed=True)
def question(port: Any, family: int, type: int, proto: int, flags: int) -> tuple[int, bool, int]:
    """The port's number, whether the caller will connect, and the address family that it can use.

    :raises OSError: the system's error for the arguments.
    """
    host = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104
    [first, *_] = numeric(host, port, family, type, proto, flags)
    mapped = family == socket.AF_INET6 and flags & _V4MAPPED
    return int(first[4][1]), type in (0, socket.SOCK_STREAM), 0 if mapped else int(family)


@lru_cache(256, typed=True)
def items_of(
    addresses: tuple[str, ...],
    own_ports: bool,
    port: Any,
    family: int,
    type: int,
    proto: int,
    flags: int,
) -> tuple[Any, ...]:
    """The system's result items for addresses.

    :param own_ports: whether the port of an address replaces the caller's.
    """
    places = [*map(Endpoint.parse, addresses)]
    if not own_ports:
        places = [Endpoint(place.address) for place in places]
    if family == socket.AF_INET6 and flags & _V4MAPPED and not flags & _ALL:
        # those of IPv4 only where there are no others
        places = [place for place in places if ":" in place.address] or places
    found: list[Any] = []
    for address, own, *_ in places:
        try:
            found += numeric(address, own or port, family, type, proto, flags)
        except socket.gaierror as error:
            if error.errno not in _NO_SUCH_FAMILY:
                raise
    return tuple(found)


def numeric(
    address: str, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> tuple[Any, ...]:
    """The system's own tuples for a numeric address, with its family, type, protocol and flags.

    The C function is called, because another package may have replaced Python's by one with other
    parameters. The C function reads no file but the services file.
    """
    return tuple(
        (socket.AddressFamily(item[0]), socket.SocketKind(item[1]), *item[2:])
        for item in _socket.getaddrinfo(address, port, family, type, proto, flags | NUMERICHOST)
    )
