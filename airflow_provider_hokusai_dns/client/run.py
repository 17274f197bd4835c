"""A run that always ends, and never loses data silently.

What limits how long it waits for MLflow, besides the task's ``execution_timeout``:

* each call that starts it: ``request_timeout`` (``deadline``, if another run is already open);
* each call from then on, the one that ends it included: ``deadline``;
* the last flush: ``flush_deadline`` without progress, at least ``_SHORTEST_FLUSH``;
* if the task is being stopped: ``sigterm.SECONDS`` for all of the end on SIGTERM, and for the last
  flush on Ctrl-C and ``execution_timeout``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.client import carriers, mlflow_private, sigterm
from airflow_provider_hokusai_dns.client.auth import registry_uri
from airflow_provider_hokusai_dns.client.begun_inside import (
    begun_inside,
    block_of_others,
    check_nesting,
    resumes,
    run_ids_in_use,
)
from airflow_provider_hokusai_dns.client.delivery import DeliveryTracker
from airflow_provider_hokusai_dns.client.delivery_hooks import track_delivery
from airflow_provider_hokusai_dns.client.environment import (
    experiment_in_use,
    experiment_kept,
    fluent_uri,
)
from airflow_provider_hokusai_dns.client.log_throttle import repeated_lines_held_back
from airflow_provider_hokusai_dns.client.orphaned_runs import (
    TASK_TAGS,
    end_orphaned_runs,
    end_what_is_being_begun,
    reopen,
    terminate,
)
from airflow_provider_hokusai_dns.client.transport import CONNECT_TIMEOUT
from airflow_provider_hokusai_dns.exceptions import Loss, LostDataError, RunEndError
from airflow_provider_hokusai_dns.resolver.deadline import bounded

if TYPE_CHECKING:
    import mlflow

    from airflow_provider_hokusai_dns.config.server import MLflowServer
    from airflow_provider_hokusai_dns.resolver.pin import Pin

_log = logging.getLogger(__name__)

FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"

#: MLflow's ``force_flush`` gives up silently after 30 s. A flush that took this long, in seconds,
#: may have, so it is repeated.
_TRACE_FLUSH_SUSPECT = 25.0
#: The last flush gets at least this long, in seconds, even with deadline 0.
_SHORTEST_FLUSH = 10.0


def status_of(error: BaseException) -> str:
    """The status of a run whose block raised an exception."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return FINISHED
    return KILLED if isinstance(error, KeyboardInterrupt | GeneratorExit) else FAILED


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
    flush_deadline: float | None = None,
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
    :param flush_deadline: seconds for which the last flush continues while nothing gets through;
        the connection's ``deadline`` by default.
    :param status_of: maps the exception of the block to a status, for exceptions that are not a
        failure.
    :param pins: wait for outages from the start of the run to its end.
    """
    with ExitStack() as stack:
        stack.enter_context(repeated_lines_held_back())
        mlflow_private.tell_what_is_missing()
        stack.enter_context(fluent_uri(server.conn_id, tracking_uri, registry_uri(server)))
        tags = dict(tags or {})
        has_parent = nested and _enclosing() is not None
        run: _OpenRun | None = None

        def stop(seconds: float) -> None:
            if run is not None:
                run.stop(seconds)
            elif run_id is None:
                end_what_is_being_begun(tracking_uri, tags, seconds)

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

        def end_orphans() -> object:
            mine = {active.info.run_id, *run_ids_in_use()}
            its_tags = {} if run_id is not None else tags
            return end_orphaned_runs(tracking_uri, active.info.experiment_id, mine, its_tags)

        run = _OpenRun(
            active.info.run_id,
            tracking_uri,
            server.conn_id,
            tracker=stack.enter_context(track_delivery(active.info.run_id)),
            end_orphans=end_orphans,
            end=end,
            deadline=server.deadline if flush_deadline is None else flush_deadline,
        )
        try:
            end_orphans()
            its_tags = {key: value for key, value in tags.items() if key in TASK_TAGS}
            stack.enter_context(begun_inside(active, its_tags))
            stack.enter_context(carriers.run_is_open(server.conn_id))
            for pin in pins:
                stack.enter_context(pin.patient(server.deadline, CONNECT_TIMEOUT))
            yield active
        except BaseException as error:
            run.close_after(error, status_of(error))
            raise
        run.close()


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


def must_end_now(error: BaseException, status: str) -> bool:
    """Whether the task is to end at once: Ctrl-C, or Airflow's ``execution_timeout``."""
    return status != FINISHED and not isinstance(error, Exception | SystemExit)


@dataclass(eq=False)
class _OpenRun:
    """One open run, and how it is ended."""

    run_id: str
    uri: str
    conn_id: str
    tracker: DeliveryTracker
    end_orphans: Callable[[], object]
    end: bool
    deadline: float
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._active_runs = mlflow_private.active_runs()
        #: How many runs of this thread are not ours to end.
        self._others = max(0, len(self._active_runs or ()) - 1)

    def close(self) -> None:
        """End the run after the block succeeded."""
        with self._ending_in_any_case(FAILED):
            losses = self._flush(max(self.deadline, _SHORTEST_FLUSH))
            self._finish(FAILED if losses else FINISHED, losses)
        if losses:
            raise LostDataError(self.run_id, losses)

    def close_after(self, error: BaseException, status: str) -> None:
        """End the run after the block raised an exception, which must not be changed."""
        if self._stopped and status == FAILED:
            status = KILLED  # what a task that is told to stop raises
        limit = sigterm.SECONDS if must_end_now(error, status) else float("inf")
        end = time.monotonic() + limit
        try:
            with self._ending_in_any_case(FAILED if status == FINISHED else status):
                if losses := self._flush(max(self.deadline, _SHORTEST_FLUSH), limit):
                    _log.error("%s", LostDataError(self.run_id, losses))
                # A server that answers is told even if the flush has used up all the time.
                with bounded(max(1.0, end - time.monotonic())):
                    self._finish(status)
        except Exception as trouble:
            why = f": {trouble.__cause__}" if trouble.__cause__ is not None else ""
            _log.error("After %s: %s%s", type(error).__name__, trouble, why)

    @contextmanager
    def _ending_in_any_case(self, status: str) -> Iterator[None]:
        """If the task's time runs out while its run is being ended, still end it."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, RunEndError):
                with suppress(Exception), bounded(sigterm.SECONDS):
                    self._finish(status)
            raise

    def stop(self, seconds: float) -> None:
        """End the run now, because the task is being stopped, and send what can still be sent.

        Called on a separate thread. The status is sent first: MLflow accepts metrics after it too.
        """
        self._stopped = True
        end = time.monotonic() + seconds
        ids = [run_id for run_id in self._ids() if run_id != self.run_id or self._is_active]

        def kill() -> None:
            for run_id in ids:
                terminate(self.uri, run_id, KILLED)

        ending = threading.Thread(target=kill, daemon=True)
        ending.start()
        self._drain(seconds, max(0.0, end - time.monotonic()))
        ending.join(max(0.0, end - time.monotonic()))

    def _flush(self, quiet: float, limit: float = float("inf")) -> tuple[Loss, ...]:
        """Wait until logged data has been sent.

        :param quiet: seconds without progress after which to give up.
        :param limit: seconds after which to give up in any case.
        """
        end = time.monotonic() + limit
        self._stop_monitors(min(quiet, limit))
        self._drain(quiet, max(0.0, end - time.monotonic()))
        with bounded(max(1.0, end - time.monotonic())):
            if (carrier := carriers.carrier_of(self.conn_id)) is not None:
                carrier.sweep()
            # Again: since our first search, a slow server may have started a run for an earlier
            # try; or that search may have failed.
            self.end_orphans()
        if unfinished := self.tracker.unfinished_traces():
            _log.warning(
                "%d traces of run %s have spans that were never ended: they are not sent.",
                unfinished,
                self.run_id,
            )
        return self.tracker.losses()

    def _stop_monitors(self, seconds: float) -> None:
        """Stop MLflow's monitors of system metrics.

        They wait without a time limit for their own thread, which may be waiting for the server.
        """
        by_run = mlflow_private.MONITORS.find() or {}
        monitors = [by_run.pop(run_id, None) for run_id in self._ids()]
        threads = [
            threading.Thread(target=monitor.finish, daemon=True)
            for monitor in monitors
            if monitor is not None
        ]
        end = time.monotonic() + seconds
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _drain(self, quiet: float, limit: float) -> None:
        """Wait until asynchronously logged data has been sent, or until nothing gets through."""
        given_up = threading.Event()
        flushes = []
        # MLflow's flushes have no bound of their own.
        if self.tracker.has_traces:
            flushes.append(threading.Thread(target=_flush_traces, args=(given_up,), daemon=True))
        if not self.tracker.counts_batches:
            import mlflow

            flushes.append(threading.Thread(target=mlflow.flush_async_logging, daemon=True))
        for flush in flushes:
            flush.start()
        # MLflow's queues send all the time, so waiting is enough. Calling their flush() would stop
        # them while other runs of this process use them.
        self.tracker.wait(quiet, limit, lambda: any(flush.is_alive() for flush in flushes))
        given_up.set()

    def _finish(self, status: str, losses: tuple[Loss, ...] = ()) -> None:
        """Set the status on the server, and remove the run from the fluent API in any case."""
        ids = self._ids()
        is_active = self._is_active
        self._remove_from_fluent_api()
        try:
            for run_id in ids[:-1]:
                terminate(self.uri, run_id, status)
            # A run that the author's code has already ended keeps its status, unless a failure
            # overrides it.
            if status != FINISHED or (self.end and is_active):
                terminate(self.uri, self.run_id, status)
                _log.info("MLflow run %s ended as %s", self.run_id, status)
            elif self._stopped and is_active:  # a signal that the task has survived
                reopen(self.uri, self.run_id)
        except Exception as error:
            raise RunEndError(self.run_id, status, losses) from error

    @property
    def _is_active(self) -> bool:
        """Whether the author's code has not ended it."""
        return self._active_runs is None or any(
            run.info.run_id == self.run_id for run in self._active_runs
        )

    def _ids(self) -> list[str]:
        """This run, after the runs that the author's code has started inside it and not ended."""
        inside = [str(run.info.run_id) for run in (self._active_runs or ())[self._others :]]
        return [*(run_id for run_id in inside[::-1] if run_id != self.run_id), self.run_id]

    def _remove_from_fluent_api(self) -> None:
        if self._active_runs is not None:
            del self._active_runs[self._others :]
            mlflow_private.set_last_run(self.run_id)
            return
        import mlflow

        while mlflow.active_run() is not None:
            mlflow.end_run()


def _flush_traces(given_up: threading.Event) -> None:
    """Flush MLflow's traces until its span processors have passed all of them on."""
    import mlflow

    while not given_up.is_set():
        began = time.monotonic()
        mlflow.flush_trace_async_logging()
        if time.monotonic() - began < _TRACE_FLUSH_SUSPECT:
            return
