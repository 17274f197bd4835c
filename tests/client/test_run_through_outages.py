"""A run on a pinned name whose DNS, or whose server, goes away in the middle."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.client import auth
from airflow_provider_hokusai_dns.client.run import open_run
from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from airflow_provider_hokusai_dns.health.probe import probe
from airflow_provider_hokusai_dns.health.stale_addresses import check_stale_address
from airflow_provider_hokusai_dns.health.verdict import State
from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from airflow_provider_hokusai_dns.resolver.pin import Pin, pin_host
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.servers import MLflowProcess
from tests.values import a_server

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(480),
]

NAME = "mlflow.test"


@pytest.fixture
def resolver(dns: DNSServer) -> DNSResolver:
    config = ResolverConfig(
        nameservers=(dns.address,), min_ttl=0.2, timeout=1.0, stale_after=0.2, no_name_recheck=0.2
    )
    return DNSResolver(config)


def forget_connections() -> None:
    """What five idle seconds do: uvicorn closes its connections, and the name is needed again."""
    from mlflow.utils.request_utils import _cached_get_request_session

    _cached_get_request_session.cache_clear()


def pinned(server: MLflowServer, resolver: DNSResolver) -> Pin:
    """As the hook does it: look the name up, and pin it."""
    forget_connections()
    resolver.resolve(NAME)
    return pin_host(NAME, resolver, stale_check=partial(check_stale_address, server))


@pytest.fixture
def server(mlflow_server: MLflowProcess) -> MLflowServer:
    return a_server(
        port=mlflow_server.port, experiment="outages", credentials=Credentials(secret="t")
    )


@pytest.mark.parametrize("outage", ["no_such_name", "silent"])
def test_nothing_is_lost_while_the_name_is_gone(
    dns: DNSServer,
    resolver: DNSResolver,
    server: MLflowServer,
    mlflow_server: MLflowProcess,
    outage: str,
) -> None:
    """Metrics, an artifact and a trace after the name went away; and the probe says degraded."""
    import mlflow

    @mlflow.trace
    def traced() -> None:
        pass

    dns.set_records(NAME, [mlflow_server.host], ttl=1)
    pin = pinned(server, resolver)
    try:
        with (
            pin.patient(60),
            open_run(replace(server, deadline=90), auth.sign_in(server)) as run,
        ):
            for step in range(200):
                if step == 100:
                    mlflow.flush_async_logging()
                    dns.remove(NAME) if outage == "no_such_name" else dns.silent(NAME)
                    time.sleep(1.2)
                    forget_connections()
                mlflow.log_metric("m", step, step=step, synchronous=False)
            mlflow.log_text("hello", "note.txt")
            traced()
            assert probe(server, resolver.resolve(NAME)).state is State.DEGRADED
        client: Any = mlflow.MlflowClient(auth.tagged_uri(server))
        done = client.get_run(run.info.run_id)
        assert done.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "m")) == 200
        assert len(client.list_artifacts(run.info.run_id)) == 1
        traces = client.search_traces(
            locations=[done.info.experiment_id], run_id=run.info.run_id, include_spans=False
        )
        assert len(traces) == 1
    finally:
        pin.release()


def test_a_redeploy_to_a_new_address_costs_a_writing_run_nothing_but_time(
    dns: DNSServer, resolver: DNSResolver, tmp_path: Path
) -> None:
    """As ECS does it: name gone, server gone, a new one elsewhere, and then the name again."""
    import mlflow

    with MLflowProcess(tmp_path / "mlflow", host="127.0.0.45") as old:
        new = MLflowProcess(tmp_path / "mlflow", host="127.0.0.46", port=old.port)
        server = a_server(port=old.port, experiment="redeploy")
        dns.set_records(NAME, [old.host], ttl=1)
        pin = pinned(server, resolver)

        def redeploy() -> None:
            dns.remove(NAME)
            old.stop(kill=True)
            new.start()
            time.sleep(1)
            dns.set_records(NAME, [new.host], ttl=1)

        deployer = threading.Thread(target=redeploy)
        try:
            with pin.patient(240), open_run(server, auth.sign_in(server)) as run:
                for step in range(100):
                    if step == 50:
                        deployer.start()
                    mlflow.log_metric("m", step, step=step, synchronous=False)
                    time.sleep(0.01)
            deployer.join()
            client: Any = mlflow.MlflowClient(auth.tagged_uri(server))
            assert client.get_run(run.info.run_id).info.status == "FINISHED"
            assert len(client.get_metric_history(run.info.run_id, "m")) == 100
        finally:
            deployer.join()
            pin.release()
            new.stop()
