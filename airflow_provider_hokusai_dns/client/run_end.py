"""How a run ends: its status, what was logged, and what the author's code has left open in it.

MLflow's own ways of ending one (``end_run``, ``set_terminated``, the flushes) wait without a time
limit, and stop the queues that other runs of this process are using.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from airflow_provider_hokusai_dns.client import adapters, mlflow_private, sigterm
from airflow_provider_hokusai_dns.client.begun_inside import (
    left_open_by_threads,
    remove_from_threads,
)
from airflow_provider_hokusai_dns.client.delivery import DeliveryTracker
from airflow_provider_hokusai_dns.client.errors import Loss, LostDataError, RunEndError
from airflow_provider_hokusai_dns.client.orphaned_runs import reopen, terminate
from airflow_provider_hokusai_dns.resolver.deadline import bounded

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


def must_end_now(error: BaseException, status: str) -> bool:
    """Whether the task is to end at once: Ctrl-C, or Airflow's ``execution_timeout``."""
    return status != FINISHED and not isinstance(error, Exception | SystemExit)


@dataclass(eq=False)
class OpenRun:
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
        self._pid = os.getpid()
        self._active_runs = mlflow_private.active_runs()
        #: How many runs of this thread are not ours to end.
        self._others = max(0, len(self._active_runs or ()) - 1)

    @property
    def _is_the_parents(self) -> bool:
        """Whether a forked child leaves the block of its parent, which ends the run."""
        return os.getpid() != self._pid

    def close(self) -> None:
        """End the run after the block succeeded."""
        if self._is_the_parents:
            return
        with self._ending_in_any_case(FAILED):
            losses = self._flush(max(self.deadline, _SHORTEST_FLUSH))
            self._finish(FAILED if losses else FINISHED, losses)
        if losses:
            raise LostDataError(self.run_id, losses)

    def close_after(self, error: BaseException, status: str) -> None:
        """End the run after the block raised an exception, which must not be changed."""
        if self._is_the_parents:
            return
        if self._stopped and status == FAILED:
            status = KILLED  # what a task that is told to stop raises
        is_short = self._stopped or must_end_now(error, status)
        limit = sigterm.SECONDS if is_short else float("inf")
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
        ids = [run_id for run_id in self._ids() if run_id != self.run_id or self._is_active]

        def kill() -> None:
            for run_id in ids:
                terminate(self.uri, run_id, KILLED)

        sigterm.run_side_by_side([kill, partial(self._drain, seconds, seconds)], seconds)

    def _flush(self, quiet: float, limit: float = float("inf")) -> tuple[Loss, ...]:
        """Wait until logged data has been sent.

        :param quiet: seconds without progress after which to give up.
        :param limit: seconds after which to give up in any case.
        """
        end = time.monotonic() + limit
        self._stop_monitors(min(quiet, limit))
        self._drain(quiet, max(0.0, end - time.monotonic()))
        with bounded(max(1.0, end - time.monotonic())):
            if (adapter := adapters.adapter_of(self.conn_id)) is not None:
                adapter.sweep()
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
        sigterm.run_side_by_side([each.finish for each in monitors if each is not None], seconds)

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
        inside += left_open_by_threads(self.run_id)
        return [*(run_id for run_id in inside[::-1] if run_id != self.run_id), self.run_id]

    def _remove_from_fluent_api(self) -> None:
        remove_from_threads(self.run_id)
        if self._active_runs is not None:
            del self._active_runs[self._others :]
            if (last_run := mlflow_private.LAST_RUN.find()) is not None:
                last_run.set(self.run_id)
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
