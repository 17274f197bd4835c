"""What a forked child has of its parent's runs: nothing to end, and no lock that is held."""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.client import (
    adapters,
    auth,
    begun_inside,
    delivery_hooks,
    fluent_state,
    sigterm,
)
from airflow_provider_hokusai_dns.client.delivery import DeliveryTracker
from airflow_provider_hokusai_dns.client.log_throttle import _OncePerPause
from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache
from airflow_provider_hokusai_dns.plugins.history_cache import HistoryCache
from airflow_provider_hokusai_dns.resolver import forks

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
        assert signal.getsignal(signal.SIGTERM) is sigterm._installed
    assert not told.exists()


def test_a_child_that_is_stopped_before_it_could_forget_ends_nothing(tmp_path: Path) -> None:
    """The signal may come between the fork and what is done after it."""
    told, jobs = tmp_path / "told", list[Any]()

    def early() -> None:
        sigterm._jobs[:], sigterm._owner = jobs, os.getppid()
        sigterm._handle(signal.SIG_IGN, signal.SIGTERM, None)

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
    "lock",
    [
        sigterm._lock,
        delivery_hooks._lock,
        auth._lock,
        fluent_state._lock,
        begun_inside._lock,
        adapters._lock,
        DeliveryTracker("a run")._condition,
        _OncePerPause(time.monotonic)._lock,
        HealthCache()._lock,
        HistoryCache()._reading,
        runtime._process.lock,
    ],
)
def test_a_lock_that_a_thread_holds_does_not_hold_a_child(lock: Any) -> None:
    """The thread is not there in the child, and would never let go."""
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            let_go.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        held.wait(5)
        assert child(lock.acquire) == 0
    finally:
        let_go.set()
        thread.join()


def test_a_child_can_import_what_a_thread_was_importing(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow tries to import missing modules at each request, so many forks come in the middle."""
    begun, let_go, parent = threading.Event(), threading.Event(), os.getpid()

    class Slow:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "hokusai_not_installed" and os.getpid() == parent:
                begun.set()
                let_go.wait(10)

    def imports() -> None:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("hokusai_not_installed")

    monkeypatch.setattr(sys, "meta_path", [Slow(), *sys.meta_path])
    thread = threading.Thread(target=imports)
    thread.start()
    try:
        assert begun.wait(5)
        assert child(imports) == 0
    finally:
        let_go.set()
        thread.join()


#: What needs no renewal, and why.
NOT_FREED = {
    "health/connection.py": "of one call, on the thread that makes it",
    "resolver/one_time_event.py": "of one waiter, which no child has",
    "resolver/lookup/messages.py": "a fork waits for it",
    "resolver/workers.py": "renew_after_fork makes a new one",
    "store/bounded_calls.py": "renew_after_fork makes a new one",
    "supervisor.py": "a child makes a new one as it begins",
    "resolver/testing/doubles.py": "for tests",
    "resolver/testing/zone.py": "for tests",
}


def test_every_lock_is_free_in_a_child() -> None:
    """A lock that is made elsewhere than in ``forks.free_in_child(...)`` has a reason."""
    package = Path(forks.__file__).parents[1]
    found = set()
    for path in package.rglob("*.py"):
        text = path.read_text()
        made = len(re.findall(r"(?:=|[( ])threading\.(?:R?Lock|Condition)[(,)]", text))
        freed = len(re.findall(r"free_in_child\(threading\.(?:R?Lock|Condition)\(\)\)", text))
        if made != freed:
            found.add(str(path.relative_to(package)))
    assert found == set(NOT_FREED)
