"""Small makers of values, and requests to a relay without MLflow's client."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_hokusai_dns.client.relay import Relay
from airflow_provider_hokusai_dns.config.server import MLflowServer

NAME = "mlflow.test"
API = "/api/2.0/mlflow"


def a_server(**changes: Any) -> MLflowServer:
    """A server named ``mlflow.test``."""
    return MLflowServer(
        **{"conn_id": "mlflow_test", "scheme": "http", "hostname": NAME, "deadline": 20, **changes}
    )


def token_of(relay: Relay) -> str:
    """What a client of the relay shows."""
    return str(relay.variables({})["MLFLOW_TRACKING_TOKEN"])


def connected(relay: Relay) -> socket.socket:
    """A bare connection to a relay."""
    parts = urlsplit(relay.uri)
    return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=10)


def ask(
    relay: Relay,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: dict[str, str] | None = None,
    token: str | None = "",
) -> tuple[int, bytes, dict[str, str]]:
    """One request to a relay; the right token by default, ``None`` for none."""
    parts = urlsplit(relay.uri)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    given = dict(headers or {})
    if token is not None:
        given["Authorization"] = f"Bearer {token or token_of(relay)}"
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    if isinstance(body, dict):
        given["Content-Type"] = "application/json"
    try:
        connection.request(method, path, content, given)
        answer = connection.getresponse()
        there = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, answer.read(), there
    finally:
        connection.close()


def asked(relay: Relay, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """One request that must succeed, and its document."""
    status, content, _ = ask(relay, method, path, body)
    assert status == 200, content
    return dict(json.loads(content))
