"""What the story promises, each promise judged by what Airflow and MLflow say."""

from __future__ import annotations

from dataclasses import dataclass

from demo.evidence import DagRun, Evidence
from demo.layout import FIRST_ADDRESS, SECOND_ADDRESS

REFRESH = "refresh"
HEALTHY = "healthy"
GONE = "name-gone"
SILENT = "dns-silent"
SILENT_PLAIN = "dns-silent-plain"
WRITING = "redeploy"
WRITING_PLAIN = "redeploy-plain"
WRITING_CHILD = "redeploy-child"
GATED = "triggered-in-gap"
REFRESH_AGAIN = "refresh-again"
STEADY = "steady-again"

#: The runs that use this package to train, in the order of the story.
OURS = (HEALTHY, GONE, SILENT, WRITING, GATED, STEADY)
METRICS = 200
ARTIFACTS = ("model/weights.json", "notes/report.txt")


@dataclass(frozen=True, slots=True)
class Claim:
    """One promise, and what was found.

    :param found: the evidence in a few words.
    """

    promise: str
    held: bool
    found: str


def judge(evidence: Evidence, dns: list[tuple[float, str]]) -> list[Claim]:
    """Judge every promise of the story.

    :param dns: what DNS was told to say, and when.
    """
    runs = evidence.runs
    verdicts = [_variable_written(evidence)]
    verdicts += [_complete(runs.get(run_id), run_id) for run_id in (*OURS, WRITING_CHILD)]
    verdicts += [
        _gate_said(runs.get(HEALTHY), HEALTHY, "healthy", FIRST_ADDRESS),
        _gate_said(runs.get(GONE), GONE, "degraded", FIRST_ADDRESS),
        _gate_said(runs.get(SILENT), SILENT, "degraded", FIRST_ADDRESS),
        _gate_said(runs.get(STEADY), STEADY, "healthy", SECOND_ADDRESS),
        _fresh_processes(runs),
        _plain_lost(runs.get(SILENT_PLAIN), SILENT_PLAIN),
        _plain_lost(runs.get(WRITING_PLAIN), WRITING_PLAIN),
        _wrote_through(runs.get(WRITING), WRITING, dns),
        _wrote_through(runs.get(WRITING_CHILD), WRITING_CHILD, dns),
        _gate_waited(runs.get(GATED), dns),
        _change_noticed(runs.get(REFRESH_AGAIN)),
    ]
    return verdicts


def _variable_written(evidence: Evidence) -> Claim:
    run = evidence.runs.get(REFRESH)
    resolved = (
        [
            address
            for row in (run.refresh or {}).get("resolutions", [])
            for address in row["addresses"]
        ]
        if run
        else []
    )
    stored = [a for value in evidence.variables.values() for a in value.get("addresses", ())]
    return Claim(
        "the refresh DAG keeps the last known good in a Variable",
        run is not None and run.state == "success" and resolved == [FIRST_ADDRESS] and bool(stored),
        f"it found {_list(resolved)}; the Variable holds {_list(stored)} at the end",
    )


def _complete(run: DagRun | None, run_id: str) -> Claim:
    promise = f"run {run_id!r} loses nothing: FINISHED, {METRICS} metrics, all artifacts, a model"
    if run is None or run.tracked is None:
        return Claim(promise, False, "MLflow knows no such run")
    there = run.tracked
    missing = [name for name in ARTIFACTS if name not in there.artifacts]
    held = (
        run.state == "success"
        and all(task.state == "success" for task in run.tasks)
        and there.status == "FINISHED"
        and there.metrics == METRICS
        and not missing
        and bool(there.models)
    )
    return Claim(
        promise,
        held,
        f"{there.status}, {there.metrics} metrics, {len(there.artifacts)} artifacts, "
        f"{_list(there.models)}",
    )


def _gate_said(run: DagRun | None, run_id: str, level: str, address: str) -> Claim:
    gate = (run.gate if run else None) or {}
    return Claim(
        f"the gate of run {run_id!r} says {level}, on {address}",
        gate.get("level") == level and gate.get("address") == address,
        f"{gate.get('level', 'nothing')}, on {gate.get('address', 'no address')}",
    )


def _fresh_processes(runs: dict[str, DagRun]) -> Claim:
    tasks = [task for run_id in OURS if run_id in runs for task in runs[run_id].tasks if task.pid]
    pids = {task.pid for task in tasks}
    return Claim(
        "every task of these runs is a fresh process, with an empty memory",
        len(tasks) >= 2 * len(OURS) and len(pids) == len(tasks),
        f"{len(tasks)} tasks in {len(pids)} processes",
    )


def _plain_lost(run: DagRun | None, run_id: str) -> Claim:
    """The comparison is worth something only if the plain client was really hurt."""
    promise = f"the plain client of run {run_id!r} loses what ours keeps"
    if run is None:
        return Claim(promise, False, "it never ran")
    if run.tracked is None:
        return Claim(
            promise, run.state == "failed", f"{run.state}, no run at MLflow: 0 of {METRICS} metrics"
        )
    there = run.tracked
    return Claim(
        promise,
        there.metrics < METRICS or there.status != "FINISHED",
        f"{run.state}, run {there.status}, {there.metrics} of {METRICS} metrics, "
        f"{len(there.artifacts)} of {len(ARTIFACTS)} artifacts",
    )


def _wrote_through(run: DagRun | None, run_id: str, dns: list[tuple[float, str]]) -> Claim:
    promise = f"run {run_id!r} was writing before, during and after the redeploy"
    gap = _gap(dns)
    if run is None or run.tracked is None or run.tracked.end is None or gap is None:
        return Claim(promise, False, "there is no such run, or no redeploy")
    held = run.tracked.start < gap[0] and run.tracked.end > gap[1]
    return Claim(
        promise,
        held,
        f"it began {gap[0] - run.tracked.start:.0f} s before the name went, which was away for "
        f"{gap[1] - gap[0]:.0f} s, and ended {run.tracked.end - gap[1]:.0f} s after it came back",
    )


def _gate_waited(run: DagRun | None, dns: list[tuple[float, str]]) -> Claim:
    promise = "the DAG run triggered in the gap waits at its gate, which opens by itself"
    gap = _gap(dns)
    gate = run.gate_task if run else None
    if run is None or gate is None or gate.end is None or gap is None:
        return Claim(promise, False, "there is no such run, or no redeploy")
    held = gap[0] < run.queued < gap[1] < gate.end and gate.state == "success"
    return Claim(
        promise,
        held,
        f"triggered {run.queued - gap[0]:.0f} s into the gap, open "
        f"{gate.end - gap[1]:.0f} s after the name came back",
    )


def _change_noticed(run: DagRun | None) -> Claim:
    rows = ((run.refresh if run else None) or {}).get("resolutions", [])
    addresses = [address for row in rows for address in row["addresses"]]
    healthy = bool(rows) and all(row["health"] == "healthy" for row in rows)
    return Claim(
        f"the refresh DAG finds the new address {SECOND_ADDRESS}, fresh from DNS",
        healthy and addresses == [SECOND_ADDRESS],
        f"{_list(addresses)}, {'healthy' if healthy else 'not healthy'}",
    )


def _gap(dns: list[tuple[float, str]]) -> tuple[float, float] | None:
    """Return when the name went away before the redeploy, and when it came back."""
    back = next((at for at, what in dns if SECOND_ADDRESS in what), None)
    gone = [at for at, what in dns if what == "no such name" and (back is None or at < back)]
    return (gone[-1], back) if gone and back is not None else None


def _list(values: list[str] | tuple[str, ...]) -> str:
    return ", ".join(values) or "nothing"
