"""Playing with what ``make up`` left running: MLflow, Airflow's commands, and a second time."""

from __future__ import annotations

import json

import pytest

from tests.e2e.clone import Clone
from tests.e2e.test_demo import demo, private  # noqa: F401 - fixtures

pytestmark = [pytest.mark.e2e, pytest.mark.integration, pytest.mark.timeout(900)]


def test_what_is_up_can_be_played_with_and_keeps_what_is_put_in(
    demo: Clone,  # noqa: F811
    private: None,  # noqa: F811
) -> None:
    """MLflow stops, starts and moves; Airflow's commands run inside; DAGs and runs stay."""
    code, output = demo.run("up")
    assert code == 0, output
    assert ".demo/up/airflow/dags" in output
    assert "/plugin/hokusai-dns" in output
    assert not [line for line in output.splitlines() if len(line) > 100 or line.endswith(" is")]

    status = ("airflow", "hokusai-dns", "status", "--output", "json")
    code, output = demo.run(*status)
    assert code == 0, output
    assert json.loads(output)["connections"][0]["addresses"] == ["127.0.0.11"]
    assert demo.run("mlflow", "stop")[0] == 0
    assert demo.run(*status)[0] == 1
    assert demo.run("mlflow", "start")[0] == 0
    assert demo.run("mlflow", "move")[0] == 0
    code, output = demo.run(*status)
    assert code == 0, output
    assert json.loads(output)["connections"][0]["addresses"] == ["127.0.0.12"]

    mine = demo.home / "up" / "airflow" / "dags" / "mine.py"
    mine.write_text("raise RuntimeError('a broken DAG of the user ends nothing')\n")
    database = demo.home / "up" / "mlflow" / "mlflow.db"
    assert demo.run("down")[0] == 0
    size = database.stat().st_size
    code, output = demo.run("up")
    assert code == 0, output
    assert "Kept from the last run" in output
    assert mine.exists()
    assert database.stat().st_size >= size
    assert demo.run("down")[0] == 0
    assert demo.run("mlflow", "stop")[0] == 2
    assert demo.leftovers() == []
