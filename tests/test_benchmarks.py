"""The benchmarks run, and say what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import behind, hits, memory
from benchmarks.measure import Row, Table

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_section_prints_its_table_and_writes_the_same_as_json(tmp_path: Path):
    """Every subject has a row, in the table and in the file: measured, or skipped with a reason."""
    file = tmp_path / "bench.json"
    done = run("--quick", "--here", "--only", "misses", "--only", "memory", "--json", str(file))
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text(encoding="utf-8"))
    keys = [table["key"] for table in written["tables"]]
    assert keys == ["miss", "memory", "urls", "behind", "goals"]
    for table in written["tables"]:
        for row in table["rows"]:
            assert row["name"] in done.stdout
            assert set(row["values"]) == set(table["columns"]) or row["note"]
    skipped = {row["name"]: row["note"] for row in written["tables"][0]["rows"] if row["note"]}
    assert "asks the system's nameserver" in skipped["getaddrinfo, A and AAAA"]


def test_a_row_in_which_a_peer_is_ahead_is_told():
    """As a ratio, for people to see; what is behind us, and the floor, are left out."""
    memory_rows = [
        Row(memory.FLOOR, {"bytes per name": 100.0}),
        Row("lru_cache", {"bytes per name": 200.0}),
        Row("dnspython LRUCache", {"bytes per name": 3000.0}),
        Row("aiodns", note="skipped"),
        Row(memory.OURS, {"bytes per name": 900.0}),
    ]
    table = Table("memory", "", ("bytes per name",), memory_rows)
    (row,) = behind.table_of({"memory": table}).rows
    assert row.name.endswith("beside lru_cache")
    assert row.values == {"ours x peer": 4.5}


def test_a_hit_costs_little_beside_the_floor(tmp_path: Path):
    """The goals are 2, 3 and 3 times the floor, on a quiet machine; here a blunder is found."""
    file = tmp_path / "bench.json"
    done = run("--quick", "--here", "--only", "hits", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    (table,) = [t for t in json.loads(file.read_text())["tables"] if t["key"] == "hit"]
    ratios = {row["name"]: row["values"].get("x floor") for row in table["rows"]}
    assert ratios[hits.HOST] < 4
    assert ratios[hits.IN_URL] < 6
    assert ratios[hits.ASYNC] < 6


@pytest.mark.integration
def test_a_herd_of_ours_asks_once(tmp_path: Path):
    """The queries are counted at the server, which is another process."""
    file = tmp_path / "bench.json"
    done = run("--quick", "--only", "herd", "--strict", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    tables = {table["key"]: table for table in json.loads(file.read_text())["tables"]}
    ours = [row for row in tables["herd"]["rows"] if row["name"].startswith("ours")]
    assert len(ours) == 5
    assert all(row["values"]["queries per type"] == 1 for row in ours)


def test_an_unknown_section_is_refused():
    """The message names the sections that exist."""
    done = run("--only", "nonsense")
    assert done.returncode == 2
    assert all(section in done.stderr for section in ("hits", "misses", "herd", "outages"))
