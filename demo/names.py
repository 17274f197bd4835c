"""The demo's DNS server: the demo uses it to remove the name."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from airflow_provider_hokusai_dns.resolver.testing import send_command
from demo.errors import DemoError
from demo.layout import DNS_ADDRESS, MLFLOW_NAME, Layout

TTL = 10  # as AWS Cloud Map gives it
_SOCKET = "./dns.sock"
_CHANGES = "dns-changes.jsonl"


class Names:
    """Tells the DNS server what to say about MLflow's name, and writes down when it did.

    The server takes commands on a Unix socket. Its path is used relative to the demo's folder,
    which must be the current one: such paths may be no longer than about a hundred characters.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def command(self) -> list[str]:
        """Return the command line of the server; to be started in the demo's folder."""
        return [
            sys.executable,
            *("-m", "airflow_provider_hokusai_dns.resolver.testing"),
            *("--host", DNS_ADDRESS, "--port", str(self._layout.dns_port), "--control", _SOCKET),
        ]

    def is_up(self) -> bool:
        """Whether the server takes commands."""
        try:
            send_command(_SOCKET, "queries")
        except OSError:
            return False
        return True

    def answer(self, address: str) -> None:
        """The name exists and points here."""
        self._tell(f"set {MLFLOW_NAME} {address} ttl={TTL}", None)
        self._tell(f"heal {MLFLOW_NAME}", f"answers {address}")

    def gone(self) -> None:
        """There is no such name (NXDOMAIN)."""
        self._tell(f"no_such_name {MLFLOW_NAME}", "no such name")

    def silent(self) -> None:
        """Queries get no answer."""
        self._tell(f"silent {MLFLOW_NAME}", "silent")

    def failing(self) -> None:
        """The server answers SERVFAIL."""
        self._tell(f"servfail {MLFLOW_NAME}", "server failure")

    def _tell(self, command: str, what: str | None) -> None:
        try:
            send_command(_SOCKET, command)
        except (OSError, ValueError) as error:
            raise DemoError(f"The demo's DNS server does not take commands: {error}.") from error
        if what is None:
            return
        with Path(_CHANGES).open("a") as changes:
            changes.write(json.dumps({"at": time.time(), "dns": what}) + "\n")


def changes(folder: Path) -> list[tuple[float, str]]:
    """Return what the DNS server was told, and when (seconds since the epoch)."""
    lines = (folder / _CHANGES).read_text().splitlines()
    return [(each["at"], each["dns"]) for each in map(json.loads, lines)]
