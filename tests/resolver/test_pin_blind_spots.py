"""What the pin says that it cannot cover."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_hokusai_dns.resolver.blind_spots import blind_spots
from airflow_provider_hokusai_dns.resolver.pin import tell_blind_spots

HOST = "mlflow.test.local"


def test_a_proxy_is_told_without_its_password() -> None:
    """The variable is named, and the way out; the URL may hold a secret."""
    [told] = blind_spots(HOST, proxies={"http": "http://me:hunter2@proxy:3128"}, modules={})
    assert "http_proxy" in told
    assert "no_proxy" in told
    assert "hunter2" not in told


def test_a_proxy_that_is_bypassed_is_no_blind_spot() -> None:
    """Who has already done what we would advise hears nothing."""
    proxies = {"http": "http://proxy:3128", "no": ".test.local"}
    assert blind_spots(HOST, proxies=proxies, modules={}) == []


@pytest.mark.parametrize(
    ("module", "name"),
    [("uvloop", "uvloop"), ("gevent.monkey", "gevent"), ("eventlet.green.socket", "eventlet")],
)
def test_resolvers_of_their_own_are_told(module: str, name: str) -> None:
    """Event loops and libraries that do not ask the socket module."""
    [told] = blind_spots(HOST, proxies={}, modules={module: object()})
    assert name in told
    assert blind_spots(HOST, proxies={}, modules={}) == []


async def test_aiodns_is_told_where_something_uses_it() -> None:
    """Airflow loads it in every task, where it is mostly not needed."""
    import aiodns  # noqa: F401
    import aiohttp.resolver

    assert blind_spots(HOST, proxies={}) == []
    resolver = aiohttp.resolver.AsyncResolver()
    [told] = blind_spots(HOST, proxies={})
    assert "aiohttp_resolver()" in told
    await resolver.close()
    assert blind_spots(HOST, proxies={}) == []


def test_each_is_said_once_in_a_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pinning again says nothing new."""
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tell_blind_spots("once.test.local")
    assert sum("http_proxy" in record.message for record in caplog.records) == 1
