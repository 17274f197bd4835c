"""What a reader copies from the documentation works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.docs import checks
from tests.docs.blocks import REPOSITORY, Block, all_blocks

RUN = [block for block in all_blocks() if block.is_run]
CHECKED = [block for block in all_blocks() if not block.is_run and not block.reason]
LEFT_OUT = [block for block in all_blocks() if block.reason]


def named(blocks: list[Block]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", blocks, ids=[block.name for block in blocks])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All blocks that are run, in one process; what came of each, by its place."""
    home = tmp_path_factory.mktemp("docs")
    given, out, log = home / "blocks.json", home / "seen.json", home / "log.txt"
    given.write_text(json.dumps([asdict(block) for block in RUN]))
    bundle = {
        "name": "docs",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(home / "dags")},
    }
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "PYTHONPATH": str(REPOSITORY),
    }
    script = Path(__file__).with_name("run_blocks.py")
    with log.open("wb") as stream:
        done = subprocess.run(
            [sys.executable, str(script), str(home), str(given), str(out)],
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            timeout=500,
        )
    assert done.returncode == 0, log.read_text(errors="replace")[-5000:]
    return {**json.loads(out.read_text()), "log": log.read_text(errors="replace")}


@pytest.mark.integration
@pytest.mark.timeout(600)
@named(RUN)
def test_runs(block: Block, outcome: dict[str, Any]) -> None:
    """It ends well, with a real name server, a real MLflow and a real Airflow beside it."""
    came = outcome[block.name]
    assert not came["problem"], came["output"] + came["problem"]


@named(CHECKED)
def test_is_true_to_the_code(block: Block) -> None:
    """Its commands, names and values are those of the code."""
    checks.check(block)


def test_what_is_left_out_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    """A block that cannot run here has its reason beside it; the list of them is short."""
    for block in LEFT_OUT:
        print(f"not run: {block.name}: {block.reason}")  # noqa: T201
        assert len(block.reason) > 10
        assert block.language != "python" or "needs" in block.reason, block.name
    assert len(LEFT_OUT) <= len(all_blocks()) / 5
