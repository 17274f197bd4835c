"""One live lookup: hosts file, then DNS, and beside it the system's own (policy, The order)."""

from __future__ import annotations

import socket
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver.lookup.dns_query import DNSQuery
from airflow_provider_hokusai_dns.resolver.lookup.files import WatchedFile, parse_hosts
from airflow_provider_hokusai_dns.resolver.lookup.system import SystemLookup
from airflow_provider_hokusai_dns.resolver.model import Answer, Attempt, Cause, Endpoint, Source
from airflow_provider_hokusai_dns.resolver.workers import Workers

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.model import Lookup

#: Seconds until the hosts file is looked at again: whoever edits it in an emergency wants it used.
_HOSTS_TTL = 10.0
#: Seconds of DNS alone before the system's own lookup runs beside it. On a good day DNS answers
#: within milliseconds, and nobody is asked twice.
_HEAD_START = 1.0


class LiveLookup:
    """The default lookup.

    :param config: whose nameservers, search domains are used.
    """

    def __init__(
        self,
        config: ResolverConfig,
        *,
        hosts: Path = Path("/etc/hosts"),
        resolv_conf: Path = Path("/etc/resolv.conf"),
        system: Lookup | None = None,
    ) -> None:
        self._config = config
        # Three, so that whatever hangs in one of them finds the others free.
        self._lookups = Workers("hokusai-dns-lookup")
        self._questions = Workers("hokusai-dns-query", limit=128)
        self._system_calls = Workers("hokusai-dns-system")
        self._hosts = WatchedFile(hosts, parse_hosts)
        self._resolv_conf = resolv_conf
        self._system = system or SystemLookup()
        self._dns: dict[tuple[str, ...], DNSQuery] = {}

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        """Look a hostname up; see :class:`~.model.Lookup`."""
        addresses = self._hosts.value().get(hostname.removesuffix("."))
        if addresses:
            endpoints = tuple(Endpoint(address) for address in addresses)
            return Answer(endpoints, Source.HOSTS, ttl=_HOSTS_TTL)
        nameservers = self._config.nameservers_for(hostname)
        query = self._query(nameservers)
        if nameservers:  # the author named who is to be asked: nobody else is
            return query.lookup(hostname, timeout=timeout, hint=hint)
        return self._race(query, hostname, timeout, hint, thorough)

    def _query(self, nameservers: tuple[str, ...]) -> DNSQuery:
        query = self._dns.get(nameservers)
        if query is None:
            query = self._dns.setdefault(
                nameservers,
                DNSQuery(
                    nameservers,
                    self._config.search,
                    workers=self._questions,
                    resolv_conf=self._resolv_conf,
                ),
            )
        return query

    def _race(
        self,
        query: DNSQuery,
        hostname: str,
        timeout: float,
        hint: str | None,
        thorough: bool,
    ) -> Answer:
        """DNS with a head start, then the system's own lookup beside it; the first answer wins.

        The system mostly asks the same servers, which say so when they cannot answer, and asks each
        of them twice. So it is left out where the caller can do without it for now.
        """
        end = time.monotonic() + timeout
        dns = self._lookups.call(lambda: query.lookup(hostname, timeout=timeout, hint=hint))
        wait((dns,), min(_HEAD_START, timeout))
        if dns.done() and dns.exception() is None:
            return dns.result()
        if not thorough and dns.done() and _cannot_answer(dns.exception()):
            return dns.result()
        system = self._system_calls.call(lambda: self._system.lookup(hostname, timeout=timeout))
        pending: set[Future[Answer]] = {dns, system}
        while pending:
            done, pending = wait(pending, max(0.0, end - time.monotonic()), FIRST_COMPLETED)
            for future in done:
                if future.exception() is None:
                    return future.result()
            if not done:
                break
        raise _both_failed(dns, system)


def _cannot_answer(error: BaseException | None) -> bool:
    """Whether a nameserver was reached and said that it has no answer, neither yes nor no."""
    return isinstance(error, LookupFailed) and error.cause in (Cause.SERVFAIL, Cause.REFUSED)


def _both_failed(dns: Future[Answer], system: Future[Answer]) -> LookupFailed:
    """What DNS said is the cause; what the system said stands beside it."""
    failed = LookupFailed(Cause.TIMEOUT, "no nameserver answered in time")
    tried: list[Attempt] = []
    if dns.done():
        error = dns.exception()
        if isinstance(error, LookupFailed):
            failed = error
            tried.extend(error.tried)
        elif error is not None:
            failed = LookupFailed(Cause.MALFORMED, f"{type(error).__name__}: {error}")
    else:
        tried.append(Attempt("dns", "no answer in time"))
    if system.done() and isinstance(system.exception(), LookupFailed):
        tried.extend(system.exception().tried)  # type: ignore[union-attr]
    else:
        tried.append(Attempt("system", "no answer in time"))
    return LookupFailed(failed.cause, failed.detail, tried)


def ipv6_is_routable() -> bool:
    """Whether this machine has a way to the IPv6 internet, as ``getaddrinfo`` finds out.

    Connecting a UDP socket sends nothing. The address is of the documentation range (RFC 3849).
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect(("2001:db8::1", 53))
    except OSError:
        return False
    return True
