"""For asyncio code: the pin's answers through aiohttp's resolver interface.

The pin answers :func:`socket.getaddrinfo`, which aiohttp calls on a thread or, with aiodns
installed, not at all. With this resolver, its connector gets the same answers in both cases::

    connector = aiohttp.TCPConnector(resolver=hook.aiohttp_resolver(), use_dns_cache=False)
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.model import Endpoint
from airflow_provider_hokusai_dns.resolver.pin import pinned
from airflow_provider_hokusai_dns.resolver.workers import NoThreadError, Workers

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver, ResolveResult

#: Daemon threads: ``asyncio.run`` would join those of ``asyncio.to_thread``, and so wait for an
#: outage that the caller has given up on.
_waiting = Workers("hokusai-dns-aio")


def aiohttp_resolver() -> AbstractResolver:
    """A resolver for an aiohttp connector: pinned hosts by us, all others by the system.

    Stale addresses are checked and tested, and during an outage it waits as long as the pin's
    patience, on a thread: the event loop is never blocked. Raises :class:`OSError` with the reason
    if there is no address to serve, as aiohttp expects.
    """
    from aiohttp.abc import AbstractResolver
    from aiohttp.resolver import ThreadedResolver

    class PinnedResolver(AbstractResolver):
        def __init__(self) -> None:
            self._others = ThreadedResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            pin = pinned(host)
            if pin is None:
                return await self._others.resolve(host, port, family)
            absolute = host.endswith(".")
            ask = partial(
                pin.addresses, port or None, connects=bool(port), family=family, absolute=absolute
            )
            try:
                found = await asyncio.wrap_future(_waiting.call(ask, beside=True))
            except (DNSResolutionError, NoThreadError) as error:
                raise OSError(None, str(error)) from error
            if not found:
                raise OSError(None, f"{host} has no address of the requested family")
            return [resolve_result(host, place, port) for place in found]

        async def close(self) -> None:
            await self._others.close()

    return PinnedResolver()


def resolve_result(host: str, place: str, port: int) -> ResolveResult:
    """An address in aiohttp's format; aiohttp connects to the port given here.

    :param place: the address, with its own port if it has one (SRV).
    :param port: that of the URL.
    """
    address, own, *_ = Endpoint.parse(place)
    return {
        "hostname": host,
        "host": address,
        "port": own or port,
        "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
        "proto": 0,
        "flags": socket.AI_NUMERICHOST,
    }
