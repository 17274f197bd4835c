"""The origin of a URL, and what stands before its host. Imports no other module of ours."""

from __future__ import annotations

from urllib.parse import urlsplit

#: The port of a URL without one.
_PORTS = {"http": 80, "https": 443}


def with_userinfo(url: str, userinfo: str) -> str:
    """A URL with this before its host, in place of what is there.

    :raises ValueError: the URL has a host that cannot be.
    """
    parts = urlsplit(url)
    return parts._replace(netloc=f"{userinfo}@{parts.netloc.rpartition('@')[2]}").geturl()


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port, normalised so that two spellings of one origin are equal."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    if not host.isascii():
        import idna

        host = idna.encode(host, uts46=True).decode("ascii")
    return parts.scheme, host, parts.port or _PORTS.get(parts.scheme, 0)
