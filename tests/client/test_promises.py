"""What a run promises: never less than a plain client, nothing swallowed, nothing left over.

Each fault on a real MLflow server behind a proxy, the silent and the false ones beside a plain
client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import auth, orphaned_runs, run_end, sigterm
from airflow_provider_hokusai_dns.client.fluent_state import fluent_uri
from airflow_provider_hokusai_dns.client.run import open_run
from airflow_provider_hokusai_dns.client.transport import ServerAwayError
from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from airflow_provider_hokusai_dns.exceptions import AmbiguousRunError, LostDataError
from tests.integration.counting_proxy import CountingProxy, Request
from tests.servers import MLflowProcess, Stranger, http
from tests.values import a_server

# ruff: noqa: PT012 - a run is a block, and its end is what raises.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.timeout(300),
]

TAGS = {orphaned_runs.TAG_DAG: "train"}


@pytest.fixture
def server(front: CountingProxy, mlflow_server: MLflowProcess) -> MLflowServer:
    return a_server(hostname=mlflow_server.host, port=front.port, experiment="promises")


@pytest.fixture
def uri(server: MLflowServer) -> str:
    return auth.sign_in(server)


@contextlib.contextmanager
def a_plain_run(front: CountingProxy) -> Iterator[Any]:
    """``mlflow.start_run`` without us, on the same server."""
    import mlflow

    with fluent_uri("plain", f"http://127.0.0.41:{front.port}"), mlflow.start_run() as run:
        yield run


def slow_batches(request: Request) -> None:
    if "log-batch" in request.path:
        time.sleep(0.2)


# --- a good day


@pytest.mark.parametrize("experiment", [None, "counted"])
def test_a_run_costs_at_most_two_requests_more_than_a_plain_one_and_a_call_none(
    server: MLflowServer, front: CountingProxy, direct: Any, experiment: str | None
) -> None:
    """At the server: what is begun, logged and ended, by path."""
    import mlflow

    def log() -> None:
        for step in range(5):
            mlflow.log_metric("m", step, step=step)
        mlflow.log_param("depth", 6)
        mlflow.log_text("text", "note.txt")

    def asked(block: Callable[[], contextlib.AbstractContextManager[Any]]) -> list[list[str]]:
        parts, seen = [], len(front.requests)
        with block():
            parts.append(seen)
            parts.append(len(front.requests))
            log()
            parts.append(len(front.requests))
        parts.append(len(front.requests))
        return [[each.path for each in front.requests[a:b]] for a, b in pairwise(parts)]

    if experiment and direct.get_experiment_by_name(experiment) is None:
        direct.create_experiment(experiment)
    server = replace(server, experiment=experiment)
    begun, logged, ended = asked(lambda: open_run(server, auth.sign_in(server)))
    plain_begun, plain_logged, plain_ended = asked(lambda: a_plain_run(front))
    assert len(logged) == len(plain_logged)
    assert len(begun + ended) <= len(plain_begun + plain_ended) + 2, (begun, ended)


# --- deadlines


@pytest.mark.parametrize("deadline", [0.0, 3.0])
def test_a_queue_that_drains_is_waited_for_beyond_the_deadline(
    front: CountingProxy,
    mlflow_server: MLflowProcess,
    direct: Any,
    monkeypatch: pytest.MonkeyPatch,
    deadline: float,
) -> None:
    """A deadline counts while nothing gets through; a deadline of nothing loses nothing."""
    import mlflow

    monkeypatch.setattr(run_end, "_SHORTEST_FLUSH", 3.0)
    server = a_server(hostname=mlflow_server.host, port=front.port, deadline=deadline)
    front.before = slow_batches
    with open_run(server, auth.sign_in(server)) as run:
        for step in range(300):
            mlflow.log_metric("m", step, step=step, synchronous=False)
        began = time.monotonic()
    assert time.monotonic() - began > 4, "it was no slow server"
    assert len(direct.get_metric_history(run.info.run_id, "m")) == 300
    assert direct.get_run(run.info.run_id).info.status == "FINISHED"


class OutOfTime(BaseException):
    """As Airflow's ``execution_timeout`` is: no ``Exception``."""


def test_a_task_that_is_out_of_time_while_mlflow_is_away_ends_soon(
    server: MLflowServer, uri: str, front: CountingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that is stopped does, and with one line that says what became of the run."""
    import mlflow

    with pytest.raises(OutOfTime), open_run(server, uri):
        front.before = lambda _: 503
        mlflow.log_metric("m", 1, synchronous=False)
        began = time.monotonic()
        raise OutOfTime
    assert time.monotonic() - began < sigterm.SECONDS + 8
    assert "still RUNNING" in caplog.text
    assert "Traceback" not in "".join(
        record.exc_text or "" for record in caplog.records if "hokusai" in record.name
    )


def test_a_task_that_exits_on_sigterm_while_mlflow_is_away_ends_soon(
    server: MLflowServer, uri: str, front: CountingProxy
) -> None:
    """Airflow kills it five seconds after the signal, and with it what its code has to clean up."""
    import mlflow

    earlier = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with pytest.raises(SystemExit), open_run(server, uri):
            front.before = lambda _: 503
            mlflow.log_metric("m", 1, synchronous=False)
            began = time.monotonic()
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert time.monotonic() - began < 2 * sigterm.SECONDS + 8


def test_without_a_thread_for_it_the_end_on_sigterm_is_left_out_and_the_task_is_stopped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was there before is called all the same, as with an error in our part."""
    seen: list[str] = []
    earlier = signal.signal(signal.SIGTERM, lambda *_: seen.append("earlier"))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    try:
        with sigterm.on_sigterm(lambda _: seen.append("ours")):
            monkeypatch.setattr(threading.Thread, "start", refuse)
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert seen == ["earlier"]
    assert "is skipped: can't start new thread" in caplog.text


def test_a_failure_while_a_run_is_ended_is_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And no traceback of a thread: with an MLflow that is away it is to be expected."""

    def fail() -> None:
        raise ServerAwayError("it answered 503")

    sigterm.run_side_by_side([fail], 5)
    (line,) = caplog.records
    assert line.getMessage().endswith("MLflow run failed: ServerAwayError: it answered 503")
    assert not line.exc_info


# --- what the environment says


def test_models_go_to_the_registry_that_the_environment_names(
    server: MLflowServer, front: CountingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for MLflow's own client; and no login of the connection goes there."""
    import mlflow

    answer = '{"registered_model": {"name": "m"}}'
    signed = replace(server, credentials=Credentials(secret="of-the-connection"))
    with Stranger(lambda _: http(body=answer, content_type="application/json")) as registry:
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry.uri)
        with open_run(signed, auth.sign_in(signed)):
            mlflow.MlflowClient().create_registered_model("m")
        assert os.environ["MLFLOW_REGISTRY_URI"] == registry.uri
    (request,) = registry.requests
    assert request.path.endswith("registered-models/create")
    assert "of-the-connection" not in str(request.headers)
    assert not [each for each in front.requests if "registered-models" in each.path]


# --- false alarms


def test_a_trace_that_goes_to_a_collector_is_no_loss(
    server: MLflowServer, uri: str, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow sends it there and not to its server."""
    import mlflow

    with Stranger(lambda _: http(body="{}", content_type="application/json")) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.uri}/v1/traces")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        with open_run(server, uri) as run:
            mlflow.trace(lambda: 1, name="traced")()
            mlflow.flush_trace_async_logging()
        until = time.monotonic() + 30  # some versions flush their own exporter only
        while not collector.requests and time.monotonic() < until:
            time.sleep(0.1)
        assert [request.path for request in collector.requests] == ["/v1/traces"]
    assert direct.get_run(run.info.run_id).info.status == "FINISHED"


def test_a_trace_that_another_process_began_is_no_loss(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """That process sends it; from here go its spans."""
    import mlflow

    distributed = pytest.importorskip("mlflow.tracing.distributed")
    enter: Any = getattr(distributed, "set_tracing_context_from_http_request_headers", None)
    if enter is None:
        pytest.skip("this MLflow continues no traces")
    headers = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}
    with open_run(server, uri) as run, enter(headers):
        mlflow.trace(lambda: 1, name="traced")()
    assert direct.get_run(run.info.run_id).info.status == "FINISHED"


def test_an_open_trace_around_a_run_is_whole(
    server: MLflowServer, uri: str, front: CountingProxy, direct: Any
) -> None:
    """The tracer is not reset under it: as plain, it goes to the server where it was begun."""
    import mlflow

    experiment = direct.create_experiment("traced around")
    try:
        mlflow.set_tracking_uri(f"http://127.0.0.41:{front.port}")
        mlflow.set_experiment(experiment_id=experiment)

        @mlflow.trace
        def outer() -> None:
            with open_run(server, uri), mlflow.start_span("inner"):
                pass

        outer()
        mlflow.flush_trace_async_logging()
        (trace,) = direct.search_traces(locations=[experiment], include_spans=False)
        assert trace.info.state == "OK"
    finally:
        from mlflow.tracking import fluent

        fluent._active_experiment_id = None
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("is_inside", [False, True])
def test_what_is_set_up_for_tracing_holds_in_a_run(
    server: MLflowServer, uri: str, direct: Any, monkeypatch: pytest.MonkeyPatch, is_inside: bool
) -> None:
    """Before the run or in it: what hides a secret, where traces go, and whether there are any."""
    import mlflow
    from mlflow.entities.trace_location import MlflowExperimentLocation

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)  # not a database of the working directory
    elsewhere = direct.create_experiment(f"traces-{is_inside}")

    def set_up() -> None:
        mlflow.tracing.set_destination(MlflowExperimentLocation(elsewhere))
        mlflow.tracing.configure(span_processors=[lambda span: span.set_outputs("hidden")])

    def traced(set_up: Callable[[], None]) -> list[Any]:
        if not is_inside:
            set_up()
        with open_run(server, uri):
            if is_inside:
                set_up()
            mlflow.trace(lambda: "secret", name="traced")()
        return list(direct.search_traces(locations=[elsewhere], include_spans=False))

    try:
        (trace,) = traced(set_up)
        assert trace.info.response_preview == '"hidden"'
        assert len(traced(mlflow.tracing.disable)) == 1
    finally:
        mlflow.tracing.enable()
        mlflow.tracing.reset()


# --- what MLflow swallows


@contextlib.contextmanager
def autologging() -> Iterator[None]:
    import mlflow.sklearn

    mlflow.sklearn.autolog(silent=False, log_models=False)
    try:
        yield
    finally:
        mlflow.sklearn.autolog(disable=True)


def fit() -> None:
    from sklearn.linear_model import LinearRegression

    LinearRegression().fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("status", "path", "lost"),
    [
        (403, "log-batch", "params"),
        (400, "log-batch", "params"),
        (500, "log-batch", "params"),
        (503, "log-batch", "params"),
        (403, "artifacts", "artifacts"),
        (500, "artifacts", "artifacts"),
    ],
)
def test_what_autologging_swallows_fails_the_run(
    server: MLflowServer,
    front: CountingProxy,
    direct: Any,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    path: str,
    lost: str,
) -> None:
    """MLflow warns and goes on, and a plain run is FINISHED without what was refused."""
    pytest.importorskip("sklearn")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the plain client's patience
    server = replace(server, deadline=1.0)
    uri = auth.sign_in(server)
    front.before = lambda request: status if path in request.path else None
    with autologging():
        with a_plain_run(front) as plain:
            fit()
        assert direct.get_run(plain.info.run_id).info.status == "FINISHED"
        with (
            pytest.raises(LostDataError, match=rf"{lost} .*{status}") as caught,
            open_run(server, uri) as run,
        ):
            fit()
    assert {loss.permanent for loss in caught.value.losses} == {status < 500}
    front.before = lambda _: None
    assert direct.get_run(run.info.run_id).info.status == "FAILED"


def test_what_autologging_delivers_fails_nothing(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """On a good day."""
    pytest.importorskip("sklearn")
    with autologging(), open_run(server, uri) as run:
        fit()
    done = direct.get_run(run.info.run_id)
    assert (done.info.status, bool(done.data.params)) == ("FINISHED", True)


def test_system_metrics_that_are_refused_fail_the_run(
    server: MLflowServer, uri: str, front: CountingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's monitor warns, and ends."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    mlflow.set_system_metrics_sampling_interval(0.1)
    mlflow.set_system_metrics_samples_before_logging(1)
    refused = threading.Event()

    def refuse(request: Request) -> int | None:
        if "log-batch" not in request.path:
            return None
        refused.set()
        return 403

    front.before = refuse
    try:
        with pytest.raises(LostDataError, match=r"metrics .*403"), open_run(server, uri):
            assert refused.wait(60)
    finally:
        mlflow.set_system_metrics_sampling_interval(None)
        mlflow.set_system_metrics_samples_before_logging(None)


def log_a_configured_model() -> None:
    pyfunc: Any = pytest.importorskip("mlflow.pyfunc")
    pyfunc.log_model(
        name="m", python_model=lambda model_input: model_input, model_config={"depth": 1},
        input_example=["x"], pip_requirements=[],
    )  # fmt: skip


def trace_an_image() -> None:
    import mlflow

    attachments: Any = pytest.importorskip("mlflow.tracing.attachments")
    with mlflow.start_span("seen") as span:
        span.set_inputs(
            {"image": attachments.Attachment(content_type="image/png", content_bytes=b"png")}
        )


@pytest.mark.parametrize(
    ("log", "path", "lost"),
    [
        (log_a_configured_model, "log-batch", "1 params"),
        (trace_an_image, "/attachments/", "1 artifacts"),
    ],
)
def test_what_a_call_of_the_author_swallows_fails_the_run(
    server: MLflowServer,
    uri: str,
    front: CountingProxy,
    direct: Any,
    log: Any,
    path: str,
    lost: str,
) -> None:
    """MLflow warns that a part was refused, and goes on."""
    front.before = lambda request: 403 if path in request.path else None
    with pytest.raises(LostDataError, match=f"{lost} .*403"), open_run(server, uri) as run:
        log()
    front.before = lambda _: None
    assert direct.get_run(run.info.run_id).info.status == "FAILED"
    with open_run(server, uri) as run:
        log()
    assert direct.get_run(run.info.run_id).info.status == "FINISHED"


def test_an_error_that_the_author_handles_is_the_author_s(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """It has come out of the call."""
    import mlflow

    with open_run(server, uri) as run:
        mlflow.log_param("depth", 1)
        with contextlib.suppress(mlflow.MlflowException):
            mlflow.log_param("depth", 2)
    assert direct.get_run(run.info.run_id).info.status == "FINISHED"


# --- what is begun inside


def test_threads_log_to_the_run_and_runs_in_them_are_its_children(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """A plain client begins a run in Default for each of them, and leaves it RUNNING."""
    import mlflow

    def logs(step: int) -> None:
        mlflow.log_metric("m", step, step=step)
        mlflow.log_metric("later", step, step=step, synchronous=False)

    def nested(number: int) -> str:
        with mlflow.start_run(nested=True, run_name=str(number)) as child:
            return str(child.info.run_id)

    def ours(number: int) -> str:
        with open_run(server, uri, nested=True) as child:
            return str(child.info.run_id)

    def apart(number: int) -> str:
        with mlflow.start_run() as other:
            return str(other.info.run_id)

    strays = len(direct.search_runs(["0"], "status = 'RUNNING'"))
    with open_run(server, uri, experiment_name="threads", tags=TAGS) as run:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(logs, range(12)))
            children = [*pool.map(nested, range(3)), *pool.map(ours, range(3))]
            others = list(pool.map(apart, range(2)))
        assert mlflow.active_run().info.run_id == run.info.run_id
    assert len(direct.get_metric_history(run.info.run_id, "m")) == 12
    assert len(direct.get_metric_history(run.info.run_id, "later")) == 12
    for child in children:
        done = direct.get_run(child)
        assert done.info.status == "FINISHED"
        assert done.data.tags["mlflow.parentRunId"] == run.info.run_id
    for other in (direct.get_run(run_id) for run_id in [*children[:3], *others]):
        assert other.info.experiment_id == run.info.experiment_id
        assert TAGS.items() <= other.data.tags.items()
    assert len(direct.search_runs(["0"], "status = 'RUNNING'")) == strays


@pytest.mark.parametrize("raises", [False, True])
def test_what_a_thread_has_begun_and_not_ended_ends_with_the_run(
    server: MLflowServer, uri: str, direct: Any, raises: bool
) -> None:
    """A thread of a pool that continues can begin the next run, and what was ended stays so."""
    import mlflow

    def begin() -> list[str]:
        outer = mlflow.start_run(nested=True)
        inner = mlflow.start_run(nested=True)
        return [outer.info.run_id, inner.info.run_id]

    def end() -> str:
        run_id: str = mlflow.start_run(nested=True).info.run_id
        mlflow.end_run("KILLED")
        return run_id

    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            with contextlib.suppress(KeyError), open_run(server, uri) as run:
                ended = pool.submit(end).result()
                left_open = pool.submit(begin).result()
                if raises:
                    raise KeyError
            expected = "FAILED" if raises else "FINISHED"
            for run_id in (*left_open, run.info.run_id):
                assert direct.get_run(run_id).info.status == expected
            assert direct.get_run(ended).info.status == "KILLED"
            parents = [
                direct.get_run(run_id).data.tags["mlflow.parentRunId"] for run_id in left_open
            ]
            assert parents == [run.info.run_id, left_open[0]]


def test_a_run_of_another_thread_that_is_being_opened_does_not_end_with_this_one(
    server: MLflowServer, uri: str, front: CountingProxy, direct: Any
) -> None:
    """Its block ends it."""
    begun, leave = threading.Event(), threading.Event()
    tags = {**dict.fromkeys(orphaned_runs.IDENTITY, "late"), orphaned_runs.TAG_TRY: "2"}
    late = f"status = 'RUNNING' and tags.`{orphaned_runs.TAG_DAG}` = 'late'"

    def hold(request: Request) -> None:
        if "runs/search" in request.path:  # for what an earlier try has left
            begun.set()
            leave.wait(30)

    def second() -> str:
        with open_run(server, uri, tags=tags) as other:
            return str(other.info.run_id)

    with ThreadPoolExecutor(1) as pool:
        with open_run(server, uri) as run:
            front.before = hold
            opening = pool.submit(second)
            assert begun.wait(30)
            front.before = lambda _: None
        (running,) = direct.search_runs([run.info.experiment_id], late)
        leave.set()
        assert opening.result() == running.info.run_id
    assert direct.get_run(running.info.run_id).info.status == "FINISHED"


def test_a_thread_beside_two_runs_is_told_to_say_which(server: MLflowServer, uri: str) -> None:
    """It could be either."""
    import mlflow

    opened, leave = threading.Event(), threading.Event()

    def second() -> None:
        with open_run(server, uri):
            opened.set()
            leave.wait(30)

    with open_run(server, uri), ThreadPoolExecutor(2) as pool:
        pool.submit(second)
        assert opened.wait(30)
        try:
            with pytest.raises(AmbiguousRunError, match="run_id="):
                pool.submit(mlflow.log_metric, "m", 1).result()
        finally:
            leave.set()


def test_a_forked_child_logs_to_the_run_of_its_parent(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """Also asynchronously, after its parent did: the child has the queue and not its threads."""
    import mlflow

    with open_run(server, uri) as run:
        # Delivered first: a fork in the middle of an import leaves the child its lock (CPython).
        mlflow.log_metric("m", 0, step=0, synchronous=False).wait()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                mlflow.log_metric("m", 1, step=1, synchronous=False)
                mlflow.log_metric("m", 2, step=2)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
    assert len(direct.get_metric_history(run.info.run_id, "m")) == 3
    assert direct.get_run(run.info.run_id).info.status == "FINISHED"


def test_what_the_author_begins_after_ending_the_run_ends_too(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """In the run's experiment; and the next run can be opened."""
    import mlflow

    with open_run(server, uri, experiment_name="after the end", tags=TAGS) as run:
        mlflow.end_run()
        mlflow.log_metric("m", 1)
        stray = mlflow.active_run().info.run_id
    for run_id in (run.info.run_id, stray):
        done = direct.get_run(run_id)
        assert (done.info.status, done.info.experiment_id) == ("FINISHED", run.info.experiment_id)
    with open_run(server, uri):
        pass


def test_searches_inside_are_in_the_experiment_and_the_last_run_is_known_after(
    server: MLflowServer, uri: str
) -> None:
    """As inside and after ``mlflow.start_run``."""
    import mlflow

    with open_run(server, uri, experiment_name="searched") as run:
        found = mlflow.search_runs(output_format="list")
        assert [each.info.run_id for each in found] == [run.info.run_id]
        mlflow.trace(lambda: 1, name="traced")()
        mlflow.flush_trace_async_logging()
        assert len(mlflow.search_traces(run_id=run.info.run_id, return_type="list")) == 1
    with open_run(server, uri):
        pass
    with fluent_uri("mlflow_test", uri):
        assert mlflow.last_active_run().info.status == "FINISHED"


def test_nested_runs_of_several_asyncio_tasks_are_refused(server: MLflowServer, uri: str) -> None:
    """They share the stack of one thread: each would end, and log to, the other's."""
    second_opened = []

    async def one(order: int) -> None:
        await asyncio.sleep(order * 0.05)
        with open_run(server, uri, nested=True):
            second_opened.append(order)
            await asyncio.sleep(2)

    async def both() -> list[BaseException | None]:
        return await asyncio.gather(one(0), one(1), return_exceptions=True)

    with open_run(server, uri):
        first, second = asyncio.run(both())
    assert (first, second_opened) == (None, [0])
    assert isinstance(second, AmbiguousRunError)


def test_an_experiment_that_is_set_inside_is_undone(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """It would be asked of the next server, by an id that is another's there."""
    import mlflow
    from mlflow.tracking import fluent

    direct.create_experiment("set inside")
    with open_run(server, uri):
        mlflow.set_experiment("set inside")
    assert fluent._active_experiment_id is None
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ


# --- other cases of the same kinds


@pytest.mark.filterwarnings("ignore")  # what MLflow stores a model with looks at every module
def test_what_is_handled_under_autologging_is_no_loss(
    server: MLflowServer, uri: str, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is registered already, and an alias that a step of the pipeline asks for."""
    pytest.importorskip("sklearn")
    import mlflow.sklearn
    from sklearn.base import BaseEstimator
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import Pipeline

    class Step(BaseEstimator):  # type: ignore[misc]
        def fit(self, x: Any, y: Any = None) -> Step:
            with contextlib.suppress(mlflow.MlflowException):
                mlflow.MlflowClient().get_model_version_by_alias("handled", "champion")
            with contextlib.suppress(mlflow.MlflowException):
                mlflow.MlflowClient().set_registered_model_alias("nothing", "a", "1")
            return self

        def transform(self, x: Any) -> Any:
            return x

    # Or MLflow starts a process for each model that finds them.
    monkeypatch.setattr(mlflow.models, "infer_pip_requirements", lambda *_, **__: ["scikit-learn"])
    mlflow.sklearn.autolog(registered_model_name="handled", silent=False)
    try:
        for _ in range(2):
            with open_run(server, uri) as run:
                Pipeline([("step", Step()), ("model", LinearRegression())]).fit(
                    [[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0]
                )
            assert direct.get_run(run.info.run_id).info.status == "FINISHED"
    finally:
        mlflow.sklearn.autolog(disable=True)


def test_a_loss_belongs_to_the_run_that_lost_it(
    server: MLflowServer, uri: str, front: CountingProxy, direct: Any
) -> None:
    """Another thread's run, opened later, has all of its own."""
    pytest.importorskip("sklearn")
    import mlflow

    first, second = threading.Event(), threading.Event()
    runs: dict[str, str] = {}

    def loses() -> None:
        with open_run(replace(server, deadline=1.0), uri) as run:
            runs["loses"] = run.info.run_id
            first.set()
            assert second.wait(60)
            front.before = lambda request: 403 if "log-batch" in request.path else None
            fit()
            front.before = lambda _: None

    def keeps(done: threading.Event) -> None:
        assert first.wait(60)
        with open_run(server, uri) as run:
            runs["keeps"] = run.info.run_id
            second.set()
            assert done.wait(60)
            mlflow.log_metric("m", 1.0)

    done = threading.Event()
    with autologging(), ThreadPoolExecutor(2) as pool:
        losing, keeping = pool.submit(loses), pool.submit(keeps, done)
        with pytest.raises(LostDataError, match=r"params .*403") as caught:
            losing.result()
        done.set()
        keeping.result()
    assert caught.value.run_id == runs["loses"]
    statuses = {name: direct.get_run(run_id).info.status for name, run_id in runs.items()}
    assert statuses == {"loses": "FAILED", "keeps": "FINISHED"}


def test_a_child_has_the_tags_of_the_task_and_not_of_its_parent(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """As plain; and it is in the experiment of its own thread's run."""
    import mlflow

    opened, leave = threading.Event(), threading.Event()

    def another() -> str:
        with open_run(server, uri, experiment_name="another", tags={"fold": "2"}) as run:
            opened.set()
            assert leave.wait(60)
            return str(run.info.run_id)

    def unrelated() -> str:
        with open_run(server, uri, experiment_name="unrelated") as run:
            return str(run.info.run_id)

    tags = {**TAGS, "role": "parent", "mlflow.note.content": "of the parent"}
    with (
        ThreadPoolExecutor(2) as pool,
        open_run(server, uri, experiment_name="own", tags=tags) as run,
    ):
        other = pool.submit(another)
        assert opened.wait(60)
        try:
            with mlflow.start_run(nested=True) as child:
                pass
            with open_run(server, uri, nested=True, tags=TAGS) as ours:
                pass
            third = pool.submit(unrelated).result()
            candidate = mlflow.MlflowClient().create_run(
                run.info.experiment_id, tags={"mlflow.parentRunId": run.info.run_id, "of": "search"}
            )
            beside = mlflow.MlflowClient().create_run(run.info.experiment_id)
        finally:
            leave.set()
    assert not TAGS.items() & direct.get_run(beside.info.run_id).data.tags.items()
    assert direct.get_run(candidate.info.run_id).data.tags["of"] == "search"
    for run_id in (child.info.run_id, ours.info.run_id, candidate.info.run_id):
        found = direct.get_run(run_id)
        assert found.info.experiment_id == run.info.experiment_id
        assert found.data.tags["mlflow.parentRunId"] == run.info.run_id
        assert TAGS.items() <= found.data.tags.items()
        assert not {"role", "fold", "mlflow.note.content"} & set(found.data.tags)
    assert not {"fold", "role", "mlflow.parentRunId"} & set(direct.get_run(third).data.tags)
    assert direct.get_run(other.result()).data.tags["fold"] == "2"


def test_a_resumed_run_takes_the_authors_tags(server: MLflowServer, uri: str, direct: Any) -> None:
    """As ``mlflow.start_run(run_id=..., tags=...)``; the task that began it stays."""
    with open_run(server, uri, tags={**TAGS, "stage": "train"}, end=False) as run:
        pass
    later = dict.fromkeys(TAGS, "later") | {"stage": "evaluated"}
    with open_run(server, uri, run_id=run.info.run_id, tags=later):
        pass
    assert {**TAGS, "stage": "evaluated"}.items() <= direct.get_run(
        run.info.run_id
    ).data.tags.items()


def test_an_object_with_copied_tags_is_no_duplicate(
    server: MLflowServer, uri: str, front: CountingProxy, direct: Any
) -> None:
    """One answer to each create was cut; then the author copies all tags to a later one."""
    import mlflow

    cut: set[str] = set()

    def once(request: Request) -> int | None:
        for name in ("runs/create", "model-versions/create"):
            if request.path.endswith(name) and name not in cut:
                cut.add(name)
                return 0
        return None

    front.after = once
    client = mlflow.MlflowClient(uri)
    client.create_registered_model("copied")
    with open_run(server, uri, experiment_name="copies") as run:
        first = client.create_model_version("copied", "s3://bucket/model")
        second = client.create_model_version("copied", "s3://bucket/model")
        for key, value in client.get_model_version("copied", first.version).tags.items():
            client.set_model_version_tag("copied", second.version, key, value)
        other = client.create_run(run.info.experiment_id)
        foreign = direct.create_run(run.info.experiment_id)
        for run_id in (other.info.run_id, foreign.info.run_id):
            for key, value in direct.get_run(run.info.run_id).data.tags.items():
                client.set_tag(run_id, key, value)
    assert cut == {"runs/create", "model-versions/create"}
    assert len(direct.search_model_versions("name = 'copied'")) == 2
    for run_id in (other.info.run_id, foreign.info.run_id):
        assert direct.get_run(run_id).info.lifecycle_stage == "active"


def test_a_forked_childs_asynchronous_images_and_traces_arrive(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """It has the queues of its parent, and not their threads."""
    import mlflow
    import numpy as np

    def image(key: str) -> Any:
        pixels = np.zeros((4, 4, 3), dtype=np.uint8)
        return mlflow.log_image(pixels, key=key, step=0, synchronous=False)

    def traced(text: str) -> None:
        mlflow.trace(lambda given: given, name="traced")(text)

    with open_run(server, uri, experiment_name="forked queues") as run:
        image("parent")
        traced("parent")
        mlflow.flush_artifact_async_logging()
        mlflow.flush_trace_async_logging()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                image("child")
                traced("child")
                time.sleep(6)  # MLflow passes traces on every five seconds
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
    files = direct.list_artifacts(run.info.run_id, "images")
    # MLflow separates the parts of a name by "+", older ones by "%".
    images = {re.split("[+%]", file.path.removeprefix("images/"))[0] for file in files}
    assert images == {"parent", "child"}
    traces = direct.search_traces(locations=[run.info.experiment_id], include_spans=False)
    assert sorted(trace.info.request_preview for trace in traces) == [
        '{"given": "child"}',
        '{"given": "parent"}',
    ]


def test_models_and_autologging_in_a_thread_belong_to_the_run(
    server: MLflowServer, uri: str, direct: Any
) -> None:
    """As what ``mlflow.log_metric`` logs there."""
    pytest.importorskip("sklearn")
    import mlflow.sklearn
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    with open_run(server, uri, experiment_name="threaded") as run, ThreadPoolExecutor(1) as pool:
        info = pool.submit(  # without the requirements it starts a process to find them
            mlflow.sklearn.log_model, model, name="in-a-thread", pip_requirements=["scikit-learn"]
        ).result()
        with autologging():
            pool.submit(fit).result()
    assert direct.get_logged_model(info.model_id).source_run_id == run.info.run_id
    (only,) = direct.search_runs([run.info.experiment_id])
    assert only.info.run_id == run.info.run_id
    assert only.data.params


def test_plain_nested_runs_of_several_asyncio_tasks_are_refused(
    server: MLflowServer, uri: str
) -> None:
    """They would get each other's metrics, silently; one after the other they are fine."""
    import mlflow

    async def nested(number: int) -> None:
        with mlflow.start_run(nested=True):
            await asyncio.sleep(0.3)
            mlflow.log_metric("m", number)

    async def several() -> list[Any]:
        return await asyncio.gather(*(nested(n) for n in range(3)), return_exceptions=True)

    async def in_turn() -> None:
        for number in range(2):
            with mlflow.start_run(nested=True):
                await nested(number)
            await asyncio.create_task(nested(number))

    with open_run(server, uri):
        asyncio.run(in_turn())
        found = asyncio.run(several())
    assert [type(error) for error in found] == [type(None), *[AmbiguousRunError] * 2]


def test_the_variable_of_a_run_to_resume_is_used_once(
    server: MLflowServer, uri: str, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by MLflow; else every run of the process would be that one."""
    with open_run(server, uri, end=False) as left:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", left.info.run_id)
    ids = []
    for _ in range(2):
        with open_run(server, uri) as run:
            ids.append(run.info.run_id)
    assert ids[0] == left.info.run_id
    assert ids[1] != left.info.run_id


def test_an_experiment_set_in_a_nested_block_ends_with_it(server: MLflowServer, uri: str) -> None:
    """As in the outer one."""
    import mlflow

    with open_run(server, uri, experiment_name="outer block") as run:
        with open_run(server, uri, nested=True):
            mlflow.set_experiment("inner block")
        with mlflow.start_run(nested=True) as child:
            pass
        assert child.info.experiment_id == run.info.experiment_id
