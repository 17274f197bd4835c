"""Which headers go through. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.server import MLflowServer

#: Of one connection and not of the message (RFC 9110, 7.6.1), and what a relay has to set itself.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS = frozenset({"authorization", "host", "expect", "content-length"})

Headers = list[tuple[str, str]]


def to_server(given: Iterable[tuple[str, str]], server: MLflowServer, path: str) -> Headers:
    """The headers of a request to MLflow: the client's, with the connection's login and workspace.

    The client's own ``Authorization`` was for the relay, and goes nowhere.
    """
    given = list(given)
    dropped = _HOP_BY_HOP | _OURS | _named_by_connection(given)
    if server.workspace is not None:
        dropped |= {"x-mlflow-workspace"}
    headers = [(name, value) for name, value in given if name.lower() not in dropped]
    if (authorization := server.credentials.authorization()) is not None:
        headers.append(("Authorization", authorization))
    if server.workspace is not None and "/mlflow/workspaces" not in path:
        headers.append(("X-MLFLOW-WORKSPACE", server.workspace))
    return headers


def to_client(given: Iterable[tuple[str, str]], server: MLflowServer, relay_uri: str) -> Headers:
    """The headers of an answer to the client. A redirect to MLflow itself leads to the relay."""
    given = list(given)
    dropped = _HOP_BY_HOP | _named_by_connection(given)
    return [
        (name, _relocated(value, server, relay_uri) if name.lower() == "location" else value)
        for name, value in given
        if name.lower() not in dropped
    ]


def _named_by_connection(given: list[tuple[str, str]]) -> set[str]:
    return {
        word.strip().lower()
        for name, value in given
        if name.lower() == "connection"
        for word in value.split(",")
    }


def _relocated(location: str, server: MLflowServer, relay_uri: str) -> str:
    if not location.startswith(("http://", "https://")):
        return location.removeprefix(server.path_prefix) if server.path_prefix else location
    there, here = urlsplit(location), urlsplit(server.uri)
    same = (there.hostname, there.port) == (here.hostname, here.port)
    if not same or not there.path.startswith(server.path_prefix):
        return location
    rest = there.path.removeprefix(server.path_prefix)
    return relay_uri + rest + (f"?{there.query}" if there.query else "")
