"""One look at an MLflow server, as its users will find it (feature C2).

Short, bounded hard, on a fresh connection and without retries; the part that needs no credentials
comes first. MLflow's own client is not used: it would retry a 503 for minutes, and its import
costs seconds.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from airflow_provider_hokusai_dns.resolver.model import DNSResolutionError, Source
from airflow_provider_hokusai_dns.tracking.judge import (
    NO_CONNECTION,
    OPEN_CHECKS,
    Failure,
    Reply,
    judge,
    looks_like_mlflow,
)
from airflow_provider_hokusai_dns.tracking.server import StaleOverHTTP
from airflow_provider_hokusai_dns.tracking.wire import Deadline, Line, TLSFileError, tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Sequence

    from airflow_provider_hokusai_dns.resolver.model import Resolution
    from airflow_provider_hokusai_dns.tracking.server import MLflowServer
    from airflow_provider_hokusai_dns.tracking.verdict import Verdict

#: What can be asked for.
CHECKS = ("dns", "tracking", "registry", "artifact")

#: The oldest address that gets credentials over plain http (feature B4), seconds.
MAX_AGE_WITH_CREDENTIALS = 900.0

_CONNECT_TIMEOUT = 2.0
#: For taking the artifact away again; comes on top of the deadline.
_CLEANUP_SECONDS = 2.0
_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
_OPEN_PATHS = {
    "health": "/health",
    "version": "/version",
    "server_info": "/api/3.0/mlflow/server-info",
}


def probe(
    server: MLflowServer,
    resolution: Resolution | DNSResolutionError,
    *,
    checks: Collection[str] = ("dns", "tracking", "registry"),
    deadline: float = 10.0,
    report: Callable[[str], None] | None = None,
) -> Verdict:
    """Ask an MLflow server how it is.

    The addresses are tried in turn until one takes a connection. Blocks; never imports MLflow.

    :param resolution: what the resolver gave for the server, or the error that it raised.
    :param checks: any of ``dns``, ``tracking``, ``registry``, ``artifact``; with ``dns`` alone
        nothing is sent.
    :param deadline: seconds for all of it but the clean-up after ``artifact``, which has one more.
    :param report: is told each address that took no connection (policy rule 13).
    :raises ValueError: for a check that does not exist, or a deadline that is not above 0.
    """
    unknown = set(checks) - set(CHECKS)
    if unknown or not checks:
        raise ValueError(f"checks may hold {', '.join(CHECKS)}, not {sorted(unknown) or 'nothing'}")
    if not deadline > 0:
        raise ValueError(f"the deadline of a probe is a number of seconds above 0, not {deadline}")
    if isinstance(resolution, DNSResolutionError) or set(checks) == {"dns"}:
        return judge(server, resolution, checked_at=datetime.now(UTC))
    replies: list[Reply] = []
    address, refusal = _ask(server, resolution, checks, deadline, report, replies)
    return judge(
        server,
        resolution,
        replies,
        checked_at=datetime.now(UTC),
        address=address,
        refusal=refusal,
    )


def _ask(
    server: MLflowServer,
    resolution: Resolution,
    checks: Collection[str],
    deadline: float,
    report: Callable[[str], None] | None,
    replies: list[Reply],
) -> tuple[str | None, str | None]:
    """Collect the replies; gives the address that was asked, and why an old one was refused."""
    rule = old_address_rule(server, resolution)
    if rule not in (USE, CHECK):
        return resolution.address, rule
    try:
        tls = tls_context(server)
    except TLSFileError as error:
        replies.append(Reply("health", failure=Failure.TLS_FILE, detail=str(error)))
        return resolution.address, None
    refused: tuple[str, str, list[Reply]] | None = None
    with Deadline(deadline) as limit:
        for index, endpoint in enumerate(resolution.endpoints):
            share = limit.remaining / (len(resolution.endpoints) - index)
            with Line(
                server,
                endpoint.address,
                endpoint.port or server.connect_port,
                tls=tls,
                deadline=limit,
                connect_timeout=min(_CONNECT_TIMEOUT, share),
            ) as line:
                replies[:] = _open_part(line)
                if replies[0].failure in NO_CONNECTION and report is not None:
                    report(endpoint.address)
                if replies[0].failure is not None and limit.remaining > 0:
                    continue
                if rule == CHECK and (stranger := _stranger(server, resolution, replies)):
                    # As the pin does: another of the old addresses may still be the server's.
                    refused = refused or (endpoint.address, stranger, [*replies])
                    continue
                if judge(server, resolution, replies, checked_at=datetime.now(UTC)).level != (
                    "unhealthy"
                ):
                    _closed_part(server, line, checks, replies)
                return endpoint.address, None
    if refused is not None:
        address, stranger, replies[:] = refused
        return address, stranger
    return resolution.endpoints[-1].address, None


def _open_part(line: Line) -> list[Reply]:
    """What needs no credentials."""
    replies = []
    for check in OPEN_CHECKS:
        reply = line.ask(check, "GET", _OPEN_PATHS[check])
        replies.append(reply)
        if reply.failure is not None:
            break
    return replies


def _closed_part(
    server: MLflowServer, line: Line, checks: Collection[str], replies: list[Reply]
) -> None:
    """What goes with credentials: each only after the one before was as it should be."""
    headers = {"Content-Type": "application/json"}
    if authorization := server.credentials.authorization():
        headers["Authorization"] = authorization
    if server.workspace:
        headers["X-MLFLOW-WORKSPACE"] = server.workspace
    tracking = line.ask(
        "tracking",
        "POST",
        f"{_API}/experiments/search",
        headers=headers,
        body=b'{"max_results": 1}',
    )
    replies.append(tracking)
    if tracking.status != 200 or tracking.failure is not None:
        return
    if "registry" in checks and _registry_is_here(server):
        registry = line.ask(
            "registry", "GET", f"{_API}/registered-models/search?max_results=1", headers=headers
        )
        replies.append(registry)
        if registry.status != 200 or registry.failure is not None:
            return
    if "artifact" in checks:
        replies.append(_write_artifact(server, line, tracking, headers))


def _registry_is_here(server: MLflowServer) -> bool:
    """Whether the model registry is part of the same server."""
    if server.registry_uri is None:
        return True
    parts = urlsplit(server.registry_uri)
    return (parts.scheme, parts.netloc.rpartition("@")[2]) == (server.scheme, server.authority)


def _write_artifact(
    server: MLflowServer, line: Line, tracking: Reply, headers: dict[str, str]
) -> Reply:
    """Store a few bytes through the server's artifact proxy, and take them away again."""
    folder = _artifact_folder(tracking)
    if folder is None:
        return Reply("artifact", detail="not_proxied")
    path = _ARTIFACTS + quote(folder)
    headers = {**headers, "Content-Type": "text/plain"}
    stored = line.ask(
        "artifact", "PUT", f"{path}/probe.txt", headers=headers, body=b"a health probe\n"
    )
    if stored.failure in NO_CONNECTION:
        return stored
    # Also after a failure: half of it may be there.
    removed = _clean_up(server, line, path, headers)
    # That a delete is slow says nothing about writing; that it is refused is worth knowing.
    refused = removed.failure is None and removed.status != 200
    if stored.status == 200 and stored.failure is None and refused:
        return removed
    return stored


def _clean_up(server: MLflowServer, line: Line, path: str, headers: dict[str, str]) -> Reply:
    """Take the artifact away, in time of its own: what timed out may be stored all the same."""
    with (
        Deadline(_CLEANUP_SECONDS) as limit,
        Line(
            server,
            line.address,
            line.port,
            tls=tls_context(server),
            deadline=limit,
            connect_timeout=_CLEANUP_SECONDS,
        ) as fresh,
    ):
        return fresh.ask("artifact", "DELETE", path, headers=headers)


def _artifact_folder(tracking: Reply) -> str | None:
    """A folder of its own in the first experiment, so that its permissions are what is tested."""
    name = f"hokusai-dns-probe-{uuid.uuid4().hex}"
    experiments = (tracking.document or {}).get("experiments") or [{}]
    location = str(experiments[0].get("artifact_location") or "mlflow-artifacts:/")
    parts = urlsplit(location)
    if parts.scheme != "mlflow-artifacts":
        return None
    return "/".join(part for part in (parts.path.strip("/"), name) if part)


def login_age_limit(server: MLflowServer) -> float | None:
    """Seconds of age up to which credentials go to an address that is not fresh.

    ``None`` where age makes no difference to them: https with a certificate that is verified, no
    credentials, or a connection that allows every age.
    """
    if not server.credentials or (server.scheme == "https" and server.verify):
        return None
    allowed = server.allow_stale_over_http is not StaleOverHTTP.ALWAYS
    return MAX_AGE_WITH_CREDENTIALS if allowed else None


#: The two answers of :func:`old_address_rule` that are not a refusal.
USE, CHECK = "use", "check"


def old_address_rule(server: MLflowServer, resolution: Resolution) -> str:
    """Whether an address may be used: ``USE``, ``CHECK``, or a sentence why not (feature B4).

    Over https the certificate decides, where it is verified. Over plain http, whoever has the
    address now would get the credentials: that is the author's choice.
    """
    if not resolution.is_stale or (server.scheme == "https" and server.verify):
        return USE
    if server.allow_stale_over_http is StaleOverHTTP.ALWAYS:
        return USE
    kind = "a static" if resolution.source is Source.STATIC else "an old"
    if server.allow_stale_over_http is StaleOverHTTP.NEVER:
        return (
            f"DNS gives no address for {server.hostname!r} now, and "
            f"{server.named} does not allow {kind} one over plain http "
            "(allow_stale_over_http is never): use https, or allow it with checked."
        )
    age, limit = resolution.age(), login_age_limit(server)
    if limit is not None and age is not None and age > limit:
        return (
            f"DNS gives no address for {server.hostname!r} now, and the old one is {age:.0f} s "
            f"old: over plain http no credentials go to an address older than "
            f"{limit:.0f} s. Use https, or set allow_stale_over_http to always."
        )
    return CHECK


def vet_old_address(
    server: MLflowServer, resolution: Resolution, address: str, port: int, *, timeout: float = 2.0
) -> str | None:
    """Whether an address that is not fresh may be used; ``None`` means that it may.

    For the pin, which asks before it hands such an address out. Over plain http in ``checked`` mode
    this asks the address, without credentials, whether an MLflow answers there. That proves no
    more: another team's MLflow passes.

    :param timeout: seconds for all of it.
    :returns: ``None``, or a sentence why not.
    """
    rule = old_address_rule(server, resolution)
    if rule != CHECK:
        return None if rule == USE else rule
    try:
        tls: ssl.SSLContext | None = tls_context(server)
    except TLSFileError as error:
        return f"{error}."
    with (
        Deadline(timeout) as limit,
        Line(server, address, port, tls=tls, deadline=limit, connect_timeout=timeout) as line,
    ):
        return _stranger(server, resolution, _open_part(line), address)


def _stranger(
    server: MLflowServer,
    resolution: Resolution,
    replies: Sequence[Reply],
    address: str | None = None,
) -> str | None:
    """Why what answers at an old address is not taken for MLflow; ``None`` when it is."""
    if looks_like_mlflow(replies[0]) and any(looks_like_mlflow(reply) for reply in replies[1:]):
        return None
    failure = replies[-1].failure
    # Where nothing takes a connection, no setting makes the address work.
    more = "" if failure in NO_CONNECTION else ", use https, or set allow_stale_over_http to always"
    return (
        f"DNS gives no address for {server.hostname!r} now, and at the old address "
        f"{address or resolution.address} no MLflow answers "
        f"({failure or f'status {replies[0].status}'}): nothing was sent there. "
        f"Wait for DNS{more}."
    )
