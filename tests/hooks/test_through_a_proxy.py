"""A server that is reached through ``HTTP(S)_PROXY`` only: everything goes that way, and says so.

MLflow's name is known to the proxy alone; the proxy's own name is in DNS.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_hokusai_dns.cli import commands
from airflow_provider_hokusai_dns.config.proxies import proxy_for
from airflow_provider_hokusai_dns.config.server import Proxy
from airflow_provider_hokusai_dns.exceptions import MLflowRestError, MLflowUnreachableError
from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache
from airflow_provider_hokusai_dns.resolver.level import Level
from tests.forward_proxy import ForwardProxy
from tests.servers import MLflowProcess, client_environment, free_port

# What MLflow warns of is its own affair.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(300),
]

NAME, PROXY = "mlflow.test", "proxy.test"
SECRET = "pr0xy-Secret"
LOGIN = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
SEARCH = "/api/2.0/mlflow/experiments/search"
_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def mlflow(scheme: str, request: pytest.FixtureRequest) -> tuple[MLflowProcess, dict[str, Any]]:
    """The server, and what the connection says about its certificate."""
    if scheme == "http":
        return request.getfixturevalue("mlflow_server"), {}
    server, ca_file = request.getfixturevalue("tls_server")
    return server, {"ca_file": str(ca_file)}


@pytest.fixture
def proxy(mlflow: tuple[MLflowProcess, Any]) -> Iterator[ForwardProxy]:
    with ForwardProxy({NAME: mlflow[0].host}, host="127.0.0.61", login=LOGIN) as proxy:
        yield proxy


@pytest.fixture
def behind(
    scheme: str,
    mlflow: tuple[MLflowProcess, dict[str, Any]],
    proxy: ForwardProxy,
    dns: Any,
    connect: Callable[..., str],
    clean_runtime: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> ForwardProxy:
    """``mlflow_default`` leads to a server that only the proxy can resolve."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "mlflow_default")
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://me:{SECRET}@{PROXY}:{proxy.port}")
    dns.set_records(PROXY, ["127.0.0.61"], ttl=10)
    dns.no_such_name(NAME)
    server, tls = mlflow
    connect(
        host=NAME, port=server.port, schema=scheme,
        extra={"request_timeout": 5, "deadline": 30, **tls},
    )  # fmt: skip
    return proxy


def test_client_rest_run_gate_and_page_go_through_it(behind: ForwardProxy) -> None:
    """As one; the gate says so, and its login is in no sentence."""
    import mlflow

    hook = MLflowHook()
    assert hook.get_conn().search_experiments()
    assert hook.rest("POST", SEARCH, json={"max_results": 1})["experiments"]
    with hook.run("proxied") as run:
        mlflow.log_metric("m", 1.0, synchronous=False)
    assert hook.get_conn().get_run(run.info.run_id).data.metrics == {"m": 1.0}
    verdict = check_connection("mlflow_default").verdict
    assert verdict.level is Level.HEALTHY, verdict.sentence
    assert f"through the proxy http://{PROXY}:{behind.port}" in verdict.sentence
    assert SECRET not in repr(verdict) + repr(hook.server)
    assert hook.test_connection()[0]
    (row,) = HealthCache(patience=20.0).connections()
    assert (row.dns, row.mlflow, row.target.hostname) == (Level.HEALTHY, Level.HEALTHY, PROXY)


def test_what_the_hook_and_the_command_line_resolve_is_the_proxy_s_name(
    behind: ForwardProxy,
    scheme: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the gate does: MLflow's own name is for the proxy, and the URI keeps it."""
    hook = MLflowHook()
    assert hook.resolve().addresses == hook.refresh_dns_resolution().addresses == ("127.0.0.61",)
    assert hook.resolved_tracking_uri == hook.tracking_uri
    info = hook.get_dns_info()
    assert info["raw_uri"] == info["resolved_uri"] == hook.tracking_uri
    assert (info["hostname"], info["addresses"]) == (PROXY, ["127.0.0.61"])
    assert (info["proxy"], info["state"]) == (f"http://{PROXY}:{behind.port}", "healthy")
    assert info["error"] is None
    options = Namespace(
        conn_id=["mlflow_default"], target=[], output="table", min_health="healthy", verbose=False
    )
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # the command sets it
    with pytest.raises(SystemExit, match="0"):
        commands.resolve(options)
    assert f"{PROXY}, the proxy of connection mlflow_default, which resolves {NAME}" in (
        capsys.readouterr().out
    )
    assert behind.asked == []


def test_a_relay_and_its_children_go_through_it(behind: ForwardProxy) -> None:
    """The child knows the relay only."""
    script = "import mlflow\nwith mlflow.start_run(): mlflow.log_metric('m', 2.0)"
    hook = MLflowHook()
    with hook.run("relayed") as run, hook.relay() as relay:
        environment = relay.environment(client_environment())
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
    assert hook.get_conn().get_run(run.info.run_id).data.metrics == {"m": 2.0}


def test_a_run_keeps_on_while_the_name_of_the_proxy_is_gone(behind: ForwardProxy, dns: Any) -> None:
    """Its name is cached and pinned as a server's is; the login goes to no stale address."""
    import mlflow

    with MLflowHook().run("proxied") as run:
        dns.no_such_name(PROXY)
        for step in range(3):
            mlflow.log_metric("m", step, step=step)
    dns.set_records(PROXY, ["127.0.0.61"], ttl=10)
    assert len(MLflowHook().get_conn().get_metric_history(run.info.run_id, "m")) == 3


def test_a_proxy_that_cannot_resolve_mlflow_is_said_and_waited_for(behind: ForwardProxy) -> None:
    """No typo is suggested: what the connection says is right."""
    known = dict(behind.names)
    behind.names.clear()
    verdict = check_connection("mlflow_default").verdict
    assert verdict.level is Level.UNHEALTHY
    assert PROXY in verdict.sentence
    assert "typo" not in verdict.sentence
    with pytest.raises(MLflowRestError) as caught:
        MLflowHook().rest("POST", SEARCH, json={})
    assert caught.value.says_down
    with pytest.raises(Exception, match=r"502|[Pp]roxy"), MLflowHook().run("never"):
        pytest.fail("not reached")
    behind.names.update(known)
    assert check_connection("mlflow_default").verdict.level is Level.HEALTHY


def test_a_proxy_that_does_not_allow_mlflow_is_the_one_that_is_named(behind: ForwardProxy) -> None:
    """MLflow has not seen the login, so no permission of its user is in question."""
    behind.names.clear()
    behind.refusal = 403
    verdict = check_connection("mlflow_default").verdict
    assert (verdict.state, verdict.cause) == ("unreachable", "proxy_refused")
    assert "403" in verdict.sentence


def test_a_login_that_the_proxy_refuses_is_said_at_once(
    behind: ForwardProxy, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the gate, a REST call and a run."""
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://me:wrong@{PROXY}:{behind.port}")
    verdict = check_connection("mlflow_default").verdict
    assert (verdict.state, verdict.cause) == ("unreachable", "proxy_refused")
    assert "407" in verdict.sentence
    with pytest.raises(MLflowRestError):
        MLflowHook().rest("POST", SEARCH, json={})
    with pytest.raises(Exception, match="407"), MLflowHook().run("never"):
        pytest.fail("not reached")
    assert len(behind.asked) < 15, "it was repeated"


def test_a_proxy_that_is_down_is_the_one_that_is_named(
    behind: ForwardProxy, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow is not the suspect."""
    port = free_port("127.0.0.61")
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{PROXY}:{port}")
    verdict = check_connection("mlflow_default").verdict
    assert verdict.cause == "refused"
    assert "proxy" in verdict.sentence
    named = pytest.raises(MLflowUnreachableError, match=f"the proxy http://{PROXY}:{port}")
    with named, MLflowHook().run("never"):
        pytest.fail("not reached")


def test_no_proxy_is_honoured(
    behind: ForwardProxy,
    mlflow: tuple[MLflowProcess, Any],
    dns: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the server's own name counts, and the proxy hears nothing."""
    import mlflow as client

    monkeypatch.setenv("NO_PROXY", f"localhost,{NAME}")
    dns.set_records(NAME, [mlflow[0].host], ttl=10)
    with MLflowHook().run("direct"):
        client.log_metric("m", 1.0)
    verdict = check_connection("mlflow_default").verdict
    assert verdict.level is Level.HEALTHY
    assert verdict.address == mlflow[0].host
    assert behind.asked == []


@pytest.mark.parametrize(
    ("environment", "uri", "expected"),
    [
        ({}, "http://mlflow.test:5000", None),
        ({"HTTP_PROXY": "http://p.test:3128"}, "http://mlflow.test:5000", Proxy("p.test", 3128)),
        ({"http_proxy": "p.test:3128"}, "http://mlflow.test", Proxy("p.test", 3128)),
        ({"HTTP_PROXY": "http://p.test"}, "http://mlflow.test", Proxy("p.test", 80)),
        ({"HTTP_PROXY": "http://p.test:3128"}, "https://mlflow.test", None),
        ({"HTTPS_PROXY": "http://[::1]:3128"}, "https://mlflow.test", Proxy("::1", 3128)),
        ({"ALL_PROXY": "http://p.test:3128"}, "https://mlflow.test", Proxy("p.test", 3128)),
        (
            {"HTTP_PROXY": "http://a%40b:c%3Ad@p.test:1"},
            "http://mlflow.test",
            Proxy("p.test", 1, "Basic " + base64.b64encode(b"a@b:c:d").decode()),
        ),
        ({"HTTP_PROXY": "http://p.test:1", "NO_PROXY": "mlflow.test"}, "http://mlflow.test", None),
        ({"HTTP_PROXY": "http://p.test:1", "NO_PROXY": "*"}, "http://mlflow.test", None),
        ({"HTTP_PROXY": "http://p.test:1", "NO_PROXY": ".test"}, "http://mlflow.test", None),
        (
            {"HTTP_PROXY": "http://p.test:1", "NO_PROXY": "10.0.0.0/8"},
            "http://10.1.2.3:5000",
            None,
        ),
        (
            {"HTTP_PROXY": "http://p.test:1", "NO_PROXY": "other.test"},
            "http://mlflow.test",
            Proxy("p.test", 1),
        ),
        # not covered: a warning says so
        ({"ALL_PROXY": "socks5://p.test:1080"}, "http://mlflow.test", None),
        ({"HTTP_PROXY": "https://p.test:1"}, "http://mlflow.test", None),
        ({"HTTP_PROXY": "http://p.test:99999"}, "http://mlflow.test", None),
    ],
)
def test_it_is_chosen_as_requests_chooses_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], uri: str, expected: Proxy | None
) -> None:
    """By scheme and NO_PROXY, with names, suffixes and networks."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(uri) == expected
