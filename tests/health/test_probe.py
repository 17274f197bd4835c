"""The probe against real MLflow servers and against strangers."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from airflow_provider_hokusai_dns.health.probe import probe
from airflow_provider_hokusai_dns.health.verdict import State
from airflow_provider_hokusai_dns.resolver.model import Cause, Endpoint, Source
from tests.certificates import Authority
from tests.conftest import ADMIN
from tests.servers import (
    Answer,
    MLflowProcess,
    Request,
    Stranger,
    black_hole,
    free_port,
    http,
    looks_like_mlflow,
)
from tests.values import a_server, an_address, no_address

SECRET = "a-Token-that-no-log-may-show"
TOKEN = Credentials(secret=SECRET)


def of(process: MLflowProcess, **changes: object) -> MLflowServer:
    return a_server(port=process.port, **changes)


def at(stranger: Stranger, **changes: object) -> MLflowServer:
    return a_server(**{"port": stranger.port, "credentials": TOKEN, **changes})


def authorizations(stranger: Stranger) -> list[str]:
    return [r.headers["authorization"] for r in stranger.requests if "authorization" in r.headers]


# --- real servers


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_real_server_behind_its_name_is_healthy(mlflow_server: MLflowProcess) -> None:
    """The name stays in the Host header while the address is what is connected to."""
    verdict = probe(of(mlflow_server), an_address(mlflow_server.host))
    assert verdict.state is State.HEALTHY
    assert verdict.address == mlflow_server.host
    assert set(verdict.latencies) == {"health", "version", "server_info", "tracking", "registry"}


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_stale_address_that_works_is_degraded(mlflow_server: MLflowProcess) -> None:
    """Over plain http an MLflow has to answer there before anything else is sent."""
    resolution = an_address(mlflow_server.host, source=Source.STORE, cause=Cause.TIMEOUT, age=60)
    verdict = probe(of(mlflow_server), resolution)
    assert (verdict.state, verdict.dns_cause) == (State.DEGRADED, "timeout")


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_name_that_mlflow_does_not_allow_is_told(mlflow_server: MLflowProcess) -> None:
    """MLflow's Host check is found out before credentials are sent."""
    server = of(mlflow_server, hostname="other.test", credentials=TOKEN)
    verdict = probe(server, an_address(mlflow_server.host))
    assert verdict.state is State.HOST_REJECTED
    assert "tracking" not in verdict.latencies


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_an_artifact_is_written_and_taken_away_again(mlflow_server: MLflowProcess) -> None:
    """The check leaves nothing behind."""
    verdict = probe(of(mlflow_server), an_address(mlflow_server.host), checks=("artifact",))
    assert verdict.state is State.HEALTHY
    assert verdict.latencies["artifact"] > 0
    assert list((mlflow_server.folder / "artifacts").rglob("*probe*")) == []


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_an_experiment_and_a_model_longer_than_a_probe_reads_are_healthy(
    mlflow_server: MLflowProcess,
) -> None:
    """MLflow limits the length of a tag, and not their number."""

    def send(method: str, path: str, **body: object) -> dict[str, str]:
        url = f"{mlflow_server.uri}/api/2.0/mlflow/{path}"
        answer = requests.request(method, url, json=body, timeout=60)
        answer.raise_for_status()
        found: dict[str, str] = answer.json()
        return found

    tags = [{"key": f"k{number}", "value": "v" * 5_000} for number in range(220)]
    made = send("POST", "experiments/create", name="long", tags=tags)
    send("POST", "registered-models/create", name="long", tags=tags)
    try:
        checks = ("tracking", "registry", "artifact")
        verdict = probe(of(mlflow_server), an_address(mlflow_server.host), checks=checks)
    finally:
        send("POST", "experiments/delete", **made)
        send("DELETE", "registered-models/delete", name="long")
    assert verdict.state is State.HEALTHY, verdict.sentence
    assert {"tracking", "registry", "artifact"} <= verdict.latencies.keys()


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_broken_artifact_store_is_told_apart(tmp_path: Path) -> None:
    """Everything else works, and only a write shows it."""
    with MLflowProcess(tmp_path / "mlflow", host="127.0.0.43") as process:
        artifacts = process.folder / "artifacts"
        artifacts.mkdir(exist_ok=True)
        (artifacts / "0").write_text("a file where MLflow needs a folder")
        verdict = probe(
            of(process), an_address(process.host), checks=("tracking", "registry", "artifact")
        )
        assert (verdict.state, verdict.cause) == (State.ARTIFACT_FAILED, "http_500")
        assert probe(of(process), an_address(process.host)).state is State.HEALTHY


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_lost_database_is_told_though_health_is_ok(tmp_path: Path) -> None:
    """MLflow's /health is a constant; the store behind it is what counts."""
    import sqlite3

    with MLflowProcess(tmp_path / "mlflow", host="127.0.0.43") as process:
        with sqlite3.connect(process.folder / "mlflow.db") as database:
            database.execute("PRAGMA foreign_keys = OFF")
            database.execute("DROP TABLE experiments")
        database.close()
        verdict = probe(of(process), an_address(process.host), deadline=8)
    assert verdict.state is State.BACKEND_DOWN
    assert verdict.latencies["health"] > 0


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_server_that_serves_no_artifacts_is_told_from_one_whose_store_is_broken(
    tmp_path: Path,
) -> None:
    """An experiment keeps its location from when the server did: it is still asked, and refuses."""
    arguments = ["--no-serve-artifacts"]
    with MLflowProcess(tmp_path / "mlflow", host="127.0.0.43", arguments=arguments) as process:
        verdict = probe(of(process), an_address(process.host), checks=("artifact",))
    assert (verdict.state, verdict.cause) == (State.ARTIFACT_FAILED, "not_proxied")
    assert "does not proxy artifacts" in verdict.sentence


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_workspace_on_a_server_without_workspaces_is_told(mlflow_server: MLflowProcess) -> None:
    """MLflow answers 500 to it, which its own client would retry for minutes."""
    server = of(mlflow_server, workspace="blue")
    assert probe(server, an_address(mlflow_server.host)).state is State.WORKSPACE_MISSING


@pytest.mark.integration
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("credentials", "state"),
    [
        (Credentials(*ADMIN), State.HEALTHY),
        (Credentials(ADMIN[0], "wrong"), State.UNAUTHENTICATED),
        (Credentials(), State.UNAUTHENTICATED),
        (Credentials(secret="no-such-token"), State.UNAUTHENTICATED),
    ],
)
def test_logins_are_tried_for_real(
    auth_server: MLflowProcess, credentials: Credentials, state: State
) -> None:
    """Right, wrong, missing, and of the wrong kind."""
    server = of(auth_server, credentials=credentials)
    checks = ("tracking", "registry", "artifact")
    verdict = probe(server, an_address(auth_server.host), checks=checks)
    assert verdict.state is state
    assert ADMIN[1] not in json.dumps(verdict.as_dict())


# --- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure_server(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[MLflowProcess]:
    with MLflowProcess(
        tmp_path_factory.mktemp("secure"), host="127.0.0.44", tls=authority.issue("mlflow.test")
    ) as process:
        yield process


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_https_verifies_the_name_and_not_the_address(
    secure_server: MLflowProcess, authority: Authority
) -> None:
    """The certificate is for the name, and the name stays."""
    server = of(secure_server, scheme="https", ca_file=str(authority.file))
    assert probe(server, an_address(secure_server.host)).state is State.HEALTHY
    # Over https the certificate decides, so an old address is no question.
    old = an_address(secure_server.host, source=Source.STALE, age=80_000)
    assert probe(server, old).state is State.DEGRADED


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_certificate_that_does_not_fit_is_a_tls_error(
    secure_server: MLflowProcess, authority: Authority
) -> None:
    """Another name, and an unknown CA; switched off by the author it is accepted."""
    address = an_address(secure_server.host)
    other_name = of(
        secure_server, scheme="https", hostname="other.test", ca_file=str(authority.file)
    )
    verdict = probe(other_name, address)
    assert (verdict.state, verdict.cause) == (State.TLS_ERROR, "certificate_name")
    unknown_ca = of(secure_server, scheme="https")
    verdict = probe(unknown_ca, address)
    assert (verdict.state, verdict.cause) == (State.TLS_ERROR, "certificate_untrusted")
    assert probe(of(secure_server, scheme="https", verify=False), address).state is State.HEALTHY


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_http_and_https_mixed_up_are_told_in_bounded_time(
    secure_server: MLflowProcess, mlflow_server: MLflowProcess
) -> None:
    """Neither speaks the other's language."""
    plain_to_tls = probe(of(secure_server), an_address(secure_server.host), deadline=3)
    assert plain_to_tls.level == "unhealthy"
    tls_to_plain = probe(of(mlflow_server, scheme="https"), an_address(mlflow_server.host))
    assert (tls_to_plain.state, tls_to_plain.cause) == (State.NOT_MLFLOW, "not_http")


def test_an_expired_certificate_is_named(tmp_path: Path) -> None:
    """The one TLS error that needs no change of the connection."""
    import threading

    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("mlflow.test", days=-1))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        server = a_server(
            scheme="https", port=listener.getsockname()[1], ca_file=str(authority.file)
        )
        verdict = probe(server, an_address("127.0.0.1"))
        thread.join(5)
    assert (verdict.state, verdict.cause) == (State.TLS_ERROR, "certificate_expired")


@pytest.mark.parametrize("field", ["ca_file", "client_cert"])
def test_a_tls_file_that_cannot_be_used_is_a_matter_of_configuration(
    tmp_path: Path, field: str
) -> None:
    """Missing, or no PEM: named with its path before anything is sent."""
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("this is no certificate")
    for path in (tmp_path / "missing.pem", nonsense):
        server = a_server(scheme="https", port=1, **{field: str(path)})
        verdict = probe(server, an_address("127.0.0.1"))
        assert verdict.state is State.CONFIG
        assert str(path) in verdict.sentence
        assert field in verdict.sentence


# --- strangers


def test_the_registry_is_probed_whichever_way_its_server_is_spelled() -> None:
    """A registry elsewhere has its own connection."""
    with Stranger(looks_like_mlflow) as stranger:
        for registry, is_here in (("MLflow.test", True), ("other.test", False)):
            server = at(stranger, registry_uri=f"http://{registry}:{stranger.port}")
            verdict = probe(server, an_address(stranger.host))
            assert ("registry" in verdict.latencies) == is_here, registry


def test_nothing_listens() -> None:
    """A refused connection is found at once, and reported for the resolver."""
    reported: list[Endpoint] = []
    server = a_server(port=free_port())
    verdict = probe(server, an_address("127.0.0.1"), report=reported.append)
    assert (verdict.state, verdict.cause) == (State.UNREACHABLE, "refused")
    assert reported == [Endpoint("127.0.0.1")]


def test_the_next_address_is_tried_when_one_is_dead() -> None:
    """Several addresses are a reason to go on."""
    reported: list[Endpoint] = []
    with Stranger(looks_like_mlflow, host="127.0.0.51") as stranger:
        verdict = probe(
            at(stranger), an_address("127.0.0.50", "127.0.0.51"), report=reported.append
        )
    assert verdict.state is State.HEALTHY
    assert verdict.address == "127.0.0.51"
    assert reported == [Endpoint("127.0.0.50")]


def test_a_black_holed_address_costs_a_short_while() -> None:
    """The next one is tried long before the deadline."""
    with (
        black_hole("127.0.0.50") as port,
        Stranger(looks_like_mlflow, host="127.0.0.51", port=port) as stranger,
    ):
        began = time.monotonic()
        verdict = probe(at(stranger), an_address("127.0.0.50", "127.0.0.51"), deadline=6)
    assert verdict.state is State.HEALTHY
    assert time.monotonic() - began < 5.5


def drip(stranger_ref: list[Stranger], head: bytes) -> Iterator[bytes]:
    yield head
    while not stranger_ref[0].wait(0.05):
        yield b"x"


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b""],
    ids=["in the headers", "in the body", "from the first byte"],
)
def test_a_server_that_drips_bytes_does_not_get_around_the_deadline(head: bytes) -> None:
    """A socket's own timeout restarts at every byte; the deadline does not."""
    me: list[Stranger] = []
    with Stranger(lambda _: drip(me, head)) as stranger:
        me.append(stranger)
        began = time.monotonic()
        verdict = probe(at(stranger), an_address("127.0.0.1"), deadline=1.0)
        took = time.monotonic() - began
    assert took < 10
    assert (verdict.state, verdict.cause) == (State.UNREACHABLE, "timeout")
    assert authorizations(stranger) == []


def test_a_hanging_store_is_told_from_a_dead_server() -> None:
    """The credential-free part answers and the rest does not: the database is locked."""
    me: list[Stranger] = []

    def answer(request: Request) -> Answer:
        if request.path.startswith("/api/2.0/"):
            return drip(me, b"")
        return looks_like_mlflow(request)

    with Stranger(answer) as stranger:
        me.append(stranger)
        verdict = probe(at(stranger), an_address("127.0.0.1"), deadline=1.0)
    assert (verdict.state, verdict.cause) == (State.BACKEND_DOWN, "timeout")


def test_a_huge_body_is_not_read_to_its_end() -> None:
    """What a probe wants is small."""

    def flood(_: Request) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield b"x" * 65536

    with Stranger(flood) as stranger:
        began = time.monotonic()
        verdict = probe(at(stranger), an_address("127.0.0.1"), deadline=5)
        assert time.monotonic() - began < 20
    assert (verdict.state, verdict.cause) == (State.NOT_MLFLOW, "body_too_large")


@pytest.mark.parametrize("status", [404, 502])
def test_a_long_error_page_is_judged_by_its_status(status: int) -> None:
    """Its gate waits for a server that is behind a load balancer, however long the page is."""
    verdicts = []
    for page in ("<html>", "<html>" + "x" * 2_000_000):
        with Stranger(lambda _, page=page: http(status, page)) as stranger:  # type: ignore[misc]
            verdict = probe(at(stranger), an_address("127.0.0.1"), deadline=5)
        verdicts.append((verdict.state, verdict.cause))
    assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize(
    ("raw", "state"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", State.NOT_MLFLOW),
        (http(body="<html>Welcome</html>", content_type="text/html"), State.NOT_MLFLOW),
        (http(body="ok"), State.NOT_MLFLOW),
        (http(503, "Service Unavailable"), State.BACKEND_DOWN),
        (http(404, "nothing here"), State.NOT_MLFLOW),
        (b"", State.UNREACHABLE),
    ],
    ids=["ssh", "a web page", "another health", "a starting proxy", "404 for all", "hangs up"],
)
def test_strangers_are_told_for_what_they_are(raw: bytes, state: State) -> None:
    """Whatever answers, it is a verdict and no exception."""

    def answer(_: Request) -> Iterator[bytes]:
        yield raw

    with Stranger(answer) as stranger:
        verdict = probe(at(stranger), an_address("127.0.0.1"), deadline=3)
    assert verdict.state is state


@pytest.mark.parametrize("source", [Source.DNS, Source.STALE])
def test_json_that_is_nested_without_end_is_no_answer_of_mlflow(source: Source) -> None:
    """Python's reader gives up on it with an error that is no ``ValueError``."""

    def answer(request: Request) -> bytes:
        if request.path in ("/health", "/version"):
            return looks_like_mlflow(request)
        return http(body="[" * 200_000, content_type="application/json")

    with Stranger(answer) as stranger:
        verdict = probe(at(stranger), an_address("127.0.0.1", source=source, age=1))
    assert verdict.state is State.NOT_MLFLOW


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """Credentials never go where a stranger says."""
    with Stranger(looks_like_mlflow) as elsewhere:

        def answer(request: Request) -> bytes:
            if request.path.startswith("/api/2.0/"):
                return http(status, location=f"{elsewhere.uri}/api")
            return looks_like_mlflow(request)

        with Stranger(answer) as stranger:
            verdict = probe(at(stranger), an_address("127.0.0.1"))
    assert (verdict.state, verdict.cause) == (State.NOT_MLFLOW, "redirect")
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (401, "", State.UNAUTHENTICATED),
        (403, '{"error_code": "PERMISSION_DENIED"}', State.FORBIDDEN),
        (503, "", State.BACKEND_DOWN),
    ],
)
def test_refusals_of_the_api_are_told_apart(status: int, body: str, state: State) -> None:
    """After the credential-free part was as it should be."""

    def answer(request: Request) -> bytes:
        return http(status, body) if "/api/2.0/" in request.path else looks_like_mlflow(request)

    with Stranger(answer) as stranger:
        assert probe(at(stranger), an_address("127.0.0.1")).state is state


def test_credentials_go_last_and_only_where_they_belong() -> None:
    """The credential-free part comes first, on the same connection."""
    with Stranger(looks_like_mlflow) as stranger:
        verdict = probe(at(stranger, workspace="blue"), an_address("127.0.0.1"))
    assert verdict.state is State.HEALTHY
    sent = ["authorization" in request.headers for request in stranger.requests]
    assert sent == [False, False, False, True, True]
    assert authorizations(stranger)[0] == f"Bearer {SECRET}"
    assert stranger.requests[3].headers["x-mlflow-workspace"] == "blue"
    assert {r.headers["host"] for r in stranger.requests} == {f"mlflow.test:{stranger.port}"}
    assert stranger.connections == 1


def test_the_path_prefix_stands_before_every_path() -> None:
    """MLflow behind a path of a shared host."""

    def answer(request: Request) -> bytes:
        inner = Request(request.method, request.path.removeprefix("/ml"), request.headers)
        return looks_like_mlflow(inner) if request.path.startswith("/ml/") else http(404)

    with Stranger(answer) as stranger:
        server = at(stranger, path_prefix="/ml")
        assert probe(server, an_address("127.0.0.1")).state is State.HEALTHY


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe looks at the address that it was given."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with Stranger(looks_like_mlflow) as stranger:
        assert probe(at(stranger), an_address("127.0.0.1")).state is State.HEALTHY


def test_an_ipv6_address_is_as_good_as_any() -> None:
    """Also with the name kept in the Host header."""
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 on this machine")
    with Stranger(looks_like_mlflow, host="::1") as stranger:
        assert probe(at(stranger), an_address("::1")).state is State.HEALTHY


def test_with_dns_alone_nothing_is_sent() -> None:
    """A gate may ask for the name only."""
    server = a_server(port=free_port())
    assert probe(server, an_address("127.0.0.1"), checks=("dns",)).state is State.HEALTHY
    assert probe(server, no_address(), checks=("dns",)).state is State.UNRESOLVED
    old = an_address("127.0.0.1", source=Source.STALE)
    assert probe(server, old, checks=("dns",)).state is State.DEGRADED


def test_a_check_or_deadline_that_cannot_be_is_refused() -> None:
    """Before anything is done."""
    with pytest.raises(ValueError, match="'dsn'"):
        probe(a_server(), an_address("127.0.0.1"), checks=("dsn",))
    with pytest.raises(ValueError, match="deadline"):
        probe(a_server(), an_address("127.0.0.1"), deadline=0)


def test_a_probe_never_imports_mlflow() -> None:
    """Its import costs seconds and a hundred megabytes."""
    code = (
        "import sys\n"
        "from tests.values import a_server, an_address\n"
        "from airflow_provider_hokusai_dns.health.probe import probe\n"
        "print(probe(a_server(port=1), an_address('127.0.0.1')).state.value)\n"
        "print([name for name in ('mlflow', 'airflow', 'requests') if name in sys.modules])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.split("\n")[:2] == ["unreachable", "[]"]


def test_an_artifact_whose_write_timed_out_is_taken_away_all_the_same() -> None:
    """The server may store it after we have left; the clean-up has time of its own."""
    ref: list[Stranger] = []

    def answer(request: Request) -> Answer:
        if request.method == "PUT":
            ref[0].wait(30)
        if request.path.endswith("/experiments/search"):
            found = '{"experiments": [{"artifact_location": "mlflow-artifacts:/0"}]}'
            return http(200, found, "application/json")
        return looks_like_mlflow(request)

    with Stranger(answer) as stranger:
        ref.append(stranger)
        began = time.monotonic()
        verdict = probe(
            at(stranger), an_address(stranger.host), checks=("tracking", "artifact"), deadline=1
        )
        assert time.monotonic() - began < 20
        assert verdict.state is State.ARTIFACT_FAILED
        assert [r.method for r in stranger.requests][-2:] == ["PUT", "DELETE"]


def test_an_artifact_is_taken_away_also_when_a_tls_file_has_vanished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check has read it when it began."""
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("mlflow.test"))

    def answer(request: Request) -> Answer:
        if request.method == "PUT":
            authority.file.unlink()
        if request.path.endswith("/experiments/search"):
            return http(200, '{"experiments": []}', "application/json")
        return looks_like_mlflow(request) if request.method == "GET" else http(200, "{}")

    with Stranger(answer, tls=context) as stranger:
        server = replace(at(stranger), scheme="https", ca_file=str(authority.file))
        verdict = probe(server, an_address(stranger.host), checks=("artifact",))
        assert verdict.state is State.HEALTHY
        assert stranger.requests[-1].method == "DELETE"


@pytest.mark.parametrize(
    "other", [{"artifact_location": "s3://b/1"}, {"artifact_location": "s3://["}, 7, None]
)
def test_the_newest_experiment_may_have_its_artifacts_elsewhere(other: object) -> None:
    """A location of its own says nothing about the artifacts of the other experiments."""
    listed = [other, {"artifact_location": "mlflow-artifacts:/8"}]

    def answer(request: Request) -> Answer:
        if request.path.endswith("/experiments/search"):
            found = listed[: json.loads(request.body)["max_results"]]
            return http(200, json.dumps({"experiments": found}), "application/json")
        return looks_like_mlflow(request) if request.method == "GET" else http(200, "{}")

    with Stranger(answer) as stranger:
        verdict = probe(at(stranger), an_address(stranger.host), checks=("artifact",))
        stored = [each.path for each in stranger.requests if each.method == "PUT"]
    assert verdict.state is State.HEALTHY
    assert ["/artifacts/8/hokusai-dns-probe-" in path for path in stored] == [True]


@pytest.mark.parametrize("tags", [80_000, 500_000])
def test_experiments_with_long_tags_do_not_close_a_gate_with_an_artifact(tags: int) -> None:
    """An experiment may have any number of tags of 5,000 characters."""
    one = {"artifact_location": "mlflow-artifacts:/8", "tags": [{"key": "k", "value": "v" * tags}]}

    def answer(request: Request) -> Answer:
        if request.path.endswith("/experiments/search"):
            found = [one] * json.loads(request.body)["max_results"]
            return http(200, json.dumps({"experiments": found}), "application/json")
        return looks_like_mlflow(request) if request.method == "GET" else http(200, "{}")

    with Stranger(answer) as stranger:
        verdict = probe(at(stranger), an_address(stranger.host), checks=("artifact",))
    assert verdict.state is State.HEALTHY, verdict.sentence


@pytest.mark.parametrize(
    ("registry", "asked"),
    [("/there/models", "/there/models"), ("/there", "/there"), ("/elsewhere", None)],
)
def test_a_registry_below_the_server_is_asked_at_its_own_path(
    registry: str, asked: str | None
) -> None:
    """One elsewhere is not the business of this connection's gate."""

    def answer(request: Request) -> Answer:
        return looks_like_mlflow(replace(request, path=request.path.removeprefix("/there")))

    with Stranger(answer) as stranger:
        uri = f"http://mlflow.test:{stranger.port}{registry}"
        server = at(stranger, path_prefix="/there", registry_uri=uri)
        probe(server, an_address(stranger.host), checks=("tracking", "registry"))
        paths = [r.path for r in stranger.requests if "registered-models" in r.path]
    wanted = f"{asked}/api/2.0/mlflow/registered-models/search?max_results=1"
    assert paths == ([] if asked is None else [wanted])
