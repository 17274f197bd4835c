"""Which headers go through. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from airflow_provider_hokusai_dns.config.origin import origin_of
from airflow_provider_hokusai_dns.config.server import WORKSPACE_HEADER

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.config.server import MLflowServer

#: Of one connection and not of the message (RFC 9110, 7.6.1), and what a relay has to set itself.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
#: What says who a client is, or where it came from; and what only the relay can say. Without
#: ``Accept-Encoding`` a proxy might compress an answer that has to be read here.
_OURS = frozenset(
    {
        "accept-encoding", "authorization", "content-length", "cookie", "expect", "forwarded",
        "host", "x-real-ip",
    }
)  # fmt: skip
_FORWARDED = "x-forwarded-"
WORKSPACE = WORKSPACE_HEADER.lower()

Headers = list[tuple[str, str]]


def to_server(given: Headers, server: MLflowServer, path: str) -> Headers:
    """The headers of a request to MLflow: the client's, with the connection's login and workspace.

    The client's own ``Authorization`` was for the relay, and is not forwarded.
    """
    dropped = _HOP_BY_HOP | _OURS | _named_by_connection(given)
    if server.workspace is not None:
        dropped |= {WORKSPACE}
    headers = [
        (name, value)
        for name, value in given
        if (lower := name.lower()) not in dropped and not lower.startswith(_FORWARDED)
    ]
    return [*headers, ("Accept-Encoding", "identity"), *server.headers(path).items()]


def to_client(given: Headers, server: MLflowServer, relay_uri: str) -> Headers:
    """The headers of an answer to the client. A redirect to MLflow is rewritten to the relay.

    A cookie may be a login, and is not forwarded.
    """
    dropped = _HOP_BY_HOP | _named_by_connection(given) | {"set-cookie"}
    return [
        (name, _relocated(value, server, relay_uri) if name.lower() == "location" else value)
        for name, value in given
        if name.lower() not in dropped
    ]


def _named_by_connection(given: Headers) -> set[str]:
    return {
        word.strip().lower()
        for name, value in given
        if name.lower() == "connection"
        for word in value.split(",")
    }


def _relocated(location: str, server: MLflowServer, relay_uri: str) -> str:
    if not location.startswith(("/", "http://", "https://")):
        return location
    prefix = server.path_prefix
    try:
        url = urljoin(server.uri + "/", location)
        parts, is_here = urlsplit(url), origin_of(url) == origin_of(server.uri)
    except ValueError:  # of a port
        return location
    if not is_here or not (parts.path + "/").startswith(prefix + "/"):
        return location
    rest = parts.path.removeprefix(prefix) or "/"
    return relay_uri + rest + (f"?{parts.query}" if parts.query else "")
