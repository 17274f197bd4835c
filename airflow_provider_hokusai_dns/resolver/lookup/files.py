"""Files that are read again when they change: the hosts file and ``resolv.conf``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_BLANK = " \t\r\f\v"
_BLANKS = re.compile(f"[{_BLANK}]+")
_END = re.compile("[#\0]")


class WatchedFile(Generic[T]):
    """The parsed content of a file, parsed again whenever the file changes.

    :param parse: parses the text; gets an empty text if the file is missing.
    """

    def __init__(self, path: Path, parse: Callable[[str], T]) -> None:
        self._path = path
        self._parse = parse
        self._known: tuple[object, T] | None = None

    def value(self) -> T:
        """The current value; costs one ``stat`` while the file does not change."""
        signature: object
        try:
            stat = self._path.stat()
            signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev)
        except OSError:
            signature = None
        known = self._known
        if known is not None and known[0] == signature:
            return known[1]
        try:
            text = read_text(self._path)
        except OSError:  # perhaps only now, as with too many open files: tried again next time
            text, signature = "", None
        value = self._parse(text)
        self._known = (signature, value)
        return value


def read_text(path: Path) -> str:
    """The text of a file, read as bytes: in text mode a lone carriage return would end a line."""
    return path.read_bytes().decode("utf-8", errors="replace")


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Addresses by lower-case name, in the order of the file (``hosts(5)``).

    As glibc reads it: only a line feed ends a line, a zero byte ends what it says, and only ASCII
    blanks separate its words. Otherwise a part of a comment could be read as an entry. An address
    with a zone is ignored.
    """
    from airflow_provider_hokusai_dns.resolver.target import parse_address

    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        address, *names = _BLANKS.split(_END.split(line, 1)[0].strip(_BLANK)) or [""]
        canonical = parse_address(address)
        if canonical is None or "%" in canonical:
            continue
        for name in names:
            addresses = found.setdefault(name.lower().removesuffix("."), [])
            if canonical not in addresses:
                addresses.append(canonical)
    return {name: tuple(addresses) for name, addresses in found.items()}
