"""Resolve names so that they keep working when DNS does not. Imports neither Airflow nor MLflow.

Its names are imported when they are first used, so that a single module costs next to nothing in a
process that resolves no name: MLflow imports :mod:`~..client.auth` in every one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
    from airflow_provider_hokusai_dns.resolver.errors import (
        DNSResolutionError,
        LookupFailed,
        StoreOverdue,
        StoreUnreadableError,
    )
    from airflow_provider_hokusai_dns.resolver.metrics import DNSMetrics, Event
    from airflow_provider_hokusai_dns.resolver.model import (
        Answer,
        Attempt,
        Cause,
        Endpoint,
        LastKnownGood,
        Lookup,
        Resolution,
        Source,
        Store,
    )
    from airflow_provider_hokusai_dns.resolver.resolver import DNSResolver

__all__ = [
    "Answer",
    "Attempt",
    "Cause",
    "DNSMetrics",
    "DNSResolutionError",
    "DNSResolver",
    "Endpoint",
    "Event",
    "LastKnownGood",
    "Lookup",
    "LookupFailed",
    "Resolution",
    "ResolverConfig",
    "Source",
    "Store",
    "StoreOverdue",
    "StoreUnreadableError",
]
#: Where each name is that is not in :mod:`.model`.
_MODULES = {
    "DNSMetrics": ".metrics",
    "DNSResolutionError": ".errors",
    "DNSResolver": ".resolver",
    "Event": ".metrics",
    "LookupFailed": ".errors",
    "ResolverConfig": ".config",
    "StoreOverdue": ".errors",
    "StoreUnreadableError": ".errors",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES.get(name, ".model"), __name__), name)
    globals()[name] = value
    return value
