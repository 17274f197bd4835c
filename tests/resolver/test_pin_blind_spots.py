"""What the pin says that it cannot cover."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest

from airflow_provider_hokusai_dns.resolver.blind_spots import blind_spots, warn_about_blind_spots

HOST = "mlflow.test.local"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a proxy, and without event loops of its own."""
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    for module in ("uvloop", "gevent.monkey", "eventlet.green.socket"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def test_a_proxy_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named, and the way out; the URL may hold a secret."""
    monkeypatch.setenv("http_proxy", "http://me:hunter2@proxy:3128")
    [told] = blind_spots(HOST)
    assert "http_proxy" in told
    assert "no_proxy" in told
    assert "hunter2" not in told


def test_a_proxy_that_is_bypassed_is_no_blind_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has already done what we would advise hears nothing."""
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", ".test.local")
    assert blind_spots(HOST) == []


def test_a_proxy_is_found_on_a_mac_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """There :func:`urllib.request.proxy_bypass` takes the host alone."""
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: host == HOST)
    assert blind_spots(HOST) == []
    assert blind_spots("other.test.local") != []


@pytest.mark.parametrize(
    ("module", "name"),
    [("uvloop", "uvloop"), ("gevent.monkey", "gevent"), ("eventlet.green.socket", "eventlet")],
)
def test_resolvers_of_their_own_are_told(
    monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    """Event loops and libraries that do not ask the socket module."""
    assert blind_spots(HOST) == []
    monkeypatch.setitem(sys.modules, module, ModuleType(module))
    [told] = blind_spots(HOST)
    assert name in told


async def test_aiodns_is_told_where_something_uses_it() -> None:
    """Airflow loads it in every task, where it is mostly not needed."""
    import aiodns  # noqa: F401
    import aiohttp.resolver

    assert blind_spots(HOST) == []
    resolver = aiohttp.resolver.AsyncResolver()
    [told] = blind_spots(HOST)
    assert "aiohttp_resolver()" in told
    await resolver.close()
    assert blind_spots(HOST) == []


def test_each_is_said_once_in_a_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pinning again says nothing new."""
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            warn_about_blind_spots("once.test.local")
    assert sum("http_proxy" in record.message for record in caplog.records) == 1
