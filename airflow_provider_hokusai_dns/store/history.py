"""The last day of one hostname as recorded by its refreshes: key, parsing, adding, rendering.

Pure functions of text and ``now``, as in :mod:`~.record`. The history has three limits: a day, 288
points (one per five minutes), and the size of the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from airflow_provider_hokusai_dns.resolver.level import USABLE, Level
from airflow_provider_hokusai_dns.resolver.model import Endpoint
from airflow_provider_hokusai_dns.resolver.target import parse_address
from airflow_provider_hokusai_dns.store import record

VERSION = 1
MAX_AGE = 86_400.0
MAX_POINTS = 288
MAX_ADDRESSES = 8
#: Characters; a reader refuses more than 65,536.
_MAX_TEXT = 60_000
_PREFIX = "hokusai_dns_history_"
_STATES = ("resolved", "stale", "failed")
_LEVELS = (*USABLE, Level.UNHEALTHY)


class HistoryPoint(TypedDict):
    """One refresh of one name. ``state`` is ``resolved``, ``stale`` or ``failed``, ``probe`` the
    level of a probe of MLflow. Durations are milliseconds; ``None`` is what was not measured.
    """

    at: str
    state: str
    addresses: list[str]
    cause: str | None
    lookup_ms: float | None
    probe: str | None
    probe_ms: float | None


@dataclass(frozen=True, slots=True)
class History:
    """A parsed text: its points, oldest first, and how many points were ignored."""

    points: tuple[HistoryPoint, ...]
    passed_over: int = 0


def history_key(hostname: str, asked: tuple[str, ...] = ()) -> str:
    """The key of the Variable that holds the history of a hostname."""
    return record.variable_key(hostname, _PREFIX, asked=asked)


def shown_name(hostname: str, asked: tuple[str, ...] = ()) -> str:
    """A name for people, with the nameservers of its connection, if it sets any."""
    return f"{hostname} at {', '.join(asked)}" if asked else hostname


def parse_history(
    hostname: str, text: str, *, now: float, skew: float = 300.0, asked: tuple[str, ...] = ()
) -> History:
    """Read a stored text; malformed points are ignored one by one.

    Points in the future are ignored too: they were written while a clock was wrong, and would
    otherwise stay the newest.

    :param skew: seconds by which a point may be ahead of ``now``.
    :raises BrokenVariableError: the text is not a history of this hostname.
    """
    values = record.load_of(hostname, text, (VERSION,), asked)
    stored = values.get("points")
    if not isinstance(stored, list):
        raise record.BrokenVariableError("its points are not a list")
    by_time: dict[float, HistoryPoint] = {}
    bad = 0
    for item in stored:
        try:
            at, point = _point(item)
        except ValueError:
            bad += 1
            continue
        if at > now + skew:
            bad += 1
        else:
            by_time[at] = point
    return History(_last_day(by_time, now), bad)


def with_point(
    points: tuple[HistoryPoint, ...], point: HistoryPoint, *, now: float
) -> tuple[HistoryPoint, ...]:
    """Add a point, within a day and 288 points. It replaces a point of the same second."""
    by_time = {record.read_stamp(one["at"], "at"): one for one in (*points, point)}
    return _last_day(by_time, now)


def _last_day(by_time: Mapping[float, HistoryPoint], now: float) -> tuple[HistoryPoint, ...]:
    return tuple(by_time[at] for at in sorted(by_time) if at >= now - MAX_AGE)[-MAX_POINTS:]


def render_history(
    hostname: str, points: tuple[HistoryPoint, ...], asked: tuple[str, ...] = ()
) -> str:
    """Render points as text; the oldest are dropped if it would get too long."""
    lines = [json.dumps(_short(point), separators=(",", ":")) for point in points]
    about = {"version": VERSION, "hostname": hostname, **record.asked_field(asked)}
    head = json.dumps(about).removesuffix("}") + ', "points": [\n'
    room = _MAX_TEXT - len(head) - 2
    kept = len(lines)
    while kept and sum(len(line) + 2 for line in lines[-kept:]) > room:
        kept -= 1
    return head + ",\n".join(lines[len(lines) - kept :]) + "]}"


def _short(point: HistoryPoint) -> dict[str, Any]:
    """A point without empty fields; most points have no cause."""
    short = {name: value for name, value in point.items() if value is not None}
    return short | {"addresses": point["addresses"][:MAX_ADDRESSES]}


def _point(item: object) -> tuple[float, HistoryPoint]:
    """A point and its time; :class:`ValueError` if it is malformed."""
    if not isinstance(item, dict):
        raise ValueError
    addresses = item.get("addresses", [])
    if not isinstance(addresses, list) or len(addresses) > 10 * MAX_ADDRESSES:
        raise ValueError
    canonical = [_place(one) for one in addresses]
    probe, cause = item.get("probe"), item.get("cause")
    if item.get("state") not in _STATES or probe not in (None, *_LEVELS):
        raise ValueError
    if not isinstance(cause, str | None):
        raise ValueError
    at = record.read_stamp(item.get("at"), "at")
    return at, HistoryPoint(
        at=record.iso_seconds(at),
        state=item["state"],
        addresses=canonical[:MAX_ADDRESSES],
        cause=None if cause is None else record.printable(cause, 40),
        lookup_ms=_milliseconds(item.get("lookup_ms")),
        probe=probe,
        probe_ms=_milliseconds(item.get("probe_ms")),
    )


def _place(value: object) -> str:
    """An address, with its port if it has one."""
    if not isinstance(value, str):
        raise ValueError
    place = Endpoint.parse(value)
    address = parse_address(place.address)
    if address is None:
        raise ValueError
    return str(place._replace(address=address))


def _milliseconds(value: Any) -> float | None:
    if value is None:
        return None
    if not record.is_number(value) or not 0 <= value < 1e9:
        raise ValueError
    return float(value)
