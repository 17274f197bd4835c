"""Parse and render what callers pass: a host, a host with a port, a URL, an address.

Rendering replaces the name by an address and changes nothing else: path, query, userinfo and
letter case stay the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\Z")
_NUMERIC_LABEL = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z")
_ZONE_ID = re.compile(r"[A-Za-z0-9._~-]+\Z")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_MAX_NAME = 253
_MAX_LABEL = 63
_MAX_TEXT = 8192


class Target(NamedTuple):
    """One parsed target. ``prefix + host_text + suffix == text`` always holds.

    Its ``repr`` omits what may contain a secret: userinfo, path and query.

    :param text: the target as given.
    :param hostname: lower case, IDNA encoded; keeps a final dot, which means "absolute".
    :param host_text: the host as written, including brackets.
    :param port: the port in the text, or ``None``.
    :param literal: the address if the host is one, else ``None``.
    :param port_text: the port as written, with its colon.
    """

    text: str
    hostname: str
    host_text: str
    prefix: str = ""
    suffix: str = ""
    port: int | None = None
    literal: str | None = None
    port_text: str = ""

    def __repr__(self) -> str:
        shown = ("hostname", "host_text", "port", "literal")
        return f"Target({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Parse a target in any form of :class:`~.target.Target`.

        :raises ValueError: the input is invalid; the error names the part and the value.
        """
        head = cls.head(text)
        path = text[len(head.text) :]
        return head._replace(text=text, suffix=head.suffix + path) if path else head

    @classmethod
    def head(cls, text: str) -> Target:
        """The target up to its path: one object for many URLs of one host.

        With the path where there is userinfo or a query, which may contain a secret: nothing of
        these is kept.

        :raises ValueError: as :meth:`parse`.
        """
        if not isinstance(text, str):
            raise ValueError(f"a target must be a string, not {type(text).__name__}")
        end = text.find("/", 8)  # behind http:// and a host, or https://
        head = text if end < 0 else text[:end]
        if len(text) <= _MAX_TEXT and not ("@" in head or "?" in head or "#" in head):
            known = _parse_head(head)
            if known is not None and (known.prefix or end < 0):
                return known
        return cls._parse_whole(text)

    @classmethod
    def _parse_whole(cls, text: str) -> Target:
        if not text:
            raise ValueError("the target is empty: give a hostname, an address or a URL")
        if len(text) > _MAX_TEXT:
            raise ValueError(f"the target is {len(text)} characters long, {_MAX_TEXT} at most")
        prefix, authority, rest = _split_url(text)
        if not prefix and any(sign in text for sign in "/?#@"):
            raise ValueError(
                f"{shown(text)!r} is neither a host nor a URL: a URL begins with http:// or https://"
            )
        try:
            return cls._parse(text, prefix, authority, rest)
        except ValueError:
            if "@" in rest:  # What was taken for a port may be the first part of a password.
                raise ValueError(
                    f"{shown(text)!r} has no valid host and port before its path; in a user name "
                    "or password write / ? # as %2F %3F %23"
                ) from None
            raise

    @classmethod
    def _parse(cls, text: str, prefix: str, authority: str, rest: str) -> Target:
        is_url = bool(prefix)
        if match := _FORBIDDEN.search(authority):
            what = "a space" if match.group() == " " else f"the character {match.group()!r}"
            raise ValueError(f"{shown(text)!r} is neither a host nor a URL: it contains {what}")
        if is_url:
            userinfo, at, authority = authority.rpartition("@")
            prefix += userinfo + at
        host_text, colon, digits = _split_port(text, authority, is_url=is_url)
        port = _parse_port(text, digits) if digits else None
        if not host_text or host_text == "[]":
            raise ValueError(f"{shown(text)!r} has no host")
        if host_text.startswith("["):
            literal = _parse_ipv6(host_text[1:-1], is_url=is_url)
            if literal is None:
                raise ValueError(f"{host_text!r} in {shown(text)!r} is not an IPv6 address")
        else:
            literal = parse_address(host_text)
            if literal is None and ":" in host_text:
                raise ValueError(f"{shown(text)!r} is neither host:port nor an IPv6 address")
        hostname = normalise_hostname(host_text) if literal is None else literal
        port_text = colon + digits
        return cls(text, hostname, host_text, prefix, port_text + rest, port, literal, port_text)

    def render(self, address: str, port: int | None = None) -> str:
        """The text with ``address`` in place of the host.

        :param port: replaces the port of the text, for an answer with its own port (SRV).
        """
        port_text = self.port_text if port is None else f":{port}"
        if ":" in address and (self.prefix or port_text or self.host_text.startswith("[")):
            # RFC 6874: the percent sign before a zone id is itself escaped inside a URL.
            address = f"[{address.replace('%', '%25', 1) if self.prefix else address}]"
        return self.prefix + address + port_text + self.suffix.removeprefix(self.port_text)


def shown(text: str) -> str:
    """A target without userinfo, path and query, which may contain secrets; for messages."""
    text = text[:_MAX_TEXT]
    prefix, authority, rest = _split_url(text)
    if not prefix:
        host, *rests = re.split("[/?#]", text.rpartition("@")[2], maxsplit=1)
        return _shown_authority(host)[:300] + ("/..." if rests else "")
    if "@" in rest:  # Perhaps a slash in a password: where the host begins is ambiguous.
        return f"{prefix}..."
    authority = _shown_authority(authority.rpartition("@")[2])
    return (prefix + authority + ("/..." if len(rest) > 1 else rest))[:300]


def _shown_authority(authority: str) -> str:
    """Host and port; text after a colon that is not a port may be a password."""
    end = authority.find("]") + 1 if authority.startswith("[") else 0
    host, colon, port = authority[end:].partition(":")
    if not port or port.isdigit() or parse_address(authority) is not None:
        return authority
    return f"{authority[:end]}{host}{colon}..."


def quoted(said: object, limit: int = 200) -> str:
    """Text from outside, for messages: one line of at most ``limit`` characters, in quotes."""
    text = str(said)
    return repr(text[:limit]) + ("..." if len(text) > limit else "")


def _split_url(text: str) -> tuple[str, str, str]:
    """``scheme://``, the authority, and the rest; the first is empty if the text is not a URL."""
    scheme, separator, after = text.partition("://")
    if not separator or not _SCHEME.match(scheme):
        return "", text, ""
    end = min((i for i in map(after.find, "/?#") if i >= 0), default=len(after))
    return scheme + separator, after[:end], after[end:]


@lru_cache(maxsize=128)
def _parse_head(text: str) -> Target | None:
    """Parse a target that ends with its host or port; ``None`` for any other text.

    Results are cached, because there are many URLs of one host. They contain no userinfo.
    """
    try:
        target = Target._parse_whole(text)
    except ValueError:
        return None
    return target if target.suffix == target.port_text else None


def _split_port(text: str, authority: str, *, is_url: bool) -> tuple[str, str, str]:
    """Host, colon and port, each empty if it is missing; ``text`` is the whole, for the error."""
    if authority.startswith("["):
        host, bracket, after = authority.partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ValueError(
                f"{shown(text)!r} has a bracket that does not close around an IPv6 address"
            )
        host, colon, port = host + bracket, after[:1], after[1:]
    elif authority.count(":") > 1:
        if is_url:
            raise ValueError(
                f"{shown(text)!r}: write an IPv6 address in a URL in brackets, as in [::1]"
            )
        host, colon, port = authority, "", ""
    else:
        host, colon, port = authority.partition(":")
    if colon and not port and not is_url:
        raise ValueError(f"{shown(text)!r} has a colon but no port")
    return host, colon, port


def _parse_port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535 and len(port) <= 5):
        named = f"port {port[:20]!r}" if port.isdigit() else "the port"
        raise ValueError(f"{named} in {shown(text)!r} is not a number from 1 to 65535")
    return int(port)


def parse_address(text: str) -> str | None:
    """An IPv4 or IPv6 address in its usual form, or ``None``.

    ``1.2``, ``127.1``, ``0x7f.1`` and ``010.0.0.1`` are rejected: parsers disagree about them.
    """
    if ":" in text:
        return _parse_ipv6(text, is_url=False)
    try:
        return str(IPv4Address(text)) if text[:1].isdigit() else None  # mostly a name
    except ValueError:
        return None


def _parse_ipv6(text: str, *, is_url: bool) -> str | None:
    if is_url:
        text = text.replace("%25", "%", 1)
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    if address.scope_id is not None and not _ZONE_ID.match(address.scope_id):
        return None
    return str(address)


def normalise_hostname(text: str) -> str:
    """A hostname in lower case and IDNA encoded; a final dot stays.

    :raises ValueError: a label is invalid; the error names it and says why.
    """
    name = text
    if not name.isascii():
        import idna

        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{text[:300]!r} is not a hostname: {error}") from None
    name = name if name == (lower := name.lower()) else lower  # one string and not two equal ones
    relative = name.removesuffix(".")
    if len(relative) > _MAX_NAME:
        raise ValueError(
            f"{text[:40]!r}... is {len(relative)} characters long; "
            f"a hostname has {_MAX_NAME} at most"
        )
    labels = relative.split(".")
    for label in labels:
        if not label:
            raise ValueError(f"{text!r} is not a hostname: it has an empty label")
        if len(label) > _MAX_LABEL:
            raise ValueError(
                f"{text!r} is not a hostname: label {label!r} is longer than {_MAX_LABEL}"
            )
        if not _LABEL.match(label):
            raise ValueError(
                f"{text!r} is not a hostname: label {label!r} may contain letters, digits, "
                "hyphens inside and underscores only"
            )
    if _NUMERIC_LABEL.match(labels[-1]):
        raise ValueError(
            f"{text!r} is neither a hostname nor an address: write an IPv4 address as 10.0.1.221"
        )
    return name
