"""One API server and one name server for all tests of the endpoints: a start costs time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.conftest import SEARCH, TinyMLflow
from tests.integration.api_server import ApiServer
from tests.servers import is_installed

#: Seconds between checks: a test waits for the next one.
LOOK_EVERY = 1.0


@pytest.fixture(scope="session")
def names() -> Iterator[DNSServer]:
    """The name server that connections ask."""
    with DNSServer() as server:
        yield server


@pytest.fixture(scope="module")
def shut_tiny() -> Iterator[TinyMLflow]:
    """An MLflow whose database is down until a test says otherwise: gates wait for it."""
    with TinyMLflow("127.0.0.9") as server:
        server.answers[SEARCH] = (503, {})
        yield server


class Statsd:
    """A listener for StatsD; keeps the names that it was told."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Statsd:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(5)
        self._socket.close()

    def _listen(self) -> None:
        while data := self._socket.recv(65536):
            self.names |= {line.partition(":")[0] for line in data.decode().splitlines()}


@pytest.fixture(scope="session")
def statsd() -> Iterator[Statsd]:
    """Where the API server's metrics go."""
    with Statsd() as listener:
        yield listener


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory, statsd: Statsd) -> Iterator[ApiServer]:
    """Airflow's API server, which checks each second and gives up on DNS after one."""
    if not is_installed():
        pytest.skip("Airflow finds us by our entry points alone")
    settings = {
        "AIRFLOW__HOKUSAI_DNS__LOOK_EVERY": str(LOOK_EVERY),
        "DNS_TIMEOUT": "1",
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
    }
    with ApiServer(tmp_path_factory.mktemp("api"), settings) as server:
        yield server
