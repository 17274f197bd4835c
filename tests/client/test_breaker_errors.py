"""Which errors of MLflow's client tell that MLflow is down, on its real client."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_hokusai_dns.client.breaker_errors import is_refusal, says_down
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.model import Cause
from tests.servers import Request, Stranger, free_port, http

pytestmark = pytest.mark.filterwarnings("default")


def error_of(uri: str) -> Exception:
    """What MLflow's client raises when it makes a run there."""
    from mlflow import MlflowClient

    with pytest.raises(Exception, match=r".") as caught:
        MlflowClient(uri).create_run("0")
    return caught.value


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.mark.parametrize(
    ("status", "body", "down", "refusal"),
    [
        (503, "starting", True, False),
        (500, {"error_code": "INTERNAL_ERROR", "message": "no database"}, True, False),
        (429, "slowly", False, False),
        (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no experiment"}, False, True),
        (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}, False, True),
        (400, {"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5"}, False, False),
        (401, "who are you", False, True),
    ],
)
def test_a_5xx_is_down_and_a_4xx_is_an_answer(
    status: int, body: Any, down: bool, refusal: bool
) -> None:
    """As MLflow's client tells it, which wraps some of them without a code."""
    import json

    def answer(_: Request) -> bytes:
        if isinstance(body, str):
            return http(status, body)
        return http(status, json.dumps(body), "application/json")

    with Stranger(answer) as stranger:
        error = error_of(stranger.uri)
    assert (says_down(error), is_refusal(error)) == (down, refusal)


def test_nobody_there_is_down() -> None:
    """Refused, unresolved, and silent."""
    refused = error_of(f"http://127.0.0.1:{free_port()}")
    assert says_down(refused)
    assert not is_refusal(refused)
    assert says_down(DNSResolutionError("mlflow.test", Cause.NXDOMAIN))
    silent: list[Stranger] = []

    def never(_: Request) -> bytes:
        silent[0].wait(5)
        return b""

    with Stranger(never) as stranger:
        silent.append(stranger)
        assert says_down(error_of(stranger.uri))


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError("mine"), OSError("disk is full")])
def test_what_is_somebody_else_s_tells_nothing(error: Exception) -> None:
    """An author's error is not MLflow's."""
    assert not says_down(error)
    assert not is_refusal(error)


def test_a_refusal_of_the_client_itself_tells_nothing() -> None:
    """It has sent nothing."""
    from mlflow.exceptions import MlflowException

    assert not says_down(MlflowException("Cannot start run with a deleted id"))
    assert not says_down(error_of("http://[bad:5000"))


def test_a_part_that_is_turned_off_is_a_refusal() -> None:
    """MLflow answers 503 with it, and our transport hands that out."""
    from mlflow.exceptions import RestException

    error = RestException({"error_code": "FEATURE_DISABLED", "message": "no artifacts"})
    assert (says_down(error), is_refusal(error)) == (False, True)
