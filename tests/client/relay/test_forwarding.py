"""What goes through a relay, and what does not, against servers that answer as a test wants."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import dead_peer, retries
from airflow_provider_hokusai_dns.client.creates import Ask
from airflow_provider_hokusai_dns.client.relay import (
    Relay,
    RelayLostDataError,
    forwarding,
    open_relay,
)
from airflow_provider_hokusai_dns.client.relay.forwarding import Forwarder
from airflow_provider_hokusai_dns.client.relay.runs import Runs
from airflow_provider_hokusai_dns.client.relay.upstream import Upstream
from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.client.relay.conftest import OpenRelay
from tests.client.relay.support import API, NAME, a_server, ask, asked, connected, token_of
from tests.servers import Busy, Request, Stranger, http, wait_until

OK = http(body=json.dumps({"done": True}), content_type="application/json")


def stranger(*answers: Any) -> Stranger:
    """Gives these answers one after the other, and the last one for ever."""
    left = list(answers)

    def answer(request: Request) -> Any:
        found = left.pop(0) if len(left) > 1 else left[0]
        return found(request) if callable(found) else found

    return Stranger(answer, host="127.0.0.52")


def cut(request: Request) -> Iterator[bytes]:
    """The connection ends before the answer."""
    yield b""


def half(request: Request) -> Iterator[bytes]:
    """The connection ends in the middle of the answer."""
    yield b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


def test_a_request_carries_the_connections_login_and_host_and_not_the_clients(
    relay_to: OpenRelay,
) -> None:
    """The token of the relay goes nowhere, the hostname is in Host, the prefix before the path."""
    changes = {
        "credentials": Credentials("user", "secret"), "path_prefix": "/there", "workspace": "w",
    }  # fmt: skip
    with stranger(OK) as there, relay_to(there, changes=changes) as relay:
        given = {
            "X-Mine": "1", "Connection": "close, X-Hop", "X-Hop": "1", "X-MLFLOW-WORKSPACE": "v",
        }  # fmt: skip
        status, body, _ = ask(relay, "GET", "/api/2.0/a%20b?c=d%2Fe", headers=given)
        assert (status, json.loads(body)) == (200, {"done": True})
        (request,) = there.requests
    assert request.path == "/there/api/2.0/a%20b?c=d%2Fe"
    assert request.headers["host"] == f"{NAME}:{there.port}"
    assert request.headers["authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert request.headers["x-mlflow-workspace"] == "w"
    assert request.headers["x-mine"] == "1"
    assert "x-hop" not in request.headers


def test_without_credentials_no_authorization_is_sent(relay_to: OpenRelay) -> None:
    """The token of the relay is no login of the server."""
    with stranger(OK) as there, relay_to(there) as relay:
        ask(relay, "GET", "/health")
    assert "authorization" not in there.requests[0].headers


@pytest.mark.parametrize(
    ("registry", "prefix", "path"),
    [
        (None, "", ""),
        (None, "/there", ""),
        (f"http://{NAME}:80", "", ""),
        (f"http://{NAME.upper()}", "", ""),
        (f"http://{NAME}/models", "", "/models"),
        (f"http://{NAME}/there/models/", "/there", "/models"),
        (f"http://{NAME}/therefore", "/there", None),
        (f"http://{NAME}", "/there", None),
        (f"https://{NAME}", "", None),
        ("http://other.test", "", None),
    ],
)
def test_a_registry_on_the_same_server_is_reached_through_the_relay(
    registry: str | None, prefix: str, path: str | None
) -> None:
    """Whichever way it is spelled; children go to one elsewhere themselves."""
    with open_relay(a_server(registry_uri=registry, path_prefix=prefix), list) as relay:
        uri = relay.variables({})["MLFLOW_REGISTRY_URI"]
        assert uri == (registry if path is None else relay.uri + path)


@pytest.mark.parametrize("answer", [
    http(503, "away"), http(502), http(504), http(429), cut, half,
    http(400, '{"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5"}'),
    http(503, '{"error_code": "TEMPORARILY_UNAVAILABLE"}', Retry_After="1"),
])  # fmt: skip
def test_a_metric_is_sent_again_until_it_arrives(relay_to: OpenRelay, answer: Any) -> None:
    """With the same body."""
    with stranger(answer, answer, OK) as there, relay_to(there) as relay:
        metric = {"run_id": "r", "key": "m", "value": 1.0, "timestamp": 1, "step": 0}
        assert asked(relay, "POST", f"{API}/runs/log-metric", metric) == {"done": True}
    assert [json.loads(request.body) for request in there.requests] == [metric] * 3


@pytest.mark.parametrize(("allowed", "sent"), [(0, 1), (1, 2)])
def test_the_connections_max_retries_ends_it_before_the_deadline(
    relay_to: OpenRelay, allowed: int, sent: int
) -> None:
    """As in the task's own process; the client gets MLflow's last answer."""
    changes = {"max_retries": allowed, "deadline": 3}
    with stranger(http(503)) as there, relay_to(there, changes=changes) as relay:
        assert ask(relay, "GET", f"{API}/runs/get?run_id=1")[0] == 503
    assert len(there.requests) == sent


def test_max_retries_does_not_count_what_was_not_carried_out(relay_to: OpenRelay) -> None:
    """A server that is away for seconds is waited for, as in the task's own process."""
    answers = [http(429)] * 3 + [http(503), OK]
    with stranger(*answers) as there, relay_to(there, changes={"max_retries": 1}) as relay:
        assert asked(relay, "GET", f"{API}/runs/get?run_id=1") == {"done": True}
    assert len(there.requests) == 5


def test_a_create_that_may_not_be_sent_again_is_still_asked_about(relay_to: OpenRelay) -> None:
    """Its answer was lost; the relay ends the run that it has made."""

    def found(request: Request) -> Any:
        tags = json.loads(there.requests[0].body)["tags"]
        run = {"info": {"run_id": "made", "experiment_id": "0"}, "data": {"tags": tags}}
        return http(body=json.dumps({"runs": [run]}), content_type="application/json")

    with (
        stranger(cut, found, OK) as there,
        relay_to(there, changes={"max_retries": 0}) as relay,
    ):
        made = asked(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"})
        assert made["run"]["info"]["run_id"] == "made"
    paths = [request.path.rpartition("mlflow/")[2] for request in there.requests]
    assert [path.partition("?")[0] for path in paths][:4] == [
        "runs/create", "runs/search", "runs/get", "runs/update",
    ]  # fmt: skip


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 501])
def test_mlflows_own_refusal_goes_through_as_it_is(relay_to: OpenRelay, status: int) -> None:
    """Once, with its words."""
    said = json.dumps({"error_code": "X", "message": "no"})
    with stranger(http(status, said)) as there, relay_to(there) as relay:
        assert ask(relay, "GET", f"{API}/runs/get?run_id=1")[:2] == (status, said.encode())
    assert len(there.requests) == 1


@pytest.mark.parametrize("answer", [
    http(429), http(408), http(425), http(302, Location="http://elsewhere/login"), http(304),
    http(400, '{"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5"}'),
], ids=["429", "408", "425", "302", "304", "full pool"])  # fmt: skip
def test_a_write_that_the_server_did_not_take_is_lost(relay_to: OpenRelay, answer: Any) -> None:
    """Overrun until the deadline, or a redirect to a page for a login; a read loses nothing."""
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError, match=r"1 call of runs/log-metric") as error,
        stranger(answer) as there,
        relay_to(there, changes={"deadline": 0.5}) as relay,
    ):
        status = ask(relay, "POST", f"{API}/runs/log-metric", {"run_id": "r", "key": "m"})[0]
        assert ask(relay, "POST", f"{API}/runs/search", {})[0] == status
    assert [call.permanent for call in error.value.calls] == [300 <= status < 400]


@pytest.mark.parametrize("path", ["/gateway/mlflow/v1/chat/completions", "/graphql"])
def test_a_call_that_stores_nothing_is_no_loss(relay_to: OpenRelay, path: str) -> None:
    """A judge asks a language model over MLflow's gateway, and handles its failure itself."""
    with stranger(http(500, "overloaded")) as there, relay_to(there) as relay:
        assert ask(relay, "POST", path, {"model": "m"})[:2] == (500, b"overloaded")


def test_what_may_do_harm_twice_is_sent_once_when_its_answer_is_lost(relay_to: OpenRelay) -> None:
    """And the loss is named at the end, although the client may have swallowed it."""
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError, match=r"1 call of gateway/secrets/create"),
        stranger(cut) as there,
        relay_to(there) as relay,
    ):
        status, body, _ = ask(relay, "POST", "/api/3.0/mlflow/gateway/secrets/create", {"a": 1})
        assert status == 598
        assert NAME in json.loads(body)["message"]
    assert len(there.requests) == 1


def test_what_may_do_harm_twice_is_sent_again_when_no_server_took_it(relay_to: OpenRelay) -> None:
    """A 429 says so; a 503 is also what Envoy says when its server broke off in the middle."""
    path = "/api/3.0/mlflow/gateway/secrets/create"
    with stranger(http(429, "<html>"), OK) as there, relay_to(there) as relay:
        assert asked(relay, "POST", path, {"a": 1}) == {"done": True}
    assert len(there.requests) == 2


def test_a_create_of_the_relays_own_keeps_its_body() -> None:
    """It is marked like a client's, whose body comes in pieces."""

    async def create(server: MLflowServer, address: str) -> None:
        upstream = Upstream(server, lambda: [address])
        forwarder = Forwarder(server, upstream, Runs(), {})
        await forwarder.ask(Ask("POST", "experiments/create", {"name": "e"}), API, deadline=5)
        await upstream.close()

    with stranger(OK) as there:
        asyncio.run(create(a_server(port=there.port), there.host))
    (request,) = there.requests
    assert json.loads(request.body)["name"] == "e"


def test_a_create_is_found_again_by_its_tag_and_not_made_twice(relay_to: OpenRelay) -> None:
    """The answer to the first sending was lost after MLflow had carried it out."""
    made: list[dict[str, Any]] = []

    def mlflow(request: Request) -> Any:
        body = json.loads(request.body or b"{}")
        if request.path.endswith("/runs/create"):
            made.append(body)
            return cut(request)
        if request.path.endswith("/runs/search"):
            runs = [
                {"info": {"run_id": "a" * 32, "experiment_id": "7"}, "data": {"tags": one["tags"]}}
                for one in made
            ]
            return http(body=json.dumps({"runs": runs}), content_type="application/json")
        return OK

    tags = {"airflow.dag_id": "d", "mine": "not this"}
    with stranger(mlflow) as there, relay_to(there, run_tags=tags) as relay:
        body = {"experiment_id": "7", "tags": [{"key": "mine", "value": "1"}]}
        run = asked(relay, "POST", f"{API}/runs/create", body)["run"]
        assert run["info"]["run_id"] == "a" * 32
    assert len(made) == 1
    given = {tag["key"]: tag["value"] for tag in made[0]["tags"]}
    assert (given["airflow.dag_id"], given["mine"]) == ("d", "1")
    (update,) = (each for each in there.requests if each.path.endswith("/runs/update"))
    ended = json.loads(update.body)
    assert (ended["run_id"], ended["status"]) == ("a" * 32, "FAILED")
    assert there.requests[-1].path.endswith("/runs/search"), "a duplicate is looked for at the end"


@pytest.mark.parametrize("own", [None, "w"])
def test_what_the_relay_asks_for_a_child_is_asked_in_the_workspace_of_the_child(
    relay_to: OpenRelay, own: str | None
) -> None:
    """A create whose answer is lost, what is made twice, and the end of its run."""
    run = {"info": {"run_id": "a" * 32, "status": "RUNNING"}}

    def mlflow(request: Request) -> Any:
        if request.path.endswith("/runs/create"):
            return cut(request)
        if request.path.endswith("/runs/search"):
            tags = json.loads(there.requests[0].body)["tags"]
            document = {"runs": [{**run, "data": {"tags": tags}}]}
            return http(body=json.dumps(document), content_type="application/json")
        return http(body=json.dumps({"run": run}), content_type="application/json")

    with stranger(mlflow) as there, relay_to(there, changes={"workspace": own}) as relay:
        given = {"x-mlflow-workspace": "team-b", "Content-Type": "application/json"}
        status, _, _ = ask(relay, "POST", f"{API}/runs/create", b'{"a": 1}', headers=given)
        assert status == 200
    names = [request.path.partition("?")[0].removeprefix(f"{API}/") for request in there.requests]
    assert names == ["runs/create", "runs/search", "runs/get", "runs/update", "runs/search"]
    workspaces = {request.headers["x-mlflow-workspace"] for request in there.requests}
    assert workspaces == {own or "team-b"}


def test_a_create_that_was_not_carried_out_is_sent_again(relay_to: OpenRelay) -> None:
    """After it was searched for twice."""
    run = {"run": {"info": {"run_id": "b" * 32, "experiment_id": "7"}}}
    answers = iter([cut, http(body="{}"), http(body="{}"), http(body=json.dumps(run))])

    def mlflow(request: Request) -> Any:
        found = next(answers, OK)
        return found(request) if callable(found) else found

    with stranger(mlflow) as there, relay_to(there) as relay:
        assert asked(relay, "POST", f"{API}/runs/create", {"experiment_id": "7"}) == run
    names = [request.path.removeprefix(API) for request in there.requests]
    assert names[:4] == ["/runs/create", "/runs/search", "/runs/search", "/runs/create"]


@pytest.mark.parametrize("status", [401, 403, 400])
def test_a_create_that_cannot_be_looked_for_is_not_sent_again(
    relay_to: OpenRelay, status: int
) -> None:
    """A user may create what they may not search: it would be made twice."""
    with (
        pytest.raises(RelayLostDataError, match=r"runs/create .*carried out is unknown"),
        stranger(cut, http(status, '{"error_code": "X"}')) as there,
        relay_to(there) as relay,
    ):
        assert ask(relay, "POST", f"{API}/runs/create", {"experiment_id": "7"})[0] == 598
    names = [request.path.removeprefix(API) for request in there.requests]
    assert names == ["/runs/create", "/runs/search"]


def test_what_the_server_has_not_is_no_loss(relay_to: OpenRelay) -> None:
    """501, by which MLflow's client falls back from uploads in parts."""
    with (
        stranger(http(501, '{"error_code": "NOT_IMPLEMENTED"}')) as there,
        relay_to(there) as relay,
    ):
        path = "/api/2.0/mlflow-artifacts/mpu/create/1/x/artifacts"
        assert ask(relay, "POST", path, {"path": "a", "num_parts": 2})[0] == 501


def test_a_server_that_is_slow_to_create_is_asked_once(relay_to: OpenRelay) -> None:
    """One call may take its deadline."""
    run = {"run": {"info": {"run_id": "c" * 32, "experiment_id": "7"}}}

    def slow(request: Request) -> bytes:
        there.wait(3)
        return http(body=json.dumps(run))

    with stranger(slow) as there, relay_to(there) as relay:
        assert asked(relay, "POST", f"{API}/runs/create", {"experiment_id": "7"}) == run
        there.answer = lambda request: OK
    assert [r.path for r in there.requests].count(f"{API}/runs/create") == 1


def test_a_call_is_given_up_at_the_deadline_and_the_next_ones_at_once(relay_to: OpenRelay) -> None:
    """A client that logs on and on does not wait the deadline again at each call."""
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError, match=r"2 calls of runs/log-metric") as error,
        stranger(http(503)) as there,
        relay_to(there, changes={"deadline": 2}) as relay,
    ):
        began = time.monotonic()
        run_id = "d" * 32
        status, body, _ = ask(relay, "POST", f"{API}/runs/log-metric", {"run_id": run_id})
        assert (status, 1.5 < time.monotonic() - began < 6) == (503, True), body
        began = time.monotonic()
        assert ask(relay, "POST", f"{API}/runs/log-metric", {"run_id": run_id, "a": 1})[0] == 503
        assert time.monotonic() - began < 1.5
    assert run_id in str(error.value)
    assert error.value.calls[0].run_id == run_id


def test_a_call_that_comes_late_in_an_outage_says_how_long_that_has_lasted(
    relay_to: OpenRelay,
) -> None:
    """It is given up at once, and "after 0 s" would not say why."""
    with stranger(OK) as there:
        pass  # its port is free now: connections are refused
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError),
        relay_to(there, changes={"deadline": 2}) as relay,
    ):
        first = ask(relay, "POST", f"{API}/runs/log-metric", {"run_id": "r"})
        late = ask(relay, "POST", f"{API}/runs/log-metric", {"run_id": "r", "late": 1})
    assert b"given up after 2 s. deadline" in first[1]
    assert b"given up after 0 s, as MLflow has been unavailable for 2 s. deadline" in late[1]


def test_a_pause_in_which_nobody_asks_is_no_part_of_an_outage(relay_to: OpenRelay) -> None:
    """A call that failed before it is no reason to give up the next one without a second try."""
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError, match=r"arrive: 1 call of webhooks \("),
        stranger(http(502), http(502), OK) as there,
        relay_to(there, changes={"deadline": 1}) as relay,
    ):
        assert ask(relay, "POST", f"{API}/webhooks", {"sent": "once"})[0] == 502
        time.sleep(1.2)
        assert ask(relay, "POST", f"{API}/runs/log-metric", {"run_id": "r"})[0] == 200


def test_a_kept_connection_to_a_host_that_is_gone_ends_by_itself(relay_to: OpenRelay) -> None:
    """Where nothing is acknowledged any more; else the whole deadline would be waited there."""
    with stranger(OK) as there, relay_to(there) as relay:
        assert ask(relay, "GET", "/health")[0] == 200
        (kept,) = relay._upstream._sessions[False].connector._conns.values()
        sock = kept[0][0].transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_what_arrives_later_is_not_lost(relay_to: OpenRelay) -> None:
    """The client has sent the same again by itself."""
    with stranger(http(503)) as there, relay_to(there, changes={"deadline": 1}) as relay:
        assert ask(relay, "POST", f"{API}/runs/set-tag", {"run_id": "1"})[0] == 503
        there.answer = lambda request: OK
        assert ask(relay, "POST", f"{API}/runs/set-tag", {"run_id": "1"})[0] == 200


@pytest.mark.parametrize("keep", [0, 2**30])
@pytest.mark.parametrize("size", [400_000, 9 * 2**20])
def test_what_arrives_later_is_another_call_where_its_body_differs_at_the_end(
    relay_to: OpenRelay, keep: int, size: int
) -> None:
    """However long, and where nothing of it could be stored."""
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError, match=r"1 call of v1/traces"),
        stranger(http(503)) as there,
        relay_to(there, keep=keep, changes={"deadline": 0}) as relay,
    ):
        assert ask(relay, "POST", "/v1/traces", bytes(size) + b"a")[0] == 503
        assert ask(relay, "POST", "/v1/traces", bytes(size) + b"b")[0] == 503
        there.answer = lambda request: OK
        assert ask(relay, "POST", "/v1/traces", bytes(size) + b"b")[0] == 200


@pytest.mark.parametrize("sent", [
    {"run_id": "a" * 32, "status": "FINISHED", "end_time": 5},
    {"runId": "a" * 32, "status": 4, "endTime": "5"},
    {"run_uuid": "a" * 32, "run_id": "a" * 32, "status": "KILLED"},
])  # fmt: skip
def test_a_child_that_joined_the_run_of_the_task_does_not_end_it(
    relay_to: OpenRelay, sent: dict[str, Any]
) -> None:
    """Its exit is no end of the training; the name that it gives the run arrives, and a restart."""
    update = f"{API}/runs/update"
    with stranger(OK) as there, relay_to(there, run_id="a" * 32) as relay:
        assert asked(relay, "POST", update, {**sent, "run_name": "n"}) == {"done": True}
        for other in ({"run_id": "b" * 32, "status": "FINISHED", "end_time": 5},
                      {"run_id": "a" * 32, "status": "RUNNING"}):  # fmt: skip
            asked(relay, "POST", update, other)
    first, *others = (json.loads(request.body) for request in there.requests)
    ids = {name: value for name, value in sent.items() if name.startswith("run")}
    assert first == {**ids, "run_name": "n"}
    assert others == [{"run_id": "b" * 32, "status": "FINISHED", "end_time": 5},
                      {"run_id": "a" * 32, "status": "RUNNING"}]  # fmt: skip


def test_the_blocks_own_error_comes_out_and_the_loss_goes_to_the_log(
    relay_to: OpenRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """A loss never hides why the block was left."""
    with (  # noqa: PT012
        pytest.raises(KeyError) as error,
        stranger(http(500)) as there,
        relay_to(there, changes={"deadline": 0.5}) as relay,
    ):
        ask(relay, "PUT", "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a", b"body")
        raise KeyError("mine")
    assert isinstance(error.value.__context__, RelayLostDataError)
    assert (
        "did not arrive: 1 call of artifacts/1/x/artifacts/a (MLflow answered 500)" in caplog.text
    )


@pytest.mark.parametrize(("path", "body", "sent"), [
    (f"{API}/logged-models/m/params", {"params": [{"key": "k", "value": "v"}]}, 2),
    (f"{API}/runs/outputs", {"run_id": "r", "models": [{"model_id": "m"}]}, 2),
    ("/api/3.0/mlflow/traces/t/assessments", {"assessment": {"assessment_name": "good"}}, 2),
    (f"{API}/runs/create", {"experiment_id": "0"}, 1),
])  # fmt: skip
def test_what_a_client_has_sent_whole_is_delivered_when_the_client_is_gone(
    relay_to: OpenRelay, path: str, body: dict[str, Any], sent: int
) -> None:
    """But no object is made for a client that will not use it."""
    hung_up = threading.Event()

    def overrun(request: Request) -> bytes:
        assert hung_up.wait(5)
        return http(429)

    with stranger(overrun, OK) as there:
        with relay_to(there) as relay:
            with connected(relay) as client:
                send(client, relay, path, body)
                wait_until(lambda: bool(there.requests))
            hung_up.set()
        assert len(there.requests) == sent


def send(client: socket.socket, relay: Relay, path: str, body: dict[str, Any]) -> None:
    """Send a POST and do not read the answer."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(relay)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    client.sendall(head.encode() + content)


def test_an_upload_is_sent_again_from_its_beginning(relay_to: OpenRelay) -> None:
    """The server hangs up after it has read all of 3 MB; what was sent is still there."""
    content = bytes(range(256)) * 12_000
    with stranger(cut, OK) as there, relay_to(there) as relay:
        path = "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a"
        assert ask(relay, "PUT", path, content)[0] == 200
    assert [request.body for request in there.requests] == [content] * 2


@pytest.mark.parametrize("keep", [0, 1_000_000])
def test_an_upload_that_is_too_long_to_keep_is_sent_once(
    relay_to: OpenRelay, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It arrives on a good day; when it does not, the client and the log say so."""
    content, path = bytes(3_000_000), "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a"
    with stranger(OK) as there, relay_to(there, keep=keep) as relay:
        assert ask(relay, "PUT", path, content)[0] == 200
        assert "It is sent once" in caplog.text
        there.answer = cut
        assert ask(relay, "PUT", path, content)[0] == 598
        there.answer = lambda request: OK
        assert ask(relay, "PUT", path, content)[0] == 200
    assert len(there.requests) == 3


def test_a_long_answer_that_breaks_off_does_not_look_whole(relay_to: OpenRelay) -> None:
    """The client of a download sees that it broke off."""
    import http.client

    def long(request: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 X\r\nContent-Length: 4000000\r\n\r\n" + bytes(3_000_000)

    with (
        stranger(long) as there,
        relay_to(there) as relay,
        pytest.raises((http.client.IncompleteRead, ConnectionResetError)),
    ):
        ask(relay, "GET", "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a")


def test_a_second_delete_that_finds_nothing_has_succeeded(relay_to: OpenRelay) -> None:
    """The first was carried out, and its answer was lost."""
    gone = http(404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST"}))
    with stranger(cut, gone) as there, relay_to(there) as relay:
        assert ask(relay, "DELETE", f"{API}/registered-models/delete", {"name": "m"})[0] == 200
        assert ask(relay, "DELETE", f"{API}/registered-models/delete", {"name": "m"})[0] == 404


def test_a_redirect_to_the_server_leads_to_the_relay_and_none_is_followed(
    relay_to: OpenRelay,
) -> None:
    """Elsewhere the client goes by itself, without the login."""
    with stranger(OK) as there, relay_to(there, changes={"path_prefix": "/p"}) as relay:
        for location, expected in (
            (f"http://{NAME}:{there.port}/p/x?y=1", f"{relay.uri}/x?y=1"),
            ("/p/x", f"{relay.uri}/x"),
            (f"https://{NAME}:{there.port}/p/x", f"https://{NAME}:{there.port}/p/x"),
            ("/private", "/private"),
            ("//elsewhere/p/x", "//elsewhere/p/x"),
            ("http://elsewhere/x", "http://elsewhere/x"),
        ):
            there.answer = lambda request, location=location: http(307, Location=location)
            status, _, headers = ask(relay, "GET", "/a")
            assert (status, headers["location"]) == (307, expected)
    assert len(there.requests) == 6


def _wants_the_second_token(request: Request) -> bytes:
    return OK if request.headers.get("authorization") == "Bearer second" else http(401, "no")


def test_a_login_that_expires_is_read_again_once_for_all_calls(relay_to: OpenRelay) -> None:
    """Whatever the call, an upload too; and the new one is used at once from then on."""
    read: list[Credentials] = []

    def renew() -> Credentials:
        time.sleep(0.2)  # so that the others meet their 401 meanwhile
        read.append(Credentials(secret="second"))
        return read[-1]

    changes = {"credentials": Credentials(secret="first")}
    upload = "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a"
    calls = [("POST", f"{API}/runs/log-metric", {"step": n}) for n in range(10)]
    calls += [("POST", f"{API}/runs/create", {"experiment_id": "0"}), ("PUT", upload, b"x" * 99)]
    with (
        stranger(_wants_the_second_token) as there,
        relay_to(there, changes=changes, renew=renew) as relay,
    ):
        with ThreadPoolExecutor(len(calls)) as pool:
            statuses = list(pool.map(lambda call: ask(relay, *call)[0], calls))
        assert statuses == [200] * len(calls)
        assert len(read) == 1
        before = len(there.requests)
        assert ask(relay, *calls[0])[0] == 200
        assert len(there.requests) == before + 1
    uploads = [request.body for request in there.requests if request.method == "PUT"]
    assert uploads[-1] == b"x" * 99


@pytest.mark.parametrize("login", [None, Credentials(secret="first"), Credentials(secret="third")])
def test_a_login_that_is_refused_again_is_told(
    relay_to: OpenRelay, login: Credentials | None
) -> None:
    """It is sent again only where it is another one, and once."""
    changes = {"credentials": Credentials(secret="first")}
    with (
        stranger(_wants_the_second_token) as there,
        pytest.raises(RelayLostDataError, match="401"),
        relay_to(there, changes=changes, renew=lambda: login) as relay,
    ):
        assert ask(relay, "POST", f"{API}/runs/log-metric", {"step": 1})[0] == 401
    is_new = login == Credentials(secret="third")
    assert len(there.requests) == 1 + is_new


def test_a_login_that_is_wrong_for_good_is_read_once_for_a_while(relay_to: OpenRelay) -> None:
    """However many calls are refused, one after the other or at once."""
    read: list[float] = []

    def renew() -> Credentials:
        read.append(time.monotonic())
        time.sleep(0.3)
        return Credentials(secret="first")

    changes = {"credentials": Credentials(secret="first")}
    with (
        stranger(http(401)) as there,
        relay_to(there, changes=changes, renew=renew) as relay,
        ThreadPoolExecutor(10) as pool,
    ):
        began = time.monotonic()
        refused = list(pool.map(lambda n: ask(relay, "GET", f"/health?{n}")[0], range(30)))
        assert time.monotonic() - began < 3
    assert (refused, len(read)) == ([401] * 30, 1)


def test_a_call_waits_for_a_login_for_as_long_as_it_has_left(
    relay_to: OpenRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its store may hang; what it says in the end is used."""
    monkeypatch.setattr(forwarding, "_LEAST", 0.5)
    goes_on = threading.Event()

    def renew() -> Credentials:
        goes_on.wait(20)
        return Credentials(secret="second")

    changes = {"credentials": Credentials(secret="first"), "deadline": 0.5}
    with (
        stranger(_wants_the_second_token) as there,
        relay_to(there, changes=changes, renew=renew) as relay,
    ):
        began = time.monotonic()
        assert ask(relay, "GET", "/health")[0] == 401
        assert time.monotonic() - began < 3
        goes_on.set()
        wait_until(lambda: ask(relay, "GET", "/health")[0] == 200)


def test_two_hundred_calls_at_once_all_arrive_through_an_outage(
    relay_to: OpenRelay, dns: DNSServer
) -> None:
    """The server is away while they come."""
    with stranger(http(503)) as there, relay_to(there) as relay:
        statuses: list[int] = []

        def log(step: int) -> None:
            statuses.append(ask(relay, "POST", f"{API}/runs/log-metric", {"step": step})[0])

        threads = [threading.Thread(target=log, args=(step,)) for step in range(200)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        there.answer = lambda request: OK
        for thread in threads:
            thread.join()
    assert statuses == [200] * 200


@pytest.mark.parametrize("token", [None, "wrong", "x" * 43])
def test_without_the_token_nothing_is_forwarded(relay_to: OpenRelay, token: str | None) -> None:
    """401, for every caller and path."""
    with stranger(OK) as there, relay_to(there) as relay:
        for method, path in (("GET", "/health"), ("POST", f"{API}/runs/create"), ("PUT", "/x")):
            status, body, _ = ask(relay, method, path, b"{}", token=token)
            assert status == 401
            assert token_of(relay) not in body.decode()
    assert there.requests == []


@pytest.mark.parametrize("path", [
    "http://elsewhere/x", "//elsewhere/x", "/a/../b", "/a/%2e%2e/b", "/..", "*",
])  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(relay_to: OpenRelay, path: str) -> None:
    """No absolute form, and nothing above the server's prefix."""
    with stranger(OK) as there, relay_to(there) as relay:
        assert ask(relay, "GET", path)[0] == 400
    assert there.requests == []


def test_the_method_connect_is_refused(relay_to: OpenRelay) -> None:
    """The relay is no proxy to elsewhere."""
    with stranger(OK) as there, relay_to(there) as relay:
        assert ask(relay, "CONNECT", "elsewhere:443")[0] in (400, 405)
    assert there.requests == []


@pytest.mark.parametrize(("author_timeout", "sent"), [(None, 2), ("20", 1)])
def test_a_slow_answer_is_waited_for_as_long_as_the_author_says(
    relay_to: OpenRelay, monkeypatch: pytest.MonkeyPatch, author_timeout: str | None, sent: int
) -> None:
    """By MLflow's own variable, as outside of a relay; sent again, it would be as slow again."""
    monkeypatch.setattr(retries, "ANSWER_TIMEOUT", 1.0)
    if author_timeout is not None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", author_timeout)

    def slow(request: Request) -> bytes:
        time.sleep(6)
        return OK

    with stranger(slow, OK) as there, relay_to(there) as relay:
        assert asked(relay, "POST", f"{API}/runs/search", {}) == {"done": True}
    assert len(there.requests) == sent


def test_an_upload_that_a_busy_server_has_no_room_for_is_not_cut(
    relay_to: OpenRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel acknowledges, and takes no more: it is alive. What fits is another matter."""
    monkeypatch.setattr(dead_peer, "_UNACKNOWLEDGED", 1)
    path = "/api/2.0/mlflow-artifacts/artifacts/0/r/artifacts/a"
    size = 12 * 2**20
    with Busy(4.0) as there, relay_to(there, keep=2**20) as relay:
        assert ask(relay, "PUT", path, b"x" * size)[0] == 200
    assert there.received == [size]


def test_a_dead_host_is_noticed_soon_where_all_that_was_sent_fits() -> None:
    """And a body of unknown length may not."""

    def seconds(**headers: str) -> int:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        options = dead_peer.socket_options(given)
        return dict(option[1:] for option in options)[socket.TCP_USER_TIMEOUT]

    assert seconds() == seconds(Content_Length="0") == seconds(content_length="32768") == 20_000
    assert seconds(Transfer_Encoding="chunked") == seconds(Content_Length="1000000") == 0
