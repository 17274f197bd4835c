"""The Test button names no id that Airflow made up for the time of the test."""

from __future__ import annotations

import pytest

from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from tests.conftest import HOSTNAME, SEARCH

MADE_UP = "x7f3kq"


@pytest.mark.parametrize(
    ("fields", "answer", "said"),
    [
        ({}, (401, "no"), "MLflow asks for a login and this connection has none"),
        (
            {"login": "me", "password": "secret"},
            (401, "no"),
            "MLflow does not accept the login and password of this connection",
        ),
        ({"login": "me", "password": "secret"}, (403, {}), "the login of this connection"),
        ({"port": 99999}, (200, {}), "This connection, port: "),
        ({"extra": {"cash_ttl": 5}}, (200, {}), "This connection, "),
    ],
)
def test_the_connection_is_called_this_connection(usable, connect, dns, tiny, fields, answer, said):
    """The reader of the form has never seen the made-up id."""
    tiny.answers[SEARCH] = answer
    usual = {"host": HOSTNAME, "port": tiny.port, "extra": {"nameservers": dns.address}}
    connect(MADE_UP, **{**usual, **fields})
    ok, sentence = MLflowHook(MADE_UP).test_connection()
    assert not ok
    assert said in sentence
    assert sentence.endswith(".")
    assert MADE_UP not in sentence.lower()


def test_the_address_for_emergencies_is_used_as_by_tasks(usable, connect, dns, tiny, monkeypatch):
    """Also if it belongs to another connection in this process, which serves others too."""
    monkeypatch.setenv("MLFLOW_FALLBACK_IP", tiny.address)
    MLflowHook().resolve()
    dns.servfail("other.local")
    connect(MADE_UP, host="other.local", port=tiny.port)
    ok, sentence = MLflowHook(MADE_UP).test_connection()
    assert ok
    assert f"The static address of MLFLOW_FALLBACK_IP {tiny.address} still works." in sentence


def test_a_wrong_address_for_emergencies_is_reported_as_the_tasks_do(usable, monkeypatch):
    """A button that says yes where every task of the deployment fails would be worse than none."""
    monkeypatch.setenv("MLFLOW_FALLBACK_IP", "bad")
    ok, sentence = MLflowHook().test_connection()
    assert not ok
    assert sentence.startswith("Environment, MLFLOW_FALLBACK_IP: 'bad' is not an IP address")
    assert MLflowHook().check().cause == "connection"
