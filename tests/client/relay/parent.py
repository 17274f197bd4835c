"""A task with a relay and one child, for the tests that stop it.

Usage: ``parent.py NAMESERVER PORT FOLDER [TAGS]``, the tags of the task as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from airflow_provider_hokusai_dns import pins
from airflow_provider_hokusai_dns.client.relay import open_relay
from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from tests.client.relay.support import a_server


def main() -> None:
    nameserver, port, folder, *tags = sys.argv[1:]
    server = a_server(port=int(port))
    resolver = DNSResolver(ResolverConfig(nameservers=(nameserver,)))
    child = str(Path(__file__).with_name("child.py"))
    run_tags = json.loads(tags[0]) if tags else {}
    addresses = pins.relay_addresses(server, resolver)
    with open_relay(server, addresses, run_tags=run_tags) as relay:
        subprocess.run([sys.executable, child, folder], env=relay.environment(), check=True)


if __name__ == "__main__":
    main()
