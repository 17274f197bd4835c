"""The inner process: moves into the namespaces, starts everything, tells the story, ends it all."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from demo import interrupt, namespaces, relay
from demo.console import Console
from demo.errors import DemoError
from demo.layout import AIRFLOW_ADDRESS, Layout, private_layout, shared_layout
from demo.processes import Processes
from demo.stack import USER, Stack

HELD, FAILED, IMPOSSIBLE, INTERRUPTED = 0, 1, 2, 130
READY = "ready.json"


def main(arguments: list[str] | None = None) -> int:
    """Conduct one demo; returns the exit code."""
    options = _parser().parse_args(arguments)

    def perform(processes: Processes, console: Console) -> int:
        if options.private:
            namespaces.move_in(options.root / "namespace")
        stack = Stack(_layout(options), processes, console)
        return (_tell if options.role == "story" else _stand)(options, stack)

    return conduct(options.root, options.lifeline, perform)


def conduct(root: Path, lifeline: int | None, perform: Callable[[Processes, Console], int]) -> int:
    """Do this in a folder, and end every process it has started, however it ends.

    :param lifeline: see :mod:`demo.interrupt`.
    :param perform: returns the exit code.
    """
    interrupt.interrupt_on_signals()
    if lifeline is not None:
        interrupt.interrupt_at_end_of(lifeline)
    os.chdir(root)
    console = Console()
    processes = Processes(root / "logs")
    try:
        return perform(processes, console)
    except KeyboardInterrupt:
        console.line()
        console.say("interrupted: taking everything down")
        return INTERRUPTED
    except DemoError as error:
        console.failure(str(error), root / "logs")
        return IMPOSSIBLE
    except Exception as error:
        log = root / "logs" / "conductor.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc())
        console.failure(f"Something unforeseen: {type(error).__name__}: {error}", log)
        return IMPOSSIBLE
    finally:
        interrupt.ignore_signals()
        processes.stop_all()


def command(role: str, root: Path, *, private: bool, **more: object) -> list[str]:
    """Return the command line of a conductor.

    :param role: ``story`` or ``stand``.
    :param more: further options by name; ``None`` leaves one out.
    """
    found = [sys.executable, "-m", "demo.conductor", role, str(root)]
    found += [f"--{key.replace('_', '-')}={value}" for key, value in more.items() if value]
    return namespaces.wrapped([*found, "--private"]) if private else found


def _tell(options: argparse.Namespace, stack: Stack) -> int:
    from demo import story

    return HELD if story.tell(stack, options.label) else FAILED


def _stand(options: argparse.Namespace, stack: Stack) -> int:
    """Start everything, show one training, and stay until told to stop."""
    from demo import remote, story

    layout = stack.layout
    airflow, mlflow = (
        socket.socket(fileno=door) for door in (options.airflow_door, options.mlflow_door)
    )
    relay.serve(airflow, lambda: (AIRFLOW_ADDRESS, layout.airflow_port))
    relay.serve(mlflow, lambda: (stack.mlflow_address, layout.mlflow_port))
    story.warm_up(stack)
    ready = layout.root / f"{READY}.new"
    ready.touch(mode=0o600)
    ready.write_text(json.dumps({"user": USER, "password": stack.password}))
    ready.rename(ready.with_name(READY))
    commands = remote.Remote(stack)
    while True:
        stack.processes.check(may_die="mlflow-")
        commands.serve(seconds=0.5)


def _layout(options: argparse.Namespace) -> Layout:
    make: Callable[..., Layout] = private_layout if options.private else shared_layout
    return make(options.root, options.airflow_url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.conductor")
    parser.add_argument("role", choices=("story", "stand"))
    parser.add_argument("root", type=Path)
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--label", default="")
    parser.add_argument("--lifeline", type=int)
    parser.add_argument("--airflow-door", type=int)
    parser.add_argument("--mlflow-door", type=int)
    parser.add_argument("--airflow-url", default="")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
