"""Every private name of MLflow that this package uses, and what happens without it.

A new version of MLflow may rename any of them. :data:`NAMES` is looked up before a run starts: one
warning lists missing names with the consequences, and the functions below then use the public API,
which is slower or reports less. ``tests/client/test_mlflow_versions.py`` checks the table against
the oldest supported MLflow, the pinned one and the newest.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PrivateName:
    """One name, which the oldest supported MLflow has too.

    :param path: ``module:attribute.attribute``.
    :param without: what happens if it is missing.
    """

    path: str
    without: str

    def find(self) -> Any:
        """The object, or ``None``."""
        return getattr(*self.holder()) if self.is_there() else None

    def is_there(self) -> bool:
        """Whether it is there; a module's variable also while it is ``None``."""
        try:
            return hasattr(*self.holder())
        except (ImportError, AttributeError):
            return False

    def set(self, value: Any) -> None:
        """Replace the object, if it is there."""
        if self.is_there():
            setattr(*self.holder(), value)

    def holder(self) -> tuple[Any, str]:
        """The object with the attribute, and the attribute's name.

        :raises ImportError, AttributeError: there is no such object.
        """
        module, _, attributes = self.path.partition(":")
        holder: Any = import_module(module)
        *outer, last = attributes.split(".")
        for attribute in outer:
            holder = getattr(holder, attribute)
        return holder, last


def replaced(holder: Any, name: str, ours: Any) -> Callable[[], None]:
    """Set an attribute; returns what puts it back.

    Other code may have wrapped ours once more in the meantime: then it stays, and is idle.
    """
    original = getattr(holder, name)
    setattr(holder, name, ours)

    def undo() -> None:
        if holder.__dict__.get(name) is ours:
            setattr(holder, name, original)

    return undo


def wrapped(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls ours, which gets the original first."""

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return ours(original, *args, **kwargs)

    return wrapper


_FLUENT = "mlflow.tracking.fluent"
_QUEUE = "mlflow.utils.async_logging.async_logging_queue:AsyncLoggingQueue"
_ARTIFACTS = "mlflow.utils.async_logging.async_artifacts_logging_queue:AsyncArtifactsLoggingQueue"
_TRACES = "mlflow.tracing.client:TracingClient"
_MANAGER = "mlflow.tracing.trace_manager:InMemoryTraceManager"

#: Runs are removed from it without being ended at the server.
RUN_STACK = PrivateName(
    f"{_FLUENT}:_active_run_stack",
    "runs are ended by mlflow.end_run(), which waits for the queues without a bound",
)
#: Wrapped, so that what a thread or a forked child logs goes to the run of the block.
IMPLICIT_RUN = PrivateName(
    f"{_FLUENT}:_get_or_start_run",
    "MLflow begins a run for it, in the experiment of the block; it stays RUNNING",
)
EXPERIMENT = PrivateName(
    f"{_FLUENT}:_active_experiment_id",
    "the experiment of the last run stays set in this process",
)
LAST_RUN = PrivateName(
    f"{_FLUENT}:_last_active_run_id", "mlflow.last_active_run() returns None after the block"
)
#: Stopped within the deadline.
MONITORS = PrivateName(
    f"{_FLUENT}:run_id_to_system_metrics_monitor",
    "the last values of system metrics are not waited for",
)
#: Both are put back after the block as they were, also where they were not set.
TRACKING_URI = PrivateName(
    "mlflow.tracking._tracking_service.utils:_tracking_uri",
    "the URI is restored by mlflow.set_tracking_uri()",
)
REGISTRY_URI = PrivateName(
    "mlflow.tracking._model_registry.utils:_registry_uri",
    "the URI is restored by mlflow.set_registry_uri()",
)
#: What the author has set up for tracing, which ``mlflow.set_tracking_uri`` resets; put back.
TRACE_CONFIG = PrivateName(
    "mlflow.tracing.config:_MLFLOW_TRACING_CONFIG",
    "mlflow.tracing.configure() has no effect on runs that are opened later",
)
TRACE_DESTINATION = PrivateName(
    "mlflow.tracing.provider:_MLFLOW_TRACE_USER_DESTINATION._global_value",
    "mlflow.tracing.set_destination() has no effect on runs that are opened later",
)
TRACING_ENABLED = PrivateName(
    "mlflow.tracing.provider:is_tracing_enabled",
    "mlflow.tracing.disable() has no effect on runs that are opened later",
)
#: Wrapped, to count what is logged asynchronously.
BATCHES = PrivateName(
    f"{_QUEUE}.log_batch_async",
    "a run ends by mlflow.flush_async_logging(), and losses are known from its requests only",
)
ARTIFACTS = PrivateName(
    f"{_ARTIFACTS}.log_artifacts_async",
    "they are not waited for; uploads that fail are still reported",
)
#: Wrapped, to know which traces were begun, and which of their parts were sent.
TRACE_BEGUN = PrivateName(
    f"{_MANAGER}.register_trace",
    "a run ends by mlflow.flush_trace_async_logging(), and losses are known from its requests only",
)
TRACE_SENT = PrivateName(f"{_TRACES}.start_trace", "as without register_trace")
TRACE_SPANS = PrivateName(f"{_TRACES}.log_spans", "as without register_trace")
TRACE_DATA = PrivateName(f"{_TRACES}._upload_trace_data", "as without register_trace")
TRACE_QUEUE = PrivateName(
    "mlflow.tracing.export.async_export_queue:AsyncTraceExportQueue.put",
    "traces of forked children are lost",
)
#: Tells a trace whose span has not ended from a lost one.
TRACE_HELD = PrivateName(f"{_MANAGER}.get_instance", "a trace that never ended counts as lost")
#: Shows whether MLflow finds our plugin, without which it sends no credentials.
AUTH = PrivateName(
    "mlflow.tracking.request_auth.registry:_request_auth_provider_registry",
    "AuthProviderError: no run can be opened",
)

NAMES = (
    RUN_STACK, IMPLICIT_RUN, EXPERIMENT, LAST_RUN, MONITORS, TRACKING_URI, REGISTRY_URI,
    TRACE_CONFIG, TRACE_DESTINATION, TRACING_ENABLED, BATCHES, ARTIFACTS, TRACE_BEGUN, TRACE_HELD,
    TRACE_SENT, TRACE_SPANS, TRACE_DATA, TRACE_QUEUE, AUTH,
)  # fmt: skip

#: Where MLflow continues with a warning if its own logging fails: the beginning of a module's name,
#: its function, and the function that it calls.
SWALLOWING = (
    "mlflow.utils.autologging_utils",
    "mlflow.system_metrics",
    "mlflow.genai.evaluation",
    "mlflow.tracing.export.utils",
    "mlflow.tracing.client _upload_attachments",
    "mlflow.models.model log log_params",  # the model_config of a model
)
#: Those whose errors are counted at the names above; without them, at their requests.
BATCH_MODULES = ("mlflow.utils.async_logging",)
TRACE_MODULES = ("mlflow.tracing.export",)
TRACE_NAMES = (TRACE_BEGUN, TRACE_SENT, TRACE_SPANS, TRACE_DATA)

_warned = False


def missing() -> tuple[PrivateName, ...]:
    """The names that this version of MLflow does not have."""
    return tuple(name for name in NAMES if not name.is_there())


def warn_about_missing() -> None:
    """Log one warning per process if MLflow lacks names that this package knows."""
    global _warned
    if _warned:
        return
    _warned = True
    if lost := missing():
        import mlflow

        _log.warning(
            "This package does not know MLflow %s, and cannot find these parts of it: %s",
            mlflow.__version__,
            "; ".join(f"{name.path} ({name.without})" for name in lost),
        )


# --- the fluent API


def active_runs() -> list[Any] | None:
    """The fluent API's stack of active runs of this thread; ``None`` if it cannot be reached."""
    variable = RUN_STACK.find()
    found: list[Any] | None = None if variable is None else variable.get()
    return found


def tracing_setup() -> Callable[[], None]:
    """Note what the author has set up for tracing; returns what puts it back."""
    import mlflow

    kept = [(name, name.find()) for name in (TRACE_CONFIG, TRACE_DESTINATION)]
    is_enabled = TRACING_ENABLED.find()
    is_disabled = is_enabled is not None and not is_enabled()

    def put_back() -> None:
        for name, value in kept:
            name.set(value)
        if is_disabled:
            mlflow.tracing.disable()

    return put_back


def set_tracking_uri(value: str | None) -> None:
    """Like ``mlflow.set_tracking_uri``, which would reset the tracer while a trace is open.

    While one is open, the environment variable is not set.
    """
    import mlflow

    if mlflow.get_current_active_span() is None or not TRACKING_URI.is_there():
        set_tracking_uri: Any = mlflow.set_tracking_uri
        set_tracking_uri(value)
    else:
        TRACKING_URI.set(value)
