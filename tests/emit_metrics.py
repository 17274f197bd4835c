"""A process with Airflow's metrics configured in which everything happens that we count; a script.

It begins as Airflow's task runner does: by taking the metrics that the configuration names.
"""

from __future__ import annotations

import contextlib
import os
import warnings

from tests.conftest import HOSTNAME, TinyMLflow  # also takes an Airflow home of its own

warnings.simplefilter("ignore")


def main() -> None:
    from airflow.providers.common.compat.sdk import Stats, conf
    from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

    from airflow_provider_hokusai_dns import runtime
    from airflow_provider_hokusai_dns.config import connections
    from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
    from airflow_provider_hokusai_dns.gates import check
    from airflow_provider_hokusai_dns.resolver.testing import DNSServer

    Stats.initialize(
        factory=get_stats_factory(),
        export_legacy_names=conf.getboolean("metrics", "legacy_names_on", fallback=True),
    )
    os.environ["AIRFLOW__HOKUSAI_DNS__CACHE_TTL"] = "0.2"
    os.environ["AIRFLOW__HOKUSAI_DNS__MIN_TTL"] = "0"
    os.environ["AIRFLOW__HOKUSAI_DNS__TIMEOUT"] = "1"
    with DNSServer() as dns, TinyMLflow("127.0.0.9") as tiny:
        dns.set_records(HOSTNAME, [tiny.address])
        os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = (
            f'{{"conn_type": "mlflow", "host": "{HOSTNAME}", "port": {tiny.port},'
            f' "extra": {{"nameservers": "{dns.address}"}}}}'
        )
        check.check_connection("mlflow_default")
        resolver = runtime.resolver_for_server(connections.load_server())
        for _ in range(5):
            resolver.resolve(HOSTNAME)  # from memory
        tiny.answers["*"] = (503, "down")
        for _ in range(10):
            check.check_connection("mlflow_default")  # opens the breaker
        dns.no_such_name(HOSTNAME)
        for _ in range(2):
            resolver.refresh(HOSTNAME)  # an old answer
        os.environ["AIRFLOW_CONN_OTHER"] = (
            f'{{"conn_type": "mlflow", "host": "static.local", "extra": {{"nameservers":'
            f' "{dns.address}", "fallback_addresses": "127.0.0.9"}}}}'
        )
        dns.no_such_name("static.local")
        other = runtime.resolver_for_server(connections.load_server("other"))
        for _ in range(2):
            other.refresh("static.local")
        with contextlib.suppress(DNSResolutionError):
            other.refresh("nothing.invalid")
        dns.silent("static.local")
        other.refresh("static.local")


if __name__ == "__main__":
    main()
