"""Events of the resolver and verdicts of probes as Airflow metrics.

No hostname stands in a name, because plain StatsD drops tags and would get one series per name;
where the backend keeps tags, the hostname is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver import Event

PREFIX = "hokusai_dns"


def _stats() -> Any:
    from airflow.providers.common.compat.sdk import Stats

    return Stats


def count_event(event: Event) -> None:
    """Observe a resolver: count lookups, errors by cause, cache hits, old and static answers."""
    stats, tags = _stats(), {"hostname": event.hostname}
    # Counted since the last event, because what is served from memory makes no event of its own.
    for name, count in (
        ("cache_hit", event.hits),
        ("stale_served", event.stale + event.stored),
        ("static_served", event.static),
    ):
        if count:
            stats.incr(f"{PREFIX}.{name}", count)
    if event.kind in ("lookup", "lookup_failed"):
        stats.incr(f"{PREFIX}.lookup", tags=tags)
        if event.seconds is not None:
            stats.timing(f"{PREFIX}.lookup_ms", event.seconds * 1000, tags=tags)
    if event.kind == "lookup_failed" and event.cause is not None:
        stats.incr(f"{PREFIX}.error.{event.cause.value}", tags=tags)


def count_probe(hostname: str, milliseconds: float) -> None:
    """Record how long one probe took."""
    _stats().timing(f"{PREFIX}.probe_ms", milliseconds, tags={"hostname": hostname})


def count_breaker(state: str) -> None:
    """Count a change of a circuit breaker's state."""
    _stats().incr(f"{PREFIX}.breaker.{state}")
