"""How long a call waits for its server, and that nothing is made twice, on a real MLflow server.

A proxy stands in front of it, as a load balancer does, and answers in its place or cuts.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from urllib3.connection import HTTPConnection, HTTPSConnection

from airflow_provider_hokusai_dns.client import adapters, auth, dead_peer, transport
from airflow_provider_hokusai_dns.client.creates import TAG
from airflow_provider_hokusai_dns.client.outcomes import try_of
from airflow_provider_hokusai_dns.client.retries import (
    NoAnswer,
    Progress,
    Step,
    Try,
    next_step,
    pause,
)
from airflow_provider_hokusai_dns.client.routes import Repeat
from airflow_provider_hokusai_dns.client.run import open_run
from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from tests.integration.counting_proxy import CountingProxy, Request
from tests.servers import Busy, MLflowProcess, Stranger, http
from tests.values import a_server

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]
integration = pytest.mark.integration

#: What a load balancer does, as a status; 0 is a cut.
FAULTS = (502, 503, 504, 0)


@pytest.fixture
def server(front: CountingProxy, mlflow_server: MLflowProcess) -> MLflowServer:
    return a_server(hostname=mlflow_server.host, port=front.port, experiment="transport")


@pytest.fixture
def client(server: MLflowServer) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(auth.sign_in(server))


def faulty(status: int, path: str, times: int = 1) -> Callable[[Request], int | None]:
    """Answer like that to the first requests for a path."""
    left = [times]

    def decide(request: Request) -> int | None:
        if path in request.path and left[0] > 0:
            left[0] -= 1
            return status
        return None

    return decide


# --- the decision, without a clock


def waited(last: Try, patience: float, repeat: Repeat = Repeat.FREELY) -> float:
    """Seconds that a call waits between its attempts when each fails at once."""
    now, tries = 0.0, 1
    while True:
        progress = Progress(
            repeat=repeat,
            deadline=patience,
            waiting_since=0.0,
            away_since=None,
            can_send_again=True,
        )
        if next_step(last, progress, now) is not Step.AGAIN:
            return now
        seconds = pause(last, tries, progress.gives_up_at - now, 10.0, 1.0)
        assert 0 < seconds <= 10
        now, tries = now + seconds, tries + 1


NOT_SENT, CUT, AWAY = Try(failure=NoAnswer.NOT_SENT), Try(failure=NoAnswer.CUT), Try(503)


@pytest.mark.parametrize("last", [NOT_SENT, CUT, AWAY])
@pytest.mark.parametrize("patience", [0.0, 3.0, 30.0, 170.0, 600.0])
def test_whatever_is_away_is_waited_for_until_the_deadline_and_no_longer(
    last: Try, patience: float
) -> None:
    """No connection, a cut, 502, 503 and 504 alike: 170 s of 503 are less than the default."""
    assert waited(last, patience) == pytest.approx(patience)


def test_an_error_500_is_repeated_as_long_as_a_plain_client_does() -> None:
    """It may be the server's last word."""
    assert 247 <= waited(Try(500), 600) < 257


def test_what_could_happen_twice_is_sent_again_only_where_it_was_not_sent() -> None:
    """MLflow 3.18 raises too."""
    assert waited(NOT_SENT, 30, Repeat.ONCE) == pytest.approx(30)
    assert waited(CUT, 30, Repeat.ONCE) == 0
    assert waited(AWAY, 30, Repeat.ONCE) == 0


def test_a_certificate_that_is_wrong_is_not_waited_for() -> None:
    """Another attempt changes nothing; a handshake that stops in the middle is another matter."""
    wrong = requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get issuer")
    assert not try_of(wrong).may_pass
    assert try_of(requests.exceptions.SSLError("UNEXPECTED_EOF_WHILE_READING")) == NOT_SENT


# --- outages in front of a real server


@integration
@pytest.mark.parametrize("status", FAULTS)
def test_a_run_loses_nothing_while_a_load_balancer_has_no_server(
    server: MLflowServer, front: CountingProxy, direct: Any, status: int
) -> None:
    """Asynchronous and synchronous metrics, an artifact; then the run is FINISHED."""
    import mlflow

    with open_run(server, auth.sign_in(server)) as run:
        back_at = time.monotonic() + 4
        front.before = lambda _: status if time.monotonic() < back_at else None
        for step in range(20):
            mlflow.log_metric("later", step, step=step, synchronous=False)
        mlflow.log_metric("now", 1.0)
        mlflow.log_text("text", "note.txt")
    done = direct.get_run(run.info.run_id)
    assert (done.info.status, done.data.metrics["now"]) == ("FINISHED", 1.0)
    assert len(direct.get_metric_history(run.info.run_id, "later")) == 20
    assert [found.path for found in direct.list_artifacts(run.info.run_id)] == ["note.txt"]


@integration
def test_max_retries_does_not_count_what_was_not_carried_out(
    server: MLflowServer, front: CountingProxy
) -> None:
    """And a create whose answer was lost is still asked about, when it may not be sent again."""
    import mlflow

    client = mlflow.MlflowClient(auth.sign_in(replace(server, max_retries=1)))
    answers = [429, 429, 503]
    front.before = lambda _: answers.pop(0) if answers else None
    client.search_experiments()
    client = mlflow.MlflowClient(auth.sign_in(replace(server, max_retries=0)))
    front.after = faulty(503, "runs/create")
    assert client.create_run("0").info.run_id


@integration
def test_outside_a_run_a_call_waits_for_its_request_timeout(
    mlflow_server: MLflowProcess, front: CountingProxy
) -> None:
    """And says what was answered, by which server."""
    from mlflow import MlflowClient

    server = a_server(hostname=mlflow_server.host, port=front.port, request_timeout=2.0)
    answers = iter([429, 429])  # the last answer says nothing about those before it
    front.before = lambda _: next(answers, 503)
    began = time.monotonic()
    with pytest.raises(
        Exception,
        match=r"mlflow_test.*answered 503 after \d s of waiting: .*load balancer",
    ):
        MlflowClient(auth.sign_in(server)).search_experiments()
    assert 2 <= time.monotonic() - began < 8


Make = Callable[[Any, str], str]


def _run(client: Any, name: str) -> str:
    return str(client.create_run("0", tags={"kind": name}).info.run_id)


def _experiment(client: Any, name: str) -> str:
    return str(client.create_experiment(name))


def _registered_model(client: Any, name: str) -> str:
    return str(client.create_registered_model(name).name)


def _version(client: Any, name: str) -> str:
    run = client.create_run("0")
    source = f"{run.info.artifact_uri}/model"
    return str(client.create_model_version(name, source, run_id=run.info.run_id).version)


def _logged_model(client: Any, name: str) -> str:
    return str(client.create_logged_model("0", name=name).model_id)


def _inputs(client: Any, name: str) -> str:
    from mlflow.entities import Dataset, DatasetInput

    run_id = name.rpartition("/")[2]
    dataset = Dataset(name="d", digest="1", source_type="code", source="{}", schema=None)
    client.log_inputs(run_id, [DatasetInput(dataset=dataset)])
    return run_id


def _post(client: Any, path: str, api: str = "3.0", **fields: Any) -> Any:
    """As MLflow's client does, whatever its version."""
    url = f"{client.tracking_uri}/api/{api}/mlflow/{path}"
    answer = requests.post(url, json=fields, auth=auth.Authorize(), timeout=60)
    answer.raise_for_status()
    return answer.json()


def _trace(client: Any, name: str) -> str:
    info = {
        "trace_id": f"tr-{name}",
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"},
        },
        "request_time": "2026-11-26T00:00:00Z",
        "state": "OK",
        "tags": {"kind": name},
    }  # fmt: skip
    made = _post(client, "traces", trace={"trace_info": info})
    return str(made["trace"]["trace_info"]["trace_id"])


def _assessment(client: Any, name: str) -> str:
    trace_id = name.rpartition("/")[2]
    assessment = {
        "assessment_name": "good",
        "trace_id": trace_id,
        "source": {"source_type": "HUMAN", "source_id": "me"},
        "feedback": {"value": True},
        "create_time": "2026-11-26T00:00:00Z",
        "last_update_time": "2026-11-26T00:00:00Z",
    }
    made = _post(client, f"traces/{trace_id}/assessments", assessment=assessment)
    return str(made["assessment"]["assessment_id"])


def _assessments(direct: Any, trace_id: str) -> list[Any]:
    found = requests.get(f"{direct.tracking_uri}/api/3.0/mlflow/traces/{trace_id}", timeout=30)
    return list(found.json()["trace"]["trace_info"].get("assessments", ()))


def _model_params(client: Any, name: str) -> str:
    from mlflow.entities import LoggedModelParameter

    model_id = name.rpartition("/")[2]
    client.log_model_params(model_id, {"depth": "6", "trees": "9"})
    return str(LoggedModelParameter("depth", "6").key)


def _outputs(client: Any, name: str) -> str:
    run_id, model_id = name.split("/")[-2:]
    _post(client, "runs/outputs", "2.0", run_id=run_id, models=[{"model_id": model_id, "step": 0}])
    return run_id


def _model_of_a_run(client: Any, name: str) -> str:
    run_id = name.rpartition("/")[2]
    model = {"artifact_path": "m", "run_id": run_id, "model_uuid": name, "flavors": {},
             "utc_time_created": "2026-11-26 00:00:00.0"}  # fmt: skip
    _post(client, "runs/log-model", "2.0", run_id=run_id, model_json=json.dumps(model))
    return run_id


def _prompt(client: Any, name: str) -> str:
    version = str(client.register_prompt(name, "Say {{ it }}").version)
    # MLflow goes on in a thread that the interpreter waits for, as long as its retries take.
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt_to_experiment"):
            thread.join(30)
    return version


def _count(direct: Any, kind: str, name: str) -> int:
    """How many of them are at the server."""
    if kind == "runs/create":
        return len(direct.search_runs(["0"], f"tags.kind = '{name}'"))
    if kind == "experiments/create":
        return len(direct.search_experiments(filter_string=f"name = '{name}'"))
    if kind == "registered-models/create":
        return len(direct.search_registered_models(f"name = '{name}'"))
    if kind == "model-versions/create":
        return len(direct.search_model_versions(f"name = '{name}'"))
    if kind == "logged-models":
        return len(direct.search_logged_models(["0"], f"name = '{name}'"))
    of = name.rpartition("/")[2]
    if kind == "mlflow/traces":
        return len(direct.search_traces(["0"], f"tags.kind = '{name}'", include_spans=False))
    if kind == "/assessments":
        return len(_assessments(direct, of))
    if kind == "/params":
        return len(direct.get_logged_model(of).params) - 1
    if kind == "runs/outputs":
        return len(direct.get_run(name.split("/")[-2]).outputs.model_outputs)
    if kind == "runs/log-model":
        return len(json.loads(direct.get_run(of).data.tags["mlflow.log-model.history"]))
    return len(direct.get_run(of).inputs.dataset_inputs)


CREATES: dict[str, Make] = {
    "runs/create": _run,
    "experiments/create": _experiment,
    "registered-models/create": _registered_model,
    "model-versions/create": _version,
    "logged-models": _logged_model,
    "runs/log-inputs": _inputs,
    "mlflow/traces": _trace,
    "/assessments": _assessment,
    "/params": _model_params,
    "runs/outputs": _outputs,
    "runs/log-model": _model_of_a_run,
}


@integration
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", [503, 0])
@pytest.mark.parametrize("kind", CREATES)
def test_what_is_made_through_a_fault_is_made_once(
    front: CountingProxy, client: Any, direct: Any, kind: str, status: int, when: str
) -> None:
    """Whether the server was reached (and has made it) or not, and twice in a row."""
    name = f"{kind.replace('/', '-')}-{status}-{when}"
    if kind == "model-versions/create":
        direct.create_registered_model(name)
    if kind in ("runs/log-inputs", "runs/outputs", "runs/log-model"):
        name = f"{name}/{direct.create_run('0').info.run_id}"
    if kind in ("/params", "runs/outputs"):
        name = f"{name}/{direct.create_logged_model('0').model_id}"
    if kind == "/assessments":
        name = f"{name}/{_trace(direct, name.strip('/'))}"
    setattr(front, when, faulty(status, kind, times=2))
    made = CREATES[kind](client, name)
    assert made
    assert _count(direct, kind, name) == 1
    if kind == "runs/create":
        assert direct.get_run(made).data.tags["kind"] == name


@integration
@pytest.mark.parametrize("path", ["registered-models/create", "model-versions/create"])
@pytest.mark.parametrize("status", [502, 504])
def test_a_prompt_that_is_registered_through_a_fault_has_one_version(
    front: CountingProxy, client: Any, direct: Any, path: str, status: int
) -> None:
    """It is a registered model and its version, with tags."""
    name = f"prompt-{status}-{path.partition('/')[0]}"
    front.after = faulty(status, path)
    assert _prompt(client, name) == "1"
    prompts = f"name = '{name}' AND tags.`mlflow.prompt.is_prompt` = 'true'"
    assert len(direct.search_model_versions(prompts)) == 1


@integration
def test_below_a_path_of_its_own_a_run_is_made_once_too(
    mlflow_server: MLflowProcess, direct: Any
) -> None:
    """Behind an ingress that gives MLflow the path /mlflow, which is in MLflow's own paths too."""
    from mlflow import MlflowClient

    with CountingProxy(mlflow_server.port, mlflow_server.host, prefix="/mlflow") as front:
        server = a_server(hostname=mlflow_server.host, port=front.port, path_prefix="/mlflow")
        front.after = faulty(504, "runs/create")
        made = _run(MlflowClient(auth.sign_in(server)), "prefixed")
    (found,) = direct.search_runs(["0"], "tags.kind = 'prefixed'")
    assert found.info.run_id == made


@integration
def test_what_copies_the_tags_of_another_is_made(client: Any, direct: Any) -> None:
    """A run like an earlier one, a version of another model: our tag is on those already."""
    first = client.create_run("0", tags={"kind": "copied"})
    again = client.create_run("0", tags=first.data.tags)
    assert again.data.tags["kind"] == "copied"
    for name in ("copied-from", "copied-to"):
        client.create_registered_model(name)
    client.create_model_version("copied-from", first.info.artifact_uri, run_id=first.info.run_id)
    assert client.copy_model_version("models:/copied-from/1", "copied-to").version == "1"


@integration
@pytest.mark.parametrize("status", [504, 0])
def test_what_is_removed_through_a_fault_is_removed(
    front: CountingProxy, client: Any, direct: Any, status: int
) -> None:
    """The second request is answered that there is none: that is what was asked for."""
    run = client.create_run("0", tags={"kind": "removed"})
    client.create_registered_model(f"renamed-{status}")
    names, renamed = {"name": f"renamed-{status}", "new_name": f"removed-{status}"}, []
    for path, remove in {
        "runs/delete-tag": lambda: client.delete_tag(run.info.run_id, "kind"),
        "runs/delete": lambda: client.delete_run(run.info.run_id),
        "registered-models/rename": lambda: renamed.append(
            _post(client, "registered-models/rename", "2.0", **names)
        ),
        "registered-models/delete": lambda: client.delete_registered_model(f"removed-{status}"),
    }.items():
        front.after = faulty(status, path)
        remove()
    assert renamed[0]["registered_model"]["name"] == f"removed-{status}"
    assert direct.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    with pytest.raises(Exception, match="not found"):
        client.delete_registered_model("never-there")


@integration
def test_what_was_never_there_is_refused_through_a_fault_too(
    front: CountingProxy, client: Any, direct: Any
) -> None:
    """A refusal of the first request is no success of the second."""
    client.create_registered_model("refused")
    run = direct.create_run("0", tags={"kind": "refused"})
    direct.delete_run(run.info.run_id)
    for path, words, refused in (
        ("rename", "INVALID", lambda: client.rename_registered_model("refused", "a/b:c")),
        ("rename", "not found", lambda: client.rename_registered_model("never-there", "new")),
        ("delete-tag", "active", lambda: client.delete_tag(run.info.run_id, "kind")),
    ):
        front.before = faulty(503, path)
        with pytest.raises(Exception, match=words):
            refused()


@integration
def test_a_slow_create_is_sent_once(
    mlflow_server: MLflowProcess, front: CountingProxy, direct: Any
) -> None:
    """One call may take its deadline: nine of thirty seconds are no failure."""
    from mlflow import MlflowClient

    server = a_server(hostname=mlflow_server.host, port=front.port, request_timeout=6.0)
    front.before = lambda request: time.sleep(2.5) if "create" in request.path else None
    client = MlflowClient(auth.sign_in(server))
    run = client.create_run("0", tags={"kind": "slow"})
    assert sum("runs/create" in request.path for request in front.requests) == 1
    assert direct.get_run(run.info.run_id).info.status == "RUNNING"
    front.before = lambda request: time.sleep(2.5) if "search" in request.path else None
    assert client.search_runs(["0"], "tags.kind = 'slow'")


@integration
def test_a_run_that_a_slow_server_has_begun_twice_after_all_is_taken_back(
    server: MLflowServer, front: CountingProxy, mlflow_server: MLflowProcess, direct: Any
) -> None:
    """The first request was cut, was not there when we asked, and was carried out later."""
    from mlflow.entities import ViewType

    bodies: list[bytes] = []
    original = transport.ConnectionAdapter._once

    def keep(self: Any, call: Any, *args: Any, **kwargs: Any) -> Any:
        if "runs/create" in call.request.url:
            bodies.append(call.request.body)
        return original(self, call, *args, **kwargs)

    front.before = faulty(0, "runs/create")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport.ConnectionAdapter, "_once", keep)
        with open_run(server, auth.sign_in(server), experiment_name="late") as run:
            requests.post(
                f"{mlflow_server.uri}/api/2.0/mlflow/runs/create",
                json=json.loads(bodies[0]),
                timeout=30,
            ).raise_for_status()
            experiment = [run.info.experiment_id]
            assert len(direct.search_runs(experiment)) == 2
    (left,) = direct.search_runs(experiment)
    assert (left.info.run_id, left.info.status) == (run.info.run_id, "FINISHED")
    every = direct.search_runs(experiment, run_view_type=ViewType.ALL)
    assert {each.info.status for each in every} == {"FINISHED", "KILLED"}
    assert len({each.data.tags[TAG] for each in every}) == 1


@integration
def test_what_a_slow_server_adds_after_all_is_there(
    front: CountingProxy, mlflow_server: MLflowProcess, client: Any, direct: Any
) -> None:
    """It was not there when we asked; then the second request is refused by the database."""
    model_id = direct.create_logged_model("0").model_id
    sent: list[Request] = []

    def late(request: Request) -> int | None:
        if request.path.endswith("/params"):
            sent.append(request)
            if len(sent) == 1:
                return 504
            direct.log_model_params(model_id, {"depth": "6", "trees": "9"})
        return None

    front.before = late
    client.log_model_params(model_id, {"depth": "6", "trees": "9"})
    assert len(sent) == 2
    assert direct.get_logged_model(model_id).params == {"depth": "6", "trees": "9"}


@integration
def test_an_upload_that_takes_its_time_is_left_alone(
    mlflow_server: MLflowProcess, front: CountingProxy, tmp_path: Path
) -> None:
    """A slow store behind the server answers late; a plain client sends the file once."""
    import mlflow

    server = a_server(hostname=mlflow_server.host, port=front.port, deadline=8.0)
    front.before = lambda request: time.sleep(5) if request.method == "PUT" else None
    big = tmp_path / "big.bin"
    big.write_bytes(b"x" * 1_000_000)
    with open_run(server, auth.sign_in(server)):
        mlflow.log_artifact(str(big))
    assert sum(request.method == "PUT" for request in front.requests) == 1


@integration
@pytest.mark.parametrize("faults", [0, 1])
def test_a_download_is_left_to_its_caller_to_read(
    front: CountingProxy, server: MLflowServer, faults: int
) -> None:
    """Piece by piece, and not first as a whole into memory; also after a fault."""
    url = f"{auth.sign_in(server)}/api/2.0/mlflow/experiments/get"
    front.before = faulty(503, "experiments/get", faults)
    with requests.get(url, {"experiment_id": "0"}, stream=True, timeout=30) as response:
        assert response.ok
        assert response.raw.tell() == 0
        assert b"experiment_id" in response.content


def test_a_download_is_sent_again_where_the_answer_of_an_outage_breaks_off() -> None:
    """A proxy that goes away says 503, and not to the end."""
    cut = iter([b"HTTP/1.1 503 X\r\nContent-Length: 500\r\n\r\nbegun"])  # pieces, then an end
    answers = [cut, http(body="all of it")]
    with Stranger(lambda _: answers.pop(0)) as stranger:
        uri = auth.sign_in(a_server(hostname=stranger.host, port=stranger.port))
        url = f"{uri}/api/2.0/mlflow-artifacts/artifacts/x"
        with requests.get(url, stream=True, timeout=30) as response:
            assert response.content == b"all of it"


@integration
def test_an_upload_that_was_cut_is_sent_again_from_its_beginning(
    server: MLflowServer, front: CountingProxy, direct: Any, tmp_path: Path
) -> None:
    """The file is put back to its first byte."""
    import mlflow

    big = tmp_path / "big.bin"
    big.write_bytes(bytes(range(250)) * 4000)
    front.before = faulty(0, "big.bin", times=2)
    with open_run(server, auth.sign_in(server)) as run:
        mlflow.log_artifact(str(big))
    back = direct.download_artifacts(run.info.run_id, "big.bin", str(tmp_path))
    assert Path(back).read_bytes() == big.read_bytes()


def test_the_author_s_time_out_wins_where_it_is_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is for those who have said nothing."""
    seen: list[Any] = []

    def send(self: Any, request: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["timeout"][1])
        raise requests.exceptions.InvalidURL("enough")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    request = requests.Request("GET", "http://mlflow.test/api/2.0/mlflow/runs/get").prepare()
    for value, expected in ((None, 30), ("200", 200), ("5", 30)):
        if value is not None:
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", value)
        with pytest.raises(requests.exceptions.InvalidURL):
            transport.ConnectionAdapter(a_server()).send(request)
        assert seen.pop() == pytest.approx(expected, abs=0.1)


@integration
def test_a_login_that_expires_during_a_run_is_read_again(tmp_path: Path) -> None:
    """Once, at a 401; a wrong one fails as before."""
    from mlflow import MlflowClient

    good = ["first"]

    def answer(request: Any) -> bytes:
        if request.headers.get("authorization") != f"Bearer {good[0]}":
            return http(401, "no")
        return http(body='{"experiments": []}', content_type="application/json")

    with Stranger(answer) as stranger:
        server = a_server(
            hostname=stranger.host, port=stranger.port, credentials=Credentials(secret="first")
        )
        client = MlflowClient(auth.sign_in(server, lambda: Credentials(secret=good[0])))
        assert client.search_experiments() == []
        good[0] = "second"
        assert client.search_experiments() == []
        assert client.search_experiments() == []
        assert len(stranger.requests) == 4
        good[0] = "third"
        uri = auth.sign_in(server, lambda: Credentials(secret="fourth"))
        with pytest.raises(Exception, match="401"):
            MlflowClient(uri).search_experiments()


def test_requests_of_others_go_as_before() -> None:
    """No tag, another tag, or our tag with another server."""
    session = requests.Session()
    auth.sign_in(a_server())
    adapter = adapters.adapter_of("mlflow_test")
    assert session.get_adapter("http://mlflow_test@mlflow.test/api") is adapter
    for url in (
        "http://mlflow.test/api",
        "http://another@mlflow.test/",
        "http://mlflow_test:secret@mlflow.test/",
        "http://mlflow_test@other.test/",
        "https://mlflow_test@mlflow.test/",
    ):
        assert session.get_adapter(url) is session.adapters[url.partition(":")[0] + "://"]
    auth.forget("mlflow_test")
    assert session.get_adapter("http://mlflow_test@mlflow.test/api") is session.adapters["http://"]


@integration
def test_the_log_names_how_much_longer_a_call_waits(
    server: MLflowServer, front: CountingProxy, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Less than its deadline: the attempt that failed has taken a part of it."""
    once = faulty(503, "experiments/search")

    def late(request: Request) -> int | None:
        if (status := once(request)) is not None:
            time.sleep(1.6)
        return status

    front.before = late
    client.search_experiments()
    (line,) = [text for text in caplog.messages if "is unavailable" in text]
    told = float(line.rpartition("for up to ")[2].removesuffix(" s."))
    patience = adapters.adapter_of(server.conn_id).patience
    assert 0 < told <= patience - 1


@integration
def test_an_error_that_is_given_up_is_no_server_that_answers_again(
    mlflow_server: MLflowProcess, front: CountingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The log said that it was unavailable with this 500, and then that it answers again."""
    import mlflow

    server = a_server(hostname=mlflow_server.host, port=front.port, request_timeout=1.0)
    client = mlflow.MlflowClient(auth.sign_in(server))
    front.before = lambda _: 500
    with pytest.raises(mlflow.MlflowException):
        client.search_experiments()
    assert [text for text in caplog.messages if "is unavailable (500)" in text]
    assert not [text for text in caplog.messages if "answers again" in text]
    front.before = lambda _: None
    client.search_experiments()
    assert len([text for text in caplog.messages if "answers again" in text]) == 1


@integration
def test_many_threads_at_once_leave_no_line_about_a_full_pool(
    server: MLflowServer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As MLflow's ten threads and the author's do on a good day."""
    threads = [threading.Thread(target=client.search_experiments) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "pool is full" not in caplog.text


def test_an_upload_that_a_busy_server_has_no_room_for_is_not_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All its workers are at work; its kernel acknowledges, and takes no more."""
    monkeypatch.setattr(dead_peer, "_UNACKNOWLEDGED", 1)
    size = 12 * 2**20
    with Busy(4.0) as there:
        url = f"{auth.sign_in(a_server(hostname=there.host, port=there.port))}/a"
        answer = requests.put(url, data=b"x" * size, auth=auth.Authorize(), timeout=30)
        assert answer.status_code == 200
    assert there.received == [size]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_each_request_has_the_limits_of_its_length(monkeypatch: Any, scheme: str) -> None:
    """On one connection, which is kept; that of a proxy too."""
    limits: list[int] = []

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        options = {name: value for _, name, value in self.socket_options}
        limits.append(options[socket.TCP_USER_TIMEOUT])
        raise OSError

    for connection in (HTTPConnection, HTTPSConnection):
        monkeypatch.setattr(connection, "request", request)
    adapter = transport.ConnectionAdapter(a_server())
    for manager in (adapter.poolmanager, adapter.proxy_manager_for("http://proxy.test:3128")):
        pool = manager.connection_from_host("mlflow.test", 80, scheme)
        for headers in ({}, {"Content-Length": "1"}, {"Content-Length": "99999"},
                        {"Transfer-Encoding": "chunked"}):  # fmt: skip
            with pytest.raises(OSError):  # noqa: PT011
                pool.ConnectionCls("mlflow.test").request("PUT", "/", headers=headers)
    assert limits == [20_000, 20_000, 0, 0] * 2
