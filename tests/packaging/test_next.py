"""The next Airflow: its newest pre-release or release that installs, in an environment of its own.

`.venv-next` is made by `make setup-next`. It may be absent, because nothing newer is there or it
does not install: then these tests skip with the reason. On the build server it must be tried.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NEXT = REPOSITORY / ".venv-next"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def python() -> Path:
    """The interpreter with the next Airflow."""
    absent = NEXT / "why-absent.txt"
    if absent.exists():
        pytest.skip(absent.read_text().strip())
    if not (NEXT / "bin" / "python").exists():
        if os.environ.get("CI"):
            pytest.fail("there is no .venv-next: make setup-next has not run")
        pytest.skip("there is no .venv-next: make setup-next makes it")
    return NEXT / "bin" / "python"


def test_what_holds_in_the_oldest_airflow_holds_in_the_next() -> None:
    """Import, provider schema, commands, refresh DAG, a run with its link, a gate in a trigger."""
    names = (
        "every_public_module_imports",
        "provider_is_listed",
        "the_command_line_works",
        "dags_run",
        "a_deferrable_gate_waits_and_opens",
    )
    tests = [f"tests/packaging/test_floor.py::test_{name}" for name in names]
    _pytest(Path(sys.executable), *tests)


@pytest.mark.parametrize(
    "tests",
    ["tests/plugins/test_plugin.py", "tests/plugins/test_endpoints.py", "tests/links"],
)
def test_page_endpoints_and_links_work_in_the_next_airflow(tests: str, python: Path) -> None:
    """As its API server calls them. Warnings of a newer Airflow are news, and no failure."""
    _pytest(python, tests, "-W", "default")


def test_the_retry_policy_reschedules_a_task_in_the_next_airflow(python: Path) -> None:
    """In a real scheduler: what Airflow has only had since 3.4."""
    _pytest(python, "tests/policies/test_reschedule.py", "-W", "default")


def _pytest(python: Path, *arguments: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments],
        cwd=REPOSITORY,
        env=environment | {"FLOOR_TESTS_IN": NEXT.name},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
