"""The inner process: starts everything, lets it bear what it has to, ends it all."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from demo import conductor
from demo.console import Console
from demo.processes import Processes
from demo.stack import python_module
from fleet import drill
from fleet.sizes import Sizes
from fleet.stack import Fleet


def main(arguments: list[str] | None = None) -> int:
    """Conduct one fleet; returns the exit code."""
    options = _parser().parse_args(arguments)

    def perform(processes: Processes, console: Console) -> int:
        fleet = Fleet(options.root, Sizes(**json.loads(options.sizes)), processes, console)
        return conductor.HELD if drill.run(fleet) else conductor.FAILED

    return conductor.conduct(options.root, options.lifeline, perform)


def command(root: Path, sizes: Sizes, lifeline: int) -> list[str]:
    """Return the command line of a conductor."""
    options = ("--sizes", json.dumps(asdict(sizes)), "--lifeline", str(lifeline))
    return [*python_module("fleet.conductor"), str(root), *options]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fleet.conductor")
    parser.add_argument("root", type=Path)
    parser.add_argument("--sizes", required=True)
    parser.add_argument("--lifeline", type=int)
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
