"""Resolve names so that they keep working when DNS does not. Imports neither Airflow nor MLflow."""

from __future__ import annotations

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError, LookupFailed
from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
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
]
