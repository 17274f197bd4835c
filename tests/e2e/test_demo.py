"""The story of `make demo`, told for real, cut short, and told where things are in the way."""

from __future__ import annotations

import fcntl
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clone import REPOSITORY, Clone, accepts, assert_ports_are_free, read_until

OURS = ("healthy", "name-gone", "dns-silent", "redeploy", "triggered-in-gap", "steady-again")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Clone]:
    """The demo, with nothing left of it afterwards."""
    copy = Clone(tmp_path / "a clone", "demo", "demo", "dags")
    yield copy
    copy.clean_up()


@pytest.fixture
def private() -> None:
    """Skip where the system allows no namespaces, with its reason."""
    if (reason := _why_not()) is not None:
        pytest.skip(f"no private namespaces here: {reason}")


def test_story_holds_under_a_real_outage(demo: Clone, private: None) -> None:
    """Every claim holds in private namespaces, where the system's own resolver is out."""
    code, output = demo.run()
    _assert_story_held(code, output, demo)
    assert demo.report["private_namespaces"] is True
    assert "STAND-IN" not in output


def test_story_holds_with_the_stand_in(demo: Clone) -> None:
    """Every claim holds without namespaces, on free ports, and the output says it is a stand-in."""
    code, output = demo.run("--no-namespace")
    _assert_story_held(code, output, demo)
    assert demo.report["private_namespaces"] is False
    assert "STAND-IN" in output
    assert "STAND-IN" in demo.report["outage"]
    assert_ports_are_free(output)


@pytest.mark.parametrize("arguments", [[], ["--no-namespace"]], ids=["namespace", "stand-in"])
def test_interrupt_leaves_nothing_running(
    demo: Clone, arguments: list[str], request: pytest.FixtureRequest
) -> None:
    """Ctrl-C while a DAG run is under way: one clear line, exit 130, no process, no traceback."""
    if not arguments:
        request.getfixturevalue("private")
    process = demo.start(*arguments)
    seen = read_until(process, "triggered hokusai_dns_refresh")
    assert len(demo.leftovers()) > 5
    demo.interrupt(process, seen)


def test_broken_dag_ends_the_story_with_its_reason(demo: Clone, private: None) -> None:
    """A step that fails says why in a sentence, and takes everything down."""
    broken = demo.folder / "dags" / "hokusai_dns_refresh.py"
    broken.write_text(broken.read_text() + "raise RuntimeError('the reason is written')\n")
    code, output = demo.run()
    assert code == 2, output
    assert "Stopped: " in output
    assert broken.name in output
    assert "the reason is written" in output
    assert "Traceback" not in output
    assert demo.leftovers() == []


def test_second_demo_in_the_same_folder_is_refused(demo: Clone) -> None:
    """Two at once would write into the same files: the second says so and touches nothing."""
    home = demo.home
    home.mkdir()
    with (home / "story.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, output = demo.run()
    assert code == 2
    assert "Another demo is running" in output
    assert "Traceback" not in output


def test_folder_that_cannot_be_emptied_is_named(demo: Clone) -> None:
    """What is in the way is named, instead of a traceback."""
    home = demo.home
    home.mkdir()
    (home / "story").write_text("a file where the folder should be")
    code, output = demo.run()
    assert code == 2
    assert str(home / "story") in output
    assert "Traceback" not in output


def test_up_takes_free_ports_and_down_ends_it(demo: Clone) -> None:
    """With 8080 and 5000 taken, up takes others, twice is once, and down leaves nothing."""
    with _listening(8080), _listening(5000):
        code, output = demo.run("up")
    assert code == 0, output
    doors = json.loads((demo.home / "up.json").read_text())["doors"]
    assert not doors["airflow"].endswith(":8080")
    assert not doors["mlflow"].endswith(":5000")
    assert doors["airflow"] in output
    health = json.loads(_get(f"{doors['airflow']}/hokusai-dns/health"))
    assert health["dns"] == "healthy"
    assert "<html" in _get(doors["mlflow"]).lower()

    again, repeated = demo.run("up")
    assert again == 0
    assert "already" in repeated
    assert demo.run("dns", "gone")[0] == 0

    down, output = demo.run("down")
    assert down == 0, output
    assert demo.leftovers() == []
    for door in doors.values():
        assert not accepts("127.0.0.1", int(door.rpartition(":")[2]))
    assert demo.run("down")[0] == 0
    assert demo.run("dns", "gone")[0] == 2


def _assert_story_held(code: int, output: str, demo: Clone) -> None:
    assert code == 0, output
    assert "Traceback" not in output
    assert re.search(r"VERDICT: all \d+ claims held", output)
    assert not [x for x in output.splitlines() if len(x) > 100 or x.rstrip().endswith(" is")]
    assert "\033[" not in output, "colours in a log"
    report = demo.report
    assert report["held"]
    assert all(claim["held"] for claim in report["claims"])
    runs = {run["run_id"]: run for run in report["runs"]}
    for run_id in OURS:
        tracked = runs[run_id]["tracked"]
        assert (tracked["status"], tracked["metrics"]) == ("FINISHED", 200), run_id
    assert runs["name-gone"]["gate"]["level"] == "degraded"
    plain = runs["dns-silent-plain"]
    assert plain["state"] == "failed"
    assert plain["tracked"] is None
    assert "bounded" in output
    assert demo.leftovers() == []


def _listening(port: int) -> socket.socket:
    """Take this port, unless another process has it already."""
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        pass
    return listener


def _get(url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _FETCH, url], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


_FETCH = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(sys.argv[1], timeout=20).read().decode())
"""


def _why_not() -> str | None:
    done = subprocess.run(
        [sys.executable, "-c", "import demo.namespaces as n; print(n.why_not() or '')"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip() or None
