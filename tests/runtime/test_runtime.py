"""One resolver per process, fed by settings and connections."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from dataclasses import replace

import pytest

from airflow_provider_hokusai_dns import observers, pins, runtime
from airflow_provider_hokusai_dns.config.connections import load_server
from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer, View
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError, SettingError
from airflow_provider_hokusai_dns.resolver import (
    Cause,
    DNSResolver,
    LastKnownGood,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.model import Answer, Endpoint
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup
from airflow_provider_hokusai_dns.store.record import render_record, variable_key
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.conftest import HOSTNAME, Texts

pytestmark = pytest.mark.usefixtures("clean_runtime")


def server(conn_id="a", hostname="mlflow.local", **given):
    return MLflowServer(conn_id=conn_id, scheme="http", hostname=hostname, **given)


class TestTheResolver:
    """One for all connections that say the same about their names."""

    def test_is_shared_by_connections_that_say_nothing(self):
        """Two hooks of one task share cache and counters, also with two logins."""
        one = runtime.resolver_for_server(server())
        assert runtime.resolver_for_server(server("b", "other.local")) is one
        assert runtime.resolver_for_server(server("c", credentials=Credentials("me", "pw"))) is one
        assert runtime.resolver() is one

    @pytest.mark.parametrize(
        "said",
        [
            {"cache_ttl": 7},
            {"max_stale": 60},
            {"nameservers": ("10.0.0.2",)},
            {"fallback_addresses": ("10.0.1.221",)},
        ],
        ids=str,
    )
    def test_is_shared_by_connections_that_say_the_same_and_by_no_other(self, said):
        """Who may edit one connection decides nothing about another."""
        one = runtime.resolver_for_server(server("a", **said))
        assert runtime.resolver_for_server(server("b", "MLFLOW.local", **said)) is one
        assert runtime.resolver_for_server(server("c")) is not one
        assert runtime.resolver() is not one

    def test_takes_what_a_connection_says(self):
        """The fields of a connection speak of its hostname; nothing of it reaches others."""
        said = server(
            cache_ttl=7,
            max_stale=60,
            nameservers=("10.0.0.2",),
            fallback_addresses=("10.0.1.221",),
        )
        config = runtime.resolver_for_server(said).config
        assert config.ttl_override_for("mlflow.local") == 7
        assert config.max_stale_for("mlflow.local") == 60
        assert config.nameservers_for("mlflow.local") == ("10.0.0.2",)
        assert config.static_addresses_for("mlflow.local") == ("10.0.1.221",)
        assert runtime.resolver().config == ResolverConfig()

    def test_follows_a_connection_that_was_changed(self):
        """Without a restart: the newest that a connection says holds."""
        for ttl in (7, 9, None):
            config = runtime.resolver_for_server(server(cache_ttl=ttl)).config
            assert config.ttl_override_for("mlflow.local") == ttl

    def test_two_that_differ_are_refused_by_no_gate(self):
        """Neither while both are there, nor after one of them is gone."""
        for ttl in (5, 6, 5):
            resolver = runtime.resolver_for_server(server(f"with_{ttl}", cache_ttl=ttl))
            assert resolver.config.ttl_override_for("mlflow.local") == ttl

    def test_is_one_of_a_bounded_number(self):
        """A process that sees many connections edited does not grow for ever."""
        for number in range(300):
            runtime.resolver_for_server(server(cache_ttl=number))
        assert len(runtime._process.resolvers) <= 256

    def test_exceeds_that_number_where_all_are_pinned(self):
        """A pinned view is never dropped: its pin uses that resolver."""
        servers = [server(cache_ttl=number) for number in range(258)]
        runtime.keep_resolvers_for_views(each.view for each in servers)
        found = [runtime.resolver_for_server(each) for each in servers]
        assert runtime.resolver_for_server(servers[0]) is found[0]

    def test_follows_a_setting_that_was_changed(self, monkeypatch):
        """Without a restart, and the same resolver."""
        before = runtime.resolver()
        monkeypatch.setenv("DNS_TIMEOUT", "3")
        assert runtime.resolver() is before
        assert before.config.timeout == 3

    def test_refuses_a_broken_change_and_keeps_the_old_one(self, monkeypatch, caplog):
        """The reason is told once; work goes on."""
        monkeypatch.setenv("DNS_TIMEOUT", "3")
        runtime.resolver()
        monkeypatch.setenv("DNS_TIMEOUT", "three")
        for _ in range(3):
            assert runtime.resolver().config.timeout == 3
        assert len(caplog.messages) == 1
        assert "'three'" in caplog.text

    def test_does_not_begin_with_a_broken_setting(self, monkeypatch):
        """There is no old one to keep."""
        monkeypatch.setenv("DNS_TIMEOUT", "three")
        with pytest.raises(SettingError, match="DNS_TIMEOUT"):
            runtime.resolver()

    def test_takes_a_connection_to_an_address(self):
        """There is nothing to resolve, and nothing to say about a name."""
        resolver = runtime.resolver_for_server(
            server(hostname="10.0.1.221", fallback_addresses=("1.1.1.1",))
        )
        assert resolver.resolve("10.0.1.221").source is Source.LITERAL

    def test_works_after_a_fork(self):
        """A child process resolves with what its parent had, also when a lock was held."""
        resolver = runtime.resolver_for_server(server(hostname="10.0.1.221"))
        with runtime._process.lock:
            child = os.fork()
            if child == 0:
                ok = runtime.resolver().resolve("localhost").address and runtime.resolver()
                os._exit(0 if ok is resolver else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_is_the_one_of_the_parent_whenever_a_child_is_forked(self):
        """Another thread may be anywhere: what it has pinned belongs to that resolver."""
        one, other = server(hostname="10.0.1.221"), server("b", "other.local", max_stale=5)
        known = runtime.resolver_for_server(one)
        runtime.resolver_for_server(other)
        inside, codes = runtime.resolver_for_view.__code__, []

        def fork_at_each_line(frame, event, _):
            if frame.f_code is not inside:
                return None
            if event == "line":
                child = os.fork()
                if child == 0:
                    sys.settrace(None)
                    os._exit(runtime.resolver_for_server(one) is not known)
                codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            return fork_at_each_line

        before = sys.gettrace()
        sys.settrace(fork_at_each_line)
        try:
            assert runtime.resolver_for_server(one) is known
        finally:
            sys.settrace(before)
        assert codes
        assert not any(codes)


class TestTheFallbackOfTheEnvironment:
    """MLFLOW_FALLBACK_IP belongs to one hostname."""

    @pytest.fixture(autouse=True)
    def fallback(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_FALLBACK_IP", "10.0.1.221")

    def test_is_that_of_the_connection_in_use(self, monkeypatch):
        """Before the one in MLFLOW_TRACKING_URI."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere.local")
        runtime.resolver_for_server(server())
        assert runtime.resolver().config.static_addresses == {"mlflow.local": ("10.0.1.221",)}

    def test_is_never_that_of_a_second_hostname(self, caplog):
        """It would lead one server's traffic to another; the log says what to do instead."""
        runtime.resolver_for_server(server())
        runtime.resolver_for_server(server("b", "other.local"))
        assert runtime.resolver().config.static_addresses == {"mlflow.local": ("10.0.1.221",)}
        assert "fallback_addresses on the connection 'b'" in caplog.text

    def test_is_refused_to_each_further_hostname_with_one_log_line(self, caplog):
        """Also where a process uses several in turn: it would be a line for every call."""
        runtime.resolver_for_server(server())
        for _ in range(3):
            runtime.resolver_for_server(server("b", "other.local"))
            runtime.resolver_for_server(server("c", "third.local"))
        assert [record.args[1] for record in caplog.records] == ["other.local", "third.local"]

    def test_is_taken_from_a_connection_that_the_deployment_does_not_list(self):
        """Who adds a connection cannot take the emergency address of the deployment's own."""
        runtime.resolver_for_server(server("added", "other.local"))
        runtime.resolver_for_server(server("mlflow_default"))
        runtime.resolver_for_server(server("added", "other.local"))
        assert runtime.resolver().config.static_addresses == {"mlflow.local": ("10.0.1.221",)}

    def test_goes_along_when_its_connection_is_led_elsewhere(self):
        """No connection uses the old name any more."""
        runtime.resolver_for_server(server())
        runtime.resolver_for_server(server("a", "new.local"))
        assert runtime.resolver().config.static_addresses == {"new.local": ("10.0.1.221",)}

    def test_is_refused_when_it_is_broken_and_the_old_one_stays(self, monkeypatch, caplog):
        """As every other setting."""
        before = runtime.resolver_for_server(server())
        monkeypatch.setenv("MLFLOW_FALLBACK_IP", "nonsense")
        assert runtime.resolver_for_server(server()) is before
        assert before.config.static_addresses == {"mlflow.local": ("10.0.1.221",)}
        assert caplog.text.count("The changed settings are invalid") == 1
        monkeypatch.setenv("MLFLOW_FALLBACK_IP", "10.0.1.221")
        runtime.resolver_for_server(server())
        monkeypatch.setenv("MLFLOW_FALLBACK_IP", "nonsense")
        runtime.resolver_for_server(server())
        assert caplog.text.count("The changed settings are invalid") == 2

    def test_gives_way_to_the_connection(self):
        """The connection is the stronger one."""
        config = runtime.resolver_for_server(server(fallback_addresses=("10.9.9.9",))).config
        assert config.static_addresses_for("mlflow.local") == ("10.9.9.9",)

    def test_is_served_on_a_worker_that_never_resolved_the_name(self, dns, monkeypatch):
        """For every cause; and no other name gets it."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
        dns.no_such_name("mlflow.local")
        found = runtime.resolver_for_server(server()).resolve("http://mlflow.local:5000")
        assert (str(found), found.source) == ("http://10.0.1.221:5000", Source.STATIC)
        with pytest.raises(DNSResolutionError):
            runtime.resolver().resolve("typing-error.local")
        runtime.wait_idle(10)  # or it is logged in the next test


class TestTheLog:
    """One line per change of state, which says what to do."""

    @pytest.fixture
    def resolver(self, dns, monkeypatch):
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
        monkeypatch.setenv("DNS_CACHE_TTL", "0")
        dns.set_records("mlflow.local", ["10.0.0.1"], ttl=0)
        resolver = runtime.resolver_for_server(server())
        resolver.resolve("mlflow.local")
        assert resolver.wait_idle()  # the store has been told
        return resolver

    def lines(self, caplog):
        runtime.wait_idle(10)  # a change of state is logged after the caller has its answer
        return [
            record.getMessage() for record in caplog.records if record.name == observers.log.name
        ]

    def test_tells_what_failed_what_is_used_and_how_old_it_is_once(self, resolver, dns, caplog):
        """A hundred calls on an old address are one line, and so is the end of it."""
        dns.no_such_name("mlflow.local")
        for _ in range(100):
            resolver.refresh("mlflow.local")
        (line,) = self.lines(caplog)
        assert "'mlflow.local' (nxdomain): using 10.0.0.1 from memory" in line
        assert "900 s after the name went away" in line
        dns.set_records("mlflow.local", ["10.0.0.2"], ttl=0)
        with caplog.at_level(logging.INFO):
            resolver.refresh("mlflow.local")
            resolver.refresh("mlflow.local")
        assert len(self.lines(caplog)) == 2
        assert "again" in self.lines(caplog)[1]

    def test_tells_the_limit_in_force_and_not_that_of_the_latest_failure(
        self, resolver, dns, caplog
    ):
        """Once DNS said that the name is gone, a later SERVFAIL extends nothing (rule 7)."""
        dns.no_such_name("mlflow.local")
        resolver.refresh("mlflow.local")
        dns.servfail("mlflow.local")
        resolver.refresh("mlflow.local")
        line = self.lines(caplog)[-1]
        assert "'mlflow.local' (servfail): using 10.0.0.1 from memory" in line
        assert "900 s after the name went away" in line

    def test_tells_of_an_outage_that_ends_within_the_lifetime_and_of_the_next_one(
        self, dns, monkeypatch, caplog
    ):
        """A refresh fails while the answer is fresh: the state of the name does not change."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
        resolver = runtime.resolver_for_server(server())
        with caplog.at_level(logging.INFO):
            for _ in range(2):
                dns.set_records("mlflow.local", ["10.0.0.1"], ttl=300)
                resolver.refresh("mlflow.local")
                dns.servfail("mlflow.local")
                resolver.refresh("mlflow.local")
        words = [line.split(" for ")[0] for line in self.lines(caplog)]
        assert words == ["DNS returns no address", "DNS answers", "DNS returns no address"]

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            (Source.HOSTS, "The hosts file answers for"),
            (Source.SYSTEM, "The system's own lookup answers for"),
            (Source.DNS, "DNS answers for"),
        ],
    )
    def test_tells_who_answers_again(self, source, words, caplog):
        """An entry of the hosts file ends an outage too, and DNS may still be down."""
        lookup = ScriptedLookup()
        answer = Answer((Endpoint("10.0.0.1"),), source)
        lookup.script("mlflow.local", "10.0.0.1", Cause.SERVFAIL, answer)
        resolver = DNSResolver(lookup=lookup)
        resolver.add_observer(observers.LogObserver(resolver))
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                resolver.refresh("mlflow.local")
        assert self.lines(caplog)[1] == f"{words} 'mlflow.local': the name is healthy again"

    def test_tells_a_limit_that_changes_while_the_cause_stays(self, resolver, dns, caplog):
        """Here by the policy; another process that finds the name gone is another way."""
        dns.servfail("mlflow.local")
        resolver.refresh("mlflow.local")
        resolver.reconfigure(replace(resolver.config, max_stale=3600.0))
        resolver.refresh("mlflow.local")
        resolver.refresh("mlflow.local")
        first, second = self.lines(caplog)
        assert "up to 86400 s of age" in first
        assert "up to 3600 s of age" in second

    @pytest.mark.parametrize(("cause", "own"), [("servfail", 0), ("no_such_name", None)])
    def test_tells_the_lifetime_where_it_ends_after_the_limit(
        self, dns, monkeypatch, caplog, cause, own
    ):
        """A failed refresh ends no lifetime: other callers get the answer as fresh until then."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__JITTER", "0")
        dns.set_records("mlflow.local", ["10.0.0.1"], ttl=300)
        resolver = runtime.resolver_for_server(server(cache_ttl=7200, max_stale=own))
        resolver.refresh("mlflow.local")
        getattr(dns, cause)("mlflow.local")
        found = resolver.refresh("mlflow.local")
        assert found.stale_until == found.expires_at
        (line,) = self.lines(caplog)
        assert "up to 7200 s of age" in line

    def test_tells_when_there_is_nothing_left(self, resolver, dns, caplog):
        """An error line with the cause and what to do in an emergency."""
        dns.no_such_name("other.local")
        for _ in range(3):
            with pytest.raises(DNSResolutionError):
                resolver.refresh("other.local")
        (line,) = self.lines(caplog)
        assert "fallback_addresses" in line
        assert "other.local" in line

    def test_tells_when_what_is_remembered_may_no_longer_be_used(self, resolver, dns, caplog):
        """That is no typo: the name was answered before."""
        resolver.reconfigure(replace(resolver.config, max_stale_no_name=0.0))
        dns.no_such_name("mlflow.local")
        for _ in range(3):
            with pytest.raises(DNSResolutionError):
                resolver.refresh("mlflow.local")
        (line,) = self.lines(caplog)
        assert "the one that is remembered may no longer be used" in line
        assert "typo" not in line

    def test_tells_when_the_static_address_is_used(self, dns, monkeypatch, caplog):
        """It is never checked against DNS, and the line says so."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
        dns.no_such_name("mlflow.local")
        runtime.resolver_for_server(server(fallback_addresses=("10.9.9.9",))).resolve(
            "mlflow.local"
        )
        assert any("static address 10.9.9.9" in line for line in self.lines(caplog))


class TestTheMetrics:
    """Events of the resolver arrive as Airflow metrics, by UDP like in production."""

    def test_are_counted_under_the_names_of_the_design(self, dns, monkeypatch, clean_runtime):
        """Lookup, errors by cause, cache hits, old and static answers; no hostname in a name."""
        seen: list[str] = []
        monkeypatch.setattr(
            "airflow_provider_hokusai_dns.observers._stats",
            lambda: _Recorder(seen),
        )
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
        monkeypatch.setenv("DNS_CACHE_TTL", "0")
        dns.set_records("mlflow.local", ["10.0.0.1"], ttl=0)
        resolver = runtime.resolver()
        resolver.resolve("mlflow.local")
        assert resolver.wait_idle()
        dns.no_such_name("mlflow.local")
        resolver.refresh("mlflow.local")
        assert {
            "hokusai_dns.lookup",
            "hokusai_dns.lookup_ms",
            "hokusai_dns.error.nxdomain",
            "hokusai_dns.stale_served",
        } <= set(seen)
        assert not any("mlflow" in name for name in seen)


class _Recorder:
    def __init__(self, seen):
        self.seen = seen

    def incr(self, name, count=1, **_):
        self.seen.append(name)

    def timing(self, name, value, **_):
        self.seen.append(name)


class TestPins:
    """Hosts of a connection are answered by the resolver in this whole process."""

    def test_answer_the_name_and_what_else_is_listed(self, dns, monkeypatch):
        """Also ``also_pin``, for artifacts that come from another host."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
        dns.set_records("mlflow.local", ["127.0.0.1"])
        dns.set_records("s3.local", ["127.0.0.2"])
        before = socket.getaddrinfo
        first = pins.pin(server(also_pin=("s3.local",)))
        again = pins.pin(server(also_pin=("s3.local",)))
        assert first == again
        assert [len(pin.owners) for pin in first] == [1, 1]
        assert socket.getaddrinfo("mlflow.local", None)[0][4][0] == "127.0.0.1"
        assert socket.getaddrinfo("s3.local", None)[0][4][0] == "127.0.0.2"
        runtime.forget()
        assert socket.getaddrinfo is before


def test_a_private_resolver_knows_nothing_and_leaves_nothing(dns):
    """The Test button tries a changed connection beside the one in use."""
    dns.set_records("mlflow.local", ["10.0.0.1"])
    runtime.resolver_for_server(server("a", cache_ttl=5))
    private = runtime.private_resolver(server("made-up", cache_ttl=9, nameservers=(dns.address,)))
    assert private.resolve("mlflow.local").address == "10.0.0.1"
    assert runtime.metrics()["attempts"] == 0


def test_secrets_are_masked_in_logs_also_as_headers():
    """Airflow's masker knows the password, and what goes over the wire."""
    from airflow.sdk.log import redact

    runtime.mask_credentials(server(credentials=Credentials("me", "hunter2-password")))
    runtime.mask_credentials(server(credentials=Credentials(None, "bearer-t0ken")))
    text = "hunter2-password bWU6aHVudGVyMi1wYXNzd29yZA== Bearer bearer-t0ken"
    assert redact(text) == "*** *** Bearer ***"


class TestTheClocksOfTheFleet:
    """Rule 16: how far ahead a stored timestamp may be is a setting, for the store as well."""

    @pytest.fixture
    def texts(self, clean_runtime, dns, monkeypatch):
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
        kept = Texts()
        runtime.use_store(VariableStore(variables=kept))
        return kept.texts

    def stored(self, texts, ahead):
        record = LastKnownGood("mlflow.local", ("10.0.0.9",), time.time() + ahead)
        texts[variable_key("mlflow.local")] = render_record(record)

    def test_a_record_beyond_a_small_limit_is_overwritten(self, texts, dns, monkeypatch):
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__MAX_CLOCK_SKEW", "10")
        self.stored(texts, 200)
        dns.set_records("mlflow.local", ["10.0.0.1"])
        runtime.resolver().refresh("mlflow.local", always=True)
        runtime.wait_idle(3)
        assert json.loads(texts[variable_key("mlflow.local")])["addresses"] == ["10.0.0.1"]

    def test_the_limit_of_the_policy_variable_counts_from_the_first_read(self, texts, dns):
        """It is read after the record, which is read again then."""
        texts["hokusai_dns_policy"] = '{"max_clock_skew": 3600}'
        self.stored(texts, 1000)
        dns.servfail("mlflow.local")
        assert runtime.resolver().resolve("mlflow.local").addresses == ("10.0.0.9",)

    def test_a_loopback_address_that_is_gone_does_not_replace_a_record(self, texts, dns):
        """The first to hear that the name is gone writes that down, and its answer with it."""
        self.stored(texts, -5000)
        dns.set_records("mlflow.local", ["127.0.0.1"])
        runtime.resolver().refresh("mlflow.local")
        dns.no_such_name("mlflow.local")
        runtime.resolver().refresh("mlflow.local")
        runtime.wait_idle(3)
        assert json.loads(texts[variable_key("mlflow.local")])["addresses"] == ["10.0.0.9"]

    def test_nor_one_that_this_process_has_written_itself_since_it_read(self, texts, dns):
        """The store is read at most every 30 s for a failing name."""
        dns.servfail("mlflow.local")
        with pytest.raises(DNSResolutionError):
            runtime.resolver().refresh("mlflow.local")
        for address in ("10.0.0.9", "127.0.0.1"):
            dns.set_records("mlflow.local", [address])
            runtime.resolver().refresh("mlflow.local", always=True)
            runtime.wait_idle(3)
        dns.no_such_name("mlflow.local")
        runtime.resolver().refresh("mlflow.local")
        runtime.wait_idle(3)
        assert json.loads(texts[variable_key("mlflow.local")])["addresses"] == ["10.0.0.9"]

    def test_a_record_within_a_large_limit_is_used(self, texts, dns, monkeypatch):
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__MAX_CLOCK_SKEW", "3600")
        self.stored(texts, 1000)
        dns.servfail("mlflow.local")
        assert runtime.resolver().resolve("mlflow.local").addresses == ("10.0.0.9",)

    @pytest.mark.parametrize("useless", ["::ffff:127.0.0.1", "::ffff:0.0.0.0", "0.0.0.1"])
    def test_no_spelling_of_a_useless_address_replaces_a_record(self, texts, dns, useless):
        """A captive portal may answer with an IPv4 address in the form of IPv6."""
        self.stored(texts, -5000)
        dns.set_records("mlflow.local", [useless])
        runtime.resolver().refresh("mlflow.local", always=True)
        runtime.wait_idle(3)
        assert json.loads(texts[variable_key("mlflow.local")])["addresses"] == ["10.0.0.9"]


def test_one_wrong_connection_does_not_keep_the_others_from_being_looked_up(
    usable, connect, dns, monkeypatch
):
    """It is reported where it is used."""
    connect("wrong", host="wrong.local", extra={"cache_ttl": 400_000_000})
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "wrong, mlflow_default")
    runtime.warm_listed(load_server)
    runtime.wait_idle(3)
    assert dns.count(HOSTNAME, "A") == 1


def test_counters_only_grow(dns, monkeypatch):
    """Although the resolvers of views that are used no more are dropped."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    dns.set_records("mlflow.local", ["10.0.0.1"])
    monkeypatch.setattr(runtime, "_MOST_VIEWS", 2)
    for number in range(5):
        view = View(hostname="mlflow.local", cache_ttl=100.0 + number)
        runtime.resolver_for_view(view).resolve("mlflow.local")
    assert (runtime.metrics()["attempts"], runtime.metrics()["cache_size"]) == (5, 2)
