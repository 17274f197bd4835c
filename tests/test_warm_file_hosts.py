"""File hosts are known before the first artifact, which may come after DNS is gone."""

from __future__ import annotations

from airflow_provider_hokusai_dns import pins, runtime
from airflow_provider_hokusai_dns.config import connections
from tests.conftest import HOSTNAME

FILES = "artifacts.hokusai-test.local"


def test_hosts_of_also_pin_are_looked_up_when_the_connection_is_first_used(usable, dns):
    """And then outlive their DNS as MLflow's own name does, without a call before."""
    dns.set_records(FILES, ["127.0.0.9"], ttl=1)
    usable(also_pin=[FILES])
    pins.pin(connections.load_server())
    assert runtime.resolver().wait_idle(10)
    dns.no_such_name(FILES)
    dns.no_such_name(HOSTNAME)
    assert runtime.resolver().refresh(FILES).addresses == ("127.0.0.9",)


def test_a_file_host_without_a_name_breaks_nothing(usable, dns):
    """It is a lookup ahead of its time: who needs the host gets the error then."""
    dns.no_such_name(FILES)
    usable(also_pin=[FILES])
    assert len(pins.pin(connections.load_server())) == 2
