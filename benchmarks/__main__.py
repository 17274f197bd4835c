"""``python -m benchmarks``: every figure that README.md quotes, from one run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import (
    behind,
    children,
    goals,
    herd,
    hits,
    losses,
    memory,
    misses,
    outages,
    overhead,
    relay,
    report,
    stage,
)
from benchmarks.measure import Table

_SECTIONS: dict[str, Callable[..., Iterator[Table]]] = {
    "hits": hits.measure,
    "misses": misses.measure,
    "herd": herd.measure,
    "outages": outages.measure,
    "memory": memory.measure,
    "overhead": overhead.measure,
    "losses": losses.measure,
    "relay": relay.measure,
    "children": children.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether the goals of the policy are met.

    :returns: 0, or with ``--strict`` 1 when a goal was missed.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    why_not = "it runs in this machine's own network (--here)"
    if not options.inside and not options.here:
        why_not = stage.enter_private_network(given)
    started = time.perf_counter()
    tables: dict[str, Table] = {}
    with stage.nameserver(inside=options.inside, why_not=why_not) as server:
        about = report.machine()
        print(f"Python {about['python']} on {about['system']}, {about['cores']} cores; "
              + ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
              flush=True)  # fmt: skip
        for section in options.only or _SECTIONS:
            for table in _SECTIONS[section](server, quick=options.quick):
                tables[table.key] = table
                print(report.text_of(table), flush=True)
    ahead = behind.table_of(tables)
    if ahead.rows:
        print(report.text_of(ahead))
    judged = goals.table_of(tables)
    if judged.rows:
        print(report.text_of(judged))
    seconds = time.perf_counter() - started
    summary = goals.met(judged)
    missed = summary["missed"]
    print(f"\n{summary['goals'] - len(missed)} of {summary['goals']} goals met, in {seconds:.0f} s")
    if options.json:
        report.write_json(options.json, [*tables.values(), ahead, judged], seconds)
    return 1 if options.strict and missed else 0


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(_SECTIONS):
        raise argparse.ArgumentTypeError(
            f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(_SECTIONS)}"
        )
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    parser.add_argument(
        "--only",
        action="extend",
        type=_sections,
        metavar="SECTION,...",
        help=f"these sections, of {', '.join(_SECTIONS)}; may be repeated",
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, for a try")
    parser.add_argument("--strict", action="store_true", help="fail when a goal is missed")
    parser.add_argument(
        "--here", action="store_true", help="make no private network; skips what asks the system"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
