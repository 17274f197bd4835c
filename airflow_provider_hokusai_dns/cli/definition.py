"""The names, help and arguments of our commands, which ``airflow`` reads at each start.

The commands themselves are imported when one of them is called.
"""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import (
    ARG_OUTPUT,
    ARG_VERBOSE,
    ActionCommand,
    Arg,
    CLICommand,
    GroupCommand,
    lazy_load_command,
)

_COMMANDS = "airflow_provider_hokusai_dns.cli.commands"
_EXIT_CODES = (
    "Exit code: 0 everything is usable; 1 something is unresolved or unhealthy, or could not be "
    "stored or cleared; 2 an argument, connection or setting is wrong; 3 Airflow's database is "
    "unavailable; 130 Ctrl-C."
)


def _arg(*args: Any, **kwargs: Any) -> Arg:
    return Arg(*args, **kwargs)  # type: ignore[no-untyped-call]


_CONN_ID = _arg(
    ("--conn-id",),
    help="The id of a connection to MLflow; may be repeated",
    action="append",
    default=None,
    metavar="CONN_ID",
)
_MIN_HEALTH = _arg(
    ("--min-health",),
    help="What counts as usable: degraded (works, possibly at a stale or static address) or "
    "healthy (fresh from DNS); default: degraded",
    choices=("degraded", "healthy"),
    default="degraded",
)


def _targets(help: str) -> Arg:
    return _arg(("target",), help=help, nargs="*", metavar="TARGET")


def get_hokusai_dns_cli_commands() -> list[CLICommand]:
    """The command group of this provider (key ``cli`` of the provider info)."""
    shared = (_CONN_ID, ARG_OUTPUT, ARG_VERBOSE)
    return [
        GroupCommand(
            name="hokusai-dns",
            help="Inspect and refresh the DNS names of MLflow",
            subcommands=(
                ActionCommand(
                    name="resolve",
                    help="Resolve names as a task would, and explain each step",
                    description="Resolve names as a new task would, and explain each step: hosts "
                    "file, each nameserver, the system's own lookup, the stored last known good, "
                    "the static address, what is chosen and why. Writes nothing.",
                    func=lazy_load_command(f"{_COMMANDS}.resolve"),
                    args=(_targets("Hostname, address, host:port or URL"), _MIN_HEALTH, *shared),
                    epilog=_EXIT_CODES,
                ),
                ActionCommand(
                    name="status",
                    help="Show whether MLflow is usable, and if not, why",
                    description="Check each connection once, as a gate does: its name, TLS, Host "
                    "check, login, database and registry. Without --conn-id, check the connections "
                    "that the option 'connections' of section hokusai_dns lists. Writes nothing.",
                    func=lazy_load_command(f"{_COMMANDS}.status"),
                    args=(_MIN_HEALTH, *shared),
                    epilog=_EXIT_CODES,
                ),
                ActionCommand(
                    name="refresh",
                    help="Ask DNS again, and store the answers as last known good",
                    description="Ask DNS again, bypassing every cache, and store the answers as "
                    "the last known good of all workers. Without TARGET and --conn-id, refresh the "
                    "connections and hostnames that section hokusai_dns lists.",
                    func=lazy_load_command(f"{_COMMANDS}.refresh"),
                    args=(_targets("Names, in any form"), _MIN_HEALTH, *shared),
                    epilog=_EXIT_CODES,
                ),
                ActionCommand(
                    name="clear",
                    help="Delete the stored last known good of names",
                    description="Delete the stored last known good of names, and show what was "
                    "stored. A worker that has an address in memory keeps it.",
                    func=lazy_load_command(f"{_COMMANDS}.clear"),
                    args=(_targets("Names, in any form"), *shared),
                    epilog=_EXIT_CODES,
                ),
            ),
        )
    ]
