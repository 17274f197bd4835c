"""The process-wide state of MLflow's fluent API: tracking URI, registry URI and experiment.

Set while a run is open, and restored after the last one. It contains no secret.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from airflow_provider_hokusai_dns.client.errors import EnvironmentConflictError
from airflow_provider_hokusai_dns.client.mlflow_private import (
    EXPERIMENT,
    REGISTRY_URI,
    TRACKING_URI,
    set_tracking_uri,
    tracing_setup,
)
from airflow_provider_hokusai_dns.config import overrides
from airflow_provider_hokusai_dns.resolver import forks

_TRACKING_URI = "MLFLOW_TRACKING_URI"
_EXPERIMENT = "MLFLOW_EXPERIMENT_ID"
_REGISTRY_URI = "MLFLOW_REGISTRY_URI"
#: MLflow prints a link with our tag in it (http://<connection>@host), after one more request.
_NO_LINKS = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"

_lock = forks.free_in_child(threading.Lock())
_uri_holders: list[tuple[str, str, str | None]] = []
#: What was set before the first block, as the API and the environment have it; then each block's.
_experiments: list[list[str | None]] = []
#: Tracking and registry URI as MLflow's API had them before the first run.
_uris_before: tuple[str | None, str | None] = (None, None)
_put_tracing_back: Callable[[], None] = lambda: None  # noqa: E731
_changes: overrides.Changes | None = None


@contextlib.contextmanager
def fluent_uri(conn_id: str, tracking_uri: str, registry_uri: str | None = None) -> Iterator[None]:
    """Direct ``mlflow.log_metric`` and the like to one server while the block runs.

    The fluent API has one tracking URI per process: with two servers at once, both threads would
    write to the second.

    :raises EnvironmentConflictError: while another run of this process is on another server.
    """
    with _lock:
        for holder, uri, registry in _uri_holders:
            if (uri, registry) != (tracking_uri, registry_uri):
                raise EnvironmentConflictError(
                    "the tracking URI",
                    (conn_id, holder),
                    "End the run on the other server first, or use an MlflowClient of the hook "
                    "for one of them.",
                )
        if not _uri_holders:
            _enter_uri(conn_id, tracking_uri, registry_uri)
        entry = (conn_id, tracking_uri, registry_uri)
        _uri_holders.append(entry)
    try:
        yield
    finally:
        with _lock:
            _uri_holders.remove(entry)
            if not _uri_holders:
                _leave_uri()


def _enter_uri(conn_id: str, tracking_uri: str, registry_uri: str | None) -> None:
    global _uris_before, _put_tracing_back, _changes
    import mlflow

    registry_uri = registry_uri or tracking_uri
    _uris_before = TRACKING_URI.find(), REGISTRY_URI.find()
    _put_tracing_back = tracing_setup()
    values = {_TRACKING_URI: tracking_uri, _REGISTRY_URI: registry_uri, _NO_LINKS: "true"}
    _changes = overrides.begin(conn_id, values, restored=(_EXPERIMENT,))
    with overrides.kept(_TRACKING_URI, _REGISTRY_URI):  # both functions set the variables too
        set_tracking_uri(tracking_uri)
        # Without this, a registry URI of another client would get what this run registers.
        mlflow.set_registry_uri(registry_uri)
    _put_tracing_back()


@contextlib.contextmanager
def experiment_in_use(experiment_id: str) -> Iterator[None]:
    """Set the experiment for runs that are started or searched while the block runs.

    The fluent API has one experiment per process: that of the block entered last.
    """
    entry: list[str | None] = [experiment_id]
    with _lock:
        if not _experiments:
            _experiments.append([EXPERIMENT.find(), os.environ.get(_EXPERIMENT)])
        _experiments.append(entry)
        _set_experiment(experiment_id, experiment_id)
    try:
        yield
    finally:
        with _lock:
            # By identity: another block may be in the same experiment.
            _experiments[:] = [each for each in _experiments if each is not entry]
            last = _experiments[-1]
            _set_experiment(last[0], last[-1])
            if len(_experiments) == 1:
                _experiments.clear()


@contextlib.contextmanager
def experiment_kept() -> Iterator[None]:
    """Undo at the end what the author sets in the block by ``mlflow.set_experiment``."""
    before = EXPERIMENT.find(), os.environ.get(_EXPERIMENT)
    try:
        yield
    finally:
        with _lock:
            if EXPERIMENT.find() not in {entry[0] for entry in _experiments}:
                _set_experiment(*before)


def _set_experiment(experiment_id: str | None, variable: str | None) -> None:
    EXPERIMENT.set(experiment_id)
    if _changes is not None:
        _changes.ours[_EXPERIMENT] = variable
        if overrides.is_below_another(_changes):
            return
    overrides.put(_EXPERIMENT, variable)


def _leave_uri() -> None:
    global _changes
    tracking_uri, registry_uri = _uris_before
    with overrides.kept(_TRACKING_URI, _REGISTRY_URI):
        set_tracking_uri(tracking_uri)
        # mlflow.set_registry_uri() does not accept None.
        REGISTRY_URI.set(registry_uri)
    _put_tracing_back()
    if _changes is not None:
        overrides.end(_changes)
        _changes = None
