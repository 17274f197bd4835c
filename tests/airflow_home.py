"""Airflow homes with a migrated database: made once in each process of tests, and copied."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

DATABASE, CONFIGURATION = "airflow.db", "airflow.cfg"


def migrate(environment: Mapping[str, str]) -> None:
    """Give the home in this environment its database and configuration.

    An auth manager may have tables of its own: with one of these, the database is not a copy.
    """
    home = Path(environment["AIRFLOW_HOME"])
    if "AIRFLOW__CORE__AUTH_MANAGER" in environment:
        _migrate(environment)
        return
    first = _first_home()
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(first / DATABASE, home / DATABASE)
    text = (first / CONFIGURATION).read_text()
    (home / CONFIGURATION).write_text(text.replace(str(first), str(home)))


@functools.cache
def _first_home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="airflow-first-home-"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))}
    _migrate({**kept, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"})
    return home


def _migrate(environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
