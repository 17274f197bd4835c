"""Whether IPv6 leads anywhere."""

from __future__ import annotations

import socket


def ipv6_is_routable() -> bool:
    """Whether this machine has a route to the IPv6 internet, determined as in ``getaddrinfo``.

    Connecting a UDP socket sends nothing. The address is of the documentation range (RFC 3849).
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("2001:db8::1", 53))
    except OSError:
        return False
    return True
