"""What is in the repository: nothing that belongs to one machine, and pins that are only pins."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PIN = re.compile(r"[a-z0-9][a-z0-9.-]*==[A-Za-z0-9.+!]+( ; [a-z_]+ .+)?")
# Put together here, so that this file does not hold what it forbids.
MACHINE_PATHS = re.compile(r"/(?:" + "|".join(["work/", "root/", "home/[a-z]", "opt/py"]) + ")")
#: Also the user of that name, which only PostgreSQL's start may name.
UNNAMED = re.compile(
    "|".join([r"\bwho" + r"ever\b", r"\bsome" + r"body\b", r"\bno" + r"body\b(?!\"?[).])"]),
    re.IGNORECASE,
)
ABOVE = re.compile(r"(?:^|[\s'\"(=])" + re.escape("." + "./"))


def tracked_files() -> list[Path]:
    """The text files of the repository, as git knows them."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    files = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()[:4096]]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-floor.txt"])
def test_constraints_are_sorted_pins_and_nothing_else(name: str) -> None:
    """No URL, no host, no option, no path: one exact version per line, in order."""
    lines = (REPOSITORY / name).read_text().splitlines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(names)
    assert len(set(lines)) == len(lines)


def test_floor_is_the_oldest_we_promise() -> None:
    """The second environment has Airflow 3.2, and the minimum of every direct dependency."""
    floor = (REPOSITORY / "constraints-floor.txt").read_text()
    pyproject = (REPOSITORY / "pyproject.toml").read_text()
    assert "apache-airflow==3.2." in floor
    for name in ("dnspython", "idna", "mlflow-skinny", "aiohttp", "requests"):
        (minimum,) = re.findall(rf'"{name}>=([0-9.]+)"', pyproject)
        (pinned,) = re.findall(rf"^{name}==([0-9.]+)", floor, flags=re.MULTILINE)
        assert pinned == minimum or pinned.startswith(f"{minimum}."), name


@pytest.mark.parametrize(
    ("forbidden", "what"),
    [
        (MACHINE_PATHS, "a path of one machine"),
        (ABOVE, "a path above the repository"),
        (UNNAMED, "name the party: a caller, a client, a server, a process, a user"),
    ],
)
def test_no_tracked_file_has_what_does_not_belong_there(
    forbidden: re.Pattern[str], what: str
) -> None:
    """A clone works anywhere, and its words say which party does what."""
    found = [
        f"{file.relative_to(REPOSITORY)}:{number}: {what}: {line.strip()[:80]}"
        for file in tracked_files()
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []
