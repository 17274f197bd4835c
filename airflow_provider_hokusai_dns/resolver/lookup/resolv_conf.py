"""``resolv.conf(5)`` as glibc reads it: lines that it does not understand are ignored."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_hokusai_dns.resolver.lookup.questions import Server

#: Characters of an absolute name, its final dot included (RFC 1035, 3.1).
_MAX_NAME = 254
_LABEL = re.compile(r"[!-\[\]-~]{1,63}\Z")
#: Options with a number: the least and the most that glibc takes.
_NUMBERS = {"ndots": (0, 15), "timeout": (1, 30), "attempts": (1, 5)}
#: Options without a number, each a field of :class:`ResolvConf`.
_FLAGS = ("rotate", "use-vc", "edns0", "single-request", "no-aaaa", "no-tld-query", "no_tld_query")
#: Where no usable line names a nameserver, the one on this machine is asked (resolv.conf(5)).
_LOCAL = Server("127.0.0.1")


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """Which nameservers to ask for which names, and how.

    :param search: domains as written; :meth:`candidates` combines them with a name.
    :param rotate: start with another nameserver at each lookup.
    :param use_vc: ask over TCP only.
    :param edns0: say that larger UDP answers are welcome (RFC 6891).
    :param single_request: ask for the second family when the first has its answer.
    :param no_aaaa: ask for IPv4 addresses only.
    :param no_tld_query: never ask for a name without a dot as it is.
    :param timeout: seconds that glibc gives one try at one nameserver.
    :param attempts: how often it goes through the list.
    """

    nameservers: tuple[Server, ...] = (_LOCAL,)
    search: tuple[str, ...] = ()
    ndots: int = 1
    rotate: bool = False
    use_vc: bool = False
    edns0: bool = False
    single_request: bool = False
    no_aaaa: bool = False
    no_tld_query: bool = False
    timeout: int = 5
    attempts: int = 2

    def candidates(self, hostname: str, hint: str | None = None) -> list[str]:
        """The absolute names to try, in the order of ``resolv.conf(5)``; ``hint`` goes first."""
        if hostname.endswith("."):
            return [hostname]
        as_is = hostname + "."
        names = []
        for domain in self.search:
            # Of a leading dot glibc takes the rest; the root alone means "as it is".
            domain = domain.removeprefix(".").removesuffix(".")
            name = f"{hostname}.{domain}." if domain else as_is
            if len(name) <= _MAX_NAME and all(map(_LABEL.match, name[:-1].split("."))):
                names.append(name)
        dots = hostname.count(".")
        if dots >= self.ndots:
            names.insert(0, as_is)
        elif dots or not names or not self.no_tld_query:
            names.append(as_is)
        if hint in names:
            names.insert(0, hint)
        return list(dict.fromkeys(names))


def parse_resolv_conf(
    text: str,
    environ: Mapping[str, str] = os.environ,
    *,
    port: int = 53,
    hostname: Callable[[], str] = socket.gethostname,
) -> ResolvConf:
    """Read a ``resolv.conf``, with the additions of ``LOCALDOMAIN`` and ``RES_OPTIONS``.

    :param port: the port of its nameservers, which the file cannot specify.
    :param hostname: the machine's own name, whose domain is searched if the file lists none.
    """
    nameservers: list[Server] = []
    search: tuple[str, ...] | None = None
    options: list[str] = []
    for line in text.split("\n"):
        line = line.partition("\0")[0]
        # A keyword begins its line, and a blank or a tab follows it.
        keyword, *words = re.split(r"[ \t]+", line.rstrip(" \t\r")) if line[:1].strip() else [""]
        if keyword == "nameserver" and words:
            address = _nameserver(words[0])
            if address is not None:
                nameservers.append(Server(address, port))
        elif keyword in ("search", "domain") and words:
            search = tuple(words) if keyword == "search" else (words[0],)
        elif keyword == "options":
            options += words
    if (local := environ.get("LOCALDOMAIN")) is not None:
        # Before a leading blank, and in an empty text, there is the root: the name as it is.
        search = tuple(re.split(r"[ \t]+", local.partition("\n")[0].rstrip(" \t")))
    if search is None:
        search = tuple(filter(None, [hostname().partition(".")[2]]))
    options += environ.get("RES_OPTIONS", "").split()
    servers = tuple(dict.fromkeys(nameservers)) or (_LOCAL._replace(port=port),)
    return ResolvConf(servers, search, **_honoured(options))


def _nameserver(text: str) -> str | None:
    """An address as ``inet_aton`` or ``inet_pton`` takes it; a zone may follow the latter."""
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except (OSError, UnicodeError):
        pass
    address, percent, zone = text.partition("%")
    try:
        packed = socket.inet_pton(socket.AF_INET6, address)
    except (OSError, UnicodeError, ValueError):
        return None
    link_local = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    canonical = socket.inet_ntop(socket.AF_INET6, packed)
    return f"{canonical}%{zone}" if percent and zone and link_local else canonical


def _honoured(options: list[str]) -> dict[str, Any]:
    """The options that are honoured, as fields; the docs list those that are not."""
    fields: dict[str, Any] = {}
    for option in options:
        name, colon, value = option.partition(":")
        if colon and name in _NUMBERS:
            digits = re.match(r"[+-]?\d{1,9}", value)  # as atoi() reads a number
            least, most = _NUMBERS[name]
            number = int(digits.group()) if digits else 0
            if name == "ndots" and number < 0:  # glibc keeps four bits of it
                number = most
            fields[name] = max(least, min(number, most))
        for flag in _FLAGS:
            if option.startswith(flag):  # glibc compares no further
                fields[flag.replace("-", "_")] = True
    return fields
