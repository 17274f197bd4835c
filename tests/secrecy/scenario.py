"""Runs the DAG with Airflow's own machinery; a script, because Airflow has one home per process."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.secrecy import words

HERE = Path(__file__).parent


def connections(addresses: dict[str, tuple[str, int]]) -> list[dict[str, Any]]:
    """One that works, and the ways in which one does not."""
    usual = {"conn_type": "mlflow", "schema": "http", "login": words.LOGIN}
    short = {"request_timeout": 3, "deadline": 5}
    port, other = addresses[words.HOSTNAME][1], addresses[words.STRANGER][1]
    return [
        {**usual, "conn_id": "mlflow_default", "host": words.HOSTNAME, "port": port,
         "password": words.PASSWORD, "extra": {"deadline": 60}},
        {**usual, "conn_id": "mlflow_wrong", "host": words.STRANGER, "port": other,
         "password": words.WRONG_PASSWORD, "extra": short},
        {**usual, "conn_id": "mlflow_token", "host": words.STRANGER, "port": other,
         "login": None, "password": words.TOKEN, "extra": short},
        {**usual, "conn_id": "mlflow_lost", "host": words.LOST, "port": 5000,
         "password": words.WRONG_PASSWORD, "extra": short},
        {**usual, "conn_id": "mlflow_tls", "host": words.STRANGER, "port": other,
         "schema": "https", "password": words.WRONG_PASSWORD, "extra": short},
    ]  # fmt: skip


def main(out: Path, addresses: dict[str, tuple[str, int]]) -> None:
    """Run the DAG once; write down how it went."""
    from airflow.models import Connection, Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        for given in connections(addresses):
            session.add(Connection(**{**given, "extra": json.dumps(given["extra"])}))
    Variable.set("hostnames", words.STRANGER)
    with DNSServer() as dns:
        os.environ["AIRFLOW__HOKUSAI_DNS__NAMESERVERS"] = dns.address
        for hostname, (address, _) in addresses.items():
            dns.set_records(hostname, [address])
        dns.no_such_name(words.LOST)
        spec = importlib.util.spec_from_file_location("secrecy_dag", HERE / "dags" / "secrecy.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        dag_run = module.dag.test()
        tasks = {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}
    out.write_text(json.dumps({"state": str(dag_run.state), "tasks": tasks}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
