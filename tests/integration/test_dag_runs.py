"""DAG runs with Airflow's own machinery: modes of the gate, XComs, Variables, tries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_hokusai_dns.store.history import parse_history
from airflow_provider_hokusai_dns.store.record import parse_record
from tests.airflow_home import migrate
from tests.conftest import HOSTNAME
from tests.servers import MLflowProcess, free_port

HERE = Path(__file__).parent
SECRET = "hunter2-password"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """All scenarios, run once in a process of its own; with its log beside."""
    home = tmp_path_factory.mktemp("airflow")
    port = free_port("127.0.0.8")
    bundles = [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(path)},
        }
        for name, path in (("repository", HERE.parents[1] / "dags"), ("gates", HERE / "gate_dags"))
    ]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        "PYTHONPATH": str(HERE.parents[1]),
    }
    migrate(environment)
    out, log = home / "seen.json", home / "log.txt"
    with (
        MLflowProcess(
            tmp_path_factory.mktemp("mlflow"),
            host="127.0.0.8",
            port=port,
            allowed_hosts=[f"{HOSTNAME}:{port}"],
        ),
        log.open("wb") as stream,
    ):
        done = subprocess.run(
            [sys.executable, str(HERE / "scenarios.py"), str(port), str(out)],
            env=environment, stdout=stream, stderr=subprocess.STDOUT, timeout=350,
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-5000:]
    return {**json.loads(out.read_text()), "log": log.read_text(errors="replace")}


def scenario(seen, name):
    assert "error" not in seen[name], seen[name]["error"]
    return seen[name]


def record_of(text):
    return parse_record(HOSTNAME, text, now=time.time())


class TestRefresh:
    """The admin's DAG."""

    def test_writes_the_last_known_good(self, seen):
        """JSON that an admin can read, under the name."""
        one = scenario(seen, "refresh")
        assert (one["state"], one["before"]) == ("success", None)
        record = record_of(one["variable"])
        assert (record.addresses, record.written_by) == (("127.0.0.8",), "refresh")
        assert '\n  "addresses"' in one["variable"]

    def test_writes_a_point_of_the_history(self, seen):
        """With a look at the real MLflow, for the status page."""
        known = parse_history(HOSTNAME, scenario(seen, "refresh")["history"], now=time.time())
        (point,) = known.points
        assert (point["state"], point["probe"]) == ("resolved", "healthy")
        assert point["probe_ms"] > 0

    def test_publishes_every_xcom(self, seen):
        """resolutions, metrics, health, changes, and all of it."""
        xcoms = scenario(seen, "refresh")["xcoms"]
        keys = {"return_value", "resolutions", "metrics", "health", "changes"}
        assert xcoms.keys() == {f"refresh.{key}" for key in keys}
        assert xcoms["refresh.changes"] == [
            {"hostname": HOSTNAME, "old": [], "new": ["127.0.0.8"], "away_seconds": None}
        ]

    def test_says_how_long_the_name_was_away(self, seen):
        """The training without a name told the fleet since when it was gone."""
        (change,) = scenario(seen, "refresh_after_the_outage")["xcoms"]["refresh.changes"]
        assert change["away_seconds"] > 0
        record = record_of(seen["refresh_after_the_outage"]["variable"])
        assert record.no_name_since is None

    def test_fails_on_a_bad_name_after_everything_was_published(self, seen):
        """With the templated hostnames of the run's conf."""
        one = scenario(seen, "bad_name")
        assert one["state"] == "failed"
        good, gone = one["xcoms"]["refresh.resolutions"]
        assert (good["health"], gone["health"]) == ("healthy", "unhealthy")
        assert one["xcoms"]["refresh.return_value"]["health"]["status"] == "unhealthy"


class TestTraining:
    """The example that users copy."""

    def test_runs_while_all_is_well(self, seen):
        """Gate, training, registered model, summary."""
        one = scenario(seen, "training")
        assert one["tasks"] == dict.fromkeys(("gate", "train", "summary"), "success")
        summary = one["xcoms"]["summary.return_value"]
        assert summary["gate"]["level"] == "healthy"
        assert summary["trained"]["model_version"] == "1"

    def test_leaves_the_url_of_its_run_behind(self, seen):
        """For the button on its page: the run by its hostname, and without a login."""
        xcoms = scenario(seen, "training")["xcoms"]
        url = xcoms["train._link_MLflowRunLink"]
        assert url.startswith(f"http://{HOSTNAME}:")
        assert "/#/experiments/" in url
        assert url.endswith(f"/runs/{xcoms['train.return_value']['run_id']}")
        assert not {"gate._link_MLflowRunLink", "summary._link_MLflowRunLink"} & xcoms.keys()

    def test_runs_in_fresh_processes_while_the_name_is_gone(self, seen):
        """On the shared Variable; the gate says so."""
        one = scenario(seen, "training_without_a_name")
        assert one["tasks"] == dict.fromkeys(("gate", "train", "summary"), "success")
        gate = one["xcoms"]["gate.return_value"]
        assert (gate["level"], gate["address_source"]) == ("degraded", "store")
        assert gate["dns_cause"] == "nxdomain"
        assert one["xcoms"]["train.return_value"]["model_version"] == "2"
        assert record_of(one["variable"]).no_name_since is not None


class TestTheGate:
    """Every mode."""

    @pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
    def test_opens_with_the_verdict_as_xcom(self, seen, mode):
        """The same dict in every mode."""
        one = scenario(seen, f"gate_{mode}")
        assert one["state"] == "success"
        assert one["xcoms"]["gate.return_value"]["level"] == "healthy"

    @pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
    def test_waits_for_a_name_that_comes_late(self, seen, mode):
        """And opens by itself."""
        one = scenario(seen, "gates_that_wait")[mode]
        assert one["state"] == "success"
        assert one["xcoms"]["gate.return_value"]["address"] == "127.0.0.8"

    def test_gives_up_in_reschedule_mode_too(self, seen):
        """The count of a hopeless cause survives between pokes; each cleared the XComs."""
        one = scenario(seen, "gate_missing")
        assert one["tasks"] == {"gate": "failed"}
        verdict = one["xcoms"]["gate.return_value"]
        assert (verdict["state"], "nowhere" in verdict["sentence"]) == ("config", True)
        assert seen["log"].count("Check 2 of 3") >= 1

    def test_skips_softly_in_deferrable_mode(self, seen):
        """The author said that this task may be left out; the rest of the DAG goes on."""
        assert scenario(seen, "gate_missing_soft")["tasks"] == {"gate": "skipped"}

    def test_tells_a_summary_why_it_stayed_shut(self, seen):
        """Through the XCom that it pushes before it fails."""
        one = scenario(seen, "shut_gate")
        assert one["tasks"] == {"gate": "failed", "say": "success"}
        assert "nowhere" in one["xcoms"]["say.return_value"]


def test_a_variable_edited_into_nonsense_harms_nobody(seen):
    """The gate passes it over and leaves it; the refresh repairs it and puts the text aside."""
    one = scenario(seen, "broken_variable")
    assert one["gate"]["state"] == one["refresh"]["state"] == "success"
    assert one["after_gate"] == one["aside"] == "{edited into nonsense"
    assert record_of(one["after_refresh"]).addresses == ("127.0.0.8",)
    assert "not valid JSON" in seen["log"]


def test_a_run_that_was_left_running_is_ended_by_the_next_try(seen):
    """Found by its tags: dag, task, run, map index and try."""
    one = scenario(seen, "tried_again")
    assert one["state"] == "success"
    by_try = {run["tags"]["airflow.try_number"]: run for run in one["runs"]}
    assert {number: run["status"] for number, run in by_try.items()} == {
        "1": "KILLED",
        "2": "FINISHED",
    }
    tags = by_try["2"]["tags"]
    assert (tags["airflow.dag_id"], tags["airflow.task_id"]) == ("killed_and_tried_again", "train")
    assert tags["airflow.run_id"] == one["id"]
    assert tags["airflow.map_index"] == "-1"
    assert "/dags/killed_and_tried_again/" in tags["airflow.url"]


def test_the_store_does_not_disturb_what_the_task_says_to_airflow(seen):
    """Airflow's connection under ``dag.test()`` has no lock: ours does not go through it."""
    one = scenario(seen, "xcoms_beside_the_store")
    assert one["state"] == "success"
    assert one["xcoms"]["talk.return_value"] == 99


def test_no_secret_is_in_the_log_or_in_an_xcom(seen):
    """Of all the runs above."""
    assert SECRET not in seen["log"]
    assert SECRET not in json.dumps({k: v for k, v in seen.items() if k != "log"})
