"""Nothing is logged, slept or waited for while one of our locks is held."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = ["-q", "-p", "tests.lock_watch", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
ROOT = Path(__file__).parents[1]
#: Tests that come by most of the code and need no server of their own.
COME_BY = [
    "tests/resolver/test_pin.py",
    "tests/resolver/test_pinned_port.py",
    "tests/resolver/test_resolver.py",
    "tests/resolver/test_resolver_store.py",
    "tests/resolver/test_resolver_features.py",
    "tests/resolver/test_single_flight.py",
    "tests/runtime/test_runtime.py",
    "tests/test_observers.py",
    "tests/store",
    "tests/health/test_breaker.py",
    "tests/client/test_environment.py",
]


@pytest.mark.timeout(600)
def test_nothing_waits_under_a_lock_of_ours() -> None:
    """A handler of logs may come back to us, and an outage may last: both would hang all threads.

    The tests run once more, in a process whose locks know that they are held.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *OPTIONS,
            "-m",
            "not integration",
            *COME_BY,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    told = re.findall(r"([\w.?]+: \w+ under the lock of [\w.<>]+)", done.stdout)
    assert not told, "\n".join(told)
    assert "passed" in done.stdout, done.stdout[-3000:]


def test_the_watch_can_fail(tmp_path: Path) -> None:
    """A function of ours that logs under its lock is found."""
    (tmp_path / "test_it.py").write_text(
        "import logging, sys, threading, types\n"
        "module = types.ModuleType('airflow_provider_hokusai_dns.made_up')\n"
        "exec('import logging, threading\\n_lock = threading.Lock()\\n'\n"
        "     'def wrong():\\n    with _lock:\\n        logging.warning(1)\\n', vars(module))\n"
        "def test_it():\n    module.wrong()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "made_up.wrong: logs under the lock of made_up.<module>" in done.stdout
