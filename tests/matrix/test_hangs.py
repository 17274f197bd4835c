"""How long it can take when nothing works, and what an outage costs that ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.health.breaker import breaker_for
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.conftest import HOSTNAME
from tests.servers import START_SECONDS, MLflowProcess, Stranger, black_hole, free_port, http

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

Connect = Callable[..., str]
#: What a busy machine may add, seconds.
GRACE = 8.0


def nothing_to_serve(dns: DNSServer, port: int) -> Any:
    """A hook whose client was taken on a good day; then the name, and all that is old, is gone."""
    dns.set_records(HOSTNAME, ["127.0.0.77"], ttl=1)
    hook = MLflowHook()
    breaker_for(hook.server).reset()
    client = hook.get_conn()
    assert hook.resolve().address == "127.0.0.77"
    dns.no_such_name(HOSTNAME)
    hook.resolver.clear(HOSTNAME)
    return hook, client


def calls(hook: MLflowHook, client: Any) -> dict[str, Callable[[], object]]:
    """Every way in which a task may come upon the outage."""

    def run() -> None:
        with hook.run():
            pass

    return {
        "client": client.search_experiments,
        "rest": lambda: hook.rest("GET", "/api/2.0/mlflow/experiments/get"),
        "rest, post": lambda: hook.rest("POST", "/api/2.0/mlflow/runs/create", json={}),
        "run": run,
    }


@pytest.mark.parametrize("how", ["client", "rest", "rest, post", "run"])
@pytest.mark.parametrize(
    "seconds", [4, pytest.param(30, marks=[pytest.mark.e2e, pytest.mark.timeout(200)])]
)
def test_a_call_with_nothing_to_serve_ends_within_its_deadline(
    dns: DNSServer, connect: Connect, clean_runtime: Any, how: str, seconds: int
) -> None:
    """``request_timeout``, the waits for the name included; a plain client takes 247 s."""
    connect(
        host=HOSTNAME, port=5000, extra={"nameservers": dns.address, "request_timeout": seconds}
    )
    hook, client = nothing_to_serve(dns, 5000)
    call = calls(hook, client)[how]
    began = time.monotonic()
    with pytest.raises(Exception, match=r"resolve|no address|does not exist|nxdomain"):
        call()
    assert time.monotonic() - began < seconds + GRACE


@pytest.mark.parametrize("how", ["client", "rest", "run"])
def test_a_server_that_never_answers_is_left_within_the_deadline(
    dns: DNSServer, connect: Connect, clean_runtime: Any, how: str
) -> None:
    """It takes the connection and the request, and says nothing."""
    silent: list[Stranger] = []

    def never(_request: object) -> bytes:
        silent[0].wait(60)
        return b""

    with Stranger(never, host="127.0.0.77") as stranger:
        silent.append(stranger)
        seconds = 6
        extra = {"nameservers": dns.address, "request_timeout": seconds, "deadline": 600}
        connect(host=HOSTNAME, port=stranger.port, extra=extra)
        dns.set_records(HOSTNAME, [stranger.host])
        hook = MLflowHook()
        breaker_for(hook.server).reset()
        call = calls(hook, hook.get_conn())[how]
        began = time.monotonic()
        with pytest.raises(Exception, match=r"(?i)timed? ?-?out|no answer"):
            call()
        assert time.monotonic() - began < seconds + GRACE


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("how", "name"), [("client", "there"), ("client", "fails"), ("rest", "there")]
)
@pytest.mark.timeout(200)
def test_a_black_hole_is_left_within_the_deadline(
    dns: DNSServer, connect: Connect, clean_runtime: Any, how: str, name: str
) -> None:
    """DNS still gives the address of a task that is gone, or gives none and the old one is tried.

    A retry of the client does not hang in the same hole again.
    """
    seconds, host, port = 30, "127.0.0.77", free_port("127.0.0.77")
    connect(
        host=f"http://{HOSTNAME}",
        port=port,
        extra={"nameservers": dns.address, "request_timeout": seconds},
    )
    dns.set_records(HOSTNAME, [host], ttl=1)
    hook = MLflowHook()
    breaker_for(hook.server).reset()
    call = calls(hook, hook.get_conn())[how]
    assert hook.resolve().address == host
    if name == "fails":
        dns.servfail(HOSTNAME)
        hook.resolver.refresh(HOSTNAME)
    with black_hole(host, port):
        began = time.monotonic()
        with pytest.raises(Exception, match=r"(?i)connection|timed? ?-?out|no MLflow answers"):
            call()
        assert time.monotonic() - began < seconds + GRACE


@pytest.mark.parametrize("seconds_without_a_name", [5, pytest.param(90, marks=[pytest.mark.e2e])])
@pytest.mark.timeout(600)
def test_a_redeploy_with_the_old_address_black_holed_costs_nothing_but_time(
    dns: DNSServer,
    connect: Connect,
    clean_runtime: Any,
    tmp_path: Path,
    seconds_without_a_name: int,
) -> None:
    """Asynchronous and synchronous metrics, an artifact and a trace are all there afterwards."""
    import mlflow

    port = free_port("127.0.0.78")
    allowed = (f"{HOSTNAME}:*",)
    old = MLflowProcess(tmp_path / "mlflow", host="127.0.0.78", port=port, allowed_hosts=allowed)
    new = MLflowProcess(tmp_path / "mlflow", host="127.0.0.79", port=port, allowed_hosts=allowed)
    hole = contextlib.ExitStack()
    back_at: list[float] = []

    def redeploy() -> None:
        try:
            steps()
        except BaseException:
            # The run would wait for its whole deadline, and the reason would be told after it: so
            # the name leads to a server that refuses at once.
            no = Stranger(lambda _: http(400, "the redeploy failed"), host="127.0.0.80", port=port)
            hole.enter_context(no)
            dns.set_records(HOSTNAME, [no.host], ttl=1)
            raise

    def steps() -> None:
        dns.no_such_name(HOSTNAME)
        gone_at = time.monotonic()
        old.stop(kill=True)
        hole.enter_context(black_hole(old.host, port))
        new.start()
        time.sleep(max(0.0, gone_at + seconds_without_a_name - time.monotonic()))
        dns.heal(HOSTNAME)
        dns.set_records(HOSTNAME, [new.host], ttl=1)
        back_at.append(time.monotonic())

    dns.set_records(HOSTNAME, [old.host], ttl=1)
    # Longer than a new server is given to start on a busy machine.
    deadline = seconds_without_a_name + START_SECONDS + 60
    connect(host=HOSTNAME, port=port, extra={"nameservers": dns.address, "deadline": deadline})
    with hole, old, new_stopped(new), ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as told:
        with MLflowHook().run("redeploy") as run:
            for step in range(50):
                mlflow.log_metric("loss", step, step=step, synchronous=False)
            mlflow.flush_async_logging()
            deployed = pool.submit(redeploy)
            told.callback(deployed.result)
            time.sleep(2)
            for step in range(50, 100):
                mlflow.log_metric("loss", step, step=step, synchronous=False)
            mlflow.trace(lambda: 1)()
            mlflow.log_metric("waited", 1.0)
            mlflow.log_text("text", "note.txt")
            written_at = time.monotonic()
        ended_at = time.monotonic()
        told.close()
        client = MLflowHook().get_conn()
        done = client.get_run(run.info.run_id)
        assert done.info.status == "FINISHED"
        assert done.data.metrics["waited"] == 1.0
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 100
        assert [found.path for found in client.list_artifacts(run.info.run_id)] == ["note.txt"]
        traces = client.search_traces(
            locations=[done.info.experiment_id], run_id=run.info.run_id, include_spans=False
        )
        assert len(traces) == 1
    assert written_at - back_at[0] < 20, "the new address was not taken soon"
    assert ended_at - back_at[0] < 40


@contextlib.contextmanager
def new_stopped(server: MLflowProcess) -> Iterator[None]:
    """It is stopped at the end, whichever test has started it."""
    try:
        yield
    finally:
        server.stop()
