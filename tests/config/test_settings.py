"""Connections and settings: what is right is read, what is wrong is named."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.config.fields import EXTRAS
from airflow_provider_hokusai_dns.config.server import StaleOverHTTP
from airflow_provider_hokusai_dns.exceptions import ConnectionMissingError, SettingError
from airflow_provider_hokusai_dns.provider_info import get_provider_info
from airflow_provider_hokusai_dns.resolver import ResolverConfig
from tests.servers import Stranger, http


def connection(extra: Any = None, **given: Any) -> Any:
    """A connection as Airflow hands it over."""
    usual = {
        "conn_id": "ml",
        "conn_type": "mlflow",
        "host": "mlflow.local",
        "schema": None,
        "login": None,
        "password": None,
        "port": None,
        "extra": json.dumps(extra) if isinstance(extra, dict) else extra,
    }
    return SimpleNamespace(**{**usual, **given})


def read(extra: Any = None, **given: Any) -> Any:
    return connections.server_from_connection(connection(extra, **given))


class TestAConnection:
    """What a connection says ends up in the server."""

    def test_of_a_host_alone_is_http_on_its_own_port(self):
        """The least that can be filled in is enough."""
        server = read()
        assert (server.uri, server.connect_port) == ("http://mlflow.local", 80)
        assert server.credentials.kind == "none"

    def test_with_everything(self):
        """Every extra has its field, in the form of JSON and in the form of a text field."""
        values = {
            "path_prefix": "mlflow/",
            "ca_file": "/etc/ca.pem",
            "client_cert": "/etc/me.pem",
            "verify": False,
            "workspace": "team-a",
            "registry_uri": "https://registry.local/",
            "experiment": "e",
            "request_timeout": 12,
            "max_retries": 3,
            "deadline": 0,
            "fallback_addresses": ["10.0.1.221", "fd00::1"],
            "also_pin": ["S3.local"],
            "max_stale": 60,
            "cache_ttl": 5,
            "nameservers": ["10.0.0.2:8600"],
            "srv": "_mlflow._tcp.mlflow.local",
            "srv_lookup": False,
            "allow_stale_over_http": "never",
        }
        assert values.keys() == EXTRAS.keys()
        server = read(values, schema="https", port=8443)
        as_text = {
            name: ",".join(value) if isinstance(value, list) else str(value)
            for name, value in values.items()
        }
        assert read(as_text, schema="https", port="8443") == server
        assert server.uri == "https://mlflow.local:8443/mlflow"
        assert server.fallback_addresses == ("10.0.1.221", "fd00::1")
        assert server.also_pin == ("s3.local",)
        assert server.verify is False
        assert server.deadline == 0
        assert server.registry_uri == "https://registry.local"
        assert server.allow_stale_over_http is StaleOverHTTP.NEVER

    def test_leaves_fields_that_a_form_did_not_fill(self):
        """A form stores empty texts and nulls for untouched fields."""
        assert read(dict.fromkeys(EXTRAS, "")) == read(dict.fromkeys(EXTRAS)) == read()

    def test_signs_in_with_a_password_or_a_token(self):
        """A login makes it basic; a password without a login is a bearer token."""
        assert read(login="me", password="pass").credentials.kind == "basic"
        assert read(password="token").credentials.kind == "bearer"

    @pytest.mark.parametrize(
        ("host", "given", "uri"),
        [
            ("https://mlflow.local/a/b/", {}, "https://mlflow.local/a/b"),
            ("https://mlflow.local:8443", {"port": 8443}, "https://mlflow.local:8443"),
            ("mlflow.local:5000", {}, "http://mlflow.local:5000"),
            ("MLflow.Local", {"conn_type": "http"}, "http://MLflow.Local"),
            ("mlflow.local", {"conn_type": "https"}, "https://mlflow.local"),
            ("fd00::1", {"port": 5000}, "http://[fd00::1]:5000"),
            ("[fd00::1]", {"schema": "HTTPS"}, "https://[fd00::1]"),
            ("10.0.1.221", {}, "http://10.0.1.221"),
        ],
    )
    def test_takes_a_host_in_every_form_that_people_write(self, host, given, uri):
        """An http connection has the URL in its host; so have many others."""
        assert read(host=host, **given).uri == uri


class TestAWrongConnection:
    """Each wrong field is named, with its value, before anything is done."""

    @pytest.mark.parametrize(
        ("given", "field", "value"),
        [
            ({"port": 99999}, "port", "99999"),
            ({"port": 0}, "port", "0"),
            ({"port": -1}, "port", "-1"),
            ({"port": "five"}, "port", "five"),
            ({"host": "ml flow.local"}, "host", "ml flow.local"),
            ({"host": ""}, "host", "empty"),
            ({"host": None}, "host", "empty"),
            ({"host": "https://"}, "host", "https://"),
            ({"host": "1.2"}, "host", "1.2"),
            ({"host": "0x7f.1"}, "host", "0x7f.1"),
            ({"host": "a" * 64 + ".local"}, "host", "aaaa"),
            ({"host": "mlflow.local/prefix"}, "host", "path_prefix"),
            ({"host": "ftp://mlflow.local"}, "host", "http"),
            ({"host": "https://mlflow.local", "schema": "http"}, "schema", "https"),
            ({"host": "mlflow.local:1", "port": 2}, "port", "2"),
            ({"schema": "ftp"}, "schema", "ftp"),
            ({"login": "me"}, "password", "bearer"),
            ({"conn_type": "postgres"}, "type", "postgres"),
            ({"extra": "{broken"}, "extra", "JSON"),
            ({"extra": "[1]"}, "extra", "object"),
            ({"extra": "[" * 100_000}, "extra", "JSON"),
            ({"extra": {"cache_tll": 5}}, "cache_tll", "cache_ttl"),
            ({"extra": {"fallback_addresses": "mlflow.local"}}, "fallback_addresses", "mlflow"),
            ({"extra": {"fallback_addresses": ["127.1"]}}, "fallback_addresses", "127.1"),
            ({"extra": {"fallback_addresses": 7}}, "fallback_addresses", "7"),
            ({"extra": {"cache_ttl": -1}}, "cache_ttl", "-1"),
            ({"extra": {"cache_ttl": "soon"}}, "cache_ttl", "soon"),
            ({"extra": {"cache_ttl": True}}, "cache_ttl", "True"),
            ({"extra": {"max_stale": 1e9}}, "max_stale", "259200"),
            ({"extra": {"max_retries": 1.5}}, "max_retries", "1.5"),
            ({"extra": {"request_timeout": 0}}, "request_timeout", "0"),
            ({"extra": {"deadline": "NaN"}}, "deadline", "'NaN' is not a number of seconds from 0"),
            ({"extra": {"deadline": "inf"}}, "deadline", "'inf' is not a number of seconds from 0"),
            ({"extra": {"deadline": "-5"}}, "deadline", "from 0 to 9000000000"),
            ({"extra": {"deadline": 10**400}}, "deadline", "from 0 to 9000000000"),
            ({"extra": {"deadline": "1e400"}}, "deadline", "from 0 to 9000000000"),
            ({"extra": {"verify": "perhaps"}}, "verify", "perhaps"),
            ({"extra": {"nameservers": "dns.local"}}, "nameservers", "dns.local"),
            ({"extra": {"also_pin": "https://s3.local"}}, "also_pin", "s3.local"),
            ({"extra": {"also_pin": ["s3.local", 5]}}, "also_pin", "but contains 5"),
            ({"extra": {"srv": "a.b c.d"}}, "srv", "it must be one name, such as _mlflow._tcp"),
            ({"extra": {"srv": ","}}, "srv", "it must be one name, such as _mlflow._tcp"),
            ({"extra": {"allow_stale_over_http": "maybe"}}, "allow_stale_over_http", "checked"),
            ({"extra": {"path_prefix": "/a?b"}}, "path_prefix", "write it as /mlflow"),
            ({"extra": {"registry_uri": "sqlite:///x"}}, "registry_uri", "'sqlite:///...' is not"),
            ({"extra": {"registry_uri": "h.local:5"}}, "registry_uri", "'h.local:5' is not an"),
            ({"extra": {"ca_file": "a\nb"}}, "ca_file", "control"),
            ({"extra": {"path_prefix": "/b"}, "host": "http://h/a"}, "path_prefix", "/a"),
        ],
    )
    def test_is_refused_by_field_and_value(self, given, field, value):
        """The error says which connection, which field, and what was in it."""
        with pytest.raises(SettingError) as caught:
            read(**given)
        assert field in caught.value.field
        assert value in str(caught.value)
        assert "'ml'" in str(caught.value)

    @pytest.mark.parametrize(
        "given",
        [
            {"host": "https://me:hunter2-secret@mlflow.local"},
            {"host": "me:hunter2-secret@mlflow.local"},
            {"extra": {"registry_uri": "https://me:hunter2-secret@registry.local"}},
            {"extra": {"token": "hunter2-secret"}},
            {"extra": '{"token": "hunter2-secret"'},
            {"password": "hunter2-secret", "login": "me", "port": 99999},
            {"host": "https://mlflow.local/x?token=hunter2-secret"},
            {"host": "mlflow.local/x?token=hunter2-secret"},
            {"extra": {"path_prefix": "http://me:hunter2-secret@mlflow.local"}},
            {"extra": {"also_pin": "https://me:hunter2-secret@files.local/x"}},
        ],
    )
    def test_is_refused_without_telling_a_secret(self, given):
        """What may be a password is in no message."""
        with pytest.raises(SettingError) as caught:
            read(**given)
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(caught.value)

    @given(st.dictionaries(st.sampled_from(sorted(EXTRAS)), st.text() | st.integers() | st.none()))
    def test_whatever_is_in_the_extras_gives_a_server_or_a_named_error(self, extra):
        """No value makes anything else come out."""
        with contextlib.suppress(SettingError):
            assert read(extra).hostname == "mlflow.local"


class TestFindingAConnection:
    """Where a connection comes from."""

    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch):
        """As in a process that was given no connection yet."""
        monkeypatch.setattr(connections, "_found", set())

    def test_reads_it_from_airflow(self, connect):
        """A connection of the environment is read like any other."""
        connect("team_ml", host="mlflow.team.local", port=5000)
        assert connections.load_server("team_ml").uri == "http://mlflow.team.local:5000"

    async def test_reads_it_in_a_coroutine(self, connect):
        """A trigger reads the same."""
        connect("team_ml", host="mlflow.team.local")
        assert (await connections.aload_server("team_ml")).uri == "http://mlflow.team.local"

    def test_names_a_missing_one_and_says_what_to_do(self):
        """The message names the id and the two ways to define it."""
        with pytest.raises(ConnectionMissingError, match=r"'nowhere'.*AIRFLOW_CONN_NOWHERE"):
            connections.load_server("nowhere")

    @pytest.mark.parametrize("conn_id", ["bad id!", "team/mlflow", "team-mlflow"])
    def test_names_no_variable_that_a_shell_cannot_set(self, conn_id):
        """It cannot contain these characters; the UI takes the last of these ids only."""
        with pytest.raises(ConnectionMissingError) as caught:
            connections.load_server(conn_id)
        assert "AIRFLOW_CONN" not in str(caught.value)
        can_be_added = "Add it in the Airflow UI" in str(caught.value)
        assert can_be_added is (conn_id == "team-mlflow")

    def test_tells_one_that_airflow_cannot_read_from_one_that_is_missing(self, monkeypatch):
        """Airflow passes over a connection with an impossible port and calls it undefined."""
        monkeypatch.setenv("AIRFLOW_CONN_BAD", "mlflow://mlflow.local:99999")
        with pytest.raises(ConnectionMissingError, match="AIRFLOW_CONN_BAD is set"):
            connections.load_server("bad")

    def test_takes_the_tracking_uri_where_the_default_is_missing(self, monkeypatch):
        """With MLFLOW_TRACKING_URI nothing has to be configured, and its credentials hold."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.local:8443/pre/")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
        server = connections.load_server()
        assert server.uri == "https://mlflow.local:8443/pre"
        assert server.credentials.kind == "bearer"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:p%40ss@mlflow.local")
        server = connections.load_server()
        assert (server.uri, server.credentials.secret) == ("https://mlflow.local", "p@ss")

    def test_takes_a_port_as_people_write_it(self, monkeypatch):
        """A zero in front is part of the number, and not a path."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.local:05000/pre")
        assert connections.load_server().uri == "http://mlflow.local:5000/pre"

    @pytest.mark.parametrize(
        ("variable", "values"),
        [
            ("MLFLOW_TRACKING_TOKEN", {"MLFLOW_TRACKING_TOKEN": "tok en"}),
            ("MLFLOW_TRACKING_URI", {"MLFLOW_TRACKING_URI": "http://a%3Ab:pw@mlflow.local"}),
            (
                "MLFLOW_TRACKING_USERNAME",
                {"MLFLOW_TRACKING_USERNAME": "a:b", "MLFLOW_TRACKING_PASSWORD": "pw"},
            ),
        ],
    )
    def test_refuses_credentials_that_can_never_be_right(self, monkeypatch, variable, values):
        """The variable is named; a retry would not help."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.local")
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SettingError, match=variable) as caught:
            connections.load_server()
        assert not any(value in str(caught.value) for value in values.values())

    @pytest.mark.parametrize("username", [None, "env-me"])
    @pytest.mark.parametrize("password", [None, "env-secret"])
    @pytest.mark.parametrize("token", [None, "t0ken"])
    @pytest.mark.parametrize("saved", ["", "username", "password", "username password"])
    def test_takes_the_credentials_of_the_environment_as_mlflow_s_client_does(
        self, monkeypatch, tmp_path, username, password, token, saved
    ):
        """From the variables, and from MLflow's file; what a plain client sends is asked of one."""
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        lines = [f"mlflow_tracking_{part} = file-{part}%%" for part in saved.split()]
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_text("\n".join(["[mlflow]", *lines]))
        monkeypatch.setenv("HOME", str(tmp_path))
        for name, value in {"USERNAME": username, "PASSWORD": password, "TOKEN": token}.items():
            if value:
                monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
        with Stranger(lambda _: http()) as server:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
            http_request(get_default_host_creds(server.uri), "/", "GET")
        sent = server.requests[0].headers.get("authorization")
        assert connections.load_server().credentials.authorization() == sent

    @pytest.mark.parametrize("wrong", [b"mlflow_tracking_password = se%cret", b"\xff", b"[", b"x"])
    def test_refuses_a_file_of_credentials_that_is_none(self, monkeypatch, tmp_path, wrong):
        """Without what it says."""
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_bytes(b"[mlflow]\n" + wrong)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.local")
        with pytest.raises(SettingError, match="mlflow/credentials: it is not") as caught:
            connections.load_server()
        assert "cret" not in str(caught.value)

    def test_needs_no_home_directory(self, monkeypatch):
        """A container may run under a user that has none."""
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.local")
        assert connections.load_server().credentials.kind == "none"

    @pytest.mark.parametrize(
        ("login", "password", "field"),
        [("me:you", "secret", "login"), (None, "to\nken", "password")],
    )
    def test_a_login_that_can_never_be_right_is_named(self, connect, login, password, field):
        """With its connection and field, and without its value."""
        connect("wrong", host="mlflow.local", login=login, password=password)
        with pytest.raises(SettingError, match=rf"'wrong'.*{field}") as caught:
            connections.load_server("wrong")
        assert password not in str(caught.value)

    def test_the_machine_s_ca_file_holds_for_https_without_one(self, connect, monkeypatch):
        """As for MLflow's client, so that gate, run and REST calls see one server."""
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/etc/company.pem")
        connect("tls", host="https://mlflow.local")
        assert connections.load_server("tls").ca_file == "/etc/company.pem"
        connect("own", host="https://mlflow.local", extra={"ca_file": "/own.pem"})
        assert connections.load_server("own").ca_file == "/own.pem"
        connect("plain", host="http://mlflow.local")
        assert connections.load_server("plain").ca_file is None

    def test_stays_with_a_connection_that_airflow_cannot_reach_for_a_while(
        self, connect, monkeypatch
    ):
        """What was begun on its server must not go on at another."""
        connect("mlflow_default", host="mlflow.team.local")
        connections.load_server()
        monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://elsewhere.local")
        with pytest.raises(ConnectionMissingError):
            connections.load_server()

    def test_takes_the_tracking_uri_for_no_other_connection(self, monkeypatch):
        """A misspelt connection id must not lead somewhere else."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.local")
        with pytest.raises(ConnectionMissingError):
            connections.load_server("mlflow_defualt")

    @pytest.mark.parametrize(
        ("uri", "told"),
        [
            ("localhost:5111", "'localhost:5111' is not an http or https URL; give one such as"),
            ("databricks", "'databricks' is not an http or https URL; give one such as"),
            ("./mlruns", "is not an http or https URL"),
            ("sqlite:///x.db", "is not an http or https URL"),
            ("https://", "has no host"),
            ("http://a b", "'http://a b' is neither a host nor a URL: it contains a space"),
            ("h:x@y", "is not an http or https URL"),
            ("http://h?x", "it contains a query"),
        ],
    )
    def test_refuses_a_tracking_uri_that_is_no_server(self, monkeypatch, uri, told):
        """The variable is named, and what is wrong with its value."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(SettingError, match="MLFLOW_TRACKING_URI") as caught:
            connections.load_server()
        assert told in str(caught.value)

    def test_refuses_a_tracking_uri_without_telling_what_is_in_its_query(self, monkeypatch):
        """Tokens are handed around in that form."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://h/p?token=hunter2-secret")
        with pytest.raises(SettingError, match="MLFLOW_TRACKING_URI") as caught:
            connections.load_server()
        assert "hunter2" not in str(caught.value)


class TestThePolicy:
    """Environment before section before default."""

    def test_names_the_setting_in_an_error_of_its_parts_too(self, monkeypatch):
        """And not \"options\": the words of an error may go on behind a colon."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__SEARCH", "bad..domain")
        with pytest.raises(SettingError) as caught:
            settings.resolver_config()
        assert caught.value.field == "search"

    @pytest.mark.parametrize("given", ["[fd00::1]:53", "[::1]", "[fd00::1]:53, 10.0.0.2"])
    def test_takes_a_nameserver_in_brackets_first(self, monkeypatch, given):
        """It is no JSON list."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", given)
        assert settings.resolver_config().nameservers[0].startswith("[")

    def test_has_the_defaults_of_the_design(self):
        """Without any setting the policy is as it is written down."""
        assert settings.resolver_config() == ResolverConfig()

    def test_takes_the_environment_before_the_section(self, monkeypatch):
        """DNS_CACHE_TTL is stronger than [hokusai_dns] cache_ttl, which is stronger than 300."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CACHE_TTL", "60")
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__MAX_HOSTS", "7")
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", "10.0.0.2, 10.0.0.3:8600")
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__SEARCH", "a.local b.local")
        config = settings.resolver_config()
        assert (config.cache_ttl, config.max_hosts) == (60, 7)
        assert config.nameservers == ("10.0.0.2", "10.0.0.3:8600")
        assert config.search == ("a.local", "b.local")
        monkeypatch.setenv("DNS_CACHE_TTL", "0")
        monkeypatch.setenv("DNS_TIMEOUT", "2.5")
        config = settings.resolver_config()
        assert (config.cache_ttl, config.timeout) == (0, 2.5)

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("DNS_CACHE_TTL", "-5"),
            ("DNS_CACHE_TTL", "five"),
            ("DNS_TIMEOUT", "inf"),
            ("DNS_TIMEOUT", "0"),  # no name would resolve
            ("MLFLOW_FALLBACK_IP", "mlflow.local"),
            ("MLFLOW_FALLBACK_IP", "10.0.1.300"),
            ("AIRFLOW__HOKUSAI_DNS__JITTER", "1.5"),
            ("AIRFLOW__HOKUSAI_DNS__MAX_HOSTS", "0"),
            ("AIRFLOW__HOKUSAI_DNS__MAX_STALE", "9999999"),
            ("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", "dns.local"),
            ("AIRFLOW__HOKUSAI_DNS__SEARCH", "a..b"),
        ],
    )
    def test_names_a_wrong_setting(self, monkeypatch, variable, value):
        """Variable or option, and the value, are in the message."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.local")
        monkeypatch.setenv(variable, value)
        with pytest.raises(SettingError) as caught:
            settings.resolver_config()
        option = variable.rpartition("__")[2]
        assert option.lower() in str(caught.value).lower()
        assert value.rstrip("0") in str(caught.value)

    def test_binds_the_fallback_to_the_name_in_the_tracking_uri(self, monkeypatch):
        """MLFLOW_FALLBACK_IP is an address of that one name, and of no other."""
        monkeypatch.setenv("MLFLOW_FALLBACK_IP", "10.0.1.221")
        assert settings.resolver_config().static_addresses == {}
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.local:5000")
        assert settings.resolver_config().static_addresses == {"mlflow.local": ("10.0.1.221",)}

    def test_lists_the_connections_to_look_after(self, monkeypatch):
        """One list for page, refresh DAG and command line."""
        assert settings.listed_connections() == ("mlflow_default",)
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "a, b")
        assert settings.listed_connections() == ("a", "b")


class TestTheProviderInfo:
    """What the UI and ``airflow config`` show is what is read."""

    def test_describes_every_option_with_its_default(self):
        """No option is read that is not described, nor the other way round."""
        options = get_provider_info()["config"]["hokusai_dns"]["options"]
        assert options.keys() == settings.policy_options().keys() | {
            "connections",
            "hostnames",
            "relay_keep",
            "look_every",
            "metrics_for_anyone",
        }
        default = ResolverConfig()
        for item in fields(ResolverConfig):
            if item.type in ("float", "int"):
                assert float(options[item.name]["default"]) == getattr(default, item.name)
        assert all(option["description"] for option in options.values())

    def test_has_a_form_field_for_every_extra(self):
        """No extra is read that the form does not have, nor the other way round."""
        (form,) = get_provider_info()["connection-types"]
        assert form["conn-fields"].keys() == EXTRAS.keys()
        assert form["connection-type"] == "mlflow"
        assert all(one["label"] and one["description"] for one in form["conn-fields"].values())

    def test_is_what_airflow_wants(self):
        """It is valid by the two schemas that Airflow has for it."""
        import importlib.resources

        import jsonschema

        info = get_provider_info()
        files = importlib.resources.files("airflow")
        schema = json.loads((files / "provider_info.schema.json").read_text())
        jsonschema.validate(info, schema)
        yaml_schema = json.loads((files / "provider.yaml.schema.json").read_text())
        jsonschema.validate(info["connection-types"], yaml_schema["properties"]["connection-types"])


def test_a_run_of_another_connection_is_not_read_back_as_a_setting(monkeypatch):
    """Inside it, ``MLFLOW_TRACKING_URI`` is that run's, and leads to its server."""
    from airflow_provider_hokusai_dns.client import fluent_state

    monkeypatch.setattr(connections, "_found", set())  # as a process that never had the connection
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine.local:5000")
    with fluent_state.fluent_uri("team_b", "http://team_b@theirs.local:5000"):
        assert connections.load_server().hostname == "mine.local"
    assert connections.load_server().hostname == "mine.local"


@pytest.mark.parametrize("field", ["max_stale", "cache_ttl"])
def test_a_field_left_empty_is_described_by_the_setting_that_applies_then(field):
    """Its default in the code does not: the section, the environment or the Variable may set it."""
    (kind,) = get_provider_info()["connection-types"]
    told = kind["conn-fields"][field]["description"]
    assert f"{field} of the policy" in told
    assert f"{getattr(ResolverConfig(), field):.0f}" not in told
