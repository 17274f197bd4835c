"""A crowd of gates in one triggerer while MLflow is away: what it costs, how soon it opens."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from demo.evidence import seconds
from fleet import names
from fleet.front import PROBE
from fleet.measure import use_of
from fleet.sizes import GATES_PER_RUN, INTERVAL
from fleet.stack import TRIGGERERS, Fleet

_LIMIT = 600.0  # generous: a busy machine is no failed claim
_ENDED = ("success", "failed", "skipped", "upstream_failed")
_AT_ONCE = 4  # requests to the API server


@dataclass(frozen=True, slots=True)
class Crowd:
    """What was found about one kind of gate.

    :param seconds_to_wait: from the first trigger until all gates were in the triggerer.
    :param probes_per_interval: requests that reached the front.
    :param cores: processor time of the triggerer, in cores.
    :param megabytes: its memory.
    :param seconds_to_open: from MLflow's return until the last gate was done.
    :param opened: gates that succeeded.
    """

    kind: str
    gates: int
    seconds_to_wait: float
    watched: float
    probes_per_interval: float
    cores: float
    megabytes: float
    seconds_to_open: float
    opened: int

    @property
    def seconds_per_gate(self) -> float:
        """Time from MLflow's return until the last gate was done, per gate."""
        return self.seconds_to_open / self.gates


def gather(fleet: Fleet) -> list[Crowd]:
    """Let both kinds of gates wait, one after the other."""
    sizes, console = fleet.sizes, fleet.console
    console.heading(f"{sizes.gates} gates wait in one triggerer while MLflow is down")
    crowds = [_gather(fleet, "MLflowHealthSensor", names.GATES, sizes.gates, PROBE)]
    if sizes.http_gates:
        console.heading(f"For comparison: {sizes.http_gates} deferrable HttpSensors of Airflow")
        http = (names.HTTP_GATES, sizes.http_gates, names.HTTP_SENSOR)
        crowds.append(_gather(fleet, "HttpSensor", *http))
    return crowds


def trigger_all(fleet: Fleet, dag_id: str, count: int, conf: dict[str, Any]) -> None:
    """Start this many runs of a DAG."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(
            lambda number: fleet.airflow.trigger(dag_id, conf, f"{dag_id}-{number:04}"),
            range(count),
        ):
            fleet.processes.check()


def await_count(
    fleet: Fleet, what: str, count: Callable[[], int], wanted: int, *, limit: float = _LIMIT
) -> None:
    """Return when something has become this many."""
    so_far = 0

    def enough() -> bool:
        nonlocal so_far
        so_far = count()
        return so_far >= wanted

    fleet.console.until(
        what,
        enough,
        seconds=limit,
        alive=fleet.processes.check,
        detail=lambda: f"{so_far} of {wanted}",
    )


def held_by(fleet: Fleet, dag_id: str) -> dict[int, tuple[str, int]]:
    """Return the triggerers that hold waiting gates: by job number, their names and how many."""
    found: dict[int, tuple[str, int]] = {}
    for task in fleet.airflow.tasks(dag_id, state="deferred", order_by="id"):
        if job := task["triggerer_job"]:
            name, count = found.get(job["id"], (job["hostname"], 0))
            found[job["id"]] = (name, count + 1)
    return found


def _gather(fleet: Fleet, kind: str, dag_id: str, gates: int, path: str) -> Crowd:
    airflow, console, front = fleet.airflow, fleet.console, fleet.front
    gates -= gates % GATES_PER_RUN
    front.away()
    began = time.monotonic()
    trigger_all(fleet, dag_id, gates // GATES_PER_RUN, {})
    await_count(
        fleet,
        f"{gates} gates to wait",
        lambda: airflow.count_tasks(dag_id, state="deferred"),
        gates,
    )
    await_count(
        fleet,
        "the triggerer to have all of them",
        lambda: sum(count for _, count in held_by(fleet, dag_id).values()),
        gates,
    )
    waiting = time.monotonic() - began
    console.say(f"{gates} gates are waiting after {waiting:.1f} s")
    _pause(fleet, "the first checks to end", 2 * INTERVAL)
    pid = fleet.children[TRIGGERERS[0]].popen.pid
    before, since = use_of(pid), time.monotonic()
    _pause(fleet, "some intervals to pass", fleet.sizes.watch)
    after, watched = use_of(pid), time.monotonic() - since
    probes = front.count(path, since)
    console.say(f"{probes} probes in {watched:.0f} s, an interval is {INTERVAL} s")
    back = time.time()
    front.back()
    await_count(
        fleet,
        "all gates to open",
        lambda: airflow.count_tasks(dag_id, state=_ENDED),
        gates,
    )
    tasks = airflow.tasks(dag_id, order_by="id")
    opening = max(seconds(task["end_date"]) or back for task in tasks) - back
    opened = sum(task["state"] == "success" for task in tasks)
    console.say(
        f"{opened} of {gates} gates are open, the last {opening:.1f} s after MLflow returned"
    )
    return Crowd(
        kind=kind,
        gates=gates,
        seconds_to_wait=waiting,
        watched=watched,
        probes_per_interval=probes * INTERVAL / watched,
        cores=(after.cpu_seconds - before.cpu_seconds) / watched,
        megabytes=after.memory / 1e6,
        seconds_to_open=opening,
        opened=opened,
    )


def _pause(fleet: Fleet, what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    fleet.console.until(
        what, lambda: time.monotonic() >= end, seconds=seconds + 60, alive=fleet.processes.check
    )
