"""What the commands decide, with the Variables in memory; the rest is in test_commands.py."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.cli import commands, ending
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.conftest import Texts

NAME = "mlflow.commands-test.local"
SRV = "_mlflow._tcp.commands-test.local"


class Deletable(Texts):
    def delete(self, key: str) -> bool:
        return self.texts.pop(key, None) is not None

    @property
    def records(self) -> list[str]:
        """The keys of what is stored as last known good."""
        return [key for key in self.texts if "history" not in key]


@pytest.fixture
def kept(clean_runtime: Any, dns: Any, monkeypatch: pytest.MonkeyPatch) -> Deletable:
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    return Deletable()


@pytest.fixture
def command(kept: Deletable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call a command; gives its exit code."""
    monkeypatch.setattr(commands, "SdkVariables", lambda: kept)
    monkeypatch.setattr(commands, "MetastoreVariables", lambda: kept)
    monkeypatch.setattr(ending, "check_database", lambda: None)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # each command sets it

    def without_audit_log(_: Namespace, names: Any) -> list[dict[str, Any]]:
        return [commands._clear(*name) for name in names]

    monkeypatch.setattr(commands, "hokusai_dns_clear", without_audit_log)

    def call(
        name: str, *target: str, conn_id: list[str] | None = None, output: str = "json"
    ) -> Any:
        runtime.forget()
        given = Namespace(
            target=list(target), conn_id=conn_id, output=output, min_health="degraded"
        )
        given.verbose = False
        with pytest.raises(SystemExit) as end:
            getattr(commands, name)(given)
        return end.value.code

    return call


def test_resolve_shows_what_a_nameserver_says_to_a_question_for_srv(command, dns, connect, capsys):
    """Priority, weight, port and target, as dig does."""
    dns.set_srv(SRV, [(0, 1, 5000, "node.commands-test.local")])
    dns.set_records("node.commands-test.local", ["10.0.0.5"])
    connect(host=NAME, extra={"srv": SRV, "nameservers": dns.address})
    assert command("resolve", conn_id=["mlflow_default"]) == 0
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    (said,) = [step for step in target["steps"] if step["source"] == "nameserver"]
    assert said["outcome"].startswith("0 1 5000 node.commands-test.local")


def test_resolve_shows_each_connection_to_one_server(command, dns, connect, capsys):
    """Each was asked for, and may have a limit of its own for a stale address."""
    dns.set_records(NAME, ["10.0.0.1"])
    connect("one", host=NAME)
    connect("two", host=NAME, login="u", password="p")
    assert command("resolve", conn_id=["one", "two", "one"]) == 0
    targets = json.loads(capsys.readouterr().out)["targets"]
    assert [target["conn_id"] for target in targets] == ["one", "two"]


@pytest.mark.parametrize("conn_id", ["team:mlflow", "team/mlflow"])
def test_refresh_shows_the_whole_id_of_a_connection(command, dns, connect, capsys, conn_id):
    """An id is no target, of which only the part without secrets is shown."""
    dns.set_records(NAME, ["10.0.0.1"])
    connect(conn_id, host=NAME)
    assert command("refresh", conn_id=[conn_id], output="plain") == 0
    assert conn_id in capsys.readouterr().out.splitlines()[-1].split()


def test_clear_reaches_every_listed_connection_of_a_name(command, kept, dns, connect, monkeypatch):
    """Each with nameservers of its own has a Variable of its own."""
    dns.set_records(NAME, ["10.0.0.1"])
    connect(host=NAME)
    connect("two", host=NAME, extra={"nameservers": dns.address})
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "mlflow_default, two")
    assert command("refresh") == 0
    assert len(kept.records) == 2
    assert command("clear", NAME) == 0
    assert kept.records == []


def test_a_name_is_refreshed_as_its_connections_see_it(command, kept, dns, connect, monkeypatch):
    """As ``resolve`` and ``clear`` do it: other nameservers may not know the name at all."""
    dns.set_records(NAME, ["10.0.0.1"])
    connect(host=NAME, extra={"nameservers": dns.address})
    with DNSServer() as others:
        others.no_such_name(NAME)
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", others.address)
        assert command("refresh", f"http://{NAME}:5000") == 0
    assert len(kept.records) == 1


def test_a_final_dot_of_the_connection_need_not_be_written(command, kept, dns, connect, capsys):
    """``resolve`` says what a task gets, and ``clear`` removes it."""
    dns.set_records(NAME, ["10.0.0.1"])
    connect(host=f"{NAME}.")
    assert command("refresh") == 0
    dns.servfail(NAME)
    runtime.forget()
    runtime.use_store(VariableStore(variables=kept))
    assert MLflowHook().resolve().source == "store"
    capsys.readouterr()
    assert command("resolve", NAME) == 0
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert (target["conn_id"], target["state"], target["source"]) == (
        "mlflow_default",
        "degraded",
        "store",
    )
    assert command("clear", NAME) == 0
    assert kept.records == []


@pytest.mark.parametrize("names", [[f"h{n}.local" for n in range(101)], []], ids=["101", "0"])
def test_too_many_names_and_none_are_a_wrong_question(command, names, monkeypatch, capsys):
    """Exit code 2 and a sentence, no traceback."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", ",")
    assert command("refresh", *names) == 2
    assert "refresh" in capsys.readouterr().err


def test_status_of_no_connection_is_a_wrong_question(command, monkeypatch, capsys):
    """An empty table would say nothing."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", ",")
    assert command("status") == 2
    assert "[hokusai_dns] connections is empty" in capsys.readouterr().err


def test_a_wrong_connection_is_a_wrong_question(command, connect, capsys):
    """A lifetime of twelve years; the sentence names the field."""
    connect(host=NAME, extra={"cache_ttl": 400_000_000})
    assert command("resolve", conn_id=["mlflow_default"]) == 2
    assert "extra 'cache_ttl'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["status", "resolve"])
def test_a_wrong_address_for_emergencies_is_a_wrong_setting_before_a_task_fails(
    command, dns, connect, monkeypatch, capsys, name
):
    """Every process has a policy before it knows which connection the address belongs to."""
    monkeypatch.setenv("MLFLOW_FALLBACK_IP", "bad")
    dns.set_records(NAME, ["127.0.0.1"])
    connect(host=NAME)
    assert command(name, conn_id=["mlflow_default"]) == 2
    said = capsys.readouterr()
    assert "MLFLOW_FALLBACK_IP: 'bad' is not an IP address" in said.out + said.err


def test_a_misspelt_option_is_named_with_the_right_word(
    command, dns, connect, monkeypatch, caplog, capsys
):
    """Airflow accepts any name in a section; a process logs it once, a command prints it."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CACH_TTL", "5")
    dns.set_records(NAME, ["127.0.0.1"])
    connect(host=NAME)
    assert command("resolve", conn_id=["mlflow_default"]) == 0
    line = (
        "environment, AIRFLOW__HOKUSAI_DNS__: 'CACH_TTL' is ignored: there is no such option. "
        "Did you mean 'CACHE_TTL'?"
    )
    assert line in capsys.readouterr().err
    runtime.forget()
    caplog.clear()
    for _ in range(2):
        runtime.resolver()
    assert [record.getMessage() for record in caplog.records] == [line]


def test_a_misspelt_option_of_the_file_is_named_too(monkeypatch):
    """As in airflow.cfg."""
    from airflow.providers.common.compat.sdk import conf

    from airflow_provider_hokusai_dns.config import settings

    if not conf.has_section(settings.SECTION):
        conf.add_section(settings.SECTION)
    conf.set(settings.SECTION, "max_stail", "5")
    try:
        (line,) = settings.unknown_options()
    finally:
        conf.remove_option(settings.SECTION, "max_stail")
    assert line.startswith("section [hokusai_dns]: 'max_stail' is ignored")
    assert line.endswith("Did you mean 'max_stale'?")


def test_status_names_a_wrong_option_that_no_check_reads(
    command, dns, connect, monkeypatch, capsys
):
    """A relay of a task would fail by it."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__RELAY_KEEP", "many")
    dns.set_records(NAME, ["127.0.0.1"])
    connect(host=NAME)
    assert command("status", conn_id=["mlflow_default"]) == 2
    assert "relay_keep: 'many' is not a whole number" in capsys.readouterr().err
