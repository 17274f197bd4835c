"""A retry policy (Airflow 3.3, AIP-105) that uses the state of MLflow to decide about retries::

@task(retries=5, retry_policy=MLflowRetryPolicy())
def train(): ...
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.client.errors import LostDataError, RunEndError
from airflow_provider_hokusai_dns.config.connections import check_id
from airflow_provider_hokusai_dns.config.errors import SettingError
from airflow_provider_hokusai_dns.config.settings import DEFAULT_CONN_ID
from airflow_provider_hokusai_dns.gates.decision import permanent_cause
from airflow_provider_hokusai_dns.health.errors import BreakerOpenError
from airflow_provider_hokusai_dns.hooks.errors import MLflowRestError
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
except ImportError:
    from importlib.metadata import version

    raise ImportError(
        "MLflowRetryPolicy needs Airflow 3.3 or newer, which has retry policies (AIP-105); this is "
        f"{version('apache-airflow-core')}. Remove retry_policy from the task, and let retries and "
        "retry_delay of the task decide"
    ) from None

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

#: A process must have ended before its task is scheduled again, or a try is spent:
#: the scheduler of Airflow 3.4.0b2 (``SchedulerJobRunner.process_executor_events``) takes the
#: executor's late "success" for a task that was killed, and excepts only a resumed deferral from
#: that. Airflow ends a process so long after it has reported its state (``[core]
#: task_success_overtime``, 20 s by default); the rest is for a scheduler under load. Seconds.
_SHORTEST_RESCHEDULE, _AFTER_OVERTIME = 30.0, 10.0
#: MLflow's error codes for failures that no retry fixes.
_WRONG = {
    "RESOURCE_DOES_NOT_EXIST": "what the task asks for is not on the server",
    "UNAUTHENTICATED": "the login of the connection is not accepted",
    "PERMISSION_DENIED": "the user of the connection has no permission",
}


class MLflowRetryPolicy(RetryPolicy):
    """Retry while MLflow is unavailable; fail at once if retrying will not help.

    The exception shows whether the failure may concern MLflow at all, as one of
    ``execution_timeout`` does; for others the task's ``retries`` and ``retry_delay`` apply. If it
    may, MLflow is checked once, as a gate does it:

    - unavailable (no name, no connection, no database): retry after a pause that grows with the
      tries, and not before the circuit breaker permits a call;
    - wrong (login, Host check, certificate, workspace, connection): fail at once, with the sentence
      that says what to do;
    - usable: the task's own settings decide.

    A retry is one of the task's ``retries``. From Airflow 3.4 on the task is rescheduled instead,
    which uses no try and holds no slot meanwhile. The pause is then at least 30 s, and at least
    10 s more than ``[core] task_success_overtime``.

    :param mlflow_conn_id: the connection that the task uses.
    :param delay: the pause before the first retry; it doubles with each retry, up to ``max_delay``.
    :param max_delay: the longest pause; up to a quarter is added at random.
    :param give_up_after: Airflow 3.4: for how long the task is rescheduled; after that, its retries
        are used. With less than the shortest pause, the task is rescheduled once.
    :raises ValueError: the id is not a string, or the delays are not timedeltas in ascending order
        and above 0.
    """

    def __init__(
        self,
        mlflow_conn_id: str = DEFAULT_CONN_ID,
        *,
        delay: timedelta = timedelta(seconds=60),
        max_delay: timedelta = timedelta(minutes=15),
        give_up_after: timedelta = timedelta(days=1),
    ) -> None:
        check_id(mlflow_conn_id)
        given = delay, max_delay, give_up_after
        are_times = all(isinstance(one, timedelta) for one in given)
        if not are_times or not timedelta(0) < delay <= max_delay <= give_up_after:
            raise ValueError(
                "delay, max_delay and give_up_after must be timedeltas with 0 < delay <= max_delay "
                f"<= give_up_after, not {', '.join(map(repr, given))}"
            )
        self.mlflow_conn_id = mlflow_conn_id
        self.delay = delay
        self.max_delay = max_delay
        self.give_up_after = give_up_after

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide by the exception that the task raised; see the class."""
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        causes, child_was_away = _causes(exception), _a_child_met_an_outage(exception)
        # A task that execution_timeout ends may have been waiting for MLflow.
        is_relevant = child_was_away or isinstance(exception, AirflowTaskTimeout)
        if not is_relevant and not any(_is_of_mlflow(cause) for cause in causes):
            return RetryDecision.default()
        from airflow_provider_hokusai_dns.gates.check import check_connection

        verdict = check_connection(self.mlflow_conn_id, written_by="retry policy").verdict
        if permanent_cause(verdict):
            return RetryDecision.fail(reason=verdict.sentence)
        if why := _what_is_wrong(causes):
            return RetryDecision.fail(reason=why)
        if verdict.level == "unhealthy":
            why = verdict.sentence
        elif child_was_away or _says_away(causes):
            why = f"MLflow was unavailable, and is {verdict.level} again"
        else:
            return RetryDecision.default()
        # On 3.4 a rescheduled task keeps its try number.
        times = try_number - 1 + int((context or {}).get("task_reschedule_count") or 0)
        return self._later(times, why, _breaker_wait(causes))

    def serialize(self) -> dict[str, Any]:
        """This policy as JSON-safe values."""
        return {
            "mlflow_conn_id": self.mlflow_conn_id,
            "delay": self.delay.total_seconds(),
            "max_delay": self.max_delay.total_seconds(),
            "give_up_after": self.give_up_after.total_seconds(),
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> MLflowRetryPolicy:
        """Read the output of :meth:`serialize`."""
        return cls(
            data["mlflow_conn_id"],
            delay=timedelta(seconds=data["delay"]),
            max_delay=timedelta(seconds=data["max_delay"]),
            give_up_after=timedelta(seconds=data["give_up_after"]),
        )

    def _later(self, times: int, reason: str, at_least: float) -> RetryDecision:
        grown = self.delay * 2.0 ** min(max(0, times), 20)
        # Not for secrecy: a thousand tasks must not retry at the same moment.
        spread = random.uniform(1.0, 1.25)  # noqa: S311
        reschedule = getattr(RetryDecision, "reschedule", None)  # Airflow 3.4
        if reschedule is not None:
            at_least = max(at_least, _shortest_reschedule())
        delay = max(min(grown, self.max_delay), timedelta(seconds=at_least)) * spread
        if reschedule is None:
            return RetryDecision.retry(delay=delay, reason=reason)
        later: RetryDecision = reschedule(
            delay, reschedule_timeout=self.give_up_after, reason=reason
        )
        return later


def _shortest_reschedule() -> float:
    from airflow.providers.common.compat.sdk import conf

    overtime: float = conf.getfloat("core", "task_success_overtime", fallback=20.0)
    return max(_SHORTEST_RESCHEDULE, overtime + _AFTER_OVERTIME)


def _causes(exception: BaseException) -> tuple[BaseException, ...]:
    """An exception, its causes, and the losses of runs and relays anywhere behind it.

    An exception that an author raises while handling an error of MLflow (a model that does not
    exist yet) may have another reason. A loss counts in any case, also with ``raise ... from
    None``: a relay puts it into the context of the exception that leaves its block. A name that was
    not resolved counts too: HTTP clients raise their own error while they handle that one.
    """
    causes = tuple(_chain(exception))
    counting = LostDataError | RunEndError | DNSResolutionError
    ours = (error for error in _chain(exception, contexts=True) if isinstance(error, counting))
    return (*causes, *(error for error in ours if not any(error is cause for cause in causes)))


def _chain(exception: BaseException, *, contexts: bool = False) -> Iterator[BaseException]:
    """An exception, its causes and the members of groups, each once.

    :param contexts: also what was being handled meanwhile, suppressed or not.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exception]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        waiting += [error.__context__ if contexts else None, error.__cause__]
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions


def _is_of_mlflow(error: BaseException) -> bool:
    """Whether an exception is ours, or MLflow's."""
    module = type(error).__module__
    return module.startswith(("airflow_provider_hokusai_dns.", "mlflow."))


def _a_child_met_an_outage(exception: BaseException) -> bool:
    """Whether a child of the task failed while its relay, still open, had given up a call.

    A relay that is closed has put its error behind the exception.
    """
    import subprocess

    from airflow.providers.common.compat.sdk import AirflowException

    from airflow_provider_hokusai_dns.client.relay.relay import any_relay_gave_up

    ends = subprocess.SubprocessError | AirflowException
    ended = any(isinstance(error, ends) for error in _chain(exception, contexts=True))
    return ended and any_relay_gave_up()


def _what_is_wrong(causes: tuple[BaseException, ...]) -> str:
    """Why no retry can help, as the exception itself says it; empty where it does not."""
    for error in causes:
        if isinstance(error, SettingError):
            return str(error)
        code = str(getattr(error, "error_code", "") or getattr(error, "code", ""))
        if code in _WRONG and _is_of_mlflow(error):
            return f"{_WRONG[code]}: {str(error)[:300]}"
        if isinstance(error, LostDataError) and all(loss.permanent for loss in error.losses):
            return str(error)
    return ""


def _says_away(causes: tuple[BaseException, ...]) -> bool:
    from airflow_provider_hokusai_dns.client.breaker_errors import says_down

    return any(
        isinstance(error, BreakerOpenError | LostDataError | RunEndError)
        or (isinstance(error, MLflowRestError) and error.says_down)
        or (isinstance(error, Exception) and _is_of_mlflow(error) and says_down(error))
        for error in causes
    )


def _breaker_wait(causes: tuple[BaseException, ...]) -> float:
    return max((float(getattr(error, "retry_in", 0.0)) for error in causes), default=0.0)
