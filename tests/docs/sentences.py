"""What the code says to people, to compare the pages with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import airflow_provider_hokusai_dns
from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.gates.decision import in_one_line
from airflow_provider_hokusai_dns.health.judge import judge
from airflow_provider_hokusai_dns.health.reply import Reply, ReplyFailure
from airflow_provider_hokusai_dns.health.verdict import Verdict
from airflow_provider_hokusai_dns.resolver import Cause, Endpoint, Resolution, Source
from airflow_provider_hokusai_dns.resolver.model import Dates

PACKAGE = Path(airflow_provider_hokusai_dns.__file__).parent
ADDRESS = "10.0.1.221"


class _Clock:
    """One that stands still, a minute after the answers below were given."""

    def monotonic(self) -> float:
        return 60.0

    def time(self) -> float:
        return 1_795_417_200.0


def _server(**fields: Any) -> MLflowServer:
    usual = {"conn_id": "mlflow_default", "scheme": "http", "hostname": "mlflow.example.local"}
    return MLflowServer(**{**usual, "port": 5000, **fields})


def _resolution(source: Source = Source.DNS, cause: Cause | None = None) -> Resolution:
    return Resolution(
        target="mlflow.example.local",
        hostname="mlflow.example.local",
        endpoints=(Endpoint(ADDRESS),),
        source=source,
        cause=cause,
        dates=Dates(
            _Clock(),
            _Clock().time() - _Clock().monotonic(),
            None if source is Source.STATIC else 0.0,
        ),
    )


@cache
def verdicts() -> tuple[Verdict, ...]:
    """What a gate may say about the server of the pages, in many situations."""
    return tuple(_verdicts())


def _verdicts() -> Iterator[Verdict]:
    plain, https = _server(), _server(scheme="https")
    fresh = _resolution()
    ok = Reply("health", 200, body=b"OK")

    def one(server: MLflowServer, found: Any, *replies: Reply) -> Verdict:
        return judge(server, found, replies, checked_at=datetime.now(UTC))

    yield one(plain, fresh, ok)
    yield one(plain, fresh)
    for cause in Cause:
        for unread in (False, True):
            error = DNSResolutionError("mlflow.example.local", cause, is_unread=unread)
            yield one(plain, error)
        for source in (Source.STALE, Source.STORE, Source.STATIC):
            own = (ADDRESS,) if source is Source.STATIC else ()
            yield one(_server(fallback_addresses=own), _resolution(source, cause), ok)
    old = _resolution(Source.STALE, Cause.NXDOMAIN)
    for failure in ReplyFailure:
        for server in (plain, https):
            for check in ("health", "tracking", "registry", "artifact"):
                yield one(server, fresh, Reply(check, failure=failure))
                yield one(server, old, Reply(check, failure=failure))
    yield one(plain, fresh, Reply("health", 503))
    yield one(plain, fresh, Reply("tracking", 403, body=b"Invalid Host header"))
    yield one(plain, fresh, Reply("tracking", 302, location="/login"))
    for check in ("tracking", "registry", "artifact"):
        for status in (200, 401, 403, 404, 500, 503):
            yield one(plain, fresh, ok, Reply(check, status))
            yield one(
                _server(credentials=Credentials("me", "secret")), fresh, ok, Reply(check, status)
            )
    yield one(_server(workspace="team-a"), fresh, ok, Reply("tracking", 404))


@cache
def verdict_lines() -> frozenset[str]:
    """The same as lines of a log."""
    return frozenset(map(in_one_line, verdicts()))


def is_logged(line: str) -> bool:
    """Whether the package logs lines like this one; level and logger may stand before it."""
    message = re.sub(r"^(\S+ )?(INFO|WARNING|ERROR) - ", "", line)
    return any(pattern.fullmatch(message) for pattern in _logged())


@cache
def _logged() -> tuple[re.Pattern[str], ...]:
    patterns = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "%" in node.value:
                parts = re.split(r"%(?:\.\d+)?[sdrf]", node.value)
                if len("".join(parts).strip()) > 15:
                    patterns.append(re.compile(".+".join(map(re.escape, parts))))
    return tuple(patterns)
