"""Children of all kinds through outages: what has arrived, a plain client beside the relay.

The children know MLflow alone; see ``tests/client/relay/kinds.py``. All kinds go through an outage
at the same time. The plain client has MLflow's own settings where MLflow comes back, and is bounded
where the name stays away, as in :mod:`benchmarks.losses`.
"""

from __future__ import annotations

import os
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

PLAIN = "subprocess, plain client"
_COLUMNS = ("async metrics", "metrics", "artifact", "trace", "seconds")
_HOSTNAME, _ADDRESS = "children.bench.test", "127.0.0.74"
#: By outage: a title, and for how many seconds MLflow is away where it comes back.
_OUTAGES = {
    "no_such_name": ("the name is gone to the end", 0.0),
    "silent": ("DNS is silent to the end", 0.0),
    "redeployed": ("redeployed to a new address, name gone meanwhile", 20.0),
    "down": ("MLflow is down for 60 s", 60.0),
}


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
    """One table for each outage; in the short form the first."""
    for outage, (title, seconds) in list(_OUTAGES.items())[: 1 if quick else None]:
        table = Table(f"children_{outage}", f"Children of a task: {title}", _COLUMNS)
        with subject.mlflow_server(server, _HOSTNAME, _ADDRESS) as process:
            table.rows = _rows(server, process, outage, seconds)
        yield table


def _rows(server: Nameserver, process: MLflowProcess, outage: str, seconds: float) -> list[Row]:
    from airflow_provider_hokusai_dns import pins
    from airflow_provider_hokusai_dns.client.relay import open_relay
    from airflow_provider_hokusai_dns.config.server import MLflowServer
    from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
    from tests.client.relay import kinds

    names = _Names(server)
    names.answer(_ADDRESS)
    resolver = DNSResolver(ResolverConfig(nameservers=(server.address,), min_ttl=1))
    there = MLflowServer(
        conn_id="children", scheme="http", hostname=_HOSTNAME, port=process.port, deadline=600
    )
    children: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if server.is_the_systems:
            uri = f"http://{_HOSTNAME}:{process.port}"
            bounds = {} if seconds else losses.PLAIN_BOUNDS
            plain = {**subject.environment(folder), "MLFLOW_TRACKING_URI": uri, **bounds}
            children[PLAIN] = (kinds.kinds()["subprocess"], plain)
        os.environ.update(subject.environment(folder))
        with open_relay(there, pins.relay_addresses(there, resolver), export=True) as relay:
            ours = relay.environment()
            children |= {name: (kind, ours) for name, kind in kinds.kinds().items()}
            found = kinds.through(
                outage, names, process, children, folder / "children", seconds=seconds
            )
    rows = [_row(name, one) for name, one in found.items()]
    if PLAIN not in children:
        rows.append(Row(PLAIN, note=f"asks the system's nameserver; {server.why_not}"))
    return rows


def _row(name: str, outcome: Outcome) -> Row:
    there = outcome.arrived
    values = (
        there["later"], there["at_once"], len(there["artifacts"]), there["traces"],
        outcome.seconds,
    )  # fmt: skip
    told = f"{there['status']}; {outcome.error}" if outcome.error else there["status"]
    return Row(name, dict(zip(_COLUMNS, values, strict=True)), told)
