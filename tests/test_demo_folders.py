"""What ``make up`` finds of the last time, and what it leaves as it is."""

from __future__ import annotations

import io
from pathlib import Path

from demo.console import WIDTH, Console
from demo.detached import _KEPT
from demo.layout import Layout
from demo.outside import fresh
from demo.processes import Processes
from demo.stack import Stack


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_fresh_folder_keeps_dags_and_data_and_nothing_else(tmp_path):
    """Also after an interruption between putting them aside and back."""
    root = tmp_path / "up"
    assert fresh(root, keep=_KEPT) is False
    mine = _write(root / "airflow" / "dags" / "mine.py", "mine")
    data = _write(root / "mlflow" / "mlflow.db", "runs")
    gone = _write(root / "airflow" / "airflow.db", "old")
    assert fresh(root, keep=_KEPT) is True
    assert (mine.read_text(), data.read_text(), gone.exists()) == ("mine", "runs", False)
    (root / "mlflow").rename(tmp_path / "mlflow-aside")
    (tmp_path / "up.kept").mkdir()
    (tmp_path / "mlflow-aside").rename(tmp_path / "up.kept" / "mlflow")
    assert fresh(root, keep=_KEPT) is True
    assert (mine.read_text(), data.read_text()) == ("mine", "runs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["up"]


def test_a_dag_of_ours_that_was_edited_stays(tmp_path):
    """One that was not is renewed, and one of the user's own is not touched."""

    class Small(Stack):
        dag_folders = (tmp_path / "ours",)

    ours = _write(tmp_path / "ours" / "example.py", "first")
    other = _write(tmp_path / "ours" / "other.py", "other")
    out = io.StringIO()
    layout = Layout(tmp_path / "root", True, 8080, 5000, 53)
    stack = Small(layout, Processes(tmp_path / "logs"), Console(out))
    stack._copy_dags()
    dags = tmp_path / "root" / "airflow" / "dags"
    _write(dags / "example.py", "edited")
    _write(dags / "mine.py", "mine")
    ours.write_text("second")
    other.write_text("renewed")
    stack._copy_dags()
    found = {path.name: path.read_text() for path in dags.iterdir()}
    assert found == {"example.py": "edited", "mine.py": "mine", "other.py": "renewed"}
    assert "example.py was edited and stays" in out.getvalue()


def test_what_the_demo_says_fits_a_line():
    """Words are wrapped, and a path or an address is left whole."""
    out = io.StringIO()
    address = "http://" + "a" * 70
    Console(out).say(f"{'a word ' * 20} {address}")
    lines = out.getvalue().splitlines()
    assert len(lines) > 1
    assert all(len(line) <= WIDTH for line in lines)
    assert any(address in line for line in lines)
