"""What tests of the Airflow side share: an own Airflow home, a name server, a tiny MLflow."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import ssl
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.certificates import Authority
from tests.lock_watch import _nothing_waits_under_a_lock  # noqa: F401 - a fixture of every test
from tests.schedule import (  # noqa: F401 - hooks
    pytest_collection_modifyitems,
    pytest_xdist_make_scheduler,
)
from tests.servers import (
    OTHER_CLIENT,
    Handler,
    HTTPThread,
    MLflowProcess,
    has_basic_auth,
)
from tests.skips import pytest_terminal_summary  # noqa: F401 - a hook

# A machine that is busy with something else must not fail a property.
hypothesis.settings.register_profile("hokusai", deadline=None)
hypothesis.settings.load_profile("hokusai")

# What is made outside of tmp_path goes with the run. A worker of xdist may be killed at its end, so
# the process that starts the workers does it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # of tmp_path, as before
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="hokusai-")
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)

# Before anything imports Airflow: it makes its home on import, and must not make one in ours.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
for name in list(os.environ):
    if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW__HOKUSAI_DNS__", "MLFLOW_")):
        del os.environ[name]
for name in ("DNS_CACHE_TTL", "DNS_TIMEOUT"):
    os.environ.pop(name, None)

# A shell that starts a command in the background has it ignore ctrl-C, and so every child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# These tests on another version of MLflow's client, see tests/client/test_mlflow_versions.py.
# The servers that they start stay those of the environment.
if OTHER_CLIENT is not None:
    sys.path.insert(0, OTHER_CLIENT)

HOSTNAME = "mlflow.hokusai-test.local"
#: The login of ``auth_server``.
ADMIN = ("admin", "a-Secret-of-the-tests-1")


@pytest.fixture
def clean_runtime() -> Iterator[Any]:
    """The process as if nothing had been resolved yet; afterwards as well."""
    from airflow_provider_hokusai_dns import runtime

    runtime.forget()
    yield runtime
    runtime.forget()


@pytest.fixture
def dns() -> Iterator[Any]:
    """A real name server on loopback that knows nothing yet."""
    from airflow_provider_hokusai_dns.resolver.testing import DNSServer

    with DNSServer() as server:
        yield server


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Define a connection through the environment; returns its id."""

    def define(conn_id: str = "mlflow_default", **fields: Any) -> str:
        fields.setdefault("conn_type", "mlflow")
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        return conn_id

    return define


class Texts:
    """Variables in memory: outside of a task no process may write Airflow's own."""

    def __init__(self):
        self.texts = {}

    def get(self, key):
        return self.texts.get(key)

    def set(self, key, value, description):
        self.texts[key] = value


class TinyMLflow(HTTPThread):
    """Answers what a probe asks as MLflow does, or as a test wants it; counts what it was asked.

    For the logic of gates, where a state is needed at will; the states of the real server are
    tested with the real server.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        #: By path; a list is answered one after the other.
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[tuple[str, bytes]] = []
        tiny = self

        class Answering(Handler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(length)
                path = self.path.partition("?")[0]
                tiny.bodies.append((path, content))
                tiny.asked.append((self.command, path, dict(self.headers)))
                said = tiny.answers.get(path) or tiny.answers.get("*") or _usual(path)
                status, body = said.pop(0) if isinstance(said, list) else said
                text = body if isinstance(body, str) else json.dumps(body)
                data = text.encode()
                self.send_response(status)
                self.send_header(
                    "Content-Type", "text/plain" if isinstance(body, str) else "application/json"
                )
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer

        super().__init__(Answering, address, port)
        self.address = address

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked == path for _, asked, _ in self.asked)


SEARCH = "/api/2.0/mlflow/experiments/search"
REGISTRY = "/api/2.0/mlflow/registered-models/search"


def _usual(path: str) -> tuple[int, Any]:
    usual: dict[str, tuple[int, Any]] = {
        "/health": (200, "OK"),
        "/version": (200, "3.17.2"),
        "/api/3.0/mlflow/server-info": (200, {"store_type": "SqlStore"}),
        SEARCH: (200, {"experiments": []}),
        REGISTRY: (200, {}),
    }
    return usual.get(path, (404, {"error_code": "ENDPOINT_NOT_FOUND"}))


@pytest.fixture
def tiny() -> Iterator[TinyMLflow]:
    """Something that answers a probe as MLflow does."""
    with TinyMLflow("127.0.0.9") as server:
        yield server


@pytest.fixture
def usable(
    dns: Any,
    tiny: TinyMLflow,
    connect: Callable[..., str],
    clean_runtime: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """``mlflow_default`` leads to the tiny MLflow by a name that the name server knows."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    dns.set_records(HOSTNAME, [tiny.address], ttl=10)

    def define(**extra: Any) -> str:
        return connect(host=HOSTNAME, port=tiny.port, extra=extra)

    define()
    return define


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowProcess]:
    """An MLflow server as it stands behind a name: it refuses every Host but its own."""
    with MLflowProcess(
        tmp_path_factory.mktemp("mlflow"),
        host="127.0.0.41",
        allowed_hosts=("mlflow.test:*", "127.0.0.41:*"),
    ) as server:
        yield server


@pytest.fixture(scope="session")
def auth_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowProcess]:
    """An MLflow server with basic authentication."""
    if not has_basic_auth():
        pytest.skip("MLflow's basic-auth app needs Flask-WTF (mlflow[auth])")
    with MLflowProcess(tmp_path_factory.mktemp("auth"), host="127.0.0.42", admin=ADMIN) as server:
        yield server


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MLflowProcess, Path]]:
    """An MLflow server named ``mlflow.test`` with https, and the CA of its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    certificate = authority.issue("mlflow.test")
    with MLflowProcess(folder / "mlflow", host="127.0.0.62", tls=certificate) as server:
        trusted = ssl.create_default_context(cafile=authority.file)
        trusted.check_hostname = False
        # It listens a while before it answers.
        urllib.request.urlopen(f"{server.uri}/health", timeout=60, context=trusted).close()
        yield server, authority.file
