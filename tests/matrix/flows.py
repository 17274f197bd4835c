"""What a task does with MLflow. Each flow is a generator.

Up to its ``yield`` it runs inside the run; what comes after sees, when the run has ended, that
everything has arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Above this size MLflow's client transfers a file in parts (see ``cases.py``).
BIG = 300_000
METRICS = 50


@dataclass(frozen=True)
class Task:
    """What a flow has in its hands."""

    hook: Any
    client: Any
    run_id: str
    folder: Path


Flow = Callable[[Task], Iterator[None]]


def rest(task: Task) -> Iterator[None]:
    assert task.client.search_experiments()
    task.client.log_metric(task.run_id, "by_client", 1.5)
    yield
    assert task.client.get_run(task.run_id).data.metrics["by_client"] == 1.5


def light_rest(task: Task) -> Iterator[None]:
    found = task.hook.rest("GET", "/api/2.0/mlflow/runs/get", params={"run_id": task.run_id})
    assert found["run"]["info"]["status"] == "RUNNING"
    yield
    found = task.hook.rest("GET", "/api/2.0/mlflow/runs/get", params={"run_id": task.run_id})
    assert found["run"]["info"]["status"] == "FINISHED"


def fluent(task: Task) -> Iterator[None]:
    import mlflow

    mlflow.log_param("depth", 3)
    mlflow.log_metric("loss", 0.5)
    mlflow.set_tag("mine", "yes")
    yield
    data = task.client.get_run(task.run_id).data
    assert (data.params["depth"], data.metrics["loss"], data.tags["mine"]) == ("3", 0.5, "yes")


def async_logging(task: Task) -> Iterator[None]:
    import mlflow

    for step in range(METRICS):
        mlflow.log_metric("later", step, step=step, synchronous=False)
    yield
    assert len(task.client.get_metric_history(task.run_id, "later")) == METRICS


def proxied_artifacts(task: Task) -> Iterator[None]:
    import mlflow

    mlflow.log_text("hello", "notes/small.txt")
    yield
    assert [found.path for found in task.client.list_artifacts(task.run_id, "notes")] == [
        "notes/small.txt"
    ]


def presigned_artifacts(task: Task) -> Iterator[None]:
    import mlflow

    big = task.folder / "big.bin"
    big.write_bytes(bytes(range(250)) * (BIG // 250))
    mlflow.log_artifact(str(big))
    yield
    back = task.client.download_artifacts(task.run_id, "big.bin", str(task.folder / "back"))
    assert Path(back).read_bytes() == big.read_bytes()


def registry(task: Task) -> Iterator[None]:
    import mlflow

    name = f"model-{task.run_id}"
    mlflow.log_dict({"w": 1}, "model/w.json")
    task.client.create_registered_model(name)
    source = f"{task.client.get_run(task.run_id).info.artifact_uri}/model"
    made = task.client.create_model_version(name, source, run_id=task.run_id)
    yield
    assert task.client.get_model_version(name, made.version).run_id == task.run_id


def tracing(task: Task) -> Iterator[None]:
    import mlflow

    @mlflow.trace
    def outer() -> int:
        with mlflow.start_span("inner"):
            return 1

    outer()
    yield
    experiment = task.client.get_run(task.run_id).info.experiment_id
    (trace,) = task.client.search_traces(locations=[experiment], run_id=task.run_id)
    assert {span.name for span in trace.data.spans} == {"outer", "inner"}


BY_NAME: dict[str, Flow] = {
    "REST": rest,
    "light REST": light_rest,
    "fluent": fluent,
    "async logging": async_logging,
    "proxied artifacts": proxied_artifacts,
    "presigned artifacts on another host": presigned_artifacts,
    "registry": registry,
    "tracing": tracing,
}
