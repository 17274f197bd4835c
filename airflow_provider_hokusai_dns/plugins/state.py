"""What is known of one connection, as a value. Knows no Airflow and no web."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.records import away_for, shown_record
from airflow_provider_hokusai_dns.tracking.verdict import State

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver import LastKnownGood, Resolution
    from airflow_provider_hokusai_dns.tracking.verdict import Verdict

#: From best to worst, for "the worst of all".
WORDS = ("healthy", "unknown", "degraded", "unhealthy")
_NOT_LOOKED = (
    "This API server process has not looked yet, or a first look is under way: ask again in a "
    "moment."
)


def worst(words: Iterable[str]) -> str:
    """The worst of some words; ``unknown`` of none."""
    return max(words, key=WORDS.index, default="unknown")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection leads, and what the shared Variable says about the name.

    :param problem: what is wrong with that Variable, in a sentence.
    :param no_name_limit: seconds for which an address is served after the name went away.
    :param max_stale: seconds of age up to which an address is served while DNS cannot be asked.
    :param login_limit: the same for a connection that sends credentials over plain http; ``None``
        where that makes no difference.
    """

    hostname: str | None = None
    uri: str | None = None
    record: LastKnownGood | None = None
    problem: str | None = None
    no_name_limit: float = 900.0
    max_stale: float = 86_400.0
    login_limit: float | None = None

    def away_for(self, wall: float) -> float | None:
        """Seconds since the fleet first saw that the name is gone; ``None`` while it is there."""
        return None if self.record is None else away_for(self.record, wall)

    def dns(self, wall: float) -> str:
        """The state of the name by what was written down."""
        if self.record is None:
            return "unknown"
        away = self.away_for(wall)
        if away is None:
            return "healthy"
        return "degraded" if away < self.no_name_limit else "unhealthy"


@dataclass(frozen=True, slots=True)
class Known:
    """The last that is known of one connection."""

    conn_id: str
    place: Place = Place()
    verdict: Verdict | None = None
    found: Resolution | None = None
    seen_at: float = float("-inf")

    def with_place(self, place: Place) -> Known:
        """The same after Airflow was read."""
        return replace(self, place=place)

    def with_look(self, verdict: Verdict, found: Resolution | None, *, seen_at: float) -> Known:
        """The same after a look."""
        return replace(self, verdict=verdict, found=found, seen_at=seen_at)

    def at(self, now: float, limit: float) -> Known:
        """The same, without a verdict that is older than ``limit`` seconds."""
        if now - self.seen_at <= limit:
            return self
        return replace(self, verdict=None, found=None)

    @property
    def mlflow(self) -> str:
        """Whether MLflow can be used: the level of the last look."""
        return "unknown" if self.verdict is None else self.verdict.level

    @property
    def dns(self) -> str:
        """The state of the name: by the last look, or else by what the fleet wrote down."""
        if self.verdict is None:
            return self.place.dns(time.time())
        if self.verdict.address is None:
            unresolved = self.verdict.state is State.UNRESOLVED
            return "unhealthy" if unresolved else self.place.dns(time.time())
        return "healthy" if self.verdict.dns_cause is None and not self._is_old else "degraded"

    @property
    def _is_old(self) -> bool:
        source = None if self.verdict is None else self.verdict.address_source
        return source in ("stale", "store", "static")

    @property
    def state(self) -> str:
        """One word for all of it."""
        return worst((self.dns, self.mlflow)) if self.verdict is None else self.verdict.level

    @property
    def cause(self) -> str | None:
        """The one word behind a state that is not healthy; data."""
        if self.verdict is None or self.verdict.level == "healthy":
            return None
        return self.verdict.cause

    def report(self) -> dict[str, Any]:
        """All of it as plain values, ages as of now."""
        wall, verdict, found = time.time(), self.verdict, self.found
        age = left = None
        if found is not None:
            age = found.age()
            left = None if self._is_old else found.ttl_left(wall)
        addresses = list(found.addresses) if found else []
        source = None if found is None else found.source.value
        if verdict is not None and verdict.address is not None:
            addresses = addresses or [verdict.address]
            source = verdict.address_source
            age = verdict.address_age if age is None else age
        return {
            "conn_id": self.conn_id,
            "state": self.state,
            "dns": self.dns,
            "mlflow": self.mlflow,
            "cause": self.cause,
            "sentence": _NOT_LOOKED if verdict is None else verdict.sentence,
            "hostname": self.place.hostname,
            "tracking_uri": self.place.uri or (verdict.tracking_uri or None if verdict else None),
            "addresses": addresses,
            "source": source,
            "age": _rounded(age),
            "ttl_left": _rounded(left),
            "stale": None if found is None else stale_limit(found, self.place, wall),
            "looked_at": None if verdict is None else verdict.checked_at,
            "latency_ms": _rounded(sum(verdict.latencies.values()))
            if verdict is not None and verdict.latencies
            else None,
            "last_known_good": None
            if self.place.record is None
            else shown_record(self.place.record, wall),
            "variable_problem": self.place.problem,
            "verdict": None if verdict is None else dict(verdict.as_dict()),
        }


def stale_limit(found: Resolution, place: Place, wall: float) -> dict[str, Any] | None:
    """How long a stale address is still served; ``None`` for one that is not stale.

    :param wall: seconds since the epoch.
    """
    if found.stale_until is None or found.resolved_at is None:
        return None
    since, until = found.resolved_at.timestamp(), found.stale_until.timestamp()
    # The sooner of two limits is in force (policy rules 6 and 7); stamps are rounded on their way.
    rule, limit = "age", place.max_stale
    if until < since + place.max_stale - 1:
        rule, limit = "no_such_name", place.no_name_limit
    if place.login_limit is not None and since + place.login_limit < until:
        rule, limit, until = "login_over_http", place.login_limit, since + place.login_limit
    return {"ends_in": round(max(0.0, until - wall), 1), "limit": limit, "rule": rule}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
