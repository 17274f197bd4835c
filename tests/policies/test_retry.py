"""What the retry policy makes of an exception, and of how MLflow is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout
from airflow.sdk.definitions.retry_policy import RetryAction, RetryDecision

from airflow_provider_hokusai_dns.client.relay import RelayLostDataError
from airflow_provider_hokusai_dns.client.relay.records import LostCall
from airflow_provider_hokusai_dns.exceptions import Loss, LostDataError, RunEndError
from airflow_provider_hokusai_dns.health.breaker import BreakerOpenError
from airflow_provider_hokusai_dns.hooks.rest import MLflowRestError
from airflow_provider_hokusai_dns.policies import retry
from airflow_provider_hokusai_dns.policies.retry import MLflowRetryPolicy
from airflow_provider_hokusai_dns.resolver import Cause, DNSResolutionError
from tests.conftest import SEARCH, TinyMLflow

MINUTE = timedelta(minutes=1)
POLICY = MLflowRetryPolicy(delay=MINUTE, max_delay=timedelta(minutes=5))


def judged(error: BaseException, try_number: int = 1) -> RetryDecision:
    return POLICY.evaluate(error, try_number, 5, None)


def chained(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


AWAY = [
    DNSResolutionError("mlflow.test", Cause.NXDOMAIN),
    MLflowRestError("GET", "/x", 503, "", "away"),
    RelayLostDataError("c", (LostCall("runs/log-batch", None, "away"),)),
    LostDataError("r", (Loss("params", 1, ("403",), permanent=True), Loss("metrics", 1))),
    chained(
        subprocess.CalledProcessError(1, "train"),
        RelayLostDataError("c", (LostCall("runs/search", None, "away"),)),
    ),
    chained(ValueError("of a library"), DNSResolutionError("mlflow.test", Cause.TIMEOUT)),
    ExceptionGroup("two", [ValueError(), MLflowRestError("GET", "/x", 0, "", "away")]),
]


@pytest.mark.parametrize("error", AWAY, ids=lambda error: type(error).__name__)
def test_an_outage_is_retried_after_a_pause_that_grows(
    usable: Callable[..., str], error: BaseException
) -> None:
    """Also where MLflow is back already."""
    usable()
    first, third, late = (judged(error, number) for number in (1, 3, 30))
    assert {d.action for d in (first, third, late)} == {RetryAction.RETRY}
    assert 0.75 * MINUTE <= first.retry_delay <= 1.25 * MINUTE  # type: ignore[operator]
    assert 3 * MINUTE <= third.retry_delay <= 5 * MINUTE  # type: ignore[operator]
    assert late.retry_delay <= 1.25 * timedelta(minutes=5)  # type: ignore[operator]


def test_the_pause_is_no_shorter_than_the_breakers(usable: Callable[..., str]) -> None:
    """It would refuse the next try; and what it has refused does not come back all at once."""
    usable()
    delays = {judged(BreakerOpenError("MLflow", "down", 600.0)).retry_delay for _ in range(20)}
    assert len(delays) > 1
    assert all(10 * MINUTE <= delay <= 12.5 * MINUTE for delay in delays if delay)


@pytest.mark.parametrize(("overtime", "shortest"), [("20", 30), ("5", 30), ("120", 130)])
def test_a_reschedule_comes_after_the_process_of_the_attempt_has_ended(
    usable: Callable[..., str], monkeypatch: pytest.MonkeyPatch, overtime: str, shortest: int
) -> None:
    """Or it costs a try; and a thousand tasks do not come at the same moment (Airflow 3.4)."""
    usable()
    monkeypatch.setenv("AIRFLOW__CORE__TASK_SUCCESS_OVERTIME", overtime)
    policy = MLflowRetryPolicy(delay=timedelta(seconds=3))
    if not hasattr(RetryAction, "RESCHEDULE"):
        assert retry._shortest_reschedule() == shortest
        return
    decisions = [policy.evaluate(AWAY[0], 1, 5, None) for _ in range(20)]
    delays = {decision.retry_delay.total_seconds() for decision in decisions}  # type: ignore[union-attr]
    assert len(delays) > 1
    assert shortest <= min(delays) <= max(delays) <= 1.25 * shortest


def test_while_mlflow_is_down_the_reason_is_its_verdict(
    usable: Callable[..., str], tiny: TinyMLflow
) -> None:
    """The sentence of a gate stands at the task."""
    usable()
    tiny.answers["*"] = (503, "down")
    decision = judged(AWAY[0])
    assert decision.action is RetryAction.RETRY
    assert "answers 503" in str(decision.reason)


def test_a_task_that_execution_timeout_ended_waits_for_mlflow(
    usable: Callable[..., str], tiny: TinyMLflow
) -> None:
    """It may have waited for MLflow; where MLflow is usable, it was only slow."""
    usable()
    assert judged(AirflowTaskTimeout("Timeout")).action is RetryAction.DEFAULT
    tiny.answers["*"] = (503, "down")
    decision = judged(AirflowTaskTimeout("Timeout"), 3)
    assert decision.action is not RetryAction.DEFAULT
    assert decision.retry_delay >= 3 * MINUTE  # type: ignore[operator]


@pytest.mark.parametrize(("answer", "sentence"), [
    ((401, ""), "asks for a login"),
    ((403, "Invalid Host header"), "--allowed-hosts"),
])  # fmt: skip
def test_what_a_retry_cannot_help_fails_at_once_with_what_to_do(
    usable: Callable[..., str], tiny: TinyMLflow, answer: tuple[int, str], sentence: str
) -> None:
    """Whatever MLflow's client made of it."""
    usable()
    tiny.answers[SEARCH] = answer
    decision = judged(MLflowRestError("GET", "/x", answer[0], "", "no"))
    assert decision.action is RetryAction.FAIL
    assert sentence in str(decision.reason)


def test_a_connection_that_is_wrong_fails_at_once(
    connect: Callable[..., str], clean_runtime: Any
) -> None:
    """The field is named."""
    from airflow_provider_hokusai_dns.config import connections
    from airflow_provider_hokusai_dns.exceptions import SettingError

    connect(host="mlflow.test", extra={"deadlin": 5})
    with pytest.raises(SettingError) as error:
        connections.load_server()
    decision = judged(error.value)
    assert decision.action is RetryAction.FAIL
    assert "deadlin" in str(decision.reason)


@pytest.mark.parametrize("error", [
    MLflowRestError("GET", "/x", 404, "RESOURCE_DOES_NOT_EXIST", "no such experiment"),
    RelayLostDataError("c", (LostCall("runs/log-batch", None, "answered 403", permanent=True),)),
    LostDataError("r", (Loss("params", 1, ("answered 403",), permanent=True),)),
])  # fmt: skip
def test_what_mlflow_refuses_fails_at_once(
    usable: Callable[..., str], error: BaseException
) -> None:
    """It would refuse the next try as well."""
    usable()
    assert judged(error).action is RetryAction.FAIL


@pytest.mark.parametrize("error", [
    ValueError("mine"), KeyboardInterrupt(), subprocess.CalledProcessError(1, "x"),
    MLflowRestError("GET", "/x", 400, "BAD_REQUEST", "no"),
])  # fmt: skip
def test_the_authors_own_errors_are_the_tasks_business(
    usable: Callable[..., str], error: BaseException
) -> None:
    """Their retries and retry_delay hold."""
    usable()
    assert judged(error).action is RetryAction.DEFAULT


def raised(error: BaseException, while_handling: BaseException, *, hides: bool) -> BaseException:
    """An exception as ``raise`` leaves it inside ``except``."""
    try:
        try:
            raise while_handling
        except BaseException:
            if hides:
                raise error from None
            raise error  # noqa: B904 - as an author may
    except BaseException as made:
        return made


@pytest.mark.parametrize("hides", [False, True])
def test_an_authors_error_while_mlflow_refused_something_is_the_tasks_business(
    usable: Callable[..., str], hides: bool
) -> None:
    """The first training of a model that MLflow does not know yet, and whose data is away."""
    usable()
    unknown = MLflowRestError("GET", "/x", 404, "RESOURCE_DOES_NOT_EXIST", "no such alias")
    error = raised(ConnectionResetError("s3"), unknown, hides=hides)
    assert judged(error).action is RetryAction.DEFAULT


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("loss", [
    RelayLostDataError("c", (LostCall("runs/log-batch", None, "away"),)),
    LostDataError("r", (Loss("metrics", 1, ("away",)),)),
    RunEndError("r", "RUNNING"),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_what_a_run_or_a_relay_lost_counts_behind_every_error(
    usable: Callable[..., str], loss: BaseException, hides: bool
) -> None:
    """A relay puts it behind the error of a child, which an author may replace by another."""
    usable()
    child = subprocess.CalledProcessError(1, "train")
    child.__context__ = loss
    error = raised(ValueError("training failed"), child, hides=hides)
    assert judged(error).action is RetryAction.RETRY


def test_an_authors_error_costs_no_probe(usable: Callable[..., str], tiny: TinyMLflow) -> None:
    """MLflow is asked only where it may be about MLflow."""
    usable()
    judged(ValueError("mine"))
    assert tiny.asked == []


def test_a_policy_survives_serialization() -> None:
    """Of the DAG."""
    again = MLflowRetryPolicy.deserialize(POLICY.serialize())
    assert again.serialize() == POLICY.serialize()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"delay": 60}, "must be timedeltas with 0 < delay .*, not 60, "),
        ({"give_up_after": None}, "must be timedeltas with 0 < delay .*, None"),
        ({"max_delay": MINUTE / 2}, "0 < delay <= max_delay <= give_up_after"),
        (
            {"mlflow_conn_id": None},
            "the id of a connection must be a string such as 'mlflow_default'",
        ),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], told: str) -> None:
    """When the DAG is parsed."""
    with pytest.raises(ValueError, match=told):
        MLflowRetryPolicy(**given)


def test_on_airflow_3_2_the_import_says_what_to_do() -> None:
    """At parse time; there the SDK has no retry policies."""
    code = (
        "import sys\n"
        "sys.modules['airflow.sdk.definitions.retry_policy'] = None\n"
        "import airflow_provider_hokusai_dns.policies.retry\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ImportError: MLflowRetryPolicy needs Airflow 3.3 or newer" in done.stderr
    assert "Remove retry_policy from the task" in done.stderr
