"""Paths that others hold: in Airflow's database, in the entry points of a wheel, in their code."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points

import pytest

from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger

PACKAGE = "airflow_provider_hokusai_dns"
#: What docs/python.md named, where it was before the packages were rearranged, and where it is.
FORMER = {
    "gate.GateEvent": "gates.decision",
    "gate.Strikes": "gates.decision",
    "server.Credentials": "config.server",
    "server.MLflowServer": "config.server",
    "server.Proxy": "config.server",
    "server.StaleOverHTTP": "config.server",
    "settings.ConnectionMissingError": "exceptions",
    "settings.SettingError": "exceptions",
    "tracking.auth.ConnectionAuthProvider": "client.auth",
    "tracking.breaker.Attempt": "health.breaker",
    "tracking.breaker.BreakerOpenError": "exceptions",
    "tracking.breaker.BreakerState": "health.breaker",
    "tracking.breaker.BreakerStatus": "health.breaker",
    "tracking.breaker.CircuitBreaker": "health.breaker",
    "tracking.breaker.breaker_for": "health.breaker",
    "tracking.run.LostDataError": "exceptions",
    "tracking.run.RunEndError": "exceptions",
    "tracking.server.Credentials": "config.server",
    "tracking.server.MLflowServer": "config.server",
    "tracking.server.StaleOverHTTP": "config.server",
    "tracking.verdict.State": "health.verdict",
    "tracking.verdict.Verdict": "health.verdict",
    "tracking.verdict.VerdictDict": "health.verdict",
}
NEW_NAMES = {"tracking.breaker.Attempt": "Call"}
#: What has stayed where docs/python.md names it.
KEPT = [
    "compat.resolve_tracking_uri",
    "hooks.mlflow.MLflowHook",
    "hooks.mlflow.MLflowUnreachableError",
    "hooks.rest.MLflowRestError",
    "operators.dns_refresh.ChangeRow",
    "operators.dns_refresh.DNSRefreshOperator",
    "operators.dns_refresh.RefreshReport",
    "operators.dns_refresh.ResolutionRow",
    "refresh_dag.build_refresh_dag",
    "resolver.DNSResolutionError",
    "resolver.clock.Clock",
    "resolver.target.Target",
    "runtime.ConnectionConflictError",
    "sensors.mlflow_health.MLflowHealthSensor",
    "triggers.mlflow_health.MLflowHealthTrigger",
]


@pytest.mark.parametrize("path", FORMER)
def test_a_documented_path_leads_to_where_the_name_is_now(path: str) -> None:
    module, _, name = path.rpartition(".")
    former = getattr(import_module(f"{PACKAGE}.{module}"), name)
    present = import_module(f"{PACKAGE}.{FORMER[path]}")
    assert former is getattr(present, NEW_NAMES.get(path, name))


@pytest.mark.parametrize("path", KEPT)
def test_a_documented_path_that_has_stayed_is_there(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert hasattr(import_module(f"{PACKAGE}.{module}"), name)


def test_a_former_module_has_nothing_else() -> None:
    with pytest.raises(ImportError):
        import_module(f"{PACKAGE}.tracking.probe")
    with pytest.raises(AttributeError, match="no attribute 'open_run'"):
        _ = import_module(f"{PACKAGE}.tracking.run").open_run


def test_the_class_path_of_the_trigger_is_the_one_that_waits_in_databases() -> None:
    path, _ = MLflowHealthTrigger().serialize()
    assert path == f"{PACKAGE}.triggers.mlflow_health.MLflowHealthTrigger"


def test_mlflow_finds_the_auth_provider_by_its_entry_point() -> None:
    (point,) = entry_points(group="mlflow.request_auth_provider", name="hokusai_dns")
    from airflow_provider_hokusai_dns.client.auth import ConnectionAuthProvider

    assert point.load() is ConnectionAuthProvider


def test_a_former_path_imports_what_is_asked_for_and_no_more() -> None:
    """The auth provider of an older wheel's entry point must not pull the resolver into MLflow."""
    code = (
        f"import sys; from {PACKAGE}.tracking.auth import ConnectionAuthProvider; "
        f"print([m for m in sys.modules if m in ('{PACKAGE}.resolver.model', 'mlflow', 'airflow')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
