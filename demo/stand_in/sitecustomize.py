"""The stand-in for a real outage, where the system allows no private namespaces.

Python imports this file at its start when its folder is on PYTHONPATH. It makes the system's lookup
of the demo's one name ask the demo's DNS server, which is what ``resolv.conf`` does in a private
namespace. So a plain client meets the outage; other names, and other programs, do not.
"""

from __future__ import annotations

import os
import socket
from typing import Any

_NAME = os.environ.get("HOKUSAI_DEMO_NAME", "")
_SERVER = os.environ.get("HOKUSAI_DEMO_NAMESERVER", "")
_TIMEOUT = 5.0  # one try of the system's resolver; it makes two
_system_getaddrinfo = socket.getaddrinfo


def _ask() -> list[str]:
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    address, _, port = _SERVER.rpartition(":")
    query = dns.message.make_query(_NAME, dns.rdatatype.A)
    for _ in range(2):
        try:
            answer = dns.query.udp(query, address, timeout=_TIMEOUT, port=int(port))
        except (OSError, dns.exception.Timeout):
            continue
        if answer.rcode() == dns.rcode.NXDOMAIN:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [record.to_text() for rrset in answer.answer for record in rrset]
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def _getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    if host != _NAME:
        return _system_getaddrinfo(host, port, *args, **kwargs)
    addresses = _ask()
    if not addresses:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return [
        found
        for address in addresses
        for found in _system_getaddrinfo(address, port, *args, **kwargs)
    ]


if _NAME and _SERVER:
    socket.getaddrinfo = _getaddrinfo
