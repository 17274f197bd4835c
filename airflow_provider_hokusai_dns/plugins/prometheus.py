"""The state of each listed connection as Prometheus text.

Gauges with the current state in this process. The fleet's counters are sent through Airflow's own
metrics, because an API server does not have them; the counters here are those of this process, as
their names say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from airflow_provider_hokusai_dns.gates.connection_health import ConnectionHealth
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.metrics import COUNTED

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LABELS = ("conn_id", "hostname")

#: Gauges with one series per state, of which one is 1.
CONNECTION_STATE = "hokusai_dns_connection_state"
NAME_STATE = "hokusai_dns_name_state"
MLFLOW_STATE = "hokusai_dns_mlflow_state"
#: The cause, if a connection is not healthy.
CONNECTION_CAUSE = "hokusai_dns_connection_cause"
#: Gauges of one value per connection, by the field of the report; absent where it is not known.
_NUMBERS = {
    "age": ("hokusai_dns_address_age_seconds", "Since DNS returned the address in use."),
    "latency_ms": ("hokusai_dns_probe_seconds", "Duration of the last check of MLflow."),
    "looked_at": ("hokusai_dns_look_timestamp_seconds", "When MLflow was last checked."),
}
_STORED = {
    "age": (
        "hokusai_dns_last_known_good_age_seconds",
        "Since DNS returned the address in the shared Variable.",
    ),
    "name_away_for": (
        "hokusai_dns_name_away_seconds",
        "Since a process of the fleet first found that the name does not exist.",
    ),
}
VARIABLE_BROKEN = "hokusai_dns_variable_broken"
CONNECTIONS_BROKEN = "hokusai_dns_connections_setting_broken"


def render(
    known: Sequence[ConnectionHealth], metrics: dict[str, Any], *, broken: bool = False
) -> bytes:
    """The text for the listed connections, and for the metrics of this process's resolver.

    :param metrics: may be empty.
    :param broken: whether the list of connections cannot be read.
    """

    class Once(Collector):
        def collect(self) -> Iterable[Metric]:
            yield from _gauges(known)
            yield GaugeMetricFamily(
                CONNECTIONS_BROKEN, "1 if the list of connections is wrong.", value=float(broken)
            )
            yield from _counters(metrics)
            yield GaugeMetricFamily(
                "hokusai_dns_process_cache_size",
                "Names in the memory of this API server process.",
                value=metrics.get("cache_size", 0),
            )

    return generate_latest(Once())


def _gauges(known: Sequence[ConnectionHealth]) -> Iterator[Metric]:
    reports = [one.status_row() for one in known]
    targets = [(report["conn_id"], report["hostname"] or "") for report in reports]
    for name, field, text in (
        (CONNECTION_STATE, "state", "The overall state of a connection in one word."),
        (NAME_STATE, "dns", "The name: an address that is not fresh is degraded."),
        (MLFLOW_STATE, "mlflow", "Whether MLflow can be used."),
    ):
        text += " 1 for the state it is in."
        states = GaugeMetricFamily(name, text, labels=(*_LABELS, "state"))
        for target, report in zip(targets, reports, strict=True):
            for level in Level:
                states.add_metric((*target, level.value), float(report[field] == level))
        yield states
    causes = GaugeMetricFamily(
        CONNECTION_CAUSE, "1, with the cause, if not healthy.", labels=(*_LABELS, "state", "cause")
    )
    for target, report in zip(targets, reports, strict=True):
        if report["cause"] is not None:
            causes.add_metric((*target, report["verdict"]["state"], report["cause"]), 1.0)
    yield causes
    text = "1 if the shared Variable of the name is ignored."
    broken = [float(report["variable_problem"] is not None) for report in reports]
    yield _gauge(VARIABLE_BROKEN, text, targets, broken)
    for field, (name, text) in _NUMBERS.items():
        yield _gauge(name, text, targets, [_number(field, report[field]) for report in reports])
    for field, (name, text) in _STORED.items():
        values = [(report["last_known_good"] or {}).get(field) for report in reports]
        yield _gauge(name, text, targets, values)


def _gauge(
    name: str, text: str, targets: Sequence[tuple[str, str]], values: Sequence[float | None]
) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=_LABELS)
    for target, value in zip(targets, values, strict=True):
        if value is not None:
            gauge.add_metric(target, value)
    return gauge


def _number(field: str, value: Any) -> float | None:
    """In seconds, the unit of all durations and times in Prometheus."""
    if value is None:
        return None
    if field == "looked_at":
        return float(value.timestamp())
    return float(value) / 1000 if field.endswith("_ms") else float(value)


def _counters(metrics: dict[str, Any]) -> Iterator[Metric]:
    for field in COUNTED:
        yield CounterMetricFamily(
            f"hokusai_dns_process_{field}",
            f"The {field} of the resolver of this API server process only.",
            value=metrics.get(field, 0),
        )
    errors = CounterMetricFamily(
        "hokusai_dns_process_errors",
        "Failed lookups of this API server process only.",
        labels=("cause",),
    )
    for cause, count in sorted(metrics.get("errors", {}).items()):
        errors.add_metric((cause,), count)
    yield errors
