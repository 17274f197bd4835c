"""What a gate looks at, and when it gives up. Shared by the sensor, its trigger and the endpoints.

The look itself (:func:`look`) is one live lookup and one probe. The decision (:class:`Strikes`) is
pure.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from airflow_provider_hokusai_dns import runtime, settings, stats
from airflow_provider_hokusai_dns.resolver import DNSResolutionError
from airflow_provider_hokusai_dns.tracking.verdict import LEVELS, State, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow_provider_hokusai_dns.resolver import DNSResolver
    from airflow_provider_hokusai_dns.tracking.server import MLflowServer
    from airflow_provider_hokusai_dns.tracking.verdict import VerdictDict

#: A cause that waiting cannot cure must be seen this often in a row.
STRIKES = 3
DEFAULT_CHECKS = ("dns", "tracking", "registry")
ALL_CHECKS = (*DEFAULT_CHECKS, "artifact")
#: Two causes that stand beside the states in ``fail_fast_on``: Airflow did not give out the
#: connection, and it says clearly that there is none. A gate gives up on the second by default; the
#: first may pass, and includes the second where an author names it.
MISSING, UNDEFINED = "missing", "undefined"
DEFAULT_FAIL_FAST = (
    "unauthenticated",
    "forbidden",
    "host_rejected",
    "tls_error",
    "workspace_missing",
    "config",
    UNDEFINED,
)
#: Seconds for one look, the lookup of the name included (feature B5).
PROBE_TIMEOUT = 10.0
#: What a probe is left with when the lookup took all the time, seconds.
_LEAST_FOR_PROBE = 2.0
EVENT_VERSION = 1
#: Of :class:`GatePayload`. Version 2 had no ``silent_fail`` and no ``seen``, version 1 no
#: ``end_from_trigger`` and no ``do_xcom_push``; before it there was none.
PAYLOAD_VERSION = 3


class GateEvent(TypedDict):
    """What the trigger tells the sensor."""

    version: int
    open: bool
    verdict: VerdictDict
    #: The wait took too long; else a gate that is not open is one that waiting cannot open.
    timed_out: NotRequired[bool]


class GatePayload(TypedDict):
    """What makes a trigger: it waits in the database, also while packages are upgraded."""

    version: int
    mlflow_conn_id: str
    min_health: str
    checks: list[str]
    fail_fast_on: list[str]
    poke_interval: float
    probe_timeout: float
    delay: float
    strikes: NotRequired[dict[str, Any]]
    end_from_trigger: bool
    do_xcom_push: bool
    #: Go on after a check that raised an exception.
    silent_fail: bool
    #: What the worker saw before it deferred.
    seen: NotRequired[VerdictDict | None]


@dataclass(frozen=True, slots=True)
class Strikes:
    """How often in a row a gate saw the same cause that waiting cannot cure."""

    cause: str = ""
    count: int = 0

    def after(self, verdict: Verdict, fail_fast_on: Collection[str]) -> Strikes:
        """The count after one more look."""
        cause = verdict.cause if verdict.cause in (MISSING, UNDEFINED) else verdict.state.value
        if cause not in fail_fast_on and not (cause == UNDEFINED and MISSING in fail_fast_on):
            return Strikes()
        return replace(self, count=self.count + 1) if cause == self.cause else Strikes(cause, 1)

    @property
    def out(self) -> bool:
        """Whether waiting on is of no use."""
        return self.count >= STRIKES

    def as_dict(self) -> dict[str, Any]:
        """These strikes as JSON-safe values."""
        return {"cause": self.cause, "count": self.count}

    @classmethod
    def from_dict(cls, value: object) -> Strikes:
        """The strikes behind :meth:`as_dict`; none where the value is something else."""
        match value:
            case {"cause": str() as cause, "count": int() as count}:
                return cls(cause, count)
        return cls()


def check_arguments(
    min_health: str,
    checks: Iterable[str],
    fail_fast_on: Iterable[str],
    probe_timeout: float = PROBE_TIMEOUT,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check what the author of a gate asks for.

    :raises ValueError: names the argument and the value.
    """
    wanted, fatal = tuple(checks), tuple(fail_fast_on)
    if min_health not in LEVELS[1:]:
        raise ValueError(f'min_health is "healthy" or "degraded", not {min_health!r}')
    for check in wanted:
        if check not in ALL_CHECKS:
            raise ValueError(f"checks may hold {', '.join(ALL_CHECKS)}, not {check!r}")
    if not wanted:
        raise ValueError(f"checks is empty; it may hold {', '.join(ALL_CHECKS)}")
    states = [*(state.value for state in State if state.value not in LEVELS), MISSING, UNDEFINED]
    for state in fatal:
        if state not in states:
            raise ValueError(f"fail_fast_on may hold {', '.join(states)}, not {state!r}")
    if not probe_timeout > 0:
        raise ValueError(f"probe_timeout is a number of seconds above 0, not {probe_timeout!r}")
    return wanted, fatal


def look(
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
        server = settings.load_server(conn_id)
    except (LookupError, ValueError) as error:
        return misconfigured(conn_id, error)
    return look_at_server(server, checks=checks, deadline=deadline, written_by=written_by)


def look_at_server(
    server: MLflowServer,
    *,
    checks: Collection[str] = DEFAULT_CHECKS,
    deadline: float = PROBE_TIMEOUT,
    written_by: str = "gate",
) -> Verdict:
    """:func:`look` for a connection that has been read already."""
    try:
        resolver = runtime.resolver_for(server)
    except ValueError as error:
        return misconfigured(server.conn_id, error)
    verdict = look_at(server, resolver, checks=checks, deadline=deadline, written_by=written_by)
    _tell_breaker(server, verdict)
    return verdict


def look_at(
    server: MLflowServer,
    resolver: DNSResolver,
    *,
    checks: Collection[str] = DEFAULT_CHECKS,
    deadline: float = PROBE_TIMEOUT,
    written_by: str = "gate",
) -> Verdict:
    """The same for a server that is known, with a resolver of the caller's choice.

    It tells no breaker: the Test button looks under a made-up connection id, which nobody else uses
    and nobody would ever take away again.
    """
    from airflow_provider_hokusai_dns.tracking.probe import probe

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
        stats.count_probe(server.hostname, sum(verdict.latencies.values()))
    runtime.settle()
    return verdict


def _tell_breaker(server: MLflowServer, verdict: Verdict) -> None:
    """A look is never refused, it is rare and bounded; but it tells the other entrances."""
    from airflow_provider_hokusai_dns.tracking.breaker import BreakerOpenError, breaker_for

    breaker = breaker_for(server)
    before = breaker.status().state
    if verdict.level != "unhealthy":
        breaker.reset()
    try:
        with breaker.attempt() as attempt:
            attempt.verdict(verdict)
    except BreakerOpenError:
        pass
    if (after := breaker.status().state) is not before:
        stats.count_breaker(after.value)


def status(conn_id: str) -> dict[str, Any]:
    """How MLflow is, with the keys of the former system. Probes once; never raises."""
    from airflow_provider_hokusai_dns.tracking.breaker import breaker_for

    verdict = look(conn_id, written_by="hook")
    report: dict[str, Any] = {
        "connected": verdict.level != "unhealthy",
        "tracking_uri": verdict.tracking_uri or None,
        "error": None if verdict.level != "unhealthy" else verdict.sentence,
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
        server = settings.load_server(conn_id)
        names = runtime.resolver_for(server)
        report["circuit_breaker_state"] = breaker_for(server).status().state.value
        report["dns_resolution"]["health"] = names.state(server.hostname)
        report["dns_resolution"]["resolved_uri"] = str(names.resolve(server.uri))
    except (LookupError, ValueError, DNSResolutionError):
        pass  # the verdict says it
    return report


def misconfigured(conn_id: str, error: Exception) -> Verdict:
    """The verdict on a connection that is missing or wrong."""
    cause, sentence = "connection", str(error)
    if isinstance(error, settings.ConnectionUndefinedError):
        cause = UNDEFINED
    elif isinstance(error, settings.ConnectionMissingError):
        cause = MISSING
        sentence += (
            " If it does exist, Airflow cannot read it just now (API server, secrets backend): "
            "a gate checks again until its timeout. While the API server does not answer, Airflow "
            "stops a gate in poke mode before that."
        )
    return Verdict(
        state=State.CONFIG,
        cause=cause,
        sentence=sentence,
        conn_id=conn_id,
        tracking_uri="",
        checked_at=datetime.now(UTC),
    )


def unchecked(conn_id: str) -> Verdict:
    """The verdict of a gate whose time was up before its first check had ended."""
    return Verdict(
        state=State.UNREACHABLE,
        cause="timeout",
        sentence="No check of MLflow ended before the gate's time was up: give the gate more time "
        "than probe_timeout.",
        conn_id=conn_id,
        tracking_uri="",
        checked_at=datetime.now(UTC),
    )


def log_level(verdict: Verdict) -> int:
    """At which level a verdict is logged: what is not healthy is a warning."""
    return logging.INFO if verdict.level == "healthy" else logging.WARNING


def in_one_line(verdict: Verdict, strikes: Strikes = Strikes()) -> str:
    """A verdict for the log: what is, why, and whether the gate will go on waiting for it."""
    line = f"MLflow is {verdict.level}"
    if verdict.level != verdict.state.value:
        line += f" ({verdict.state.value.replace('_', ' ')})"
    line += f": {verdict.sentence}"
    if strikes.count:
        line += f" Seen {strikes.count} of {STRIKES} times; then the wait ends."
    return line
