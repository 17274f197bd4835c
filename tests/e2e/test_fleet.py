"""The small form of `make fleet`, run for real, cut short, and run where servers are missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.__main__ import why_not
from fleet.sizes import SMALL
from tests.e2e.clone import Clone, assert_ports_are_free, read_until
from tests.servers import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

needs_servers = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """The fleet, with nothing left of it afterwards."""
    copy = Clone(tmp_path / "a clone", "fleet", "fleet", "demo", "dags")
    yield copy
    copy.clean_up()


@pytest.mark.fleet
@needs_servers
def test_small_fleet_bears_every_fault(clone: Clone) -> None:
    """Every gate opens and nothing is lost, whatever dies while MLflow is down."""
    code, output = clone.run("--small")
    assert code == 0, output
    assert "Traceback" not in output
    assert re.search(r"VERDICT: all \d+ claims held", output)
    report = clone.report
    assert report["held"]
    assert all(claim["held"] for claim in report["claims"])
    runs = report["outage"]["runs"]
    assert len(runs) == SMALL.runs
    for run in runs:
        assert run["state"] == "success", run
        assert ["FINISHED", SMALL.metrics] in run["tracked"], run
        assert all(status != "RUNNING" for status, _ in run["tracked"]), run
    assert report["crowds"][0]["opened"] == SMALL.gates
    assert clone.leftovers() == []
    assert_ports_are_free(output)


@needs_servers
def test_interrupt_leaves_nothing_running(clone: Clone) -> None:
    """Ctrl-C while Airflow works: one clear line, exit 130, no process, no port, no traceback."""
    process = clone.start("--small")
    seen = read_until(process, "Airflow is running")
    assert len(clone.leftovers()) > 10
    clone.interrupt(process, seen)


@needs_servers
def test_killed_command_takes_its_servers_along(clone: Clone) -> None:
    """Not even SIGKILL to the command leaves a server behind."""
    process = clone.start("--small")
    seen = read_until(process, "Redis on")
    process.kill()
    rest, _ = process.communicate(timeout=60)
    wait_until(lambda: clone.leftovers() == [], 60, pause=0.1, told=lambda: f"{clone.leftovers()}")
    assert_ports_are_free(seen + rest)


def test_missing_servers_are_named(clone: Clone) -> None:
    """Without Redis the command says so, with the package to install, and starts nothing."""
    code, output = clone.run("--small", env={"PATH": str(clone.folder)})
    assert code == 2
    assert "redis-server" in output
    assert "Traceback" not in output
    assert clone.leftovers() == []
