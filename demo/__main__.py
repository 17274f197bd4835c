"""``python -m demo`` tells the story; the rest is for a browser."""

from __future__ import annotations

import argparse
import sys

from demo import conductor, detached, interrupt, outside, remote
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
        if options.what in ("dns", "mlflow"):
            code = detached.ask([options.what, options.state])
            states = remote.DNS_STATES | remote.MLFLOW_STATES
            console.say(f"{'DNS' if options.what == 'dns' else 'MLflow'}: {states[options.state]}.")
            return code
        if options.what == "airflow":
            return detached.ask(["airflow", *options.arguments])
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
    names.add_argument("state", choices=sorted(remote.DNS_STATES))
    server = commands.add_parser("mlflow", help="stop, start or move MLflow while everything is up")
    server.add_argument("state", choices=sorted(remote.MLFLOW_STATES))
    airflow = commands.add_parser("airflow", help="Airflow's command line, inside what is up")
    airflow.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
