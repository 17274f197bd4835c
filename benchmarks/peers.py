"""The floor and the peers: what one would write oneself, and what PyPI has.

Each is a context manager that gives a callable of one hostname, so that every question is asked of
every peer in the same way. One that cannot run here raises :class:`~benchmarks.measure.Skipped`.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.metadata
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Lock
from types import ModuleType
from typing import Any

from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from benchmarks.measure import Skipped
from benchmarks.stage import Nameserver

Call = Callable[[str], Any]
AsyncCall = Callable[[str], Awaitable[Any]]
SyncPeer = Callable[[Nameserver], Any]

OURS = "ours"
OURS_SYSTEM = "ours, the system's nameserver"
PORT = 5000


def need(name: str) -> ModuleType:
    """A module from PyPI.

    :raises Skipped: when it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Skipped(f"{name} is not installed") from None


def need_system(server: Nameserver) -> None:
    """:raises Skipped: when ``getaddrinfo`` does not ask our server."""
    if not server.is_the_systems:
        raise Skipped(f"asks the system's nameserver, and {server.why_not}")


def versions() -> dict[str, str]:
    """What is measured."""
    found = {}
    for name in ("aiodns", "aiohttp", "cachetools", "dnspython"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def getaddrinfo(name: str) -> list[Any]:
    return socket.getaddrinfo(name, PORT, type=socket.SOCK_STREAM)


def floor(load: Call = getaddrinfo, ttl: float = 300.0) -> Call:
    """The least that a cache with expiry can cost: a dictionary and a clock in a function."""
    entries: dict[str, tuple[float, Any]] = {}
    monotonic = time.monotonic

    def resolve(name: str) -> Any:
        entry = entries.get(name)
        if entry is not None and monotonic() < entry[0]:
            return entry[1]
        value = load(name)
        entries[name] = (monotonic() + ttl, value)
        return value

    return resolve


def lru_cache(load: Call = getaddrinfo) -> Call:
    return functools.lru_cache(maxsize=1024)(load)


def ttl_cache(load: Call = getaddrinfo, ttl: float = 300.0, *, lock: bool = False) -> Call:
    cachetools = need("cachetools")
    cache = cachetools.TTLCache(1024, ttl)
    made: Call = cachetools.cached(cache, lock=Lock() if lock else None)(load)
    return made


def dnspython(server: Nameserver, *, asynchronous: bool = False) -> Any:
    """A dnspython resolver with its own cache; A records only."""
    resolver_module = need("dns.asyncresolver" if asynchronous else "dns.resolver")
    cache_module = need("dns.resolver")
    resolver = getattr(resolver_module, "Resolver")(configure=False)  # noqa: B009
    resolver.nameservers = [server.host]
    resolver.port = server.port
    resolver.cache = cache_module.LRUCache(1024)
    return resolver


@asynccontextmanager
async def aiohttp_cache(ttl: int | None = 300) -> AsyncIterator[AsyncCall]:
    """The cache inside aiohttp's connector, over the thread resolver that it uses by default."""
    aiohttp = need("aiohttp")
    resolver = aiohttp.ThreadedResolver()
    connector = aiohttp.TCPConnector(resolver=resolver, ttl_dns_cache=ttl)
    try:
        yield lambda name: connector._resolve_host(name, PORT)
    finally:
        await connector.close()


@asynccontextmanager
async def aiodns(server: Nameserver) -> AsyncIterator[AsyncCall]:
    """aiodns (c-ares); it has no cache of its own."""
    resolver = need("aiodns").DNSResolver(nameservers=[server.host], udp_port=server.port)
    try:
        yield lambda name: resolver.getaddrinfo(name, family=socket.AF_UNSPEC, port=PORT)
    finally:
        await resolver.close()


@contextmanager
def ours(server: Nameserver, *, system: bool = False, **numbers: Any) -> Iterator[DNSResolver]:
    """Our resolver with the policy's own numbers, asking the server directly.

    :param system: with no nameserver configured, as it is by default.
    """
    nameservers = () if system else (server.address,)
    if system:
        need_system(server)
    resolver = DNSResolver(ResolverConfig(nameservers=nameservers, **numbers))
    yield resolver
    resolver.wait_idle(15)


def run_async(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine in a loop of its own, always the one of the standard library."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:

        async def body() -> Any:
            return await main()

        return runner.run(body())
