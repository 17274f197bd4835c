"""One probe of an MLflow server, from the point of view of its users.

Short, bounded hard, on a fresh connection and without retries; the part that needs no credentials
comes first. MLflow's own client is not used: it would retry a 503 for minutes, and its import
costs seconds.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from airflow_provider_hokusai_dns.config.errors import TLSFileError
from airflow_provider_hokusai_dns.config.server import MLflowServer, tls_context
from airflow_provider_hokusai_dns.health.connection import Deadline, ProbeConnection
from airflow_provider_hokusai_dns.health.judge import judge
from airflow_provider_hokusai_dns.health.reply import (
    ALL_CHECKS,
    DEFAULT_CHECKS,
    NO_CONNECTION,
    Reply,
    ReplyFailure,
)
from airflow_provider_hokusai_dns.health.stale_addresses import (
    CHECK,
    USE,
    not_mlflow_at,
    stale_address_rule,
)
from airflow_provider_hokusai_dns.health.verdict import Verdict
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.model import Endpoint, Resolution

_CONNECT_TIMEOUT = 2.0
#: For deleting the artifact; added to the deadline.
_CLEANUP_SECONDS = 2.0
#: Among how many of the newest experiments one is sought whose artifacts the server proxies; fewer
#: if their tags and descriptions are too long for one reply.
_EXPERIMENTS = (20, 4, 1)
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


def probe(
    server: MLflowServer,
    resolution: Resolution | DNSResolutionError,
    *,
    checks: Collection[str] = DEFAULT_CHECKS,
    deadline: float = 10.0,
    report: Callable[[Endpoint], None] | None = None,
) -> Verdict:
    """Probe an MLflow server.

    The addresses are tried in turn until one accepts a connection. Blocks; never imports MLflow.

    :param resolution: the resolver's answer for the server, or the error that it raised.
    :param checks: any of ``dns``, ``tracking``, ``registry``, ``artifact``; with ``dns`` alone
        nothing is sent.
    :param deadline: seconds for all but the clean-up after ``artifact``, which gets two more.
    :param report: called with each address that did not accept a connection (policy rule 13).
    :raises ValueError: a check does not exist, or the deadline is not above 0.
    """
    unknown = set(checks) - set(ALL_CHECKS)
    if unknown or not checks:
        known = ", ".join(ALL_CHECKS)
        raise ValueError(f"checks may contain {known}, not {sorted(unknown) or 'nothing'}")
    if not deadline > 0:
        raise ValueError(
            f"the deadline of a probe must be a number of seconds above 0, not {deadline}"
        )
    if isinstance(resolution, DNSResolutionError) or set(checks) == {"dns"}:
        return judge(server, resolution, checked_at=datetime.now(UTC))
    replies, address, refusal = _ask(server, resolution, checks, deadline, report)
    return judge(
        server, resolution, replies, checked_at=datetime.now(UTC), address=address, refusal=refusal
    )


def _ask(
    server: MLflowServer,
    resolution: Resolution,
    checks: Collection[str],
    deadline: float,
    report: Callable[[Endpoint], None] | None,
) -> tuple[list[Reply], str, str | None]:
    """The replies, the probed address, and why a stale one was rejected."""
    rule = stale_address_rule(server, resolution)
    if rule not in (USE, CHECK):
        return [], resolution.address, rule
    try:
        tls = tls_context(server)
    except TLSFileError as error:
        reply = Reply("health", failure=ReplyFailure.TLS_FILE, detail=str(error))
        return [reply], resolution.address, None
    replies: list[Reply] = []
    refused: tuple[list[Reply], str, str] | None = None
    with Deadline(deadline) as limit:
        for index, endpoint in enumerate(resolution.endpoints):
            share = limit.remaining / (len(resolution.endpoints) - index)
            with ProbeConnection(
                server,
                endpoint.address,
                endpoint.port or server.connect_port,
                tls=tls,
                deadline=limit,
                connect_timeout=min(_CONNECT_TIMEOUT, share),
            ) as connection:
                replies = connection.ask_openly()
                if replies[0].failure in NO_CONNECTION and report is not None:
                    report(endpoint)
                if replies[0].failure is not None and limit.remaining > 0:
                    continue
                place = str(endpoint)
                if rule == CHECK and (stranger := not_mlflow_at(server, replies, place)):
                    # As the pin does: another of the stale addresses may still be the server's.
                    refused = refused or (replies, place, stranger)
                    continue
                so_far = judge(server, resolution, replies, checked_at=datetime.now(UTC))
                if so_far.level is not Level.UNHEALTHY:
                    _closed_part(server, connection, checks, replies)
                return replies, place, None
    return refused or (replies, resolution.places[-1], None)


def _closed_part(
    server: MLflowServer, connection: ProbeConnection, checks: Collection[str], replies: list[Reply]
) -> None:
    """Send the requests with credentials, each only if the one before succeeded."""
    headers = {"Content-Type": "application/json", **server.headers(_API)}
    for count in _EXPERIMENTS if "artifact" in checks else (1,):
        path, body = f"{_API}/experiments/search", b'{"max_results": %d}' % count
        tracking = connection.ask("tracking", "POST", path, headers=headers, body=body)
        if tracking.failure is not ReplyFailure.BODY_TOO_LARGE:
            break
    replies.append(tracking)
    if not tracking.is_listing:
        return
    if "registry" in checks and (prefix := server.registry_prefix) is not None:
        path = f"{prefix}{_API}/registered-models/search?max_results=1"
        registry = connection.ask("registry", "GET", path, headers=headers)
        replies.append(registry)
        if not registry.is_listing:
            return
    if "artifact" in checks:
        replies.append(_write_artifact(server, connection, tracking, headers))


def _write_artifact(
    server: MLflowServer, connection: ProbeConnection, tracking: Reply, headers: dict[str, str]
) -> Reply:
    """Store a few bytes through the server's artifact proxy, and delete them again."""
    folder = _artifact_folder(tracking)
    if folder is None:
        return Reply("artifact", detail="not_proxied")
    path = _ARTIFACTS + quote(folder)
    headers = {**headers, "Content-Type": "text/plain"}
    stored = connection.ask(
        "artifact", "PUT", f"{path}/probe.txt", headers=headers, body=b"a health probe\n"
    )
    if stored.failure in NO_CONNECTION:
        return stored
    # Also after a failure: half of it may be there. With a deadline of its own: an upload that
    # timed out may still be stored.
    with (
        Deadline(_CLEANUP_SECONDS) as limit,
        ProbeConnection(
            server,
            connection.address,
            connection.port,
            tls=connection.tls,
            deadline=limit,
            connect_timeout=_CLEANUP_SECONDS,
        ) as fresh,
    ):
        removed = fresh.ask("artifact", "DELETE", path, headers=headers)
    # That a delete is slow says nothing about writing; that it is refused is worth knowing.
    refused = removed.failure is None and removed.status != 200
    if stored.status == 200 and stored.failure is None and refused:
        return removed
    return stored


def _artifact_folder(tracking: Reply) -> str | None:
    """A separate folder in the newest experiment whose artifacts pass through the server.

    Its permissions are then tested. Another experiment may have a location of its own.
    """
    name = f"hokusai-dns-probe-{uuid.uuid4().hex}"
    experiments = (tracking.document or {}).get("experiments") or [{}]
    for experiment in experiments if isinstance(experiments, list) else ():
        # What answers may not be an MLflow.
        with contextlib.suppress(AttributeError, ValueError):
            parts = urlsplit(str(experiment.get("artifact_location") or "mlflow-artifacts:/"))
            if parts.scheme == "mlflow-artifacts":
                return "/".join(part for part in (parts.path.strip("/"), name) if part)
    return None
