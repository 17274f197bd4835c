"""What a task starts inside a run belongs to that run, even in other threads and forked children.

The fluent API keeps its active runs per thread: if a thread without a run logs something, MLflow
starts a separate run that nothing ends. While a block is open, such a thread logs to the block's
run instead, and it is the active one for autologging and models. ``mlflow.start_run(nested=True)``
in the thread gets that run as its parent. Every run that the fluent API starts, and every child of
one, gets the tags of the task, so that the next try finds it.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.client.errors import AmbiguousRunError
from airflow_provider_hokusai_dns.client.mlflow_private import (
    EXPERIMENT,
    IMPLICIT_RUN,
    active_runs,
    replaced,
    wrapped,
)
from airflow_provider_hokusai_dns.resolver import forks

if TYPE_CHECKING:
    import mlflow


@dataclass(frozen=True, slots=True)
class _Block:
    """An open run and the thread that opened it.

    :param tags: those of the task.
    """

    active: mlflow.ActiveRun
    tags: Mapping[str, str]
    thread: int = field(default_factory=threading.get_ident)
    pid: int = field(default_factory=os.getpid)

    @property
    def is_mine(self) -> bool:
        return (self.thread, self.pid) == (threading.get_ident(), os.getpid())


_lock = forks.free_in_child(threading.Lock())
_blocks: list[_Block] = []
_undo: list[Callable[[], None]] = []
#: The runs begun while a block is open; and those of them that this thread or asyncio task, or what
#: started it, has begun.
_begun: set[str] = set()
_begun_here: ContextVar[tuple[str, ...]] = ContextVar("hokusai_dns_runs", default=())
#: Those that threads without a block of their own have begun: the run of the block, the id, and the
#: thread's stack of MLflow, on which a run is until it is ended.
_by_threads: list[tuple[str, str, list[Any]]] = []
_opens_block: ContextVar[bool] = ContextVar("hokusai_dns_opens_block", default=False)


@contextmanager
def begun_inside(active: mlflow.ActiveRun, tags: Mapping[str, str]) -> Iterator[None]:
    """While the block runs, runs that are started belong to ``active`` and get ``tags``."""
    block = _Block(active, tags)
    with _lock:
        if not _blocks:
            _install()
        _blocks.append(block)
    before = _begun_here.get()
    _note_begun(active)
    try:
        yield
    finally:
        _begun_here.set(before)
        with _lock:
            _blocks.remove(block)
            _by_threads[:] = [each for each in _by_threads if each[0] != active.info.run_id]
            if not _blocks:
                _begun.clear()
            while _undo and not _blocks:
                _undo.pop()()


@contextmanager
def opening_block() -> Iterator[None]:
    """The run that starts meanwhile gets a block of its own, which ends it."""
    token = _opens_block.set(True)
    try:
        yield
    finally:
        _opens_block.reset(token)


def _note_begun(active: mlflow.ActiveRun) -> None:
    _begun.add(active.info.run_id)
    _begun_here.set((*_begun_here.get(), active.info.run_id))


def left_open_by_threads(run_id: str) -> list[str]:
    """The runs that other threads have begun inside a run and not ended, in that order."""
    return [
        begun
        for block, begun, stack in _by_threads
        if block == run_id and any(each.info.run_id == begun for each in stack)
    ]


def remove_from_threads(run_id: str) -> None:
    """Remove what :func:`left_open_by_threads` returns from the stacks of these threads."""
    left_open = left_open_by_threads(run_id)
    for _, _, stack in _by_threads:
        stack[:] = [each for each in stack if each.info.run_id not in left_open]


#: Runs that this process has resumed: no orphans, also before and after their blocks.
_resumed: set[str] = set()


def resumes(run_id: str) -> None:
    """Record that a run is about to be resumed."""
    _resumed.add(run_id)


def run_ids_in_use() -> set[str]:
    """The runs whose blocks are open, in any thread, and those that were resumed."""
    return {*tuple(_resumed), *(block.active.info.run_id for block in tuple(_blocks))}


def block_of_others() -> mlflow.ActiveRun | None:
    """The run that a thread or forked child without its own run belongs to, if there is one.

    :raises AmbiguousRunError: several threads have a run open.
    """
    blocks = tuple(_blocks)
    if not blocks or any(block.is_mine for block in blocks):
        return None
    if len({block.thread for block in blocks}) > 1:
        ids = ", ".join(block.active.info.run_id for block in blocks)
        raise AmbiguousRunError(
            f"several runs are open in this process ({ids}), and this thread has opened none of "
            "them: say which one with run_id=, or open one here with hook.run(...)"
        )
    return blocks[-1].active


def check_nesting() -> None:
    """Check that a nested run gets the parent that its author expects.

    The fluent API keeps one stack per thread, which asyncio tasks share.

    :raises AmbiguousRunError: another asyncio task has opened the innermost run of this thread.
    """
    stack = active_runs()
    innermost = stack[-1].info.run_id if stack else None
    if innermost in _begun and innermost not in _begun_here.get():
        raise AmbiguousRunError(
            "another asyncio task of this thread has a run open, and MLflow's fluent API would mix "
            "the two: open nested runs one after the other, or each in a thread of its own "
            "(asyncio.to_thread)"
        )


def _task_tags() -> Mapping[str, str]:
    """The tags of the task, from this thread's block if it has one."""
    blocks = sorted(_blocks, key=lambda block: block.is_mine)
    return blocks[-1].tags if blocks else {}


def _install() -> None:
    """Wrap the functions that start runs, or give the active one. The lock is held."""
    import mlflow
    from mlflow.tracking import fluent

    create_run = wrapped(mlflow.MlflowClient.create_run, _create_run)
    _undo.append(replaced(mlflow.MlflowClient, "create_run", create_run))
    start_run = wrapped(fluent.start_run, _start_run)
    active_run = wrapped(fluent.active_run, _active_run)
    for module in (mlflow, fluent):
        _undo.append(replaced(module, "start_run", start_run))
        _undo.append(replaced(module, "active_run", active_run))
    if (implicit := IMPLICIT_RUN.find()) is not None:
        _undo.append(replaced(*IMPLICIT_RUN.holder(), wrapped(implicit, _get_or_start_run)))


def _start_run(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    given = inspect.signature(original).bind(*args, **kwargs).arguments
    if given.get("run_id") is None:
        if given.get("nested"):
            check_nesting()
            parent = None if active_runs() else block_of_others()
            if parent is not None and not given.get("parent_run_id"):
                given["parent_run_id"] = parent.info.run_id
        given["tags"] = {**_task_tags(), **(given.get("tags") or {})}
        mine = [block for block in _blocks if block.is_mine]
        others = {block.active.info.experiment_id for block in _blocks if block not in mine}
        if mine and given.get("experiment_id") is None and EXPERIMENT.find() in others:
            given["experiment_id"] = mine[-1].active.info.experiment_id
    active = original(**given)
    _note_begun(active)
    if _opens_block.get():
        return active
    with suppress(AmbiguousRunError):
        if (block := block_of_others()) is not None and (stack := active_runs()) is not None:
            _by_threads.append((block.info.run_id, active.info.run_id, stack))
    return active


def _create_run(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Called by autologging, for candidates of a search."""
    given = inspect.signature(original).bind(*args, **kwargs).arguments
    tags = given.get("tags") or {}
    if tags.get("mlflow.parentRunId") in _begun:
        given["tags"] = {**_task_tags(), **tags}
    return original(**given)


def _active_run(original: Callable[[], Any]) -> Any:
    with suppress(AmbiguousRunError):
        return original() or block_of_others()
    return None


def _get_or_start_run(original: Callable[[], Any]) -> Any:
    joined = None if active_runs() else block_of_others()
    return original() if joined is None else joined
