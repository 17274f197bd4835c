"""Small makers of values for the tests of this folder."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.clock import Clock, SystemClock
from airflow_provider_hokusai_dns.resolver.model import (
    Cause,
    Dates,
    Endpoint,
    Resolution,
    Source,
)


def a_server(**changes: Any) -> MLflowServer:
    """A server named ``mlflow.test``."""
    return MLflowServer(
        **{"conn_id": "mlflow_test", "scheme": "http", "hostname": "mlflow.test", **changes}
    )


def an_address(
    *addresses: str,
    source: Source = Source.DNS,
    cause: Cause | None = None,
    age: float = 0.0,
    hostname: str = "mlflow.test",
    clock: Clock | None = None,
) -> Resolution:
    """A resolution of the name; ``STATIC`` ones have no age."""
    clock = clock or SystemClock()
    stamp = None if source is Source.STATIC else clock.monotonic() - age
    return Resolution(
        hostname,
        hostname,
        tuple(Endpoint(address) for address in addresses),
        source,
        cause=cause or (None if source.is_fresh else Cause.NXDOMAIN),
        dates=Dates(clock, clock.time() - clock.monotonic(), stamp),
    )


def metric_names() -> set[str]:
    """Every name that the endpoint for Prometheus can give, for use in alert rules."""
    from airflow_provider_hokusai_dns.plugins import prometheus

    return set(re.findall(r"^# TYPE (\S+)", prometheus.render([], {}).decode(), re.MULTILINE))


def no_address(cause: Cause = Cause.NXDOMAIN) -> DNSResolutionError:
    """The error of a resolver that has nothing to serve."""
    return DNSResolutionError("mlflow.test", cause)
