"""Which calls that make something are sent again, by MLflow's own list of what there is to call."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.client import auth
from airflow_provider_hokusai_dns.client.creates import TAG, create_of
from airflow_provider_hokusai_dns.client.routes import Repeat, route
from airflow_provider_hokusai_dns.client.transport import SentOnceError
from tests.client.conftest import FURTHER
from tests.servers import Stranger
from tests.values import a_server

#: What we send again and MLflow 3.18 does not, though its stores take it a second time: they
#: compare before they add, replace, or answer that it is done. Who adds a name has read that there.
_TAKEN_TWICE = {
    "AddDatasetToExperiments", "CreatePresignedDownloadUrl", "CreatePresignedUploadUrl",
    "DeleteExperiment", "DeleteExperimentTag", "DeleteTag",
    "LinkPromptsToTrace", "LinkTracesToRun", "LogInputs", "RemoveDatasetFromExperiments",
    "RenameRegisteredModel", "RestoreExperiment", "TransitionModelVersionStage",
    "UpdateExperiment", "UpsertDatasetRecords",
    "CreateMultipartUpload", "CompleteMultipartUpload", "AbortMultipartUpload",
}  # fmt: skip


def test_what_is_sent_again_without_asking_has_been_read_up(posts: dict[str, str]) -> None:
    """A call of a newer MLflow that a pattern of ours takes for harmless fails here first."""
    freely = {name for path, name in posts.items() if route("POST", path).repeat is Repeat.FREELY}
    sources = [(folder / "utils" / "rest_utils.py").read_text() for folder in FURTHER]
    its_own = "".join(
        found
        for source in sources
        for found in re.findall(r"(?s)_RETRY_SAFE_POST_RESPONSES = (.+?\]\))", source)
    )
    if not its_own:
        pytest.skip("no MLflow here that says what it sends again: make setup-mlflow")
    safe = set(re.findall(r'"mlflow\.(?:issues\.)?(\w+)\.Response"', its_own))
    assert freely - safe <= _TAKEN_TWICE
    assert freely >= _TAKEN_TWICE, "the table names what is gone"
    never = {name for name in posts.values() if name in safe} - freely
    assert not never, "MLflow sends these again, and we do not"


def test_what_can_be_asked_for_is_this(posts: dict[str, str]) -> None:
    """Nine kinds; each is made through faults in the tests of the adapter and of the relay."""
    found = {name for path, name in posts.items() if route("POST", path).repeat is Repeat.READ_BACK}
    assert found == {
        "CreateRun", "CreateExperiment", "CreateRegisteredModel", "CreateModelVersion",
        "CreateLoggedModel", "CreateAssessment", "LogLoggedModelParamsRequest", "LogOutputs",
        "LogModel",
    }  # fmt: skip


@pytest.mark.integration
def test_mlflows_client_sends_what_cannot_be_asked_for_once(
    away: Stranger, once: list[str]
) -> None:
    """And its caller is told that it may have been carried out, and not how long was waited."""
    server = a_server(hostname=away.host, port=away.port, request_timeout=5.0)
    uri = auth.sign_in(server)
    for path in once:
        with pytest.raises(SentOnceError, match=r"was not sent again: .* may have carried it out"):
            requests.post(f"{uri}{path}", json={"name": "n"}, auth=auth.Authorize(), timeout=5)
    assert [request.path for request in away.requests] == once


def test_a_create_that_cannot_be_read_is_sent_once_too(away: Stranger) -> None:
    """Its object has no mark by which it could be asked for."""
    server = a_server(hostname=away.host, port=away.port, request_timeout=5.0)
    uri = auth.sign_in(server)
    path = "/api/2.0/mlflow/runs/create"
    with pytest.raises(SentOnceError, match=r"was not sent again: .* may have carried it out"):
        requests.post(f"{uri}{path}", data="[]", auth=auth.Authorize(), timeout=5)
    assert [request.path for request in away.requests] == [path]


# --- the parts, pure


def test_a_tag_leaves_the_callers_own() -> None:
    """The task's tags go on runs alone; ours replaces the one of a run that this is a copy of."""
    old = {"key": TAG, "value": "of another"}
    body = json.dumps({"tags": [{"key": "a", "value": "1"}, old], "name": "n", "experiment_id": 1})
    run = create_of("POST", "runs/create", body, {"a": "2", "b": "3"})
    assert run is not None
    assert json.loads(run.body)["tags"] == [
        {"key": "a", "value": "1"}, {"key": "b", "value": "3"}, {"key": TAG, "value": run.token},
    ]  # fmt: skip
    model = create_of("POST", "registered-models/create", body, {"b": "3"})
    assert model is not None
    assert [tag["key"] for tag in json.loads(model.body)["tags"]] == ["a", TAG]
    outputs = create_of("POST", "runs/outputs", '{"run_id": "x", "models": []}', {"b": "3"})
    assert outputs is not None
    assert json.loads(outputs.body) == {"run_id": "x", "models": []}


def test_what_someone_else_made_is_not_taken_for_ours() -> None:
    """The same name without our tag: the create is sent again, and MLflow says that it exists."""
    create = create_of("POST", "registered-models/create", '{"name": "n"}')
    assert create is not None
    found = {"registered_model": {"name": "n", "tags": [{"key": TAG, "value": "x"}]}}
    assert create.found(found) == []
    found["registered_model"]["tags"] = [{"key": TAG, "value": create.token}]
    assert create.found(found) == [found]


_NAMES = ["runs/create", "experiments/create", "runs/outputs", "runs/log-model", "logged-models",
          "logged-models/m/params", "traces/t/assessments", "model-versions/create"]  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["runs", "run", "info", "data", "tags", "key", "experiment", "outputs",
                         "model_outputs", "models", "params", "assessment", "trace", "name"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(_NAMES), _JSON, _JSON)
def test_neither_a_body_nor_an_answer_breaks_it(name: str, body: Any, answer: Any) -> None:
    """Whatever JSON it is: what is not as the API has it is for the server to refuse."""
    create = create_of("POST", name, json.dumps(body))
    if create is not None:
        assert isinstance(create.found(answer), list)
        create.ask.below("/api/2.0/mlflow")


@pytest.mark.parametrize("prefix", ["", "/mlflow", "/team/api/2.0/mlflow"])
def test_a_server_may_stand_below_a_path_of_its_own(prefix: str) -> None:
    """Even below one that looks like MLflow's API."""
    found = route("POST", f"{prefix}/api/2.0/mlflow/runs/create")
    assert (found.repeat, found.base) == (Repeat.READ_BACK, f"{prefix}/api/2.0/mlflow")
    artifacts = f"{prefix}/api/2.0/mlflow-artifacts/mpu/create/1/a"
    assert route("POST", artifacts).repeat is Repeat.FREELY
