"""What a DAG file pays for importing us."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PUBLIC = [
    "airflow_provider_hokusai_dns.hooks.mlflow",
    "airflow_provider_hokusai_dns.sensors.mlflow_health",
    "airflow_provider_hokusai_dns.triggers.mlflow_health",
    "airflow_provider_hokusai_dns.operators.dns_refresh",
    "airflow_provider_hokusai_dns.operators.mlflow",
    "airflow_provider_hokusai_dns.policies.retry",
    "airflow_provider_hokusai_dns.refresh_dag",
    "airflow_provider_hokusai_dns.resolver",
    "airflow_provider_hokusai_dns.compat",
    "airflow_provider_hokusai_dns.provider_info",
]
_HEAVY = ["mlflow", "dns", "aiohttp", "requests", "fastapi", "urllib3", "idna", "prometheus_client"]

_MEASURE = f"""
import importlib, resource, sys, time
began = time.process_time()
import airflow.sdk, airflow.triggers.base
airflow_itself = time.process_time() - began
before = set(sys.modules)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
for name in {_PUBLIC!r}:
    importlib.import_module(name)
ours = time.process_time() - began
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
new = set(sys.modules) - before
print(ours / airflow_itself, grown, [name for name in {_HEAVY!r} if name in new])
"""


def printed_by(code: str) -> str:
    """What it prints in an interpreter that has imported nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def measure() -> tuple[float, float, str]:
    ratio, kilobytes, heavy = printed_by(_MEASURE).splitlines()[-1].split(" ", 2)
    return float(ratio), float(kilobytes), heavy


def test_importing_the_public_modules_costs_little(record_property: pytest.RecordProperty):
    """Nothing heavy, and at most a tenth of what importing Airflow itself takes; best of three.

    A ratio of processor times: one machine takes 30 ms for ours, another, or the same one under
    load, 120.
    """
    ratio, kilobytes, heavy = min(measure() for _ in range(3))
    record_property("import_ratio", round(ratio, 3))
    record_property("import_kb", kilobytes)
    assert heavy == "[]"
    assert ratio < 0.1
    assert kilobytes < 20_000


def test_a_start_of_airflow_pays_for_the_names_of_our_commands_only():
    """Every ``airflow`` command imports their definition; what they do comes when one is called."""
    code = (
        "import sys, airflow.cli.cli_config; before = set(sys.modules); "
        "from airflow_provider_hokusai_dns.cli.definition import get_hokusai_dns_cli_commands; "
        "get_hokusai_dns_cli_commands(); print(sorted(set(sys.modules) - before))"
    )
    printed = printed_by(code)
    ours = "airflow_provider_hokusai_dns"
    assert printed.endswith(f"'{ours}.cli', '{ours}.cli.definition']")
    assert printed.count("'") in (4, 6), "the package itself may be there before"


def test_importing_the_package_alone_imports_nothing():
    """The version, and that is all."""
    code = (
        "import sys; before = set(sys.modules); import airflow_provider_hokusai_dns as p; "
        "print(p.__version__, sorted(set(sys.modules) - before))"
    )
    printed = printed_by(code)
    assert printed.endswith("['airflow_provider_hokusai_dns']")


def test_importing_the_resolver_s_package_imports_none_of_its_modules():
    """Its names come when they are used; each of them is there."""
    code = (
        "import sys; before = set(sys.modules); import airflow_provider_hokusai_dns.resolver as r; "
        "print(sorted(m for m in set(sys.modules) - before if 'hokusai' in m)); "
        "from airflow_provider_hokusai_dns.resolver import *; "
        "print([name for name in r.__all__ if name not in globals()], hasattr(r, 'nothing'))"
    )
    printed = printed_by(code)
    ours = "airflow_provider_hokusai_dns"
    assert printed.splitlines() == [f"['{ours}', '{ours}.resolver']", "[] False"]
