"""Blocks of the hook that overlap in threads, and that a forked child leaves."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_hokusai_dns.exceptions import AsyncOutsideRunError
from airflow_provider_hokusai_dns.health.breaker import breaker_for
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.servers import MLflowProcess

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    pytest.mark.usefixtures("clean_runtime"),
]
NAME = "mlflow.test"


@pytest.fixture
def hook(
    mlflow_server: MLflowProcess, dns: DNSServer, connect: Callable[..., str]
) -> Iterator[MLflowHook]:
    dns.set_records(NAME, [mlflow_server.host], ttl=60)
    extra = {"nameservers": dns.address, "request_timeout": 5, "deadline": 5}
    connect(host=NAME, port=mlflow_server.port, extra=extra)
    found = MLflowHook()
    yield found
    breaker_for(found.server).reset()


def test_a_run_after_blocks_that_overlapped_is_complete(hook: MLflowHook) -> None:
    """One of a thread that reads began in a run and ended after it."""
    import mlflow

    entered, left = threading.Event(), threading.Event()

    def read() -> None:
        with MLflowHook().fluent():
            entered.set()
            left.wait(30)

    reader = threading.Thread(target=read)
    with hook.run("overlapping"):
        reader.start()
        assert entered.wait(30)
    left.set()
    reader.join()
    with hook.run("overlapping") as run:
        for step in range(10):
            mlflow.log_metric("m", step, step=step, synchronous=False)
    client = hook.get_conn()
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "m")) == 10


def test_blocks_that_overlap_leave_nothing_behind(hook: MLflowHook) -> None:
    """In whatever order they end; and while one of them is open, it refuses."""
    import mlflow
    from mlflow.utils.async_logging.async_logging_queue import AsyncLoggingQueue

    before = AsyncLoggingQueue.log_batch_async
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(hook.fluent())
    second.enter_context(MLflowHook().fluent())
    first.close()
    with pytest.raises(AsyncOutsideRunError):
        mlflow.log_metric("m", 1, synchronous=False)
    second.close()
    assert AsyncLoggingQueue.log_batch_async is before


@pytest.mark.parametrize("end", [RuntimeError, SystemExit, None], ids=str)
def test_a_forked_child_that_leaves_the_block_ends_nothing(hook: MLflowHook, end: Any) -> None:
    """By an exception, as ``sys.exit`` is one, or at its end: the run is the parent's."""
    parent = os.getpid()
    try:
        with hook.run("forked") as run:
            if (child := os.fork()) == 0 and end is not None:
                raise end()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
                status = hook.get_conn().get_run(run.info.run_id).info.status
    finally:
        if os.getpid() != parent:
            os._exit(7)
    assert status == "RUNNING"
    assert hook.get_conn().get_run(run.info.run_id).info.status == "FINISHED"
