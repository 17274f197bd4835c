"""The settings of the endpoints. A wrong one must not disable the endpoints that report it."""

from __future__ import annotations

import logging
from typing import TypeVar

from airflow_provider_hokusai_dns.config import settings

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Wrong values that have been logged, by option.
_complained: dict[str, str | None] = {}


def look_every() -> float:
    """Seconds for which one check of a connection is recent enough."""
    return _lenient("look_every", 15.0)


def metrics_for_anyone() -> bool:
    """Whether ``/metrics`` answers without a login. A wrong value opens nothing."""
    return _lenient("metrics_for_anyone", False)


def _lenient(name: str, default: T) -> T:
    raw = settings.option(name)
    try:
        value: T = default if raw is None else settings.OTHER_OPTIONS[name](raw)
        _complained.pop(name, None)  # so that it is logged again when it is wrong again
        return value
    except ValueError as error:
        if _complained.get(name) != raw:
            _complained[name] = raw
            log.error(
                "Section [%s], %s: %s; using %s instead", settings.SECTION, name, error, default
            )
        return default
