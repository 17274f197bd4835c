"""Servers that the tests of this folder share, and the state of the process that they put back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers import MLflowProcess, has_basic_auth

ADMIN = ("admin", "a-Secret-of-the-tests-1")


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


@pytest.fixture(autouse=True)
def _same_process_after() -> Iterator[None]:
    """Put back what a test changes in the process: the environment and who is signed in."""
    from airflow_provider_hokusai_dns.tracking import auth, environment

    environment.release_all()
    before = {key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}
    yield
    environment.release_all()
    for conn_id in list(auth._signed_in):
        auth.forget(auth.tag_of(conn_id))
    auth._signed_out.clear()
    auth._previous = None
    for key in [key for key in os.environ if key.startswith("MLFLOW_")]:
        if key not in before:
            del os.environ[key]
    os.environ.update(before)
