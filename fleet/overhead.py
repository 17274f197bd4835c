"""What a gate costs on a healthy day: gated DAGs beside the same DAG without a gate."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from demo.evidence import seconds
from fleet import names
from fleet.stack import Fleet

_LIMIT = 300.0
_ENDED = ("success", "failed")


@dataclass(frozen=True, slots=True)
class Overhead:
    """One kind of gate.

    :param took: seconds of each DAG run, from being triggered to its end.
    :param ratio: the median of these over that of the runs without a gate.
    """

    kind: str
    took: tuple[float, ...]
    median: float
    ratio: float


def measure(fleet: Fleet) -> list[Overhead]:
    """Run each kind in turn, alone, so that they meet the same machine."""
    fleet.console.heading("Without faults: with and without a gate")
    kinds = (names.UNGATED, *names.MODES)
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    # The first on a worker and in a triggerer pays for what the others find in memory.
    _run(fleet, names.FROM_TRIGGER, "warm-up")
    for number in range(fleet.sizes.rounds):
        for kind in kinds:
            took[kind].append(_run(fleet, kind, f"{kind}-{number}"))
    plain = statistics.median(took[names.UNGATED])
    found = []
    for kind in kinds:
        median = statistics.median(took[kind])
        found.append(Overhead(kind, tuple(took[kind]), median, median / plain))
        fleet.console.say(f"{kind}: {median:.1f} s, {median / plain:.2f} times the ungated")
    return found


def _run(fleet: Fleet, dag_id: str, run_id: str) -> float:
    sizes = fleet.sizes
    conf = {"metrics": sizes.metrics, "seconds": sizes.training}
    fleet.airflow.trigger(dag_id, conf, run_id)

    def ended() -> float | None:
        run = fleet.airflow.dag_run(dag_id, run_id)
        if run["state"] not in _ENDED:
            return None
        if run["state"] == "failed":
            return float("inf")
        return (seconds(run["end_date"]) or 0.0) - (seconds(run["queued_at"]) or 0.0)

    return fleet.console.until(
        f"{run_id} to end", ended, seconds=_LIMIT, alive=fleet.processes.check
    )
