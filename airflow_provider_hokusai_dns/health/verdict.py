"""The state of an MLflow server, as a value that is passed between processes.

Each state requires a different action, which is in the verdict's sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypedDict

from airflow_provider_hokusai_dns.resolver.level import USABLE, Level

_VERSION = 1
#: The cause if there is an address that is not fresh, and it may not be used (policy rule 18).
OLD_ADDRESS_REFUSED = "old_address_refused"


class State(StrEnum):
    """The state of an MLflow server, as its users see it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNRESOLVED = "unresolved"
    UNREACHABLE = "unreachable"
    TLS_ERROR = "tls_error"
    HOST_REJECTED = "host_rejected"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    WORKSPACE_MISSING = "workspace_missing"
    BACKEND_DOWN = "backend_down"
    NOT_MLFLOW = "not_mlflow"
    ARTIFACT_FAILED = "artifact_failed"
    CONFIG = "config"


class VerdictDict(TypedDict):
    """A verdict as it is passed between processes: trigger payload, XCom, endpoint."""

    version: int
    state: str
    level: str
    cause: str
    sentence: str
    conn_id: str
    tracking_uri: str
    checked_at: str
    dns_cause: str | None
    address: str | None
    address_source: str | None
    address_age: float | None
    latencies: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The state of an MLflow server, why, and what to do about it.

    :param cause: the cause as one word for programs, for example ``refused`` or ``http_503``.
    :param sentence: what is wrong and what to do, for people.
    :param tracking_uri: with the hostname, without a tag or a secret.
    :param checked_at: when the probe ended.
    :param dns_cause: why the address is not fresh, or why there is none; else ``None``.
    :param address: the address that was probed; ``None`` if there was none.
    :param address_source: the value of a :class:`~..resolver.Source`.
    :param address_age: seconds since DNS returned the address.
    :param latencies: milliseconds by check.
    """

    state: State
    cause: str
    sentence: str
    conn_id: str
    tracking_uri: str
    checked_at: datetime
    dns_cause: str | None = None
    address: str | None = None
    address_source: str | None = None
    address_age: float | None = None
    latencies: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def level(self) -> Level:
        """``healthy``, ``degraded`` or ``unhealthy``."""
        return Level(self.state.value) if self.state.value in USABLE else Level.UNHEALTHY

    @property
    def milliseconds(self) -> float | None:
        """Of all requests together; ``None`` where none was made."""
        return round(sum(self.latencies.values()), 1) or None

    def meets(self, min_health: str) -> bool:
        """Whether this is good enough for a gate.

        :param min_health: ``"healthy"`` or ``"degraded"``.
        :raises ValueError: it is any other value.
        """
        if min_health not in USABLE:
            raise ValueError(f'min_health must be "healthy" or "degraded", not {min_health!r}')
        return self.level.meets(min_health)

    def as_dict(self) -> VerdictDict:
        """This verdict as JSON-safe values."""
        return {
            "version": _VERSION,
            "state": self.state.value,
            "level": self.level.value,
            "cause": self.cause,
            "sentence": self.sentence,
            "conn_id": self.conn_id,
            "tracking_uri": self.tracking_uri,
            "checked_at": self.checked_at.isoformat(),
            "dns_cause": self.dns_cause,
            "address": self.address,
            "address_source": self.address_source,
            "address_age": self.address_age,
            "latencies": dict(self.latencies),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Verdict:
        """Read the output of :meth:`as_dict`.

        :raises ValueError: it is of another version, or a field is missing or invalid.
        """
        if value.get("version") != _VERSION:
            raise ValueError(
                f"a verdict of version {value.get('version')!r} cannot be read by this version "
                f"of the package, which writes {_VERSION}: upgrade both sides"
            )
        try:
            return cls(
                state=State(value["state"]),
                cause=str(value["cause"]),
                sentence=str(value["sentence"]),
                conn_id=str(value["conn_id"]),
                tracking_uri=str(value["tracking_uri"]),
                checked_at=datetime.fromisoformat(value["checked_at"]),
                dns_cause=value["dns_cause"],
                address=value["address"],
                address_source=value["address_source"],
                address_age=value["address_age"],
                latencies=MappingProxyType({k: float(v) for k, v in value["latencies"].items()}),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"this is not a verdict: {type(error).__name__} {error}") from None
