"""Runs blocks of the documentation in one process, with a name server, MLflow and Airflow beside.

A script, because Airflow keeps one database per process. It is told on its command line where to
work, and which file holds the blocks; what came of each goes into a file as JSON.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import io
import json
import os
import shlex
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.docs.blocks import PYTHONS, Block, commands
from tests.servers import MLflowProcess

#: The server that every page speaks of. It listens where nothing else does.
HOSTNAME = "mlflow.example.local"
ADDRESS = "127.0.0.31"
#: Presigned artifacts and others that pages name beside it.
OTHERS = ("artifacts.example.com", "registry.example.local")
ROOT = Path(__file__).parents[2]


def main(home: Path, given: Path, out: Path) -> None:
    blocks = [
        Block(**{**one, "words": tuple(one["words"])}) for one in json.loads(given.read_text())
    ]
    results: dict[str, dict[str, Any]] = {}
    with DNSServer() as dns, MLflowSoon(home) as mlflow:
        for name in (HOSTNAME, *OTHERS):
            dns.set_records(name, [ADDRESS], ttl=10)
        _prepare_airflow(home)
        port = mlflow.port()
        for block in blocks:
            started = time.monotonic()
            _as_new(dns, port)
            output = io.StringIO()
            try:
                with contextlib.redirect_stdout(output):
                    _run(block, home / "dags")
                problem = ""
            except (Exception, SystemExit):
                problem = traceback.format_exc()
            results[block.name] = {
                "problem": problem,
                "output": output.getvalue()[-3000:],
                "seconds": round(time.monotonic() - started, 1),
            }
            out.write_text(json.dumps(results))


class MLflowSoon:
    """An MLflow that starts while other things are being prepared."""

    def __init__(self, home: Path) -> None:
        self._server = MLflowProcess(home / "mlflow", host=ADDRESS)
        self._problem: list[BaseException] = []
        self._thread = threading.Thread(target=self._start)

    def __enter__(self) -> MLflowSoon:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join()
        self._server.stop()

    def _start(self) -> None:
        try:
            self._server.start()
        except BaseException as error:
            self._problem.append(error)

    def port(self) -> int:
        """Wait until it answers."""
        self._thread.join()
        if self._problem:
            raise self._problem[0]
        return self._server.port


def _prepare_airflow(home: Path) -> None:
    from airflow.utils import db

    (home / "dags").mkdir()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        db.initdb()


def _as_new(dns: DNSServer, port: int) -> None:
    """As if the next block ran in a process of its own, with the connection of the pages."""
    from airflow_provider_hokusai_dns import runtime

    runtime.forget()
    os.environ["AIRFLOW__HOKUSAI_DNS__NAMESERVERS"] = dns.address
    os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = json.dumps(
        {"conn_type": "mlflow", "host": HOSTNAME, "port": port}
    )


def _run(block: Block, folder: Path) -> None:
    if block.language == "console":
        _run_commands(block)
        return
    file = folder / f"{Path(block.file).stem.replace('-', '_').lower()}_{block.line}.py"
    file.write_text(block.text)
    if "def test_" in block.text:
        options = ["-q", "-p", "no:cacheprovider", "--assert=plain", "--rootdir", str(folder)]
        assert pytest.main([*options, str(file)]) == 0, "its tests fail"
    elif "@dag" in block.text or "build_refresh_dag(" in block.text:
        _run_dags(file)
    else:
        _load(file)


def _load(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"docs_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _run_dags(file: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(file))
    assert bag.import_errors == {}
    assert bag.dags, "it makes no DAG"
    for dag in bag.dags.values():
        run = dag.test()
        states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        assert str(run.state) == "success", states


def _run_commands(block: Block) -> None:
    """Run each command, and compare what it prints with what the page shows."""
    shown: dict[str, list[str]] = {}
    for line in block.text.splitlines():
        if line.startswith("$ "):
            shown[line[2:].partition("  #")[0].strip()] = expected = []
        elif line.strip():
            expected.append(line.rstrip())
    for command in commands(block):
        printed = _printed(shlex.split(command))
        for wanted in shown.get(command, []):
            if wanted.strip() == "...":
                continue
            pattern = wanted.replace("[", "[[]").replace("...", "*")
            found = any(
                fnmatch.fnmatchcase(line.rstrip(), pattern) for line in printed.splitlines()
            )
            assert found, f"{command!r} does not print {wanted!r} but:\n{printed}"


def _printed(words: list[str]) -> str:
    if words[0] != "airflow":
        words = [sys.executable if word in PYTHONS else word for word in words]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
    from airflow.cli import cli_parser

    output = io.StringIO()
    parsed = cli_parser.get_parser().parse_args(words[1:])
    with contextlib.redirect_stdout(output):
        try:
            parsed.func(parsed)
        except SystemExit as end:
            if end.code not in (None, 0):
                raise AssertionError(output.getvalue()) from end
    return output.getvalue()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
