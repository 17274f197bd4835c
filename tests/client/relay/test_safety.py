"""What a relay takes from strangers, and how much of it."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from airflow_provider_hokusai_dns import pins
from airflow_provider_hokusai_dns.client.relay import connections, open_relay
from airflow_provider_hokusai_dns.config.server import Credentials
from airflow_provider_hokusai_dns.exceptions import TLSFileError
from airflow_provider_hokusai_dns.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.certificates import Authority
from tests.client.relay.conftest import OpenRelay
from tests.client.relay.support import API, NAME, a_server, ask, connected, token_of
from tests.client.relay.test_forwarding import OK, cut, stranger
from tests.servers import Handler, HTTPThread

ARTIFACT = "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/a"


def test_it_listens_on_loopback_alone(relay_to: OpenRelay) -> None:
    """No other address of the machine."""
    with stranger(OK) as there, relay_to(there) as relay:
        assert relay._listener.socket.getsockname()[0] == "127.0.0.1"
        with contextlib.closing(socket.socket()) as elsewhere:
            elsewhere.settimeout(5)
            with pytest.raises(ConnectionRefusedError):
                elsewhere.connect(("127.0.0.2", relay._listener.port))


def test_tokens_differ_and_do_not_open_each_other(relay_to: OpenRelay) -> None:
    """Each relay has its own."""
    with stranger(OK) as there, relay_to(there) as one, relay_to(there) as other:
        assert token_of(one) != token_of(other)
        assert ask(one, "GET", "/health", token=token_of(other))[0] == 401


def test_a_scan_without_the_token_costs_little_and_gets_nothing(relay_to: OpenRelay) -> None:
    """Hundreds of connections of every kind, and the relay serves its client after them."""
    with stranger(OK) as there, relay_to(there) as relay:
        for number in range(300):
            with contextlib.suppress(OSError), connected(relay) as scanner:
                scanner.sendall([
                    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"\x16\x03\x01\x02\x00\x01\x00" * 40,
                    b"POST /x HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + bytes(4096),
                    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
                    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
                    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                ][number % 6])  # fmt: skip
                answer = scanner.recv(65536)
                assert answer.split(b" ")[1] in (b"400", b"401"), answer
        assert ask(relay, "GET", "/health")[0] == 200
        assert len(there.requests) == 1


def test_a_connection_that_brings_no_request_is_closed(
    relay_to: OpenRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time; and one with the token is not."""
    monkeypatch.setattr(connections, "_FIRST_REQUEST", 0.5)
    with stranger(OK) as there, relay_to(there) as relay, connected(relay) as idle:
        parts = urlsplit(relay.uri)
        kept = http.client.HTTPConnection(str(parts.hostname), parts.port)
        with contextlib.closing(kept):
            headers = {"Authorization": f"Bearer {token_of(relay)}"}
            for _ in range(2):
                kept.request("GET", "/health", headers=headers)
                assert kept.getresponse().read()
                time.sleep(0.8)
            assert idle.recv(1) == b""


def test_connections_are_bounded(relay_to: OpenRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is closed at once; the next is taken when others have gone."""
    monkeypatch.setattr(connections, "_CONNECTIONS", 4)
    with stranger(OK) as there, relay_to(there) as relay, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(relay))
        time.sleep(0.2)
        with connected(relay) as refused:
            assert refused.recv(1) == b""
        stack.close()
        time.sleep(0.2)
        assert ask(relay, "GET", "/health")[0] == 200


def test_no_secret_is_in_the_log(relay_to: OpenRelay, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the login, nor the token, nor a query, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    changes = {"credentials": Credentials("user", "the-password"), "deadline": 0.5}
    with stranger(cut) as there, relay_to(there, changes=changes) as relay:
        token = token_of(relay)
        ask(relay, "GET", "/x?signature=the-signature")
        ask(relay, "GET", "/x", token="a-wrong-token")
        assert "the-password" not in repr(relay)
    for secret in ("the-password", "dXNlcjp0", token, "a-wrong-token", "the-signature"):
        assert secret not in caplog.text


@contextlib.contextmanager
def a_full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_an_upload_is_sent_once(
    relay_to: OpenRelay, caplog: pytest.LogCaptureFixture
) -> None:
    """It arrives all the same."""
    content = os.urandom(3_000_000)
    with stranger(OK) as there, relay_to(there) as relay, a_full_disk(1_000_000):
        assert ask(relay, "PUT", ARTIFACT, content)[0] == 200
    assert there.requests[0].body == content
    assert "It is sent once" in caplog.text


def test_a_create_that_is_too_long_is_refused(relay_to: OpenRelay) -> None:
    """It would be held in memory whole."""
    with stranger(OK) as there, relay_to(there, keep=0) as relay:
        assert ask(relay, "POST", f"{API}/runs/create", bytes(9 * 2**20))[0] == 413
    assert there.requests == []


def test_an_upload_whose_client_dies_is_not_taken_for_an_outage(relay_to: OpenRelay) -> None:
    """Nothing is repeated, nothing is lost: the client knows."""
    with stranger(OK) as there, relay_to(there) as relay:
        with connected(relay) as client:
            client.sendall(
                f"PUT {ARTIFACT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token_of(relay)}\r\n"
                "Content-Length: 1000000\r\n\r\n".encode() + bytes(200_000)
            )  # fmt: skip
            time.sleep(0.3)
        time.sleep(0.3)
        assert ask(relay, "GET", "/health")[0] == 200
        assert not relay.gave_up


def test_two_relays_with_two_ca_files_work_side_by_side(
    dns: DNSServer, resolver: DNSResolver, tmp_path: Path
) -> None:
    """What the pin refuses: two servers, each with a certificate that the other does not trust."""
    with contextlib.ExitStack() as stack:
        relays = []
        for number, address in ((1, "127.0.0.58"), (2, "127.0.0.59")):
            folder = tmp_path / str(number)
            folder.mkdir()
            name = f"mlflow{number}.test"
            authority = Authority(folder)
            port = stack.enter_context(tls_server(address, authority, name))
            dns.set_records(name, [address], ttl=60)
            server = a_server(
                hostname=name, scheme="https", port=port, ca_file=str(authority.file),
                deadline=3, conn_id=name,
            )  # fmt: skip
            relays.append(
                (
                    server,
                    stack.enter_context(open_relay(server, pins.relay_addresses(server, resolver))),
                )
            )
        for _, relay in relays:
            status, body, _ = ask(relay, "GET", "/health")
            assert (status, body) == (200, b"OK")


def test_a_wrong_certificate_is_not_waited_for(
    dns: DNSServer, resolver: DNSResolver, tmp_path: Path
) -> None:
    """The client is told so at once."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one, other = Authority(tmp_path / "one"), Authority(tmp_path / "other")
    with tls_server("127.0.0.58", one, NAME) as port:
        dns.set_records(NAME, ["127.0.0.58"], ttl=60)
        server = a_server(scheme="https", port=port, ca_file=str(other.file), deadline=30)
        began = time.monotonic()
        with open_relay(server, pins.relay_addresses(server, resolver)) as relay:
            status, body, _ = ask(relay, "GET", f"{API}/runs/get")
        assert (status, time.monotonic() - began < 10) == (598, True)
        assert b"certificate" in body


def test_a_missing_ca_file_is_said_at_the_start(resolver: DNSResolver) -> None:
    """Before a child is started."""
    server = a_server(scheme="https", ca_file="/does/not/exist.pem")
    with (
        pytest.raises(TLSFileError, match="ca_file"),
        open_relay(server, pins.relay_addresses(server, resolver)),
    ):
        pass


def test_a_forked_child_leaves_the_block_of_its_parent_alone(relay_to: OpenRelay) -> None:
    """It neither closes the relay nor holds the port."""
    with stranger(OK) as there, relay_to(there) as relay:
        child = os.fork()
        if child == 0:
            relay.close(None, "FAILED")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert ask(relay, "GET", "/health")[0] == 200


def test_after_the_block_nobody_listens_and_no_thread_is_left(relay_to: OpenRelay) -> None:
    """Nothing of it stays."""
    with stranger(OK) as there, relay_to(there) as relay:
        ask(relay, "GET", "/health")
    assert relay._thread not in threading.enumerate()
    with pytest.raises(ConnectionRefusedError):
        connected(relay)


def test_the_variables_are_in_the_environment_for_the_block_only(relay_to: OpenRelay) -> None:
    """And what someone else has changed meanwhile stays."""
    before = dict(os.environ)
    with stranger(OK) as there, relay_to(there, export=True) as relay:
        assert os.environ["MLFLOW_TRACKING_URI"] == relay.uri
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "7"
    assert os.environ.pop("MLFLOW_HTTP_REQUEST_TIMEOUT") == "7"
    assert dict(os.environ) == before


@contextlib.contextmanager
def tls_server(address: str, authority: Authority, name: str) -> Iterator[int]:
    """An https server that answers OK, with a certificate for one name."""

    class Answering(Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"OK")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(name))
    server = HTTPThread(Answering, address)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    server._server.handle_error = lambda *args: None  # type: ignore[method-assign]
    with server:
        yield server.port
