"""The answers of the endpoints, with examples: their contract with clients.

Fields may be added; a change of a field's meaning requires another ``version``.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

Word = Literal["healthy", "degraded", "unhealthy", "unknown"]


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity; both become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_z(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Number = Annotated[float | None, BeforeValidator(_finite)]
Moment = Annotated[datetime, PlainSerializer(_with_z, return_type=str)]

_SELF_EXAMPLE: dict[str, Any] = {
    "host": "airflow-api-0",
    "pid": 17,
    "since": "2026-11-24T06:00:00Z",
}


def _with_example(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class Words(BaseModel):
    """One word each, for everyone: the worst of all listed connections, as last known."""

    model_config = _with_example({"overall": "degraded", "dns": "degraded", "mlflow": "degraded"})

    overall: Word
    dns: Word
    mlflow: Word


class Observer(BaseModel):
    """Which process measured this. Each API server process checks by itself; workers and
    triggerers see MLflow from elsewhere, and their counters go through Airflow's metrics.
    """

    model_config = _with_example(_SELF_EXAMPLE)

    host: str = Field(description="The machine of this API server.")
    pid: int = Field(description="This process; another one may answer the next request.")
    since: Moment = Field(description="When this process began to check.")


class Stored(BaseModel):
    """The last known good address that the whole fleet shares, from its Airflow Variable."""

    hostname: str
    addresses: list[str]
    age: Number = Field(description="Seconds since DNS returned it.")
    name_away_for: Number = Field(
        description="Seconds since a process first saw that the name does not exist; null while "
        "it exists."
    )
    written_by: str = Field(description="refresh, gate or hook.")


class StaleLimit(BaseModel):
    """How long the stale address in use is still served, and which rule of the policy ends that."""

    ends_in: float = Field(description="Seconds, as of generated_at; 0 when it has ended.")
    limit: float = Field(description="Total seconds that the rule allows.")
    rule: Literal["no_such_name", "age", "login_over_http"]


class Connection(BaseModel):
    """One listed connection, as this process last checked it."""

    conn_id: str
    state: Word = Field(description="The overall state in one word.")
    dns: Word = Field(description="healthy: fresh; degraded: a stale, stored or static address.")
    mlflow: Word = Field(description="Whether MLflow can be used.")
    cause: str | None = Field(description="The cause as one word; null while healthy.")
    sentence: str = Field(description="Why, and what to do, for people.")
    hostname: str | None
    history_name: str | None = Field(
        description="Its name in /history: the hostname, and the connection's own nameservers."
    )
    tracking_uri: str | None
    addresses: list[str]
    source: str | None = Field(
        description="literal, hosts, cache, dns, system, stale, store or static."
    )
    age: Number = Field(description="Seconds since DNS returned the addresses.")
    ttl_left: Number = Field(description="Seconds until the next lookup; null when not fresh.")
    stale: StaleLimit | None = Field(description="null unless a stale address is in use.")
    looked_at: Moment | None = Field(description="When MLflow was last checked.")
    latency_ms: Number = Field(description="Duration of its requests to MLflow, milliseconds.")
    last_known_good: Stored | None
    variable_problem: str | None = Field(
        description="What is wrong with the shared Variable, which is then ignored."
    )
    verdict: dict[str, Any] | None = Field(description="The whole verdict of the last check.")


class PolicyVariable(BaseModel):
    """What the Variable `hokusai_dns_policy` changes in this process."""

    variable: str
    values: dict[str, float] = Field(description="The numbers in force; empty without it.")
    problem: str | None = Field(
        description="Why the current text is rejected; the previous numbers stay in force."
    )


class Health(BaseModel):
    """Each listed connection."""

    model_config = _with_example(
        {
            "version": 1,
            "generated_at": "2026-11-24T11:00:00Z",
            "seen_by": _SELF_EXAMPLE,
            "problem": None,
            "policy": {
                "variable": "hokusai_dns_policy",
                "values": {"max_stale_no_name": 3600.0},
                "problem": None,
            },
            "connections": [
                {
                    "conn_id": "mlflow_default",
                    "state": "degraded",
                    "dns": "degraded",
                    "mlflow": "degraded",
                    "cause": "nxdomain",
                    "sentence": "DNS says that 'mlflow.example.local' does not exist "
                    "(nxdomain). Its stored address 10.0.1.221, 83 s old, still works. "
                    "Is MLflow being redeployed?",
                    "hostname": "mlflow.example.local",
                    "history_name": "mlflow.example.local",
                    "tracking_uri": "http://mlflow.example.local:5000",
                    "addresses": ["10.0.1.221"],
                    "source": "store",
                    "age": 83.0,
                    "ttl_left": None,
                    "stale": {"ends_in": 880.0, "limit": 900.0, "rule": "no_such_name"},
                    "looked_at": "2026-11-24T10:59:52Z",
                    "latency_ms": 41.0,
                    "last_known_good": {
                        "hostname": "mlflow.example.local",
                        "addresses": ["10.0.1.221"],
                        "age": 83.0,
                        "name_away_for": 20.0,
                        "written_by": "refresh",
                    },
                    "variable_problem": None,
                    "verdict": None,
                }
            ],
        }
    )

    version: Literal[1] = 1
    generated_at: Moment
    seen_by: Observer
    problem: str | None = Field(
        default=None, description="Why the list of connections cannot be read."
    )
    policy: PolicyVariable
    connections: list[Connection]


class Point(BaseModel):
    """One refresh of one name."""

    at: str
    state: Literal["resolved", "stale", "failed"]
    addresses: list[str]
    cause: str | None
    lookup_ms: Number
    probe: Literal["healthy", "degraded", "unhealthy"] | None
    probe_ms: Number


class Days(BaseModel):
    """The last day of each name, as the refresh DAG recorded it; oldest first."""

    model_config = _with_example(
        {
            "version": 1,
            "generated_at": "2026-11-24T11:00:00Z",
            "newest": "2026-11-24T10:57:57Z",
            "age": 123.0,
            "note": "The last refresh was 2 minutes ago.",
            "names": {
                "mlflow.example.local": [
                    {
                        "at": "2026-11-24T10:57:57Z",
                        "state": "resolved",
                        "addresses": ["10.0.1.221"],
                        "cause": None,
                        "lookup_ms": 12.0,
                        "probe": "healthy",
                        "probe_ms": 41.0,
                    }
                ]
            },
            "problems": {},
        }
    )

    version: Literal[1] = 1
    generated_at: Moment
    newest: str | None
    age: Number = Field(description="Seconds since the newest point.")
    note: str = Field(description="How old the history is, and what to do if it is too old.")
    names: dict[str, list[Point]]
    problems: dict[str, str] = Field(
        default_factory=dict, description="By name: the part of its history that cannot be read."
    )
