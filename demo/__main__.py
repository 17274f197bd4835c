"""``python -m demo`` tells the story; ``up``, ``down`` and ``dns`` are for a browser."""

from __future__ import annotations

import argparse
import sys

from demo import conductor, detached, interrupt, outside
from demo.console import Console
from demo.errors import DemoError


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    interrupt.interrupt_on_signals()
    try:
        if options.what == "up":
            return detached.up(console, namespace=not options.no_namespace)
        if options.what == "down":
            return detached.down(console)
        if options.what == "dns":
            return detached.tell_names(console, options.state)
        return outside.tell(console, namespace=not options.no_namespace)
    except DemoError as error:
        console.failure(str(error))
        return conductor.IMPOSSIBLE
    except KeyboardInterrupt:
        console.say("interrupted; nothing is left running")
        return conductor.INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Airflow keeps logging to an MLflow whose DNS name is gone.",
        epilog="Exit code: 0 every claim held, 1 one did not, 2 the story could not be told.",
    )
    parser.add_argument(
        "--no-namespace",
        action="store_true",
        help="use the stand-in for the outage even where private namespaces are possible",
    )
    commands = parser.add_subparsers(dest="what", metavar="COMMAND")
    commands.add_parser("story", help="the default: tell the story, with a verdict at the end")
    commands.add_parser("up", help="leave everything running for a browser")
    commands.add_parser("down", help="stop what up started")
    names = commands.add_parser("dns", help="say what DNS answers while everything is up")
    names.add_argument("state", choices=sorted(detached.STATES))
    return parser


if __name__ == "__main__":
    sys.exit(main())
