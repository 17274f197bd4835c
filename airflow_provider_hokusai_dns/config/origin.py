"""Which URLs are on one server. Imports no other module of ours."""

from __future__ import annotations

from urllib.parse import urlsplit

#: The port of a URL without one.
_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port, normalised so that two spellings of one origin are equal."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if not host.isascii():
        import idna

        host = idna.encode(host, uts46=True).decode("ascii")
    return parts.scheme, host, parts.port or _PORTS.get(parts.scheme, 0)
