"""How long the end of a relay takes while MLflow is away, and what it says was lost."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from airflow_provider_hokusai_dns.client.orphaned_runs import IDENTITY, TAG_TRY
from airflow_provider_hokusai_dns.client.relay import Relay, RelayLostDataError
from tests.client.relay.conftest import OpenRelay
from tests.client.relay.support import API, ask, asked, connected, token_of
from tests.client.relay.test_forwarding import OK, stranger
from tests.servers import Request, Stranger, http, wait_until

RUN = {"run": {"info": {"run_id": "a" * 32, "experiment_id": "0"}}}
PATIENT = {"deadline": 600}


@pytest.fixture
def there() -> Iterator[Stranger]:
    """It begins a run and a metric, and answers nothing more."""

    def answer(request: Request) -> bytes:
        if request.path == f"{API}/runs/create":
            return http(body=json.dumps(RUN), content_type="application/json")
        server.wait(60)
        return OK

    with stranger(answer) as server:
        yield server


def begin_a_run(relay: Relay) -> None:
    asked(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"})


def log_in_vain(relay: Relay, there: Stranger, others: int = 1) -> threading.Thread:
    """A client that waits for the answer to a metric."""

    def log() -> None:
        with contextlib.suppress(OSError):  # the relay closes the connection
            ask(relay, "POST", f"{API}/runs/log-metric", {"run_id": "a" * 32, "key": "m"})

    thread = threading.Thread(target=log)
    thread.start()
    wait_until(lambda: len(there.requests) > others)
    return thread


@pytest.mark.parametrize("stopped", [False, True], ids=["interrupted", "SIGTERM"])
def test_a_task_whose_time_is_over_waits_three_seconds_for_an_mlflow_that_is_away(
    relay_to: OpenRelay, there: Stranger, stopped: bool
) -> None:
    """In all, however patient the connection is: Airflow leaves five."""
    error: type[BaseException] = SystemExit if stopped else KeyboardInterrupt
    with pytest.raises(error) as raised, relay_to(there, changes=PATIENT) as relay:  # noqa: PT012
        begin_a_run(relay)
        client = log_in_vain(relay, there)
        if stopped:
            relay.stop(0.1)
        began = time.monotonic()
        raise error
    assert time.monotonic() - began < 5
    behind = raised.value.__context__
    assert isinstance(behind, RelayLostDataError)
    assert {call.name for call in behind.calls} == {"runs/log-metric", "runs/update"}
    client.join(5)


class Deferred(BaseException):
    """As Airflow's ``TaskDeferred``, which is no ``Exception`` and no failure either."""


def test_a_task_that_defers_delivers_what_is_under_way(relay_to: OpenRelay) -> None:
    """Its time is not over: it waits for longer than the three seconds of one that is stopped."""

    def answer(request: Request) -> bytes:
        server.wait(4)
        return OK

    with (  # noqa: PT012
        pytest.raises(Deferred) as raised,
        stranger(answer) as server,
        relay_to(server, changes=PATIENT, status_of=lambda error: "FINISHED") as relay,
    ):
        client = log_in_vain(relay, server, others=0)
        raise Deferred
    assert raised.value.__context__ is None
    client.join(5)


@pytest.mark.parametrize("by_signal", [True, False], ids=["SIGTERM", "interrupted"])
def test_a_run_that_is_being_begun_when_the_task_is_stopped_is_ended(
    relay_to: OpenRelay, by_signal: bool
) -> None:
    """MLflow answers a second later; the task has three, and there may be no next try."""

    def answer(request: Request) -> bytes:
        if request.path == f"{API}/runs/create":
            server.wait(1)
            return http(body=json.dumps(RUN), content_type="application/json")
        return OK

    def ended() -> list[dict[str, str]]:
        updates = [each for each in server.requests if each.path == f"{API}/runs/update"]
        return [json.loads(each.body) for each in updates]

    def begin() -> None:
        with contextlib.suppress(OSError):  # the relay closes the connection
            ask(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"})

    begun = threading.Thread(target=begin)
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        stranger(answer) as server,
        relay_to(server, changes=PATIENT) as relay,
    ):
        begun.start()
        wait_until(lambda: bool(server.requests))
        if by_signal:
            relay.stop(3)
            assert [each["status"] for each in ended()] == ["KILLED"]
        raise KeyboardInterrupt
    assert [each["run_id"] for each in ended()] == ["a" * 32]
    begun.join(5)


@pytest.mark.parametrize("failed", [False, True], ids=["ended well", "after an error"])
def test_a_task_whose_time_is_over_while_its_relay_ends_says_what_was_lost(
    relay_to: OpenRelay, there: Stranger, caplog: pytest.LogCaptureFixture, failed: bool
) -> None:
    """In the log, and behind what came out; it does not wait for the deadline any more."""
    began = 0.0

    def time_is_over() -> None:
        nonlocal began
        began = time.monotonic()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    over = threading.Timer(0.2, time_is_over)
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt) as raised,
        relay_to(there, changes=PATIENT) as relay,
    ):
        client = log_in_vain(relay, there, others=0)
        over.start()
        if failed:
            raise ValueError("mine")
    assert time.monotonic() - began < 4
    behind = raised.value.__context__
    if failed:
        assert isinstance(behind, ValueError)
        behind = behind.__context__
    assert isinstance(behind, RelayLostDataError)
    assert str(behind) in caplog.text
    client.join(5)
    over.join(5)


def test_after_an_error_it_waits_as_long_as_it_is_given(
    relay_to: OpenRelay, there: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    """And calls that were still under way then are lost, also without a word from MLflow."""
    with (  # noqa: PT012
        pytest.raises(ValueError, match="mine") as raised,
        relay_to(there, changes=PATIENT, end_timeout=0.5) as relay,
    ):
        begin_a_run(relay)
        client = log_in_vain(relay, there)
        began = time.monotonic()
        raise ValueError("mine")
    assert time.monotonic() - began < 6
    behind = raised.value.__context__
    assert isinstance(behind, RelayLostDataError)
    assert "1 call of runs/log-metric (no answer until the relay was closed)" in str(behind)
    assert f"Run {'a' * 32} is still RUNNING" in caplog.text
    client.join(5)


def test_at_the_end_of_its_block_it_waits_for_the_deadline_of_the_connection(
    relay_to: OpenRelay, there: Stranger
) -> None:
    """Then the run that it could not end is a loss, by name."""
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError, match=r"1 call of runs/update .*" + "a" * 32),
        relay_to(there, changes={"deadline": 1}) as relay,
    ):
        begin_a_run(relay)
        began = time.monotonic()
    assert 1 <= time.monotonic() - began < 7


def test_an_upload_that_gets_further_takes_the_time_that_it_needs(relay_to: OpenRelay) -> None:
    """Its client goes on after the block, for longer than the deadline."""
    pieces, began = 8, threading.Event()

    def slow() -> Iterator[bytes]:
        for _ in range(pieces):
            yield b"x" * 1000
            began.wait(1)
            never.wait(0.25)

    def upload(relay: Relay) -> None:
        head = {"Content-Length": str(pieces * 1000), "Authorization": f"Bearer {relay.token}"}
        address = urlsplit(relay.uri).netloc
        connection = HTTPConnection(address, timeout=10)
        connection.request("PUT", "/api/2.0/mlflow-artifacts/artifacts/a", slow(), head)
        answers.append(connection.getresponse().status)
        connection.close()

    answers, never = list[int](), threading.Event()
    with stranger(OK) as server:
        with relay_to(server, changes={"deadline": 1}) as relay:
            client = threading.Thread(target=upload, args=(relay,))
            client.start()
            wait_until(lambda: server.connections > 0)
            began.set()
        client.join(5)
    assert answers == [200]
    assert len(server.requests[0].body) == pieces * 1000


@pytest.mark.parametrize("status", ["FINISHED", "RUNNING", ""])
def test_a_run_that_has_ended_without_the_relay_is_left_as_it_is(
    relay_to: OpenRelay, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the task itself, for example; where MLflow does not say its status, it is ended."""

    def answer(request: Request) -> bytes:
        if request.path.startswith(f"{API}/runs/get?") and not status:
            return http(403)
        document = {"run": {"info": {**RUN["run"]["info"], "status": status}}}
        return http(body=json.dumps(document), content_type="application/json")

    with stranger(answer) as server, relay_to(server) as relay:
        begin_a_run(relay)
    updates = [request.path for request in server.requests if "update" in request.path]
    assert len(updates) == (status != "FINISHED")
    assert ("was left RUNNING" in caplog.text) == (status != "FINISHED")


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "no answer"])
def test_a_run_of_an_earlier_try_that_cannot_be_ended_fails_no_task(
    relay_to: OpenRelay, refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """No client has sent that; the next try ends it."""
    first, second = ({**dict.fromkeys(IDENTITY, "x"), TAG_TRY: number} for number in "12")
    tags = [{"key": key, "value": value} for key, value in first.items()]
    orphan = {"info": {"run_id": "b" * 32, "status": "RUNNING"}, "data": {"tags": tags}}
    documents = {
        f"{API}/experiments/search": {"experiments": [{"experiment_id": "0"}]},
        f"{API}/runs/search": {"runs": [orphan]},
    }

    def answer(request: Request) -> bytes:
        if request.path in documents:
            return http(body=json.dumps(documents[request.path]), content_type="application/json")
        return http(403) if refused or server.wait(60) else OK

    with (
        stranger(answer) as server,
        caplog.at_level("INFO"),
        relay_to(server, changes={"deadline": 1}, run_tags=second),
    ):
        wait_until(lambda: len(server.requests) > 2)
    assert server.requests[2].path == f"{API}/runs/update"
    assert "Ended as KILLED" not in caplog.text


@pytest.mark.parametrize("unread", ["answer", "upload"])
def test_no_socket_is_left_open_where_one_side_reads_no_more(
    relay_to: OpenRelay, monkeypatch: pytest.MonkeyPatch, unread: str
) -> None:
    """What is still to be written keeps a closed connection of asyncio open."""
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    content = b"x" * 50_000_000
    silent = socket.create_server(("127.0.0.52", 0))  # the system takes the connection, and no more
    with stranger(http(body=content)) as talking, silent, contextlib.ExitStack() as clients:
        there = talking
        if unread == "upload":
            there = Stranger(talking.answer, *silent.getsockname())
        # The relay ends first: a client that goes would close the connection itself.
        with (
            contextlib.suppress(RelayLostDataError),
            relay_to(there, changes={"deadline": 1}) as relay,
        ):
            client = clients.enter_context(connected(relay))
            head = f" /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(relay)}\r\n"
            if unread == "answer":
                client.sendall(f"GET{head}\r\n".encode())
                wait_until(lambda: talking.requests)
            else:
                head += f"Content-Length: {len(content)}\r\n"
                client.settimeout(1)
                with contextlib.suppress(OSError):
                    client.sendall(f"PUT{head}\r\n".encode() + content)
        gc.collect()
    assert left == []
