"""A lookup over DNS alone: no hosts file, and no help of the system."""

from __future__ import annotations

import contextlib

from airflow_provider_hokusai_dns.resolver.lookup.pending_dns import PendingDNSLookup
from airflow_provider_hokusai_dns.resolver.lookup.stub_resolver import StubResolver
from airflow_provider_hokusai_dns.resolver.model import Answer


class DNSAlone(StubResolver):
    """What a :class:`StubResolver` plans, driven to its outcome on this thread."""

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        pending = PendingDNSLookup(self.plan(hostname, timeout, hint=hint))
        with contextlib.closing(pending):
            pending.run(timeout)
        if isinstance(pending.outcome, Answer):
            return pending.outcome
        assert pending.outcome is not None
        raise pending.outcome
