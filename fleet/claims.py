"""The claims of the fleet, evaluated from the records of Airflow, MLflow and the front."""

from __future__ import annotations

import math
from collections import Counter

from demo.claims import Claim
from fleet.crowd import Crowd
from fleet.outage import Outage, Training
from fleet.overhead import Overhead
from fleet.sizes import INTERVAL, Sizes

#: Jitter moves checks: one more may fall into the time that is watched.
_ONE_PROBE = 1.0
#: Share of another sensor's time in which a gate opens. Airflow's triggerer takes one XCom in each
#: turn of its loop, so a crowd that pushes its verdicts takes a while, whatever its sensor.
_OPENING = 1 / 3
#: States of a run at MLflow that has ended.
_OVER = {"FINISHED", "FAILED", "KILLED"}


def judge(
    sizes: Sizes, crowds: list[Crowd], outage: Outage, overheads: list[Overhead]
) -> list[Claim]:
    """Evaluate every claim."""
    return [*_crowd(sizes, *crowds), *_outage(sizes, outage), _overhead(overheads)]


def _crowd(sizes: Sizes, crowd: Crowd, peer: Crowd | None = None) -> list[Claim]:
    most = _ONE_PROBE + INTERVAL / crowd.watched
    return [
        Claim(
            f"{crowd.gates} gates in one triggerer together probe MLflow once per interval",
            crowd.probes_per_interval <= most,
            f"{crowd.probes_per_interval:.2f} probes per interval",
        ),
        _opening(sizes, crowd) if peer is None else _opening_beside(crowd, peer),
    ]


def _opening(sizes: Sizes, crowd: Crowd) -> Claim:
    return Claim(
        f"all {crowd.gates} of them open, the last at most {sizes.opening} s after MLflow is back",
        crowd.opened == crowd.gates and crowd.seconds_to_open <= sizes.opening,
        f"{crowd.opened} open after {crowd.seconds_to_open:.1f} s",
    )


def _opening_beside(crowd: Crowd, peer: Crowd) -> Claim:
    """A ratio of one run: seconds would say how busy the machine is."""
    ours, theirs = crowd.seconds_per_gate, peer.seconds_per_gate
    return Claim(
        f"all {crowd.gates} of them open once MLflow is back, each in at most {_OPENING:.0%} of "
        f"the time of Airflow's {peer.kind}",
        crowd.opened == crowd.gates and ours <= _OPENING * theirs,
        f"{crowd.opened} open after {crowd.seconds_to_open:.1f} s: {ours / theirs:.0%}",
    )


def _outage(sizes: Sizes, outage: Outage) -> list[Claim]:
    runs = outage.runs
    right = [each for each in runs if (each.state, each.gate, each.train) == ("success",) * 3]
    states = Counter(status for each in runs for status, _ in each.tracked)
    # There are two where a worker died, or the API server was away, after the end of the run and
    # before the word of it: Airflow has to try again what it does not know to be done.
    whole = [each for each in runs if _finished(each) and set(_finished(each)) == {sizes.metrics}]
    workers = Counter(each.worker for each in runs)
    killed = sum(each.tries > 1 for each in runs)
    levels = Counter(each.level for each in runs)
    return [
        Claim(
            f"all {sizes.runs} gated DAG runs succeed, through every fault",
            len(runs) == len(right) == sizes.runs,
            f"{len(right)} of {len(runs)}; {killed} trainings needed a second try",
        ),
        Claim(
            "both workers ran tasks",
            len(workers) > 1 and min(workers.values()) >= math.ceil(sizes.runs / 10),
            _listed(workers),
        ),
        Claim(
            "no run in MLflow is left RUNNING",
            states["FINISHED"] >= sizes.runs and states.keys() <= _OVER,
            _listed(states),
        ),
        Claim(
            f"no metric is lost: for each DAG run a FINISHED run, with all {sizes.metrics} values",
            len(whole) == sizes.runs,
            f"{len(whole)} of {sizes.runs} are complete",
        ),
        Claim(
            "no trigger is lost: other triggerers completed those of the killed one",
            outage.orphans > 0
            and outage.waiting == 0
            and all(each.gate == "success" for each in runs),
            f"it had {outage.orphans} gates, {outage.waiting} still wait",
        ),
        Claim(
            "gates open at the last known good address while DNS does not answer",
            levels["degraded"] > 0 and levels["degraded"] + levels["healthy"] == sizes.runs,
            _listed(levels),
        ),
    ]


def _finished(run: Training) -> list[int]:
    return [values for status, values in run.tracked if status == "FINISHED"]


def _overhead(overheads: list[Overhead]) -> Claim:
    return Claim(
        "without faults every gated DAG succeeds",
        all(math.isfinite(each.median) for each in overheads),
        ", ".join(f"{each.kind} x {each.ratio:.2f}" for each in overheads[1:]),
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "nothing"
