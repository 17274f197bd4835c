"""Processes that know nothing of this package, on a real MLflow server, through outages."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_hokusai_dns import pins
from airflow_provider_hokusai_dns.client.relay import RelayLostDataError, open_relay
from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.client.relay import child, kinds
from tests.client.relay.conftest import OpenRelay
from tests.client.relay.kinds import arrived, clean, direct
from tests.client.relay.support import API, NAME, a_server, asked
from tests.servers import MLflowProcess, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(600),
]

HERE = Path(__file__).parent


class _Names:
    """The name ``mlflow.test`` in a test's nameserver."""

    def __init__(self, dns: DNSServer) -> None:
        self._dns = dns

    def answer(self, address: str) -> None:
        self._dns.set_records(NAME, [address], ttl=1)

    def gone(self) -> None:
        self._dns.remove(NAME)

    def silent(self) -> None:
        self._dns.silent(NAME)


KINDS = kinds.kinds()
Outcomes = dict[str, kinds.Outcome]


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """What of the children of all kinds has arrived after an outage; each outage is made once."""

    @functools.cache
    def made(outage: str) -> Outcomes:
        folder = tmp_path_factory.mktemp(outage)
        with DNSServer() as dns, MLflowProcess(folder / "mlflow", host="127.0.0.53") as server:
            dns.set_records(NAME, [server.host], ttl=1)
            config = ResolverConfig(
                nameservers=(dns.address,), min_ttl=0.2, timeout=1.0, stale_after=0.2,
                no_name_recheck=0.2,
            )  # fmt: skip
            there = a_server(port=server.port, deadline=180)
            addresses = pins.relay_addresses(there, DNSResolver(config))
            with open_relay(there, addresses, export=True) as relay:
                environment = clean(relay.environment())
                children = {name: (kind, environment) for name, kind in KINDS.items()}
                return kinds.through(outage, _Names(dns), server, children, folder, seconds=3)

    return made


@pytest.mark.parametrize("outage", kinds.OUTAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_child_of_any_kind_loses_nothing_in_any_outage(
    through: Callable[[str], Outcomes], kind: str, outage: str
) -> None:
    """Metrics of both kinds, an artifact, a trace, and the run's end, without this package."""
    outcome = through(outage)[kind]
    assert (outcome.arrived, outcome.error) == (kinds.everything(kind), "")


def wait_for(file: Path) -> None:
    wait_until(lambda: file.exists() and file.read_text(), 100, told=lambda: f"no {file.name}")


def test_a_child_that_is_killed_leaves_no_run_running(
    relay_to: OpenRelay, mlflow_server: MLflowProcess, tmp_path: Path
) -> None:
    """FAILED, although the parent does not care how its child ended."""
    with relay_to(mlflow_server) as relay, subprocess.Popen(
        [sys.executable, str(HERE / "child.py"), str(tmp_path)], env=clean(relay.environment()),
    ) as process:  # fmt: skip
        wait_for(tmp_path / "half")
        process.kill()
    found = arrived(mlflow_server, (tmp_path / "half").read_text())
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
    assert arrived(mlflow_server, run["info"]["run_id"])["status"] == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_a_task_that_is_told_to_stop_ends_its_childrens_runs_as_killed(
    mlflow_server: MLflowProcess, dns: DNSServer, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGTERM as Airflow sends it, and ctrl-C: within the five seconds that Airflow leaves."""
    dns.set_records(NAME, [mlflow_server.host], ttl=60)
    with _a_parent(dns, mlflow_server, tmp_path) as parent:
        wait_for(tmp_path / "half")
        began = time.monotonic()
        parent.send_signal(number)
        parent.wait(10)
        assert time.monotonic() - began < 5
    assert arrived(mlflow_server, (tmp_path / "half").read_text())["status"] == "KILLED"


@pytest.mark.parametrize(
    "again", [{"airflow.try_number": "2"}, {"airflow.reschedule_count": "1"}], ids=str
)
def test_what_a_killed_parent_left_is_ended_by_the_next_attempt(
    relay_to: OpenRelay,
    mlflow_server: MLflowProcess,
    dns: DNSServer,
    tmp_path: Path,
    again: dict[str, str],
) -> None:
    """In whatever experiment, by the task's tags; those of another task go on."""
    task = {
        "airflow.dag_id": "d", "airflow.task_id": "it's", "airflow.run_id": str(again),
        "airflow.map_index": "-1", "airflow.try_number": "1",
    }  # fmt: skip
    dns.set_records(NAME, [mlflow_server.host], ttl=60)
    other = {**task, "airflow.dag_id": "other"}
    tags = [{"key": key, "value": value} for key, value in other.items()]
    made = direct(mlflow_server, "POST", f"{API}/runs/create", {"experiment_id": "0", "tags": tags})
    with _a_parent(dns, mlflow_server, tmp_path, json.dumps(task)) as parent:
        wait_for(tmp_path / "half")
        parent.kill()
        parent.wait()
    ids = [(tmp_path / "half").read_text(), made["run"]["info"]["run_id"]]
    assert [arrived(mlflow_server, one)["status"] for one in ids] == ["RUNNING"] * 2
    with relay_to(mlflow_server, run_tags={**task, **again}):
        pass
    assert [arrived(mlflow_server, one)["status"] for one in ids] == ["KILLED", "RUNNING"]


@contextlib.contextmanager
def _a_parent(
    dns: DNSServer, server: MLflowProcess, folder: Path, *tags: str
) -> Iterator[subprocess.Popen[bytes]]:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.client.relay.parent", dns.address, str(server.port),
         str(folder), *tags],
        cwd=HERE.parents[2],
    )  # fmt: skip
    try:
        yield parent
    finally:
        parent.kill()
        parent.wait()
        (folder / "go").touch()


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
        assert arrived(mlflow_server, info["run_id"])["artifacts"] == {"file": 3_000_000}
