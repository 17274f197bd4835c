"""One check of a connection: a live lookup of its name and a probe of its server."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_provider_hokusai_dns import observers, runtime
from airflow_provider_hokusai_dns.config import connections
from airflow_provider_hokusai_dns.config.errors import (
    ConnectionMissingError,
    ConnectionUndefinedError,
    as_sentence,
)
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.gates import decision
from airflow_provider_hokusai_dns.gates.connection_health import ConnectionHealth, ConnectionTarget
from airflow_provider_hokusai_dns.health.breaker import breaker_for, is_of_mlflow
from airflow_provider_hokusai_dns.health.errors import BreakerOpenError
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.resolver import DNSResolver, Resolution
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.target import Target

#: Seconds that a probe still gets when the lookup took all the time.
_LEAST_FOR_PROBE = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    :param server: the server of the connection; ``None`` if that is missing or wrong.
    :param resolution: what its name resolves to; ``None`` if there was no address to serve.
    """

    verdict: Verdict
    server: MLflowServer | None = None
    resolution: Resolution | None = None


def check_connection(
    conn_id: str,
    *,
    checks: Collection[str] = decision.DEFAULT_CHECKS,
    deadline: float = decision.PROBE_TIMEOUT,
    written_by: str = "gate",
) -> Check:
    """Look up the server of a connection, and probe it. Blocks, for a bounded time.

    A missing or wrong connection is a verdict too: it may be corrected in the meantime.

    :param deadline: seconds for all of it. After a lookup that took longer than its share the probe
        still gets two.
    :param written_by: stored with the address, for people to read.
    """
    try:
        server = connections.load_server(conn_id)
    except (LookupError, ValueError) as error:
        return misconfigured(conn_id, error)
    return check_server(server, checks=checks, deadline=deadline, written_by=written_by)


def check_server(
    server: MLflowServer,
    *,
    private: DNSResolver | None = None,
    checks: Collection[str] = decision.DEFAULT_CHECKS,
    deadline: float = decision.PROBE_TIMEOUT,
    written_by: str = "gate",
) -> Check:
    """:func:`check_connection` for a connection that has been read already.

    :param private: a resolver to use instead of the process's. No breaker is updated then: the
        Test button uses a generated connection id, whose breaker no other code would use or remove.
    """
    from airflow_provider_hokusai_dns.health.probe import probe

    try:
        resolver = runtime.resolver_for_server(server) if private is None else private
    except ValueError as error:
        return misconfigured(server.conn_id, error)
    end = time.monotonic() + deadline
    share = max(deadline - _LEAST_FOR_PROBE, deadline / 2)
    found = None
    try:
        found = resolver.refresh(server.connect_uri, written_by=written_by, patience=share)
    except DNSResolutionError as error:
        verdict = probe(server, error, checks=checks, deadline=deadline)
    else:
        verdict = probe(
            server,
            found,
            checks=checks,
            deadline=max(_LEAST_FOR_PROBE, end - time.monotonic()),
            report=lambda place: resolver.report_failure(server.connect_host, *place[:2]),
        )
    observers.count_probe(server.hostname, verdict.milliseconds)
    if private is None:
        _tell_breaker(server, verdict)
        runtime.follow_policy()  # for the next check: a process that only checks asks no store
    return Check(verdict, server, found)


def _tell_breaker(server: MLflowServer, verdict: Verdict) -> None:
    """Update the breaker. It never refuses a check, because checks are rare and bounded."""
    breaker = breaker_for(server, observers.count_breaker)
    if is_of_mlflow(verdict):
        breaker.reset()
    with suppress(BreakerOpenError), breaker.attempt() as call:
        call.verdict(verdict)


def target_of(server: MLflowServer) -> ConnectionTarget:
    """The target of a connection, with the stored record of its name."""
    config = runtime.resolver_for_server(server).config
    target = Target.parse(server.connect_host)
    record = problem = None
    if target.literal is None:
        record, problem, _ = runtime.store(server.view.asked).examine(target.hostname)
    return ConnectionTarget.of(server, config, record, problem)


def former_status(conn_id: str) -> dict[str, Any]:
    """The state of MLflow, with the keys of the former system. Probes once; never raises."""
    done = check_connection(conn_id, written_by="hook")
    verdict, server = done.verdict, done.server
    breaker = "closed" if server is None else breaker_for(server).status().state.value
    return {
        "connected": verdict.level is not Level.UNHEALTHY,
        "tracking_uri": verdict.tracking_uri or None,
        "error": None if verdict.level is not Level.UNHEALTHY else verdict.sentence,
        "response_time_ms": verdict.milliseconds,
        "circuit_breaker_state": breaker,
        "dns_resolution": {
            "raw_uri": verdict.tracking_uri or None,
            "resolved_uri": None if done.resolution is None else str(done.resolution),
            "metrics": runtime.metrics(),
            "health": ConnectionHealth(conn_id, verdict=verdict, found=done.resolution).dns.value,
        },
        "verdict": dict(verdict.as_dict()),
    }


def misconfigured(conn_id: str, error: Exception) -> Check:
    """The check of a connection that is missing or wrong."""
    cause, sentence = "connection", as_sentence(error)
    if isinstance(error, ConnectionUndefinedError):
        cause = decision.UNDEFINED
    elif isinstance(error, ConnectionMissingError):
        cause = decision.MISSING
        sentence += (
            " A gate checks again until its timeout. While the API server does not answer, Airflow "
            "stops a gate in poke mode before that."
        )
    verdict = Verdict(
        state=State.CONFIG,
        cause=cause,
        sentence=sentence,
        conn_id=conn_id,
        tracking_uri="",
        checked_at=datetime.now(UTC),
    )
    return Check(verdict)
