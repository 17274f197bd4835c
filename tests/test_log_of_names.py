"""The log lines about a name: what is used, and the cause as the failure guide names it."""

from __future__ import annotations

import logging
import time

import pytest

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.resolver import DNSResolutionError, LastKnownGood
from airflow_provider_hokusai_dns.store.record import render_record, variable_key
from tests.conftest import HOSTNAME


@pytest.fixture
def told(clean_runtime, dns, monkeypatch, caplog):
    import airflow.settings  # noqa: F401 - configures logging, and takes caplog's handler away

    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    caplog.set_level(logging.INFO)
    begin = ("DNS returns no", "DNS has not")
    return lambda: [r.getMessage() for r in caplog.records if r.getMessage().startswith(begin)]


def line_of_a_failure(told):
    """The one line about a name for which there is no address."""
    with pytest.raises(DNSResolutionError):
        runtime.resolver().resolve(HOSTNAME)
    runtime.resolver().wait_idle(10)
    (line,) = told()
    return line


def test_a_stored_address_is_told_before_the_lookup_has_failed(told, dns, monkeypatch):
    """A task that is shorter than the timeout of DNS would otherwise use it without a word."""
    record = LastKnownGood(HOSTNAME, ("10.0.0.1",), time.time() - 300)
    monkeypatch.setenv(f"AIRFLOW_VAR_{variable_key(HOSTNAME).upper()}", render_record(record))
    dns.silent(HOSTNAME)
    assert runtime.resolver().resolve(HOSTNAME).source.value == "store"
    (line,) = told()
    assert line.startswith(f"DNS has not answered yet for {HOSTNAME!r}: using 10.0.0.1 from the ")
    assert line.endswith(" Check DNS")


def test_the_cause_in_brackets_is_a_word_of_the_failure_guide(told, dns):
    """As the on-call page shows it, and nothing else between the brackets."""
    dns.no_such_name(HOSTNAME)
    line = line_of_a_failure(told)
    nothing = "(nxdomain) and none is remembered. "
    assert line.startswith(f"DNS returns no address for {HOSTNAME!r} {nothing}")


def test_another_static_address_in_an_outage_is_told(told, dns, monkeypatch):
    """An admin who corrects the address sees in the log that it is used."""
    dns.no_such_name(HOSTNAME)
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.2"):
        monkeypatch.setenv("MLFLOW_FALLBACK_IP", address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{HOSTNAME}:5000")
        assert runtime.resolver().resolve(HOSTNAME).address == address
        runtime.resolver().wait_idle(10)
    one, other = told()
    assert "using the static address 10.0.0.1." in one
    assert "using the static address 10.0.0.2." in other


def test_no_typo_is_suggested_where_dns_does_not_answer(told, dns):
    """As the verdict of a gate: the name may be right, and DNS is what does not work."""
    dns.servfail(HOSTNAME)
    line = line_of_a_failure(told)
    assert "and none is remembered. Check DNS; in an emergency set fallback_addresses" in line
