"""The benchmarks on a real MLflow server, in their short form and with generous bounds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import losses, overhead, relay

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def bench(folder: Path, section: str) -> dict[str, dict[str, Any]]:
    """By table and row: what was measured; a row that was skipped has no values."""
    file = folder / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", section, "--json", str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=350, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    tables = json.loads(file.read_text(encoding="utf-8"))["tables"]
    return {table["key"]: {row["name"]: row for row in table["rows"]} for table in tables}


def test_ours_is_complete_and_ended_where_the_plain_client_loses_half(tmp_path: Path) -> None:
    """The name is gone from the middle of the run to its end."""
    rows = bench(tmp_path, "losses")["losses"]
    ours = rows[losses.OURS]
    lost = {column: value for column, value in ours["values"].items() if column.endswith("lost")}
    assert lost == {"metrics lost": 0, "artifacts lost": 0, "traces lost": 0}
    assert (ours["values"]["run ended"], ours["values"]["told"]) == (True, False), ours["note"]
    assert ours["note"].startswith("FINISHED")
    plain = rows[losses.PLAIN]
    if not plain["values"]:
        pytest.skip(f"plain client: {plain['note']}")
    assert plain["values"]["metrics lost"] == 50
    assert plain["values"]["artifacts lost"] == plain["values"]["traces lost"] == 1
    assert not plain["values"]["run ended"]


@pytest.mark.skipif(not shutil.which("unshare"), reason="no private network without unshare")
def test_a_good_day_costs_little(tmp_path: Path) -> None:
    """The figures themselves are for a quiet machine; here only a blunder is found."""
    tables = bench(tmp_path, "overhead")
    assert tables["overhead"][overhead.WITH]["values"]["ratio"] < 1.5
    assert tables["pin"][overhead.EXTRA]["values"]["median us"] < 100
    counted = [tables["connections"][name]["values"] for name in tables["connections"]]
    assert [each["connections"] for each in counted] == [each["requests"] for each in counted]


def test_a_relay_is_quick_and_holds_no_artifact_in_memory(tmp_path: Path) -> None:
    """100 MB pass through in a few MiB, kept for a repetition or not."""
    tables = bench(tmp_path, "relay")
    assert tables["relay"][relay.CHILD]["values"]["ratio"] < 2
    assert tables["relay_time"][relay.START]["values"]["median ms"] < 200
    for name in (relay.MEMORY_UPLOAD, relay.MEMORY_BARE):
        assert tables["relay_memory"][name]["values"]["MiB"] < 40
