"""Operators without code of ours, and the retry policy, in a real Airflow with its scheduler."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.client.relay.kinds import arrived
from tests.client.relay.support import API, NAME
from tests.page.real_airflow import RealAirflow
from tests.servers import MLflowProcess, is_installed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not shutil.which("curl"), reason="needs curl"),
    pytest.mark.skipif(not is_installed(), reason="Airflow finds us by our entry points alone"),
]

HERE = Path(__file__).parent
AWAY, REFUSED = "away.test", "refused.test"
PATIENCE = 400.0
DAGS = (
    "bash_operator", "bash_that_dies", "task_bash", "external_python", "virtualenv", "in_a_run",
    "without_a_run",
)  # fmt: skip


@dataclass
class Stage:
    """Airflow, MLflow and the names."""

    airflow: RealAirflow
    mlflow: MLflowProcess
    dns: DNSServer
    folder: Path

    def trigger(self, dag: str) -> str:
        body: dict[str, Any] = {"logical_date": None}
        return str(self.airflow.ask("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"])

    def task(self, dag: str, run: str, task: str = "t") -> dict[str, Any]:
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}"
        return dict(self.airflow.ask("GET", path))

    def ended(self, dag: str, run: str, task: str = "t") -> dict[str, Any]:
        return self.until(
            lambda: self.task(dag, run, task),
            lambda found: found["state"] in ("success", "failed", "upstream_failed"),
        )

    def until(self, look: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
        end = time.monotonic() + PATIENCE
        while not good(found := look()):
            assert time.monotonic() < end, f"{found}\n{self.airflow.log('scheduler')}"
            time.sleep(0.5)
        return found

    def result(self, dag: str, run: str) -> str:
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/t/xcomEntries/return_value"
        return str(self.airflow.ask("GET", path)["value"]).strip('"')

    def logs(self, dag: str, run: str, task: str = "t", number: int = 1) -> str:
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{number}"
        return json.dumps(self.airflow.ask("GET", path))

    def runs(self, condition: str) -> list[dict[str, Any]]:
        """What MLflow says, asked by its address."""
        body = json.dumps({"experiment_ids": ["0"], "filter": condition}).encode()
        request = urllib.request.Request(
            f"{self.mlflow.uri}{API}/runs/search", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return list(json.load(answer).get("runs", []))

    def run(self, run_id: str) -> dict[str, Any]:
        url = f"{self.mlflow.uri}{API}/runs/get?run_id={run_id}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return dict(json.load(answer)["run"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("relayed")
    python = folder / "python"
    wanted = f"mlflow-skinny=={_mlflow_version()}"
    for command in (
        ["venv", "-q", "--python", sys.executable, str(python)],
        ["pip", "install", "-q", "--python", str(python / "bin" / "python"), wanted],
    ):
        made = subprocess.run(
            [sys.executable, "-m", "uv", *command], capture_output=True, text=True, check=False
        )
        if made.returncode:
            pytest.skip(f"no environment with {wanted} can be made here: {made.stderr[-300:]}")
    with (
        DNSServer() as dns,
        MLflowProcess(
            folder / "mlflow",
            host="127.0.0.56",
            allowed_hosts=(f"{NAME}:*", f"{AWAY}:*", "127.0.0.56:*"),
        ) as mlflow,
    ):
        dns.set_records(NAME, [mlflow.host], ttl=5)
        dns.set_records(REFUSED, [mlflow.host], ttl=5)
        dns.set_records(AWAY, ["127.0.0.57"], ttl=1)  # nothing listens there

        def connection(host: str, **extra: Any) -> str:
            given = {"nameservers": dns.address, "deadline": 60, "request_timeout": 5, **extra}
            return json.dumps({
                "conn_type": "mlflow", "host": host, "port": mlflow.port, "extra": given,
            })  # fmt: skip

        settings = {
            "AIRFLOW_CONN_MLFLOW_DEFAULT": connection(NAME),
            "AIRFLOW_CONN_MLFLOW_REFUSED": connection(REFUSED),
            "AIRFLOW_CONN_MLFLOW_AWAY": connection(AWAY),
            "AIRFLOW__CORE__PARALLELISM": "3",
            "RELAY_TEST_SCRIPT": str(HERE / "child.sh"),
            "RELAY_TEST_PYTHON": str(python / "bin" / "python"),
            "RELAY_TEST_FOLDER": str(folder),
        }
        home = folder / "airflow"
        home.mkdir()
        airflow = RealAirflow(home, settings)
        shutil.copy(HERE / "dags" / "relayed.py", home / "dags" / "relayed.py")
        with airflow:
            there = Stage(airflow, mlflow, dns, folder)
            there.until(
                lambda: {d["dag_id"] for d in airflow.ask("GET", "/api/v2/dags")["dags"]},
                lambda dags: {*DAGS, "killed", "outage", "policy"} <= dags,
            )
            yield there


def _mlflow_version() -> str:
    import importlib.metadata

    return importlib.metadata.version("mlflow-skinny")


@pytest.fixture(scope="module")
def triggered(stage: Stage) -> dict[str, str]:
    """All DAGs at once: they share the time that a start takes."""
    return {dag: stage.trigger(dag) for dag in DAGS}


@pytest.mark.parametrize("dag", ["bash_operator", "task_bash", "external_python", "virtualenv"])
def test_an_operator_gives_mlflow_to_its_processes_with_one_argument(
    stage: Stage, triggered: dict[str, str], dag: str
) -> None:
    """The run is FINISHED, carries the task's tags, and what was logged is there."""
    run = triggered[dag]
    assert stage.ended(dag, run)["state"] == "success", stage.logs(dag, run)[-3000:]
    found = stage.run(stage.result(dag, run))
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert found["info"]["status"] == "FINISHED"
    assert len(found["data"]["params"]) == 1
    assert (tags["airflow.dag_id"], tags["airflow.task_id"]) == (dag, "t")
    assert tags["airflow.try_number"] == "1"


def test_processes_of_operators_lose_nothing_while_the_name_is_gone(stage: Stage) -> None:
    """``@task.external_python`` and ``@task.virtualenv``, in the middle of what they log."""
    folders = {name: stage.folder / name for name in ("external", "virtual")}
    for folder in folders.values():
        folder.mkdir()
    run = stage.trigger("outage")
    for folder in folders.values():
        stage.until((folder / "half").exists, bool)
    stage.dns.remove(NAME)
    try:
        time.sleep(2.5)  # idle connections are closed: the name is needed again
        for folder in folders.values():
            (folder / "go").touch()
        for name in folders:
            assert stage.ended("outage", run, name)["state"] == "success", name
    finally:
        stage.dns.set_records(NAME, [stage.mlflow.host], ttl=5)
    for folder in folders.values():
        found = arrived(stage.mlflow, (folder / "half").read_text())
        assert (found["status"], found["later"], found["at_once"]) == ("FINISHED", 40, 40)
        assert list(found["artifacts"]) == ["note.txt"]


def test_a_script_that_dies_leaves_no_run_running(stage: Stage, triggered: dict[str, str]) -> None:
    """The task has failed, and so has the run that its process had begun."""
    dag, run = "bash_that_dies", triggered["bash_that_dies"]
    assert stage.ended(dag, run)["state"] == "failed"
    condition = f"tags.begun_by = '{dag}'"
    (found,) = stage.until(
        lambda: stage.runs(condition), lambda runs: runs[0]["info"]["status"] != "RUNNING"
    )
    assert found["info"]["status"] == "FAILED"


def test_a_child_of_an_open_run_joins_it(stage: Stage, triggered: dict[str, str]) -> None:
    """Without anything in the child's code."""
    dag, run = "in_a_run", triggered["in_a_run"]
    assert stage.ended(dag, run)["state"] == "success", stage.logs(dag, run)[-3000:]
    found = stage.run(stage.result(dag, run))
    assert found["info"]["status"] == "FINISHED"
    assert found["data"]["params"] == [{"key": "of", "value": "a child"}]


def test_a_model_is_loaded_and_runs_are_searched_without_a_run(
    stage: Stage, triggered: dict[str, str]
) -> None:
    """By ``hook.fluent()``; what the task has logged before is found."""
    dag, run = "without_a_run", triggered["without_a_run"]
    assert stage.ended(dag, run)["state"] == "success", stage.logs(dag, run)[-3000:]
    assert stage.run(stage.result(dag, run))["info"]["status"] == "FINISHED"


def test_a_relays_token_is_masked_in_a_task_log(stage: Stage, triggered: dict[str, str]) -> None:
    """Where a process prints it."""
    dag, run = "bash_that_dies", triggered["bash_that_dies"]
    stage.ended(dag, run)
    assert "token: ***" in stage.logs(dag, run)


def test_a_task_that_is_marked_failed_ends_its_childrens_runs(stage: Stage) -> None:
    """SIGTERM, and five seconds."""
    run = stage.trigger("killed")
    condition = "tags.begun_by = 'killed'"
    stage.until(lambda: stage.runs(condition), bool)
    path = f"/api/v2/dags/killed/dagRuns/{run}/taskInstances/t"
    stage.airflow.ask("PATCH", path, {"new_state": "failed"})
    (found,) = stage.until(
        lambda: stage.runs(condition), lambda runs: runs[0]["info"]["status"] != "RUNNING"
    )
    assert found["info"]["status"] == "KILLED"


def test_the_retry_policy_judges_by_the_state_of_mlflow(stage: Stage) -> None:
    """Away: again later. Wrong: failed at once, with what to do. Else: as the task says."""
    run = stage.trigger("policy")
    stage.until(
        lambda: stage.task("policy", run, "away_once"), lambda t: t["state"] == "up_for_retry"
    )
    stage.dns.set_records(AWAY, [stage.mlflow.host], ttl=1)
    seen = {
        task: stage.ended("policy", run, task)
        for task in ("away_once", "unknown_run", "refused_host", "own_error")
    }
    states = {task: (one["state"], one["try_number"]) for task, one in seen.items()}
    tries = (stage.folder / "tries").read_text().split()
    assert states["away_once"][0] == "success"
    assert states["away_once"][1] >= 2
    assert states["unknown_run"] == ("failed", 1), stage.logs("policy", run, "unknown_run")[-4000:]
    assert states["refused_host"] == ("failed", 1), stage.logs("policy", run, "refused_host")[
        -4000:
    ]
    assert states["own_error"] == ("failed", 2)
    assert tries.count("unknown_run") == tries.count("refused_host") == 1
    assert "--allowed-hosts" in stage.logs("policy", run, "refused_host")
    assert "cannot be reached" in stage.logs("policy", run, "away_once")
