"""The functions of the former system, with what they returned."""

from __future__ import annotations

import pytest

from airflow_provider_hokusai_dns import compat
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import DNSResolver
from tests.conftest import HOSTNAME


def test_the_resolver_is_the_one_of_the_process(clean_runtime):
    """And not a second one with counters of its own."""
    assert isinstance(compat.get_dns_resolver(), DNSResolver)
    assert compat.get_dns_resolver() is clean_runtime.resolver()


def test_a_uri_comes_back_with_an_address(usable, tiny):
    """In its own form, nothing else touched."""
    assert compat.resolve_tracking_uri_sync() == f"http://{tiny.address}:{tiny.port}"
    uri = f"https://me@{HOSTNAME}:1/{HOSTNAME}?q={HOSTNAME}#f"
    assert (
        compat.resolve_tracking_uri_sync(uri)
        == f"https://me@{tiny.address}:1/{HOSTNAME}?q={HOSTNAME}#f"
    )


async def test_the_sync_function_works_inside_a_running_loop(usable, tiny):
    """The former one gave the name back unresolved."""
    expected = f"http://{tiny.address}:{tiny.port}"
    assert compat.resolve_tracking_uri_sync() == expected
    assert await compat.resolve_tracking_uri() == expected
    assert await compat.resolve_tracking_uri(f"{HOSTNAME}:5000") == f"{tiny.address}:5000"


def test_a_name_without_an_address_is_an_error(dns, monkeypatch, clean_runtime):
    """It names the host and the cause."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    dns.no_such_name("gone.local")
    with pytest.raises(DNSResolutionError, match=r"gone\.local"):
        compat.resolve_tracking_uri_sync("http://gone.local:5000")


def test_the_health_has_its_keys(usable):
    """status, error_rate, cache_size, metrics."""
    compat.resolve_tracking_uri_sync()
    health = compat.get_dns_health()
    assert health.keys() == {"status", "error_rate", "cache_size", "metrics"}
    assert health["cache_size"] == 1
    assert health["metrics"]["attempts"] == 1


def test_the_status_of_mlflow_has_its_keys(usable):
    """As the dashboards of the former system read it."""
    assert {
        "connected",
        "tracking_uri",
        "error",
        "response_time_ms",
        "circuit_breaker_state",
        "dns_resolution",
    } <= compat.get_mlflow_status().keys()
