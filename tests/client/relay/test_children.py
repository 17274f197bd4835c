"""Processes that know nothing of this package, on a real MLflow server, through outages."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client.relay import Relay, RelayLostDataError
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.client.relay import child
from tests.client.relay.conftest import OpenRelay
from tests.client.relay.support import API, NAME, asked
from tests.servers import MLflowProcess

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(300),
]

HERE = Path(__file__).parent
PATIENT = {"deadline": 120}


def clean(environment: dict[str, str]) -> dict[str, str]:
    """Without what this repository's tests put into the path."""
    return {k: v for k, v in environment.items() if k != "PYTHONPATH"}


def run_of(relay: Relay, run_id: str) -> dict[str, Any]:
    """What the server says of a run: status, steps by metric, artifacts, traces."""
    run = asked(relay, "GET", f"{API}/runs/get?run_id={run_id}")["run"]
    metrics = {}
    for key in ("later", "at_once"):
        path = f"{API}/metrics/get-history?run_id={run_id}&metric_key={key}"
        metrics[key] = len({m["step"] for m in asked(relay, "GET", path).get("metrics", ())})
    artifacts = asked(relay, "GET", f"{API}/artifacts/list?run_id={run_id}").get("files", [])
    experiment = {"mlflow_experiment": {"experiment_id": run["info"]["experiment_id"]}}
    traces = asked(relay, "POST", "/api/3.0/mlflow/traces/search", {
        "locations": [{"type": "MLFLOW_EXPERIMENT", **experiment}],
        "filter": f"attributes.run_id = '{run_id}'",
    }).get("traces", [])  # fmt: skip
    return {
        "status": run["info"]["status"],
        **metrics,
        "artifacts": {one["path"]: one.get("file_size") for one in artifacts},
        "traces": len(traces),
    }


ALL = {
    "status": "FINISHED",
    "later": 2 * child.METRICS,
    "at_once": 2 * child.METRICS,
    "artifacts": {"model.bin": 2**20},
    "traces": 1,
}

# --- the kinds of children


@contextlib.contextmanager
def a_subprocess(relay: Relay, folder: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, str(HERE / "child.py"), str(folder)],
        env=clean(relay.environment()), stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        yield
        assert process.wait(200) == 0


def a_process_of(method: str) -> Callable[..., Any]:
    @contextlib.contextmanager
    def started(relay: Relay, folder: Path) -> Iterator[None]:
        # multiprocessing takes the environment of its parent: the relay was opened with export.
        context: Any = multiprocessing.get_context(method)
        process = context.Process(target=child.train, args=(folder,))
        process.start()
        yield
        process.join(200)
        assert process.exitcode == 0

    return started


@contextlib.contextmanager
def ranks_of_a_launcher(relay: Relay, folder: Path) -> Iterator[None]:
    """As torchrun does it: a launcher starts its ranks, and the first of them logs."""
    launcher = (
        "import subprocess, sys, os\n"
        "training = [sys.executable, *sys.argv[1:]]\n"
        "ranks = [subprocess.Popen(training if rank == 0 else ['true'],"
        " env={**os.environ, 'RANK': str(rank)}) for rank in range(2)]\n"
        "sys.exit(max(rank.wait() for rank in ranks))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", launcher, str(HERE / "child.py"), str(folder)],
        env=clean(relay.environment()), stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        yield
        assert process.wait(200) == 0


@contextlib.contextmanager
def a_joblib_worker(relay: Relay, folder: Path) -> Iterator[None]:
    joblib = pytest.importorskip("joblib")
    results: list[str] = []

    def work() -> None:
        parallel = joblib.Parallel(n_jobs=2, backend="loky")
        results.extend(parallel(joblib.delayed(child.train_in)(str(f)) for f in [folder]))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(200)
    assert len(results) == 1


KINDS: dict[str, Callable[..., Any]] = {
    "subprocess": a_subprocess,
    "spawn": a_process_of("spawn"),
    "fork": a_process_of("fork"),
    "launcher": ranks_of_a_launcher,
    "joblib": a_joblib_worker,
}

# --- the outages


@contextlib.contextmanager
def no_such_name(dns: DNSServer, server: MLflowProcess) -> Iterator[None]:
    dns.remove(NAME)
    yield


@contextlib.contextmanager
def silent(dns: DNSServer, server: MLflowProcess) -> Iterator[None]:
    dns.silent(NAME)
    yield


@contextlib.contextmanager
def down(dns: DNSServer, server: MLflowProcess) -> Iterator[None]:
    """Killed, and started again at the same address a while after the child goes on."""
    server.stop(kill=True)
    starting = threading.Timer(5, server.start)
    starting.start()
    yield
    starting.join()


@contextlib.contextmanager
def redeployed(dns: DNSServer, server: MLflowProcess) -> Iterator[None]:
    """As ECS does it: name gone, server gone, a new one elsewhere, and then the name again."""
    dns.remove(NAME)
    server.stop(kill=True)
    new = MLflowProcess(server.folder, host="127.0.0.54", port=server.port)

    def start() -> None:
        new.start()
        dns.set_records(NAME, [new.host], ttl=1)

    starting = threading.Timer(2, start)
    starting.start()
    try:
        yield
    finally:
        starting.join()
        new.stop()


OUTAGES: dict[str, Callable[..., Any]] = {
    "no_such_name": no_such_name, "silent": silent, "down": down, "redeployed": redeployed,
}  # fmt: skip


def through(
    kind: str,
    outage: str,
    relay_to: OpenRelay,
    dns: DNSServer,
    server: MLflowProcess,
    folder: Path,
) -> dict[str, Any]:
    """One child through one outage, and what arrived."""
    export = kind in ("spawn", "fork", "joblib")
    with (
        contextlib.ExitStack() as outages,
        relay_to(server, changes=PATIENT, export=export) as relay,
    ):
        half = folder / "half"
        with KINDS[kind](relay, folder):
            wait_for(half)
            outages.enter_context(OUTAGES[outage](dns, server))
            time.sleep(2.5)  # idle connections are closed: the name is needed again
            (folder / "go").touch()
        return run_of(relay, half.read_text())


def wait_for(file: Path) -> None:
    end = time.monotonic() + 100
    while not file.exists() or not file.read_text():
        assert time.monotonic() < end, f"no {file.name} of the child"
        time.sleep(0.02)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MLflowProcess]:
    """A server that a test may take away."""
    with MLflowProcess(tmp_path / "mlflow", host="127.0.0.53") as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_of_any_kind_loses_nothing_while_the_name_is_gone(
    relay_to: OpenRelay, dns: DNSServer, mlflow_server: MLflowProcess, tmp_path: Path, kind: str
) -> None:
    """Metrics of both kinds, an artifact and a trace; and its run is FINISHED."""
    assert through(kind, "no_such_name", relay_to, dns, mlflow_server, tmp_path) == ALL


@pytest.mark.parametrize("outage", ["silent", "down", "redeployed"])
def test_a_child_loses_nothing_in_any_outage(
    relay_to: OpenRelay, dns: DNSServer, own_server: MLflowProcess, tmp_path: Path, outage: str
) -> None:
    """Also where MLflow itself is away for a while, or is elsewhere when it is back."""
    folder = tmp_path / "child"
    folder.mkdir()
    assert through("subprocess", outage, relay_to, dns, own_server, folder) == ALL


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_a_script_with_curl_needs_the_variables_only(
    relay_to: OpenRelay, mlflow_server: MLflowProcess
) -> None:
    """No Python at all: the token is a bearer, the URI a prefix."""
    with relay_to(mlflow_server) as relay:
        done = subprocess.run(
            ["bash", str(HERE / "child.sh")], env=relay.environment(), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        run = asked(relay, "GET", f"{API}/runs/get?run_id={done.stdout.strip()}")["run"]
    assert run["info"]["status"] == "FINISHED"
    assert run["data"]["params"] == [{"key": "a", "value": "b"}]


def test_a_child_that_is_killed_leaves_no_run_running(
    relay_to: OpenRelay, mlflow_server: MLflowProcess, tmp_path: Path
) -> None:
    """FAILED, although the parent does not care how its child ended."""
    with relay_to(mlflow_server) as relay, subprocess.Popen(
        [sys.executable, str(HERE / "child.py"), str(tmp_path)], env=clean(relay.environment()),
    ) as process:  # fmt: skip
        wait_for(tmp_path / "half")
        process.kill()
    with relay_to(mlflow_server) as relay:
        found = run_of(relay, (tmp_path / "half").read_text())
    assert (found["status"], found["later"]) == ("FAILED", child.METRICS)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_block_that_raises_ends_the_runs_of_its_clients(
    relay_to: OpenRelay, mlflow_server: MLflowProcess, error: type[BaseException], status: str
) -> None:
    """And its own exception comes out."""
    with pytest.raises(error), relay_to(mlflow_server) as relay:  # noqa: PT012
        run = asked(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"})["run"]
        raise error
    with relay_to(mlflow_server) as relay:
        assert run_of(relay, run["info"]["run_id"])["status"] == status


def test_a_task_that_is_told_to_stop_ends_its_childrens_runs_as_killed(
    mlflow_server: MLflowProcess, dns: DNSServer, tmp_path: Path
) -> None:
    """SIGTERM as Airflow sends it: within the five seconds that it leaves."""
    dns.set_records(NAME, [mlflow_server.host], ttl=60)
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.client.relay.parent", dns.address, str(mlflow_server.port),
         str(tmp_path)],
        cwd=HERE.parents[2],
    )  # fmt: skip
    try:
        wait_for(tmp_path / "half")
        began = time.monotonic()
        parent.send_signal(signal.SIGTERM)
        parent.wait(10)
        assert time.monotonic() - began < 5
    finally:
        parent.kill()
        parent.wait()
        (tmp_path / "go").touch()
    import urllib.request

    url = f"{mlflow_server.uri}{API}/runs/get?run_id={(tmp_path / 'half').read_text()}"
    with urllib.request.urlopen(url) as answer:
        assert json.load(answer)["run"]["info"]["status"] == "KILLED"


def test_what_a_killed_parent_left_is_ended_by_the_next_try(
    relay_to: OpenRelay, mlflow_server: MLflowProcess
) -> None:
    """In whatever experiment, by the task's tags; those of another task go on."""
    task = {
        "airflow.dag_id": "d", "airflow.task_id": "it's", "airflow.run_id": "r",
        "airflow.map_index": "-1",
    }  # fmt: skip
    with relay_to(mlflow_server) as relay:
        experiment = asked(relay, "POST", f"{API}/experiments/create", {"name": "of a killed"})
        tagged = [{"key": k, "value": v} for k, v in {**task, "airflow.try_number": "1"}.items()]
        others = [one | {"value": "other"} if "dag" in one["key"] else one for one in tagged]
        ids = []
        for tags in (tagged, others):
            body = {**experiment, "tags": tags}
            ids.append(asked(relay, "POST", f"{API}/runs/create", body)["run"]["info"]["run_id"])
        relay._forwarder.runs.open.clear()  # as if it had been killed
    with relay_to(mlflow_server, run_tags={**task, "airflow.try_number": "2"}):
        pass
    with relay_to(mlflow_server) as relay:
        assert [run_of(relay, one)["status"] for one in ids] == ["KILLED", "RUNNING"]


def test_what_did_not_arrive_is_named_although_the_child_swallowed_it(
    relay_to: OpenRelay, dns: DNSServer, mlflow_server: MLflowProcess, tmp_path: Path
) -> None:
    """The asynchronous metric of a child that ends with 0."""
    script = (
        "import mlflow, sys, pathlib, time\n"
        "run = mlflow.start_run()\n"
        "(pathlib.Path(sys.argv[1]) / 'half').write_text(run.info.run_id)\n"
        "time.sleep(3)\n"
        "try: mlflow.log_metric('m', 1)\n"
        "except Exception as error: print(error)\n"
        "import os; os._exit(0)\n"
    )
    with (  # noqa: PT012
        pytest.raises(RelayLostDataError, match=r"1 call of runs/log-metric .*given up") as error,
        relay_to(mlflow_server, changes={"deadline": 3, "max_stale": 0}) as relay,
    ):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], env=clean(relay.environment()),
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            wait_for(tmp_path / "half")
            mlflow_server_is_away(dns)
            assert "did not reach" in (process.communicate()[0])
        assert process.returncode == 0
    assert error.value.run_id == (tmp_path / "half").read_text()


def mlflow_server_is_away(dns: DNSServer) -> None:
    """Its name leads to where nothing listens."""
    dns.set_records(NAME, ["127.0.0.55"], ttl=60)


def test_a_childs_run_joins_the_open_one(
    relay_to: OpenRelay, mlflow_server: MLflowProcess, tmp_path: Path
) -> None:
    """By MLFLOW_RUN_ID; and the process that opened it ends it."""
    with relay_to(mlflow_server) as relay:
        parent = asked(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"})["run"]["info"]
        script = "import mlflow\nwith mlflow.start_run() as r: mlflow.log_param('of', 'a child')"
        with relay_to(
            mlflow_server, run_id=parent["run_id"], experiment_id=parent["experiment_id"]
        ) as inner:
            environment = clean(inner.environment())
            subprocess.run([sys.executable, "-c", script], env=environment, check=True)
            inner_runs = inner._forwarder.runs.open
        run = asked(relay, "GET", f"{API}/runs/get?run_id={parent['run_id']}")["run"]
    assert run["data"]["params"] == [{"key": "of", "value": "a child"}]
    assert inner_runs == {}


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_a_long_upload_by_curl_asks_before_it_sends(
    relay_to: OpenRelay, mlflow_server: MLflowProcess, tmp_path: Path
) -> None:
    """``Expect: 100-continue`` is answered."""
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    with relay_to(mlflow_server) as relay:
        info = asked(relay, "POST", f"{API}/runs/create", {"experiment_id": "0"})["run"]["info"]
        path = f"/api/2.0/mlflow-artifacts/artifacts/0/{info['run_id']}/artifacts/file"
        began = time.monotonic()
        subprocess.run(
            ["bash", "-c", 'curl -sS --fail-with-body -T "$1" -H "Expect: 100-continue" '
             '-u "relay:$MLFLOW_TRACKING_PASSWORD" "$MLFLOW_TRACKING_URI$2"', "-",
             str(tmp_path / "file"), path],
            env=relay.environment(), check=True,
        )  # fmt: skip
        assert time.monotonic() - began < 10
        assert run_of(relay, info["run_id"])["artifacts"] == {"file": 3_000_000}
