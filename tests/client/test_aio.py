"""Our answers through aiohttp's own resolver interface."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from aiohttp import web

from airflow_provider_hokusai_dns.client.aio import aiohttp_resolver
from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from airflow_provider_hokusai_dns.resolver.pin import Pin, pin_host
from airflow_provider_hokusai_dns.resolver.testing import DNSServer

HOST = "mlflow.aio.test"


@pytest.fixture
def pin(dns: DNSServer) -> Iterator[Pin]:
    config = ResolverConfig(nameservers=(dns.address,), timeout=1, min_ttl=0, failure_ttl=0)
    pin = pin_host(HOST, DNSResolver(config), patience=0.0)
    yield pin
    pin.release()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=request.host)

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.9", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def get(url: str) -> str:
    connector = aiohttp.TCPConnector(resolver=aiohttp_resolver(), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        return await answer.text()


async def test_a_coroutine_reaches_a_name_that_is_gone(dns: DNSServer, pin: Pin, port: int) -> None:
    """The old address serves coroutines too, with the hostname in the Host header."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=0)
    assert await get(f"http://{HOST}:{port}/") == f"{HOST}:{port}"
    dns.no_such_name(HOST)
    await pin.resolver.arefresh(HOST)
    assert await get(f"http://{HOST}:{port}/") == f"{HOST}:{port}"


async def test_with_nothing_to_serve_the_reason_comes_out(dns: DNSServer, pin: Pin) -> None:
    """aiohttp's own error carries our sentence."""
    dns.no_such_name(HOST)
    with pytest.raises(aiohttp.ClientConnectorDNSError, match="cannot be resolved"):
        await get(f"http://{HOST}:80/")


async def test_waiting_does_not_block_the_event_loop(dns: DNSServer, pin: Pin) -> None:
    """A lookup that hangs leaves the loop free."""
    dns.silent(HOST)
    waiting = asyncio.ensure_future(get(f"http://{HOST}:80/"))
    longest = 0.0
    while not waiting.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    assert isinstance(waiting.exception(), aiohttp.ClientConnectorError)
    assert longest < 0.9


async def test_other_hosts_and_families_are_as_before(dns: DNSServer, pin: Pin) -> None:
    """Only pinned names are ours, and only the family that was asked for comes back."""
    resolver = aiohttp_resolver()
    try:
        other = await resolver.resolve("localhost", 80, socket.AF_INET)
        assert other[0]["host"] == "127.0.0.1"
        dns.set_records(HOST, ["127.0.0.9", "::1"], ttl=60)
        six = await resolver.resolve(HOST, 0, socket.AF_INET6)
        assert [item["host"] for item in six] == ["::1"]
        dns.set_records(HOST, ["127.0.0.9"], ttl=60)
        await pin.resolver.arefresh(HOST)
        with pytest.raises(OSError, match="family"):
            await resolver.resolve(HOST, 0, socket.AF_INET6)
    finally:
        await resolver.close()


def test_a_caller_who_gives_up_is_not_held(dns: DNSServer, pin: Pin) -> None:
    """``asyncio.run`` comes back while the pin still waits for the name."""
    dns.no_such_name(HOST)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aiohttp_resolver().resolve(HOST, 80), 0.3)

    with pin.patient(4):
        began = time.monotonic()
        asyncio.run(give_up())
        assert time.monotonic() - began < 3.5
