"""Runs DAGs whose names come on standard input, on real task processes; started by its test.

``dag.test(use_executor=True)`` is the way to have Airflow's own executor and supervisor without a
scheduler: a task talks to the API server as in production. One JSON document per DAG run is
written to the file that stands behind the name.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from pathlib import Path
from typing import Any

DAGS = Path(__file__).parent / "counted_dags" / "counted.py"


def run(dag: Any) -> dict[str, Any]:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    dag_run = dag.test(use_executor=True)
    with create_session() as session:
        xcoms = {
            f"{one.task_id}.{one.key}": XComModel.deserialize_value(one)
            for one in session.query(XComModel).filter(XComModel.run_id == dag_run.run_id)
        }
    tasks = {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}
    return {"state": str(dag_run.state), "tasks": tasks, "xcoms": xcoms, "id": dag_run.run_id}


def end_surely() -> None:
    """Let Airflow's executor end in any case.

    Its ``end`` sends a word to each worker that is alive, and may find the second one gone already,
    because that one took the word of the first. The first then waits for ever. More words do
    no harm: the queue is closed afterwards.
    """
    from airflow.executors.local_executor import LocalExecutor

    end = LocalExecutor.end

    def with_enough_words(executor: LocalExecutor) -> None:
        for _ in executor.workers:
            executor.activity_queue.put(None)
        end(executor)

    LocalExecutor.end = with_enough_words


def main() -> None:
    end_surely()
    spec = importlib.util.spec_from_file_location("counted", DAGS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for line in sys.stdin:
        name, out = line.split()
        try:
            result = run(getattr(module, name))
        except BaseException:
            result = {"error": traceback.format_exc()}
        part = Path(f"{out}.part")
        part.write_text(json.dumps(result, default=str))
        part.rename(out)


if __name__ == "__main__":
    main()
