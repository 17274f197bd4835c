"""Where the buttons lead; how Airflow shows them is tested at its API (tests/integration)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from airflow_provider_hokusai_dns.links.mlflow_run import KEY, MLflowRunLink, run_url
from airflow_provider_hokusai_dns.links.status_page import StatusPageLink
from airflow_provider_hokusai_dns.plugins.hokusai_dns import HokusaiDNSPlugin
from airflow_provider_hokusai_dns.provider_info import get_provider_info

TI = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", "https://mlflow.example.local:5000/#/experiments/7/runs/abc"),
        ("/mlflow", "https://mlflow.example.local:5000/mlflow/#/experiments/7/runs/abc"),
    ],
)
def test_the_page_of_a_run_is_at_the_hostname(prefix, expected):
    """Not at an address, and with no login in it: it is for a browser, and it is stored."""
    server = MLflowServer(
        conn_id="a",
        scheme="https",
        hostname="mlflow.example.local",
        port=5000,
        path_prefix=prefix,
        credentials=Credentials("me", "hunter2"),
    )
    assert run_url(server.uri, "7", "abc") == expected


def test_ids_cannot_leave_their_place():
    """They come from a server."""
    assert run_url("http://m", "7/../..", "a?b").endswith("/experiments/7%2F..%2F../runs/a%3Fb")


def test_the_key_is_the_one_airflow_would_have_chosen():
    """So that a reader of XComs sees that it is a link."""
    assert f"_link_{MLflowRunLink.__name__}" == KEY == MLflowRunLink().xcom_key


def test_a_link_that_cannot_be_read_is_no_link():
    """Here there is no database. It is asked of every task, so it must not raise for any."""
    assert MLflowRunLink().get_link(None, ti_key=TI) == ""


def test_the_status_page_is_below_where_airflow_is_served(monkeypatch):
    """Also where that is not the root of a host."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")
    link = StatusPageLink().get_link(None, ti_key=TI)
    assert link == "https://airflow.example.com/team/plugin/hokusai-dns"


def test_the_plugin_registers_what_the_provider_lists():
    """Airflow takes links from plugins; the provider's list is for people."""
    plugin = HokusaiDNSPlugin()
    registered = [*plugin.global_operator_extra_links, *plugin.operator_extra_links]
    names = {f"{type(link).__module__}.{type(link).__qualname__}" for link in registered}
    assert names == set(get_provider_info()["extra-links"])
    assert {operator.__name__ for operator in StatusPageLink.operators} == {
        "DNSRefreshOperator",
        "MLflowHealthSensor",
    }
