"""Keep an outage readable in the log of a task.

While MLflow is unavailable, urllib3 logs each try of each of MLflow's ten threads, and MLflow logs
each batch that it could not send: hundreds of similar lines around our two, which report the outage
and its end. While a run is open, each kind of line is logged once a minute, with the number of
lines that were held back.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from airflow_provider_hokusai_dns.resolver import forks

_LOGGERS = ("urllib3.connectionpool", "mlflow.utils.async_logging.async_logging_queue")
#: Seconds between two lines of one kind.
_PAUSE = 60.0
#: So much of a line tells its kind; behind it come addresses, counts and texts of exceptions.
_KIND = 60


class _OncePerPause(logging.Filter):
    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._lock = forks.free_in_child(threading.Lock())
        self._kinds: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Hold a line back, or log it with the number of lines that were held back."""
        if record.levelno < logging.WARNING:
            return True
        kind, now = f"{record.name} {str(record.msg)[:_KIND]}", self._monotonic()
        with self._lock:
            until, held = self._kinds.get(kind, (0.0, 0))
            if now < until:
                self._kinds[kind] = (until, held + 1)
                return False
            self._kinds[kind] = (now + _PAUSE, 0)
        if held:
            record.msg, record.args = f"{record.getMessage()} (and {held} more like it)", ()
        return True


@contextlib.contextmanager
def repeated_lines_held_back(monotonic: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Hold repeated lines of urllib3 and MLflow back while the block runs.

    :param monotonic: seconds on a clock that never steps.
    """
    once = _OncePerPause(monotonic)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(once)
    try:
        yield
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(once)
