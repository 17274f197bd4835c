"""An Airflow with a listener, such as that of OpenLineage: it is told of every gate that opens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow_home import migrate
from tests.conftest import TinyMLflow

REPOSITORY = Path(__file__).parents[2]
PLUGIN = """
import os
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

class Listener:
    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        with open(os.environ["TOLD"], "a") as file:
            print(task_instance.task_id, file=file)

class ListenerPlugin(AirflowPlugin):
    name = "listener"
    listeners = [Listener()]
"""
GATES = """
from airflow.sdk import DAG
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

MODES = {
    "poke": {},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
    "asked": {"deferrable": True, "end_from_trigger": True},
    "from_trigger": {"deferrable": True, "start_from_trigger": True},
}
with DAG("gates", schedule=None) as dag:
    for name, mode in MODES.items():
        MLflowHealthSensor(task_id=name, mlflow_conn_id="ml", poke_interval=1, timeout=60, **mode)
"""
RUN = """
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder={folder!r})
assert bag.import_errors == {{}}
assert bag.get_dag("gates").test().state == "success"
"""

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def env(tmp_path):
    home = tmp_path / "airflow"
    home.mkdir()
    for folder, text in (("dags", GATES), ("plugins", PLUGIN)):
        (home / folder).mkdir()
        (home / folder / "one.py").write_text(text)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(REPOSITORY),
        "TOLD": str(home / "told"),
    }
    migrate(environment)
    return environment


def test_the_listener_is_told_of_every_gate_that_opens(env):
    """An open gate ends on a worker. Airflow rejects a DAG with a task that ends elsewhere."""
    with TinyMLflow("127.0.0.9") as server:
        place = {"conn_type": "mlflow", "host": server.address, "port": server.port}
        done = subprocess.run(
            [sys.executable, "-c", RUN.format(folder=f"{env['AIRFLOW_HOME']}/dags")],
            env={**env, "AIRFLOW_CONN_ML": json.dumps(place)},
            capture_output=True,
            text=True,
            timeout=250,
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = Path(env["TOLD"]).read_text().split()
    assert sorted(told) == ["asked", "deferrable", "from_trigger", "poke", "reschedule"]
