"""Nothing is logged, slept or waited for while one of our locks is held.

A handler of logs may come back to us, and an outage may last: both would hang all threads. Every
test watches for it, see ``lock_watch.py``; here it is shown that the watch is on, and can fail.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from airflow_provider_hokusai_dns.resolver import DNSResolver
from tests.lock_watch import WatchedLock

ROOT = Path(__file__).parents[1]


def test_the_locks_of_the_resolver_are_watched() -> None:
    """They were made after the watch began, also by modules that are imported early."""
    assert isinstance(DNSResolver()._state._lock, WatchedLock)


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
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.lock_watch", "-p", "no:cacheprovider",
         "--no-header", "--tb=line", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "made_up.wrong: logs under the lock of made_up.<module>" in done.stdout
