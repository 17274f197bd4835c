"""What a forked child has of its parent's runs: nothing to end, and no lock that is held."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import (
    auth,
    begun_inside,
    delivery_hooks,
    environment,
    sigterm,
    transport,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child, which is killed after a while; gives its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(3)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(2)


def test_a_child_that_is_stopped_ends_nothing_of_its_parent(tmp_path: Path) -> None:
    """As each worker of ``multiprocessing.Pool`` is; it does what it would have done before."""
    told = tmp_path / "told"
    with sigterm.on_sigterm(lambda seconds: told.write_text("stopped")):
        status = child(terminated)
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is sigterm._handle
    assert not told.exists()


def test_a_child_that_is_stopped_before_it_could_forget_ends_nothing(tmp_path: Path) -> None:
    """The signal may come between the fork and what is done after it."""
    told, jobs = tmp_path / "told", list[Any]()

    def early() -> None:
        sigterm._jobs[:], sigterm._owner = jobs, os.getppid()
        sigterm._handle(signal.SIGTERM, None)

    with sigterm.on_sigterm(lambda seconds: told.write_text("stopped")):
        jobs += sigterm._jobs
        child(early)
    assert not told.exists()


def test_a_child_may_leave_the_block_and_have_work_of_its_own(tmp_path: Path) -> None:
    """Its own run is ended when it is stopped."""
    told = tmp_path / "told"

    def own() -> None:
        with sigterm.on_sigterm(lambda seconds: told.write_text(str(os.getpid()))):
            terminated()

    def leave() -> None:
        block.__exit__(None, None, None)

    block = sigterm.on_sigterm(lambda seconds: told.write_text("the parent's"))
    with block:
        assert child(leave) == 0
        child(own)
    assert told.read_text() not in ("the parent's", str(os.getpid()))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (sigterm, "_lock"),
        (delivery_hooks, "_lock"),
        (auth, "_lock"),
        (environment, "_lock"),
        (begun_inside, "_lock"),
        (transport, "_lock"),
        (None, "_condition"),
    ],
)
def test_a_lock_that_a_thread_holds_does_not_hold_a_child(owner: Any, name: str) -> None:
    """The thread is not there in the child, and would never let go."""
    held, let_go = threading.Event(), threading.Event()

    def hold(lock: Any) -> None:
        with lock:
            held.set()
            let_go.wait(10)

    with delivery_hooks.track_delivery("a run") as tracker:
        owner = owner or tracker
        thread = threading.Thread(target=hold, args=(getattr(owner, name),))
        thread.start()
        try:
            held.wait(5)
            assert child(lambda: getattr(owner, name).acquire()) == 0
        finally:
            let_go.set()
            thread.join()
