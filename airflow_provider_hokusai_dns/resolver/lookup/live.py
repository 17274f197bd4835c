"""One live lookup: hosts file, then DNS and, in parallel, the system's own (policy, The order)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
from airflow_provider_hokusai_dns.resolver.lookup.dns_query import DNSQuery
from airflow_provider_hokusai_dns.resolver.lookup.dns_search import DNSSearch
from airflow_provider_hokusai_dns.resolver.lookup.files import WatchedFile, parse_hosts
from airflow_provider_hokusai_dns.resolver.lookup.search import Search
from airflow_provider_hokusai_dns.resolver.lookup.srv import SRVSearch
from airflow_provider_hokusai_dns.resolver.lookup.system import SystemCalls, SystemLookup
from airflow_provider_hokusai_dns.resolver.model import Answer, Endpoint, Lookup, Source

#: Seconds until the hosts file is read again: it is edited in an emergency.
_HOSTS_TTL = 10.0
#: Seconds of DNS alone before the system's own lookup runs beside it. On a good day DNS answers
#: within milliseconds, and nothing is asked twice.
HEAD_START = 1.0


class LiveLookup:
    """The default lookup.

    :param config: the configuration with nameservers and search domains.
    :param port: where the nameservers of ``resolv.conf`` listen.
    :param head_start: seconds of DNS alone before the system's own lookup is asked too.
    """

    def __init__(
        self,
        config: ResolverConfig,
        *,
        hosts: Path = Path("/etc/hosts"),
        resolv_conf: Path = Path("/etc/resolv.conf"),
        port: int = 53,
        system: Lookup | None = None,
        head_start: float = HEAD_START,
    ) -> None:
        self._config = config
        self.hosts = WatchedFile(hosts, parse_hosts)
        self.system = SystemCalls(system or SystemLookup())
        self.head_start = head_start
        self._resolv_conf = resolv_conf
        self._port = port
        self._dns: dict[tuple[str, ...], DNSQuery] = {}

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        """Look a hostname up on this thread; see :class:`~.model.Lookup`."""
        search = self.begin(hostname, timeout=timeout, hint=hint, thorough=thorough)
        try:
            search.run(timeout)
            return search.result()
        finally:
            search.close()

    def begin(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Search:
        """Start a lookup that its caller drives; see :class:`~.search.Search`."""
        nameservers = self._config.nameservers_for(hostname)
        if service := self._config.srv_for(hostname):
            return SRVSearch(
                self.query(nameservers),
                service,
                timeout,
                hint,
                lambda name: self.hosts.value().get(name, ()),
            )
        addresses = self.hosts.value().get(hostname.removesuffix("."))
        if addresses:
            endpoints = tuple(Endpoint(address) for address in addresses)
            return Search(Answer(endpoints, Source.HOSTS, ttl=_HOSTS_TTL))
        plan = self.query(nameservers).plan(hostname, timeout, hint=hint)
        if nameservers:  # the author named who is to be asked: nothing else is
            return DNSSearch(plan)
        search = DNSSearch(plan, partial(self.system.call, hostname), self.head_start)
        search.thorough = thorough
        return search

    def query(self, nameservers: tuple[str, ...]) -> DNSQuery:
        """Lookups at these nameservers; those of the system, if there are none."""
        query = self._dns.get(nameservers)
        if query is None:
            made = DNSQuery(
                nameservers, self._config.search, resolv_conf=self._resolv_conf, port=self._port
            )
            query = self._dns.setdefault(nameservers, made)
        return query
