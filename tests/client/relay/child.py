"""A training as someone writes it who knows nothing of this package: MLflow and a file.

Half-way it says so and waits, so that a test can take MLflow away meanwhile.

Usage: ``child.py FOLDER``, with MLflow's variables in the environment.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

METRICS = 50


def train(folder: Path, *, wait: bool = True) -> str:
    """Log metrics of both kinds, an artifact and a trace; gives the run's id."""
    import mlflow

    mlflow.set_experiment("children")
    with mlflow.start_run() as run:
        _log(0, METRICS)
        mlflow.flush_async_logging()
        if wait:
            (folder / "half").write_text(run.info.run_id)
            parent = os.getppid()
            while not (folder / "go").exists():
                if os.getppid() != parent:
                    raise SystemExit("the test was interrupted")
                time.sleep(0.02)
        _log(METRICS, 2 * METRICS)
        artifact = folder / "model.bin"
        artifact.write_bytes(bytes(range(256)) * 4096)
        mlflow.log_artifact(str(artifact))
        mlflow.trace(lambda: 1, name="traced")()
        mlflow.flush_trace_async_logging()
    return str(run.info.run_id)


def _log(first: int, last: int) -> None:
    import mlflow

    for step in range(first, last):
        mlflow.log_metric("later", step, step=step, synchronous=False)
        mlflow.log_metric("at_once", step, step=step)


def train_in(folder: str) -> str:
    """For a pool, which wants a function with its argument."""
    return train(Path(folder))


if __name__ == "__main__" and os.environ.get("RANK", "0") == "0":  # the first of a launcher's logs
    train(Path(sys.argv[1]))
