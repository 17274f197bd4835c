"""A lookup over DNS alone: no hosts file, and no help of the system."""

from __future__ import annotations

from airflow_provider_hokusai_dns.resolver.lookup.pending_dns import PendingDNSLookup
from airflow_provider_hokusai_dns.resolver.lookup.stub_resolver import StubResolver
from airflow_provider_hokusai_dns.resolver.model import Answer


class DNSAlone(StubResolver):
    """What a :class:`StubResolver` plans, driven to its outcome on this thread."""

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        plan = self.plan(hostname, timeout, hint=hint)
        return PendingDNSLookup(plan).run_to_outcome(timeout)
