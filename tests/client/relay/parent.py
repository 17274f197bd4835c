"""A task with a relay and one child, for the test that stops it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.client.relay import open_relay
from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from tests.client.relay.support import a_server


def main() -> None:
    nameserver, port, folder = sys.argv[1:]
    server = a_server(port=int(port))
    resolver = DNSResolver(ResolverConfig(nameservers=(nameserver,)))
    child = str(Path(__file__).with_name("child.py"))
    with open_relay(server, runtime.relay_addresses(server, resolver)) as relay:
        subprocess.run([sys.executable, child, folder], env=relay.environment(), check=True)


if __name__ == "__main__":
    main()
