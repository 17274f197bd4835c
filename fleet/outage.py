"""Gated trainings of a whole fleet through an outage in which everything else fails, too."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from demo.evidence import METRIC, dag_run_of, seconds
from demo.layout import FIRST_ADDRESS
from fleet import names
from fleet.crowd import await_count, held_by, trigger_all
from fleet.stack import WORKERS, Fleet

_LIMIT = 900.0
#: The parts of all runs that are done when a fault begins, or ends.
_WORKER_DIES, _API_RESTARTS, _DNS_HEALS = 0.1, 0.35, 0.7


@dataclass(frozen=True, slots=True)
class Training:
    """One DAG run, as Airflow and MLflow have it.

    :param level: what its gate said.
    :param tracked: the state at MLflow of each of its runs, and the values that it holds.
    """

    run_id: str
    state: str
    gate: str
    train: str
    tries: int
    worker: str
    level: str
    tracked: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Outage:
    """What was found.

    :param faults: seconds since the beginning, and what was done then.
    :param orphans: triggers that the killed triggerer held.
    :param running_on_killed: trainings that ran on the killed worker.
    :param waiting: gates that still wait at the end.
    :param seconds_to_open: from MLflow's return until the last gate was done.
    :param seconds: all of it.
    """

    runs: list[Training] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)
    orphans: int = 0
    running_on_killed: int = 0
    waiting: int = 0
    seconds_to_open: float = 0.0
    seconds: float = 0.0


def survive(fleet: Fleet) -> Outage:
    """Let it all happen."""
    return _Survival(fleet).survive()


class _Survival:
    """The steps, in their order."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._airflow, self._console = fleet.airflow, fleet.console
        self._count = fleet.sizes.runs
        self._found = Outage()
        self._began = time.monotonic()
        self._back = 0.0

    def survive(self) -> Outage:
        self._console.heading(f"{self._count} gated trainings while MLflow is down")
        self._wait()
        self._triggerer_dies()
        self._mlflow_returns()
        self._writing()
        self._found.seconds = time.monotonic() - self._began
        self._console.heading("Asking Airflow and MLflow what has become of them")
        self._read()
        return self._found

    def _wait(self) -> None:
        fleet = self._fleet
        fleet.add_triggerer()
        fleet.stop_mlflow()
        self._note("MLflow is stopped")
        sizes = fleet.sizes
        conf = {"metrics": sizes.metrics, "seconds": sizes.training}
        trigger_all(fleet, names.TRAINING, self._count, conf)
        self._await_held("the gates to wait in the triggerers", set())

    def _triggerer_dies(self) -> None:
        """The API server is restarted, and DNS falls silent, before another one has taken over."""
        fleet = self._fleet
        held = held_by(fleet, names.TRAINING)
        job, (name, self._found.orphans) = max(held.items(), key=lambda item: item[1][1])
        fleet.kill_part(name)
        self._note(f"{name} is killed, with {self._found.orphans} of {self._count} gates")
        fleet.start_part(name)
        fleet.names.silent()
        self._note("DNS is silent")
        self._restart_api_server()
        self._await_held("living triggerers to have all gates", {job})

    def _mlflow_returns(self) -> None:
        fleet = self._fleet
        fleet.start_mlflow(FIRST_ADDRESS)
        fleet.await_mlflow()
        self._back = time.time()
        self._note("MLflow is back; DNS is still silent")

    def _writing(self) -> None:
        fleet = self._fleet
        self._await_done(_WORKER_DIES)
        worker = WORKERS[0]
        # Not before it writes: what it leaves behind at MLflow is what the next try has to end.
        await_count(fleet, f"{worker} to write", lambda: self._writing_on(worker), 1)
        self._found.running_on_killed = self._writing_on(worker)
        fleet.kill_part(worker)
        self._note(f"{worker} is killed, with {self._found.running_on_killed} trainings")
        fleet.start_part(worker)
        self._await_done(_API_RESTARTS)
        self._restart_api_server()
        self._await_done(_DNS_HEALS)
        fleet.names.answer(FIRST_ADDRESS)
        self._note("DNS answers again")
        self._await_done(1.0)

    def _writing_on(self, worker: str) -> int:
        """Return how many runs at MLflow a worker is writing to."""
        tasks = self._airflow.tasks(names.TRAINING, state="running")
        here = {task["dag_run_id"] for task in tasks if task["hostname"] == worker}
        runs = self._fleet.mlflow.runs()
        return sum(run["info"]["status"] == "RUNNING" and dag_run_of(run) in here for run in runs)

    def _restart_api_server(self) -> None:
        self._fleet.stop_part("api-server")
        self._note("the API server is stopped")
        self._fleet.start_part("api-server")
        self._fleet.await_airflow()
        self._note("the API server is back")

    def _await_held(self, what: str, dead: set[int]) -> None:
        await_count(
            self._fleet,
            what,
            lambda: sum(
                count
                for job, (_, count) in held_by(self._fleet, names.TRAINING).items()
                if job not in dead
            ),
            self._count,
        )
        self._note(f"{self._count} gates wait")

    def _await_done(self, part: float) -> None:
        await_count(
            self._fleet,
            f"{part:.0%} of the trainings to end",
            lambda: self._airflow.count_runs(names.TRAINING, state=["success", "failed"]),
            round(self._count * part),
            limit=_LIMIT,
        )

    def _note(self, what: str) -> None:
        self._found.faults.append((time.monotonic() - self._began, what))
        self._console.say(what)

    def _verdict(self, run_id: str) -> dict[str, Any]:
        """Return what a gate said."""
        verdict: dict[str, Any] = self._airflow.xcom(names.TRAINING, run_id, "gate") or {}
        return verdict

    def _read(self) -> None:
        fleet, found = self._fleet, self._found
        tracked: dict[str, list[tuple[str, int]]] = {}
        for run in fleet.mlflow.runs():
            info = run["info"]
            counts = fleet.mlflow.metric_counts(info["run_id"])
            tracked.setdefault(dag_run_of(run) or "", []).append(
                (info["status"], counts.get(METRIC, 0))
            )
        tasks: dict[str, dict[str, dict[str, Any]]] = {}
        for task in self._airflow.tasks(names.TRAINING, order_by="id"):
            tasks.setdefault(task["dag_run_id"], {})[task["task_id"]] = task
        for each in self._airflow.dag_runs(names.TRAINING):
            run_id = each["dag_run_id"]
            gate, train = tasks[run_id]["gate"], tasks[run_id]["train"]
            opened = (seconds(gate["end_date"]) or 0.0) - self._back
            found.seconds_to_open = max(found.seconds_to_open, opened)
            verdict = self._verdict(run_id)
            found.runs.append(
                Training(
                    run_id=run_id,
                    state=each["state"],
                    gate=gate["state"] or "none",
                    train=train["state"] or "none",
                    tries=train["try_number"],
                    worker=train["hostname"] or "",
                    level=verdict.get("level", "nothing"),
                    tracked=tuple(tracked.get(run_id, ())),
                )
            )
        found.waiting = self._airflow.count_tasks("~", state="deferred")
