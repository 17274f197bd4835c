"""MLflow for the child processes of an operator, with one argument and no code::

    @task.virtualenv(
        requirements=["mlflow-skinny"], pre_execute=mlflow_for_children("mlflow_default")
    )
    def train(): ...

For ``@task.bash``, ``BashOperator``, ``@task.virtualenv``, ``@task.external_python`` and every
operator that starts processes on the worker and passes its environment to them.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from airflow_provider_hokusai_dns.config.connections import check_id
from airflow_provider_hokusai_dns.config.settings import DEFAULT_CONN_ID

_log = logging.getLogger(__name__)

#: Airflow leaves a task that has failed 20 s ([core] task_success_overtime) to end its process.
_AFTER_A_FAILURE = 12.0
_CALLBACKS = ("on_failure_callback", "on_retry_callback", "on_skipped_callback")


def mlflow_for_children(
    mlflow_conn_id: str = DEFAULT_CONN_ID,
) -> Callable[[Mapping[str, Any]], None]:
    """Let all processes of a task reach MLflow; pass the result as ``pre_execute``.

    A relay (:meth:`.MLflowHook.relay`) runs as long as the task. The variables that point to the
    relay are set in the task's environment, without a password. A ``BashOperator`` with its own
    ``env`` needs ``append_env=True``; ``inherit_env=False`` of a virtual environment hides the
    variables.

    If something did not arrive, a task that would succeed fails with ``LostDataError``.

    :param mlflow_conn_id: a connection of type ``mlflow``.
    :raises SettingError: it is not a string. ``pre_execute=mlflow_for_children``, without brackets,
        fails by that when the task starts.
    """
    check_id(mlflow_conn_id)
    return partial(_open_relay, mlflow_conn_id)


def _open_relay(mlflow_conn_id: str, context: Mapping[str, Any]) -> None:
    from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

    relay = ExitStack()
    relay.enter_context(MLflowHook(mlflow_conn_id).relay(export=True, end_timeout=_AFTER_A_FAILURE))
    _close_with_the_task(relay, context["task"])


def _close_with_the_task(relay: ExitStack, task: Any) -> None:
    """Close the relay when the task ends, however it ends.

    Airflow has no hook for that: ``post_execute`` runs only for tasks that succeed, and may still
    fail them; the callbacks run after a failure; a deferral calls neither.
    """
    own_post_execute = task.post_execute

    def post_execute(context: Any, result: Any = None) -> None:
        own_post_execute(context, result)
        atexit.unregister(close)
        relay.close()

    def close(context: Mapping[str, Any] | None = None) -> None:
        error = (context or {}).get("exception")
        if not isinstance(error, BaseException):
            error = RuntimeError("the task did not end with its operator")
        atexit.unregister(close)
        try:
            relay.__exit__(type(error), error, error.__traceback__)
        except BaseException as raised:
            if raised is not error:
                _log.exception("The relay of this task could not be closed")

    task.post_execute = post_execute
    for name in _CALLBACKS:
        setattr(task, name, [close, *_as_list(getattr(task, name))])
    atexit.register(close)


def _as_list(callbacks: Any) -> list[Any]:
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
