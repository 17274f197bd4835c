"""What a server refuses, ``hook.run`` says as a gate does, with MLflow's own error beneath."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_hokusai_dns.client.breaker_errors import says_down
from airflow_provider_hokusai_dns.exceptions import MLflowRefusedError, MLflowRestError
from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.resolver.level import Level
from tests.conftest import ADMIN
from tests.servers import MLflowProcess, Stranger, http

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(300),
]
NAME = "mlflow.test"


@pytest.fixture
def at(
    dns: Any, connect: Callable[..., str], clean_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., MLflowHook]:
    """A hook whose connection leads by name to where something listens."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)

    def hook(there: Any, *, extra: dict[str, Any] | None = None, **fields: Any) -> MLflowHook:
        dns.set_records(NAME, [there.host], ttl=10)
        extra = {"request_timeout": 20, **(extra or {})}
        return MLflowHook(connect(host=NAME, port=there.port, extra=extra, **fields))

    return hook


def refused(hook: MLflowHook, state: str, told: str) -> None:
    import mlflow  # noqa: F401 - takes seconds the first time

    began = time.monotonic()
    with pytest.raises(MLflowRefusedError, match=told) as caught, hook.run("never"):
        pytest.fail("the block must not run")
    assert caught.value.state == state
    assert caught.value.__cause__ is not None
    assert str(caught.value) == check_connection("mlflow_default").verdict.sentence
    assert time.monotonic() - began < 15, "retrying does not help"


def test_https_where_http_is_spoken(at: Any, mlflow_server: MLflowProcess) -> None:
    refused(at(mlflow_server, schema="https"), "not_mlflow", "schema")


def test_a_wrong_path(at: Any, mlflow_server: MLflowProcess) -> None:
    refused(at(mlflow_server, extra={"path_prefix": "/nope"}), "not_mlflow", "path_prefix")


@pytest.mark.parametrize(("login", "told"), [({}, "has none"), ({"login": ADMIN[0],
                         "password": "wrong-Password-1"}, "does not accept")])  # fmt: skip
def test_a_wrong_login(at: Any, auth_server: MLflowProcess, login: Any, told: str) -> None:
    refused(at(auth_server, **login), "unauthenticated", told)


def test_a_workspace_on_a_server_without_workspaces(
    at: Any, mlflow_server: MLflowProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow answers 500, and always will."""
    refused(at(mlflow_server, extra={"workspace": "team-z"}), "workspace_missing", "team-z")
    assert "unavailable" not in caplog.text


def test_artifacts_on_a_server_that_serves_none(at: Any, tmp_path: Path, caplog: Any) -> None:
    """An experiment keeps its location from when the server did. MLflow answers 503."""
    import mlflow

    arguments = ["--no-serve-artifacts"]
    with MLflowProcess(
        tmp_path, host="127.0.0.43", arguments=arguments, allowed_hosts=[f"{NAME}:*"]
    ) as server:
        hook = at(server)
        hook.get_conn().create_experiment("former", artifact_location="mlflow-artifacts:/former")
        began = time.monotonic()
        with pytest.raises(Exception, match="--serve-artifacts") as caught, hook.run("former"):
            mlflow.log_text("an artifact", "note.txt")
        with pytest.raises(MLflowRestError, match="--enable-workspaces") as refusal:
            hook.rest("GET", "/api/3.0/mlflow/workspaces")
    assert time.monotonic() - began < 15, "retrying does not help"
    assert "unavailable" not in caplog.text
    assert not refusal.value.says_down
    assert not says_down(caught.value)


def test_a_login_without_permission(at: Any) -> None:
    denied = http(403, '{"error_code": "PERMISSION_DENIED", "message": "no"}', "application/json")
    answers = {"/version": http(body="3.17.2"), "/health": http(body="OK")}
    with Stranger(lambda asked: answers.get(asked.path, denied)) as there:
        refused(at(there, login="ada", password="x"), "forbidden", "permission")


def test_a_certificate_that_is_not_trusted(at: Any, tls_server: tuple[MLflowProcess, Path]) -> None:
    refused(at(tls_server[0], schema="https"), "tls_error", "ca_file")


def test_another_service(at: Any) -> None:
    with Stranger(lambda _: http(body="<html>welcome</html>", content_type="text/html")) as there:
        refused(at(there), "not_mlflow", "is not an MLflow server")


def test_the_machine_s_ca_file_serves_client_run_gate_and_rest(
    at: Any, tls_server: tuple[MLflowProcess, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for MLflow's own client, where the connection names none."""
    import mlflow

    server, ca_file = tls_server
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(ca_file))
    hook = at(server, schema="https")
    with hook.run("tls") as run:
        mlflow.log_metric("m", 1.0)
    assert hook.get_conn().get_run(run.info.run_id).info.status == "FINISHED"
    assert check_connection("mlflow_default").verdict.level is Level.HEALTHY
    assert hook.rest("POST", "/api/2.0/mlflow/experiments/search", json={"max_results": 1})


def test_a_password_that_is_changed_during_a_run_is_read_again(
    at: Any, auth_server: MLflowProcess
) -> None:
    """By whichever thread gets the 401; what was logged is complete, and the run FINISHED."""
    import mlflow

    api, first, second = (
        f"{auth_server.uri}/api/2.0/mlflow",
        "first-Password-1",
        "second-Password-2",
    )

    def ask(method: str, path: str, **fields: str) -> None:
        requests.request(
            method, f"{api}/{path}", json=fields, auth=ADMIN, timeout=60
        ).raise_for_status()

    ask("POST", "users/create", username="ada", password=first)
    with at(auth_server, login="ada", password=first).run("rotated") as run:
        mlflow.log_metric("m", 0.0, step=0, synchronous=False).wait()
        ask("PATCH", "users/update-password", username="ada", password=second)
        hook = at(auth_server, login="ada", password=second)
        for step in range(1, 20):
            mlflow.log_metric("m", step, step=step, synchronous=False)
        mlflow.log_text("text", "note.txt")
    client = hook.get_conn()
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "m")) == 20
