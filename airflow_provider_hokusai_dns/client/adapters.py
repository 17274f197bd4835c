"""Which requests of this process have an adapter of ours: those to a signed-in connection, by URL.

``requests`` selects a session's adapter by the URL. A URL with the tag of a connection (see
:mod:`~.auth`) gets the connection's :class:`~.transport.ConnectionAdapter`. All other requests are
sent as before, and no private name of MLflow is needed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from airflow_provider_hokusai_dns.client.transport import (
    REDIRECTED,
    Call,
    ConnectionAdapter,
    FailureObserver,
)
from airflow_provider_hokusai_dns.config.origin import origin_of
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.resolver import forks

_lock = forks.free_in_child(threading.Lock())
_adapters: dict[str, ConnectionAdapter] = {}
#: The connection of each open run.
_runs: list[str] = []
_watches: list[FailureObserver] = []


def mount(server: MLflowServer, renew: Callable[[], str | None]) -> None:
    """Send the requests of a connection by an adapter from now on, with its current settings."""
    with _lock:
        current = _adapters.get(server.conn_id)
        if current is not None and current.server == server:
            current.renew = renew
        else:
            made = _adapters[server.conn_id] = _adapter(server, renew)
            if current is not None:  # the login may have changed during a run
                made.take_over(current)
        _install()


def _adapter(server: MLflowServer, renew: Callable[[], str | None]) -> ConnectionAdapter:
    in_run = partial(has_open_run, server.conn_id)
    return ConnectionAdapter(server, renew=renew, in_run=in_run, failed=_tell)


def drop(conn_id: str) -> None:
    """Stop sending the requests of a connection."""
    with _lock:
        _adapters.pop(conn_id, None)


def adapter_of(conn_id: str) -> ConnectionAdapter | None:
    """The adapter of a connection's requests."""
    return _adapters.get(conn_id)


@contextlib.contextmanager
def run_is_open(conn_id: str) -> Iterator[None]:
    """While the block runs, calls of this connection may wait as long as inside a run."""
    _runs.append(conn_id)
    try:
        yield
    finally:
        _runs.remove(conn_id)


def has_open_run(conn_id: str) -> bool:
    """Whether a run of this connection is open in this process."""
    return conn_id in _runs


@contextlib.contextmanager
def watched(watch: FailureObserver) -> Iterator[None]:
    """Report each call that fails in the end, on the thread of its caller."""
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)


def _tell(call: Call, error: Exception) -> None:
    for watch in tuple(_watches):
        watch(call, error)


def _install() -> None:
    """Replace the selection of adapters. The lock is held.

    If other code has wrapped our function, it is still called: replaced again, it would become its
    own original.
    """
    saved = getattr(_get_adapter, "__hokusai_original__", None)
    if saved is None or requests.Session.get_adapter is saved:
        _get_adapter.__hokusai_original__ = requests.Session.get_adapter  # type: ignore[attr-defined]
        requests.Session.get_adapter = _get_adapter  # type: ignore[method-assign]


def _get_adapter(self: requests.Session, url: str) -> Any:
    """Replaces ``requests.Session.get_adapter``."""
    if "@" in url and _adapters:
        parts = urlsplit(url)
        adapter = _adapters.get(unquote(parts.username or ""))
        if adapter is not None and (
            parts.password == REDIRECTED
            or (parts.password is None and origin_of(url) == origin_of(adapter.server.uri))
        ):
            return adapter
    return _get_adapter.__hokusai_original__(self, url)  # type: ignore[attr-defined]


@forks.in_child
def _after_fork_in_child() -> None:
    # A connection that parent and child both used would mix their answers.
    for conn_id, adapter in list(_adapters.items()):
        _adapters[conn_id] = _adapter(adapter.server, adapter.renew)
