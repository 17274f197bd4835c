"""The client of ``hook.get_conn()``. Imports MLflow, so it is imported only when needed."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_ENABLE_ASYNC_LOGGING

from airflow_provider_hokusai_dns.client.delivery_hooks import is_tracking
from airflow_provider_hokusai_dns.client.errors import TRACING, AsyncOutsideRunError

#: Where one is set, traces go to a collector of OpenTelemetry.
_COLLECTORS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class OutsideRunsClient(MlflowClient):
    """An ``MlflowClient`` that never loses data silently outside ``hook.run``."""


def _checked(name: str) -> Callable[..., Any]:
    original = getattr(MlflowClient, name)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        synchronous = signature.bind(*args, **kwargs).arguments.get("synchronous")
        if synchronous is None and name != "log_image":
            synchronous = not MLFLOW_ENABLE_ASYNC_LOGGING.get()  # type: ignore[no-untyped-call]
        if name in TRACING:  # a collector gets it from anywhere
            synchronous = any(os.environ.get(each) for each in _COLLECTORS)
        if synchronous is False and not is_tracking():
            raise AsyncOutsideRunError(name)
        return original(*args, **kwargs)

    return call


for _name in ("log_metric", "log_param", "set_tag", "log_batch", "log_image", *TRACING):
    setattr(OutsideRunsClient, _name, _checked(_name))
