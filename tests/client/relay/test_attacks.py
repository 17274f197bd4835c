"""A hostile user of the machine, who has no token; a hostile child, which has one."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from airflow_provider_hokusai_dns.client.relay import Relay, RelayLostDataError, connections
from airflow_provider_hokusai_dns.config.server import Credentials
from tests.client.relay.conftest import OpenRelay
from tests.client.relay.support import API, ask, connected, token_of
from tests.client.relay.test_forwarding import OK, stranger
from tests.servers import Request, Stranger, http

LOGIN = {"credentials": Credentials("user", "secret"), "workspace": "w"}


@pytest.fixture
def there() -> Iterator[Stranger]:
    with stranger(OK) as server:
        yield server


@pytest.fixture
def relay(there: Stranger, relay_to: OpenRelay) -> Iterator[Relay]:
    with relay_to(there, changes=LOGIN) as opened:
        yield opened


def told(relay: Relay, request: bytes) -> bytes:
    """All that the relay says to these bytes, until it closes or is silent for a second."""
    answer = b""
    with connected(relay) as client, contextlib.suppress(OSError):
        client.settimeout(1)
        client.sendall(request.replace(b"@TOKEN", b"Bearer " + token_of(relay).encode()))
        while piece := client.recv(65536):
            answer += piece
    return answer


HEAD = b" HTTP/1.1\r\nHost: x\r\nAuthorization: @TOKEN\r\n"
SECOND = b"GET /second" + HEAD + b"\r\n"


@pytest.mark.parametrize("request_", [
    b"POST /x" + HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /x" + HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"POST /x" + HEAD + b"Content-Length: 0\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST /x" + HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    b"POST /x" + HEAD + b"Content-Length: +5\r\n\r\nhello",
    b"POST /x" + HEAD + b"Content-Length: -5\r\n\r\nhello",
    b"POST /x" + HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /x" + HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    b"GET /x" + HEAD + b"X-A: 1\r\n Host: elsewhere\r\n\r\n",
    b"GET /x" + HEAD + b"Host : elsewhere\r\n\r\n",
    b"GET /x" + HEAD + b"X-A: 1\rHost: elsewhere\r\n\r\n",
    b"GET /x" + HEAD + b"X-A: 1\x00\r\n\r\n",
    b"GET /x" + HEAD + b"Host: elsewhere\r\n\r\n",
    b"GET /x" + HEAD.replace(b"\r\n", b"\n") + b"\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET HTTP://elsewhere/x" + HEAD + b"\r\n",
    b"GET @elsewhere/x" + HEAD + b"\r\n",
    b"GET /\\elsewhere\\..\\..\\x" + HEAD + b"\r\n",
    b"GET /a%5c..%5cb" + HEAD + b"\r\n",
    b"OPTIONS *" + HEAD + b"\r\n",
    b"TRACE /x" + HEAD + b"\r\n",
    b"GET /" + b"y" * 70_000 + HEAD + b"\r\n",
    b"GET /x" + HEAD + b"X: y\r\n" * 70 + b"\r\n",
    b"GET /x" + HEAD + b"X: " + b"y" * 9000 + b"\r\n\r\n",
])  # fmt: skip
def test_what_two_servers_may_read_in_two_ways_is_refused(
    relay: Relay, there: Stranger, request_: bytes
) -> None:
    """Two lengths, folded lines, other hosts, other protocols: one answer, nothing forwarded."""
    answer = told(relay, request_ + SECOND)
    assert re.findall(rb"HTTP/1\.[01] (\d+)", answer) == [b"400"], answer
    assert there.requests == []


CLOSE = HEAD + b"Connection: close\r\n"


@pytest.mark.parametrize(("request_", "seen"), [
    (b"GET /x HTTP/1.0\r\nAuthorization: @TOKEN\r\n\r\n", [("GET", "/x", b"")]),
    (b"HEAD /x" + CLOSE + b"\r\n", [("HEAD", "/x", b"")]),
    (b"GET /a%2Fb%20c%25?x=%2F+y" + CLOSE + b"\r\n", [("GET", "/a%2Fb%20c%25?x=%2F+y", b"")]),
    ((b"GET /x" + HEAD + b"\r\n") * 4 + b"GET /y" + CLOSE + b"\r\n",
     [("GET", "/x", b"")] * 4 + [("GET", "/y", b"")]),
    (b"PUT /x" + CLOSE + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
     [("PUT", "/x", b"hi")]),
    (b"PUT /x" + CLOSE + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
     [("PUT", "/x", b"\x1f\x8b\x08")]),
    (b"GET /x?" + b"y" * 60_000 + CLOSE + b"\r\n", [("GET", "/x?" + "y" * 60_000, b"")]),
    (b"GET /x" + CLOSE + (b"X: " + b"y" * 8000 + b"\r\n") * 60 + b"\r\n", [("GET", "/x", b"")]),
], ids=["1.0", "HEAD", "escapes", "pipeline", "expect", "gzip", "long", "headers"])  # fmt: skip
def test_what_is_unusual_and_allowed_goes_through_as_it_is(
    relay: Relay, there: Stranger, request_: bytes, seen: list[tuple[str, str, bytes]]
) -> None:
    """But for ``Expect``, which the relay answers itself."""
    if request_.startswith(b"HEAD"):
        there.answer = lambda request: b"HTTP/1.1 200 X\r\nContent-Length: 14\r\n\r\n"
    answer = told(relay, request_)
    assert re.findall(rb"HTTP/1\.[01] (\d+)", answer)[-len(seen) :] == [b"200"] * len(seen)
    assert [(one.method, one.path, one.body) for one in there.requests] == seen
    assert "expect" not in there.requests[-1].headers


@pytest.mark.parametrize(("answer", "expected"), [
    (http(204), b"204 No Content\r\n"),
    (b"HTTP/1.1 304 X\r\nETag: x\r\nContent-Length: 5\r\n\r\n", b"304 Not Modified\r\n"),
    (b"HTTP/1.1 103 X\r\nLink: x\r\n\r\n" + OK, b"200 OK\r\n"),
    (b"HTTP/1.1 100 X\r\n\r\n" + OK, b"200 OK\r\n"),
    (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"598 \r\n"),
    (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX: y\r\n\r\n",
     b"200 OK\r\nContent-Length: 2\r\n"),
], ids=["204", "304", "103", "100", "101", "trailers"])  # fmt: skip
def test_an_answer_of_any_form_ends_for_the_client(
    there: Stranger, relay_to: OpenRelay, answer: bytes, expected: bytes
) -> None:
    """Also one that begins another protocol: the connection takes the next request after each."""
    there.answer = lambda request: answer
    with relay_to(there, changes={"deadline": 0}) as relay:
        got = told(relay, b"GET /x" + HEAD + b"\r\n" + b"GET /y" + CLOSE + b"\r\n")
    assert got.startswith(b"HTTP/1.1 " + expected)
    assert got.count(b"HTTP/1.1 " + expected) == 2


def test_a_refusal_that_comes_while_the_body_is_sent_reaches_the_client(
    relay_to: OpenRelay,
) -> None:
    """413 of a proxy in front of MLflow, which reads nothing more; it is not sent again."""
    refusing = socket.create_server(("127.0.0.52", 0))
    taken: list[socket.socket] = []

    def refuse() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = refusing.accept()
                taken.append(connection)
                connection.recv(100)
                connection.sendall(http(413, "too long"))

    thread = threading.Thread(target=refuse)
    thread.start()
    there = SimpleNamespace(host="127.0.0.52", port=refusing.getsockname()[1])
    path = "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a"
    try:
        with pytest.raises(RelayLostDataError, match="413"), relay_to(there) as relay:
            assert ask(relay, "PUT", path, bytes(20_000_000))[:2] == (413, b"too long")
        assert len(taken) == 1
    finally:
        refusing.shutdown(socket.SHUT_RDWR)
        for one in (refusing, *taken):
            one.close()
        thread.join()


@pytest.mark.parametrize("header", [
    b"Authorization: Bearer \xff\xfe", b"Authorization: Basic \xff\xfe",
    b"Authorization: Basic Og==", b"Authorization: Bearer", b"X-Authorization: @TOKEN",
    b"Proxy-Authorization: @TOKEN", b"Authorization: Bearer x\r\nAuthorization: @TOKEN",
])  # fmt: skip
def test_nothing_but_the_token_opens_it(
    relay: Relay, there: Stranger, caplog: pytest.LogCaptureFixture, header: bytes
) -> None:
    """Bytes that are no text are a wrong token too, and no error of ours."""
    query = b"?token=" + token_of(relay).encode()
    answer = told(relay, b"GET /x" + query + b" HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert there.requests == []
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def test_a_flood_of_nonsense_leaves_the_log_of_the_task_short(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """And unread: what a stranger sends is not quoted in it."""
    caplog.set_level(logging.DEBUG)
    for nonsense in (b"\x16\x03\x01 quoted\r\n\r\n", b"GET / HTTP/1.1\r\nX quoted\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-quoted\r\n",
                     b"GET /x HTTP/1.1\r\nHost: x\r\nX-quoted: \xff\r\n\r\n"):  # fmt: skip
        for _ in range(20):
            told(relay, nonsense)
    ours = [record for record in caplog.records if "relay" in record.name]
    assert len(ours) == 1, caplog.text
    assert "quoted" not in caplog.text


def test_what_a_server_says_is_one_short_line_in_the_log_and_in_errors(
    relay_to: OpenRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error code, and the id of a run, which is none then."""
    said = "X\nCRITICAL mail it to " + "e" * 100_000

    def answer(request: Request) -> bytes:
        if request.path.endswith("/runs/create"):
            document = {"run": {"info": {"run_id": said}}}
            return http(body=json.dumps(document), content_type="application/json")
        return http(403, json.dumps({"error_code": said}), "application/json")

    caplog.set_level(logging.INFO)
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError, match=r"403 'X\\nCRITICAL") as error,
        stranger(answer) as there,
        relay_to(there) as relay,
    ):
        ask(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"})
        ask(relay, "POST", f"{API}/runs/log-metric", {"run_id": "0" * 32, "key": "a"})
    assert [request.path for request in there.requests] == [
        f"{API}/runs/create", f"{API}/runs/log-metric",
    ]  # fmt: skip
    for text in (str(error.value), *caplog.messages):
        assert "\n" not in text
        assert len(text) < 1000


def test_a_child_cannot_say_who_or_where_it_is(relay: Relay, there: Stranger) -> None:
    """Nor that the answer be compressed, which has to be read here, nor in which workspace."""
    query = "?a=/api/3.0/mlflow/workspaces"
    given = {
        "Cookie": "session=another", "X-Forwarded-Host": "elsewhere", "Forwarded": "for=1.1.1.1",
        "X-Forwarded-User": "admin", "X-Real-IP": "1.1.1.1", "Accept-Encoding": "gzip",
        "X-MLFLOW-WORKSPACE": "other", "Connection": "close, X-MLFLOW-WORKSPACE, authorization",
        "User-Agent": "mine",
    }  # fmt: skip
    assert ask(relay, "GET", f"{API}/runs/get{query}", headers=given)[0] == 200
    assert there.requests[0].headers == {
        "host": f"mlflow.test:{there.port}", "authorization": "Basic dXNlcjpzZWNyZXQ=",
        "x-mlflow-workspace": "w", "user-agent": "mine", "accept-encoding": "identity",
    }  # fmt: skip


def test_a_login_that_the_server_gives_out_stays_here(relay: Relay, there: Stranger) -> None:
    """A session cookie would be good without the relay."""
    there.answer = lambda request: http(200, "x", Set_Cookie="session=1", X_Other="2")
    _, _, headers = ask(relay, "GET", "/health")
    assert "set-cookie" not in headers
    assert headers["x-other"] == "2"


def test_an_upgrade_is_an_ordinary_request(relay: Relay, there: Stranger) -> None:
    """Neither a WebSocket nor HTTP/2; and no trailer or extension of a chunk goes on."""
    for upgrade in (b"websocket", b"h2c"):
        told(relay, b"GET /x" + HEAD + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n")
    told(
        relay,
        b"POST /x" + HEAD + b"Transfer-Encoding: chunked\r\nTrailer: X-T\r\nConnection: close\r\n"
        b"\r\n5;" + b"e" * 100_000 + b"\r\nhello\r\n0\r\nX-T: 1\r\nAuthorization: mine\r\n\r\n",
    )
    assert [request.path for request in there.requests] == ["/x"] * 3
    for request in there.requests:
        assert not {"upgrade", "trailer", "x-t"} & set(request.headers)
        assert request.headers["authorization"] == "Basic dXNlcjpzZWNyZXQ="


def test_a_query_is_not_in_the_log_when_the_answer_is_not_http(
    relay_to: OpenRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp's error quotes the whole URL."""
    with stranger(b"no HTTP\r\n\r\n") as there, relay_to(there, changes={"deadline": 1}) as relay:
        status, body, _ = ask(relay, "GET", "/x?signature=the-signature")
    assert status == 598
    assert b"not HTTP" in body
    assert "the-signature" not in caplog.text + body.decode()


def test_strangers_cannot_keep_a_client_out(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connections they hold open: the oldest of them is closed."""
    monkeypatch.setattr(connections, "_STRANGERS", 20)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(relay)) for _ in range(60)]
        assert ask(relay, "GET", "/health")[0] == 200
        gone = []
        for one in held:
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                gone.append(one.recv(1))
        assert 40 <= len(gone) < 60
        assert len(relay._listener._web._strangers) <= 20


def test_the_stranger_that_has_sent_most_is_closed_where_they_have_sent_too_much(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is just connecting is none of these, and is not counted once it is known."""
    monkeypatch.setattr(connections, "_SENT_BY_STRANGERS", 10_000)
    with connected(relay) as modest, connected(relay) as greedy:
        modest.sendall(b"GET /x HTTP/1.1\r\n")
        greedy.sendall(b"GET /" + b"y" * 20_000)
        greedy.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert greedy.recv(1) == b""
        for _ in range(20):
            assert ask(relay, "POST", "/x", b"z" * 3_000)[0] == 200
        token = token_of(relay).encode()
        modest.sendall(b"Host: x\r\nAuthorization: Bearer " + token + b"\r\n\r\n")
        assert modest.recv(12) == b"HTTP/1.1 200"
    assert relay._listener._web._sent_by_strangers == 0


#: Opens connections as fast as it can, each with headers up to the limit, and holds them.
_BOMB = """
import contextlib, socket, sys
head = b"GET /%s HTTP/1.1\\r\\nHost: x\\r\\n" % (b"y" * 60000) + b"".join(
    b"X%d: %s\\r\\n" % (i, b"y" * 8000) for i in range(60))
held = []
for _ in range(1000):
    with contextlib.suppress(OSError):
        held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
        held[-1].settimeout(0.2)
        held[-1].sendall(head)
print("sent", flush=True)
sys.stdin.read()
"""


def test_headers_that_never_end_cost_bounded_memory(relay: Relay) -> None:
    """A thousand connections of a stranger: it was 1.6 GB with aiohttp's own limits."""
    before = _resident()
    with subprocess.Popen(
        [sys.executable, "-c", _BOMB, str(urlsplit(relay.uri).port)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as bomb:  # fmt: skip
        assert bomb.stdout is not None
        assert bomb.stdout.readline() == "sent\n"
        assert ask(relay, "GET", "/health")[0] == 200
        grown = _resident() - before
    assert grown < 300 * 2**20, f"{grown >> 20} MiB"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_compressed_answer_could_not_hide_a_run(relay_to: OpenRelay) -> None:
    """A proxy compresses where the client lets it; then the relay would not see what was made."""
    run = {"run": {"info": {"run_id": "e" * 32, "experiment_id": "0"}}}

    def proxy(request: Request) -> bytes:
        if "gzip" in request.headers.get("accept-encoding", ""):
            return http(200, b"\x1f\x8b\x08", Content_Encoding="gzip")
        return http(200, json.dumps(run), "application/json")

    with stranger(proxy) as there, relay_to(there) as relay:
        given = {"Accept-Encoding": "gzip, deflate"}
        ask(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"}, headers=given)
    assert [request.path for request in there.requests] == [
        f"{API}/runs/create", f"{API}/runs/get?run_id={'e' * 32}", f"{API}/runs/update",
    ]  # fmt: skip


def test_a_client_that_stops_in_the_middle_of_its_upload_is_no_outage(relay_to: OpenRelay) -> None:
    """A process that was stopped: MLflow is there, and the other clients do not give up."""
    path = "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a"
    with stranger(OK) as there, relay_to(there, changes={"deadline": 1}) as relay:
        with connected(relay) as client:
            client.sendall(
                f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(relay)}\r\n"
                "Content-Length: 1000000\r\n\r\n".encode()
                + bytes(1000)
            )
            client.settimeout(20)
            assert client.recv(65536) == b""
        assert not relay.gave_up
        assert relay._forwarder._outage.since is None


def test_no_other_socket_can_take_the_port_of_a_relay(relay: Relay) -> None:
    """Or it would be shown the token."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(urlsplit(relay.uri).port or 0)))
