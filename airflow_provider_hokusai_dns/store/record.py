"""One record of the shared last known good as text: its key, parsing, rendering, merging.

Pure functions; :mod:`~.store.variable_store` stores the texts in Airflow.
``now`` and ``wall`` are seconds since the epoch. ``asked`` is that of a connection
(:attr:`.View.asked`): such answers are stored apart, and records of others are not read as theirs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow_provider_hokusai_dns.resolver.model import Endpoint, LastKnownGood, utc
from airflow_provider_hokusai_dns.resolver.target import parse_address

VERSION = 1
#: For a record whose addresses have their own ports (SRV). A reader that knows only version 1
#: ignores it, and does not overwrite it.
VERSION_WITH_PORTS = 2
_PREFIX = "hokusai_dns_"
_MAX_KEY = 200
_MAX_TEXT = 65_536
_MAX_ADDRESSES = 500
#: How every Fernet token begins. Airflow returns it undecrypted if ``fernet_key`` is empty.
_FERNET_TOKEN = "gAAAAA"  # noqa: S105 - no secret
#: Airflow masks the value of a Variable whose key has one of these, and so would hide ours.
_MASKED = re.compile(
    "access_key|access_token|api_key|apikey|auth_header|authorization|bearer|connection_string|dsn|"
    "keyfile_dict|passphrase|passwd|password|private_key|proxies|proxy|secret|service_account|"
    "service_key|token|webhook_url"
)


class BrokenVariableError(ValueError):
    """A stored text is not a record of this hostname.

    :param reason: one sentence, without the text itself.
    :param replaceable: whether any process may overwrite it, as with a stamp from a wrong clock.
    :param foreign: whether it may contain more than this version understands; it is then never
        overwritten.
    """

    def __init__(self, reason: str, *, replaceable: bool = False, foreign: bool = False) -> None:
        super().__init__(reason)
        self.replaceable = replaceable
        self.foreign = foreign


class EncryptedVariableError(BrokenVariableError):
    """A stored text that this process cannot decrypt; never overwritten: it may be valid."""

    def __init__(self) -> None:
        super().__init__(
            "it is encrypted with a Fernet key that this process does not have", foreign=True
        )


def variable_key(hostname: str, prefix: str = _PREFIX, *, asked: tuple[str, ...] = ()) -> str:
    """The key for one hostname: readable, unique, and never one that Airflow masks.

    :param prefix: the beginning of the key; that of the last known good by default.
    """
    slug = re.sub(r"[^a-z0-9]+", "_", hostname.lower()).strip("_")
    while _MASKED.search(slug):  # removing one may join the halves of another
        slug = re.sub(r"_+", "_", _MASKED.sub("_", slug))
    digest = hashlib.sha256("\n".join((hostname, *asked)).encode()).hexdigest()[:8]
    slug = slug[: _MAX_KEY - len(prefix) - len(digest) - 1].strip("_")
    return f"{prefix}{slug}_{digest}" if slug else f"{prefix}{digest}"


def parse_record(
    hostname: str, text: str, *, now: float, skew: float = 300.0, asked: tuple[str, ...] = ()
) -> LastKnownGood:
    """Read a stored text.

    :param skew: seconds by which a timestamp may be ahead of ``now`` (policy rule 16).
    :raises BrokenVariableError: the text is not a valid record; the error says why.
    """
    values = load_of(hostname, text, (VERSION, VERSION_WITH_PORTS), asked)
    stored = values.get("addresses")
    if not isinstance(stored, list) or not 0 < len(stored) <= _MAX_ADDRESSES:
        raise BrokenVariableError("its addresses are not a list with at least one address")
    addresses = tuple(map(_address, stored))
    resolved_at = read_stamp(values.get("resolved_at"), "resolved_at")
    no_name_since = values.get("no_name_since")
    since = None if no_name_since is None else read_stamp(no_name_since, "no_name_since")
    if max(resolved_at, since or resolved_at) > now + skew:
        raise BrokenVariableError(
            "its timestamp is in the future: a clock was wrong when it was written",
            replaceable=True,
        )
    written_by = values.get("written_by")
    return LastKnownGood(
        hostname=hostname,
        addresses=addresses,
        resolved_at=resolved_at,
        ttl=_ttl(values.get("ttl")),
        no_name_since=since if since is not None and since >= resolved_at else None,
        written_by=printable(written_by, 40) if isinstance(written_by, str) else "unknown",
        services=_services(values) if values["version"] == VERSION_WITH_PORTS else (),
    )


def _address(item: object) -> str:
    address = parse_address(item) if isinstance(item, str) else None
    if address is None:
        raise BrokenVariableError(f"{str(item)[:60]!r} in its addresses is not an IP address")
    return address


def _services(values: dict[str, Any]) -> tuple[Endpoint, ...]:
    """The endpoints of a record with ports."""
    stored = values.get("services")
    if not isinstance(stored, list) or not 0 < len(stored) <= _MAX_ADDRESSES:
        raise BrokenVariableError("its services are not a list with at least one endpoint")
    return tuple(_service(item) for item in stored)


def _service(item: object) -> Endpoint:
    values = item if isinstance(item, dict) else {}
    text = values.get("address")
    address = parse_address(text) if isinstance(text, str) else None
    port, priority, weight = (values.get(name, 0) for name in ("port", "priority", "weight"))
    are_numbers = type(port) is int and type(priority) is int and is_number(weight)
    in_range = are_numbers and 0 < port <= 65535 and 0 <= priority <= 65535 and 0 <= weight <= 65535
    if address is None or not in_range:
        raise BrokenVariableError(f"{str(item)[:120]!r} in its services is not an endpoint")
    return Endpoint(address, port, priority, float(weight))


def is_number(value: object) -> bool:
    """Whether a value from JSON is a number; in Python, ``True`` is one too."""
    return type(value) in (int, float)


def load_of(
    hostname: str, text: str, versions: tuple[int, ...], asked: tuple[str, ...]
) -> dict[str, Any]:
    """The JSON object in a stored text, for one version, one hostname and its nameservers.

    :raises BrokenVariableError: the error says what is wrong, and is ``foreign`` if another
        program may need the text.
    """
    values = load_object(text)
    version = values.get("version")
    if isinstance(version, bool) or version not in versions:
        known = " or ".join(map(str, versions))
        raise BrokenVariableError(
            f"its version is {str(version)[:20]!r} and not {known}", foreign=True
        )
    if values.get("hostname") != hostname:
        raise BrokenVariableError("its hostname is another one", foreign=True)
    if values.get("asked", []) != list(asked):
        raise BrokenVariableError(
            "it contains the answer of other nameservers or of another SRV record", foreign=True
        )
    return values


def load_object(text: str) -> dict[str, Any]:
    """The JSON object in a stored text.

    :raises BrokenVariableError: the text is not a JSON object; the error says why.
    """
    if len(text) > _MAX_TEXT:
        raise BrokenVariableError(f"it is {len(text)} characters long")
    if text.startswith(_FERNET_TOKEN):
        raise EncryptedVariableError
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise BrokenVariableError("it is not valid JSON") from None
    if not isinstance(values, dict):
        raise BrokenVariableError("it is not a JSON object")
    return values


def read_stamp(value: object, name: str) -> float:
    """Seconds since the epoch, from a text like ``2026-11-23T06:50:00Z``.

    :raises BrokenVariableError: it is not a time; the error names the field.
    """
    try:
        if not isinstance(value, str):
            raise ValueError
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BrokenVariableError(
            f"its {name} {str(value)[:40]!r} is not a time like 2026-11-23T06:50:00Z"
        ) from None


def _ttl(value: Any) -> float | None:
    if value is None:
        return None
    if not is_number(value) or not 0 <= value <= sys.float_info.max:
        raise BrokenVariableError(f"its ttl {str(value)[:20]!r} is not a number of seconds")
    return float(value)


def render_record(
    record: LastKnownGood, *, beside: str | None = None, asked: tuple[str, ...] = ()
) -> str:
    """The text of a record; fields that were added to the previous text are kept.

    Not if the text would become one that no process reads: the layout and the escapes need more
    room than the previous text did. :func:`dropped_fields` names them then.

    :param beside: the text that is being replaced.
    """
    added: dict[str, Any] = {}
    if beside is not None:
        with contextlib.suppress(BrokenVariableError):
            added = load_object(beside)
    added.pop("services", None)
    since = record.no_name_since
    values: dict[str, Any] = {
        "version": VERSION_WITH_PORTS if record.services else VERSION,
        "hostname": record.hostname,
        **asked_field(asked),
        "addresses": list(record.addresses),
        "ttl": int(record.ttl) if record.ttl and record.ttl.is_integer() else record.ttl,
        "resolved_at": iso_seconds(record.resolved_at),
        "no_name_since": None if since is None else iso_seconds(since),
        "written_by": record.written_by,
    }
    if record.services:
        values["services"] = [one._asdict() for one in record.services]
    with contextlib.suppress(RecursionError):
        text = json.dumps(added | values, indent=2)
        if len(text) <= _MAX_TEXT:
            return text
    return json.dumps(values, indent=2)


def dropped_fields(before: str | None, rendered: str) -> list[str]:
    """The names of fields that were added to a text and are not in the one that replaces it."""
    with contextlib.suppress(BrokenVariableError):
        added = load_object(before or "").keys() - json.loads(rendered).keys() - {"services"}
        return sorted(printable(name, 40) for name in added)
    return []


def printable(text: str, longest: int) -> str:
    """A text from another writer, on one line and shortened."""
    return "".join(c if c.isprintable() else "?" for c in text[:longest])


def asked_field(asked: tuple[str, ...]) -> dict[str, list[str]]:
    """The field with the nameservers of a stored text; none for the system's nameservers."""
    return {"asked": list(asked)} if asked else {}


def iso_seconds(seconds: float) -> str:
    """The text that :func:`read_stamp` reads."""
    return utc(math.floor(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def whole_seconds(record: LastKnownGood) -> LastKnownGood:
    """A record as it will be read back: an unchanged one compares equal, and is not written."""
    since = record.no_name_since
    return replace(
        record,
        resolved_at=float(math.floor(record.resolved_at)),
        no_name_since=None if since is None else float(math.floor(since)),
        ttl=None if record.ttl is None else float(record.ttl),
    )


def _rank(record: LastKnownGood) -> tuple[Any, ...]:
    """The sort key by which one of two records wins. A lifetime of 0 differs from none."""
    ttl = -1.0 if record.ttl is None else record.ttl
    return record.resolved_at, record.addresses, record.services, ttl, record.written_by


def merge(one: LastKnownGood, other: LastKnownGood) -> LastKnownGood:
    """Merge two records of one hostname (policy rules 7 and 17).

    The newer answer wins; "no such name" counts from the first one after that answer. The order of
    the two records makes no difference.
    """
    newer = max(one, other, key=_rank)
    seen = [
        record.no_name_since
        for record in (one, other)
        if record.no_name_since is not None and record.no_name_since >= newer.resolved_at
    ]
    return replace(newer, no_name_since=min(seen, default=None))


def away_for(record: LastKnownGood, wall: float) -> float | None:
    """Seconds since the fleet found that the name does not exist; ``None`` while it exists."""
    since = record.no_name_since
    return None if since is None else max(0.0, wall - since)


def shown_record(record: LastKnownGood, wall: float) -> dict[str, Any]:
    """A record as the health endpoint and the commands show it, with ages instead of timestamps."""
    away = away_for(record, wall)
    return {
        "hostname": record.hostname,
        "addresses": list(record.places),
        "age": round(max(0.0, wall - record.resolved_at), 1),
        "name_away_for": None if away is None else round(away, 1),
        "written_by": record.written_by,
    }
