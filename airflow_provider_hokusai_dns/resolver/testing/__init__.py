"""Doubles for tests of code that resolves names: yours as well as ours.

They are public, and kept stable like the rest of the package. None of them sleeps. Each one that
starts something is a context manager that leaves no thread and no socket behind::

    from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
    from airflow_provider_hokusai_dns.resolver.testing import DNSServer, ManualClock

    def test_training_survives_a_redeploy_of_mlflow():
        with DNSServer() as dns:
            dns.set_records("mlflow.example.local", ["10.0.0.1", "fd00::1"], ttl=10)
            clock = ManualClock()
            resolver = DNSResolver(ResolverConfig(nameservers=(dns.address,)), clock=clock)
            assert resolver.resolve("mlflow.example.local").source == "dns"

            dns.no_such_name("mlflow.example.local")
            clock.advance(60)
            assert resolver.resolve("mlflow.example.local").is_stale
            assert dns.count("mlflow.example.local", "A") == 2

* :class:`ManualClock`: a clock that advances only when the test says so.
* :class:`ScriptedLookup`: a lookup without a network, whose answers the test sets beforehand.
* :class:`MemoryStore`: the shared last-known-good in a dictionary, slow or unreachable on demand.
* :class:`DNSServer`: real packets over UDP and TCP, with faults per name. As a separate process:
  ``python -m airflow_provider_hokusai_dns.resolver.testing --help``.
"""

from __future__ import annotations

from airflow_provider_hokusai_dns.resolver.testing.control import send_command
from airflow_provider_hokusai_dns.resolver.testing.doubles import (
    ManualClock,
    MemoryStore,
    Outcome,
    ScriptedLookup,
)
from airflow_provider_hokusai_dns.resolver.testing.faults import ANY, Fault, Query
from airflow_provider_hokusai_dns.resolver.testing.server import DNSServer
from airflow_provider_hokusai_dns.resolver.testing.zone import Zone

__all__ = [
    "ANY",
    "DNSServer",
    "Fault",
    "ManualClock",
    "MemoryStore",
    "Outcome",
    "Query",
    "ScriptedLookup",
    "Zone",
    "send_command",
]
