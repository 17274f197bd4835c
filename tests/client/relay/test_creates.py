"""Creates on a real MLflow whose answers get lost on the way: made once, and the client knows."""

from __future__ import annotations

import http.client
import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client.relay import Relay, RelayLostDataError
from tests.client.relay.conftest import OpenRelay
from tests.client.relay.support import API, ask, asked
from tests.servers import MLflowProcess, Request, Stranger
from tests.servers import http as answer_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


class Faulty:
    """Stands before MLflow, and spoils the answer to the next create."""

    def __init__(self, mlflow: MLflowProcess) -> None:
        self.fault = ""
        self._mlflow = mlflow

    def __call__(self, request: Request) -> Any:
        fault, self.fault = self.fault, ""
        if fault == "502 before":
            return answer_of(502, "<html>no server</html>")
        if fault == "503 before":
            return answer_of(503, "<html>no server</html>")
        status, body, content_type = self._pass_on(request)
        if fault == "cut after":
            return iter([b""])
        if fault == "504 after":
            return answer_of(504, "<html>too slow</html>")
        return answer_of(status, body, content_type)

    def _pass_on(self, request: Request) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(self._mlflow.host, self._mlflow.port, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k != "host"}
            connection.request(request.method, request.path, request.body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("Content-Type", "")
        finally:
            connection.close()


@pytest.fixture
def faulty(mlflow_server: MLflowProcess, relay_to: OpenRelay) -> Iterator[tuple[Relay, Faulty]]:
    faults = Faulty(mlflow_server)
    with Stranger(faults, host="127.0.0.60") as there, relay_to(there) as relay:
        yield relay, faults


def a_run(relay: Relay) -> str:
    run = asked(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"})["run"]
    return str(run["info"]["run_id"])


def a_logged_model(relay: Relay, name: str = "m") -> str:
    body = {"experiment_id": "0", "name": name}
    return str(asked(relay, "POST", f"{API}/logged-models", body)["model"]["info"]["model_id"])


Made = Callable[[], list[Any]]


def run(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    asks = {"experiment_ids": ["0"], "filter": f"attributes.run_name = '{name}'"}
    return "runs/create", {"experiment_id": "0", "run_name": name}, lambda: asked(
        relay, "POST", f"{API}/runs/search", asks
    ).get("runs", [])  # fmt: skip


def experiment(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    asks = {"filter": f"name = '{name}'", "max_results": 10}
    return "experiments/create", {"name": name}, lambda: asked(
        relay, "POST", f"{API}/experiments/search", asks
    )["experiments"]  # fmt: skip


def registered_model(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    path = f"{API}/registered-models/get?name={name}"
    return "registered-models/create", {"name": name}, lambda: [asked(relay, "GET", path)]


def version(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    asked(relay, "POST", f"{API}/registered-models/create", {"name": name})
    run_id = a_run(relay)
    body = {"name": name, "source": f"mlflow-artifacts:/0/{run_id}/artifacts/m", "run_id": run_id}
    path = f"{API}/model-versions/search?filter=name%3D%27{name}%27"
    return "model-versions/create", body, lambda: asked(relay, "GET", path)["model_versions"]


def logged_model(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    asks = {"experiment_ids": ["0"], "filter": f"name = '{name}'"}
    return "logged-models", {"experiment_id": "0", "name": name}, lambda: asked(
        relay, "POST", f"{API}/logged-models/search", asks
    )["models"]  # fmt: skip


def output(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    run_id, model_id = a_run(relay), a_logged_model(relay)
    body = {"run_id": run_id, "models": [{"model_id": model_id, "step": "0"}]}
    path = f"{API}/runs/get?run_id={run_id}"
    return (
        "runs/outputs",
        body,
        lambda: asked(relay, "GET", path)["run"]["outputs"]["model_outputs"],
    )


def model_of_a_run(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    run_id = a_run(relay)
    model = {
        "artifact_path": "m", "run_id": run_id, "model_uuid": uuid.uuid4().hex,
        "utc_time_created": "2026-11-26 00:00:00.0", "flavors": {},
    }  # fmt: skip

    def made() -> list[Any]:
        tags = asked(relay, "GET", f"{API}/runs/get?run_id={run_id}")["run"]["data"]["tags"]
        return [
            one
            for tag in tags
            if tag["key"] == "mlflow.log-model.history"
            for one in json.loads(tag["value"])
        ]

    return "runs/log-model", {"run_id": run_id, "model_json": json.dumps(model)}, made


def dataset_of_a_run(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    run_id = a_run(relay)
    dataset = {"name": name, "digest": "d", "source_type": "local", "source": "{}"}
    body = {"run_id": run_id, "datasets": [{"tags": [], "dataset": dataset}]}
    path = f"{API}/runs/get?run_id={run_id}"
    return (
        "runs/log-inputs",
        body,
        lambda: asked(relay, "GET", path)["run"]["inputs"]["dataset_inputs"],
    )


def trace(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    experiment_id = asked(relay, "POST", f"{API}/experiments/create", {"name": name})[
        "experiment_id"
    ]
    place = {
        "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id},
    }  # fmt: skip
    info = {
        "trace_id": f"tr-{uuid.uuid4().hex}", "trace_location": place, "state": "OK",
        "request_time": "2026-11-26T00:00:00Z", "execution_duration": "1s",
    }  # fmt: skip
    search = "/api/3.0/mlflow/traces/search"
    return "/api/3.0/mlflow/traces", {"trace": {"trace_info": info}}, lambda: asked(
        relay, "POST", search, {"locations": [place]}
    )["traces"]  # fmt: skip


def prompt(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    """As ``mlflow.genai.register_prompt`` does it: a version of a registered model."""
    mark = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    asked(relay, "POST", f"{API}/registered-models/create", {"name": name, "tags": [mark]})
    tags = [mark, {"key": "mlflow.prompt.text", "value": "Say {{x}}"}]
    path = f"{API}/registered-models/get?name={name}"
    body = {"name": name, "source": "dummy-source", "tags": tags}
    return "model-versions/create", body, lambda: asked(relay, "GET", path)["registered_model"][
        "latest_versions"
    ]  # fmt: skip


def assessment(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    path, body, _ = trace(relay, name)
    asked(relay, "POST", path, body)
    source = {"source_type": "HUMAN", "source_id": "me"}
    given = {
        "assessment_name": name, "source": source, "feedback": {"value": True},
        "trace_id": body["trace"]["trace_info"]["trace_id"],
        "create_time": "2026-11-26T00:00:00Z", "last_update_time": "2026-11-26T00:00:00Z",
    }  # fmt: skip
    one = f"{path}/{given['trace_id']}"
    return f"{one}/assessments", {"assessment": given}, lambda: asked(relay, "GET", one)["trace"][
        "trace_info"
    ].get("assessments", [])  # fmt: skip


def model_params(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    model_id = a_logged_model(relay)
    body = {"model_id": model_id, "params": [{"key": "depth", "value": "6"}]}
    path = f"{API}/logged-models/{model_id}"
    return f"{path}/params", body, lambda: asked(relay, "GET", path)["model"]["data"]["params"]


@pytest.mark.parametrize("fault", ["cut after", "504 after", "502 before", "503 before"])
@pytest.mark.parametrize(
    "kind",
    [
        run,
        experiment,
        registered_model,
        version,
        logged_model,
        output,
        model_of_a_run,
        dataset_of_a_run,
        trace,
        prompt,
        assessment,
        model_params,
    ],
    ids=lambda kind: kind.__name__,
)
def test_what_is_created_is_there_once(
    faulty: tuple[Relay, Faulty], kind: Callable[..., Any], fault: str
) -> None:
    """Whether MLflow had carried the first request out or not."""
    relay, faults = faulty
    name, body, made = kind(relay, f"once-{uuid.uuid4().hex}")
    faults.fault = fault
    path = name if name.startswith("/") else f"{API}/{name}"
    answer = asked(relay, "POST", path, body)
    found = made()
    assert len(found) == 1
    if kind is run:
        assert answer["run"]["info"] == found[0]["info"]
    if kind is experiment:
        assert answer["experiment_id"] == found[0]["experiment_id"]
    if kind in (version, prompt):
        assert answer["model_version"]["version"] == found[0]["version"] == "1"
    if kind is logged_model:
        assert answer["model"]["info"]["model_id"] == found[0]["info"]["model_id"]


def webhook(relay: Relay, name: str) -> tuple[str, dict[str, Any], Made]:
    event = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
    # MLflow looks the host up, and takes public ones only; disabled, nothing is ever sent there.
    body = {"name": name, "url": "https://9.9.9.9/x", "events": [event], "status": "DISABLED"}
    return f"{API}/webhooks", body, lambda: [
        one
        for one in asked(relay, "GET", f"{API}/webhooks").get("webhooks", [])
        if one["name"] == name
    ]  # fmt: skip


@pytest.mark.parametrize(("fault", "status", "count"), [
    ("cut after", 598, 1), ("504 after", 504, 1), ("502 before", 502, 0), ("503 before", 503, 0),
])  # fmt: skip
def test_what_cannot_be_found_again_is_made_at_most_once(
    mlflow_server: MLflowProcess,
    relay_to: OpenRelay,
    fault: str,
    status: int,
    count: int,
) -> None:
    """The client is told, and so is the task."""
    faults = Faulty(mlflow_server)
    told = pytest.raises(RelayLostDataError)
    with told, Stranger(faults, host="127.0.0.60") as there, relay_to(there) as relay:
        path, body, made = webhook(relay, f"atmost-{uuid.uuid4().hex}")
        faults.fault = fault
        answer = ask(relay, "POST", path, body)
        assert answer[0] == status, answer
        assert len(made()) == count


def test_a_relay_sends_what_cannot_be_asked_for_once(
    away: Stranger, once: list[str], relay_to: OpenRelay
) -> None:
    """And the task learns of each."""
    told = pytest.raises(RelayLostDataError)
    with told, relay_to(away) as relay:
        answers = [ask(relay, "POST", path, {"name": "n"})[0] for path in once]
        assert min(answers) >= 500
    assert [request.path for request in away.requests] == once


def test_a_name_that_is_taken_stays_a_refusal(faulty: tuple[Relay, Faulty]) -> None:
    """What another has made is not given out as what this call made."""
    relay, faults = faulty
    name = f"taken-{uuid.uuid4().hex}"
    asked(relay, "POST", f"{API}/registered-models/create", {"name": name})
    faults.fault = "504 after"
    with pytest.raises(AssertionError, match="RESOURCE_ALREADY_EXISTS"):
        asked(relay, "POST", f"{API}/registered-models/create", {"name": name})


@pytest.mark.parametrize("fault", ["504 after", "503 before", "cut after"])
def test_a_model_that_is_renamed_through_a_fault_is_answered(
    faulty: tuple[Relay, Faulty], fault: str
) -> None:
    """Whether the first request has done it or not; what cannot be done is refused."""
    relay, faults = faulty
    name = f"old-{uuid.uuid4().hex}"
    asked(relay, "POST", f"{API}/registered-models/create", {"name": name})
    path, new = f"{API}/registered-models/rename", f"new-{name}"
    for wrong in ({"name": name, "new_name": "a/b:c"}, {"name": new, "new_name": f"x-{name}"}):
        faults.fault = fault
        assert ask(relay, "POST", path, wrong)[0] in (400, 404)
    faults.fault = fault
    answer = asked(relay, "POST", path, {"name": name, "new_name": new})
    assert answer["registered_model"]["name"] == new


@pytest.mark.parametrize("kind", [output, model_params], ids=lambda kind: kind.__name__)
def test_what_a_slow_server_adds_after_all_is_answered(
    mlflow_server: MLflowProcess, relay_to: OpenRelay, kind: Callable[..., Any]
) -> None:
    """It was not there when it was asked for; then the second is refused by the database."""
    late: list[Request] = []
    faults = Faulty(mlflow_server)

    def slow(request: Request) -> Any:
        if request.method == "POST" and request.path.endswith(("/outputs", "/params")):
            if not late:
                late.append(request)
                return answer_of(504, "<html>too slow</html>")
            faults._pass_on(late[0])
        return faults(request)

    with Stranger(slow, host="127.0.0.60") as there, relay_to(there) as relay:
        path, body, made = kind(relay, f"added-{uuid.uuid4().hex}")
        path = path if path.startswith("/") else f"{API}/{path}"
        assert asked(relay, "POST", path, body) == {}
        assert len(made()) == 1


@pytest.mark.parametrize("refused", [False, True], ids=["", "deletion refused"])
def test_a_run_that_was_made_twice_after_all_is_deleted_at_the_end(
    mlflow_server: MLflowProcess,
    relay_to: OpenRelay,
    caplog: pytest.LogCaptureFixture,
    refused: bool,
) -> None:
    """The server carried the first request out only after it had been searched for."""
    late: list[Request] = []
    faults = Faulty(mlflow_server)

    def slow(request: Request) -> Any:
        if request.path.endswith("/runs/create"):
            if not late:
                late.append(request)
                return answer_of(504, "<html>too slow</html>")
            faults._pass_on(late[0])
        if refused and request.path.endswith("/runs/delete"):
            return answer_of(403, "")
        return faults(request)

    name = f"late-{uuid.uuid4().hex}"
    with Stranger(slow, host="127.0.0.60") as there:
        with caplog.at_level("INFO"), relay_to(there) as relay:
            _, body, _ = run(relay, name)
            told = asked(relay, "POST", f"{API}/runs/create", body)["run"]["info"]["run_id"]
        with relay_to(there) as relay:
            found = run(relay, name)[2]()
    ids = {one["info"]["run_id"] for one in found}
    assert told in ids
    assert len(ids) == 1 + refused
    deleted = re.findall("Deleted a duplicate: .runs/delete .*([0-9a-f]{32})", caplog.text)
    assert len(deleted) == 1 - refused
    assert not ids.intersection(deleted)
