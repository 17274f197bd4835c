"""A real MLflow server, a name for it, and a relay to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_hokusai_dns import pins
from airflow_provider_hokusai_dns.client.relay import Relay, open_relay
from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.client.relay.support import NAME, a_server
from tests.servers import MLflowProcess


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowProcess]:
    """An MLflow server as it stands behind a name: it refuses every Host but its own."""
    with MLflowProcess(
        tmp_path_factory.mktemp("mlflow"),
        host="127.0.0.51",
        allowed_hosts=(f"{NAME}:*", "127.0.0.51:*"),
    ) as server:
        yield server


@pytest.fixture
def dns() -> Iterator[DNSServer]:
    with DNSServer() as server:
        yield server


@pytest.fixture
def resolver(dns: DNSServer) -> DNSResolver:
    config = ResolverConfig(
        nameservers=(dns.address,), min_ttl=0.2, timeout=1.0, stale_after=0.2, no_name_recheck=0.2
    )
    return DNSResolver(config)


OpenRelay = Callable[..., contextlib.AbstractContextManager[Relay]]


@pytest.fixture
def relay_to(dns: DNSServer, resolver: DNSResolver) -> OpenRelay:
    """Opens a relay to something that listens, by the name ``mlflow.test``."""

    def opened(there: Any, *, changes: Any = None, **options: Any) -> Any:
        dns.set_records(NAME, [there.host], ttl=1)
        server = a_server(port=there.port, **(changes or {}))
        return open_relay(server, pins.relay_addresses(server, resolver), **options)

    return opened
