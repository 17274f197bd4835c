"""Our dependencies resolve under the constraint sets of the Airflows that people are given.

What the sets are, and how they were made: `constraints/README.md`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]
SETS = sorted(Path(__file__).with_name("constraints").glob("airflow-*.txt"))
#: How uv says that it cannot reach a registry.
UNREACHABLE = ("error sending request", "Failed to fetch", "dns error", "Connection refused")


def pins(text: str) -> dict[str, set[str]]:
    """Versions by name; a name may have several, for different Pythons."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE):
        found.setdefault(name.lower().replace("_", "-").replace(".", "-"), set()).add(version)
    return found


def test_there_is_a_set_for_each_version_that_managed_services_offer():
    """With names and versions only: no URL, no option, no path."""
    assert [path.stem for path in SETS] == ["airflow-3.2.1", "airflow-3.2.2", "airflow-3.3.1"]
    for path in SETS:
        lines = path.read_text().splitlines()
        assert len(lines) > 200
        bad = [x for x in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; .+)?", x)]
        assert bad == []
        assert pins(path.read_text())["apache-airflow"] == {path.stem.removeprefix("airflow-")}


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_what_we_ask_for_ourselves_fits_the_set(path: Path):
    """Without a registry: each direct dependency that the set has may be that version."""
    known = pins(path.read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    named = [one for one in wanted if one.name in known]
    assert len(named) >= 8
    assert [str(one) for one in named for v in known[one.name] if v not in one.specifier] == []


@pytest.mark.integration
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_all_of_it_resolves_under_the_set(path: Path):
    """With what our dependencies ask for, MLflow above all; and no version of the set is left."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"),
            *("--constraint", str(path), "--python-version", "3.12"),
            *("--no-header", "--no-annotate", "--no-emit-index-url"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=280,
    )
    if done.returncode and any(text in done.stderr for text in UNREACHABLE):
        assert not os.environ.get("CI"), done.stderr
        pytest.skip(f"no package registry can be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    known, resolved = pins(path.read_text()), pins(done.stdout)
    assert "mlflow-skinny" in resolved
    assert {name: v for name, v in resolved.items() if name in known and not v <= known[name]} == {}
