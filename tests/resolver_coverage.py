"""A plugin for pytest: the coverage of the resolver by its own tests, measured in a run of all.

``-p tests.resolver_coverage``; each worker of xdist leaves a file for ``coverage combine``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "resolver"

_measured = coverage.Coverage(
    source=[str(ROOT / "airflow_provider_hokusai_dns" / "resolver")], data_suffix=True
)
# From the first import of the package: a line that defines a function counts, too.
_measured.start()


def pytest_collection_finish() -> None:
    """The tests of others do not count."""
    _measured.stop()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure what a test of the resolver runs, fixtures included."""
    if not item.path.is_relative_to(TESTS):
        return (yield)
    _measured.start()
    try:
        return (yield)
    finally:
        _measured.stop()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave a file, but not in the process that only distributes the tests: it has no data."""
    if hasattr(session.config, "workerinput") or not session.config.option.numprocesses:
        _measured.save()
