"""HEAD is answered as GET, without the body: probes of load balancers ask so."""

from __future__ import annotations

import pytest

from tests.plugins.test_endpoints import ask

PATHS = ("/health", "/ready", "/health/mlflow", "/history", "/metrics", "/openapi.json", "/docs")


@pytest.fixture
def client(clean_runtime):
    return ask()


@pytest.mark.parametrize("path", [*PATHS, "/nothing-here"])
def test_head_has_status_and_headers_of_get_and_no_body(client, path):
    """Every route, and those that do not exist."""
    client.get(path)  # so that a first check is over
    asked, head = client.get(path), client.head(path)
    assert head.status_code == asked.status_code
    assert head.content == b""
    assert head.headers["content-type"] == asked.headers["content-type"]
    assert head.headers["x-content-type-options"] == "nosniff"


def test_other_methods_are_refused_as_before(client):
    """Only HEAD is another GET."""
    assert client.post("/health").status_code == 405
