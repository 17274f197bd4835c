"""The addresses of an MLflow server as the process's resolver knows them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver.door import Door, Rule
from airflow_provider_hokusai_dns.tracking.probe import vet_old_address

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.client.relay.upstream import AddressesNow
    from airflow_provider_hokusai_dns.resolver import DNSResolver
    from airflow_provider_hokusai_dns.tracking.server import MLflowServer


def addresses_of(server: MLflowServer, resolver: DNSResolver) -> AddressesNow:
    """What a relay asks at each new connection: trials, penalties and the rule for stale addresses.

    It pins nothing. Two relays to one name have rules of their own.
    """
    rule = Rule(server.connect_port, server.deadline, partial(vet_old_address, server))
    door = Door(
        server.hostname,
        server.connect_port,
        resolver,
        rules=lambda: [rule],
        patience=lambda: [(server.deadline, 0.0)],
    )
    return door.addresses
