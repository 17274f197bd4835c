"""Children of all kinds through outages: what has arrived, through a relay and without one.

The children know MLflow alone; see ``tests/client/relay/kinds.py``. All kinds go through an outage
at the same time, because they mostly wait. Those without a relay have MLflow's own settings. A
child that has not ended some time after the outage began is killed: the plain client would wait
four minutes at each of its calls.

A launcher in the manner of ``torchrun`` stands in for it, unless one is on the path, or
``RELAY_TEST_TORCHRUN`` names one. MLflow has to be in its environment.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import losses, subject
from benchmarks.measure import Row, Table
from benchmarks.stage import Nameserver

if TYPE_CHECKING:
    from tests.client.relay.kinds import Outcome
    from tests.servers import MLflowProcess

PLAIN = ", no relay"
_NAMES = {
    "launcher": "torchrun (a stand-in)",
    "other python": "virtualenv, external python",
    "java": "Java",
}
#: The plain client of these is one of three.
_PLAIN = ("subprocess", "bash with curl", "java")
_QUICK = ("subprocess", "spawn", "bash with curl")
_HOSTNAME, _ADDRESS = "children.bench.test", "127.0.0.74"
#: By outage: a title, and for how many seconds MLflow is away; the first two last to the end.
_OUTAGES = {
    "no_such_name": ("name gone", 0.0),
    "silent": ("DNS silent", 0.0),
    "redeployed": ("redeployed, 20 s", 20.0),
    "down": ("down, 60 s", 60.0),
}
_LIMIT, _QUICK_LIMIT = 120.0, 30.0


class _Names:
    def __init__(self, server: Nameserver) -> None:
        self._server = server

    def answer(self, address: str) -> None:
        self._server.tell(f"set {_HOSTNAME} {address} ttl=1")

    def gone(self) -> None:
        self._server.tell(f"no_such_name {_HOSTNAME}")

    def silent(self) -> None:
        self._server.tell(f"silent {_HOSTNAME}")


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """One table: children by outages; in the short form a few children, and the first outage."""
    outages = dict(list(_OUTAGES.items())[: 1 if quick else None])
    limit = _QUICK_LIMIT if quick else _LIMIT
    table = Table(
        "children",
        "Children of a task: what of its calls has arrived, its run if not FINISHED, seconds to "
        f"its end (killed after {limit:.0f} s)",
        tuple(title for title, _ in outages.values()),
    )
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        python, why_not = _other_python(Path(folder) / "python")
        for outage, (title, seconds) in outages.items():
            with subject.mlflow_server(server, _HOSTNAME, _ADDRESS) as process:
                found = _outcomes(
                    server, process, outage, seconds, python=python, quick=quick, limit=limit,
                    folder=Path(folder) / outage,
                )  # fmt: skip
            for name, outcome in found.items():
                row = rows.setdefault(name, Row(_title(name)))
                row.values[title] = _cell(name.removesuffix(PLAIN), outcome)
    table.rows = list(rows.values())
    if not python and not quick:
        table.rows.append(Row(_NAMES["other python"], note=why_not))
    if not server.is_the_systems:
        note = f"asks the system's nameserver; {server.why_not}"
        table.rows.append(Row(PLAIN.lstrip(", "), note=note))
    yield table


def _other_python(folder: Path) -> tuple[str, str]:
    """An interpreter with MLflow and without this package, or why there is none."""
    if given := os.environ.get("RELAY_TEST_PYTHON"):
        return given, ""
    wanted = f"mlflow-skinny=={importlib.metadata.version('mlflow-skinny')}"
    python = str(folder / "bin" / "python")
    for command in (
        ["venv", "-q", "--python", sys.executable, str(folder)],
        ["pip", "install", "-q", "--offline", "--python", python, wanted],  # from uv's cache
    ):
        made = subprocess.run(
            [sys.executable, "-m", "uv", *command], capture_output=True, text=True, check=False
        )
        if made.returncode:
            return "", f"no environment with {wanted}: {made.stderr.strip()[-200:]}"
    return python, ""


def _outcomes(
    server: Nameserver,
    process: MLflowProcess,
    outage: str,
    seconds: float,
    *,
    python: str,
    quick: bool,
    limit: float,
    folder: Path,
) -> dict[str, Outcome]:
    from airflow_provider_hokusai_dns import pins
    from airflow_provider_hokusai_dns.client.relay import open_relay
    from airflow_provider_hokusai_dns.config.server import MLflowServer
    from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
    from tests.client.relay import kinds

    names = _Names(server)
    names.answer(_ADDRESS)
    resolver = DNSResolver(ResolverConfig(nameservers=(server.address,), min_ttl=1))
    there = MLflowServer(conn_id="children", scheme="http", hostname=_HOSTNAME, port=process.port)
    found = {
        name: kind for name, kind in kinds.kinds(python).items() if not quick or name in _QUICK
    }
    children: dict[str, Any] = {}
    os.environ.update(subject.environment(folder))
    with open_relay(there, pins.relay_addresses(there, resolver), export=True) as relay:
        ours = relay.environment()
        uri = f"http://{_HOSTNAME}:{process.port}"
        plain = {
            **subject.environment(folder), "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_TRACKING_TOKEN": "none",
        }  # fmt: skip
        for name, kind in found.items():
            children[name] = (kind, ours)
        if server.is_the_systems:
            children |= {f"{name}{PLAIN}": (found[name], plain) for name in _PLAIN if name in found}
        return kinds.through(
            outage, names, process, children, folder, seconds=seconds,
            patience=_QUICK_LIMIT if quick else _LIMIT, pause=losses.PAUSE,
        )  # fmt: skip


def _title(name: str) -> str:
    kind = name.removesuffix(PLAIN)
    return _NAMES.get(kind, kind) + (PLAIN if kind != name else "")


def _cell(kind: str, outcome: Outcome) -> str:
    from tests.client.relay.kinds import everything

    def count(arrived: Any) -> int:
        return int(arrived["later"] + arrived["at_once"] + arrived["traces"]) + len(
            arrived["artifacts"]
        )

    if not outcome.arrived:
        return f"did not begin: {outcome.error}"
    there, whole = outcome.arrived, everything(kind)
    arrived = (
        "all"
        if there | {"status": ""} == whole | {"status": ""}
        else (f"{count(there)} of {count(whole)}")
    )
    status = "" if there["status"] == "FINISHED" else f"{there['status']}, "
    killed = outcome.error.startswith("killed")
    end = "killed" if killed else outcome.error.partition(":")[0] or f"{outcome.seconds:.0f} s"
    return f"{arrived}, {status}{end}"
