"""The light door to the REST API: bounded, careful with credentials, clear about errors."""

from __future__ import annotations

import base64
import errno
import gc
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
import requests

from airflow_provider_hokusai_dns import observers, pins
from airflow_provider_hokusai_dns.exceptions import (
    BreakerOpenError,
    MLflowRestError,
    SettingError,
)
from airflow_provider_hokusai_dns.health.breaker import breaker_for
from airflow_provider_hokusai_dns.hooks import rest
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from tests.client.relay.support import asked
from tests.conftest import HOSTNAME, SEARCH
from tests.servers import Stranger, http, wait_until


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def signed_in(dns, tiny, connect, clean_runtime):
    dns.set_records(HOSTNAME, [tiny.address])
    connect(
        host=HOSTNAME,
        port=tiny.port,
        login="me",
        password="hunter2-password",
        extra={"nameservers": dns.address, "request_timeout": 2, "workspace": "team-a"},
    )
    yield MLflowHook()
    breaker_for(MLflowHook().server).reset()


def test_a_call_gives_the_document(signed_in, tiny):
    """With parameters in the query or a body."""
    tiny.answers[SEARCH] = (200, {"experiments": [{"name": "e"}]})
    assert signed_in.rest("post", SEARCH, json={"max_results": 1})["experiments"][0]["name"] == "e"
    assert signed_in.rest("GET", SEARCH, params={"max_results": 1})["experiments"]


def test_the_credentials_go_along_and_the_name_stays(signed_in, tiny):
    """Basic authentication, the workspace, and the hostname for MLflow's Host check."""
    signed_in.rest("POST", SEARCH, json={})
    headers = tiny.asked[-1][2]
    token = base64.b64encode(b"me:hunter2-password").decode()
    assert headers["Authorization"] == f"Basic {token}"
    assert headers["X-MLFLOW-WORKSPACE"] == "team-a"
    assert headers["Host"] == f"{HOSTNAME}:{tiny.port}"


def test_a_workspace_that_is_not_there_yet_can_be_created(signed_in, tiny):
    """The server resolves the header before it routes: with it, the answer would be 404."""
    path = "/api/3.0/mlflow/workspaces"
    tiny.answers[path] = (200, {"workspace": {"name": "team-a"}})
    signed_in.rest("POST", path, json={"name": "team-a"})
    assert "X-MLFLOW-WORKSPACE" not in tiny.asked[-1][2]
    tiny.answers["/x"] = (200, {})
    signed_in.rest("GET", f"/x?name={path}")
    assert "X-MLFLOW-WORKSPACE" in tiny.asked[-1][2]


def test_no_extra_of_the_connection_becomes_a_header(signed_in, tiny):
    """The http provider would send unknown extras; ours never reach it."""
    signed_in.rest("POST", SEARCH, json={})
    sent = {name.lower() for name in tiny.asked[-1][2]}
    assert not sent & {"nameservers", "request_timeout", "workspace"}


def test_an_error_repeats_what_a_server_says_on_one_bounded_line(signed_in, tiny):
    """A message of 20 kB with a line break would forge a line of the log."""
    said = "no\n[2026-11-26] INFO all is well " + "x" * 20_000
    tiny.answers[SEARCH] = (404, {"error_code": said, "message": said})
    with pytest.raises(MLflowRestError) as caught:
        signed_in.rest("POST", SEARCH, json={})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800
    assert caught.value.code == ""


def test_an_error_has_status_code_and_message(signed_in, tiny):
    """As fields, because code should not match on a text."""
    tiny.answers[SEARCH] = (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No run 7"})
    with pytest.raises(MLflowRestError, match="No run 7") as caught:
        signed_in.rest("POST", SEARCH, json={})
    assert (caught.value.status, caught.value.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert tiny.count(SEARCH) == 1


def test_an_error_without_a_code_or_a_reason_has_no_gap(signed_in, tiny):
    """Of a page that is not of MLflow's API."""
    tiny.answers[SEARCH] = (404, {})
    with pytest.raises(MLflowRestError, match=r"failed \(404\): the server says 'Not Found'"):
        signed_in.rest("POST", SEARCH, json={})
    tiny.answers[SEARCH] = (499, {})  # a status without a phrase
    with pytest.raises(MLflowRestError, match=r"failed \(499\): the server gives no reason"):
        signed_in.rest("POST", SEARCH, json={})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((None, "/x"), "the method of a REST call must be a word such as 'GET', not None"),
        (
            ("/x?token=hunter2", "GET"),
            "the method of a REST call must be a word such as 'GET', not a",
        ),
        (("GET", None), "must begin with one slash, unlike 'None'"),
        (("POST", "/x", {"json": ["hunter2"]}), "json of a REST call must be a dict, not a list"),
        (
            ("GET", "/x", {"params": "a=hunter2"}),
            "params of a REST call must be a dict, not a string",
        ),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_sent(signed_in, tiny, arguments, told):
    """Without a value that may be a secret."""
    method, path, *given = arguments
    with pytest.raises(ValueError, match="REST call") as caught:
        signed_in.rest(method, path, **(given[0] if given else {}))
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert not tiny.asked


@pytest.mark.parametrize("page", ["<html>welcome</html>", "[" * 200_000], ids=["html", "endless"])
def test_what_is_no_json_is_told(signed_in, tiny, page):
    """A proxy that shows its login page with 200, and a stranger who nests without end."""
    tiny.answers[SEARCH] = (200, page)
    with pytest.raises(MLflowRestError, match=r"is this MLflow's REST API \(/api/"):
        signed_in.rest("POST", SEARCH, json={})


@pytest.mark.parametrize(
    ("method", "path", "is_repeated"),
    [
        ("GET", "/x", True),
        ("POST", SEARCH, True),
        ("POST", "/x", False),
        ("POST", "/api/2.0/mlflow/runs/create", False),
        ("POST", "/api/2.0/mlflow/runs/delete", True),
        ("POST", "/api/2.0/mlflow/registered-models/rename", False),
        ("DELETE", "/api/2.0/mlflow/registered-models/delete", True),
    ],
)
def test_what_may_have_been_carried_out_is_not_carried_out_twice(
    signed_in, tiny, method, path, is_repeated
):
    """By the table of MLflow's client: a search is tried again, a create is not."""
    tiny.answers[path] = (503, {})
    with pytest.raises(MLflowRestError):
        signed_in.rest(method, path)
    assert (tiny.count(path) > 1) is is_repeated


@pytest.mark.parametrize("path", ["/x", "/api/2.0/mlflow/runs/create"])
@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_server_that_is_overrun_is_asked_again(signed_in, tiny, status, path):
    """It has not carried anything out, so this holds for every call, whatever max_retries is."""
    tiny.answers[path] = [(status, {}), (200, {"run": {}})]
    signed_in.server = replace(signed_in.server, max_retries=0)
    assert signed_in.rest("POST", path, json={}) == {"run": {}}


@pytest.mark.parametrize(
    ("answer", "is_repeated"),
    [
        ((500, {"error_code": "INTERNAL_ERROR", "message": "database is locked"}), True),
        ((400, {"message": "QueuePool limit of size 5 overflow 10 reached"}), True),
        ((500, {"error_code": "FEATURE_DISABLED", "message": "started without workspaces"}), False),
        ((400, {"message": "no such field"}), False),
    ],
)
def test_an_error_of_mlflow_is_repeated_as_in_a_run(signed_in, tiny, answer, is_repeated):
    """A locked database or a full pool passes; only what is harmless is sent again."""
    tiny.answers[SEARCH] = [answer, (200, {})]
    tiny.answers["/api/2.0/mlflow/runs/create"] = [answer]
    if is_repeated:
        assert signed_in.rest("POST", SEARCH, json={}) == {}
    for path in ["/api/2.0/mlflow/runs/create"] if is_repeated else [SEARCH]:
        with pytest.raises(MLflowRestError):
            signed_in.rest("POST", path, json={})


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_a_call_that_fails_until_its_deadline_says_what_the_server_answered(
    dns, connect, clean_runtime, status, seconds
):
    """Not that the last try had no time left; and there is no burst of requests at the end."""
    came: list[float] = []

    def answer(request):
        came.append(time.monotonic())
        time.sleep(seconds)
        return http(status, "{}")

    with Stranger(answer, host="127.0.0.9") as stranger:
        dns.set_records(HOSTNAME, [stranger.host])
        extra = {"nameservers": dns.address, "request_timeout": 2}
        connect(host=HOSTNAME, port=stranger.port, extra=extra)
        with pytest.raises(MLflowRestError) as caught:
            MLflowHook().rest("GET", "/x")
    assert caught.value.status == status
    assert 2 <= len(came) <= 6
    assert all(later - sooner > 0.09 for sooner, later in itertools.pairwise(came))


@pytest.mark.parametrize("status", [429, 503])
def test_a_call_comes_back_when_the_server_asks_for_it(dns, connect, clean_runtime, status):
    """Not before; and many calls not all at once."""
    came: dict[str, list[float]] = {}

    def answer(request):
        came.setdefault(request.path, []).append(time.monotonic())
        again = len(came[request.path]) > 1
        return http(body="{}") if again else http(status, "{}", Retry_After="1")

    with Stranger(answer, host="127.0.0.9") as stranger:
        dns.set_records(HOSTNAME, [stranger.host])
        extra = {"nameservers": dns.address, "request_timeout": 10}
        connect(host=HOSTNAME, port=stranger.port, extra=extra)
        hook = MLflowHook()
        with ThreadPoolExecutor(20) as threads:
            assert list(threads.map(lambda n: hook.rest("GET", f"/{n}"), range(20))) == [{}] * 20
    waited = [second - first for first, second in came.values()]
    assert min(waited) >= 1.0
    # That 20 random moments of one second lie within a quarter of it happens once in 10^10 times.
    assert max(waited) - min(waited) > 0.25


def test_the_error_says_when_the_server_wants_to_be_asked_again(dns, connect, clean_runtime):
    """A time beyond the deadline is not waited for: the call is sent once more before it."""
    with Stranger(lambda _: http(429, "{}", Retry_After="3600"), host="127.0.0.9") as stranger:
        dns.set_records(HOSTNAME, [stranger.host])
        extra = {"nameservers": dns.address, "request_timeout": 1.5}
        connect(host=HOSTNAME, port=stranger.port, extra=extra)
        with pytest.raises(MLflowRestError) as caught:
            MLflowHook().rest("POST", "/x")
    assert (caught.value.status, caught.value.retry_after) == (429, 30.0)
    assert len(stranger.requests) == 2


@pytest.mark.parametrize("first", [503, 404])
@pytest.mark.parametrize(
    ("method", "name"),
    [("DELETE", "registered-models/delete"), ("POST", "experiments/restore")],
)
def test_what_an_earlier_try_has_removed_is_removed(signed_in, tiny, method, name, first):
    """A refusal of the second sending says so; a refusal of the first is passed on."""
    path, gone = f"/api/2.0/mlflow/{name}", {"error_code": "RESOURCE_DOES_NOT_EXIST"}
    tiny.answers[path] = [(first, gone), (404, gone)]
    if first == 503:
        assert signed_in.rest(method, path, json={"name": "churn"}) == {}
        return
    with pytest.raises(MLflowRestError, match="404"):
        signed_in.rest(method, path, json={"name": "churn"})


@pytest.mark.parametrize("address", ["127.0.0.99", ""], ids=["refused", "no JSON"])
def test_no_query_stands_in_a_log_or_an_error(signed_in, tiny, dns, caplog, capfd, address):
    """It may hold a secret; a traceback shows the causes of an error too."""
    if address:  # nothing listens there
        dns.set_records(HOSTNAME, [address])
    tiny.answers["/x"] = (200, "<html>")
    signed_in.server = replace(signed_in.server, request_timeout=1.5)
    secret = secrets.token_hex()
    with pytest.raises(MLflowRestError) as caught:
        signed_in.rest("GET", f"/x?key={secret}", params={"token": secret})
    shown = "".join(traceback.format_exception(caught.value))
    assert secret not in "".join((caplog.text, *capfd.readouterr(), shown))
    assert "/x failed" in shown


@pytest.mark.parametrize("allowed", [0, 2])
def test_max_retries_limits_how_often_a_call_is_sent_again(signed_in, tiny, allowed):
    """As for the requests of MLflow's client."""
    tiny.answers["/x"] = (503, {})
    signed_in.server = replace(signed_in.server, max_retries=allowed, request_timeout=20)
    with pytest.raises(MLflowRestError):
        signed_in.rest("GET", "/x")
    assert tiny.count("/x") == 1 + allowed


class TestALoginThatExpired:
    """The connection is read again after a 401, once."""

    @pytest.fixture
    def expired(self, dns, connect, clean_runtime):
        """A hook that has read its connection, a server that takes the next token only."""

        def answer(request):
            is_new = request.headers.get("authorization") == "Bearer second"
            return http(body="{}", content_type="application/json") if is_new else http(401)

        with Stranger(answer, host="127.0.0.9") as stranger:
            dns.set_records(HOSTNAME, [stranger.host])

            def define(token):
                extra = {"nameservers": dns.address, "request_timeout": 5}
                connect("expiring", host=HOSTNAME, port=stranger.port, password=token, extra=extra)

            define("first")
            hook = MLflowHook("expiring")
            breaker_for(hook.server).reset()
            yield hook, stranger, define

    def test_is_replaced_by_the_next(self, expired):
        """Whatever the method: a 401 has carried out nothing."""
        hook, stranger, define = expired
        define("second")
        assert hook.rest("POST", "/x", json={}) == {}
        assert len(stranger.requests) == 2
        assert hook.rest("POST", "/x", json={}) == {}  # the hook keeps it
        assert len(stranger.requests) == 3

    def test_is_replaced_by_the_next_in_a_relay(self, expired):
        """Processes of the task know neither of the two."""
        hook, _, define = expired
        define("second")
        with hook.relay() as relay:
            assert asked(relay, "POST", "/api/2.0/mlflow/experiments/search", {}) == {}

    def test_is_not_replaced_by_that_of_another_server(self, expired, connect, caplog, capfd):
        """The connection leads elsewhere now; its login is for there."""
        hook, stranger, _ = expired
        connect("expiring", host="other.test", port=stranger.port, password="second")
        with pytest.raises(MLflowRestError) as caught:
            hook.rest("GET", "/x")
        assert caught.value.status == 401
        assert len(stranger.requests) == 1
        assert f"is http://other.test:{stranger.port} now" in "".join(
            (caplog.text, *capfd.readouterr())
        )

    def test_is_told_where_there_is_no_other(self, expired):
        """It is not sent again."""
        hook, stranger, _ = expired
        with pytest.raises(MLflowRestError) as caught:
            hook.rest("POST", "/x", json={})
        assert (caught.value.status, len(stranger.requests)) == (401, 1)

    def test_is_told_where_the_connection_cannot_be_read(self, expired, monkeypatch, caplog, capfd):
        """The 401 says more than that; by MLflow's client too."""
        hook, _, _ = expired
        client = hook.get_conn()
        monkeypatch.delenv("AIRFLOW_CONN_EXPIRING")
        with pytest.raises(MLflowRestError) as caught:
            hook.rest("GET", "/x")
        assert caught.value.status == 401
        with pytest.raises(Exception, match="401"):
            client.search_experiments()
        logged = "".join((caplog.text, *capfd.readouterr()))
        assert logged.count("could not be read again") == 2
        assert "'expiring'" in logged

    def test_is_told_in_a_forked_child_which_cannot_ask_airflow(
        self, expired, monkeypatch, caplog, capfd
    ):
        """The parent would miss the answer that a child reads, and its next XCom wait forever."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import CommsDecoder

        hook, _, _ = expired
        monkeypatch.delenv("AIRFLOW_CONN_EXPIRING")
        ours, supervisors = socket.socketpair()
        with ours, supervisors:
            comms = CommsDecoder(socket=ours)
            monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
            if not (child := os.fork()):
                signal.alarm(20)  # not for ever where it asks
                try:
                    hook.rest("GET", "/x")
                except MLflowRestError as error:
                    os._exit(0 if error.status == 401 else 1)
                os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            supervisors.setblocking(False)
            with pytest.raises(BlockingIOError):
                supervisors.recv(1)
        assert "A forked child cannot read one" in "".join((caplog.text, *capfd.readouterr()))


def test_a_redirect_is_not_followed(signed_in, tiny):
    """No credential follows a redirect to another host."""
    tiny.answers[SEARCH] = (302, {})
    with pytest.raises(MLflowRestError) as caught:
        signed_in.rest("POST", SEARCH, json={})
    assert caught.value.status == 302
    assert len(tiny.asked) == 1


def test_the_breaker_opens_after_three_failures_of_the_server(signed_in, tiny):
    """And the next call fails at once; a 404 does not count."""
    tiny.answers[SEARCH] = (404, {})
    for _ in range(5):
        with pytest.raises(MLflowRestError):
            signed_in.rest("POST", SEARCH)
    tiny.answers[SEARCH] = (500, {})
    signed_in.server = replace(signed_in.server, max_retries=0)
    for _ in range(3):
        with pytest.raises(MLflowRestError):
            signed_in.rest("POST", SEARCH)
    with pytest.raises(BreakerOpenError):
        signed_in.rest("POST", SEARCH)


@pytest.mark.parametrize("path", ["api", "", "//evil.local/x", "http://evil.local/"])
def test_a_path_that_is_none_is_refused(signed_in, path):
    """It must not lead to another host."""
    with pytest.raises(ValueError, match="path"):
        signed_in.rest("GET", path)


class TestTheDeadline:
    """A call ends within request_timeout, whatever the server does."""

    def timed(self, hook, method="POST"):
        started = time.monotonic()
        with pytest.raises(MLflowRestError) as caught:
            hook.rest(method, "/x")
        return caught.value, time.monotonic() - started

    def test_holds_when_the_name_is_gone(self, signed_in, dns):
        """The error names the host and the cause, not a stack of urllib3."""
        dns.no_such_name(HOSTNAME)
        error, seconds = self.timed(signed_in)
        assert (error.code, error.status) == ("unresolved", 0)
        assert HOSTNAME in str(error)
        assert seconds < 20

    def test_holds_when_nobody_listens(self, signed_in, dns):
        """Also with patience for a server to start."""
        dns.set_records(HOSTNAME, ["127.0.0.99"])
        error, seconds = self.timed(signed_in)
        assert error.status == 0
        assert os.strerror(errno.ECONNREFUSED) in str(error)
        assert seconds < 20

    def test_is_the_end_of_a_call_also_where_the_pin_waits_for_longer(self, signed_in, tiny):
        """Inside `hook.run` it does. What the caller has given up is not sent later on."""
        server = replace(signed_in.server, port=_free_port(tiny.address), request_timeout=0.5)
        signed_in.server = server
        (pin,) = pins.pin(server)
        with pin.patient(30):
            pin.addresses(server.port, connects=False)
            error, seconds = self.timed(signed_in)
            with socket.create_server((tiny.address, server.port)) as listener:
                listener.settimeout(2.5)
                with pytest.raises(TimeoutError):
                    listener.accept()
        assert (error.status, seconds < 15) == (0, True)
        breaker_for(server).reset()

    @pytest.mark.parametrize("is_proxied", [False, True])
    def test_is_not_passed_by_a_connection_that_comes_about_late(
        self, tiny, monkeypatch, is_proxied
    ):
        """Nothing is sent on it, so the call may be made again."""
        uri = f"http://{tiny.address}:{tiny.port}"
        told = "accepts no connection"
        if is_proxied:
            told = "the proxy set in the environment cannot"
            monkeypatch.setenv("http_proxy", uri)
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
        with requests.Session() as session:
            session.mount("http://", rest._Bounded("POST", "/x", time.monotonic() - 1))
            with pytest.raises(MLflowRestError, match=told):
                session.post(f"{uri}/x", timeout=2)
        assert not tiny.asked

    def test_holds_when_bytes_drip(self, dns, connect, clean_runtime):
        """A time-out per wait for bytes never ends this; a bound over all of it does."""
        done = threading.Event()
        with socket.create_server(("127.0.0.9", 0)) as listener:

            def drip() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                    while not done.wait(0.2):
                        connection.sendall(b" ")

            thread = threading.Thread(target=drip)
            thread.start()
            dns.set_records(HOSTNAME, ["127.0.0.9"])
            connect(
                host=HOSTNAME,
                port=listener.getsockname()[1],
                extra={"nameservers": dns.address, "request_timeout": 1},
            )
            try:
                error, seconds = self.timed(MLflowHook())
            finally:
                done.set()
                thread.join()
        assert "request_timeout" in str(error)
        assert seconds < 20
        breaker_for(MLflowHook().server).reset()


@pytest.mark.parametrize("announced", [True, False])
def test_a_huge_body_is_not_read_to_its_end(dns, connect, clean_runtime, monkeypatch, announced):
    """The server is hung up on, by the thread that reads too, and the error says why."""
    monkeypatch.setattr(rest, "_LONGEST", 2**20)
    length = f"Content-Length: {10**12}\r\n" if announced else ""
    hung_up = threading.Event()

    def endless(request):
        yield f"HTTP/1.1 200 OK\r\n{length}\r\n".encode()
        try:
            while True:
                yield b"x" * 2**16
        finally:
            hung_up.set()

    with Stranger(endless, host="127.0.0.9") as stranger:
        dns.set_records(HOSTNAME, [stranger.host])
        extra = {"nameservers": dns.address, "request_timeout": 10}
        connect(host=HOSTNAME, port=stranger.port, extra=extra)
        with pytest.raises(MLflowRestError, match="longer than 1 MiB") as caught:
            MLflowHook().rest("POST", SEARCH, json={})
        assert caught.value.code == "body_too_large"
        assert hung_up.wait(5)
    breaker_for(MLflowHook().server).reset()


@pytest.mark.parametrize("body", ["{}", "<html>"])
def test_a_call_closes_its_connection(dns, connect, clean_runtime, body):
    """Garbage may be collected hours later, or never where a training has turned that off."""
    with Stranger(lambda _: http(body=body), host="127.0.0.9") as stranger:
        dns.set_records(HOSTNAME, [stranger.host])
        extra = {"nameservers": dns.address, "request_timeout": 10}
        connect(host=HOSTNAME, port=stranger.port, extra=extra)
        hook = MLflowHook()
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                with suppress(MLflowRestError):
                    hook.rest("GET", "/x")
            wait_until(lambda: not stranger._open)
        finally:
            gc.enable()
        assert stranger.connections == 5


def test_a_call_does_not_import_mlflow(signed_in, tiny):
    """Importing it takes 5 s and 118 MB, too much for one number."""
    code = (
        "import sys; from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook; "
        f"MLflowHook().rest('POST', {SEARCH!r}, json={{}}); "
        "print('mlflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "False"


def test_a_breaker_that_a_task_opens_is_counted(usable, dns, monkeypatch):
    """As one that a gate opens: an alarm waits for it."""
    counted: list[str] = []
    monkeypatch.setattr(observers, "count_breaker", counted.append)
    dns.set_records(HOSTNAME, ["127.0.0.250"])
    usable(request_timeout=0.5)
    hook = MLflowHook()
    for _ in range(3):
        with pytest.raises(MLflowRestError):
            hook.rest("GET", "/version")
    breaker_for(hook.server).reset()
    assert counted == ["open", "closed"]


@pytest.mark.parametrize(
    ("field", "most"), [("request_timeout", 9e9), ("deadline", 9e9), ("cache_ttl", 315360000)]
)
def test_a_time_that_no_clock_can_hold_is_a_wrong_field(usable, field, most):
    """The system's functions take no more than 292 years."""
    usable(**{field: 1e10})
    with pytest.raises(SettingError, match=f"extra '{field}'.*from 0 to {most:.0f}"):
        MLflowHook().rest("POST", SEARCH, json={})


def test_a_number_that_json_does_not_have_is_an_error_of_the_caller(usable, tiny):
    """It is not sent, not tried again, and says nothing about MLflow."""
    usable(request_timeout=1)
    hook = MLflowHook()
    for _ in range(3):
        with pytest.raises(ValueError, match="JSON compliant"):
            hook.rest("POST", "/api/2.0/mlflow/runs/log-metric", json={"value": float("nan")})
    assert tiny.asked == []
    assert breaker_for(hook.server).status().failures == 0
