"""A gate for the start of a DAG: it opens when MLflow is actually usable."""

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

from airflow_provider_hokusai_dns.config.connections import check_id
from airflow_provider_hokusai_dns.gates import decision
from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.health.verdict import Verdict
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Under this key Airflow 3.3 keeps the strikes between two pokes in reschedule mode.
_STATE_KEY = "hokusai_dns_strikes"
#: Seconds; Airflow takes 0 for "no limit".
_SHORTEST = 1e-3
#: Seconds between two processes of a gate in reschedule mode. If the next is queued before the
#: scheduler knows that the last one ended, Airflow marks the task as failed.
_LEAST_RESCHEDULE = 5.0
#: Seconds between the checks of one poke, where Airflow cannot store the strikes.
_CONFIRM_PAUSE = 10.0


class _StartTriggerArgs:
    """The trigger's arguments for a gate that starts in the triggerer, computed on access.

    Airflow reads them when it serializes the DAG: the author may have added an outlet by then.
    """

    def __get__(
        self, sensor: MLflowHealthSensor | None, owner: type | None = None
    ) -> StartTriggerArgs | None:
        if sensor is None or not sensor.start_from_trigger:
            return None
        return StartTriggerArgs(
            trigger_cls=f"{MLflowHealthTrigger.__module__}.{MLflowHealthTrigger.__qualname__}",
            trigger_kwargs=dict(sensor._payload(delay=0.0)),
            next_method="execute_complete",
            timeout=timedelta(seconds=max(sensor.timeout, _SHORTEST)),  # Airflow cuts it further
        )


class MLflowHealthSensor(BaseSensorOperator):
    """Waits until MLflow is usable: its name, TLS, Host check, login, database, registry.

    The verdict is pushed as the XCom, a dict, even if the gate does not open. In poke and
    reschedule mode each check is one log line; in the triggerer, each change of the verdict.

    :param mlflow_conn_id: the connection (templated).
    :param min_health: ``"healthy"`` requires a fresh answer from DNS; ``"degraded"`` also accepts
        a stale address at which MLflow works.
    :param checks: any of ``dns``, ``tracking``, ``registry``, ``artifact``.
    :param fail_fast_on: states that retrying will not fix. Two causes are accepted too:
        ``"undefined"`` (Airflow reports that the connection does not exist) and ``"missing"``
        (that, or the connection could not be read; not included by default). After three checks in
        a row with the same state, the gate fails without a retry, or is skipped with
        ``soft_fail``.
    :param deferrable: wait in the triggerer instead of on a worker. All gates of a triggerer with
        the same connection, ``checks`` and ``probe_timeout`` share their checks: a result younger
        than ``poke_interval`` is reused.
    :param start_from_trigger: only with ``deferrable``: start in the triggerer too, without a first
        check on a worker; ``pre_execute`` does not run then. This needs Airflow 3.3, and does not
        work for mapped tasks; otherwise the gate starts on a worker.
    :param end_from_trigger: with ``deferrable``, an open gate ends its task in the triggerer, which
        stores the XCom; a custom XCom backend then needs its access there. A gate that does not
        open ends on a worker, and so does one with ``outlets``, ``multiple_outputs``,
        ``on_success_callback``, ``post_execute`` or an ``execute_complete`` of a subclass, for
        which Airflow needs a worker; and every gate if a plugin of Airflow has a listener.
    :param poke_interval: seconds between two checks.
    :param timeout: seconds after which the gate gives up. A shorter ``execution_timeout`` ends the
        wait in the triggerer too.
    :param probe_timeout: seconds for one check (lookup and probe). After a slow lookup the probe
        still gets two seconds.
    :raises ValueError: an argument is wrong; the error names it and its value.
    """

    template_fields: Sequence[str] = ("mlflow_conn_id",)
    ui_color = "#d5f0ee"
    # None on the class: Airflow reads it there for a mapped task, whose arguments are not known.
    start_trigger_args = _StartTriggerArgs()
    start_from_trigger = False
    _strikes = decision.Strikes()
    _last: Verdict | None = None
    _began = 0.0

    def __init__(
        self,
        *,
        mlflow_conn_id: str = "mlflow_default",
        min_health: str = "degraded",
        checks: Sequence[str] = decision.DEFAULT_CHECKS,
        fail_fast_on: Sequence[str] = decision.DEFAULT_FAIL_FAST,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_from_trigger: bool = False,
        end_from_trigger: bool = True,
        poke_interval: timedelta | float = 30,
        timeout: timedelta | float | None = 3600,
        probe_timeout: float = decision.PROBE_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, timeout=timeout, **kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.min_health = min_health
        self.checks, self.fail_fast_on = decision.check_arguments(
            min_health, checks, fail_fast_on, probe_timeout
        )
        if not hasattr(mlflow_conn_id, "resolve"):  # a value of another task has that
            check_id(mlflow_conn_id)
        if start_from_trigger and not deferrable:
            raise ValueError("start_from_trigger=True needs deferrable=True")
        self.probe_timeout = probe_timeout
        self.deferrable = deferrable
        self._may_end_from_trigger = end_from_trigger
        # A value from another task is not known until a worker fetches it.
        self.start_from_trigger = start_from_trigger and isinstance(mlflow_conn_id, str)

    @property
    def end_from_trigger(self) -> bool:
        """Whether an open gate ends in the triggerer.

        Airflow's DAG processor reads it, and rejects a DAG with such a task where a plugin has a
        listener: only a worker would call it.
        """
        return self._may_end_from_trigger and self.deferrable and not self._needs_worker()

    def execute(self, context: Context) -> Any:
        """Wait in the chosen mode."""
        self._began = time.monotonic()
        self._last = None
        try:
            return super().execute(context)
        except AirflowTaskTimeout as error:
            self._last = self._last or decision.unchecked(self.mlflow_conn_id)
            self._push_verdict(context)
            late = AirflowTaskTimeout(self._too_late(by_execution_timeout=True))
            raise self._outcome(late) from error
        except AirflowSensorTimeout as error:
            self._push_verdict(context)
            raise AirflowSensorTimeout(self._too_late()) from error
        except AirflowSkipException as error:
            if isinstance(error.__cause__, AirflowTaskTimeout):
                self._last = self._last or decision.unchecked(self.mlflow_conn_id)
            self._push_verdict(context)
            raise AirflowSkipException(f"{error} {self._seen()}") from error
        except AirflowException:
            self._push_verdict(context)
            raise

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Continue after the wait in the triggerer, and end as in the other modes.

        Airflow's own sensors treat the flags differently once a task has been deferred.
        """
        try:
            return super(BaseSensorOperator, self).resume_execution(
                next_method, next_kwargs, context
            )
        except TaskDeferralTimeout as error:  # the scheduler ended the wait
            self._last = decision.unchecked(self.mlflow_conn_id, by_triggerer=True)
            if self.start_from_trigger:  # otherwise the XCom is the verdict of the worker's check
                self._push_verdict(context)
            raise self._outcome(self._timed_out()) from error
        except (AirflowException, AirflowTaskTimeout) as error:
            raise self._outcome(error) from error.__cause__

    def poke(self, context: Context) -> PokeReturnValue:
        """Check once; fail if retrying will not help.

        In deferrable mode this is the only check on a worker. It is a poke, so that Airflow treats
        an exception in it the same in every mode.
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
            self._push_verdict(context)  # in case Airflow ends the wait without calling us
            self._wait_in_triggerer()
        return seen

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Resume after the trigger has fired."""
        told = event if isinstance(event, Mapping) else {}
        try:
            if (version := told.get("version")) != decision.EVENT_VERSION:
                raise ValueError(f"its version is {version!r}, not {decision.EVENT_VERSION}")
            is_open, verdict = told["open"], Verdict.from_dict(told["verdict"])
        except (KeyError, TypeError, ValueError) as error:
            raise AirflowException(
                f"The trigger of {self.task_id!r} sent an event that cannot be read ({error}): "
                "triggerer and workers must run the same version of airflow-provider-hokusai-dns"
            ) from None
        self._last = verdict
        if is_open:
            self.log.log(decision.log_level(verdict), "%s", decision.in_one_line(verdict))
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
        """Seconds left to wait in the triggerer, where Airflow does not apply execution_timeout."""
        if self.execution_timeout is None:
            return self.timeout
        left = self.execution_timeout.total_seconds() - (time.monotonic() - self._began)
        return min(self.timeout, left)

    def _get_next_poke_interval(self, started_at: Any, run_duration: Any, poke_count: int) -> float:
        """Airflow's pause, but never beyond the timeout, when the last check takes place."""
        pause = float(super()._get_next_poke_interval(started_at, run_duration, poke_count))
        least = min(pause, _LEAST_RESCHEDULE) if self.reschedule else 0.0
        left: float = self.timeout - run_duration()
        return max(least, min(pause, left))

    # --- how a wait ends: in every mode as in poke mode of Airflow's own sensors

    def _outcome(self, error: BaseException) -> BaseException:
        """The exception to raise when ``error`` ended the wait, according to the author's flags."""
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
        if self._last is None:
            return ""
        line = decision.in_one_line(self._last)
        if self._last.level is Level.DEGRADED and self.min_health == Level.HEALTHY:
            line += f' The gate opens at min_health="{self.min_health}" only.'
        return line

    def _payload(self, *, delay: float) -> decision.GatePayload:
        """The trigger's arguments; plain values, because they may be part of the serialized DAG."""
        return decision.GatePayload(
            version=decision.PAYLOAD_VERSION,
            mlflow_conn_id=self.mlflow_conn_id,
            min_health=self.min_health,
            checks=list(self.checks),
            fail_fast_on=list(self.fail_fast_on),
            poke_interval=self.poke_interval,
            probe_timeout=self.probe_timeout,
            delay=delay,
            end_from_trigger=self.end_from_trigger,
            do_xcom_push=self.do_xcom_push,
            silent_fail=self.silent_fail,
            seen=None if self._last is None else self._last.as_dict(),
        )

    def _needs_worker(self) -> bool:
        """Whether an open gate has to do something that Airflow does only on a worker."""
        after = getattr(self.post_execute, "__func__", self.post_execute)
        resumed = getattr(self.execute_complete, "__func__", self.execute_complete)
        return bool(
            self.outlets
            or self.multiple_outputs
            or self.on_success_callback
            or self._post_execute_hook
            or after is not BaseSensorOperator.post_execute
            or resumed is not MLflowHealthSensor.execute_complete
            or getattr(self, "returns_dag_result", False)  # Airflow 3.3
            or (self.has_dag() and any(self.iter_mapped_dependants()))  # type: ignore[no-untyped-call]
            or _has_listeners()
        )

    def _check(self, context: Context) -> Verdict:
        strikes = self._recall(context)
        while True:
            self._last = verdict = check_connection(
                self.mlflow_conn_id, checks=self.checks, deadline=self.probe_timeout
            ).verdict
            before, strikes = strikes, strikes.after(verdict, self.fail_fast_on)
            self.log.log(decision.log_level(verdict), "%s", decision.in_one_line(verdict, strikes))
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
            f"Giving up on MLflow: {verdict.state.value} in {decision.STRIKES} checks in a row. "
            f"{verdict.sentence}"
        )

    def _push_verdict(self, context: Context) -> None:
        """Publish the verdict, so that a summary at the end of the DAG can report the reason."""
        if self._last is not None and self.do_xcom_push and (ti := context.get("ti")) is not None:
            ti.xcom_push(key="return_value", value=dict(self._last.as_dict()))

    # --- strikes between two pokes: in this object, or stored by Airflow in reschedule mode, where
    #     every poke is a separate process

    def _must_confirm_at_once(self, context: Context) -> bool:
        """Whether strikes cannot be kept for the next poke: reschedule mode before Airflow 3.3."""
        return self.reschedule and not self.deferrable and not context.get("task_state_store")

    def _recall(self, context: Context) -> decision.Strikes:
        store = context.get("task_state_store")
        if not self.reschedule or self.deferrable or not store:
            return self._strikes
        kept = store.get(_STATE_KEY)
        if isinstance(kept, dict) and kept.get("try_number") == context["ti"].try_number:
            return decision.Strikes.from_dict(kept)
        return decision.Strikes()

    def _remember(self, context: Context, strikes: decision.Strikes) -> None:
        self._strikes = strikes
        store = context.get("task_state_store")
        if self.reschedule and not self.deferrable and store:
            store.set(_STATE_KEY, {**strikes.as_dict(), "try_number": context["ti"].try_number})


def _has_listeners() -> bool:
    """Whether a plugin of this Airflow has a listener, such as that of OpenLineage."""
    from airflow.sdk.listener import get_listener_manager

    return get_listener_manager().has_listeners
