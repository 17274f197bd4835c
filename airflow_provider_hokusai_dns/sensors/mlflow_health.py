"""A gate at the start of a DAG: it opens when MLflow is really usable."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow.sdk.exceptions import TaskDeferralTimeout
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.gates.decision import (
    DEFAULT_CHECKS,
    DEFAULT_FAIL_FAST,
    EVENT_VERSION,
    PAYLOAD_VERSION,
    PROBE_TIMEOUT,
    STRIKES,
    GatePayload,
    Strikes,
    check_arguments,
    in_one_line,
    log_level,
    unchecked,
)
from airflow_provider_hokusai_dns.health.verdict import Verdict
from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Under this key Airflow 3.3 keeps the strikes between two pokes in reschedule mode.
_STATE_KEY = "hokusai_dns_strikes"
#: Seconds; Airflow takes 0 for "no limit".
_SHORTEST = 1e-3
#: Seconds between two processes of a gate in reschedule mode. Where the next is queued before the
#: scheduler has heard of the end of the last, Airflow takes the task for failed.
_LEAST_RESCHEDULE = 5.0
#: Where Airflow cannot keep them: seconds between the checks of one poke.
_CONFIRM_PAUSE = 10.0


class _StartTriggerArgs:
    """What a gate that begins in the triggerer is made of, worked out when it is asked for.

    That is when the DAG is serialized: an author may have added an outlet since.
    """

    def __get__(
        self, sensor: MLflowHealthSensor | None, owner: type | None = None
    ) -> StartTriggerArgs | None:
        return None if sensor is None else sensor._start_trigger_args()


class MLflowHealthSensor(BaseSensorOperator):
    """Waits until MLflow can be used: its name, TLS, host check, login, database, registry.

    The verdict is the XCom, as a dict, also when the gate does not open. In poke and reschedule
    mode each check is one line in the log; in the triggerer each change of the verdict.

    :param mlflow_conn_id: the connection (templated).
    :param min_health: ``"healthy"`` wants an address fresh from DNS; ``"degraded"`` also accepts a
        stale one at which MLflow works.
    :param checks: any of ``dns``, ``tracking``, ``registry``, ``artifact``.
    :param fail_fast_on: causes that retrying will not fix. After three checks in a row, the gate
        fails without a retry; ``soft_fail`` is honoured. ``"undefined"`` is a connection that
        Airflow says it does not have; ``"missing"``, not among them by default, also one that could
        not be read.
    :param deferrable: wait in the triggerer instead of on a worker. All gates of a triggerer that
        ask the same share their checks: a result younger than ``poke_interval`` is used by the
        next.
    :param start_from_trigger: with ``deferrable``, begin in the triggerer too, without the first
        check on a worker. Airflow does that from 3.3 on, and not for mapped tasks; elsewhere the
        gate begins on a worker. ``pre_execute`` does not run then.
    :param end_from_trigger: with ``deferrable``, an open gate ends its task in the triggerer, which
        keeps the XCom in Airflow's database whatever the XCom backend. With ``outlets``,
        ``post_execute`` or ``multiple_outputs``, for which Airflow needs a worker, it ends on a
        worker all the same; and so does a gate that does not open.
    :param poke_interval: seconds between two checks.
    :param timeout: seconds after which the gate gives up; ``execution_timeout``, where it is
        shorter, ends it in the triggerer too.
    :param probe_timeout: seconds for one check: the lookup of the name, and the probe, which has
        two left where the lookup takes longer.
    :raises ValueError: names the argument and the value.
    """

    template_fields: Sequence[str] = ("mlflow_conn_id",)
    ui_color = "#d5f0ee"
    # None on the class: for a mapped task Airflow takes those, which know nothing of its arguments.
    start_trigger_args = _StartTriggerArgs()
    start_from_trigger = False
    _strikes = Strikes()
    _last: Verdict | None = None
    _began = 0.0

    def __init__(
        self,
        *,
        mlflow_conn_id: str = "mlflow_default",
        min_health: str = "degraded",
        checks: Sequence[str] = DEFAULT_CHECKS,
        fail_fast_on: Sequence[str] = DEFAULT_FAIL_FAST,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_from_trigger: bool = False,
        end_from_trigger: bool = True,
        poke_interval: timedelta | float = 30,
        timeout: timedelta | float | None = 3600,
        probe_timeout: float = PROBE_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.min_health = min_health
        self.checks, self.fail_fast_on = check_arguments(
            min_health, checks, fail_fast_on, probe_timeout
        )
        self.probe_timeout = probe_timeout
        self.deferrable = deferrable
        self.end_from_trigger = end_from_trigger
        # What comes from another task is not known before a worker has asked for it.
        self.start_from_trigger = (
            start_from_trigger and deferrable and isinstance(mlflow_conn_id, str)
        )

    def _start_trigger_args(self) -> StartTriggerArgs | None:
        if not self.start_from_trigger:
            return None
        return StartTriggerArgs(
            trigger_cls=f"{MLflowHealthTrigger.__module__}.{MLflowHealthTrigger.__qualname__}",
            trigger_kwargs=dict(self._payload(delay=0.0)),
            next_method="execute_complete",
            timeout=timedelta(seconds=max(self.timeout, _SHORTEST)),  # Airflow cuts it further
        )

    def execute(self, context: Context) -> Any:
        """Wait, in the mode that was chosen."""
        self._began = time.monotonic()
        self._last = None
        try:
            return super().execute(context)
        except AirflowTaskTimeout as error:
            self._last = self._last or unchecked(self.mlflow_conn_id)
            self._push_verdict(context)
            late = AirflowTaskTimeout(self._too_late(by_execution_timeout=True))
            raise self._outcome(late) from error
        except AirflowSensorTimeout as error:
            self._push_verdict(context)
            raise AirflowSensorTimeout(self._too_late()) from error
        except AirflowSkipException as error:
            if isinstance(error.__cause__, AirflowTaskTimeout):
                self._last = self._last or unchecked(self.mlflow_conn_id)
            self._push_verdict(context)
            raise AirflowSkipException(f"{error} {self._seen()}") from error
        except AirflowException:
            self._push_verdict(context)
            raise

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Go on after the wait in the triggerer, and end as in the other modes.

        Airflow's own sensors treat flags differently once a task has been deferred.
        """
        try:
            return super(BaseSensorOperator, self).resume_execution(
                next_method, next_kwargs, context
            )
        except TaskDeferralTimeout as error:
            raise self._outcome(self._timed_out()) from error
        except (AirflowException, AirflowTaskTimeout) as error:
            raise self._outcome(error) from error.__cause__

    def poke(self, context: Context) -> PokeReturnValue:
        """Check once; fail where retrying will not help. In deferrable mode, the only check here.

        So what Airflow makes of an exception in a poke is the same in every mode.
        """
        if not self.deferrable:
            return self._poke(context)
        try:
            seen = self._poke(context)
        except (AirflowFailException, AirflowSkipException):
            raise
        except Exception:
            if not self.silent_fail:
                raise
            self.log.exception("The first check failed; the triggerer continues checking")
            self._wait_in_triggerer()
        if not seen.is_done:
            self._push_verdict(context)  # in case that Airflow ends the wait without asking us
            self._wait_in_triggerer()
        return seen

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Resume after the trigger has fired."""
        told = event if isinstance(event, Mapping) else {}
        try:
            if (version := told.get("version")) != EVENT_VERSION:
                raise ValueError(f"its version is {version!r}, not {EVENT_VERSION}")
            is_open, verdict = told["open"], Verdict.from_dict(told["verdict"])
        except (KeyError, TypeError, ValueError) as error:
            raise AirflowException(
                f"The trigger of {self.task_id!r} sent an event that cannot be read ({error}): "
                "triggerer and workers must run the same version of airflow-provider-hokusai-dns"
            ) from None
        self._last = verdict
        if is_open:
            self.log.log(log_level(verdict), "%s", in_one_line(verdict))
            return dict(verdict.as_dict())
        self._push_verdict(context)
        if told.get("timed_out"):
            raise self._timed_out()
        raise self._hopeless(verdict)

    def _poke(self, context: Context) -> PokeReturnValue:
        verdict = self._check(context)
        is_open = verdict.meets(self.min_health)
        return PokeReturnValue(is_open, dict(verdict.as_dict()) if is_open else None)

    def _wait_in_triggerer(self) -> NoReturn:
        payload = self._payload(delay=self.poke_interval)
        payload["strikes"] = self._strikes.as_dict()
        self.defer(
            timeout=timedelta(seconds=max(self._seconds_to_wait(), _SHORTEST)),
            trigger=MLflowHealthTrigger(**payload),
            method_name="execute_complete",
        )

    def _seconds_to_wait(self) -> float:
        """In the triggerer; Airflow does not count its ``execution_timeout`` down there."""
        if self.execution_timeout is None:
            return self.timeout
        left = self.execution_timeout.total_seconds() - (time.monotonic() - self._began)
        return min(self.timeout, left)

    def _get_next_poke_interval(self, started_at: Any, run_duration: Any, poke_count: int) -> float:
        """Airflow's pause, but never beyond the timeout: the last check is then."""
        pause = float(super()._get_next_poke_interval(started_at, run_duration, poke_count))
        least = min(pause, _LEAST_RESCHEDULE) if self.reschedule else 0.0
        left: float = self.timeout - run_duration()
        return max(least, min(pause, left))

    # --- how a wait ends: as in the poke mode of Airflow's own sensors, in every mode

    def _outcome(self, error: BaseException) -> BaseException:
        """What is raised in place of what ended the wait, by the flags of the author."""
        if isinstance(error, AirflowSkipException):
            return error
        gives_up = isinstance(
            error, AirflowSensorTimeout | AirflowTaskTimeout | AirflowFailException
        )
        if self.soft_fail and gives_up:
            return AirflowSkipException(f"Skipping due to soft_fail is set to True. {error}")
        if self.never_fail and not isinstance(error, AirflowSensorTimeout):
            return AirflowSkipException(f"Skipping due to never_fail is set to True. {error}")
        return error

    def _timed_out(self) -> AirflowSensorTimeout | AirflowTaskTimeout:
        limit = self.execution_timeout
        if limit is not None and limit.total_seconds() < self.timeout:
            return AirflowTaskTimeout(self._too_late(by_execution_timeout=True))
        return AirflowSensorTimeout(self._too_late())

    def _too_late(self, *, by_execution_timeout: bool = False) -> str:
        limit = self.execution_timeout
        if by_execution_timeout and limit is not None:
            return f"Gate ended by execution_timeout ({limit.total_seconds():g} s). {self._seen()}"
        return f"Gate timed out after {self.timeout:g} s. {self._seen()}"

    def _seen(self) -> str:
        return "" if self._last is None else in_one_line(self._last)

    def _payload(self, *, delay: float) -> GatePayload:
        """What the trigger is made of; plain values, as they wait in the serialized DAG as well."""
        return GatePayload(
            version=PAYLOAD_VERSION,
            mlflow_conn_id=self.mlflow_conn_id,
            min_health=self.min_health,
            checks=list(self.checks),
            fail_fast_on=list(self.fail_fast_on),
            poke_interval=self.poke_interval,
            probe_timeout=self.probe_timeout,
            delay=delay,
            end_from_trigger=self.end_from_trigger and not self._needs_worker(),
            do_xcom_push=self.do_xcom_push,
            silent_fail=self.silent_fail,
            seen=None if self._last is None else self._last.as_dict(),
        )

    def _needs_worker(self) -> bool:
        """Whether an open gate leaves something behind that Airflow makes on a worker alone."""
        after = getattr(self.post_execute, "__func__", self.post_execute)
        return bool(
            self.outlets
            or self.multiple_outputs
            or self._post_execute_hook
            or after is not BaseSensorOperator.post_execute
            or getattr(self, "returns_dag_result", False)  # Airflow 3.3
            or (self.has_dag() and any(self.iter_mapped_dependants()))  # type: ignore[no-untyped-call]
        )

    def _check(self, context: Context) -> Verdict:
        strikes = self._recall(context)
        while True:
            self._last = verdict = check_connection(
                self.mlflow_conn_id, checks=self.checks, deadline=self.probe_timeout
            ).verdict
            before, strikes = strikes, strikes.after(verdict, self.fail_fast_on)
            self.log.log(log_level(verdict), "%s", in_one_line(verdict, strikes))
            if strikes.out:
                raise self._hopeless(verdict)
            if not strikes.count or not self._must_confirm_at_once(context):
                break
            time.sleep(min(self.poke_interval, _CONFIRM_PAUSE))
        if strikes != before:
            self._remember(context, strikes)
        return verdict

    def _hopeless(self, verdict: Verdict) -> AirflowFailException:
        return AirflowFailException(
            f"Giving up on MLflow: {verdict.state.value} in {STRIKES} checks in a row. "
            f"{verdict.sentence}"
        )

    def _push_verdict(self, context: Context) -> None:
        """So that a summary at the end of the DAG can say why the gate did not open."""
        if self._last is not None and self.do_xcom_push and (ti := context.get("ti")) is not None:
            ti.xcom_push(key="return_value", value=dict(self._last.as_dict()))

    # --- strikes between two pokes: in this object, or with Airflow in reschedule mode, where
    #     every poke is a process of its own

    def _must_confirm_at_once(self, context: Context) -> bool:
        """Whether this poke is the only memory there is: reschedule mode before Airflow 3.3."""
        return self.reschedule and not self.deferrable and not context.get("task_state_store")

    def _recall(self, context: Context) -> Strikes:
        store = context.get("task_state_store")
        if not self.reschedule or self.deferrable or not store:
            return self._strikes
        kept = store.get(_STATE_KEY)
        if isinstance(kept, dict) and kept.get("try_number") == context["ti"].try_number:
            return Strikes.from_dict(kept)
        return Strikes()

    def _remember(self, context: Context, strikes: Strikes) -> None:
        self._strikes = strikes
        store = context.get("task_state_store")
        if self.reschedule and not self.deferrable and store:
            store.set(_STATE_KEY, {**strikes.as_dict(), "try_number": context["ti"].try_number})
