"""The private names of MLflow, and the promises, on the oldest and the newest version too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import mlflow_private
from airflow_provider_hokusai_dns.client.run import open_run
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.exceptions import AuthProviderError
from tests.servers import OTHER_CLIENT, MLflowProcess
from tests.values import a_server

ROOT = Path(__file__).parents[2]
#: The oldest promised, and the newest; the pinned one is that of the other tests.
VERSIONS = ("3.10.1", "3.18.0")
pytestmark = pytest.mark.filterwarnings("default")


def folder_of(version: str) -> Path:
    folder = ROOT / ".mlflow-versions" / version
    if OTHER_CLIENT is not None:
        pytest.skip("this is such a run")
    if not (folder / "mlflow").is_dir():
        pytest.skip(f"no MLflow {version} here: make setup-mlflow")
    return folder


def test_every_private_name_is_there() -> None:
    """On the version of this run: a missing one has a warning, and its fallback."""
    assert mlflow_private.missing() == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_private_name_is_there_on(version: str) -> None:
    """In an interpreter of its own, which says which version it has."""
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); sys.path.insert(0, sys.argv[1])\n"
        "import mlflow; from airflow_provider_hokusai_dns.client.mlflow_private import missing\n"
        "print(mlflow.__version__, [name.path for name in missing()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder_of(version))],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"{version} []"


#: What is run on each, in processes of their own: each about as long as the other.
PARTS = {
    "runs": ("client/test_promises.py", "client/test_run.py", "client/test_redelivery.py"),
    "outages": ("client/test_transport.py", "client/test_breaker_errors.py"),
    "flows": ("matrix/test_matrix.py",),
}


@pytest.mark.e2e
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("part", PARTS)
def test_the_promises_hold_on(version: str, part: str) -> None:
    """Runs, delivery, transport and each flow, against servers of the pinned version."""
    environment = {**os.environ, "HOKUSAI_TEST_MLFLOW": str(folder_of(version))}
    paths = [f"tests/{name}" for name in PARTS[part]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]


# --- without a name


@pytest.mark.integration
@pytest.mark.parametrize("name", mlflow_private.NAMES, ids=lambda name: name.path.partition(":")[2])
def test_without_a_private_name_a_run_is_complete_or_says_what_is_lost(
    mlflow_server: MLflowProcess, monkeypatch: pytest.MonkeyPatch, caplog: Any, name: Any
) -> None:
    """Metrics arrive, the run ends, and one warning names what this package could not find."""
    import mlflow

    from airflow_provider_hokusai_dns.client import auth

    module, _, path = name.path.partition(":")
    owner, _, attribute = path.rpartition(".")
    holder = mlflow_private.PrivateName(f"{module}:{owner}", "").find() if owner else None
    monkeypatch.setattr(mlflow_private, "_warned", False)
    # Without its private name it stays set: restored here, or the next test's models go there.
    monkeypatch.setattr("mlflow.tracking._model_registry.utils._registry_uri", None)
    server: MLflowServer = a_server(hostname=mlflow_server.host, port=mlflow_server.port)
    without(monkeypatch, name, sys.modules[module] if holder is None else holder, attribute)
    if name is mlflow_private.AUTH:
        with pytest.raises(AuthProviderError):
            auth.sign_in(server)
        return
    with open_run(server, auth.sign_in(server)) as run:
        for step in range(50):
            mlflow.log_metric("m", step, step=step, synchronous=False)
    assert name.path in caplog.text
    assert name.without in caplog.text
    client = mlflow.MlflowClient(mlflow_server.uri)
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "m")) == 50


def without(monkeypatch: pytest.MonkeyPatch, name: Any, holder: Any, attribute: str) -> None:
    """As if this MLflow had never had it, for us; MLflow itself goes on using it."""
    find = mlflow_private.PrivateName.find
    is_there = mlflow_private.PrivateName.is_there

    def found(self: Any) -> Any:
        return None if self.path == name.path else find(self)

    monkeypatch.setattr(mlflow_private.PrivateName, "find", found)
    monkeypatch.setattr(
        mlflow_private.PrivateName,
        "is_there",
        lambda self: self.path != name.path and is_there(self),
    )
