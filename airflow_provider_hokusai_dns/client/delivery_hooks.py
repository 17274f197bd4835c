"""Wraps MLflow's methods to count what is logged asynchronously, and what of it has arrived.

MLflow's ``flush_async_logging()`` returns normally even if batches were lost: their errors go to
its log, and the futures of merged batches always succeed. So we count at both ends of MLflow's
queues: what the author's code put in, and what the store accepted without an error. The difference
is lost. The same applies to asynchronous artifacts, and to traces by their ids.

For this, methods of MLflow's classes are wrapped while a run or a block of ``hook.fluent()`` is
open. :mod:`~.mlflow_private` says what happens if a version of MLflow lacks one.

Autologging and the monitor of system metrics continue with a warning if the server rejects their
requests. So such a request counts as lost too.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from airflow_provider_hokusai_dns.client import adapters, mlflow_private
from airflow_provider_hokusai_dns.client.creates import json_object
from airflow_provider_hokusai_dns.client.delivery import DeliveryTracker
from airflow_provider_hokusai_dns.client.errors import AsyncOutsideRunError
from airflow_provider_hokusai_dns.client.mlflow_private import PrivateName, replaced, wrapped
from airflow_provider_hokusai_dns.client.transport import Call
from airflow_provider_hokusai_dns.resolver import forks

T = TypeVar("T")

_lock = forks.free_in_child(threading.Lock())
_trackers: list[DeliveryTracker] = []
_owners: dict[str, DeliveryTracker] = {}
_undo: list[Callable[[], None]] = []
#: Blocks that need MLflow's methods wrapped, and how many of them refuse asynchronous calls.
_users = _refusing = 0
#: The process whose queues have threads: a forked child has the queues and not the threads.
_owner = os.getpid()
_counts_batches = _counts_traces = True
#: Whose frames lie between the parts of MLflow.
_PASSING_ON = {"mlflow", "requests", __name__.partition(".")[0], *sys.stdlib_module_names}
_AGAIN = 5
#: The KeyError of a thread that iterates over ``os.environ``; MLflow passes its text on.
_ENVIRONMENT_CHANGED = "_MLFLOW_TELEMETRY_SESSION_ID"


@contextmanager
def track_delivery(run_id: str) -> Iterator[DeliveryTracker]:
    """Count what is logged under a run while the block runs."""
    tracker = DeliveryTracker(run_id)
    with _hooked(), adapters.watched(functools.partial(_failed, tracker)):
        with _lock:
            tracker.counts_batches, tracker.counts_traces = _counts_batches, _counts_traces
            _trackers.append(tracker)
        try:
            yield tracker
        finally:
            with _lock:
                _trackers.remove(tracker)
                for owned in [name for name, owner in _owners.items() if owner is tracker]:
                    del _owners[owned]


def is_tracking() -> bool:
    """Whether a run of this process will wait for asynchronously logged data at its end."""
    return bool(_trackers)


@contextmanager
def async_refused_outside_runs() -> Iterator[None]:
    """In the block, asynchronous calls of the fluent API raise if no run would wait for them."""
    global _refusing
    with _hooked():
        with _lock:
            _refusing += 1
        try:
            yield
        finally:
            with _lock:
                _refusing -= 1


@contextmanager
def _hooked() -> Iterator[None]:
    """Wrap MLflow's methods while any block needs it, in whatever order the blocks end."""
    global _users
    with _lock:
        if not _users:
            _install()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            while _undo and not _users:
                _undo.pop()()


def _refuse_outside_runs() -> None:
    if _refusing and not _trackers:
        raise AsyncOutsideRunError("asynchronous logging")


def _tracker_of(run_id: str | None) -> DeliveryTracker | None:
    """The tracker that a run belongs to: its own, this thread's, or the latest.

    MLflow sends from its own threads, so the answer is determined on the author's thread and kept.
    """
    if run_id is not None and (owner := _owners.get(run_id)) is not None:
        return owner
    trackers = tuple(_trackers)
    owner = next((tracker for tracker in trackers if tracker.run_id == run_id), None)
    if owner is None and trackers:
        mine = [tracker for tracker in trackers if tracker.thread == threading.get_ident()]
        owner = (mine or trackers)[-1]
    if run_id is not None and owner is not None:
        _owners[run_id] = owner
    return owner


def _install() -> None:
    """Wrap MLflow's methods. The lock is held."""
    global _owner, _counts_batches, _counts_traces
    _owner = os.getpid()
    _counts_batches = mlflow_private.BATCHES.find() is not None
    _counts_traces = all(name.find() is not None for name in mlflow_private.TRACE_NAMES)
    _wrap(mlflow_private.BATCHES, _put_batch)
    _wrap(mlflow_private.ARTIFACTS, _put_artifacts)
    if _counts_traces:
        _wrap(mlflow_private.TRACE_BEGUN, _begin_trace)
        _wrap(mlflow_private.TRACE_SENT, functools.partial(_send, "info", _of_info))
        _wrap(mlflow_private.TRACE_SPANS, functools.partial(_send, "spans", _of_spans))
        _wrap(mlflow_private.TRACE_DATA, functools.partial(_send, "data", _of_info))
        _wrap(mlflow_private.TRACE_QUEUE, _put_trace)


def _swallowing() -> tuple[str, ...]:
    """Where failed requests are losses that nothing else reports."""
    return (
        *mlflow_private.SWALLOWING,
        *(() if _counts_batches else mlflow_private.BATCH_MODULES),
        *(() if _counts_traces else mlflow_private.TRACE_MODULES),
    )


def _failed(tracker: DeliveryTracker, call: Call, error: Exception) -> None:
    """Count a failed request whose error is swallowed by its caller, a part of MLflow."""
    fields = json_object(call.text or "")
    if (
        not call.rule.writes
        or "RESOURCE_ALREADY_EXISTS" in str(error)
        or tracker is not _tracker_of(str(fields.get("run_id") or "") or None)
        or not _is_swallowed()
    ):
        return
    counts = {"calls of MLflow itself": 1}
    with suppress(TypeError):
        found = {kind: len(fields.get(kind, ())) for kind in ("metrics", "params", "tags")}
        counts = {kind: count for kind, count in found.items() if count} or counts
    if call.request.method == "PUT":
        counts = {"artifacts": 1}
    tracker.put(counts)
    tracker.failed(counts, error)


def _is_swallowed() -> bool:
    """Whether the request that is being sent was called by a part of MLflow that hides errors.

    Of the code that leads there only what MLflow calls itself counts: an author's function that is
    called in between, as a step of a pipeline that is fitted, handles its own errors.
    """
    frame, is_in_mlflow, hiding, called = sys._getframe(), False, _swallowing(), ""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        called = f"{frame.f_code.co_name} {called.partition(' ')[0]}"
        if f"{module} {called}".startswith(hiding):
            return True
        package = module.partition(".")[0]
        is_in_mlflow = is_in_mlflow or package == "mlflow"
        if is_in_mlflow and package not in _PASSING_ON:
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _wrap(name: PrivateName, ours: Callable[..., Any]) -> None:
    """Call ours instead of a method of MLflow, which it gets first, if this version has it."""
    if (original := name.find()) is not None:
        _undo.append(replaced(*name.holder(), wrapped(original, ours)))


def deliver(send: Callable[[], T]) -> T:
    """Send a batch, and again if the environment of this process changed during that.

    :mod:`~.transport` repeats requests that fail on the network. Before a request gets there,
    ``requests`` iterates over ``os.environ`` for proxies, and fails if MLflow's telemetry thread
    removes its variable at that moment.
    """
    for _ in range(_AGAIN):
        try:
            return send()
        except Exception as error:
            if _ENVIRONMENT_CHANGED not in str(error):
                raise
    return send()


def _put_batch(
    original: Callable[..., Any], self: Any, run_id: str, params: Any, tags: Any, metrics: Any
) -> Any:
    _refuse_outside_runs()
    batch = {"run_id": run_id, "params": params, "tags": tags, "metrics": metrics}
    if os.getpid() != _owner:
        return _now(self._logging_func, **batch)
    if not getattr(self._logging_func, "_is_ours", False):
        self._logging_func = _taking(self._logging_func)
    tracker = _tracker_of(run_id)
    counts = {"metrics": len(metrics), "params": len(params), "tags": len(tags)}
    if tracker is not None:
        tracker.put(counts)
    try:
        return original(self, **batch)
    except BaseException as error:
        if tracker is not None:
            tracker.failed(counts, error)
        raise


def _taking(store: Callable[..., Any]) -> Callable[..., Any]:
    """What the queue calls for each batch, on its own threads."""

    @functools.wraps(store)
    def log_batch(run_id: str, metrics: Any, params: Any, tags: Any) -> Any:
        tracker = _tracker_of(run_id)
        counts = {"metrics": len(metrics), "params": len(params), "tags": len(tags)}
        try:
            result = deliver(
                lambda: store(run_id=run_id, metrics=metrics, params=params, tags=tags)
            )
        except BaseException as error:
            if tracker is not None:
                tracker.failed(counts, error)
            raise
        if tracker is not None:
            tracker.done(counts)
        return result

    log_batch.__dict__["_is_ours"] = True
    return log_batch


def _now(log: Callable[..., Any], **data: Any) -> Any:
    """Log at once, in a child that ends without waiting for its queues."""
    from mlflow.utils.async_logging.run_operations import RunOperations

    done: Future[None] = Future()
    deliver(lambda: log(**data))
    done.set_result(None)
    operations: Any = RunOperations
    return operations(operation_futures=[done])


def _put_artifacts(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    _refuse_outside_runs()
    if os.getpid() != _owner:
        given = inspect.signature(original).bind(self, *args, **kwargs).arguments
        del given["self"]
        return _now(self._artifact_logging_func, **given)
    # This queue merges nothing, so here the futures tell the truth.
    operations = original(self, *args, **kwargs)
    if (tracker := _tracker_of(None)) is not None:
        for future in operations._operation_futures:
            tracker.put({"artifacts": 1})
            future.add_done_callback(functools.partial(_artifact_done, tracker))
    return operations


def _artifact_done(tracker: DeliveryTracker, future: Future[Any]) -> None:
    error = CancelledError() if future.cancelled() else future.exception()
    if error is None:
        tracker.done({"artifacts": 1})
    else:
        tracker.failed({"artifacts": 1}, error)


def _begin_trace(
    original: Callable[..., Any],
    self: Any,
    otel_trace_id: int,
    trace_info: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    from mlflow.tracing.constant import TraceMetadataKey

    run_id = (trace_info.trace_metadata or {}).get(TraceMetadataKey.SOURCE_RUN)
    is_remote = kwargs.get("is_remote_trace") or True in args
    # One that goes to a collector or elsewhere has no experiment.
    goes_to_mlflow = is_remote or getattr(trace_info, "experiment_id", None) is not None
    tracker = _tracker_of(run_id) if goes_to_mlflow else None
    if tracker is not None:
        tracker.trace_begun(trace_info.trace_id)
        if is_remote:  # the process that began it sends it; from here go spans only
            tracker.trace_result(trace_info.trace_id, "info", None)
    return original(self, otel_trace_id, trace_info, *args, **kwargs)


def _send(
    part: str,
    ids: Callable[..., Iterator[str]],
    original: Callable[..., Any],
    self: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Send one part of traces; ``ids`` finds the traces in the arguments."""
    trace_ids: set[str] = set()
    with suppress(TypeError, AttributeError):  # called in a way we do not know
        trace_ids.update(ids(*args, **kwargs))
    try:
        result = original(self, *args, **kwargs)
    except BaseException as error:
        if not _sent_later(part, error):
            _tell(trace_ids, part, error)
        raise
    _tell(trace_ids, part, None)
    return result


def _of_info(trace_info: Any, *_: Any) -> Iterator[str]:
    yield trace_info.trace_id


def _of_spans(location: Any, spans: Any) -> Iterator[str]:
    for span in spans:
        yield span.trace_id


def _put_trace(original: Callable[..., Any], self: Any, task: Any) -> Any:
    return original(self, task) if os.getpid() == _owner else task.handle()


def _sent_later(part: str, error: BaseException) -> bool:
    """Whether a server that does not accept single spans gets them later with the whole trace."""
    return part == "spans" and (
        isinstance(error, NotImplementedError) or "span logging is not supported" in str(error)
    )


def _tell(trace_ids: set[str], part: str, error: BaseException | None) -> None:
    for tracker in tuple(_trackers):
        for trace_id in trace_ids:
            tracker.trace_result(trace_id, part, error)
