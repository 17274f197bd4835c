"""The end: what was measured, the verdict, and all of it as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any

from demo import report as demo_report
from demo.claims import Claim
from fleet.crowd import Crowd
from fleet.outage import Outage
from fleet.overhead import Overhead
from fleet.sizes import INTERVAL
from fleet.stack import Fleet

REPORT = demo_report.REPORT


def show(
    fleet: Fleet,
    crowds: Sequence[Crowd],
    outage: Outage,
    overheads: Sequence[Overhead],
    claims: Sequence[Claim],
) -> None:
    """Print the report, and write it to ``report.json`` in the fleet's folder."""
    console = fleet.console
    blocks = (
        _size(fleet),
        _overheads(overheads),
        _crowds(crowds),
        _faults(outage),
    )
    for title, lines in blocks:
        console.line()
        console.line(console.paint(title, "bold"))
        for line in lines:
            console.line(f"  {line}")
    console.line()
    demo_report.list_claims(console, claims)
    failed = sum(not claim.held for claim in claims)
    took = f"{console.elapsed:.0f} s"
    text, colour = (
        (f"VERDICT: {failed} of {len(claims)} claims did not hold ({took}).", "red")
        if failed
        else (f"VERDICT: all {len(claims)} claims held ({took}).", "green")
    )
    console.line(console.paint(text, "bold", colour))
    document = json.dumps(_document(fleet, crowds, outage, overheads, claims), indent=2)
    for folder in (fleet.layout.root, fleet.layout.root.parent):
        (folder / REPORT).write_text(document)


def _size(fleet: Fleet) -> tuple[str, list[str]]:
    parts = ", ".join(fleet.parts)
    return "How large", [
        f"Airflow {version('apache-airflow')}, CeleryExecutor, PostgreSQL and Redis: {parts}",
        f"{os.cpu_count()} processors; {fleet.sizes}; a check every {INTERVAL} s",
    ]


def _overheads(overheads: Sequence[Overhead]) -> tuple[str, list[str]]:
    rows = [("DAG without faults", "median", "ratio", "runs")]
    for each in overheads:
        runs = " ".join(f"{seconds:.1f}" for seconds in each.took)
        rows.append((each.kind, f"{each.median:.1f} s", f"{each.ratio:.2f}", runs))
    return "Cost of a gate without faults", _table(rows)


def _crowds(crowds: Sequence[Crowd]) -> tuple[str, list[str]]:
    rows = [
        (
            "sensor",
            "gates",
            "all wait after",
            "probes per interval",
            "triggerer",
            "memory",
            "last is open after",
        )
    ]
    for each in crowds:
        rows.append(
            (
                each.kind,
                str(each.gates),
                f"{each.seconds_to_wait:.1f} s",
                f"{each.probes_per_interval:.2f}",
                f"{each.cores:.0%} of a core",
                f"{each.megabytes:.0f} MB",
                f"{each.seconds_to_open:.1f} s",
            )
        )
    return "Gates in one triggerer while MLflow is down", [
        *_table(rows),
        "Probes were counted by a proxy in front of MLflow's port. While MLflow is down it answers",
        "503, and 404 to HttpSensor, whose trigger would otherwise ask again without a pause.",
    ]


def _faults(outage: Outage) -> tuple[str, list[str]]:
    lines = [f"{at:6.1f} s  {what}" for at, what in outage.faults]
    lines.append(
        f"The last gate opened {outage.seconds_to_open:.1f} s after MLflow was back, the last "
        f"training ended after {outage.seconds:.0f} s."
    )
    return "Gated trainings through an outage", lines


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _document(
    fleet: Fleet,
    crowds: Sequence[Crowd],
    outage: Outage,
    overheads: Sequence[Overhead],
    claims: Sequence[Claim],
) -> dict[str, Any]:
    return {
        "version": 1,
        "written_at": datetime.now().astimezone().isoformat(),
        "python": sys.version.split()[0],
        "airflow": version("apache-airflow"),
        "processors": os.cpu_count(),
        "sizes": asdict(fleet.sizes),
        "interval": INTERVAL,
        "seconds": round(fleet.console.elapsed, 1),
        "held": all(claim.held for claim in claims),
        "claims": [asdict(claim) for claim in claims],
        "overheads": [asdict(each) for each in overheads],
        "crowds": [asdict(each) for each in crowds],
        "outage": asdict(outage),
    }
