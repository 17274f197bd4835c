"""Every source asked by itself, and nothing printed that a terminal would obey."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.cli.explain import StoredRecord, explain
from airflow_provider_hokusai_dns.cli.output import printable, show_rows
from airflow_provider_hokusai_dns.observers import LogObserver
from airflow_provider_hokusai_dns.resolver import DNSResolver, LastKnownGood, ResolverConfig
from airflow_provider_hokusai_dns.resolver.lookup.stub_resolver import StubResolver
from airflow_provider_hokusai_dns.resolver.model import Cause
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.resolver.testing import DNSServer

NAME = "mlflow.explain.local"


def nothing(hostname: str) -> StoredRecord:
    return StoredRecord("hokusai_dns_none")


@pytest.fixture
def config(dns: DNSServer) -> ResolverConfig:
    return ResolverConfig(nameservers=(dns.address,), timeout=2.0)


class TestEachNameserver:
    """Which one is bad is seen only when each is asked by itself."""

    def test_answers_for_itself(self, dns):
        """One knows the name, one says there is none: an ordinary lookup would show the first."""
        with DNSServer() as other:
            dns.set_records(NAME, ["10.0.0.1", "fd00::1"], ttl=10)
            other.no_such_name(NAME)
            said = StubResolver((dns.address, other.address)).ask_each(NAME, timeout=5)
            told = {(one.nameserver, one.family): (one.addresses, one.cause) for one in said}
            assert told == {
                (dns.address, "A"): (("10.0.0.1",), None),
                (dns.address, "AAAA"): (("fd00::1",), None),
                (other.address, "A"): ((), Cause.NXDOMAIN),
                (other.address, "AAAA"): ((), Cause.NXDOMAIN),
            }
            assert all(one.seconds is not None and one.seconds < 5 for one in said)

    def test_that_is_silent_keeps_none_of_the_others_waiting(self, dns):
        """They are asked at the same time, and each for the whole time."""
        with DNSServer() as silent:
            dns.set_records(NAME, ["10.0.0.1"])
            silent.silent(NAME)
            said = StubResolver((silent.address, dns.address)).ask_each(NAME, timeout=1.0)
        by_server = {one.nameserver: one for one in said if one.family == "A"}
        assert by_server[silent.address].cause is Cause.TIMEOUT
        assert by_server[dns.address].addresses == ("10.0.0.1",)
        assert by_server[dns.address].seconds < 1.0

    def test_is_asked_for_each_name_of_the_search_list(self, dns, tmp_path):
        """As the lookup itself does, up to the first name that has addresses."""
        dns.no_such_name("mlflow.one.local")
        dns.set_records("mlflow.two.local", ["10.0.0.2"])
        query = StubResolver((dns.address,), ("one.local", "two.local"))
        names = [one.name for one in query.ask_each("mlflow", timeout=5)]
        assert names == ["mlflow.one.local."] * 2 + ["mlflow.two.local."] * 2

    def test_is_the_one_on_this_machine_where_none_can_be_read(self, dns, tmp_path):
        """As resolv.conf(5) says."""
        broken = tmp_path / "resolv.conf"
        broken.write_text("nameserver nonsense\n")
        said = StubResolver(resolv_conf=broken, port=dns.port).ask_each(NAME, timeout=1)
        assert {one.nameserver for one in said} == {dns.address}


class TestExplanation:
    """Steps and choice of one target."""

    def test_of_an_address_asks_nobody(self, dns, config):
        """There is nothing to explain."""
        one = explain(Target.parse("10.0.0.1:5000"), DNSResolver(config), nothing)
        assert (one.state, one.source, one.addresses) == ("healthy", "literal", ("10.0.0.1",))
        assert len(one.steps) == 1
        assert not dns.queries

    def test_shows_that_the_hosts_file_hides_what_dns_says(self, dns, config, tmp_path):
        """The usual reason for "but I have changed it in DNS"."""
        hosts = tmp_path / "hosts"
        hosts.write_text(f"10.9.9.9 {NAME}\n")
        dns.set_records(NAME, ["10.0.0.1"])
        one = explain(Target.parse(NAME), DNSResolver(config), nothing, hosts=hosts)
        found = {step.source: step.addresses for step in one.steps if step.addresses}
        assert found == {"hosts file": ("10.9.9.9",), "nameserver": ("10.0.0.1",)}

    def test_reads_the_hosts_file_as_a_lookup_does(self, config, tmp_path):
        """A lone carriage return ends no line, so what follows one in a comment is no entry."""
        hosts = tmp_path / "hosts"
        hosts.write_bytes(f"# old\r10.9.9.9 {NAME}\n".encode())
        one = explain(Target.parse(NAME), DNSResolver(config), nothing, hosts=hosts)
        assert [step.addresses for step in one.steps if step.source == "hosts file"] == [()]

    def test_comes_in_time_when_everybody_is_silent(self, dns):
        """Bounded by the timeout of one lookup, with the cause."""
        dns.silent(NAME)
        config = ResolverConfig(nameservers=(dns.address,), timeout=1.0)
        one = explain(Target.parse(NAME), DNSResolver(config), nothing)
        assert (one.state, one.cause, one.addresses) == ("unhealthy", "timeout", ())

    @pytest.mark.parametrize(
        ("login_limit", "told"),
        [
            (900.0, "900 s of age, with a login and no verified certificate"),
            (None, "86400 s of age"),
            (1e6, "86400 s of age"),
        ],
    )
    def test_tells_the_limit_that_ends_first(self, dns, config, login_limit, told):
        """An admin who reads 24 hours goes home, and after 15 minutes no login is sent there."""

        class Store:
            def read(self, hostname):
                return LastKnownGood(hostname, ("10.0.0.1",), time.time() - 60)

            def write(self, record):
                return True

        dns.servfail(NAME)
        resolver = DNSResolver(config, store=Store())
        one = explain(Target.parse(NAME), resolver, nothing, login_limit=login_limit)
        assert one.sentence.endswith(f"Good for up to {told}")

    def test_does_not_blame_dns_that_was_only_slow(self, caplog):
        """One nameserver of two is stopped: a new task starts with the stored address."""

        class Store:
            def read(self, hostname):
                return LastKnownGood(hostname, ("10.0.0.1",), time.time() - 60)

            def write(self, record):
                return True

        with DNSServer() as stopped, DNSServer() as second:
            stopped.silent(NAME)
            second.set_records(NAME, ["10.0.0.2"])
            servers = (stopped.address, second.address)
            config = ResolverConfig(nameservers=servers, timeout=2.0, stale_after=0.1)
            resolver = DNSResolver(config, store=Store())
            resolver.add_observer(LogObserver(resolver))
            one = explain(Target.parse(NAME), resolver, nothing)
            assert resolver.wait_idle()
        assert "DNS had not answered after 0.1 s" in one.sentence
        assert "returns no address" not in one.sentence + caplog.text
        assert f"DNS has not answered yet for {NAME!r}: using 10.0.0.1" in caplog.text
        assert ("10.0.0.2",) in [step.addresses for step in one.steps]

    def test_survives_a_hostile_name_server(self, dns, config):
        """Garbage is a cause, and no more."""
        dns.garbage(NAME)
        one = explain(Target.parse(NAME), DNSResolver(config), nothing)
        assert one.state == "unhealthy"


@given(st.text())
def test_what_is_printed_does_nothing_to_a_terminal(text):
    """Any text in a Variable; and what is harmless stays as it is."""
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_a_table_reads_no_markup(capsys):
    """An IPv6 host in brackets is no colour."""
    show_rows([{"host": "[fd00::1]:5000", "note": "[bold]not bold[/bold]"}], "table")
    out = capsys.readouterr().out
    assert "[fd00::1]:5000" in out
    assert "[bold]not bold[/bold]" in out
