"""A wrong field of a connection is named; a value that may be a secret is not repeated."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airflow_provider_hokusai_dns.config import connections
from airflow_provider_hokusai_dns.config.fields import EXTRAS, described
from airflow_provider_hokusai_dns.exceptions import SettingError

SECRETS = (
    "u:hunter2@10.0.0.2",
    "http://u:hunter2@10.0.0.2/",
    "hunter2 hunter2",
    "u:hunter2",
    '["u:hunter2"',
    ["http://u:hunter2@x/"],
    {"password": "hunter2"},
    [{"password": "hunter2"}],
    "hunter2\n",
)
#: Free text: a path, a name. What stands there is not checked, so it is in no error.
TEXTS = ("ca_file", "client_cert", "workspace", "experiment", "path_prefix")
#: A word without a dot is a hostname.
HOSTS = ("also_pin",)


def read(extra=None, **given):
    usual = {"conn_type": "mlflow", "host": "mlflow.local", "schema": None, "login": None,
             "password": None, "port": None}  # fmt: skip
    text = json.dumps(extra) if isinstance(extra, dict) else extra
    connection = SimpleNamespace(conn_id="ml", extra=text, **{**usual, **given})
    return connections.server_from_connection(connection)


@pytest.mark.parametrize("secret", SECRETS, ids=str)
@pytest.mark.parametrize("field", sorted(EXTRAS))
def test_an_extra_is_named_and_not_repeated(field, secret):
    """Whatever is in it, and whichever extra it is."""
    told = ""
    try:
        read({field: secret})
    except SettingError as error:
        told = f"{error} {error!r}"
    assert "hunter2" not in told
    assert f"'{field}'" in told or field in TEXTS + HOSTS


@pytest.mark.parametrize("field", ["port", "schema", "conn_type", "host"])
def test_a_field_of_the_connection_is_named_and_not_repeated(field):
    """A whole URL in the wrong field is the usual case."""
    with pytest.raises(SettingError) as caught:
        read(**{field: "http://u:hunter2@10.0.0.2"})
    assert "hunter2" not in str(caught.value)


def test_a_registry_uri_has_no_token_in_its_query():
    """It would be in the repr of the server, and in what MLflow logs."""
    for uri in ("https://registry.local/?token=hunter2", "https://registry.local/#hunter2"):
        with pytest.raises(SettingError, match="registry_uri") as caught:
            read({"registry_uri": uri})
        assert "hunter2" not in str(caught.value)


def test_broken_json_is_not_repeated():
    """The whole extra is masked elsewhere; here it must not get out either."""
    with pytest.raises(SettingError, match="not valid JSON") as caught:
        read('{"token": "hunter2"')
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", [-1, 5.5, True, None, "soon", "10s", "-1", "1,5", "NaN"])
def test_a_number_or_a_plain_word_is_repeated(value):
    """It helps, and is no secret."""
    assert described(value) == repr(value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("hunter2", "a string of 7 characters"),
        ("averylongword", "a string of 13 characters"),
        ({"a": 1}, "an object"),
        ([1], "a list"),
        ((1,), "a list"),
    ],
)
def test_anything_else_is_told_by_its_kind(value, kind):
    """Enough to find the field's mistake."""
    assert described(value) == kind


def test_an_unknown_extra_is_told_with_the_one_that_was_meant():
    """Bounded, and on one line."""
    with pytest.raises(SettingError, match=r"Did you mean 'cache_ttl'\?"):
        read({"cache_tll": 5})
    with pytest.raises(SettingError) as caught:
        read({"x\n" * 4000: 5})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
