"""The end of the story: a timeline, a table, the verdict, and all of it as JSON."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from demo.claims import ARTIFACTS, METRICS, OURS, Claim
from demo.console import WIDTH, Console
from demo.evidence import DagRun, Evidence
from demo.layout import FIRST_ADDRESS, MLFLOW_NAME, SECOND_ADDRESS
from demo.stack import Stack

REPORT = "report.json"
_WIDTH = 76
_LABEL = 18
_DNS_SIGNS = {
    f"answers {FIRST_ADDRESS}": "─",
    f"answers {SECOND_ADDRESS}": "═",
    "no such name": "x",
    "silent": "·",
}
_GATE, _WORK = "░", "█"

Changes = Sequence[tuple[float, str]]


def show(
    stack: Stack,
    evidence: Evidence,
    claims: Sequence[Claim],
    label: str,
    plain_bounds: Mapping[str, int],
) -> None:
    """Print the report, and write it to ``report.json`` in the demo's folder."""
    from demo import names

    console = stack.console
    changes = names.changes(stack.layout.root)
    runs = sorted(evidence.runs.values(), key=lambda run: run.queued)
    for line in _timeline(console, runs, changes):
        console.line(line)
    console.line()
    for line in _table(console, runs, changes):
        console.line(line)
    console.line()
    for line in textwrap.wrap(_fine_print(label, plain_bounds), WIDTH - 2):
        console.line(console.paint(f"  {line}", "dim"))
    console.line()
    list_claims(console, claims)
    console.line(_verdict(console, claims))
    document = _document(stack, evidence, claims, label, changes)
    (stack.layout.root / REPORT).write_text(json.dumps(document, indent=2))
    (stack.layout.root.parent / REPORT).write_text(json.dumps(document, indent=2))


def list_claims(console: Console, claims: Sequence[Claim]) -> None:
    """Print each promise with what was found."""
    for claim in claims:
        mark = console.paint("held  ", "green") if claim.held else console.paint("FAILED", "red")
        first, *rest = textwrap.wrap(f"{claim.promise}: {claim.found}", WIDTH - 10)
        console.line(f"  {mark}  {first}")
        for line in rest:
            console.line(f"{'':<10}{line}")
    console.line()


def _timeline(console: Console, runs: Sequence[DagRun], changes: Changes) -> list[str]:
    began = runs[0].queued if runs else 0.0
    ended = max([run.end or run.queued for run in runs], default=began + 1)
    scale = (_WIDTH - 1) / max(ended - began, 1.0)

    def column(at: float) -> int:
        return min(_WIDTH - 1, max(0, round((at - began) * scale)))

    def bar(*parts: tuple[float | None, float | None, str]) -> list[str]:
        cells = [" "] * _WIDTH
        for start, end, sign in parts:
            if start is not None:
                for cell in range(column(start), column(end if end is not None else ended) + 1):
                    cells[cell] = sign
        return cells

    lines = [_axis(began, ended, column)]
    spans = [
        (at, changes[index + 1][0] if index + 1 < len(changes) else ended, _DNS_SIGNS[what])
        for index, (at, what) in enumerate(changes)
    ]
    colours = {"─": "green", "═": "green", "x": "red", "·": "red"}
    dns = "".join(console.paint(sign, colours.get(sign, "dim")) for sign in bar(*spans))
    lines.append(f"{'DNS says':<{_LABEL}}{dns}")
    for run in runs:
        parts = [(t.start, t.end, _GATE if t.is_gate else _WORK) for t in run.tasks]
        gate = run.gate_task
        if gate is not None:  # its own start is that of its last look: it waited since the trigger
            parts.insert(0, (run.start, gate.end, _GATE))
        text = "".join(bar(*parts)).rstrip()
        lines.append(f"{run.run_id:<{_LABEL}}{console.paint(text, _colour(run))}")
    first, second, gone, silent = _DNS_SIGNS.values()
    lines.append(
        f"{'':<{_LABEL}}{first} {FIRST_ADDRESS}  {second} {SECOND_ADDRESS}  {gone} no such name  "
        f"{silent} no answer  |  {_GATE} gate  {_WORK} work"
    )
    return lines


def _axis(began: float, ended: float, column: Any) -> str:
    steps = (5, 10, 15, 20, 30, 60, 120, 300)
    step = next((step for step in steps if (ended - began) / step <= 8), 600)
    cells = [" "] * (_WIDTH + 8)
    for second in range(0, int(ended - began) + 1, step):
        for index, char in enumerate(f"{second} s" if second == 0 else str(second)):
            cells[column(began + second) + index] = char
    return f"{'':<{_LABEL}}{''.join(cells).rstrip()}"


def _table(console: Console, runs: Sequence[DagRun], changes: Changes) -> list[str]:
    head = ("run", "DNS meanwhile", "gate", "DAG run", "MLflow run", "metrics", "files", "model")
    rows = [(*head, "time")] + [_row(run, changes) for run in runs]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    painted = [console.paint(lines[0], "bold"), "  ".join("─" * width for width in widths)]
    painted += [
        console.paint(line, _colour(run)) for line, run in zip(lines[1:], runs, strict=True)
    ]
    return painted


def _row(run: DagRun, changes: Changes) -> tuple[str, ...]:
    there = run.tracked
    gate = (run.gate or {}).get("level", "-" if run.gate_task is None else "nothing")
    if run.refresh is not None:
        outcome = ("-",) * 4
    elif there is None:
        outcome = ("none", f"0/{METRICS}", f"0/{len(ARTIFACTS)}", "none")
    else:
        outcome = (
            there.status,
            f"{there.metrics}/{METRICS}",
            f"{len(there.artifacts)}/{len(ARTIFACTS)}",
            ", ".join(model.rpartition(" ")[2] for model in there.models) or "none",
        )
    return (
        run.run_id,
        _dns_during(run, changes),
        gate,
        run.state,
        *outcome,
        f"{run.seconds:.0f} s",
    )


def _dns_during(run: DagRun, changes: Changes) -> str:
    words = {
        f"answers {FIRST_ADDRESS}": "fine",
        f"answers {SECOND_ADDRESS}": "fine",
        "no such name": "gone",
    }
    seen: list[str] = []
    for index, (at, what) in enumerate(changes):
        until = changes[index + 1][0] if index + 1 < len(changes) else float("inf")
        if at < (run.end or run.queued) and until > run.queued:
            seen.append(words.get(what, what))
    return ", ".join(seen)


def _colour(run: DagRun) -> str:
    if run.refresh is not None:
        return "cyan"
    return "green" if run.run_id in OURS else "yellow"


def _fine_print(label: str, bounds: Mapping[str, int]) -> str:
    return (
        f"Outage: {label}. Every number above was read at the end over REST, from Airflow and from "
        "MLflow; only what DNS was told, and when, is the demo's own record. The plain client was "
        f"bounded to {bounds['max_retries']} retry and {bounds['timeout']} s a call, as the outage "
        "is shortened here, too: with MLflow's own settings (7 retries, 120 s) a call without a "
        "name hangs for about four minutes, survives a gap as short as this one, and fails in the "
        "same way when the name stays away longer, as it does for up to five minutes in a VPC. "
        "Ours ran with its own defaults."
    )


def _verdict(console: Console, claims: Sequence[Claim]) -> str:
    failed = [claim for claim in claims if not claim.held]
    took = f"{console.elapsed:.0f} s"
    if failed:
        text = f"VERDICT: {len(failed)} of {len(claims)} claims did not hold ({took})."
        return console.paint(text, "bold", "red")
    text = (
        f"VERDICT: all {len(claims)} claims held ({took}). {MLFLOW_NAME} went away three times,\n"
        "         and runs with this package lost nothing."
    )
    return console.paint(text, "bold", "green")


def _document(
    stack: Stack, evidence: Evidence, claims: Sequence[Claim], label: str, changes: Changes
) -> dict[str, Any]:
    return {
        "version": 1,
        "outage": label,
        "private_namespaces": stack.layout.private,
        "python": sys.version.split()[0],
        "written_at": datetime.now().astimezone().isoformat(),
        "seconds": round(stack.console.elapsed, 1),
        "held": all(claim.held for claim in claims),
        "claims": [asdict(claim) for claim in claims],
        "dns": [{"at": at, "says": what} for at, what in changes],
        "runs": [asdict(run) | {"seconds": run.seconds} for run in evidence.runs.values()],
        "variables": evidence.variables,
    }
