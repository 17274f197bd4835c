"""Two connections to one hostname in a real Airflow: triggerer, API server, refresh and task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from airflow_provider_hokusai_dns.store.record import variable_key
from tests.conftest import HOSTNAME, TinyMLflow
from tests.integration.test_gates_in_a_triggerer import Airflow
from tests.servers import is_installed

ADDRESS, EVIL_ADDRESS = "127.0.0.9", "127.0.0.66"
LOGIN = {"login": "me", "password": "two-connections-secret"}

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_installed(), reason="Airflow finds us by our entry points alone"),
]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[TinyMLflow, TinyMLflow]]:
    """The victim's MLflow, and one that answers just so where the other connection leads."""
    with TinyMLflow(ADDRESS) as mlflow, TinyMLflow(EVIL_ADDRESS, mlflow.port) as evil:
        yield mlflow, evil


@pytest.fixture(scope="module")
def airflow(servers, tmp_path_factory) -> Iterator[Airflow]:
    with DNSServer() as dns, DNSServer() as evil_dns:
        dns.set_records(HOSTNAME, [ADDRESS], ttl=60)
        evil_dns.set_records(HOSTNAME, [EVIL_ADDRESS], ttl=60)
        settings = {
            "AIRFLOW__HOKUSAI_DNS__NAMESERVERS": dns.address,
            "AIRFLOW__HOKUSAI_DNS__CONNECTIONS": "evil,victim",
        }
        home = tmp_path_factory.mktemp("two")
        dags = Path(__file__).with_name("two_connections_dags.py")
        with Airflow(home, dags, ("evil", "victim"), settings) as one:
            place = {"conn_type": "mlflow", "host": HOSTNAME, "schema": "http"}
            place["port"] = servers[0].port
            extra = f'{{"nameservers": "{evil_dns.address}"}}'
            evil = {"connection_id": "evil", "extra": extra}
            one.call("POST", "/api/v2/connections", {**place, **evil})
            one.call("POST", "/api/v2/connections", {**place, **LOGIN, "connection_id": "victim"})
            yield one


def state(airflow: Airflow, dag_id: str, task_id: str) -> str | None:
    return airflow.tasks(dag_id).get(task_id, {}).get("state")


def xcom(airflow: Airflow, task_id: str, key: str) -> Any:
    path = f"/api/v2/dags/victim/dagRuns/one/taskInstances/{task_id}/xcomEntries/{key}"
    return airflow.call("GET", f"{path}?stringify=false")["value"]


def test_no_request_of_one_goes_where_the_other_leads(airflow, servers):
    """The gate of the other is checked first and again and again, by the same triggerer."""
    mlflow, evil = servers
    airflow.run("evil")
    airflow.until(lambda: evil.asked and state(airflow, "evil", "gate") == "deferred")
    airflow.run("victim")
    airflow.until(lambda: state(airflow, "victim", "use_both") in ("success", "failed"))
    assert airflow.verdict("victim", "gate")["address"] == ADDRESS
    assert airflow.verdict("victim", "gate")["level"] == "healthy"

    said = xcom(airflow, "use_both", "return_value")
    assert (said["evil"], said["victim"]) == (EVIL_ADDRESS, ADDRESS)
    assert "nameservers differ" in said["refused"]

    rows = xcom(airflow, "refresh", "resolutions")
    assert {row["conn_id"]: row["addresses"] for row in rows} == {
        "evil": [EVIL_ADDRESS],
        "victim": [ADDRESS],
    }
    stored = airflow.call("GET", f"/api/v2/variables/{variable_key(HOSTNAME)}")["value"]
    assert ADDRESS in stored
    assert EVIL_ADDRESS not in stored

    shown = airflow.call("GET", "/hokusai-dns/health/mlflow")["connections"]
    assert {one["conn_id"]: one["addresses"] for one in shown} == {
        "evil": [EVIL_ADDRESS],
        "victim": [ADDRESS],
    }
    assert len({one["history_name"] for one in shown}) == 2
    assert any("Authorization" in headers for _, _, headers in mlflow.asked)
    assert not any("Authorization" in headers for _, _, headers in evil.asked)
