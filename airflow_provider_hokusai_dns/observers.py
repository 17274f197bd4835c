"""Events of the resolver and verdicts of probes, as Airflow metrics and as log lines.

A metric's name contains no hostname: plain StatsD has no tags, and would get one series per host.
For backends with tags, the hostname is a tag.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

from airflow_provider_hokusai_dns.resolver import DNSResolver, Event, Resolution, Source, forks
from airflow_provider_hokusai_dns.resolver.wording import (
    ORIGINS,
    stale_limit_in_words,
    what_is_remembered,
    what_to_check,
)
from airflow_provider_hokusai_dns.resolver.workers import Workers

log = logging.getLogger(__name__)

PREFIX = "hokusai_dns"
#: Seconds that a caller waits for the first metric of its process.
_PATIENCE = 0.5


def _stats() -> Any:
    from airflow.providers.common.compat.sdk import Stats

    return Stats


class _Sender:
    """Sends metrics, without making a lookup or check wait for a StatsD server's name.

    With the first metric of a process, and of a forked child, Airflow looks up that name, which
    takes many seconds while DNS is silent. Until that has ended, metrics are sent on a thread.
    """

    def __init__(self) -> None:
        self._thread = Workers("hokusai-dns-metrics", limit=1)
        self.renew_after_fork()
        forks.renewed(self)

    def renew_after_fork(self) -> None:
        self._first: Future[None] | None = None

    def __call__(self, send: Callable[[], None]) -> None:
        first = self._first
        if first is not None and first.done():
            send()
            return
        sent = self._thread.call(send)
        if first is None:
            self._first = sent
            wait([sent], _PATIENCE)


_send = _Sender()


def count_event(event: Event) -> None:
    """Observe a resolver: count lookups, errors by cause, cache hits, stale and static answers."""
    _send(partial(_count, event))


def _count(event: Event) -> None:
    stats, tags = _stats(), {"hostname": event.hostname}
    # Counted since the last event, because an answer from memory emits no event.
    for name, count in (
        ("cache_hit", event.hits),
        ("stale_served", event.stale + event.stored),
        ("static_served", event.static),
    ):
        if count:
            stats.incr(f"{PREFIX}.{name}", count)
    if event.seconds is not None:
        stats.incr(f"{PREFIX}.lookup", tags=tags)
        stats.timing(f"{PREFIX}.lookup_ms", event.seconds * 1000, tags=tags)
    if event.kind == "lookup_failed" and event.cause is not None:
        stats.incr(f"{PREFIX}.error.{event.cause.value}", tags=tags)


def count_probe(hostname: str, milliseconds: float | None) -> None:
    """Record how long one probe took, if it took place."""
    if milliseconds is not None:
        tags = {"hostname": hostname}
        _send(lambda: _stats().timing(f"{PREFIX}.probe_ms", milliseconds, tags=tags))


def count_breaker(state: str) -> None:
    """Count a change of a circuit breaker, by its new state."""
    _send(lambda: _stats().incr(f"{PREFIX}.breaker.{state}"))


class LogObserver:
    """Logs the state of each name: one line per change, and what to do about it."""

    def __init__(self, resolver: DNSResolver) -> None:
        self._resolver = resolver
        self._logged: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Observe a resolver."""
        if event.kind in ("stale_served", "static_served") and event.resolution is not None:
            # Slow DNS is not logged while there is an answer in memory. A stored address is: it may
            # be hours old, and a short task ends before the lookup does.
            slow_only = event.cause is None and event.resolution.source is Source.STALE
            if not slow_only:
                self._log_stale(event, event.resolution)
        elif event.kind == "state" and event.state == "unhealthy":
            self._log_unresolved(event)
        elif event.kind == "lookup":  # a refresh may have failed while the name stayed healthy
            if self._logged.pop(event.hostname, None) is not None:
                origin = ORIGINS[event.source or Source.DNS]
                who = origin[0].upper() + origin[1:]
                named = self._named(event.hostname)
                log.info("%s answers for %s: the name is healthy again", who, named)
        elif event.kind == "store_rejected":
            log.warning("The stored address of %r is not used: %s", event.hostname, event.detail)

    def _log_stale(self, event: Event, resolution: Resolution) -> None:
        limit = stale_limit_in_words(resolution)
        story = f"{resolution.source.value} {event.cause} {limit} {sorted(resolution.places)}"
        if self._logged.get(event.hostname) == story:
            return
        self._logged[event.hostname] = story
        named = self._named(event.hostname)
        why = f"DNS has not answered yet for {named}"
        if event.cause is not None:
            why = f"DNS returns no address for {named} ({event.cause.value})"
        if resolution.source is Source.STATIC:
            log.warning(
                "%s and no stale or stored address can be used: using the static address %s. It is "
                "never checked against DNS: remove it when DNS is back",
                why,
                resolution.address,
            )
            return
        log.warning(
            "%s: using %s from %s, %.0f s old. It stays in use for up to %s. %s",
            why,
            resolution.places[0],
            ORIGINS[resolution.source],
            resolution.age() or 0.0,
            limit,
            what_to_check(event.cause, is_known=True),
        )

    def _log_unresolved(self, event: Event) -> None:
        if self._logged.get(event.hostname) == "nothing":
            return
        self._logged[event.hostname] = "nothing"
        log.error(
            "DNS returns no address for %s (%s) and %s. %s; in an emergency set "
            "fallback_addresses on the connection",
            self._named(event.hostname),
            event.cause.value if event.cause else "no answer",
            what_is_remembered(is_known=event.is_known, is_unread=event.is_unread),
            what_to_check(event.cause, is_known=event.is_known),
        )

    def _named(self, hostname: str) -> str:
        """A name, with the SRV record that is looked up instead of it, if there is one."""
        srv = self._resolver.config.srv_for(hostname)
        return repr(hostname) if srv is None else f"{hostname!r} (SRV record {srv!r})"
