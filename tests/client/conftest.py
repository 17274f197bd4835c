"""What the tests of this folder change in the process is put back; a proxy in front of MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.counting_proxy import CountingProxy
from tests.servers import MLflowProcess


@pytest.fixture(autouse=True)
def _same_process_after() -> Iterator[None]:
    """Put back what a test changes in the process: the environment and who is signed in."""
    from airflow_provider_hokusai_dns.client import auth

    before = {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}
    yield
    for conn_id in list(auth._signed_in):
        auth.forget(auth.tag_of(conn_id))
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
