"""Opens a run, one that always ends and never loses data silently.

What limits how long it waits for MLflow, besides the task's ``execution_timeout``:

* each call that starts it: ``request_timeout`` (``deadline``, if another run is already open);
* each call from then on, the one that ends it included: ``deadline``;
* the last flush: ``deadline`` without progress, at least ``run_end._SHORTEST_FLUSH``;
* if the task is being stopped: ``sigterm.SECONDS`` for all of the end on SIGTERM, and for the last
  flush on Ctrl-C and ``execution_timeout``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.client import adapters, mlflow_private, sigterm
from airflow_provider_hokusai_dns.client.auth import registry_uri
from airflow_provider_hokusai_dns.client.begun_inside import (
    begun_inside,
    block_of_others,
    check_nesting,
    opening_block,
    resumes,
    run_ids_in_use,
)
from airflow_provider_hokusai_dns.client.delivery_hooks import track_delivery
from airflow_provider_hokusai_dns.client.fluent_state import (
    experiment_in_use,
    experiment_kept,
    fluent_uri,
)
from airflow_provider_hokusai_dns.client.log_throttle import repeated_lines_held_back
from airflow_provider_hokusai_dns.client.orphaned_runs import (
    TASK_TAGS,
    end_orphaned_runs,
    end_runs_being_created,
)
from airflow_provider_hokusai_dns.client.run_end import OpenRun, must_end_now, status_of
from airflow_provider_hokusai_dns.client.transport import CONNECT_TIMEOUT

if TYPE_CHECKING:
    import mlflow

    from airflow_provider_hokusai_dns.config.server import MLflowServer
    from airflow_provider_hokusai_dns.resolver.pin import Pin


@contextmanager
def open_run(
    server: MLflowServer,
    tracking_uri: str,
    *,
    experiment_name: str | None = None,
    run_name: str | None = None,
    run_id: str | None = None,
    end: bool = True,
    nested: bool = False,
    tags: Mapping[str, str] | None = None,
    status_of: Callable[[BaseException], str] = status_of,
    pins: Sequence[Pin] = (),
) -> Iterator[mlflow.ActiveRun]:
    """Open a run while the block runs: what :meth:`.MLflowHook.run` says, without Airflow.

    The caller must have signed in and pinned the name. Starting the run counts as a call outside a
    run, and may take as long as one. From then on, calls wait as long as inside a run.

    :param tracking_uri: the result of :func:`~.auth.sign_in`.
    :param experiment_name: by default that of the enclosing run, else the connection's, else
        MLflow's default.
    :param tags: all tags; if they include those of :mod:`~.orphaned_runs`, runs that an earlier
        try left RUNNING are ended. A resumed run keeps those of the task that began it.
    :param status_of: maps the exception of the block to a status, for exceptions that are not a
        failure.
    :param pins: wait for outages from the start of the run to its end.
    """
    with ExitStack() as stack:
        stack.enter_context(repeated_lines_held_back())
        mlflow_private.warn_about_missing()
        stack.enter_context(fluent_uri(server.conn_id, tracking_uri, registry_uri(server)))
        tags = dict(tags or {})
        has_parent = nested and _enclosing() is not None
        run: OpenRun | None = None

        def stop(seconds: float) -> None:
            if run is not None:
                run.stop(seconds)
            elif run_id is None:
                end_runs_being_created(tracking_uri, tags, seconds)

        stack.enter_context(sigterm.on_sigterm(stop))
        if run_id is not None:
            resumes(run_id)
        try:
            active = _start(
                tracking_uri,
                experiment_name=experiment_name or (None if has_parent else server.experiment),
                run_name=run_name,
                run_id=run_id,
                nested=nested,
                tags=tags,
            )
        except BaseException as error:
            if must_end_now(error, status_of(error)):
                stop(sigterm.SECONDS)
            raise
        stack.enter_context(
            experiment_kept() if nested else experiment_in_use(active.info.experiment_id)
        )

        def end_orphans() -> None:
            mine = {active.info.run_id, *run_ids_in_use()}
            its_tags = {} if run_id is not None else tags
            end_orphaned_runs(tracking_uri, active.info.experiment_id, mine, its_tags)

        run = OpenRun(
            active.info.run_id,
            tracking_uri,
            server.conn_id,
            tracker=stack.enter_context(track_delivery(active.info.run_id)),
            end_orphans=end_orphans,
            end=end,
            deadline=server.deadline,
        )
        try:
            end_orphans()
            its_tags = {key: value for key, value in tags.items() if key in TASK_TAGS}
            stack.enter_context(begun_inside(active, its_tags))
            stack.enter_context(adapters.run_is_open(server.conn_id))
            for pin in pins:
                stack.enter_context(pin.patient(server.deadline, CONNECT_TIMEOUT))
            yield active
        except BaseException as error:
            run.close_after(error, status_of(error))
            raise
        run.close()


@opening_block()
def _start(
    tracking_uri: str,
    *,
    experiment_name: str | None,
    run_name: str | None,
    run_id: str | None,
    nested: bool,
    tags: dict[str, str],
) -> mlflow.ActiveRun:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri)
    if run_id is not None:
        existing = client.get_run(run_id)
        # MLflow refuses a run that is not in the experiment that is set.
        with experiment_in_use(existing.info.experiment_id):
            return mlflow.start_run(
                run_id=run_id,
                run_name=run_name,
                nested=nested,
                tags={
                    key: value
                    for key, value in tags.items()
                    if key not in TASK_TAGS or key not in existing.data.tags
                }
                or None,
            )
    parent = None
    if nested:
        check_nesting()
        parent = _enclosing()
    return mlflow.start_run(
        experiment_id=None if experiment_name is None else _experiment(client, experiment_name),
        run_name=run_name,
        nested=nested,
        parent_run_id=None if parent is None else parent.info.run_id,
        tags=tags or None,
    )


def _enclosing() -> mlflow.ActiveRun | None:
    """The parent of a nested run."""
    import mlflow

    return mlflow.active_run() or block_of_others()


def _experiment(client: mlflow.MlflowClient, name: str) -> str:
    """The id of an experiment, which is created if it does not exist.

    ``mlflow.set_experiment`` would do that too, but would leave it set for the whole process.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another task was faster.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"experiment {name!r} was deleted on the MLflow server: restore it there "
            f"(mlflow experiments restore -x {found.experiment_id}), or use another name"
        )
    return str(found.experiment_id)
