"""What is known about one connection, as a value. Imports neither Airflow nor a web framework."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.health.stale_addresses import login_age_limit
from airflow_provider_hokusai_dns.health.verdict import OLD_ADDRESS_REFUSED, State, Verdict
from airflow_provider_hokusai_dns.resolver import freshness
from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
from airflow_provider_hokusai_dns.resolver.level import Level, worst
from airflow_provider_hokusai_dns.resolver.model import LONG_AGO, LastKnownGood, Resolution
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.store.history import shown_name
from airflow_provider_hokusai_dns.store.record import shown_record

_NOT_CHECKED = (
    "This API server process has not checked yet, or its first check is under way: ask again in a "
    "moment."
)


@dataclass(frozen=True, slots=True)
class ConnectionTarget:
    """The server of a connection, and the stored record of its name.

    :param problem: what is wrong with the Variable of that record, in a sentence.
    :param login_limit: seconds of age up to which an address that is not fresh is used by a
        connection with credentials and without a verified certificate; ``None`` if its age makes
        no difference.
    :param asked: the nameservers and the SRV name set on the connection; empty for the system's.
    :param stored_until: until when the record may be served, in seconds since the epoch.
    :param has_static: whether there is a static address for the name.
    """

    hostname: str | None = None
    uri: str | None = None
    record: LastKnownGood | None = None
    problem: str | None = None
    login_limit: float | None = None
    asked: tuple[str, ...] = ()
    stored_until: float = LONG_AGO
    has_static: bool = False

    @classmethod
    def of(
        cls,
        server: MLflowServer,
        config: ResolverConfig,
        record: LastKnownGood | None = None,
        problem: str | None = None,
    ) -> ConnectionTarget:
        """The target of a connection under the policy that is in force for it."""
        hostname = Target.parse(server.connect_host).hostname
        return cls(
            hostname,
            server.uri,
            record,
            problem,
            login_limit=login_age_limit(server),
            asked=server.view.asked,
            stored_until=usable_until(record, time.time(), config) if record else LONG_AGO,
            has_static=bool(config.static_addresses_for(hostname)),
        )

    @property
    def history_name(self) -> str | None:
        """The key of this name's last day in the history endpoint's answer."""
        return None if self.hostname is None else shown_name(self.hostname, self.asked)

    def dns(self, wall: float) -> Level:
        """The state of the name according to its stored record."""
        if self.record is None:
            return Level.UNKNOWN
        if self.record.no_name_since is None:
            return Level.HEALTHY
        is_served = wall < self.stored_until or self.has_static
        return Level.DEGRADED if is_served else Level.UNHEALTHY


@dataclass(frozen=True, slots=True)
class ConnectionHealth:
    """The latest state of one connection.

    :param found: what its name resolved to in the check of the verdict; ``None`` if there was no
        address to serve, and before the first check.
    """

    conn_id: str
    target: ConnectionTarget = ConnectionTarget()
    verdict: Verdict | None = None
    found: Resolution | None = None
    seen_at: float = float("-inf")

    def at(self, now: float, limit: float) -> ConnectionHealth:
        """The same, without a verdict that is older than ``limit`` seconds."""
        if now - self.seen_at <= limit:
            return self
        return replace(self, verdict=None, found=None)

    @property
    def is_of_former_server(self) -> bool:
        """Whether the verdict is on the server that the connection named before an edit."""
        uri = self.target.uri
        return self.verdict is not None and uri not in (None, self.verdict.tracking_uri)

    @property
    def mlflow(self) -> Level:
        """Whether MLflow can be used: the level of the last check."""
        return Level.UNKNOWN if self.verdict is None else self.verdict.level

    @property
    def dns(self) -> Level:
        """The state of the name, from the last check or, without one, from its stored record."""
        if self.found is not None:
            return Level.DEGRADED if self.found.is_stale else Level.HEALTHY
        if self.verdict is not None and self.verdict.state is State.UNRESOLVED:
            return Level.UNHEALTHY
        return self.target.dns(time.time())

    @property
    def state(self) -> Level:
        """The overall state."""
        return worst((self.dns, self.mlflow)) if self.verdict is None else self.verdict.level

    @property
    def cause(self) -> str | None:
        """The cause of a state that is not healthy, as one word for programs."""
        if self.verdict is None or self.verdict.level == "healthy":
            return None
        return self.verdict.cause

    def status_row(self) -> dict[str, Any]:
        """Plain values with current ages: a row of the endpoint and of the command."""
        wall, verdict, found, record = time.time(), self.verdict, self.found, self.target.record
        stale = None if found is None else stale_limit_row(found, self.target)
        is_refused = verdict is not None and verdict.cause == OLD_ADDRESS_REFUSED
        if stale is not None and is_refused and stale["ends_in"] > 0:
            stale = None  # not in use, and for another reason than its age
        return {
            "conn_id": self.conn_id,
            "state": self.state.value,
            "dns": self.dns.value,
            "mlflow": self.mlflow.value,
            "cause": self.cause,
            "sentence": _NOT_CHECKED if verdict is None else verdict.sentence,
            "hostname": self.target.hostname,
            "history_name": self.target.history_name,
            "tracking_uri": self.target.uri or (verdict.tracking_uri or None if verdict else None),
            "addresses": [] if found is None else list(found.places),
            "source": None if found is None else found.source.value,
            "age": None if found is None else rounded(found.age()),
            "ttl_left": None if found is None else rounded(found.ttl_left()),
            "stale": stale,
            "looked_at": None if verdict is None else verdict.checked_at,
            "latency_ms": None if verdict is None else verdict.milliseconds,
            "last_known_good": None if record is None else shown_record(record, wall),
            "variable_problem": self.target.problem,
            "verdict": None if verdict is None else dict(verdict.as_dict()),
        }


def stale_limit_row(found: Resolution, target: ConnectionTarget) -> dict[str, Any] | None:
    """How long a stale address is still served; ``None`` for one that is not stale."""
    in_force, since = found.stale_limit, found.dates.stamp
    if in_force is None or since is None:
        return None
    rule = "no_such_name" if in_force.no_such_name else "age"
    limit, until = in_force.seconds, in_force.until
    if target.login_limit is not None and since + target.login_limit < until:
        rule, limit, until = "login_over_http", target.login_limit, since + target.login_limit
    left = max(0.0, until - found.dates.clock.monotonic())
    return {"ends_in": round(left, 1), "limit": limit, "rule": rule}


def usable_until(record: LastKnownGood, now: float, config: ResolverConfig) -> float:
    """Until when a record may be served, in seconds since the epoch: the policy's own functions."""
    entry = freshness.Entry(record.hostname)
    try:
        return freshness.stale_until(freshness.adopt(entry, record, now, now, config), config)
    except ValueError:
        return 0.0


def rounded(value: float | None) -> float | None:
    """Seconds for people and programs: to a tenth."""
    return None if value is None else round(value, 1)
