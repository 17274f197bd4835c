"""The trigger of a deferrable gate."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_hokusai_dns.config.fields import check_seconds
from airflow_provider_hokusai_dns.gates import decision
from airflow_provider_hokusai_dns.gates.shared_probes import (
    CheckFailedError,
    ProbeKey,
    TimedVerdict,
    shared_probe,
)
from airflow_provider_hokusai_dns.health.verdict import Verdict, VerdictDict

#: Seconds before Airflow ends the wait at which the trigger ends it, so that its event comes first;
#: and the share of a short wait.
_MARGIN, _MARGIN_SHARE = 1.0, 0.1


class MLflowHealthTrigger(BaseTrigger):
    """Fires when an MLflow server is healthy enough, or when retrying will not help.

    All triggers of a process with the same connection, ``checks`` and ``probe_timeout`` share one
    check per interval (:mod:`~airflow_provider_hokusai_dns.gates.shared_probes`). None blocks the
    event loop. Each change of the verdict is one log line. The event is a
    :class:`~airflow_provider_hokusai_dns.gates.decision.GateEvent`, or one that ends the task.

    :param mlflow_conn_id: the connection.
    :param min_health: ``"healthy"`` or ``"degraded"``.
    :param checks: what to check.
    :param fail_fast_on: states that end the wait after three checks in a row with the same one.
    :param poke_interval: seconds between two checks.
    :param probe_timeout: seconds for one check.
    :param delay: seconds before the first check; a worker may have checked just now.
    :param strikes: strikes so far, as :meth:`~.decision.Strikes.as_dict` returns them.
    :param end_from_trigger: whether an open gate ends its task here, without a worker.
    :param do_xcom_push: whether the verdict is the XCom of a task that ends here.
    :param silent_fail: whether to continue after a check that raised an exception.
    :param seen: the last verdict of the worker, as :meth:`~.Verdict.as_dict` returns it.
    :param version: the version of these arguments, which stay in the database while packages are
        upgraded. Arguments without a version were stored before versions existed.
    :param later: unknown arguments, which a newer version may have added.
    :raises TypeError: an argument is wrong; the error names it and its value. Only this trigger
        fails then; any other exception would stop the triggerer with all its triggers.
    """

    #: Set by the triggerer: when Airflow ends the wait.
    timeout_after: datetime | None = None

    def __init__(
        self,
        *,
        mlflow_conn_id: str = "mlflow_default",
        min_health: str = "degraded",
        checks: Sequence[str] = decision.DEFAULT_CHECKS,
        fail_fast_on: Sequence[str] = decision.DEFAULT_FAIL_FAST,
        poke_interval: float = 30.0,
        probe_timeout: float = decision.PROBE_TIMEOUT,
        delay: float = 0.0,
        strikes: Mapping[str, Any] | None = None,
        end_from_trigger: bool = False,
        do_xcom_push: bool = True,
        silent_fail: bool = False,
        seen: VerdictDict | None = None,
        version: int = decision.PAYLOAD_VERSION,
        **later: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if version not in range(1, decision.PAYLOAD_VERSION + 1):
            raise TypeError(
                f"this trigger reads its arguments up to version {decision.PAYLOAD_VERSION}, not "
                f"{version!r}: triggerer and workers must run the same version of "
                "airflow-provider-hokusai-dns"
            )
        if later:
            raise TypeError(f"unknown argument {', '.join(map(repr, sorted(later)))}")
        self.mlflow_conn_id = mlflow_conn_id
        self.min_health = min_health
        try:
            self.checks, self.fail_fast_on = decision.check_arguments(
                min_health, checks, fail_fast_on, probe_timeout
            )
            check_seconds("poke_interval", poke_interval, may_be_zero=True)
            check_seconds("delay", delay, may_be_zero=True)
        except ValueError as error:
            raise TypeError(str(error)) from None
        self.poke_interval = poke_interval
        self.probe_timeout = probe_timeout
        self.delay = delay
        self.strikes = decision.Strikes.from_dict(strikes)
        self.end_from_trigger = end_from_trigger
        self.do_xcom_push = do_xcom_push
        self.silent_fail = silent_fail
        self.seen = seen

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and the arguments that recreate this trigger."""
        payload = decision.GatePayload(
            version=decision.PAYLOAD_VERSION,
            mlflow_conn_id=self.mlflow_conn_id,
            min_health=self.min_health,
            checks=list(self.checks),
            fail_fast_on=list(self.fail_fast_on),
            poke_interval=self.poke_interval,
            probe_timeout=self.probe_timeout,
            delay=self.delay,
            strikes=self.strikes.as_dict(),
            end_from_trigger=self.end_from_trigger,
            do_xcom_push=self.do_xcom_push,
            silent_fail=self.silent_fail,
            seen=self.seen,
        )
        return f"{type(self).__module__}.{type(self).__qualname__}", dict(payload)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Check until the gate opens, gives up or runs out of time."""
        probe = shared_probe(ProbeKey.of(self.mlflow_conn_id, self.checks, self.probe_timeout))
        strikes, seen_last, told, pause = self.strikes, None, None, self.delay
        margin = min(_MARGIN, (self._seconds_left() or math.inf) * _MARGIN_SHARE)
        while True:
            left = self._seconds_left()
            try:
                async with asyncio.timeout(None if left is None else left - margin):
                    await asyncio.sleep(pause)
                    seen_last = await probe.next(self.poke_interval, after=seen_last)
            except TimeoutError:
                yield self._too_late(seen_last)
                return
            except CheckFailedError:
                if not self.silent_fail:
                    raise
                self.log.exception("A check failed; the gate continues, as silent_fail is set")
                pause = self.poke_interval
                continue
            pause, verdict = 0.0, seen_last.verdict
            strikes = strikes.after(verdict, self.fail_fast_on)
            news = (verdict.state, verdict.cause, verdict.dns_cause, strikes.count)
            if news != told:
                told = news
                self.log.log(
                    decision.log_level(verdict), "%s", decision.in_one_line(verdict, strikes)
                )
            if verdict.meets(self.min_health):
                yield await self._opening(verdict)
                return
            if strikes.out:
                yield _event(verdict, open=False)
                return

    def _seconds_left(self) -> float | None:
        """Seconds until Airflow ends the wait.

        The trigger ends it earlier, so that the task can report the last verdict.
        """
        end = self.timeout_after
        if end is None:
            return None
        end = end if end.tzinfo else end.replace(tzinfo=UTC)
        return (end - datetime.now(UTC)).total_seconds()

    def _too_late(self, seen_last: TimedVerdict | None) -> TriggerEvent:
        if seen_last is not None:
            verdict = seen_last.verdict
        elif self.seen is not None:
            verdict = Verdict.from_dict(self.seen)
        else:
            verdict = decision.unchecked(self.mlflow_conn_id)
        return _event(verdict, open=False, timed_out=True)

    async def _opening(self, verdict: Verdict) -> TriggerEvent:
        """The event that opens the gate: the end of its task, or its resumption on a worker."""
        ti = self.task_instance  # None under `dag.test()`, which knows no event that ends a task
        can_end = self.end_from_trigger and ti is not None
        if can_end and (not self.do_xcom_push or await self._push_xcom(ti, verdict)):
            return TaskSuccessEvent()
        return _event(verdict, open=True)

    async def _push_xcom(self, ti: Any, verdict: Verdict) -> bool:
        """Push the verdict as a task does; if that fails, a worker does it.

        The event could carry it, but Airflow stores an event's XCom as a JSON string, and
        downstream tasks would get a string instead of the dict of every other mode. A custom
        backend is called on a thread: its code may block.
        """
        from airflow.sdk.bases.xcom import BaseXCom
        from airflow.sdk.execution_time.xcom import XCom

        xcom: dict[str, Any] = {
            "key": "return_value",
            "value": dict(verdict.as_dict()),
            "dag_id": ti.dag_id,
            "task_id": ti.task_id,
            "run_id": ti.run_id,
            "map_index": -1 if ti.map_index is None else ti.map_index,
        }
        try:
            if XCom is BaseXCom and hasattr(XCom, "aset"):  # Airflow 3.3
                await XCom.aset(**xcom)
            else:
                from asgiref.sync import sync_to_async

                await sync_to_async(partial(XCom.set, **xcom), thread_sensitive=False)()
        except Exception as error:
            self.log.warning(
                "The gate is open, but its XCom could not be pushed from here (%s): a worker ends "
                "the task",
                type(error).__name__,
            )
            return False
        return True


def _event(verdict: Verdict, *, open: bool, timed_out: bool = False) -> TriggerEvent:
    event = decision.GateEvent(version=decision.EVENT_VERSION, open=open, verdict=verdict.as_dict())
    if timed_out:
        event["timed_out"] = True
    return TriggerEvent(dict(event))  # type: ignore[no-untyped-call]
