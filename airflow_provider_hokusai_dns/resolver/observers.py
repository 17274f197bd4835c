"""Delivers the resolver's events to metrics and logs, outside every lock."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.metrics import Event

log = logging.getLogger(__name__)


class Observers:
    """The registered observers.

    :param served: counts the answers served from memory so far, by field of the event. The hit path
        itself notifies no observer, so each event contains how many there were since the last one.
    """

    def __init__(self, served: Callable[[], Counter[str]]) -> None:
        self._served = served
        self._reported = Counter[str]()
        self._lock = forks.free_in_child(threading.RLock())  # reentrant: for a signal handler
        self._observers: tuple[Callable[[Event], None], ...] = ()
        forks.renewed(self)

    def renew_after_fork(self) -> None:
        """Leave the answers of the parent to the parent: it will tell of them itself."""
        self._reported = self._served()

    def add(self, observer: Callable[[Event], None]) -> None:
        """Add an observer."""
        self._observers = (*self._observers, observer)

    def emit(self, kind: str, hostname: str, **details: Any) -> None:
        """Notify all of them of an event. One that raises does not affect the others.

        :param details: further fields of the :class:`~.metrics.Event`.
        """
        if not self._observers:
            return
        served = self._served()
        with self._lock:  # or two events would tell of the same hits
            news = served - self._reported
            self._reported |= served
        event = Event(kind, hostname, **{**details, **news})
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                log.debug("An observer of the resolver failed", exc_info=True)
