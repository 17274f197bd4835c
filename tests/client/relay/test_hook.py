"""The relay as a DAG author opens it: by the hook, and by one argument of an operator."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import auth
from airflow_provider_hokusai_dns.client.fluent_state import experiment_in_use, fluent_uri
from airflow_provider_hokusai_dns.client.routes import author_timeout
from airflow_provider_hokusai_dns.client.run_end import LostDataError
from airflow_provider_hokusai_dns.config import connections
from airflow_provider_hokusai_dns.config.errors import SettingError
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.mlflow import mlflow_for_children
from tests.client.relay.support import API, ask
from tests.conftest import HOSTNAME, TinyMLflow

LOG = f"{API}/runs/log-metric"


def test_the_hook_opens_a_relay_to_its_connection(
    usable: Callable[..., str], tiny: TinyMLflow
) -> None:
    """By name, with the connection's token; the child's environment has neither."""
    usable()
    connection = os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"]
    with_password = connection.replace("{", '{"password": "a-bearer-token", ', 1)
    os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = with_password
    with MLflowHook().relay() as relay:
        assert ask(relay, "GET", "/version")[:2] == (200, b"3.17.2")
        environment = relay.environment()
    method, path, headers = tiny.asked[-1]
    assert (method, path) == ("GET", "/version")
    assert headers["Host"].startswith(HOSTNAME)
    assert headers["Authorization"] == "Bearer a-bearer-token"
    assert "a-bearer-token" not in "".join(environment.values())
    assert environment["MLFLOW_TRACKING_URI"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("seconds", [True, float("nan"), -1, "12"])
def test_an_end_timeout_that_cannot_be_waited_is_refused_before_the_relay_opens(
    usable: Callable[..., str], tiny: TinyMLflow, seconds: Any
) -> None:
    """It is needed when the block has failed: too late to say that it is wrong."""
    usable()
    with (
        pytest.raises(ValueError, match="end_timeout must be a number"),
        MLflowHook().relay(end_timeout=seconds),
    ):
        pass
    assert not tiny.asked


@pytest.mark.parametrize("export", [False, True])
@pytest.mark.parametrize("author_value", ["7", None])
def test_children_do_not_get_the_experiment_of_a_run_on_another_server(
    usable: Callable[..., str],
    tiny: TinyMLflow,
    monkeypatch: pytest.MonkeyPatch,
    author_value: str | None,
    export: bool,
) -> None:
    """But the author's, and that of a run on their own server in another thread."""
    usable()
    before = dict(os.environ)
    if author_value is not None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", author_value)
    with fluent_uri("b", "http://b@b.test"), experiment_in_use("42"):
        with MLflowHook().relay(export=export) as relay:
            assert relay.environment().get("MLFLOW_EXPERIMENT_ID") == author_value
            assert relay.environment({"MLFLOW_EXPERIMENT_ID": "9"})["MLFLOW_EXPERIMENT_ID"] == "9"
            seen = author_value if export else "42"
            assert os.environ.get("MLFLOW_EXPERIMENT_ID") == seen
        assert os.environ["MLFLOW_EXPERIMENT_ID"] == "42"
    with (
        fluent_uri("mlflow_default", "http://x@y.test"),
        experiment_in_use("43"),
        MLflowHook().relay() as relay,
    ):
        assert relay.environment()["MLFLOW_EXPERIMENT_ID"] == "43"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    assert dict(os.environ) == before


def test_a_client_from_before_the_relay_keeps_its_login(
    usable: Callable[..., str], tiny: TinyMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sent the relay's token to MLflow."""
    usable()
    connection = json.loads(os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"])
    given = json.dumps({**connection, "password": "of-the-connection"})
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", given)
    hook = MLflowHook()
    client = hook.get_conn()
    with hook.relay(export=True):
        client.search_experiments()
    assert tiny.asked[-1][2]["Authorization"] == "Bearer of-the-connection"
    assert os.environ["MLFLOW_TRACKING_AUTH"] == auth.PROVIDER


def test_children_reach_the_relay_also_while_a_run_is_open_in_it(
    usable: Callable[..., str], tiny: TinyMLflow
) -> None:
    """They got the URI of the run, and sent the relay's token to MLflow."""
    usable()
    hook = MLflowHook()
    script = (
        "import os, urllib.request as u\n"
        "r = u.Request(os.environ['MLFLOW_TRACKING_URI'] + '/version')\n"
        "r.add_header('Authorization', 'Bearer ' + os.environ['MLFLOW_TRACKING_TOKEN'])\n"
        "u.urlopen(r)\n"
    )
    with hook.relay(export=True), fluent_uri("mlflow_default", auth.tagged_uri(hook.server)):
        subprocess.run([sys.executable, "-c", script], check=True)
    method, path, headers = tiny.asked[-1]
    assert (method, path, headers.get("Authorization")) == ("GET", "/version", None)


def test_the_runs_of_children_belong_to_the_user_of_the_task(
    usable: Callable[..., str], tiny: TinyMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of the task itself; no part of the connection's login is in their environment."""
    usable()
    monkeypatch.setattr("getpass.getuser", lambda: "airflow")
    connection = json.loads(os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"])
    given = {**connection, "login": "the-boss", "password": "the-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(given))
    with MLflowHook().relay() as relay:
        environment = relay.environment()
        user = environment["MLFLOW_TRACKING_USERNAME"]
        pair = base64.b64encode(f"{user}:{relay.token}".encode()).decode()
        basic = {"Authorization": f"Basic {pair}"}
        assert ask(relay, "GET", "/version", token=None, headers=basic)[0] == 200
    assert user == "airflow"
    for secret in ("the-boss", "the-secret"):
        assert not [name for name, value in environment.items() if secret in value]


def test_the_variables_of_a_relay_are_no_settings_of_the_task_itself(
    usable: Callable[..., str], tiny: TinyMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registry, server, login, certificate and time-out of another hook in the same task."""
    usable()
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://main.test:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "the-authors")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/the/authors.pem")
    monkeypatch.setenv("AIRFLOW_CONN_TEAM_B", "http://b.test")
    with MLflowHook().relay(export=True) as relay:
        assert auth.registry_uri(MLflowHook("team_b").server) is None
        assert author_timeout() == 0
        monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT")
        monkeypatch.setattr(connections, "_found", set())
        monkeypatch.setenv("AIRFLOW_CONN_TEAM_C", "https://c.test?__extra__=%7B%7D")
        server = MLflowHook().server
        assert MLflowHook("team_c").server.ca_file == "/the/authors.pem"
        assert os.environ["MLFLOW_TRACKING_URI"] == relay.uri
    assert server.uri == "https://main.test:5000"
    assert (server.credentials.authorization(), server.ca_file) == (
        "Bearer the-authors",
        "/the/authors.pem",
    )


def test_an_auth_plugin_of_the_author_stays_known_inside_an_exported_relay(
    usable: Callable[..., str], tiny: TinyMLflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used by other clients of this process; children go without it."""
    usable()
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "the-authors")
    monkeypatch.setattr(auth, "_previous", None)
    with MLflowHook().relay(export=True):
        assert "MLFLOW_TRACKING_AUTH" not in os.environ
        MLflowHook().get_conn()
        assert os.environ["MLFLOW_TRACKING_AUTH"] == auth.PROVIDER
        assert auth._previous == "the-authors"
    with MLflowHook().relay(export=True):
        MLflowHook().get_conn()
        assert auth._previous == "the-authors"


def test_a_relay_that_lost_something_raises_the_error_that_a_run_raises(
    usable: Callable[..., str], tiny: TinyMLflow
) -> None:
    """One except clause for both."""
    usable(deadline=0.5)
    tiny.answers[LOG] = (503, "away")
    with pytest.raises(LostDataError, match=r"log-metric"), MLflowHook().relay() as relay:
        ask(relay, "POST", LOG, {"run_id": "1"})


def a_task(log: list[str]) -> Any:
    """What an operator has of what ``pre_execute`` uses."""
    return SimpleNamespace(
        post_execute=lambda context, result=None: log.append("own post_execute"),
        on_failure_callback=[lambda context: log.append("own callback")],
        on_retry_callback=None,
        on_skipped_callback=(),
    )


def test_the_relay_of_a_task_ends_with_it(usable: Callable[..., str], tiny: TinyMLflow) -> None:
    """After the operator's own post_execute; then the environment is as before."""
    usable()
    before, log = dict(os.environ), list[str]()
    task = a_task(log)
    mlflow_for_children()({"task": task})
    assert os.environ["MLFLOW_TRACKING_URI"].startswith("http://127.0.0.1:")
    task.post_execute({})
    assert log == ["own post_execute"]
    assert dict(os.environ) == before
    for callback in task.on_failure_callback:
        callback({})
    assert log == ["own post_execute", "own callback"]


def test_brackets_that_are_missing_fail_the_task() -> None:
    """``pre_execute=mlflow_for_children`` is called with the context; it did nothing at all."""
    with pytest.raises(SettingError, match=r"connection must be a string .* not an object"):
        mlflow_for_children({"task": a_task([])})  # type: ignore[arg-type]


def test_the_relay_of_a_task_that_failed_ends_in_its_callbacks(
    usable: Callable[..., str], tiny: TinyMLflow
) -> None:
    """Before the author's own, which are all called."""
    usable()
    before, log = dict(os.environ), list[str]()
    task = a_task(log)
    mlflow_for_children()({"task": task})
    for callback in task.on_failure_callback:
        callback({"exception": ValueError("the author's")})
    assert log == ["own callback"]
    assert dict(os.environ) == before


def test_a_task_that_succeeded_and_lost_something_fails(
    usable: Callable[..., str], tiny: TinyMLflow
) -> None:
    """What its process has swallowed."""
    usable(deadline=0.5)
    tiny.answers[LOG] = (503, "away")
    task = a_task([])
    mlflow_for_children()({"task": task})
    script = (
        "import os, urllib.request as u\n"
        f"r = u.Request(os.environ['MLFLOW_TRACKING_URI'] + '{LOG}', b'{{}}')\n"
        "r.add_header('Authorization', 'Bearer ' + os.environ['MLFLOW_TRACKING_TOKEN'])\n"
        "try: u.urlopen(r)\n"
        "except Exception: pass\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(LostDataError, match="log-metric"):
        task.post_execute({})


def test_the_argument_of_an_operator_can_be_pickled() -> None:
    """As a DAG is, for some executors."""
    import pickle

    assert pickle.loads(pickle.dumps(mlflow_for_children("x"))).args == ("x",)


def test_a_relay_costs_a_dag_file_no_import() -> None:
    """aiohttp comes when one is opened, and MLflow's client never."""
    code = (
        "import sys, airflow.sdk\n"
        "import airflow_provider_hokusai_dns.operators.mlflow\n"
        "import airflow_provider_hokusai_dns.policies.retry\n"
        "print([n for n in ('mlflow', 'aiohttp', 'dns', 'requests') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().endswith("[]")
