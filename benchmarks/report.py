"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import peers, subject
from benchmarks.measure import Table


def text_of(table: Table) -> str:
    """A table in aligned plain text."""
    width = max((len(row.name) for row in table.rows), default=0)
    widths = [
        max(9, len(column), *(len(_cell(row.values[column])) for row in table.rows if row.values))
        for column in table.columns
    ]
    lines = [
        "",
        table.title,
        "  ".join([" " * width, *(c.rjust(w) for c, w in zip(table.columns, widths, strict=True))]),
    ]
    for row in table.rows:
        if not row.values:
            lines.append(f"{row.name.ljust(width)}  skipped: {row.note}")
            continue
        cells = [
            _cell(row.values[column]).rjust(w)
            for column, w in zip(table.columns, widths, strict=True)
        ]
        lines.append("  ".join([row.name.ljust(width), *cells, row.note]).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int):
        return f"{value:,}"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def machine() -> dict[str, Any]:
    """What was measured on what."""
    return {
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": {**peers.versions(), "mlflow": subject.mlflow_version()},
    }


def write_json(path: Path, tables: Iterable[Table], seconds: float) -> None:
    """Everything that was measured, unrounded."""
    everything = {
        "version": 1,
        "machine": machine(),
        "seconds": round(seconds, 1),
        "tables": [table.as_dict() for table in tables],
    }
    path.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
