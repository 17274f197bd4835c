"""What one run has put into MLflow's queues, and whether it was sent."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_hokusai_dns.client import mlflow_private
from airflow_provider_hokusai_dns.client.breaker_errors import is_refusal
from airflow_provider_hokusai_dns.client.errors import Loss
from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.target import quoted

_MAX_EXAMPLES = 3
#: Seconds between two checks of things that do not notify.
_POLL = 0.05


@dataclass
class _Trace:
    """The progress of one trace."""

    delivered: bool = False
    spans_missing: bool = False
    failed: bool = False
    refused: bool = False


@dataclass(eq=False)
class DeliveryTracker:
    """Counts what one run has put into MLflow's queues, and what was sent.

    :param run_id: the run itself; data that its nested runs log on the same thread counts too.
    :param thread: the thread that has opened the run.
    """

    run_id: str
    thread: int = field(default_factory=threading.get_ident)
    _condition: threading.Condition = field(
        default_factory=lambda: forks.free_in_child(threading.Condition()), repr=False
    )
    _put: Counter[str] = field(default_factory=Counter)
    _done: Counter[str] = field(default_factory=Counter)
    _failed: Counter[str] = field(default_factory=Counter)
    _refused: Counter[str] = field(default_factory=Counter)
    _reasons: dict[str, list[str]] = field(default_factory=dict)
    _traces: dict[str, _Trace] = field(default_factory=dict)

    _got_through: float = 0.0
    #: Whether MLflow's queue for batches is known, so that what it holds is counted.
    counts_batches: bool = True
    counts_traces: bool = True

    def put(self, counts: dict[str, int]) -> None:
        """Count something that was put into a queue."""
        self._add(self._put, counts)

    def done(self, counts: dict[str, int]) -> None:
        """Count something that the store accepted."""
        self._got_through = time.monotonic()
        self._add(self._done, counts)

    def failed(self, counts: dict[str, int], error: BaseException) -> None:
        """Count something that the store did not accept."""
        with self._condition:
            for kind, count in counts.items():
                if count:
                    self._reason(kind, error)
            if is_refusal(error):
                self._refused.update(counts)
        self._add(self._failed, counts)

    def trace_begun(self, trace_id: str) -> None:
        """Record that a trace was opened under this run."""
        with self._condition:
            self._traces[trace_id] = _Trace()

    def trace_result(self, trace_id: str, part: str, error: BaseException | None) -> None:
        """Record that one part of a trace (``info``, ``spans`` or ``data``) was sent, or failed."""
        with self._condition:
            trace = self._traces.get(trace_id)
            if trace is None:
                return
            if error is not None:
                self._reason("traces", error)
                trace.refused = is_refusal(error)
            else:
                self._got_through = time.monotonic()
            if part == "info":
                trace.delivered, trace.failed = error is None, error is not None
            elif part == "data":
                trace.spans_missing = error is not None
            elif error is not None:
                # Each span is sent once: a later batch does not make up for it.
                trace.spans_missing = True

    def wait(self, quiet: float, limit: float, is_busy: Callable[[], bool]) -> None:
        """Wait until every batch and artifact was sent or failed, or until the time is over.

        :param quiet: seconds without progress after which to give up.
        :param limit: seconds after which to give up in any case.
        :param is_busy: reports further work to wait for.
        """
        end = time.monotonic() + limit
        with self._condition:
            self._got_through = time.monotonic()
            while self._open() or is_busy():
                left = min(end, self._got_through + quiet) - time.monotonic()
                if left <= 0:
                    return
                self._condition.wait(min(left, _POLL))

    @property
    def has_traces(self) -> bool:
        """Whether any trace was opened, as far as is known."""
        return bool(self._traces) or not self.counts_traces

    def losses(self) -> tuple[Loss, ...]:
        """What has not arrived by now. Call it after :meth:`wait` and a flush of the traces."""
        unsent = "not sent before the deadline"
        with self._condition:
            losses = []
            still_open = self._open()
            for kind in self._put:
                if lost := still_open[kind] + self._failed[kind]:
                    reasons = [*self._reasons.get(kind, ())]
                    if still_open[kind]:
                        reasons.append(unsent)
                    losses.append(Loss(kind, lost, tuple(reasons), lost == self._refused[kind]))
            if gone := [trace for name, trace in self._traces.items() if _is_lost(name, trace)]:
                reasons = self._reasons.get("traces", [])
                is_refused = all(trace.refused for trace in gone)
                losses.append(Loss("traces", len(gone), tuple(reasons), is_refused))
            return tuple(losses)

    def unfinished_traces(self) -> int:
        """The number of traces that the author's code has not ended."""
        with self._condition:
            return sum(
                not trace.delivered and not trace.failed and _is_open(trace_id)
                for trace_id, trace in self._traces.items()
            )

    def _open(self) -> Counter[str]:
        return self._put - self._done - self._failed

    def _add(self, counter: Counter[str], counts: dict[str, int]) -> None:
        with self._condition:
            counter.update(counts)
            self._condition.notify_all()

    def _reason(self, kind: str, error: BaseException) -> None:
        reasons = self._reasons.setdefault(kind, [])
        text = f"{type(error).__name__}: {quoted(error, 500)}"
        if text not in reasons and len(reasons) < _MAX_EXAMPLES:
            reasons.append(text)


def _is_lost(trace_id: str, trace: _Trace) -> bool:
    if trace.delivered:
        return trace.spans_missing
    return trace.failed or not _is_open(trace_id)


def _is_open(trace_id: str) -> bool:
    """Whether MLflow still holds a trace because a span of it has not ended."""
    get_manager = mlflow_private.TRACE_HELD.find()
    if get_manager is None:
        return False
    with get_manager().get_trace(trace_id) as trace:
        if trace is None:
            return False
        spans = list(trace.span_dict.values())
        return not spans or any(span.end_time_ns is None for span in spans)
