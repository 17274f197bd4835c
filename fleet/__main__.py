"""``python -m fleet`` runs everything; ``--small`` the same in a few minutes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace

from demo import conductor as demo_conductor
from demo import interrupt, outside
from demo.console import Console
from demo.errors import DemoError
from demo.layout import REPOSITORY
from fleet import broker, conductor, postgres
from fleet.sizes import FULL, SMALL, Sizes

HOME = REPOSITORY / ".fleet"


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    sizes = _sizes(_parser().parse_args(arguments))
    console = Console()
    interrupt.interrupt_on_signals()
    try:
        if missing := why_not():
            raise DemoError(missing)
        with outside.locked("run", HOME):
            root = HOME / "run"
            outside.fresh(root)
            return outside.conducted(
                root, lambda lifeline: conductor.command(root, sizes, lifeline)
            )
    except DemoError as error:
        console.failure(str(error))
        return demo_conductor.IMPOSSIBLE
    except KeyboardInterrupt:
        console.say("interrupted; nothing is left running")
        return demo_conductor.INTERRUPTED


def why_not() -> str | None:
    """Return what this machine lacks, or ``None``."""
    missing = []
    if postgres.find_programs() is None:
        missing.append("no PostgreSQL server (Debian: postgresql)")
    if broker.find_program() is None:
        missing.append("no Redis server (Debian: redis-server)")
    return f"There is {' and '.join(missing)} on this machine." if missing else None


def _sizes(options: argparse.Namespace) -> Sizes:
    chosen = {each.name: getattr(options, each.name) for each in fields(Sizes)}
    return replace(
        SMALL if options.small else FULL,
        **{name: value for name, value in chosen.items() if value is not None},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fleet",
        description="Gates and trainings of a whole fleet wait for MLflow, and lose no data.",
        epilog="Exit code: 0 every claim held, 1 one did not, 2 it could not be run.",
    )
    parser.add_argument("--small", action="store_true", help="smaller numbers; takes a few minutes")
    for each in fields(Sizes):
        default = f"default {getattr(FULL, each.name)}, small {getattr(SMALL, each.name)}"
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=int, metavar="N", help=default)
    return parser


if __name__ == "__main__":
    sys.exit(main())
