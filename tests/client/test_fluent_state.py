"""What MLflow's client has once per process, claimed and given back."""

from __future__ import annotations

import os
import pickle
import threading

import pytest

from airflow_provider_hokusai_dns.client.fluent_state import (
    experiment_in_use,
    fluent_uri,
)
from airflow_provider_hokusai_dns.config import overrides
from airflow_provider_hokusai_dns.config.overrides import original_value
from airflow_provider_hokusai_dns.exceptions import EnvironmentConflictError, NotSignedInError


def test_the_fluent_api_is_set_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the length of a block, environment included."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://earlier.test")
    assert mlflow.get_tracking_uri() == "http://earlier.test"
    with fluent_uri("c", "http://c@mlflow.test"):
        assert mlflow.get_tracking_uri() == "http://c@mlflow.test"
        assert mlflow.get_registry_uri() == "http://c@mlflow.test"
        with fluent_uri("c", "http://c@mlflow.test"):
            pass
        assert mlflow.get_tracking_uri() == "http://c@mlflow.test"
    assert mlflow.get_tracking_uri() == "http://earlier.test"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://earlier.test"
    assert "MLFLOW_REGISTRY_URI" not in os.environ


def test_the_experiment_of_a_run_is_set_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what the author's code sets meanwhile: it is another server's in the next run."""
    from mlflow.tracking import fluent

    monkeypatch.setattr(fluent, "_active_experiment_id", "7")
    with fluent_uri("c", "http://c@mlflow.test"), experiment_in_use("42"):
        assert fluent._get_experiment_id() == os.environ["MLFLOW_EXPERIMENT_ID"] == "42"
        fluent._active_experiment_id = "43"
    assert fluent._active_experiment_id == "7"
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ


def test_a_second_server_at_the_same_time_is_refused() -> None:
    """Both threads would write to the second."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with fluent_uri("a", "http://a@one.test"):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert entered.wait(5)
        with (
            pytest.raises(EnvironmentConflictError, match="'b' and 'a'"),
            fluent_uri("b", "http://b@two.test"),
        ):
            pytest.fail("not reached")
    finally:
        leave.set()
        thread.join()


@pytest.mark.parametrize(
    "error",
    [
        EnvironmentConflictError("the tracking URI", ("a", "b"), "Use one."),
        NotSignedInError("a"),
    ],
)
def test_errors_come_out_of_another_process_whole(error: Exception) -> None:
    """As a pool of processes passes them on."""
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_what_we_have_set_is_told_from_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are read inside a run are those of the machine, or what the author has set."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://main.test:5000")
    with fluent_uri("team_b", "https://team_b@b.test"):
        assert os.environ["MLFLOW_TRACKING_URI"] == "https://team_b@b.test"
        assert original_value("MLFLOW_TRACKING_URI") == "http://main.test:5000"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://the-author.test")
        assert original_value("MLFLOW_TRACKING_URI") == "http://the-author.test"
    assert original_value("MLFLOW_TRACKING_URI") == "http://main.test:5000"
    assert original_value("NOBODY_HAS_SET_THIS") is None


def test_values_of_the_author_are_seen_through_all_that_we_have_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run inside an exported relay; also what a relay has removed."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://main.test:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "the-authors")
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    before = dict(os.environ)
    variables = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "MLFLOW_TRACKING_TOKEN": "t"}
    relay = overrides.begin("c", {**variables, "MLFLOW_TRACKING_AUTH": None}, exported=True)
    with fluent_uri("c", "http://c@mlflow.test"):
        assert original_value("MLFLOW_TRACKING_URI") == "http://main.test:5000"
        assert original_value("MLFLOW_TRACKING_AUTH") == "the-authors"
        assert original_value("MLFLOW_TRACKING_TOKEN") is None
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "the author's")
        assert original_value("MLFLOW_TRACKING_TOKEN") == "the author's"
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1"
    overrides.end(relay, keep_others=True)
    assert dict(os.environ) == before


@pytest.mark.parametrize("keep_others", [False, True])
def test_what_is_set_first_may_be_put_back_first(
    monkeypatch: pytest.MonkeyPatch, keep_others: bool
) -> None:
    """Two threads; the last one restores what was there before both."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://main.test:5000")
    first = overrides.begin("c", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, exported=True)
    second = overrides.begin("c", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:2"}, exported=True)
    overrides.end(first, keep_others=keep_others)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:2"
    assert original_value("MLFLOW_TRACKING_URI") == "http://main.test:5000"
    overrides.end(second, keep_others=keep_others)
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://main.test:5000"


@pytest.mark.parametrize(("relays", "experiment"), [("c", "42"), ("another", "7")])
def test_a_run_leaves_the_variables_for_children_on_an_exported_relay(
    monkeypatch: pytest.MonkeyPatch, relays: str, experiment: str
) -> None:
    """Their login is the relay's; only MLflow's API in this process leads to the run's server."""
    import mlflow

    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://main.test:5000")
    before = dict(os.environ)
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    relay = overrides.begin(relays, dict.fromkeys(names, "http://127.0.0.1:1"), exported=True)
    inside = dict(os.environ)
    with fluent_uri("c", "http://c@mlflow.test"), experiment_in_use("42"):
        assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == "http://c@mlflow.test"
        assert {os.environ[name] for name in names} == {"http://127.0.0.1:1"}
        assert os.environ["MLFLOW_EXPERIMENT_ID"] == experiment
        assert original_value("MLFLOW_TRACKING_URI") == "http://main.test:5000"
    assert dict(os.environ) == inside
    overrides.end(relay, keep_others=True)
    assert dict(os.environ) == before


def test_a_relay_that_ends_before_the_run_leaves_the_variables_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads; what was there before both is restored by the run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://main.test:5000")
    relay = overrides.begin("c", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}, exported=True)
    with fluent_uri("c", "http://c@mlflow.test"):
        overrides.end(relay, keep_others=True)
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://c@mlflow.test"
        assert original_value("MLFLOW_TRACKING_URI") == "http://main.test:5000"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://main.test:5000"
