"""What a gate does with a verdict, and when it gives up. Pure; versioned where it is persisted."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NotRequired, TypedDict

from airflow_provider_hokusai_dns.config.fields import check_seconds
from airflow_provider_hokusai_dns.health.reply import ALL_CHECKS
from airflow_provider_hokusai_dns.health.reply import DEFAULT_CHECKS as DEFAULT_CHECKS
from airflow_provider_hokusai_dns.health.verdict import State, Verdict, VerdictDict
from airflow_provider_hokusai_dns.resolver.level import USABLE, Level

#: How many checks in a row must find a cause that retrying will not fix before a gate gives up.
STRIKES = 3
#: Two causes that ``fail_fast_on`` accepts besides states. Missing: Airflow did not return the
#: connection, perhaps only for now. Undefined: Airflow reports that it does not exist. By default a
#: gate gives up on the second only; an author who names the first includes the second.
MISSING, UNDEFINED = "missing", "undefined"
NOT_GIVEN = (MISSING, UNDEFINED)
DEFAULT_FAIL_FAST = (
    "unauthenticated",
    "forbidden",
    "host_rejected",
    "tls_error",
    "workspace_missing",
    "config",
    UNDEFINED,
)
#: Seconds for one check, the lookup of the name included.
PROBE_TIMEOUT = 10.0
EVENT_VERSION = 1
#: Of :class:`GatePayload`. Version 2 had no ``silent_fail`` and no ``seen``, version 1 no
#: ``end_from_trigger`` and no ``do_xcom_push``; older payloads have no version.
PAYLOAD_VERSION = 3


class GateEvent(TypedDict):
    """The event that the trigger sends to the sensor."""

    version: int
    open: bool
    verdict: VerdictDict
    #: Whether a gate that is not open timed out; otherwise retrying will not help.
    timed_out: NotRequired[bool]


class GatePayload(TypedDict):
    """A trigger's arguments. They stay in the database, even while packages are upgraded."""

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
    #: Continue after a check that raised an exception.
    silent_fail: bool
    #: What the worker saw before it deferred.
    seen: NotRequired[VerdictDict | None]


def permanent_cause(verdict: Verdict, fail_fast_on: Collection[str] = DEFAULT_FAIL_FAST) -> str:
    """The cause that retrying will not fix, as ``fail_fast_on`` names it; empty if it may pass."""
    cause = verdict.cause if verdict.cause in NOT_GIVEN else verdict.state.value
    is_named = cause in fail_fast_on or (cause == UNDEFINED and MISSING in fail_fast_on)
    return cause if is_named else ""


@dataclass(frozen=True, slots=True)
class Strikes:
    """How many checks in a row found the same cause that retrying will not fix."""

    cause: str = ""
    count: int = 0

    def after(self, verdict: Verdict, fail_fast_on: Collection[str]) -> Strikes:
        """The count after one more check."""
        if not (cause := permanent_cause(verdict, fail_fast_on)):
            return Strikes()
        return replace(self, count=self.count + 1) if cause == self.cause else Strikes(cause, 1)

    @property
    def out(self) -> bool:
        """Whether further waiting will not help."""
        return self.count >= STRIKES

    def as_dict(self) -> dict[str, Any]:
        """The strikes as JSON-safe values."""
        return {"cause": self.cause, "count": self.count}

    @classmethod
    def from_dict(cls, value: object) -> Strikes:
        """Read the output of :meth:`as_dict`; no strikes if the value is anything else."""
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
    """Check the arguments of a gate.

    :raises ValueError: an argument is wrong; the error names it and its value.
    """
    for name, given in (("checks", checks), ("fail_fast_on", fail_fast_on)):
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ValueError(f"{name} must be a list of words, not {given!r}")
    wanted, fatal = tuple(checks), tuple(fail_fast_on)
    if min_health not in USABLE:
        raise ValueError(f'min_health must be "healthy" or "degraded", not {min_health!r}')
    if not wanted:
        raise ValueError(f"checks is empty; it may contain {', '.join(ALL_CHECKS)}")
    states = (*(state.value for state in State if state.value not in USABLE), *NOT_GIVEN)
    for name, words, known in (("checks", wanted, ALL_CHECKS), ("fail_fast_on", fatal, states)):
        for word in words:
            if word not in known:
                raise ValueError(f"{name} may contain {', '.join(known)}, not {word!r}")
    check_seconds("probe_timeout", probe_timeout)
    return wanted, fatal


def unchecked(conn_id: str, *, by_triggerer: bool = False) -> Verdict:
    """The verdict of a gate that timed out before its first check had ended.

    :param by_triggerer: Airflow's scheduler ended the wait, because the triggerer did not.
    """
    return Verdict(
        state=State.UNREACHABLE,
        cause="timeout",
        sentence=(
            "The triggerer reported no check before the gate timed out: is it running, and does it "
            "keep up with its triggers?"
            if by_triggerer
            else "No check of MLflow finished before the gate timed out: make the timeout of the "
            "gate longer than probe_timeout."
        ),
        conn_id=conn_id,
        tracking_uri="",
        checked_at=datetime.now(UTC),
    )


def log_level(verdict: Verdict) -> int:
    """The level at which a verdict is logged: warning, unless it is healthy."""
    return logging.INFO if verdict.level is Level.HEALTHY else logging.WARNING


def in_one_line(verdict: Verdict, strikes: Strikes = Strikes()) -> str:
    """A verdict for the log: the state, the reason, and whether the gate continues to wait."""
    line = f"MLflow is {verdict.level}"
    if verdict.level != verdict.state.value:
        line += f" ({verdict.state.value.replace('_', ' ')})"
    line += f": {verdict.sentence}"
    if strikes.count:
        line += f" Check {strikes.count} of {STRIKES}; after check {STRIKES} the gate gives up."
    return line
