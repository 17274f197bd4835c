"""A whole DAG run with real parts, and then a search for its secrets in all that it left behind.

In Airflow's database (XCom, Variables, rendered fields, task instances: all that its pages show),
in the logs, in what was printed, in the environment of the tasks, in exceptions, on MLflow.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import migrate
from tests.secrecy import words
from tests.servers import MLflowProcess, Request, Stranger, has_basic_auth, http

HERE = Path(__file__).parent
pytestmark = [pytest.mark.integration, pytest.mark.timeout(800)]


def refusing(request: Request) -> bytes:
    """An MLflow whose users are others."""
    if request.path == "/health":
        return http(body="OK")
    return http(401, "You are not authenticated.", WWW_Authenticate='Basic realm="mlflow"')


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run, with the folder in which everything of it lies."""
    folder = tmp_path_factory.mktemp("secrecy")
    home = folder / "airflow"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([{
            "name": "secrecy",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(HERE / "secrecy" / "dags")},
        }]),
        "SECRECY_FOLDER": str(folder),
        "PYTHONPATH": os.pathsep.join(
            [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }  # fmt: skip
    migrate(environment)
    admin = (words.LOGIN, words.PASSWORD) if has_basic_auth() else None
    out = folder / "seen.json"
    with (
        MLflowProcess(folder / "mlflow", host="127.0.0.75", admin=admin) as server,
        Stranger(refusing, host="127.0.0.76") as stranger,
        (folder / "printed.txt").open("wb") as printed,
    ):
        addresses = {
            words.HOSTNAME: (server.host, server.port),
            words.STRANGER: (stranger.host, stranger.port),
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.secrecy.scenario", str(out), json.dumps(addresses)],
            env=environment, cwd=folder, stdout=printed, stderr=subprocess.STDOUT, timeout=600,
            check=False,
        )  # fmt: skip
        sent = [request.headers.get("authorization", "") for request in stranger.requests]
    assert done.returncode == 0, (folder / "printed.txt").read_text()[-5000:]
    return {**json.loads(out.read_text()), "folder": folder, "home": home, "sent": sent}


def xcom_of(story: dict[str, Any], task_id: str) -> Any:
    with sqlite3.connect(story["home"] / "airflow.db") as database:
        query = "SELECT value FROM xcom WHERE task_id = ? AND key = 'return_value'"
        (value,) = database.execute(query, (task_id,)).fetchone()
    database.close()
    return json.loads(value)


def content_of(path: Path) -> bytes:
    """A file, without what Airflow itself prints of the call that has a secret masked.

    Only ``dag.test()`` does, at DEBUG, for every connection of every type.
    """
    lines = path.read_bytes().splitlines()
    return b"\n".join(
        line for line in lines
        if not (b"Sending request" in line and b"msg=MaskSecret(" in line)
    )  # fmt: skip


def test_the_story_has_happened(story: dict[str, Any]) -> None:
    """Nothing is easier to hide than what never was: each secret was really used."""
    assert story["tasks"] == {
        "refresh": "failed", "gate": "success", "train": "success", "stumble": "success",
        "fails_by_itself": "failed", "shut": "failed",
    }  # fmt: skip
    forms = words.spellings()
    assert {"wrong password", "token"} <= {
        forms[header.partition(" ")[2]] for header in story["sent"] if header
    }
    stumbles = xcom_of(story, "stumble")
    assert len(stumbles) == 20
    assert "raised" in stumbles["mlflow_wrong.run"]
    assert "raised" in stumbles["mlflow_lost.rest"]


def test_no_file_holds_a_secret(story: dict[str, Any]) -> None:
    """Databases, logs, output, environments: every byte below the folder of the run."""
    looked_at = [path for path in story["folder"].rglob("*") if path.is_file()]
    names = {path.name for path in looked_at}
    assert {"airflow.db", "mlflow.db", "mlflow.log", "printed.txt", "environment-run.txt"} <= names
    found = [
        f"{path.relative_to(story['folder'])}: {whose} ({secret!r})"
        for path in looked_at
        for secret, whose in words.spellings().items()
        if secret.encode() in content_of(path)
    ]
    assert not found, "\n".join(found)


def test_the_search_finds_a_secret_that_is_there(story: dict[str, Any]) -> None:
    """The database has what it is searched for: login and hostname of the same connections."""
    content = (story["home"] / "airflow.db").read_bytes()
    assert words.LOGIN.encode() in content
    assert words.HOSTNAME.encode() in content
    printed = (story["folder"] / "printed.txt").read_bytes()
    assert words.STRANGER.encode() in printed
