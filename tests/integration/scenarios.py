"""What happens in a real Airflow with ``dag.test()``; run as a script by ``test_dag_runs.py``.

In a process of its own, because Airflow keeps one database per process. Writes what it saw as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_hokusai_dns.resolver.testing import DNSServer

HERE = Path(__file__).parent
HOSTNAME = "mlflow.hokusai-test.local"
ADDRESS = "127.0.0.8"
SECRET = "hunter2-password"
REPOSITORY_DAGS = HERE.parents[1] / "dags"


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"dags_of_a_test_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Scenarios:
    """One method per scenario; each gives what the test looks at."""

    def __init__(self, dns: DNSServer, port: int) -> None:
        self.dns, self.port = dns, port
        os.environ["AIRFLOW__HOKUSAI_DNS__NAMESERVERS"] = dns.address
        self.gates = load(HERE / "gate_dags" / "gates.py")

    def connect(self) -> None:
        os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = json.dumps(
            {
                "conn_type": "mlflow",
                "host": HOSTNAME,
                "port": self.port,
                "login": "me",
                "password": SECRET,
                "extra": {"cache_ttl": 0.1},
            }
        )

    def fresh(self) -> None:
        """As if the next task ran in a new worker process."""
        from airflow_provider_hokusai_dns import runtime

        runtime.forget()

    def run(self, dag: Any, conf: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run a DAG; gives its state, those of its tasks, and their XComs."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        self.fresh()
        dag_run = dag.test(run_conf=conf)
        with create_session() as session:
            xcoms = {
                f"{one.task_id}.{one.key}": XComModel.deserialize_value(one)
                for one in session.query(XComModel).filter(XComModel.run_id == dag_run.run_id)
            }
        tasks = {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}
        return {"state": str(dag_run.state), "tasks": tasks, "xcoms": xcoms, "id": dag_run.run_id}

    def variable(self) -> str | None:
        from airflow.models import Variable

        from airflow_provider_hokusai_dns.store.record import variable_key

        return Variable.get(variable_key(HOSTNAME), None)

    def history(self) -> str | None:
        from airflow.models import Variable

        from airflow_provider_hokusai_dns.store.history import history_key

        return Variable.get(history_key(HOSTNAME), None)

    def put_variable(self, text: str) -> None:
        from airflow.models import Variable

        from airflow_provider_hokusai_dns.store.record import variable_key

        Variable.set(variable_key(HOSTNAME), text)

    # --- in this order: the later ones rely on what the first have written

    def refresh(self) -> Any:
        dag = load(REPOSITORY_DAGS / "hokusai_dns_refresh.py").dag
        before = self.variable()
        return {
            **self.run(dag),
            "before": before,
            "variable": self.variable(),
            "history": self.history(),
        }

    def training(self) -> Any:
        module = load(REPOSITORY_DAGS / "mlflow_training_example.py")
        dag = module.mlflow_training_example()
        return self.run(dag, {"run_name": "healthy", "pause": 0.001})

    def training_without_a_name(self) -> Any:
        module = load(REPOSITORY_DAGS / "mlflow_training_example.py")
        self.dns.no_such_name(HOSTNAME)
        try:
            return {
                **self.run(module.mlflow_training_example(), {"run_name": "gone", "pause": 0.001}),
                "variable": self.variable(),
            }
        finally:
            self.dns.set_records(HOSTNAME, [ADDRESS])

    def refresh_after_the_outage(self) -> Any:
        dag = load(REPOSITORY_DAGS / "hokusai_dns_refresh.py").dag
        return {**self.run(dag), "variable": self.variable()}

    def gate_poke(self) -> Any:
        return self.run(self.gates.gate_poke)

    def gate_reschedule(self) -> Any:
        return self.run(self.gates.gate_reschedule)

    def gate_deferrable(self) -> Any:
        return self.run(self.gates.gate_deferrable)

    def gates_that_wait(self) -> Any:
        """The name is not known anywhere, and comes after a while."""
        import threading

        found = {}
        for mode in ("poke", "reschedule", "deferrable"):
            late = f"late-{mode}.local"
            self.dns.no_such_name(late)
            given = json.loads(os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"])
            os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = json.dumps({**given, "host": late})
            # MLflow itself refuses this name (Host check): only the name is waited for.
            gate = getattr(self.gates, f"gate_{mode}")
            gate.task_dict["gate"].checks = ("dns",)
            timer = threading.Timer(1.5, self.dns.set_records, (late, [ADDRESS]))
            timer.start()
            try:
                found[mode] = self.run(gate)
            finally:
                timer.join()
                gate.task_dict["gate"].checks = ("dns", "tracking", "registry")
        self.connect()
        return found

    def gate_missing(self) -> Any:
        return self.run(self.gates.gate_missing)

    def gate_missing_soft(self) -> Any:
        return self.run(self.gates.gate_missing_soft)

    def shut_gate(self) -> Any:
        return self.run(self.gates.shut_gate)

    def bad_name(self) -> Any:
        self.dns.no_such_name("gone.local")
        return self.run(self.gates.bad_name, {"hostnames": ["gone.local"]})

    def broken_variable(self) -> Any:
        from airflow.models import Variable

        from airflow_provider_hokusai_dns.store.record import variable_key

        self.put_variable("{edited into nonsense")
        gate = self.run(self.gates.gate_poke)
        after_gate = self.variable()
        refresh = self.run(load(REPOSITORY_DAGS / "hokusai_dns_refresh.py").dag)
        return {
            "gate": gate,
            "after_gate": after_gate,
            "refresh": refresh,
            "after_refresh": self.variable(),
            "aside": Variable.get(f"{variable_key(HOSTNAME)}_unreadable", None),
        }

    def tried_again(self) -> Any:
        first = self.run(self.gates.tried_again)
        from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

        client = MLflowHook().get_conn()
        experiment = client.get_experiment_by_name("tries")
        runs = client.search_runs([experiment.experiment_id])
        return {
            **first,
            "runs": [
                {"id": run.info.run_id, "status": run.info.status, "tags": run.data.tags}
                for run in runs
            ],
        }

    def xcoms_beside_the_store(self) -> Any:
        return self.run(self.gates.xcoms_beside_the_store)


def main(port: int, out: Path, *wanted: str) -> None:
    results: dict[str, Any] = {}
    with DNSServer() as dns:
        dns.set_records(HOSTNAME, [ADDRESS])
        scenarios = Scenarios(dns, port)
        scenarios.connect()
        names = [
            name
            for name, member in vars(Scenarios).items()
            if isinstance(member, Callable) and name not in _HELPERS and not name.startswith("_")
        ]
        for name in wanted or names:
            try:
                results[name] = getattr(scenarios, name)()
            except Exception:
                results[name] = {"error": traceback.format_exc()}
            out.write_text(json.dumps(results, default=str))


_HELPERS = ("connect", "fresh", "run", "variable", "put_variable")

if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
