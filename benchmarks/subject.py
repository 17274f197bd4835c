"""What is measured on a real MLflow server, in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.stage import Nameserver

if TYPE_CHECKING:
    from tests.servers import MLflowProcess


@contextmanager
def mlflow_server(server: Nameserver, hostname: str, address: str) -> Iterator[MLflowProcess]:
    """MLflow on this address, under this name; it may be started again on another one."""
    from tests.servers import MLflowProcess

    server.tell(f"set {hostname} {address} ttl=60")
    with (
        tempfile.TemporaryDirectory() as folder,
        MLflowProcess(
            Path(folder) / "mlflow",
            host=address,
            allowed_hosts=("*.bench.test:*", "127.*"),
        ) as process,
    ):
        yield process


def environment(folder: Path) -> dict[str, str]:
    """For a process that is measured with MLflow's client: nothing of this machine's settings.

    ``HOKUSAI_TEST_MLFLOW`` names the folder of another version of the client, as for the tests.
    """
    from tests.servers import client_environment

    ours = ("MLFLOW", "AIRFLOW")
    return {
        **{k: v for k, v in client_environment().items()
           if not k.startswith(ours) and not k.lower().endswith("_proxy")},
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "AIRFLOW_HOME": str(folder / "airflow"),
    }  # fmt: skip


def mlflow_version() -> str:
    """The version of the client that is measured."""
    from tests.servers import OTHER_CLIENT

    path = sys.path if OTHER_CLIENT is None else [OTHER_CLIENT]
    found = importlib.metadata.distributions(path=path)
    names = ("mlflow-skinny", "mlflow")
    return next((one.version for one in found if one.name in names), "not installed")


def told_by(module: str, order: Mapping[str, Any], folder: Path, **variables: str) -> Any:
    """What a module says that is run with an order: a line of JSON behind an ``@``."""
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(order)],
        env=environment(folder) | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            return json.loads(line[1:])
    raise RuntimeError(f"the subject ended without a figure: {done.stderr[-2000:]}")
