"""The oldest surroundings we promise to run in: Airflow 3.2 and the minimum of every dependency.

They live in an environment of their own, `.venv-floor`, made by `make setup-floor`; its Python runs
what is checked here. The MLflow server the DAGs talk to comes from the ordinary environment.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.servers import MLflowProcess

REPOSITORY = Path(__file__).resolve().parents[2]
#: test_next.py runs most of this in another environment.
ENVIRONMENT = os.environ.get("FLOOR_TESTS_IN", ".venv-floor")
PYTHON = REPOSITORY / ENVIRONMENT / "bin" / "python"
DISTRIBUTION = "airflow-provider-hokusai-dns"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def floor() -> None:
    """Skip without the environment, but never on the build server."""
    if PYTHON.exists():
        return
    if os.environ.get("CI"):
        pytest.fail("there is no .venv-floor: make setup-floor has not run")
    pytest.skip("there is no .venv-floor: make setup-floor makes it")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An Airflow of its own, with an empty database."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("AIRFLOW", "MLFLOW", "PYTHON", "DNS_"))
    }
    settings = kept | {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("floor")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
        "COLUMNS": "400",
    }
    _run(["-m", "airflow", "db", "migrate"], settings)
    return settings


@pytest.fixture(scope="module")
def mlflow_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real MLflow server that is reached by the name `localhost`."""
    folder = tmp_path_factory.mktemp("mlflow")
    with MLflowProcess(folder, allowed_hosts=("localhost:*",)) as server:
        yield server.port


def test_floor_is_what_it_says(env: dict[str, str]) -> None:
    """The environment holds Airflow 3.2 and the lowest versions of what we use directly."""
    versions = json.loads(
        _run(
            [
                "-c",
                "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in"
                " ('apache-airflow', 'dnspython', 'mlflow-skinny', 'aiohttp')}))",
            ],
            env,
        )
    )
    assert versions["apache-airflow"].startswith("3.2.")
    pins = (REPOSITORY / "constraints-floor.txt").read_text().splitlines()
    for name, version in versions.items():
        assert f"{name}=={version}" in pins


def test_every_public_module_imports(env: dict[str, str]) -> None:
    """Nothing needs what only a newer Airflow, MLflow or dnspython has, but the retry policy."""
    script = """
import importlib, pkgutil
import airflow_provider_hokusai_dns as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith(("__main__", ".policies.retry")):
        importlib.import_module(module.name)
        print(module.name)
"""
    imported = _run(["-c", script], env).split()
    assert "airflow_provider_hokusai_dns.sensors.mlflow_health" in imported
    assert "airflow_provider_hokusai_dns.hooks.mlflow" in imported


def test_the_retry_policy_says_which_airflow_it_needs(env: dict[str, str]) -> None:
    """When the DAG file is parsed, with what to do."""
    script = """
try:
    import airflow_provider_hokusai_dns.policies.retry
except ImportError as error:
    print(error)
"""
    said = _run(["-c", script], env)
    assert "needs Airflow 3.3 or newer" in said
    assert "Remove retry_policy" in said


def test_provider_is_listed(env: dict[str, str]) -> None:
    """Airflow 3.2 accepts the provider info: its schema, too."""
    output = _run(["-m", "airflow", "providers", "list", "--output", "json"], env)
    names = {each["package_name"] for each in json.loads(output[output.index("[{") :])}
    assert DISTRIBUTION in names
    output = _run(["-m", "airflow", "providers", "hooks", "--output", "json"], env)
    types = {each["connection_type"] for each in json.loads(output[output.index("[{") :])}
    assert "mlflow" in types


def test_the_command_line_works(env: dict[str, str]) -> None:
    """Airflow 3.2 finds our commands, and its database is read."""
    output = _run(["-m", "airflow", "hokusai-dns", "resolve", "localhost", "-o", "json"], env)
    (one,) = json.loads(output[output.index('{"version"') :])["targets"]
    assert one["state"] == "healthy"
    (stored,) = (step for step in one["steps"] if step["source"] == "stored")
    assert stored["outcome"] == "nothing is known"


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        ("hokusai_dns_refresh", {"connections": ["mlflow_default"], "hostnames": ["localhost"]}),
        ("mlflow_training_example", {"pause": 0}),
    ],
)
def test_dags_run(dag_id: str, conf: dict, env: dict[str, str], mlflow_port: int) -> None:
    """Both DAGs of `dags/` succeed under Airflow 3.2, against a real MLflow."""
    connection = {"conn_type": "mlflow", "host": "localhost", "port": mlflow_port, "schema": "http"}
    file = str(REPOSITORY / "dags" / f"{dag_id}.py")
    script = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("the_dag", {file!r})
module = importlib.util.module_from_spec(spec)
sys.modules["the_dag"] = module
spec.loader.exec_module(module)
from airflow.sdk import DAG
dag = getattr(module, "dag", None)
if not isinstance(dag, DAG):
    dag = module.{dag_id}()
run = dag.test(run_conf={conf!r})
print("STATE", run.state)
"""
    output = _run(["-c", script], env | {"AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection)})
    assert "STATE success" in output, output[-4000:]


def test_a_deferrable_gate_waits_and_opens(env: dict[str, str], tmp_path: Path) -> None:
    """Airflow 3.2 begins on a worker whatever the gate asks for; the rest is as in newer ones."""
    folder = tmp_path / "dags"
    folder.mkdir()
    file = folder / "gated.py"
    file.write_text("""
import json, os, threading
from airflow.sdk import DAG
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

with DAG("gated", schedule=None) as dag:
    MLflowHealthSensor(
        task_id="gate", mlflow_conn_id="late", checks=("dns",), poke_interval=0.5, timeout=120,
        deferrable=True, start_from_trigger=True,
        on_execute_callback=lambda context: threading.Timer(5, come).start(),
    )

def come():
    given = {"conn_type": "mlflow", "host": "127.0.0.1"}
    os.environ["AIRFLOW_CONN_LATE"] = json.dumps(given)

if __name__ == "__main__":
    run = dag.test()
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    with create_session() as session:
        xcom = session.query(XComModel).filter(XComModel.run_id == run.run_id).one()
        print("STATE", run.state, XComModel.deserialize_value(xcom)["level"])
""")
    output = _run([str(file)], env | {"AIRFLOW__CORE__DAGS_FOLDER": str(folder)})
    assert "running trigger in line" in output
    assert "STATE success healthy" in output, output[-4000:]


def test_gates_in_the_triggerer_leave_the_line_to_the_others(env: dict[str, str]) -> None:
    """Twenty read one connection and the stored address; then another trigger gets its own answer.

    In Airflow 3.2 a request from a thread that the triggerer does not know leaves its answer on the
    line, which ends every other trigger of the process.
    """
    script = str(Path(__file__).with_name("triggerer.py"))
    output = _run([script, datetime.now(UTC).isoformat()], env | {"DNS_TIMEOUT": "1"})
    (line,) = [line for line in output.splitlines() if line.startswith("SEEN ")]
    seen = json.loads(line.removeprefix("SEEN "))
    assert seen["other"] == "VariableResult"
    assert (seen["verdict"]["state"], seen["verdict"]["address_source"]) == ("unreachable", "store")
    # The gates together once, and once the look ahead at the listed connections.
    assert seen["asked"].count("GetConnection") <= 2
    assert 1 <= seen["asked"].count("GetVariable") <= 3  # of the one look, not of each gate


def _run(arguments: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(
        [PYTHON, *arguments],
        env=env,
        cwd=env.get("AIRFLOW_HOME"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
