"""One check of a connection: a live lookup of its name and a probe of its server."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns import observers, runtime
from airflow_provider_hokusai_dns.config import connections
from airflow_provider_hokusai_dns.exceptions import ConnectionMissingError, DNSResolutionError
from airflow_provider_hokusai_dns.gates.decision import DEFAULT_CHECKS, MISSING, PROBE_TIMEOUT
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.resolver.level import Level

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_hokusai_dns.resolver import DNSResolver
    from airflow_provider_hokusai_dns.server import MLflowServer

#: What a probe is left with when the lookup took all the time, seconds.
_LEAST_FOR_PROBE = 2.0


def check_connection(
    conn_id: str,
    *,
    checks: Collection[str] = DEFAULT_CHECKS,
    deadline: float = PROBE_TIMEOUT,
    written_by: str = "gate",
) -> Verdict:
    """Resolve the server of a connection anew, and probe it. Blocks, for a bounded time.

    A connection that is missing or wrong is a verdict too: somebody may be correcting it.

    :param deadline: seconds for all of it. After a lookup that took longer than its share the probe
        still gets two.
    :param written_by: stored beside the address, for people.
    """
    try:
        server = connections.load_server(conn_id)
    except (LookupError, ValueError) as error:
        return misconfigured(conn_id, error)
    return check_server(server, checks=checks, deadline=deadline, written_by=written_by)


def check_server(
    server: MLflowServer,
    *,
    checks: Collection[str] = DEFAULT_CHECKS,
    deadline: float = PROBE_TIMEOUT,
    written_by: str = "gate",
) -> Verdict:
    """:func:`check_connection` for a connection that has been read already."""
    try:
        resolver = runtime.resolver_for(server)
    except ValueError as error:
        return misconfigured(server.conn_id, error)
    verdict = check_with(server, resolver, checks=checks, deadline=deadline, written_by=written_by)
    _tell_breaker(server, verdict)
    return verdict


def check_with(
    server: MLflowServer,
    resolver: DNSResolver,
    *,
    checks: Collection[str] = DEFAULT_CHECKS,
    deadline: float = PROBE_TIMEOUT,
    written_by: str = "gate",
) -> Verdict:
    """The same for a server that is known, with a resolver of the caller's choice.

    It tells no breaker: the Test button uses a made-up connection id, which no other code uses and
    none would ever take away again.
    """
    from airflow_provider_hokusai_dns.health.probe import probe

    end = time.monotonic() + deadline
    share = max(deadline - _LEAST_FOR_PROBE, deadline / 2)
    try:
        found = resolver.refresh(server.hostname, written_by=written_by, patience=share)
    except DNSResolutionError as error:
        verdict = probe(server, error, checks=checks, deadline=deadline)
    else:
        verdict = probe(
            server,
            found,
            checks=checks,
            deadline=max(_LEAST_FOR_PROBE, end - time.monotonic()),
            report=lambda address: resolver.report_failure(server.hostname, address),
        )
    if verdict.latencies:
        observers.count_probe(server.hostname, sum(verdict.latencies.values()))
    runtime.wait_under_dag_test()
    return verdict


def _tell_breaker(server: MLflowServer, verdict: Verdict) -> None:
    """A check is never refused, it is rare and bounded; but it tells the other entrances."""
    from airflow_provider_hokusai_dns.exceptions import BreakerOpenError
    from airflow_provider_hokusai_dns.health.breaker import breaker_for

    breaker = breaker_for(server)
    before = breaker.status().state
    if verdict.level is not Level.UNHEALTHY:
        breaker.reset()
    try:
        with breaker.attempt() as attempt:
            attempt.verdict(verdict)
    except BreakerOpenError:
        pass
    if (after := breaker.status().state) is not before:
        observers.count_breaker(after.value)


def former_status(conn_id: str) -> dict[str, Any]:
    """How MLflow is, with the keys of the former system. Probes once; never raises."""
    from airflow_provider_hokusai_dns.health.breaker import breaker_for

    verdict = check_connection(conn_id, written_by="hook")
    report: dict[str, Any] = {
        "connected": verdict.level is not Level.UNHEALTHY,
        "tracking_uri": verdict.tracking_uri or None,
        "error": None if verdict.level is not Level.UNHEALTHY else verdict.sentence,
        "response_time_ms": round(sum(verdict.latencies.values()), 1) or None,
        "circuit_breaker_state": "closed",
        "dns_resolution": {
            "raw_uri": verdict.tracking_uri or None,
            "resolved_uri": None,
            "metrics": runtime.metrics(),
            "health": "unknown",
        },
        "verdict": dict(verdict.as_dict()),
    }
    try:
        server = connections.load_server(conn_id)
        names = runtime.resolver_for(server)
        report["circuit_breaker_state"] = breaker_for(server).status().state.value
        report["dns_resolution"]["health"] = names.state(server.hostname).value
        report["dns_resolution"]["resolved_uri"] = str(names.resolve(server.uri))
    except (LookupError, ValueError, DNSResolutionError):
        pass  # the verdict says it
    return report


def misconfigured(conn_id: str, error: Exception) -> Verdict:
    """The verdict on a connection that is missing or wrong."""
    missing = isinstance(error, ConnectionMissingError)
    sentence = str(error)
    if missing:
        sentence += (
            " If it does exist, Airflow cannot read it just now (API server, secrets backend): "
            "a gate looks again until its timeout."
        )
    return Verdict(
        state=State.CONFIG,
        cause=MISSING if missing else "connection",
        sentence=sentence,
        conn_id=conn_id,
        tracking_uri="",
        checked_at=datetime.now(UTC),
    )
