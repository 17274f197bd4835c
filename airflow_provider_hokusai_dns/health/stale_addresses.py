"""Stale addresses over plain http: which may be used, and which get credentials (policy rule 18).

Over https the certificate decides. Over plain http, the server that has the address now would get
the credentials of a request, so the connection's setting and the address's age decide. Other hosts
(``also_pin``), which store artifacts behind presigned URLs, cannot be identified, and a presigned
URL is itself a credential.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_hokusai_dns.config.errors import TLSFileError
from airflow_provider_hokusai_dns.config.server import MLflowServer, StaleOverHTTP, tls_context
from airflow_provider_hokusai_dns.health.connection import Deadline, ProbeConnection
from airflow_provider_hokusai_dns.health.reply import NO_CONNECTION, Reply
from airflow_provider_hokusai_dns.resolver.model import Resolution, Source

#: Maximum age of an address that gets credentials over plain http, seconds (policy rule 18).
MAX_AGE_WITH_CREDENTIALS = 900.0
_HTTPS = 443
#: The two answers of :func:`stale_address_rule` that are not a refusal.
USE, CHECK = "use", "check"


def login_age_limit(server: MLflowServer) -> float | None:
    """The maximum age, in seconds, of an address that is not fresh and gets credentials.

    ``None`` if age makes no difference: https with a verified certificate, no credentials, or a
    connection that allows every age, or none.
    """
    if not server.credentials or (server.scheme == "https" and server.verify):
        return None
    by_age = server.allow_stale_over_http is StaleOverHTTP.CHECKED
    return MAX_AGE_WITH_CREDENTIALS if by_age else None


def stale_address_rule(server: MLflowServer, resolution: Resolution) -> str:
    """Whether an address may be used: ``USE``, ``CHECK``, or a sentence why not (rule 18)."""
    has_proxy_login = server.proxy is not None and server.proxy.authorization is not None
    is_proven = server.scheme == "https" and server.verify and not has_proxy_login
    if not resolution.is_stale or is_proven:
        return USE
    if server.allow_stale_over_http is StaleOverHTTP.ALWAYS:
        return USE
    told = f"DNS returns no address for {server.name_in_dns} now, and"
    if has_proxy_login:
        return (
            f"{told} no login is sent to a stale address of a proxy: wait for DNS, or set "
            "allow_stale_over_http to always."
        )
    over, advice = _how(server)
    kind = "a static" if resolution.source is Source.STATIC else "a stale"
    if server.allow_stale_over_http is StaleOverHTTP.NEVER:
        return (
            f"{told} {server.named} does not allow {kind} one {over} "
            f"(allow_stale_over_http is never): {advice}, or allow it with checked."
        )
    age, limit = resolution.age(), login_age_limit(server)
    if limit is not None and age is not None and age > limit:
        return (
            f"{told} the stale one is {age:.0f} s old: {over} no credentials are sent to "
            f"an address older than {limit:.0f} s. {advice.capitalize()}, or set "
            "allow_stale_over_http to always."
        )
    return CHECK


def _how(server: MLflowServer) -> tuple[str, str]:
    """How a server is asked that no certificate identifies, and what to do about that."""
    if server.scheme == "https":
        return "without a verified certificate", "verify the certificate"
    return "over plain http", "use https"


def check_stale_address(
    server: MLflowServer, resolution: Resolution, address: str, port: int, *, timeout: float = 2.0
) -> str | None:
    """Why an address that is not fresh may not be used, as a sentence; ``None`` if it may.

    The pin calls this before it returns such an address. Over plain http in ``checked`` mode it
    sends requests without credentials to find out whether an MLflow server answers there. That
    proves no more: another team's MLflow passes.

    :param timeout: seconds for all of it.
    """
    rule = stale_address_rule(server, resolution)
    if rule != CHECK:
        return None if rule == USE else rule
    try:
        tls = tls_context(server)
    except TLSFileError as error:
        return f"{error}."
    with (
        Deadline(timeout) as limit,
        ProbeConnection(
            server, address, port, tls=tls, deadline=limit, connect_timeout=timeout
        ) as connection,
    ):
        return not_mlflow_at(server, connection.ask_openly(), address)


def not_mlflow_at(server: MLflowServer, replies: Sequence[Reply], address: str) -> str | None:
    """Why the server at a stale address is not accepted as MLflow; ``None`` when it is."""
    if replies[0].looks_like_mlflow and any(reply.looks_like_mlflow for reply in replies[1:]):
        return None
    failure = replies[-1].failure
    # Where nothing accepts a connection, no setting makes the address work.
    more = f", {_how(server)[1]}, or set allow_stale_over_http to always"
    more = "" if failure in NO_CONNECTION else more
    return (
        f"DNS returns no address for {server.name_in_dns} now, and at the stale address "
        f"{address} no MLflow answers "
        f"({failure or f'status {replies[0].status}'}): nothing was sent there. "
        f"Wait for DNS{more}."
    )


def check_stale_file_host(
    server: MLflowServer, resolution: Resolution, address: str, port: int
) -> str | None:
    """Why an address that is not fresh may not be used, as a sentence; ``None`` if it may.

    On the https port the certificate decides. On others, ``checked`` allows the same as ``always``,
    up to the maximum age for credentials.
    """
    if port == _HTTPS or server.allow_stale_over_http is StaleOverHTTP.ALWAYS:
        return None
    told = f"DNS returns no address for {resolution.hostname!r} now, and"
    if server.allow_stale_over_http is StaleOverHTTP.NEVER:
        return (
            f"{told} {server.named} does not allow the stale one, {address}, over "
            "plain http (allow_stale_over_http is never): use https, or allow it with checked."
        )
    age = resolution.age()
    if age is not None and age > MAX_AGE_WITH_CREDENTIALS:
        return (
            f"{told} the stale one, {address}, is {age:.0f} s old: over plain http no presigned "
            f"URL is sent to an address older than {MAX_AGE_WITH_CREDENTIALS:.0f} s. Use https, or "
            "set allow_stale_over_http to always."
        )
    return None
