"""Answers of the endpoints in the states that the page must be able to show."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

HOST = "mlflow.example.local"

#: One of each kind of trouble, for a list with everything in it.
MIXED = ("healthy", "degraded", "unhealthy", "unknown")


def stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def connection(conn_id: str = "mlflow_default", state: str = "healthy", **changes: Any) -> dict:
    """One connection of ``GET /health/mlflow``."""
    hostname = changes.pop("hostname", HOST)
    now = datetime.now(UTC)
    known = {
        "hostname": hostname,
        "addresses": ["10.0.1.221"],
        "age": 130.0,
        "name_away_for": None,
        "written_by": "refresh",
    }
    told: dict[str, dict[str, Any]] = {
        "healthy": {
            "dns": "healthy",
            "mlflow": "healthy",
            "sentence": f"http://{hostname}:5000 answers at 10.0.1.221, an address that DNS "
            "returned just now.",
            "source": "dns",
            "age": 4.2,
            "ttl_left": 5.8,
            "latency_ms": 41.0,
        },
        "degraded": {
            "dns": "degraded",
            "mlflow": "degraded",
            "cause": "nxdomain",
            "sentence": (
                f"DNS says that {hostname!r} does not exist (nxdomain). Its stored address "
                "10.0.1.221, 412 s old, still works. Is MLflow being redeployed?"
            ),
            "source": "store",
            "age": 412.0,
            "ttl_left": None,
            "latency_ms": 58.0,
            "stale": {"ends_in": 522.6, "limit": 900.0, "rule": "no_such_name"},
            "last_known_good": {**known, "age": 412.0, "name_away_for": 377.0},
            "verdict": {"state": "degraded", "dns_cause": "nxdomain"},
        },
        "unhealthy": {
            "dns": "healthy",
            "mlflow": "unhealthy",
            "cause": "refused",
            "sentence": (
                f"http://{hostname}:5000 cannot be reached: nothing listens at 10.0.1.221 port "
                "5000. MLflow is down or listens elsewhere: start it, or correct the port of the "
                "connection."
            ),
            "source": "dns",
            "age": 3.0,
            "ttl_left": 7.0,
            "latency_ms": None,
            "verdict": {"state": "unreachable", "dns_cause": None},
        },
        "unknown": {
            "dns": "unknown",
            "mlflow": "unknown",
            "sentence": "This API server process has not checked yet.",
            "source": None,
            "addresses": [],
            "age": None,
            "ttl_left": None,
            "looked_at": None,
            "last_known_good": None,
        },
    }
    return {
        "conn_id": conn_id,
        "state": state,
        "cause": None,
        "hostname": hostname,
        "history_name": hostname,
        "tracking_uri": f"http://{hostname}:5000",
        "addresses": ["10.0.1.221"],
        "looked_at": stamp(now - timedelta(seconds=3)),
        "latency_ms": None,
        "last_known_good": known,
        "variable_problem": None,
        "verdict": None,
        "stale": None,
        **told[state],
        **changes,
    }


def health(*connections: dict, **changes: Any) -> dict[str, Any]:
    """The whole of ``GET /health/mlflow``."""
    return {
        "version": 1,
        "generated_at": stamp(datetime.now(UTC)),
        "seen_by": {"host": "airflow-api-0", "pid": 17, "since": "2026-11-24T06:00:00Z"},
        "problem": None,
        "policy": {"variable": "hokusai_dns_policy", "values": {}, "problem": None},
        "connections": list(connections),
        **changes,
    }


def day(seed: int = 1, *, trouble: tuple[tuple[int, int, str], ...] = ()) -> list[dict[str, Any]]:
    """The points of one name over a day, one in five minutes.

    :param trouble: from which point to which one which state.
    """
    chance = random.Random(seed)
    now = datetime.now(UTC)
    points = []
    for index in range(288):
        at = now - timedelta(minutes=5 * (288 - index) - 2)
        state = next((word for start, end, word in trouble if start <= index < end), "resolved")
        wave = 30 + 14 * chance.random() + (60 * chance.random() if index % 53 == 0 else 0)
        points.append(
            {
                "at": stamp(at),
                "state": state,
                "addresses": [] if state == "failed" else ["10.0.1.221"],
                "cause": None if state == "resolved" else "nxdomain",
                "lookup_ms": round(4 + 8 * chance.random(), 1),
                "probe": {"resolved": "healthy", "stale": "degraded", "failed": "unhealthy"}[state],
                "probe_ms": None if state == "failed" else round(wave, 1),
            }
        )
    return points


def history(names: dict[str, list[dict[str, Any]]], **changes: Any) -> dict[str, Any]:
    """The whole of ``GET /history``."""
    now = datetime.now(UTC)
    return {
        "version": 1,
        "generated_at": stamp(now),
        "newest": stamp(now - timedelta(seconds=140)),
        "age": 140.0,
        "note": "The last refresh was 2 minutes ago.",
        "names": names,
        "problems": {},
        **changes,
    }


def fleet(size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Health and history of many connections, a few of them in trouble."""
    kinds = {3: "unhealthy", 17: "degraded", 31: "degraded", 40: "unknown"}
    connections, names = [], {}
    for index in range(size):
        host = f"mlflow-{index:02}.example.local"
        state = kinds.get(index, "healthy")
        connections.append(connection(f"mlflow_team_{index:02}", state, hostname=host))
        trouble = ((40 + index, 44 + index, "stale"),) if index % 5 == 0 else ()
        names[host] = day(index, trouble=trouble)
    return health(*connections), history(names)
