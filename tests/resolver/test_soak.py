"""A short soak; ``make soak`` runs the same for ten minutes."""

from __future__ import annotations

import tracemalloc

import pytest

from benchmarks.soak import soak


@pytest.mark.timeout(120)
def test_random_faults_leave_no_error_and_no_leak() -> None:
    """While something may be served, no caller gets an error, and nothing grows."""
    tracemalloc.start()
    try:
        found = soak(6, seed=7)
    finally:
        tracemalloc.stop()
    assert found.complaints == []
    assert found.calls > 1000
    assert {"cache", "stale"} <= set(found.sources)
