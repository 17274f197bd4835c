"""The pure parts of a relay: what may be repeated, how long it waits, what goes through."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.client.relay.child_environment import changed, child_variables
from airflow_provider_hokusai_dns.client.relay.outage import Outage
from airflow_provider_hokusai_dns.client.relay.records import (
    LostCall,
    RelayLostDataError,
    losses_of,
    run_id_in,
)
from airflow_provider_hokusai_dns.client.relay.runs import Runs
from airflow_provider_hokusai_dns.client.retries import (
    NoAnswer,
    Progress,
    Step,
    Try,
    answer_limit,
    next_step,
    pause,
    retry_after,
)
from airflow_provider_hokusai_dns.client.routes import PATIENCE_WITH_500, Repeat, route

A2, A3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts"


@pytest.mark.parametrize(("method", "path", "repeat", "writes"), [
    ("GET", f"{A2}/runs/get", "freely", False),
    ("POST", f"{A2}/runs/search", "freely", False),
    ("POST", f"{A3}/traces/search", "freely", False),
    ("POST", "/ajax-api/2.0/mlflow/experiments/search", "freely", False),
    ("POST", f"{A2}/runs/log-batch", "freely", True),
    ("POST", f"{A2}/runs/update", "freely", True),
    ("POST", f"{A2}/runs/log-inputs", "freely", True),
    ("POST", f"{A3}/traces", "freely", True),
    ("POST", f"{A2}/traces", "once", True),
    ("POST", "/v1/traces", "freely", True),
    ("PATCH", f"{A2}/logged-models/m-1", "freely", True),
    ("PUT", f"{ARTIFACTS}/artifacts/1/a/artifacts/x", "freely", True),
    ("POST", f"{ARTIFACTS}/mpu/create/1/a", "freely", True),
    ("POST", f"{ARTIFACTS}/mpu/complete/1/a", "freely", True),
    ("DELETE", f"{A2}/model-versions/delete", "freely", True),
    ("POST", f"{A2}/runs/create", "read_back", True),
    ("POST", f"{A2}/experiments/create", "read_back", True),
    ("POST", f"{A2}/registered-models/create", "read_back", True),
    ("POST", f"{A2}/model-versions/create", "read_back", True),
    ("POST", f"{A2}/logged-models", "read_back", True),
    ("POST", f"{A2}/runs/outputs", "read_back", True),
    ("POST", f"{A2}/logged-models/search", "freely", False),
    ("POST", f"{A3}/traces/t/assessments", "read_back", True),
    ("POST", f"{A2}/logged-models/m/params", "read_back", True),
    ("POST", f"{A3}/traces/delete-traces", "once", True),
    ("POST", "/graphql", "once", False),
    ("POST", "/gateway/mlflow/v1/chat/completions", "once", False),
    ("POST", "/prefix/ajax-api/3.0/mlflow/gateway/secrets/create", "once", True),
    ("POST", "/api/3.0/jobs", "once", True),
    ("PUT", "/gateway/x", "freely", False),
    ("POST", "/prefix/v1/traces/", "freely", True),
    ("POST", "/api/2.0/mlflow/runs/create/x", "once", True),
])  # fmt: skip
def test_each_request_has_a_rule(method: str, path: str, repeat: str, writes: bool) -> None:
    """By method and path alone; what is unknown is not repeated."""
    found = route(method, path)
    assert (found.repeat, found.writes) == (repeat, writes)


AWAY = [Try(failure=NoAnswer.NOT_SENT), Try(failure=NoAnswer.CUT), Try(502), Try(503), Try(504)]


def progress(repeat: Repeat = Repeat.FREELY, **changes: Any) -> Progress:
    return Progress(**{
        "repeat": repeat, "deadline": 100.0, "waiting_since": 0.0, "away_since": None,
        "can_send_again": True, **changes,
    })  # fmt: skip


@pytest.mark.parametrize("last", AWAY)
def test_what_may_be_repeated_is_repeated_until_the_deadline(last: Try) -> None:
    """And then the client gets what there is."""
    over = Step.GIVE_UP if last.failure else Step.ANSWER
    assert next_step(last, progress(), now=99.0) is Step.AGAIN
    assert next_step(last, progress(), now=100.0) is over
    assert next_step(last, progress(waiting_since=50.0), now=149.0) is Step.AGAIN
    assert next_step(last, progress(waiting_since=50.0, away_since=10.0), now=110.0) is over
    assert next_step(last, progress(can_send_again=False), now=1.0) is over


@pytest.mark.parametrize("last", AWAY)
def test_what_may_do_harm_is_repeated_only_where_nothing_was_done(last: Try) -> None:
    """A create is looked for instead."""
    nothing_done = last.failure is NoAnswer.NOT_SENT
    once = next_step(last, progress(Repeat.ONCE), now=1.0)
    assert (once is Step.AGAIN) == nothing_done
    create = next_step(last, progress(Repeat.READ_BACK), now=1.0)
    assert create is (Step.AGAIN if nothing_done else Step.READ_BACK)


@given(st.integers(100, 599), st.floats(0, 1e6), st.sampled_from(Repeat))
def test_an_answer_that_is_no_outage_is_passed_on(status: int, now: float, repeat: Repeat) -> None:
    """At any time."""
    if status in (408, 425, 429, 500, 502, 503, 504):
        return
    assert next_step(Try(status), progress(repeat), now) is Step.ANSWER


@pytest.mark.parametrize(
    ("repeat", "of_an_artifact", "limit"),
    [
        (Repeat.FREELY, False, 120.0),
        (Repeat.FREELY, True, 600.0),
        (Repeat.READ_BACK, False, 600.0),
        (Repeat.ONCE, False, 600.0),
    ],
)
def test_a_server_that_hangs_is_asked_again_where_that_is_cheap(
    repeat: Repeat, of_an_artifact: bool, limit: float
) -> None:
    """As MLflow's own client does it after its time-out; never later than the deadline."""
    for patience, author_timeout, expected in (
        (600.0, 0.0, limit),
        (600.0, 30.0, limit),
        (600.0, 300.0, max(limit, 300.0)),  # a search that takes minutes, as its author knows
        (600.0, 3600.0, 600.0),
        (5.0, 300.0, 5.0),
    ):
        found = answer_limit(
            repeat, of_an_artifact=of_an_artifact, patience=patience, author_timeout=author_timeout
        )
        assert found == expected


@pytest.mark.parametrize(
    ("deadline", "pause", "under_way", "is_new"),
    [
        (600.0, 301.0, False, True),
        (600.0, 299.0, False, False),
        (60.0, 61.0, False, True),
        (60.0, 61.0, True, False),  # it goes on in a call that is still waiting
        (60.0, 301.0, True, True),
    ],
)
def test_an_outage_is_over_after_a_pause(
    deadline: float, pause: float, under_way: bool, is_new: bool
) -> None:
    """A call after that waits its own deadline, and not the rest of one that has passed."""
    outage = Outage(deadline)
    outage.call_begins(1000.0)
    outage.note(Try(502), 1000.0)
    if not under_way:
        outage.call_ends()
    outage.call_begins(1000.0 + pause)
    outage.note(Try(502), 1000.0 + pause)
    assert outage.since == (1000.0 + pause if is_new else 1000.0)
    outage.note(Try(200), 2000.0)
    assert outage.since is None


def test_mlflow_s_own_500_is_repeated_as_long_as_by_its_client() -> None:
    """Then the client gets it, even with a longer deadline."""
    busy = progress(deadline=600.0)
    assert next_step(Try(500), busy, now=PATIENCE_WITH_500 - 1) is Step.AGAIN
    assert next_step(Try(500), busy, now=PATIENCE_WITH_500) is Step.ANSWER


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, '{"error_code": "FEATURE_DISABLED", "message": "no workspaces"}'),
        (503, "Endpoint: /x disabled because the server is running without workspaces support."),
        (503, '{"detail":"Artifact serving is disabled. Run `mlflow server` with `--serve-'),
        (503, "Endpoint: /x disabled due to the mlflow server running with `--no-serve-artifacts`"),
        (503, "Endpoint: /x disabled due to the mlflow server running in `--artifacts-only` mode"),
    ],
)
def test_what_a_server_was_started_without_is_not_waited_for(status: int, body: str) -> None:
    last = Try(status, body=body.encode())
    assert next_step(last, progress(), now=1.0) is Step.ANSWER
    assert not last.says_away


def test_a_certificate_is_not_waited_for() -> None:
    """It stays as wrong as it is."""
    assert next_step(Try(failure=NoAnswer.FINAL), progress(), now=0.0) is Step.GIVE_UP


@given(st.integers(1, 10_000), st.floats(0, 1000), st.floats(0, 30), st.floats(0, 1))
def test_a_pause_ends_by_the_deadline(tries: int, left: float, asked: float, spread: float) -> None:
    """However long the server would like it; and not before the time that it asked for."""
    seconds = pause(Try(503, retry_after=asked), tries, left, 2.0, spread)
    assert 0 <= seconds <= left * (1 + 1e-9)
    assert seconds <= max(2.0, asked * 1.5, asked + 1.0)
    assert seconds >= asked or asked >= left


@given(st.floats(0.001, 30), st.floats(0.001, 1000), st.integers(1, 20))
def test_callers_that_were_told_one_time_do_not_all_come_back_at_it(
    asked: float, left: float, tries: int
) -> None:
    """They come over a second or half of that time, whichever is longer, if the deadline allows."""
    last = Try(503, retry_after=asked)
    first, middle, late = (pause(last, tries, asked + left, 0.0, s) for s in (0.0, 0.5, 1.0))
    assert first == asked
    assert late - first == pytest.approx(min(left, max(1.0, asked / 2)))
    assert middle == pytest.approx((first + late) / 2)


def test_a_server_that_asks_for_more_than_is_left_is_asked_only_a_few_times_more() -> None:
    """Shares of what is left would become ever shorter."""
    left, tries = 30.0, 0
    while left > 0:
        left -= pause(Try(503, retry_after=30.0), 1, left, 2.0, 0.0)
        tries += 1
    assert tries <= 6


@pytest.mark.parametrize(("text", "seconds"), [
    ("3", 3.0), (" 10 ", 10.0), ("", 0.0), ("-1", 0.0), ("1e9", 0.0), ("²", 0.0), ("1.5", 0.0),
    ("86400", 30.0), ("604800", 30.0), ("9" * 400, 30.0),
    ("Wed, 21 Oct 2026 07:28:07 GMT", 7.0), ("Wednesday, 21-Oct-26 07:28:07 GMT", 7.0),
    ("Wed Oct 21 07:28:07 2026", 7.0), ("Wed, 21 Oct 2026 08:28:00 GMT", 30.0),
    ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0), ("Wed, 99 Oct 2026 07:28:07 GMT", 0.0),
    ("Wed, 21 Oct 99999 07:28:07 GMT", 0.0), ("Wed", 0.0),
])  # fmt: skip
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float) -> None:
    """A header of a stranger never raises."""
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC).timestamp()
    assert retry_after({"Retry-After": text}, now) == seconds
    answered = {"Retry-After": text, "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert retry_after(answered, now + 5000.0) == seconds


def test_the_environment_of_a_child_has_no_secret_and_leads_to_the_relay() -> None:
    """One retry policy, loopback past every proxy, nothing of the connection."""
    base = {
        "PATH": "/bin", "no_proxy": "internal", "HTTPS_PROXY": "http://proxy:1",
        "MLFLOW_TRACKING_AUTH": "x", "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca",
        "MLFLOW_TRACKING_PASSWORD": "secret", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    }  # fmt: skip
    changes = child_variables(base, uri="http://127.0.0.1:1", token="t", user="u", deadline=600.0)
    there = changed(base, changes)
    assert "secret" not in there.values()
    assert there["MLFLOW_TRACKING_URI"] == there["MLFLOW_REGISTRY_URI"] == "http://127.0.0.1:1"
    assert there["NO_PROXY"] == there["no_proxy"] == "internal,127.0.0.1,localhost"
    assert there["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "660"
    assert there["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert not {"MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_SERVER_CERT_PATH"} & there.keys()
    assert (there["PATH"], there["HTTPS_PROXY"]) == ("/bin", "http://proxy:1")


@pytest.mark.parametrize(("base", "expected"), [
    ({"NO_PROXY": "*"}, "*"),
    ({"NO_PROXY": " * ", "no_proxy": "*"}, "*"),
    ({"NO_PROXY": "*.test"}, "*.test,127.0.0.1,localhost"),
    ({}, "127.0.0.1,localhost"),
])  # fmt: skip
def test_a_child_uses_a_proxy_for_what_the_task_uses_it(
    base: dict[str, str], expected: str
) -> None:
    """A lone * means none at all, and only alone."""
    changes = child_variables(base, uri="u", token="t", user="u", deadline=600.0)
    assert (changes["NO_PROXY"], changes["no_proxy"]) == (expected, expected)


def test_an_authors_longer_time_out_stays() -> None:
    """It only has to be longer than the relay waits."""
    base = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3600"}
    changes = child_variables(base, uri="u", token="t", user="u", deadline=600.0)
    assert changes["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3600"


def test_the_relay_knows_which_runs_are_left_open() -> None:
    """Begun, resumed, ended, deleted; the joined one belongs to someone else."""
    runs = Runs(joined="j")
    for run_id in ("a", "b", "j"):
        runs.begun(run_id)
    runs.updated("a", "FINISHED")
    runs.updated("c", "RUNNING")
    runs.updated("j", "RUNNING")
    runs.deleted("b")
    assert list(runs.open) == ["c"]


def test_the_error_names_calls_and_runs_and_survives_pickling() -> None:
    """It crosses processes."""
    import pickle

    run_id = "0123456789abcdef" * 2
    assert run_id_in("/x", json.dumps({"run_id": run_id})) == run_id
    assert run_id_in(f"/artifacts/0/{run_id}/artifacts/a") == run_id
    assert run_id_in(f"/traces/tr-{run_id}/assessments", f'{{"model_id": "m-{run_id}"}}') is None
    calls = tuple(LostCall("runs/log-batch", run_id, why) for why in ("away", "away", "cut"))
    error = pickle.loads(pickle.dumps(RelayLostDataError("c", calls)))
    assert "3 calls of runs/log-batch (away; cut)" in str(error)
    assert run_id in str(error)
    assert (error.calls, error.losses) == (calls, losses_of(calls))
