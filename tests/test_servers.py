"""The servers that the tests start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.servers import session_members, wait_until

SCRIPT = """
import subprocess, sys, time
from tests.servers import _watch_over
server = subprocess.Popen(["sleep", "60"], start_new_session=True)
watchdog = _watch_over(server.pid)
print(server.pid, flush=True)
time.sleep(60)
"""


def test_a_server_does_not_survive_a_test_run_that_was_killed() -> None:
    """Nothing of ours can run after SIGKILL, so another process has to end it."""
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
    stat = Path(f"/proc/{server}/stat")
    wait_until(lambda: not stat.exists() or stat.read_text().split()[2] == "Z")


HALF_ENDED = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_is_there_until_its_last_thread_has_ended() -> None:
    """Its first thread makes it a zombie, while the others still hold its sockets."""
    process = subprocess.Popen(
        [sys.executable, "-c", HALF_ENDED], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        stat = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: stat.read_text().split()[2] == "Z")
        assert session_members(process.pid) == {process.pid}
    finally:
        process.kill()
        process.communicate()
    assert session_members(process.pid) == set()
