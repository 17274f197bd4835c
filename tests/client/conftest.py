"""What tests here change in the process is put back; a proxy before MLflow; MLflow's own list."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client.routes import Repeat, route
from tests.integration.counting_proxy import CountingProxy
from tests.servers import MLflowProcess, Stranger, http

#: The further versions of MLflow that are here (``make setup-mlflow``).
FURTHER = sorted((Path(__file__).parents[2] / ".mlflow-versions").glob("*/mlflow"))

#: Prints each POST of an MLflow's protocol with the name of its message. The package itself, which
#: takes seconds, is not imported.
_POSTS = """
import importlib, json, pkgutil, sys, types
sys.modules["mlflow"] = mlflow = types.ModuleType("mlflow")
mlflow.__path__ = [sys.argv[1]]
import mlflow.protos
from mlflow.protos.databricks_pb2 import rpc
found = {}
for module in pkgutil.iter_modules(mlflow.protos.__path__, "mlflow.protos."):
    if not module.name.endswith("_pb2") or "nity" in module.name or "databricks" in module.name:
        continue
    services = importlib.import_module(module.name).DESCRIPTOR.services_by_name
    for method in (each for service in services.values() for each in service.methods):
        for endpoint in method.GetOptions().Extensions[rpc].endpoints:
            if endpoint.method == "POST":
                path = f"/api/{endpoint.since.major}.0/{endpoint.path.lstrip('/')}"
                found[path] = method.input_type.name
print(json.dumps(found))
"""
#: MLflow's server has more that its protocol does not list; and there will be more.
_BESIDE = [
    "/ajax-api/3.0/jobs/",
    "/ajax-api/2.0/mlflow/runs/create-promptlab-run",
    "/api/2.0/mlflow/users/create",
    "/api/3.0/mlflow/mcp-servers",
    "/gateway/chat/mlflow/invocations",
    "/graphql",
    "/api/9.0/mlflow/things-of-the-future/create",
]


@pytest.fixture(autouse=True)
def _same_process_after() -> Iterator[None]:
    """Put back what a test changes in the process: the environment and who is signed in."""
    from airflow_provider_hokusai_dns.client import auth

    before = {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}
    yield
    for conn_id in list(auth._signed_in):
        auth.forget(conn_id)
    auth._signed_out.clear()
    auth._previous = None
    for key in [key for key in os.environ if key.startswith("MLFLOW_")]:
        if key not in before:
            del os.environ[key]
    os.environ.update(before)


@pytest.fixture
def front(mlflow_server: MLflowProcess) -> Iterator[CountingProxy]:
    """What stands in front of MLflow, as a load balancer does."""
    with CountingProxy(mlflow_server.port, mlflow_server.host) as proxy:
        yield proxy


@pytest.fixture
def direct(mlflow_server: MLflowProcess) -> Any:
    """A plain client that does not go through the proxy."""
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server.uri)


@pytest.fixture(scope="session")
def posts() -> dict[str, str]:
    """The path of each POST of all MLflows that are here, with the name of its message."""
    pinned = find_spec("mlflow")
    assert pinned is not None
    found: dict[str, str] = {}
    for folder in (*(pinned.submodule_search_locations or ()), *map(str, FURTHER)):
        done = subprocess.run(
            [sys.executable, "-c", _POSTS, folder],
            capture_output=True, text=True, timeout=100, check=True,
        )  # fmt: skip
        found |= json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def once(posts: dict[str, str]) -> list[str]:
    """The paths of all that can neither be asked for nor repeated: webhooks, scorers, queues ..."""
    found = [path for path in posts if route("POST", path).repeat is Repeat.ONCE]
    assert len(found) > 25
    return [path.replace("{", "").replace("}", "") for path in found] + _BESIDE


@pytest.fixture(params=[503, 502, 504, 0])
def away(request: pytest.FixtureRequest) -> Iterator[Stranger]:
    """What a load balancer answers after its server may have done it; 0 is a cut."""

    def answer(_: Any) -> Any:
        return http(request.param, "<html>gone</html>") if request.param else iter([b""])

    with Stranger(answer, host="127.0.0.60") as stranger:
        yield stranger
