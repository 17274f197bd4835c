"""The servers that the tests start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import subprocess, sys, time
from tests.servers import _watch_over
server = subprocess.Popen(["sleep", "60"], start_new_session=True)
watchdog = _watch_over(server.pid)
print(server.pid, flush=True)
time.sleep(60)
"""


def test_a_server_does_not_survive_a_test_run_that_was_killed() -> None:
    """Nothing of ours can run after SIGKILL, so somebody else has to end it."""
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert run.stdout is not None
    server = int(run.stdout.readline())
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    stat = Path(f"/proc/{server}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"
