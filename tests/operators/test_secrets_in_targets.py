"""A target that holds a login or a token leaves neither behind."""

from __future__ import annotations

import json

import pytest

from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
from airflow_provider_hokusai_dns.refresh.names import MOST_NAMES, refresh_names
from tests.conftest import Texts

URL = "http://bob:hunter2@{}/x?sig=hunter3"


@pytest.fixture(autouse=True)
def store(clean_runtime):
    from airflow_provider_hokusai_dns.store.variable_store import VariableStore

    clean_runtime.use_store(VariableStore(variables=Texts()))


@pytest.fixture
def asked(dns, monkeypatch):
    """The name server that everything asks."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    return dns


@pytest.mark.parametrize(
    ("target", "hostname"),
    [
        (URL.format("a.local"), "a.local"),
        (URL.format("gone.local"), "gone.local"),
        ("http://bob:hunter2", None),
        ("http://bob:hun/hunter2@a.local/", None),
        ("bob:hunter2@a.local", None),
        (URL.format("a..local"), None),
    ],
)
def test_no_secret_of_a_target_is_in_a_row_a_line_or_a_log(asked, caplog, target, hostname):
    """Resolved, not resolved, and malformed."""
    asked.set_records("a.local", ["10.0.0.1"])
    lines = []
    report = refresh_names([], [target], tell=lambda _, form, line: lines.append(form % line))
    (row,) = report["resolutions"]
    assert row["hostname"] == hostname
    told = json.dumps(report) + "".join(lines) + caplog.text
    assert "hunter" not in told
    assert (row["error"] is None) == (hostname == "a.local")


def test_no_secret_is_in_the_exception_of_the_operator(asked):
    """fail_on names the targets."""
    task = DNSRefreshOperator(
        task_id="refresh",
        mlflow_conn_ids=[],
        hostnames=[URL.format("gone.local")],
        do_xcom_push=False,
    )
    task.hostnames.append("http://bob:hunter2")  # as a template may give it
    with pytest.raises(Exception, match=r"gone\.local") as caught:
        task.execute({})
    assert "hunter" not in str(caught.value)
    with pytest.raises(ValueError, match="'http://bob:") as refused:
        DNSRefreshOperator(task_id="refresh", hostnames=["http://bob:hunter2"])
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("hostnames", [URL.format("a.local"), [URL.format("a.local")]])
def test_what_airflow_stores_of_the_operator_has_no_secret(hostnames):
    """The serialized DAG and the rendered templates are shown in its UI."""
    task = DNSRefreshOperator(task_id="refresh", hostnames=hostnames)
    assert task.hostnames == ["http://a.local/..."]
    templated = DNSRefreshOperator(task_id="templated", hostnames=["{{ given }}", "b.local"])
    templated.render_template_fields({"given": URL.format("a.local")})
    assert templated.hostnames == ["http://a.local/...", "b.local"]
    whole = DNSRefreshOperator(task_id="whole", hostnames="{{ given }}")
    whole.render_template_fields({"given": URL.format("a.local")})
    assert whole.hostnames == ["http://a.local/..."]


def test_a_refresh_has_a_cap():
    """Each name leaves two Variables behind, and every user who may trigger may name some."""
    names = [f"h{number}.local" for number in range(MOST_NAMES + 1)]
    with pytest.raises(ValueError, match=r"at most 100 connections and hostnames, not 101"):
        refresh_names([], names)


def test_the_form_of_the_refresh_dag_has_the_same_cap():
    """Airflow refuses a longer list before anything runs."""
    from airflow_provider_hokusai_dns.refresh_dag import build_refresh_dag

    schema = build_refresh_dag().params.get_param("hostnames").schema
    assert schema["maxItems"] == MOST_NAMES
