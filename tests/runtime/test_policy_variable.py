"""The Variable that changes the policy of a running fleet."""

from __future__ import annotations

import contextlib
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config import settings
from airflow_provider_hokusai_dns.config.server import MLflowServer, Proxy
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError, SettingError
from airflow_provider_hokusai_dns.resolver import LastKnownGood, ResolverConfig
from airflow_provider_hokusai_dns.runtime import policy_variable
from airflow_provider_hokusai_dns.runtime.policy import Policy
from airflow_provider_hokusai_dns.runtime.policy_variable import KEY, parse_policy
from airflow_provider_hokusai_dns.store.record import render_record, variable_key
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.conftest import Texts

NAME = "mlflow.policy-test.local"
SECRET = "hunter2-token"

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
_numbers = sorted(settings.policy_numbers())


class Counted(Texts):
    """Counts the reads of each key; one that is in ``away`` cannot be read."""

    def __init__(self):
        super().__init__()
        self.reads = []
        self.away = False

    def get(self, key):
        self.reads.append(key)
        if self.away:
            raise OSError("the API server is away")
        return super().get(key)


@pytest.fixture
def texts(clean_runtime, monkeypatch, dns):
    """Variables in memory; the Variable of the policy may be read each time."""
    monkeypatch.setattr(policy_variable, "_EVERY", 0.0)
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    monkeypatch.setenv("DNS_TIMEOUT", "1")
    kept = Counted()
    clean_runtime.use_store(VariableStore(variables=kept))
    return kept


def put(texts, **numbers):
    texts.texts[KEY] = json.dumps(numbers)
    runtime.follow_policy()


def accepted_of(text):
    """The numbers; none where the text is refused, which names the Variable."""
    with contextlib.suppress(SettingError):
        return parse_policy(text)
    with pytest.raises(SettingError, match=f"Variable '{KEY}'"):
        parse_policy(text)
    return {}


class TestTheText:
    """It is accepted whole or refused whole."""

    @given(st.dictionaries(st.sampled_from(_numbers) | st.text(max_size=20), _json) | _json)
    def test_of_any_json_is_refused_by_name_or_makes_a_policy(self, values):
        """Nothing else is raised, and what is accepted is a number of the policy."""
        accepted = accepted_of(json.dumps(values))
        assert accepted.keys() <= set(_numbers)
        assert all(isinstance(value, int | float) for value in accepted.values())

    @given(st.text())
    def test_of_any_kind_is_refused_or_accepted(self, text):
        """Whatever an admin types by mistake."""
        accepted_of(text)

    @given(
        st.dictionaries(st.sampled_from(_numbers), st.integers(0, 10**6), max_size=6).filter(
            lambda numbers: numbers.get("timeout") != 0  # which is refused
        )
    )
    def test_of_numbers_comes_back_as_it_was_written(self, numbers):
        """Rendering and parsing are inverse; the version is optional."""
        assert parse_policy(json.dumps(numbers)) == numbers
        assert parse_policy(json.dumps({"version": 1, **numbers})) == numbers

    @pytest.mark.parametrize(
        "key",
        ["nameservers", "search", "connections", "hostnames", "metrics_for_anyone", "relay_keep"],
    )
    def test_sets_no_server_to_ask_and_opens_nothing(self, key):
        """A user who may edit Variables decides how long, never where to."""
        with pytest.raises(SettingError, match="cannot be set here"):
            parse_policy(json.dumps({key: "10.6.6.6"}))

    @pytest.mark.parametrize(
        "text",
        [
            f'{{"max_stale": "{SECRET}"}}',
            f'{{"password": "{SECRET}"}}',
            SECRET,
            f'["{SECRET}"]',
            f'{{"version": "{SECRET}"}}',
        ],
    )
    def test_never_shows_a_secret_in_what_it_says(self, text):
        """What was put into the wrong field must not get into a log."""
        with pytest.raises(SettingError) as refused:
            parse_policy(text)
        assert SECRET not in str(refused.value)

    def test_with_a_typo_suggests_the_key(self):
        """As an extra of a connection does."""
        with pytest.raises(SettingError, match="Did you mean 'max_stale_no_name'"):
            parse_policy('{"max_stale_noname": 3600}')


class TestTheProcess:
    """It follows the Variable without a restart."""

    def test_takes_the_variable_before_environment_and_section(self, texts, monkeypatch):
        """It is the newest decision, and holds for the whole fleet."""
        monkeypatch.setenv("DNS_CACHE_TTL", "60")
        resolver = runtime.resolver()
        assert resolver.config.cache_ttl == 60
        put(texts, cache_ttl=30, max_stale_no_name=3600)
        assert (resolver.config.cache_ttl, resolver.config.max_stale_no_name) == (30, 3600)
        assert resolver.config.timeout == 1

    def test_leaves_what_a_connection_says(self, texts):
        """A field of a connection is closer to its name."""
        server = MLflowServer(conn_id="a", scheme="http", hostname=NAME, cache_ttl=7)
        put(texts, cache_ttl=30)
        assert runtime.resolver_for_server(server).config.ttl_override_for(NAME) == 7

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            '{"cache_ttl": 10, "max_stale": -1}',
            '{"cache_ttl": 10, "max_stale": 999999}',
            '{"cache_ttl": 10, "jitter": 2}',
            '{"cache_ttl": 10, "min_ttl": 9000}',
            '{"cache_ttl": 10, "max_hosts": 0}',
            '{"cache_ttl": 10, "nameservers": "10.0.0.2"}',
            '{"cache_ttl": 10, "version": 2}',
            "gAAAAABencrypted",
        ],
    )
    def test_refuses_a_broken_text_whole_and_keeps_the_last_good_one(self, texts, caplog, text):
        """One line says why, however often it is read."""
        put(texts, max_stale_no_name=3600)
        caplog.clear()
        texts.texts[KEY] = text
        for _ in range(3):
            runtime.follow_policy()
        config = runtime.resolver().config
        assert (config.max_stale_no_name, config.cache_ttl) == (3600, 300)
        (line,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
        assert KEY in line.getMessage()
        shown = runtime.policy_status()
        assert shown["values"] == {"max_stale_no_name": 3600}
        assert KEY in shown["problem"]
        put(texts, max_stale_no_name=60)
        assert runtime.policy_status()["problem"] is None
        assert runtime.resolver().config.max_stale_no_name == 60

    def test_refuses_numbers_that_do_not_fit_the_settings_beside_them(self, texts, monkeypatch):
        """Also where the number that is named in the error is one of the settings."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__MIN_TTL", "20")
        put(texts, cache_ttl=10)
        assert runtime.resolver().config.cache_ttl == 300
        assert "min_ttl" in runtime.policy_status()["problem"]

    def test_does_not_say_that_numbers_are_in_force_beside_broken_settings(
        self, texts, monkeypatch, caplog
    ):
        """The previous policy stays as a whole; the new numbers come with the repaired settings."""
        put(texts, max_stale=60)
        monkeypatch.setenv("DNS_CACHE_TTL", "nonsense")
        caplog.clear()
        with caplog.at_level(logging.INFO):
            put(texts, max_stale=120)
        assert runtime.resolver().config.max_stale == 60
        assert runtime.policy_status()["values"] == {"max_stale": 60}
        assert "nonsense" in runtime.policy_status()["problem"]
        assert "The policy changed" not in caplog.text
        monkeypatch.setenv("DNS_CACHE_TTL", "7")
        assert runtime.resolver().config.max_stale == 120
        assert runtime.policy_status()["values"] == {"max_stale": 120}
        assert runtime.policy_status()["problem"] is None

    def test_keeps_the_last_good_one_while_airflow_gives_no_answer(self, texts, monkeypatch):
        """An error says nothing; one "missing" may be an error too, the second is believed."""
        put(texts, max_stale_no_name=3600)
        texts.away = True
        for _ in range(3):
            runtime.follow_policy()
        assert runtime.resolver().config.max_stale_no_name == 3600
        texts.away = False
        del texts.texts[KEY]
        runtime.follow_policy()
        assert runtime.resolver().config.max_stale_no_name == 3600
        runtime.follow_policy()
        assert runtime.resolver().config.max_stale_no_name == 900

    def test_reads_it_rarely_and_never_for_an_answer_in_memory(self, texts, monkeypatch, dns):
        """A thousand hits read nothing; a thousand askers read once."""
        monkeypatch.setattr(policy_variable, "_EVERY", 15.0)
        dns.set_records(NAME, ["10.0.1.1"])
        resolver = runtime.resolver()
        resolver.resolve(NAME)
        assert resolver.wait_idle()
        assert texts.reads.count(KEY) == 1
        texts.reads.clear()
        for _ in range(1000):
            resolver.resolve(NAME)
            runtime.follow_policy()
        assert texts.reads == []

    def test_reads_it_after_the_first_address_while_dns_works(self, texts, dns):
        """No task waits for a Variable before it has its address."""
        dns.set_records(NAME, ["10.0.1.1"])
        known = []

        def read(key):
            known.append(str(runtime.resolver().state(NAME)))
            return None

        texts.get = read
        runtime.resolver().resolve(NAME)
        assert runtime.resolver().wait_idle()
        assert set(known) == {"healthy"}

    def test_judges_the_stored_address_by_the_newest_policy(self, texts, dns):
        """A new worker in an outage: the address is 1200 s without a name, and 3600 are allowed."""
        import time

        now = time.time()
        record = LastKnownGood(NAME, ("10.0.1.1",), now - 1300, no_name_since=now - 1200)
        texts.texts[variable_key(NAME)] = render_record(record)
        with pytest.raises(DNSResolutionError):
            runtime.resolver().resolve(NAME)
        runtime.forget()
        runtime.use_store(VariableStore(variables=texts))
        texts.texts[KEY] = json.dumps({"max_stale_no_name": 3600})
        assert runtime.resolver().resolve(NAME).addresses == ("10.0.1.1",)

    def test_starts_with_the_settings_where_the_first_text_is_broken(self, texts):
        """There is no last good one but those."""
        put(texts, max_stale=-1)
        assert runtime.resolver().config == settings.resolver_config()


def test_the_variable_has_a_key_that_no_hostname_has():
    """Those of hostnames end with a hash."""
    assert variable_key("policy") != KEY
    assert Policy().status() == {"variable": KEY, "values": {}, "problem": None}
    assert ResolverConfig().max_stale_no_name == 900


class TestWarming:
    """Names are in memory before they are needed."""

    def test_looks_up_connections_their_further_hosts_and_hostnames(self, texts, dns):
        """In the background, each once."""
        hosts = ("files.policy-test.local", NAME, "extra.policy-test.local")
        for host in hosts:
            dns.set_records(host, ["10.0.1.1"])
        server = MLflowServer(conn_id="a", scheme="http", hostname=NAME, also_pin=hosts[:1])
        runtime.warm([server], hosts[2:])
        resolver = runtime.resolver_for_server(server)
        assert resolver.wait_idle()
        assert [str(resolver.state(host)) for host in hosts] == ["healthy"] * 3

    def test_looks_up_the_proxy_of_a_connection_and_not_what_it_resolves(self, texts, dns):
        """Only the proxy knows the name behind it."""
        dns.set_records(NAME, ["10.0.1.1"])
        server = MLflowServer(
            conn_id="a", scheme="http", hostname="behind.policy-test.local", proxy=Proxy(NAME, 3128)
        )
        runtime.warm([server])
        resolver = runtime.resolver_for_server(server)
        assert resolver.wait_idle()
        assert [str(resolver.state(host)) for host in (NAME, server.hostname)] == [
            "healthy", "unknown",
        ]  # fmt: skip
