"""Runs that always end and lose nothing in silence, on a real MLflow server."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import auth, delivery_hooks, orphaned_runs, sigterm
from airflow_provider_hokusai_dns.client.begun_inside import run_ids_in_use
from airflow_provider_hokusai_dns.client.run import open_run
from airflow_provider_hokusai_dns.client.run_end import OpenRun
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.exceptions import (
    EnvironmentConflictError,
    LostDataError,
    RunEndError,
)
from tests.integration.counting_proxy import CountingProxy
from tests.servers import (
    MLflowProcess,
    Request,
    Stranger,
    client_environment,
    free_port,
    http,
    wait_until,
)
from tests.values import a_server

# ruff: noqa: PT012 - a run is a block, and its end is what raises.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    # MLflow's own affair; as errors they would keep it from making spans.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def server(mlflow_server: MLflowProcess) -> MLflowServer:
    return a_server(hostname=mlflow_server.host, port=mlflow_server.port, experiment="runs")


@pytest.fixture
def uri(server: MLflowServer) -> str:
    return auth.sign_in(server)


@pytest.fixture
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


@contextlib.contextmanager
def failing(api: str, error: Exception, *, times: int = 10**9) -> Iterator[None]:
    """MLflow's REST store when the server went away: calls of one kind are not answered."""
    from mlflow.store.tracking.rest_store import RestStore

    original, left = RestStore._call_endpoint, [times]

    def call(self: Any, which: Any, *args: Any, **kwargs: Any) -> Any:
        if which.__name__ == api and left[0] > 0:
            left[0] -= 1
            raise error
        return original(self, which, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RestStore, "_call_endpoint", call)
        yield


# --- how runs end


def test_a_good_run_is_finished_and_complete(server: MLflowServer, uri: str, client: Any) -> None:
    """Metrics logged asynchronously, an artifact, traces, and the author's tags are all there."""
    import mlflow

    @mlflow.trace
    def traced(number: int) -> int:
        return number

    tags = {orphaned_runs.TAG_DAG: "train", "team": "blue"}
    with open_run(server, uri, experiment_name="good", run_name="first", tags=tags) as run:
        for step in range(200):
            mlflow.log_metric("loss", step, step=step, synchronous=False)
        mlflow.log_params({"a": 1, "b": 2}, synchronous=False)
        mlflow.log_text("hello", "note.txt")
        for number in range(3):
            traced(number)
    done = client.get_run(run.info.run_id)
    assert done.info.status == "FINISHED"
    assert done.info.end_time >= done.info.start_time
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 200
    assert done.data.params == {"a": "1", "b": "2"}
    assert tags.items() <= done.data.tags.items()
    assert client.get_experiment(done.info.experiment_id).name == "good"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    assert len(client.search_traces(locations=[done.info.experiment_id])) == 3


def test_the_process_is_as_before(
    server: MLflowServer, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracking URI, environment, signal handler, active run, and MLflow's classes."""
    import mlflow
    from mlflow.tracing.client import TracingClient
    from mlflow.utils.async_logging.async_logging_queue import AsyncLoggingQueue

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://earlier.test")

    def state() -> tuple[object, ...]:
        return (
            {key: value for key, value in os.environ.items() if key.startswith("MLFLOW")},
            mlflow.get_tracking_uri(),
            mlflow.get_registry_uri(),
            mlflow.active_run(),
            signal.getsignal(signal.SIGTERM),
            AsyncLoggingQueue.log_batch_async,
            TracingClient.start_trace,
        )

    before = state()
    with open_run(server, uri):
        assert mlflow.get_tracking_uri() == uri
        mlflow.log_metric("m", 1, synchronous=False)
    assert state() == before
    with pytest.raises(KeyError), open_run(server, uri):
        raise KeyError
    assert state() == before


def test_the_author_s_exception_comes_out_unchanged(
    server: MLflowServer, uri: str, client: Any
) -> None:
    """The same object, and the run is FAILED."""
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, open_run(server, uri) as run:
        raise error
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert client.get_run(run.info.run_id).info.status == "FAILED"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(3), "FAILED"),
        (StopIteration(), "FAILED"),
    ],
)
def test_each_way_out_has_its_status(
    server: MLflowServer, uri: str, client: Any, error: BaseException, status: str
) -> None:
    """No way out leaves a run RUNNING."""
    with pytest.raises(type(error)), open_run(server, uri) as run:
        raise error
    assert client.get_run(run.info.run_id).info.status == status


def test_what_is_no_failure_is_the_caller_s_to_say(
    server: MLflowServer, uri: str, client: Any
) -> None:
    """Airflow's exceptions for skipping and deferring, which this package half does not know."""

    class Skip(Exception):
        pass

    with (
        pytest.raises(Skip),
        open_run(server, uri, status_of=lambda error: "FINISHED") as run,
    ):
        raise Skip
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


def test_runs_that_the_author_left_open_inside_end_too(
    server: MLflowServer, uri: str, client: Any
) -> None:
    """MLflow's own context manager would end the inner one and leave the outer RUNNING."""
    import mlflow

    with open_run(server, uri) as outer:
        inner = mlflow.start_run(nested=True)
    assert mlflow.active_run() is None
    for run in (outer, inner):
        assert client.get_run(run.info.run_id).info.status == "FINISHED"


def test_a_run_that_the_author_ended_keeps_its_end(
    server: MLflowServer, uri: str, client: Any
) -> None:
    """Unless the block then fails."""
    import mlflow

    with open_run(server, uri) as run:
        mlflow.end_run("KILLED")
    assert client.get_run(run.info.run_id).info.status == "KILLED"
    with pytest.raises(KeyError), open_run(server, uri) as run:
        mlflow.end_run()
        raise KeyError
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_runs_nest(server: MLflowServer, uri: str, client: Any) -> None:
    """The inner one is the child of the outer, and both end."""
    import mlflow

    with open_run(server, uri) as outer:
        with open_run(server, uri, nested=True) as inner:
            mlflow.log_metric("m", 1, synchronous=False)
        assert mlflow.active_run().info.run_id == outer.info.run_id
        mlflow.log_metric("n", 1, synchronous=False)
    child = client.get_run(inner.info.run_id)
    assert child.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert child.data.metrics == {"m": 1}
    assert client.get_run(outer.info.run_id).data.metrics == {"n": 1}


def test_several_tasks_share_one_run(server: MLflowServer, uri: str, client: Any) -> None:
    """Left open by the first, resumed by its id, ended by the last; the first one's tags stay."""
    import mlflow

    first = {orphaned_runs.TAG_TASK: "prepare"}
    with open_run(server, uri, end=False, tags=first) as run:
        mlflow.log_metric("rows", 3)
    run_id = run.info.run_id
    assert client.get_run(run_id).info.status == "RUNNING"
    assert mlflow.active_run() is None
    with open_run(
        server, uri, run_id=run_id, tags={orphaned_runs.TAG_TASK: "train", "model": "tree"}
    ) as again:
        assert again.info.run_id == run_id
        mlflow.log_metric("loss", 0.5)
    done = client.get_run(run_id)
    assert (done.info.status, done.data.metrics) == ("FINISHED", {"rows": 3, "loss": 0.5})
    assert done.data.tags[orphaned_runs.TAG_TASK] == "prepare"
    assert done.data.tags["model"] == "tree"


def test_a_shared_run_whose_task_fails_is_failed(
    server: MLflowServer, uri: str, client: Any
) -> None:
    """No task comes after; and a new try that resumes it opens it again."""
    with pytest.raises(KeyError), open_run(server, uri, end=False) as run:
        raise KeyError
    assert client.get_run(run.info.run_id).info.status == "FAILED"
    with open_run(server, uri, run_id=run.info.run_id):
        assert client.get_run(run.info.run_id).info.status == "RUNNING"
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


def test_two_threads_have_a_run_each(server: MLflowServer, uri: str, client: Any) -> None:
    """The end of the one takes nothing from the other, which is logging all the while."""
    import mlflow

    ids: dict[str, str] = {}
    stop = threading.Event()
    errors: list[BaseException] = []

    def long() -> None:
        try:
            with open_run(server, uri) as run:
                ids["long"] = run.info.run_id
                step = 0
                while not stop.is_set() and step < 400:
                    mlflow.log_metric("m", step, step=step, synchronous=False)
                    step += 1
                    time.sleep(0.02)
                ids["steps"] = str(step)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=long)
    thread.start()
    for _ in range(3):
        with open_run(server, uri):
            mlflow.log_metric("m", 1, synchronous=False)
    stop.set()
    thread.join(60)
    assert errors == []
    history = client.get_metric_history(ids["long"], "m")
    assert len(history) == int(ids["steps"])


def test_another_server_at_the_same_time_is_refused(server: MLflowServer, uri: str) -> None:
    """The fluent API has one tracking URI per process."""
    other = a_server(conn_id="other", hostname="127.0.0.1", port=free_port())
    with (
        open_run(server, uri),
        pytest.raises(EnvironmentConflictError, match="'other'"),
        open_run(other, auth.sign_in(other)),
    ):
        pytest.fail("not reached")


def test_a_deleted_experiment_is_named(server: MLflowServer, uri: str, client: Any) -> None:
    """Before a run is made."""
    client.delete_experiment(client.create_experiment("gone"))
    with (
        pytest.raises(ValueError, match="'gone' was deleted"),
        open_run(server, uri, experiment_name="gone"),
    ):
        pytest.fail("not reached")


# --- what is lost is told


def test_metrics_that_did_not_arrive_fail_the_run_aloud(
    server: MLflowServer, uri: str, client: Any
) -> None:
    """MLflow's own flush returns as if all were well."""
    import mlflow

    with (
        failing("LogBatch", ConnectionError("no route to host"), times=7),
        pytest.raises(LostDataError, match=r"7 metrics.*no route to host") as caught,
        open_run(server, uri) as run,
    ):
        for step in range(20):
            mlflow.log_metric("m", step, step=step, synchronous=False)
        mlflow.flush_async_logging()
    assert caught.value.run_id == run.info.run_id
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert client.get_run(run.info.run_id).info.status == "FAILED"
    assert len(client.get_metric_history(run.info.run_id, "m")) == 13


def test_merged_batches_are_counted_one_by_one(
    server: MLflowServer, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With buffering, MLflow's futures succeed for batches that were lost in a merged one."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS", "1")
    with (
        failing("LogBatch", ConnectionError("gone")),
        pytest.raises(LostDataError, match="30 metrics"),
        open_run(server, uri),
    ):
        for step in range(30):
            mlflow.log_metric("m", step, step=step, synchronous=False)


def test_a_loss_does_not_hide_the_author_s_exception(
    server: MLflowServer, uri: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the log."""
    import mlflow

    with (
        failing("LogBatch", ConnectionError("gone")),
        pytest.raises(KeyError),
        open_run(server, uri) as run,
    ):
        mlflow.log_metric("m", 1, synchronous=False)
        raise KeyError
    assert "1 metrics" in caplog.text
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_what_is_not_sent_before_the_deadline_is_lost_and_told(
    server: MLflowServer, uri: str
) -> None:
    """The last flush is bounded, whatever MLflow's threads are waiting for."""
    import mlflow
    from mlflow.store.tracking.rest_store import RestStore

    hold = threading.Event()
    original = RestStore._call_endpoint

    def call(self: Any, which: Any, *args: Any, **kwargs: Any) -> Any:
        if which.__name__ == "LogBatch":
            hold.wait(30)
        return original(self, which, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RestStore, "_call_endpoint", call)
        began = time.monotonic()
        try:
            with (
                pytest.raises(LostDataError, match=r"5 metrics.*not sent before the deadline"),
                open_run(replace(server, deadline=1.0), uri),
            ):
                for step in range(5):
                    mlflow.log_metric("m", step, step=step, synchronous=False)
            assert time.monotonic() - began < 25
        finally:
            hold.set()


def test_artifacts_logged_asynchronously_are_waited_for(
    server: MLflowServer, uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images by steps go that way, and MLflow waits for them when the interpreter exits only."""
    import mlflow
    import numpy as np
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

    pytest.importorskip("PIL")
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    with open_run(server, uri) as run:
        for step in range(5):
            mlflow.log_image(image, key="dots", step=step)
    assert len(client.list_artifacts(run.info.run_id, "images")) == 10

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("the bucket is gone")

    monkeypatch.setattr(MlflowArtifactsRepository, "log_artifact", broken)
    with (
        pytest.raises(LostDataError, match=r"2 artifacts.*the bucket is gone"),
        open_run(server, uri),
    ):
        mlflow.log_image(image, key="dots", step=1)


def test_traces_that_did_not_arrive_are_told(
    server: MLflowServer, uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow drops them with a warning, and spans without one."""
    import mlflow
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
    from mlflow.store.tracking.rest_store import RestStore

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionError("no answer")

    @mlflow.trace
    def traced() -> None:
        pass

    lost = pytest.raises(LostDataError, match=r"2 traces.*no answer")
    with monkeypatch.context() as patch, lost, open_run(server, uri):
        patch.setattr(RestStore, "start_trace", broken)
        traced()
        traced()
    # Spans that could not be sent one by one go with the whole trace: that is no loss ...
    monkeypatch.setattr(RestStore, "log_spans", broken)
    with open_run(server, uri, experiment_name="spans") as run:
        traced()
    with open_run(server, uri):  # MLflow reads spans by the tracking URI of the process
        (trace,) = client.search_traces(locations=[run.info.experiment_id])
    assert [span.name for span in trace.data.spans] == ["traced"]
    # ... unless that fails too.
    monkeypatch.setattr(MlflowArtifactsRepository, "log_artifact", broken)
    with pytest.raises(LostDataError, match=r"2 traces.*no answer"), open_run(server, uri):
        traced()
        traced()


def test_a_trace_that_never_ended_is_named(
    server: MLflowServer, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the author's to end; the run is not failed for it."""
    import mlflow

    with open_run(server, uri):
        mlflow.start_span_no_context("open")
    assert "1 traces" in caplog.text


def test_a_server_that_is_gone_at_the_end_is_told(tmp_path: Path) -> None:
    """The run is still RUNNING there, and the error says so; with an author's error, the log."""
    import mlflow

    gone = [False]

    def answer(request: Request) -> bytes:
        if gone[0]:
            return http(400, '{"error_code": "BAD_REQUEST", "message": "no"}', "application/json")
        run = (
            '{"run": {"info": {"run_id": "%s", "experiment_id": "0", "status": "RUNNING",'
            ' "start_time": 1}, "data": {}}}' % ("a" * 32)
        )
        return http(body=run, content_type="application/json")

    with Stranger(answer) as stranger:
        server = a_server(hostname=stranger.host, port=stranger.port)
        with (
            pytest.raises(RunEndError, match="still RUNNING"),
            open_run(server, auth.sign_in(server)),
        ):
            gone[0] = True
        gone[0] = False
        with (
            pytest.raises(RunEndError, match=r"lost with it: 2 metrics .*BAD_REQUEST") as caught,
            open_run(server, auth.sign_in(server)),
        ):
            gone[0] = True
            mlflow.log_metric("loss", 1.0, step=0, synchronous=False)
            mlflow.log_metric("loss", 1.0, step=1, synchronous=False)
        assert caught.value.losses[0].count == 2
        gone[0] = False
        with pytest.raises(KeyError), open_run(server, auth.sign_in(server)):
            gone[0] = True
            raise KeyError


# --- stopped tasks


SCRIPT = """
import os, sys, time
from airflow_provider_hokusai_dns.client import auth
from airflow_provider_hokusai_dns.client.run import open_run
from tests.values import a_server
import signal
host, port, mode = sys.argv[1:]
if mode == "chained":
    signal.signal(signal.SIGTERM, lambda *_: (print("earlier handler", flush=True), os._exit(7)))
elif mode == "ignored":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif mode.startswith("survived"):
    signal.signal(signal.SIGTERM, lambda *_: print("on_kill", flush=True))
elif mode == "tagged out":
    def late(*_):
        raise KeyboardInterrupt  # as Airflow's execution_timeout, which is no Exception either
    signal.signal(signal.SIGALRM, late)
tags = None
if mode.startswith("tagged"):
    tags = {f"airflow.{name}": "1" for name in ("dag_id", "task_id", "run_id", "map_index")}
    tags |= {"airflow.try_number": "1", "mode": mode}
server = a_server(hostname=host, port=int(port), experiment="stopped")
import mlflow
with open_run(server, auth.sign_in(server), tags=tags, end=mode != "survived, open") as run:
    mlflow.start_run(nested=True)
    for step in range(50):
        mlflow.log_metric("m", step, step=step, synchronous=False)
    if mode == "survived, ended":
        mlflow.end_run()
        mlflow.end_run()
    print(run.info.run_id, flush=True)
    for _ in range(40):
        time.sleep(0.1)
print("went on", flush=True)
"""


@contextlib.contextmanager
def a_task(
    server: MLflowServer, mode: str, wait: bool = True
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.hostname, str(server.port), mode],
        stdout=subprocess.PIPE,
        text=True,
        env=client_environment(),
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip() if wait else ""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("mode", "code"), [("chained", 7), ("plain", -signal.SIGTERM)])
def test_a_stopped_task_ends_its_run_killed(
    server: MLflowServer, client: Any, mode: str, code: int
) -> None:
    """In three seconds, and what a busy machine adds; and then as it was going to be."""
    with a_task(server, mode) as (process, run_id):
        began = time.monotonic()
        process.terminate()
        output, _ = process.communicate(timeout=60)
        took = time.monotonic() - began
    assert took < sigterm.SECONDS + 6
    assert process.returncode == code
    assert ("earlier handler" in output) is (mode == "chained")
    run = client.get_run(run_id)
    assert run.info.status == "KILLED"
    assert len(client.search_runs([run.info.experiment_id], "status = 'RUNNING'")) == 0


@pytest.mark.parametrize("how", ["SIGTERM", "out of time"])
def test_a_task_that_is_stopped_while_its_run_is_being_begun_leaves_none_running(
    mlflow_server: MLflowProcess, direct: Any, front: CountingProxy, how: str
) -> None:
    """MLflow has begun it, the answer is not there yet; and there may be no next try."""
    begun = threading.Event()

    def slow(request: Any) -> None:
        if "runs/create" in request.path:
            begun.set()
            time.sleep(8)

    front.after = slow
    server = a_server(hostname=mlflow_server.host, port=front.port)
    mode = how.partition(" ")[0].lower()
    with a_task(server, f"tagged {mode}", wait=False) as (process, _):
        assert begun.wait(60)
        process.send_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGALRM)
        process.wait(30)
    experiment = direct.get_experiment_by_name("stopped")
    (run,) = direct.search_runs([experiment.experiment_id], f"tags.mode = 'tagged {mode}'")
    assert run.info.status == "KILLED"


def test_a_process_that_ignores_the_signal_goes_on(server: MLflowServer, client: Any) -> None:
    """It is to live on, and its run with it."""
    with a_task(server, "ignored") as (process, run_id):
        process.terminate()
        output, _ = process.communicate(timeout=30)
    assert "went on" in output
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("how", "status"),
    [("survived", "FINISHED"), ("survived, open", "RUNNING"), ("survived, ended", "FINISHED")],
)
def test_a_task_that_survives_the_signal_ends_its_run_as_without_it(
    server: MLflowServer, client: Any, how: str, status: str
) -> None:
    """Airflow forwards SIGTERM to ``on_kill``, and the task may go on and succeed."""
    with a_task(server, how) as (process, run_id):
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert "on_kill" in output
    assert "went on" in output
    assert client.get_run(run_id).info.status == status


def test_a_server_that_hangs_does_not_hold_a_stopped_task(tmp_path: Path) -> None:
    """Three seconds, and then what was there before."""
    me: list[Stranger] = []
    hangs = threading.Event()

    def answer(request: Request) -> Any:
        if hangs.is_set():
            me[0].wait(30)
            return iter(())
        run = (
            '{"run": {"info": {"run_id": "%s", "experiment_id": "0", "status": "RUNNING",'
            ' "start_time": 1, "lifecycle_stage": "active"}, "data": {}},'
            ' "experiment": {"experiment_id": "0", "lifecycle_stage": "active", "name": "x"}}'
        ) % ("a" * 32)
        return http(body=run, content_type="application/json")

    with Stranger(answer) as stranger:
        me.append(stranger)
        server = a_server(hostname=stranger.host, port=stranger.port)
        with a_task(server, "plain") as (process, run_id):
            assert run_id == "a" * 32
            hangs.set()
            began = time.monotonic()
            process.terminate()
            process.communicate(timeout=60)
            assert time.monotonic() - began < sigterm.SECONDS + 15


def test_a_new_try_ends_what_a_killed_one_left_running(
    server: MLflowServer, uri: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Found by its tags, with what was nested in it; others are left alone."""
    import mlflow

    caplog.set_level(logging.INFO)
    experiment = client.create_experiment("leftovers")
    identity = {
        orphaned_runs.TAG_DAG: "train",
        orphaned_runs.TAG_TASK: "fit",
        orphaned_runs.TAG_DAG_RUN: "scheduled__2026-11-23T00:00:00+00:00",
        orphaned_runs.TAG_MAP_INDEX: "-1",
    }

    def left(**changes: str) -> str:
        tags = {**identity, orphaned_runs.TAG_TRY: "1"}
        tags |= {f"airflow.{key}": value for key, value in changes.items()}
        return str(client.create_run(experiment, tags=tags).info.run_id)

    killed = left()
    child = client.create_run(experiment, tags={"mlflow.parentRunId": killed}).info.run_id
    same_try, other_index, other_task = left(try_number="2"), left(map_index="3"), left(task_id="x")
    foreign = client.create_run(experiment, tags=identity).info.run_id
    first = {**identity, orphaned_runs.TAG_TRY: "1"}
    with open_run(server, uri, experiment_name="leftovers", tags=first):
        assert client.get_run(killed).info.status == "RUNNING"
    second = {**identity, orphaned_runs.TAG_TRY: "2"}
    with open_run(server, uri, experiment_name="leftovers", tags=second) as run:
        mlflow.log_metric("m", 1)
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    for run_id in (killed, child):
        assert client.get_run(run_id).info.status == "KILLED"
        assert run_id in caplog.text
    for run_id in (same_try, other_index, other_task, foreign):
        assert client.get_run(run_id).info.status == "RUNNING"


def test_a_new_try_ends_all_that_a_killed_one_left_running_at_its_start(
    server: MLflowServer, uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also more than a page: a run that is ended leaves the search, and moves its pages."""
    monkeypatch.setattr(orphaned_runs, "_RUNS", 2)
    experiment = client.create_experiment("pages of runs")
    identity = dict.fromkeys(orphaned_runs.IDENTITY, "pages")
    first = {**identity, orphaned_runs.TAG_TRY: "1"}
    killed = [client.create_run(experiment, tags=first).info.run_id for _ in range(5)]
    second = {**identity, orphaned_runs.TAG_TRY: "2"}
    with open_run(server, uri, experiment_name="pages of runs", tags=second):
        assert {client.get_run(run_id).info.status for run_id in killed} == {"KILLED"}


def test_a_run_of_an_earlier_try_that_is_resumed_goes_on(
    server: MLflowServer, uri: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What is nested in it ends what that try left RUNNING, and not its own parent, or itself."""
    caplog.set_level(logging.INFO)
    identity = dict.fromkeys(orphaned_runs.IDENTITY, "resumed")
    first, second = ({**identity, orphaned_runs.TAG_TRY: number} for number in "12")
    experiment = client.create_experiment("resumed")
    resumed = client.create_run(experiment, tags=first).info.run_id
    with (
        open_run(server, uri, run_id=resumed, end=False, tags=second),
        open_run(server, uri, nested=True, tags=second) as nested,
    ):
        for run_id in (resumed, nested.info.run_id):
            assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_run(resumed).info.status == "RUNNING"
    with open_run(server, uri, experiment_name="resumed", tags=second):  # searches again
        later = client.create_run(experiment, tags=first).info.run_id
        with open_run(server, uri, run_id=later, nested=True, end=False, tags=second):
            pass
    assert client.get_run(later).info.status == "RUNNING"
    assert "Ended as KILLED" not in caplog.text


def test_a_run_that_is_being_begun_is_found_in_every_experiment(
    uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a server with more experiments than a page lists."""
    monkeypatch.setattr(orphaned_runs, "_EXPERIMENTS", 1)
    experiment = client.create_experiment("the oldest")
    tags = dict.fromkeys(orphaned_runs.IDENTITY, "oldest") | {orphaned_runs.TAG_TRY: "1"}
    begun = client.create_run(experiment, tags=tags).info.run_id
    client.create_experiment("the newest")
    orphaned_runs.end_runs_being_created(uri, tags, 30)
    assert client.get_run(begun).info.status == "KILLED"


@pytest.mark.parametrize("when", ["begun late", "search refused"])
def test_what_the_first_search_of_a_new_try_does_not_find_is_ended_at_its_end(
    server: MLflowServer, front: CountingProxy, client: Any, when: str
) -> None:
    """A worker dies while a busy server still has its request; or does not answer the search."""
    identity = dict.fromkeys(orphaned_runs.IDENTITY, when)
    name = f"orphans {when}"
    experiment = client.create_experiment(name)

    def begin() -> str:
        tags = {**identity, orphaned_runs.TAG_TRY: "1"}
        return str(client.create_run(experiment, tags=tags).info.run_id)

    refused = when == "search refused"
    killed = begin() if refused else ""
    second = {**identity, orphaned_runs.TAG_TRY: "2"}
    front.before = lambda request: 403 if refused and "runs/search" in request.path else None
    through = replace(server, port=front.port)
    with open_run(through, auth.sign_in(through), experiment_name=name, tags=second) as run:
        front.before = lambda _: None
        killed = killed or begin()
        assert client.get_run(killed).info.status == "RUNNING"
    assert client.get_run(killed).info.status == "KILLED"
    assert client.get_run(run.info.run_id).info.status == "FINISHED"


def test_a_quote_in_a_tag_does_not_break_the_search(
    server: MLflowServer, uri: str, client: Any
) -> None:
    """MLflow's filter language cannot escape one."""
    identity = {
        orphaned_runs.TAG_DAG: "it's",
        orphaned_runs.TAG_TASK: "fit",
        orphaned_runs.TAG_DAG_RUN: "r",
        orphaned_runs.TAG_MAP_INDEX: "-1",
    }
    experiment = client.create_experiment("quotes")
    killed = client.create_run(
        experiment, tags={**identity, orphaned_runs.TAG_TRY: "1"}
    ).info.run_id
    tags = {**identity, orphaned_runs.TAG_TRY: "2"}
    with open_run(server, uri, experiment_name="quotes", tags=tags):
        pass
    assert client.get_run(killed).info.status == "KILLED"


# --- tasks that are out of time


class OutOfTime(BaseException):
    """As Airflow's ``execution_timeout`` is: no ``Exception``, and raised anywhere."""


@pytest.mark.parametrize("call", ["_drain", "_remove_from_fluent_api"])
@pytest.mark.parametrize("error", [ValueError("the author's"), None], ids=["failed", "good"])
def test_a_task_whose_time_is_over_at_the_end_ends_its_run(
    server: MLflowServer,
    uri: str,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    call: str,
) -> None:
    """Whether it waits for what was logged or for the server; and the time-out comes out."""
    import mlflow

    original, left = getattr(OpenRun, call), [OutOfTime()]

    def late(self: Any, *args: Any) -> None:
        original(self, *args)
        if left:
            raise left.pop()

    monkeypatch.setattr(OpenRun, call, late)
    with pytest.raises(OutOfTime), open_run(server, uri) as run:
        if error is not None:
            raise error
    assert client.get_run(run.info.run_id).info.status == "FAILED"
    assert mlflow.active_run() is None


def test_a_task_whose_time_is_over_at_the_start_ends_its_run(
    server: MLflowServer, uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it looks for what an earlier try has left behind."""
    import mlflow

    seen: list[str] = []

    def late(uri: str, experiment_id: str, run_ids: set[str], tags: object) -> None:
        seen.extend(run_ids - run_ids_in_use())
        raise OutOfTime

    monkeypatch.setattr("airflow_provider_hokusai_dns.client.run.end_orphaned_runs", late)
    with pytest.raises(OutOfTime), open_run(server, uri):
        pytest.fail("the block must not run")
    assert {client.get_run(run_id).info.status for run_id in seen} == {"FAILED"}
    assert mlflow.active_run() is None


def test_a_task_that_is_out_of_time_waits_for_its_batches_a_short_while_only(
    server: MLflowServer, uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of a run is for tasks that have time."""
    monkeypatch.setattr(sigterm, "SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(OutOfTime), open_run(replace(server, deadline=20), uri) as run:
        waiting = next(iter(delivery_hooks._trackers))
        waiting.put({"metrics": 1})
        raise OutOfTime
    assert time.monotonic() - began < 10
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_a_task_that_is_out_of_time_does_not_wait_for_mlflow_s_monitor(
    server: MLflowServer, uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow joins its thread for system metrics without a bound, and that one asks the server."""
    from mlflow.tracking import fluent

    monkeypatch.setattr(sigterm, "SECONDS", 0.5)
    released = threading.Event()

    class Monitor:
        def finish(self) -> None:
            released.wait(60)

    began = time.monotonic()
    try:
        with pytest.raises(OutOfTime), open_run(replace(server, deadline=60), uri) as run:
            fluent.run_id_to_system_metrics_monitor[run.info.run_id] = Monitor()
            raise OutOfTime
        assert time.monotonic() - began < 30
    finally:
        released.set()
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def test_system_metrics_of_a_run_arrive(
    server: MLflowServer, uri: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the last ones, which MLflow's monitor hands over when it is stopped."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    mlflow.set_system_metrics_sampling_interval(0.1)
    mlflow.set_system_metrics_samples_before_logging(1)
    try:
        with open_run(server, uri) as run:
            metrics = lambda: client.get_run(run.info.run_id).data.metrics  # noqa: E731
            wait_until(lambda: any(key.startswith("system/") for key in metrics()), 60, pause=0.1)
    finally:
        mlflow.set_system_metrics_sampling_interval(None)
        mlflow.set_system_metrics_samples_before_logging(None)
    done = client.get_run(run.info.run_id)
    assert done.info.status == "FINISHED"
    assert any(key.startswith("system/") for key in done.data.metrics)
