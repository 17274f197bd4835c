"""Turns the replies of a probe into a verdict. Pure functions."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.health.reply import (
    NO_CONNECTION,
    OPEN_CHECKS,
    Reply,
    ReplyFailure,
)
from airflow_provider_hokusai_dns.health.verdict import OLD_ADDRESS_REFUSED, State, Verdict
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.model import Cause, Endpoint, Resolution, Source
from airflow_provider_hokusai_dns.resolver.target import shown
from airflow_provider_hokusai_dns.resolver.wording import ADDRESSES, ORIGINS, what_is_remembered

_TLS_FAILURES = frozenset({
    ReplyFailure.CERTIFICATE_EXPIRED, ReplyFailure.CERTIFICATE_NAME,
    ReplyFailure.CERTIFICATE_UNTRUSTED, ReplyFailure.TLS,
})  # fmt: skip

#: Error codes with which MLflow refuses a listing (``ErrorCode`` in its ``databricks.proto``). Any
#: other text is the server's own: it would become a label of its own in Prometheus.
_ERROR_CODES = frozenset({
    "BAD_REQUEST", "ENDPOINT_NOT_FOUND", "FEATURE_DISABLED", "INVALID_PARAMETER_VALUE",
    "INVALID_STATE", "NOT_FOUND", "NOT_IMPLEMENTED", "PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
})  # fmt: skip
#: What a check with credentials lists, in words.
_LISTED = {"tracking": "experiments", "registry": "model registry"}
_OTHER_STATUS = "http_other"
#: The text with which MLflow's basic authentication refuses a request.
_MLFLOW_403 = b"Permission denied"
#: Every cause that :func:`judge` gives.
CAUSES = frozenset(
    {
        "ok",
        "dns",
        "invalid_host_header",
        "not_proxied",
        OLD_ADDRESS_REFUSED,
        "redirect",
        _OTHER_STATUS,
        *(f"http_{status.value}" for status in HTTPStatus),
        *(code.lower() for code in _ERROR_CODES),
        *(failure.value for failure in ReplyFailure),
        *(cause.value for cause in Cause),
    }
)


def judge(
    server: MLflowServer,
    resolution: Resolution | DNSResolutionError,
    replies: Sequence[Reply] = (),
    *,
    checked_at: datetime,
    address: str | None = None,
    refusal: str | None = None,
) -> Verdict:
    """Turn the raw answers of a probe into a verdict.

    :param replies: in the order of the requests; the last one may be a failure.
    :param address: the address that was probed, by default the resolution's first.
    :param refusal: why a stale address was not used, if it was not.
    """
    where: dict[str, Any] = {}
    if isinstance(resolution, DNSResolutionError):
        state, cause, sentence = _unresolved(server, resolution)
    else:
        asked = address or resolution.address
        where = {
            "address": asked,
            "address_source": resolution.source.value,
            "address_age": resolution.age(),
            "latencies": MappingProxyType({r.check: round(r.milliseconds, 1) for r in replies}),
        }
        if refusal is not None:
            state, cause, sentence = State.UNRESOLVED, OLD_ADDRESS_REFUSED, refusal
        else:
            state, cause, sentence = _finding(server, resolution, asked, replies)
    return Verdict(
        state=state,
        cause=cause,
        sentence=sentence,
        conn_id=server.conn_id,
        tracking_uri=server.uri,
        checked_at=checked_at,
        dns_cause=None if resolution.cause is None else resolution.cause.value,
        **where,
    )


_Finding = tuple[State, str, str]


def _unresolved(server: MLflowServer, error: DNSResolutionError) -> _Finding:
    where, setting = "the hostname of the connection", "set fallback_addresses on the connection"
    if server.proxy is not None:
        where, setting = "HTTP(S)_PROXY", "add MLflow to NO_PROXY"
    elif server.view.srv:
        where = "the SRV name of the connection"
    known = what_is_remembered(is_known=error.is_known, is_unread=error.is_unread)
    advice = f"check {where} for a typo"
    if error.is_known:
        # What registers the name may run with the server.
        advice = f"check whether {'MLflow' if server.proxy is None else 'the proxy'} is running"
    if not error.cause.says_no_such_name:
        advice = f"check the {_nameservers(server)}"
    if error.is_unread:
        advice += ", check Airflow's API server and database"
    return (
        State.UNRESOLVED,
        error.cause.value,
        f"{server.name_in_dns} has no address ({error.cause.value}), and {known}: "
        f"{advice}, wait until the name is back, or {setting}.",
    )


def _finding(
    server: MLflowServer, resolution: Resolution, asked: str, replies: Sequence[Reply]
) -> _Finding:
    for reply in replies:
        if finding := _judge_reply(server, resolution, asked, reply):
            return finding
    if resolution.is_stale:
        why = resolution.cause.value if resolution.cause else "dns"
        return State.DEGRADED, why, _degraded_sentence(server, resolution, asked, replies)
    if server.proxy is not None and replies:
        proxy = f"the proxy {server.proxy.uri}, which resolves its name"
        return State.HEALTHY, "ok", f"{server.uri} answers through {proxy}."
    what = f"{server.uri} answers at" if replies else f"{server.connect_name} resolves to"
    usual = {
        Source.LITERAL: "",
        Source.DNS: ", an address that DNS returned just now",
        Source.CACHE: ", an address that was looked up a moment ago",
    }
    source = resolution.source
    origin = usual[source] if source in usual else f", an address from {ORIGINS[source]}"
    return State.HEALTHY, "ok", f"{what} {asked}{origin}."


def _degraded_sentence(
    server: MLflowServer, resolution: Resolution, asked: str, replies: Sequence[Reply]
) -> str:
    age, cause = resolution.age(), resolution.cause
    what = ADDRESSES[resolution.source]
    old = "" if age is None else f", {age:.0f} s old,"
    works = "still works" if replies else "is used"
    if resolution.source is Source.STATIC:
        has_own = bool(server.view.fallback_addresses)
        what += " of the connection" if has_own else " of MLFLOW_FALLBACK_IP"
        where = "connection" if has_own else "environment"
        advice = f"Remove it from the {where} when DNS is back."
    elif cause is not None and cause.says_no_such_name:
        advice = f"Is {'MLflow' if server.proxy is None else 'the proxy'} being redeployed?"
    else:
        advice = f"Check the {_nameservers(server)}."
    why = f"DNS returns no address for {server.name_in_dns}"
    if cause is Cause.NXDOMAIN:
        why = f"DNS says that {server.name_in_dns} does not exist"
    return f"{why}{f' ({cause.value})' if cause else ''}. {what} {asked}{old} {works}. {advice}"


def _nameservers(server: MLflowServer) -> str:
    """The nameservers that were asked, in a sentence."""
    own = server.view.nameservers
    # Without its own: those of resolv.conf, or of [hokusai_dns] nameservers.
    return "nameservers of the connection" if own else "DNS servers that this machine asks"


def _judge_reply(
    server: MLflowServer, resolution: Resolution, asked: str, reply: Reply
) -> _Finding | None:
    """The verdict for one answer, or ``None`` if it is as expected."""
    if reply.failure is not None and not reply.is_listing:
        return _failed(server, resolution, asked, reply, reply.failure)
    if server.proxy is not None and reply.status == 407:
        return _proxy_refused(server, "407 Proxy Authentication Required")
    if reply.status == 403 and b"Invalid Host header" in reply.body:
        return (
            State.HOST_REJECTED,
            "invalid_host_header",
            f"MLflow refuses the name {server.authority!r} (Host check): start its server with "
            f"--allowed-hosts {server.authority} (or MLFLOW_SERVER_ALLOWED_HOSTS).",
        )
    if 300 <= reply.status < 400:
        return (
            State.NOT_MLFLOW,
            "redirect",
            f"{server.uri} redirects to {_shown_location(reply.location)} instead of answering; a "
            "check does not send credentials there: put the final address of MLflow on the "
            "connection (check schema, port and path_prefix).",
        )
    if reply.check in OPEN_CHECKS:
        return _judge_open_reply(server, reply)
    if reply.check == "artifact":
        return _judge_artifact(server, reply)
    return _judge_api_reply(server, reply)


def _judge_open_reply(server: MLflowServer, reply: Reply) -> _Finding | None:
    """Judge the paths that need no login: only a contradiction counts, a proxy may hide them."""
    if reply.check != "health" or reply.looks_like_mlflow:
        return None
    if reply.status in (401, 403, 404, 405):
        return None
    if reply.status >= 500:
        # MLflow answers this path without its database.
        suspect = "whether MLflow is running behind its load balancer,"
        return _backend_down(server, reply, "the server itself", suspect)
    return _not_mlflow(server, reply)


def _judge_api_reply(server: MLflowServer, reply: Reply) -> _Finding | None:
    if reply.is_listing:
        return None
    what, document = _LISTED[reply.check], reply.document
    if reply.status == 200:
        return _not_mlflow(server, reply)
    message = str((document or {}).get("message", ""))
    code = str((document or {}).get("error_code", "")).upper()
    cause = code.lower() if code in _ERROR_CODES else _status_cause(reply.status)
    if server.workspace and ("orkspace" in message or reply.status == 404):
        return (
            State.WORKSPACE_MISSING,
            cause,
            f"MLflow does not serve workspace {server.workspace!r} to this connection: create the "
            "workspace, correct its name, or remove it from the connection if the server runs "
            "without --enable-workspaces.",
        )
    if reply.status in (401, 407):
        return State.UNAUTHENTICATED, _status_cause(reply.status), _login_sentence(server)
    if reply.status == 403:
        if server.proxy is not None and not code and _MLFLOW_403 not in reply.body:
            return _proxy_refused(server, "403 Forbidden")
        return (
            State.FORBIDDEN,
            cause,
            f"MLflow accepts the login of {server.named} but refuses to show "
            f"the {what}: grant this user the permission.",
        )
    if reply.status == 429:
        limit = "the rate limit of MLflow or of its load balancer,"
        return _backend_down(server, reply, f"the {what}", limit)
    if reply.status >= 500 or reply.status == 408:
        return _backend_down(server, reply, f"the {what}", "the database behind MLflow")
    return _not_mlflow(server, reply)


def _status_cause(status: int) -> str:
    """The cause for an HTTP status. A number that is not an HTTP status has no cause of its own."""
    cause = f"http_{status}"
    return cause if cause in CAUSES else _OTHER_STATUS


def _login_sentence(server: MLflowServer) -> str:
    if not server.credentials:
        return (
            f"MLflow asks for a login and {server.named} has none: "
            "set login and password, or a token as the password alone."
        )
    which = "login and password" if server.credentials.kind == "basic" else "bearer token"
    return (
        f"MLflow does not accept the {which} of {server.named}: correct them "
        "(they may have expired)."
    )


def _judge_artifact(server: MLflowServer, reply: Reply) -> _Finding | None:
    if reply.status == 200:
        return None
    if reply.status in (401, 403):
        why = _status_cause(reply.status)
        advice = "grant this user the permission to edit the experiment"
    elif b"--serve-artifacts" in reply.body or reply.detail == "not_proxied":
        why = "not_proxied"
        advice = (
            'the server does not proxy artifacts (mlflow-artifacts), so leave "artifact" out of '
            "the checks"
        )
    else:
        why = _status_cause(reply.status)
        advice = "check the artifact store of the server (disk, bucket, permissions)"
    return State.ARTIFACT_FAILED, why, f"{server.uri} could not store a test artifact: {advice}."


def _backend_down(server: MLflowServer, reply: Reply, what: str, suspect: str) -> _Finding:
    proxy = "" if server.proxy is None else (
        f" The proxy {server.proxy.uri} also answers this if it cannot resolve or reach MLflow."
    )  # fmt: skip
    return (
        State.BACKEND_DOWN,
        _status_cause(reply.status),
        f"{server.uri} answers {reply.status} for {what}: check {suspect} and "
        f"the log of its server.{proxy}",
    )


def _proxy_refused(server: MLflowServer, answer: str) -> _Finding:
    """The verdict for a proxy that does not connect to MLflow: it cannot, or must not."""
    proxy = "the proxy" if server.proxy is None else f"the proxy {server.proxy.uri}"
    return (
        State.UNREACHABLE,
        ReplyFailure.PROXY_REFUSED.value,
        f"{server.uri} cannot be reached: {proxy} answers {answer!r}. Check whether it resolves "
        f"{server.hostname!r} and may connect to it, and its login in HTTP(S)_PROXY; or add "
        "MLflow to NO_PROXY.",
    )


def _not_mlflow(server: MLflowServer, reply: Reply) -> _Finding:
    return (
        State.NOT_MLFLOW,
        _status_cause(reply.status),
        f"what answers at {server.uri} is not an MLflow server (status {reply.status} for "
        f"{reply.check}): check host, port, schema and path_prefix of the connection.",
    )


def _failed(
    server: MLflowServer, resolution: Resolution, asked: str, reply: Reply, failure: ReplyFailure
) -> _Finding:
    place = f"{server.uri} at {asked}"
    if failure is ReplyFailure.TLS_FILE:
        return State.CONFIG, failure.value, f"{reply.detail}."
    if failure in _TLS_FAILURES:
        return State.TLS_ERROR, failure.value, _tls_sentence(server, reply, failure)
    if failure is ReplyFailure.PROXY_REFUSED:
        return _proxy_refused(server, reply.detail)
    if failure in NO_CONNECTION:
        return _no_connection(server, resolution, asked, reply, failure)
    if failure in (ReplyFailure.NOT_HTTP, ReplyFailure.BODY_TOO_LARGE):
        return (
            State.NOT_MLFLOW,
            failure.value,
            f"what answers at {place} is not an MLflow server ({reply.detail or failure.value}): "
            "check port and schema (http or https) of the connection.",
        )
    if reply.check == "artifact":
        return (
            State.ARTIFACT_FAILED,
            failure.value,
            f"{server.uri} did not store a test artifact in time ({failure.value}): check the "
            "artifact store of the server.",
        )
    if reply.check in OPEN_CHECKS:
        return (
            State.UNREACHABLE,
            failure.value,
            f"{place} accepts connections but does not answer completely ({failure.value}): is it "
            "MLflow, and is it overloaded or hanging?",
        )
    return (
        State.BACKEND_DOWN,
        failure.value,
        f"{server.uri} is up but does not answer for the {_LISTED[reply.check]} in time "
        f"({failure.value}): check the database behind MLflow (is it locked?).",
    )


def _no_connection(
    server: MLflowServer, resolution: Resolution, asked: str, reply: Reply, failure: ReplyFailure
) -> _Finding:
    dialled = Endpoint.parse(asked)
    where = f"{dialled.address} port {dialled.port or server.connect_port}"
    who, advice = "MLflow", "MLflow is down or listens elsewhere: start it, or correct the port"
    advice += " of the connection" if dialled.port is None else " of the SRV record"
    if server.proxy is not None:
        who = "the proxy of HTTP(S)_PROXY"
        advice = f"Is {who} down? Start it, or add MLflow to NO_PROXY"
    look_at = "Check routes and firewall"
    if reply.detail == os.strerror(errno.EMFILE):
        look_at = "Raise this process's limit (ulimit -n)"
    why = {
        ReplyFailure.REFUSED: f"nothing listens at {where}. {advice}",
        ReplyFailure.CONNECT_TIMEOUT: f"{where} does not accept a connection. Is {who} down, "
        "or is a firewall blocking it?",
    }.get(failure, f"{reply.detail or 'network error'} at {where}. {look_at}")
    stale = " That address is stale: DNS returns none right now." if resolution.is_stale else ""
    return (
        State.UNREACHABLE,
        failure.value,
        f"{server.uri} cannot be reached: {why}{'' if why.endswith('?') else '.'}{stale}",
    )


def _tls_sentence(server: MLflowServer, reply: Reply, failure: ReplyFailure) -> str:
    advice = {
        ReplyFailure.CERTIFICATE_EXPIRED: "its certificate has expired: renew it",
        ReplyFailure.CERTIFICATE_NAME: f"its certificate is not for {server.hostname!r}: use the "
        "name it was issued for as the host of the connection, or renew it",
        ReplyFailure.CERTIFICATE_UNTRUSTED: "its certificate is not signed by a CA that this "
        "machine trusts: set ca_file on the connection to the certificate of your CA",
    }.get(
        failure, "is the schema of the connection right, and does the server require a client_cert?"
    )
    detail = f" ({reply.detail})" if reply.detail else ""
    return f"no secure connection to {server.uri}: {advice}{detail}."


def _shown_location(location: str) -> str:
    """A redirect's target without userinfo and query, which may hold secrets."""
    return repr(shown(location) if "://" in location else location.partition("?")[0][:200])
