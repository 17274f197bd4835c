"""Tables for people and JSON for scripts, like Airflow's own commands (``--output``).

Names, Variables and error texts may come from any source. A terminal executes control characters,
so only printable characters are printed, and nothing is interpreted as markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.cli.simple_table import AirflowConsole, SimpleTable


def printable(value: object) -> str:
    """A value as text that is safe on a terminal; other characters are shown as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in str(value)
    )


def show_document(document: Mapping[str, Any], output: str) -> None:
    """Print a complete answer for a program: ``json`` or ``yaml``."""
    # By way of JSON, so that YAML gets plain values too. JSON itself escapes what is not ASCII.
    text = json.dumps(document, default=str)
    if output == "yaml":
        AirflowConsole().print_as_yaml(json.loads(text))
    elif sys.stdout.isatty():
        AirflowConsole().print_as_json(json.loads(text))
    else:  # as it is: a console would take long numbers and brackets for something to colour
        print(text)  # noqa: T201


def show_rows(rows: Sequence[Mapping[str, object]], output: str) -> None:
    """Print rows that have the same columns: ``table`` or ``plain``."""
    cells = [{name: printable(_cell(value)) for name, value in row.items()} for row in rows]
    if output == "plain":
        AirflowConsole().print_as_plain_table(cells)
        return
    from rich.text import Text

    table = SimpleTable(show_header=True)  # type: ignore[no-untyped-call]
    for name in cells[0] if cells else ():
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row.values()))
    AirflowConsole().print(table)


def print_line(sentence: str) -> None:
    """Print one sentence for people after a table."""
    print(printable(sentence))  # noqa: T201


def print_error(sentence: str) -> None:
    """Print one sentence about what is wrong to the standard error."""
    print(printable(sentence), file=sys.stderr)  # noqa: T201


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return value
