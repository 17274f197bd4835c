"""Credentials of MLflow's own client: to the right server, and nowhere else."""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import auth
from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from airflow_provider_hokusai_dns.exceptions import AuthProviderError
from tests.conftest import ADMIN
from tests.servers import MLflowProcess, Request, Stranger, black_hole, free_port, http
from tests.values import a_server

SECRET = "a-Token-that-no-log-may-show"
OTHERS = "a-Token-of-another-user"


def empty_mlflow(request: Request) -> bytes:
    """Enough of MLflow for ``search_experiments``."""
    return http(body='{"experiments": []}', content_type="application/json")


def server_at(stranger: Stranger, conn_id: str = "c", **changes: Any) -> MLflowServer:
    changes.setdefault("credentials", Credentials(secret=SECRET))
    return a_server(conn_id=conn_id, hostname=stranger.host, port=stranger.port, **changes)


def ask(uri: str) -> None:
    from mlflow import MlflowClient

    MlflowClient(uri).search_experiments(max_results=1)


def authorization(stranger: Stranger) -> str | None:
    return stranger.requests[-1].headers.get("authorization")


def test_the_uri_holds_the_connection_and_no_secret() -> None:
    """The tag is the connection id, quoted; the rest is the server's own."""
    server = a_server(
        conn_id="team a/b@c", port=5000, path_prefix="/ml", credentials=Credentials("u", SECRET)
    )
    assert auth.sign_in(server) == "http://team%20a%2Fb%40c@mlflow.test:5000/ml"
    everything = str(dict(os.environ)) + repr(auth._signed_in) + repr(server)
    assert SECRET not in everything
    assert base64.b64encode(f"u:{SECRET}".encode()).decode() not in everything


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (Credentials(secret=SECRET), f"Bearer {SECRET}"),
        (
            Credentials("ada", "pässword:"),
            "Basic " + base64.b64encode("ada:pässword:".encode()).decode(),
        ),
        (Credentials(), None),
    ],
)
@pytest.mark.parametrize("conn_id", ["c", "team a/b@c:d", "ümlaut~"])
def test_mlflow_sends_what_the_connection_says(
    monkeypatch: pytest.MonkeyPatch, credentials: Credentials, expected: str | None, conn_id: str
) -> None:
    """Basic, bearer and none, whatever the connection is called, and no other credentials."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", OTHERS)
    with Stranger(empty_mlflow) as stranger:
        ask(auth.sign_in(server_at(stranger, conn_id, credentials=credentials)))
        assert authorization(stranger) == expected
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "another")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", OTHERS)
        ask(auth.tagged_uri(server_at(stranger, conn_id)))
        assert authorization(stranger) == expected


def test_two_users_on_one_server_over_eight_threads_are_never_mixed_up() -> None:
    """Each request carries the credentials of its own client."""
    with Stranger(empty_mlflow) as stranger:
        users = {
            name: auth.sign_in(
                server_at(
                    stranger, name, path_prefix=f"/{name}", credentials=Credentials(name, "p")
                )
            )
            for name in ("ada", "bob")
        }
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, [users[name] for name in ("ada", "bob") * 40]))
    assert len(stranger.requests) == 80
    for request in stranger.requests:
        user = request.path.split("/")[1]
        expected = base64.b64encode(f"{user}:p".encode()).decode()
        assert request.headers["authorization"] == f"Basic {expected}"


def test_the_workspace_goes_with_the_connection() -> None:
    """Per request too, so that two connections do not share one."""
    with Stranger(empty_mlflow) as stranger:
        for conn_id, workspace in (("a", "blue"), ("b", None)):
            uri = auth.sign_in(server_at(stranger, conn_id, workspace=workspace))
            ask(uri)
            assert stranger.requests[-1].headers.get("x-mlflow-workspace") == workspace


def test_nothing_goes_to_another_host_or_port_after_a_redirect() -> None:
    """Whatever the server says."""
    with (
        Stranger(empty_mlflow, host="127.0.0.2") as host,
        Stranger(empty_mlflow) as port,
        Stranger(empty_mlflow) as stranger,
    ):
        uri = auth.sign_in(server_at(stranger))
        for other in (host, port):
            stranger.answer = lambda r, to=other: http(307, location=f"{to.uri}{r.path}")
            ask(uri)
            assert authorization(stranger) == f"Bearer {SECRET}"
            assert authorization(other) is None


def test_a_redirect_within_the_server_is_followed_with_its_login() -> None:
    """Also where it names the server, and MLflow is away before and after it."""
    with Stranger(empty_mlflow) as stranger:
        path = "/moved/api/2.0/mlflow/experiments/search"
        for location in (path, f"{stranger.uri}{path}"):
            answers = iter([http(503), http(307, location=location), http(503)])
            stranger.answer = lambda r, answers=answers: next(answers, None) or empty_mlflow(r)
            ask(auth.sign_in(server_at(stranger)))
            assert stranger.requests[-1].path == path
            assert authorization(stranger) == f"Bearer {SECRET}"


def test_a_redirect_to_another_host_is_followed_without_the_login() -> None:
    """Also where no time is given for waiting, and over two hosts."""
    with Stranger(empty_mlflow) as last, Stranger(empty_mlflow) as other:
        other.answer = lambda r: http(307, location=f"{last.uri}{r.path}")
        with Stranger(lambda r: http(307, location=f"{other.uri}{r.path}")) as stranger:
            ask(auth.sign_in(server_at(stranger, request_timeout=0.0)))
    assert authorization(stranger) == f"Bearer {SECRET}"
    assert [authorization(each) for each in (other, last)] == [None, None]


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_to_a_host_that_is_away_ends_with_the_call(status: int) -> None:
    """A sign-in page that cannot be reached: MLflow's own retries would take four minutes."""
    with (
        black_hole("127.0.0.3") as port,
        Stranger(lambda _: http(status, location=f"http://127.0.0.3:{port}/login")) as other,
        Stranger(empty_mlflow) as stranger,
    ):
        for there in (
            f"127.0.0.1:{free_port()}",
            f"127.0.0.3:{port}",
            f"127.0.0.1:{other.port}",
            "127.0.0.1:99999",
        ):
            stranger.answer = lambda _, to=there: http(status, location=f"http://{to}/login")
            began = time.monotonic()
            with pytest.raises(Exception, match=r"127\.0\.0"):
                ask(auth.sign_in(server_at(stranger, request_timeout=2.0)))
            assert time.monotonic() - began < 8


def test_a_tag_on_another_host_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag is no secret, so it proves nothing."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", OTHERS)
    with Stranger(empty_mlflow) as stranger, Stranger(empty_mlflow) as other:
        auth.sign_in(server_at(stranger))
        ask(f"http://c@{other.host}:{other.port}")
        assert authorization(other) is None


def test_others_in_the_process_notice_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URI without our tag gets what it got before: environment, or its own userinfo."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", OTHERS)
    with Stranger(empty_mlflow) as stranger:
        auth.sign_in(server_at(stranger))
        ask(stranger.uri)
        assert authorization(stranger) == f"Bearer {OTHERS}"
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        ask(f"http://ada:lovelace@{stranger.host}:{stranger.port}")
        expected = base64.b64encode(b"ada:lovelace").decode()
        assert authorization(stranger) == f"Basic {expected}"


def test_the_provider_that_was_there_before_serves_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The slot of MLflow holds one name; it gets it back when the last connection is forgotten."""
    from mlflow.tracking.request_auth import registry

    class Earlier:
        def get_name(self) -> str:
            return "earlier"

        def get_auth(self) -> tuple[str, str]:
            return ("earlier", "user")

    known: Any = registry._request_auth_provider_registry
    known.register(Earlier)
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "earlier")
    try:
        with Stranger(empty_mlflow) as stranger:
            ours = auth.sign_in(server_at(stranger))
            assert os.environ["MLFLOW_TRACKING_AUTH"] == auth.PROVIDER
            ask(stranger.uri)
            expected = base64.b64encode(b"earlier:user").decode()
            assert authorization(stranger) == f"Basic {expected}"
            ask(ours)
            assert authorization(stranger) == f"Bearer {SECRET}"
            ask(auth.sign_in(server_at(stranger, "bare", credentials=Credentials())))
            assert authorization(stranger) == f"Basic {expected}"
            auth.forget("bare")
            auth.forget("c")
            assert os.environ["MLFLOW_TRACKING_AUTH"] == "earlier"
    finally:
        known._registry[:] = [p for p in known._registry if not isinstance(p, Earlier)]


def test_a_forgotten_connection_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old client neither sends what it had nor what the environment holds."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", OTHERS)
    with Stranger(empty_mlflow) as stranger:
        uri = auth.sign_in(server_at(stranger))
        auth.sign_in(server_at(stranger, "another"))
        auth.forget("c")
        with pytest.raises(Exception, match="get a new client from the hook"):
            ask(uri)
        assert stranger.requests == []


def test_signing_in_again_replaces_the_credentials() -> None:
    """A rotated token is used by clients that exist already."""
    with Stranger(empty_mlflow) as stranger:
        uri = auth.sign_in(server_at(stranger))
        auth.sign_in(server_at(stranger, credentials=Credentials(secret="rotated")))
        ask(uri)
        assert authorization(stranger) == "Bearer rotated"


def test_a_foreign_plugin_of_our_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow would ask it instead of us."""
    from mlflow.tracking.request_auth import registry

    class Impostor:
        def get_name(self) -> str:
            return auth.PROVIDER

        def get_auth(self) -> object:
            return lambda request: request

    monkeypatch.setattr(registry._request_auth_provider_registry, "_registry", [Impostor()])
    with pytest.raises(AuthProviderError, match="credentials would go nowhere"):
        auth.sign_in(a_server(credentials=Credentials(secret=SECRET)))


def test_without_our_entry_point_we_register_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source folder on the path has no metadata."""
    from mlflow.tracking.request_auth import registry

    monkeypatch.setattr(registry._request_auth_provider_registry, "_registry", [])
    with Stranger(empty_mlflow) as stranger:
        ask(auth.sign_in(server_at(stranger)))
        assert authorization(stranger) == f"Bearer {SECRET}"


def test_aws_signing_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would come before every plugin, and the login of the connection would not be used."""
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    with pytest.raises(AuthProviderError, match="SIGV4"):
        auth.sign_in(a_server(credentials=Credentials(secret=SECRET)))
    assert auth.sign_in(a_server()) == "http://mlflow_test@mlflow.test"


@pytest.mark.parametrize(
    ("username", "secret", "part"),
    [("a:b", "x", "colon"), (None, "tok en", "bearer token"), (None, "token\n", "bearer token")],
)
def test_credentials_that_can_never_be_right_are_refused_without_being_quoted(
    username: str | None, secret: str, part: str
) -> None:
    """The HTTP library would quote them in its exception."""
    with pytest.raises(ValueError, match=part) as caught:
        Credentials(username, secret)
    assert secret.strip() not in str(caught.value).replace("bearer token", "")


def test_errors_and_logs_of_mlflow_hold_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """The URI is in every error text of MLflow's client."""
    caplog.set_level(logging.DEBUG)
    with Stranger(lambda _: http(401, "no")) as stranger:
        uri = auth.sign_in(server_at(stranger, credentials=Credentials("ada", SECRET)))
        with pytest.raises(Exception, match="401") as caught:
            ask(uri)
    encoded = base64.b64encode(f"ada:{SECRET}".encode()).decode()
    for text in (str(caught.value), repr(caught.value), caplog.text):
        assert SECRET not in text
        assert encoded not in text


def test_the_registry_on_the_same_server_is_signed_in_too() -> None:
    """And one elsewhere gets no tag, so no credentials."""
    same = a_server(port=5000, registry_uri="http://MLFLOW.test:5000/registry")
    assert auth.registry_uri(same) == "http://mlflow_test@MLFLOW.test:5000/registry"
    assert auth.registry_uri(a_server(registry_uri="http://other.test")) == "http://other.test"
    assert auth.registry_uri(a_server()) is None


def test_importing_the_plugin_imports_next_to_nothing() -> None:
    """MLflow imports it in every process; it must be cheap, and unable to fail."""
    code = (
        "import sys; import airflow_provider_hokusai_dns.client.auth\n"
        "ours = 'airflow_provider_hokusai_dns.resolver.'\n"
        "allowed = ('errors', 'forks')\n"
        "heavy = ('mlflow', 'requests', 'airflow', 'dns', 'urllib3')\n"
        "print([m for m in sys.modules if m in heavy],\n"
        "      [m for m in sys.modules if m.startswith(ours) and m[len(ours):] not in allowed])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[] []"


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_mlflow_s_own_basic_auth_lets_two_users_in(auth_server: MLflowProcess) -> None:
    """A real server, its administrator, and a user made by him."""
    import requests

    made = requests.post(
        f"{auth_server.uri}/api/2.0/mlflow/users/create",
        json={"username": "reader", "password": "another-Secret-2"},
        auth=ADMIN,
        timeout=10,
    )
    assert made.status_code == 200

    def sign_in(conn_id: str, *login: str) -> str:
        return auth.sign_in(
            a_server(
                conn_id=conn_id,
                hostname=auth_server.host,
                port=auth_server.port,
                credentials=Credentials(*login),
            )
        )

    ask(sign_in("root", *ADMIN))
    ask(sign_in("reader", "reader", "another-Secret-2"))
    wrong = sign_in("wrong", "reader", "wrong")
    with pytest.raises(Exception, match=r"401|not authenticated"):
        ask(wrong)
