"""One API server and one name server for all tests of the endpoints: a start costs time."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import pytest

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.integration.api_server import ApiServer

#: Seconds between looks: a test waits for the next one.
LOOK_EVERY = 1.0


@pytest.fixture(scope="session")
def names() -> Iterator[DNSServer]:
    """The name server that connections ask."""
    with DNSServer() as server:
        yield server


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Airflow's API server, which looks each second and gives up on DNS after one."""
    try:
        importlib.metadata.distribution("airflow-provider-hokusai-dns")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("Airflow finds us by our entry points alone")
    settings = {"AIRFLOW__HOKUSAI_DNS__LOOK_EVERY": str(LOOK_EVERY), "DNS_TIMEOUT": "1"}
    with ApiServer(tmp_path_factory.mktemp("api"), settings) as server:
        yield server
