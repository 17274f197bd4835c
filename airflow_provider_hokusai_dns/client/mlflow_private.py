"""Every private name of MLflow that this package uses, and what happens without it.

A new version of MLflow may rename any of them. :data:`NAMES` is looked up before a run starts: one
warning lists missing names with the consequences, and the functions below then use the public API,
which is slower or reports less. ``tests/client/test_mlflow_versions.py`` checks the table against
the oldest supported MLflow, the pinned one and the newest.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PrivateName:
    """One name.

    :param path: ``module:attribute.attribute``.
    :param purpose: what it is used for.
    :param without: what happens if it is missing.
    :param since: the first supported version that has it.
    """

    path: str
    purpose: str
    without: str
    since: str = "3.10.1"

    def find(self) -> Any:
        """The object, or ``None``."""
        module, _, attributes = self.path.partition(":")
        try:
            found = import_module(module)
            for attribute in attributes.split("."):
                found = getattr(found, attribute)
        except (ImportError, AttributeError):
            return None
        return found

    def holder(self) -> tuple[Any, str]:
        """The object with the attribute, and the attribute's name; for a name that was found."""
        module, _, attributes = self.path.partition(":")
        holder: Any = import_module(module)
        *outer, last = attributes.split(".")
        for attribute in outer:
            holder = getattr(holder, attribute)
        return holder, last


_FLUENT = "mlflow.tracking.fluent"
_QUEUE = "mlflow.utils.async_logging.async_logging_queue:AsyncLoggingQueue"
_ARTIFACTS = "mlflow.utils.async_logging.async_artifacts_logging_queue:AsyncArtifactsLoggingQueue"
_TRACES = "mlflow.tracing.client:TracingClient"
_MANAGER = "mlflow.tracing.trace_manager:InMemoryTraceManager"

RUN_STACK = PrivateName(
    f"{_FLUENT}:_active_run_stack",
    "put runs down without ending them at the server",
    "runs are ended by mlflow.end_run(), which waits for the queues without a bound",
)
IMPLICIT_RUN = PrivateName(
    f"{_FLUENT}:_get_or_start_run",
    "let what a thread or a forked child logs go to the run of the block",
    "MLflow begins a run for it, in the experiment of the block; it stays RUNNING",
)
EXPERIMENT = PrivateName(
    f"{_FLUENT}:_active_experiment_id",
    "put mlflow.set_experiment() back after the block",
    "the experiment of the last run stays set in this process",
)
LAST_RUN = PrivateName(
    f"{_FLUENT}:_last_active_run_id",
    "mlflow.last_active_run() after the block",
    "mlflow.last_active_run() gives None after the block",
)
MONITORS = PrivateName(
    f"{_FLUENT}:run_id_to_system_metrics_monitor",
    "stop the monitors of system metrics within the deadline",
    "the last values of system metrics are not waited for",
)
TRACKING_URI = PrivateName(
    "mlflow.tracking._tracking_service.utils:_tracking_uri",
    "put the tracking URI back after the block as it was, also where it was not set",
    "it is put back by mlflow.set_tracking_uri()",
)
REGISTRY_URI = PrivateName(
    "mlflow.tracking._model_registry.utils:_registry_uri",
    "put the registry URI back after the block as it was, also where it was not set",
    "it is put back by mlflow.set_registry_uri()",
)
BATCHES = PrivateName(
    f"{_QUEUE}.log_batch_async",
    "count what is logged asynchronously",
    "a run ends by mlflow.flush_async_logging(), and what failed is told by its requests",
)
ARTIFACTS = PrivateName(
    f"{_ARTIFACTS}.log_artifacts_async",
    "wait for artifacts that are logged asynchronously",
    "they are not waited for; uploads that fail are still told",
)
TRACE_BEGUN = PrivateName(
    f"{_MANAGER}.register_trace",
    "know which traces were begun",
    "a run ends by mlflow.flush_trace_async_logging(), and what failed is told by its requests",
)
TRACE_HELD = PrivateName(
    f"{_MANAGER}.get_instance",
    "tell a trace whose span has not ended from a lost one",
    "a trace that never ended counts as lost",
)
TRACE_SENT = PrivateName(
    f"{_TRACES}.start_trace", "know which traces were sent", "as without register_trace"
)
TRACE_SPANS = PrivateName(
    f"{_TRACES}.log_spans", "know which spans were sent", "as without register_trace"
)
TRACE_DATA = PrivateName(
    f"{_TRACES}._upload_trace_data", "know which spans were sent", "as without register_trace"
)
AUTH = PrivateName(
    "mlflow.tracking.request_auth.registry:_request_auth_provider_registry",
    "see that MLflow finds our plugin, without which it sends no credentials",
    "AuthProviderError: no run is begun",
)

NAMES = (
    RUN_STACK, IMPLICIT_RUN, EXPERIMENT, LAST_RUN, MONITORS, TRACKING_URI, REGISTRY_URI, BATCHES,
    ARTIFACTS, TRACE_BEGUN, TRACE_HELD, TRACE_SENT, TRACE_SPANS, TRACE_DATA, AUTH,
)  # fmt: skip

#: Modules of MLflow that continue with a warning where their own logging fails.
SWALLOWING = ("mlflow.utils.autologging_utils", "mlflow.system_metrics")
#: Those whose errors are counted at the names above; without them, at their requests.
BATCH_MODULES = ("mlflow.utils.async_logging",)
TRACE_MODULES = ("mlflow.tracing.export",)
TRACE_NAMES = (TRACE_BEGUN, TRACE_SENT, TRACE_SPANS, TRACE_DATA)

_told = False


def missing(version: str | None = None) -> tuple[PrivateName, ...]:
    """The names that this version of MLflow should have, but does not."""
    from packaging.version import Version

    if version is None:
        import mlflow

        version = mlflow.__version__
    now = Version(version)
    return tuple(
        name
        for name in NAMES
        if now >= Version(name.since) and name.find() is None and not _is_unset(name)
    )


def _is_unset(name: PrivateName) -> bool:
    """Whether a module's variable is there and ``None``."""
    module, _, attribute = name.path.partition(":")
    try:
        return attribute in vars(import_module(module))
    except ImportError:
        return False


def tell_what_is_missing() -> None:
    """Log one warning per process if MLflow lacks names that this package knows."""
    global _told
    if _told:
        return
    _told = True
    if lost := missing():
        import mlflow

        _log.warning(
            "MLflow %s is not known to this package, which cannot find %s",
            mlflow.__version__,
            "; ".join(f"{name.path} ({name.without})" for name in lost),
        )


# --- the fluent API


def active_runs() -> list[Any] | None:
    """The fluent API's stack of active runs of this thread; ``None`` if it cannot be reached."""
    variable = RUN_STACK.find()
    found: list[Any] | None = None if variable is None else variable.get()
    return found


def monitors() -> dict[str, Any]:
    """MLflow's monitors of system metrics by run."""
    found: dict[str, Any] | None = MONITORS.find()
    return {} if found is None else found


def set_last_run(run_id: str) -> None:
    """Set the result of ``mlflow.last_active_run()`` on this thread."""
    if (variable := LAST_RUN.find()) is not None:
        variable.set(run_id)


def experiment_id() -> str | None:
    """The experiment that ``mlflow.set_experiment`` has set."""
    found: str | None = EXPERIMENT.find()
    return found


def set_experiment_id(value: str | None) -> None:
    """Set it without asking the server."""
    from mlflow.tracking import fluent

    if hasattr(fluent, "_active_experiment_id"):
        module: Any = fluent
        module._active_experiment_id = value


def tracking_uris() -> tuple[str | None, str | None]:
    """The tracking and registry URI that were set, ``None`` for one that was not."""
    return TRACKING_URI.find(), REGISTRY_URI.find()


def set_tracking_uri(value: str | None) -> None:
    """Like ``mlflow.set_tracking_uri``, which would reset the tracer while a trace is open."""
    import mlflow
    from mlflow.tracking._tracking_service import utils as tracking

    if mlflow.get_current_active_span() is None or not hasattr(tracking, "_tracking_uri"):
        set_tracking_uri: Any = mlflow.set_tracking_uri
        set_tracking_uri(value)
        return
    module: Any = tracking
    module._tracking_uri = value
    if value is not None:
        os.environ["MLFLOW_TRACKING_URI"] = value


def set_registry_uri(value: str | None) -> None:
    """Like ``mlflow.set_registry_uri``, which does not accept ``None``."""
    from mlflow.tracking._model_registry import utils as registry

    if hasattr(registry, "_registry_uri"):
        module: Any = registry
        module._registry_uri = value
