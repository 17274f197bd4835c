"""One live lookup: hosts file, then DNS and, in parallel, the system's own (policy, The order).

A further source would be begun here, as a :class:`~.pending.PendingLookup`; it needs a member of
:class:`~.model.Source`, its words in :mod:`~.wording`, and a step in :mod:`~.cli.explain`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
from airflow_provider_hokusai_dns.resolver.lookup.files import WatchedFile, parse_hosts
from airflow_provider_hokusai_dns.resolver.lookup.pending import PendingLookup
from airflow_provider_hokusai_dns.resolver.lookup.pending_dns import PendingDNSLookup
from airflow_provider_hokusai_dns.resolver.lookup.srv import PendingSRVLookup
from airflow_provider_hokusai_dns.resolver.lookup.stub_resolver import StubResolver
from airflow_provider_hokusai_dns.resolver.lookup.system import SystemCalls, SystemLookup
from airflow_provider_hokusai_dns.resolver.model import Answer, Endpoint, Lookup, Source

#: Seconds until the hosts file is read again: it is edited in an emergency.
_HOSTS_TTL = 10.0
#: Seconds of DNS alone before the system's own lookup runs beside it. On a good day DNS answers
#: within milliseconds, and nothing is asked twice.
HEAD_START = 1.0


class LiveLookup:
    """The default lookup.

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
        self._stubs: dict[tuple[str, ...], StubResolver] = {}

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        """Look a hostname up on this thread; see :class:`~.model.Lookup`."""
        pending = self.begin(hostname, timeout=timeout, hint=hint, thorough=thorough)
        return pending.run_to_outcome(timeout)

    def begin(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> PendingLookup:
        """Start a lookup that its caller drives; see :class:`~.pending.PendingLookup`."""
        nameservers = self._config.nameservers_for(hostname)
        stub = self._stub(nameservers)
        if service := self._config.srv_for(hostname):
            return PendingSRVLookup(stub, service, timeout, hint, self._in_hosts)
        if addresses := self._in_hosts(hostname):
            endpoints = tuple(Endpoint(address) for address in addresses)
            return PendingLookup(Answer(endpoints, Source.HOSTS, ttl=_HOSTS_TTL))
        plan = stub.plan(hostname, timeout, hint=hint)
        if nameservers:  # the author named who is to be asked: nothing else is
            return PendingDNSLookup(plan)
        pending = PendingDNSLookup(plan, partial(self.system.call, hostname), self.head_start)
        pending.thorough = thorough
        return pending

    def _in_hosts(self, hostname: str) -> tuple[str, ...]:
        return self.hosts.value().get(hostname.removesuffix("."), ())

    def _stub(self, nameservers: tuple[str, ...]) -> StubResolver:
        """Lookups at these nameservers; those of the system, if there are none."""
        stub = self._stubs.get(nameservers)
        if stub is None:
            made = StubResolver(
                nameservers, self._config.search, resolv_conf=self._resolv_conf, port=self._port
            )
            stub = self._stubs.setdefault(nameservers, made)
        return stub
