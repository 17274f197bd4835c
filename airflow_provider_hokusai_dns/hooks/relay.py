"""Opens the relay of a hook, with Airflow's settings and the open run.

A separate module, so that a DAG file that imports the hook does not load it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns import pins, runtime
from airflow_provider_hokusai_dns.client.auth import tagged_uri
from airflow_provider_hokusai_dns.client.relay import Relay, open_relay
from airflow_provider_hokusai_dns.config import settings

if TYPE_CHECKING:
    from mlflow import ActiveRun

    from airflow_provider_hokusai_dns.config.server import MLflowServer
    from airflow_provider_hokusai_dns.resolver import DNSResolver


@contextmanager
def opened(
    server: MLflowServer, resolver: DNSResolver, *, export: bool, **options: Any
) -> Iterator[Relay]:
    """Open a relay for :meth:`.MLflowHook.relay`, which documents the errors.

    :param options: further options of :func:`.open_relay`.
    """
    joined = _open_run_of(server)
    if joined is not None:
        if export:
            raise ValueError(
                "relay(export=True) cannot be used inside hook.run(): the variables of the run "
                "would be overwritten. Give children relay.environment(), or open the relay "
                "without a run"
            )
        options |= {"run_id": joined.info.run_id, "experiment_id": joined.info.experiment_id}
    addresses, keep = pins.relay_addresses(server, resolver), settings.relay_keep()
    with open_relay(server, addresses, keep=keep, export=export, **options) as relay:
        runtime.mask(relay.token)
        yield relay


def _open_run_of(server: MLflowServer) -> ActiveRun | None:
    """The run that this thread has opened on this server with :meth:`.MLflowHook.run`."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is None:  # then none is open, and importing it takes seconds
        return None
    active: ActiveRun | None = mlflow.active_run()
    return active if mlflow.get_tracking_uri() == tagged_uri(server) else None
