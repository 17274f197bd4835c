"""What a run promises: never less than a plain client, nothing swallowed, nothing left over.

Each fault on a real MLflow server behind a proxy, the silent and the false ones beside a plain
client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import auth, orphaned_runs, sigterm
from airflow_provider_hokusai_dns.client import run as run_module
from airflow_provider_hokusai_dns.client.environment import fluent_uri
from airflow_provider_hokusai_dns.client.run import open_run
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

    monkeypatch.setattr(run_module, "_SHORTEST_FLUSH", 3.0)
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
            pytest.raises(LostDataError, match=rf"{lost} .*{status}"),
            open_run(server, uri) as run,
        ):
            fit()
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
