"""The stage: PostgreSQL, Redis, MLflow, DNS, and an Airflow of many processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.console import Console
from demo.layout import (
    AIRFLOW_ADDRESS,
    FIRST_ADDRESS,
    MLFLOW_NAME,
    REPOSITORY,
    Layout,
    free_port,
    shared_layout,
)
from demo.processes import Child, Processes
from demo.stack import Stack
from fleet import hostname
from fleet.broker import Redis
from fleet.front import Front
from fleet.names import COUNTED, COUNTED_HTTP, DAGS
from fleet.postgres import Postgres
from fleet.sizes import Sizes

TRIGGERERS = ("triggerer-1", "triggerer-2")
WORKERS = ("worker-1", "worker-2")
_WORKER_OPTIONS = ("--skip-serve-logs", "--without-gossip", "--without-mingle")
_READY = b" ready."  # what Celery logs when a worker takes work


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that the demo has no use for."""

    postgres: int
    redis: int
    front: int


class Fleet(Stack):
    """Everything that runs, and the ports to it.

    :param sizes: how large it is to be.
    """

    dag_folders = (REPOSITORY / "fleet" / "dags",)
    database = "PostgreSQL"

    def __init__(self, root: Path, sizes: Sizes, processes: Processes, console: Console) -> None:
        layout: Layout = shared_layout(root)
        super().__init__(layout, processes, console)
        self.sizes = sizes
        self.ports = Ports(
            free_port(AIRFLOW_ADDRESS), free_port(AIRFLOW_ADDRESS), free_port(FIRST_ADDRESS)
        )
        self._postgres = Postgres(root / "postgres", self.ports.postgres, processes, console)
        self._redis = Redis(root / "redis", self.ports.redis, processes, console)
        self.front = Front(FIRST_ADDRESS, self.ports.front, (FIRST_ADDRESS, layout.mlflow_port))
        self._all_parts = _parts(sizes)
        self.parts = {k: v for k, v in self._all_parts.items() if k != TRIGGERERS[1]}
        self.children: dict[str, Child] = {}
        self._log_begins: dict[str, int] = {}

    def start(self) -> None:
        """Start everything but the second triggerer, and return when all of it is usable."""
        self._postgres.start("airflow", "mlflow")
        self.console.say(f"PostgreSQL on {AIRFLOW_ADDRESS}:{self.ports.postgres}")
        self._redis.start()
        self.console.say(f"Redis on {AIRFLOW_ADDRESS}:{self.ports.redis}")
        self.front.start()
        super().start()
        self.airflow.add_connection(
            connection_id=COUNTED,
            conn_type="mlflow",
            host=MLFLOW_NAME,
            port=self.ports.front,
            schema="http",
            description="MLflow through a counting proxy",
        )
        self.airflow.add_connection(
            connection_id=COUNTED_HTTP,
            conn_type="http",
            host=FIRST_ADDRESS,
            port=self.ports.front,
            description="The same for HttpSensor, by address",
        )
        for worker in WORKERS:
            self.await_worker(worker)
        self.await_dags(DAGS)

    def start_part(self, part: str) -> Child:
        """Start one of Airflow's processes, under a name of its own."""
        log = self.layout.logs / f"airflow-{part}.log"
        self._log_begins[part] = log.stat().st_size if log.exists() else 0
        self.children[part] = super().start_part(part)
        return self.children[part]

    def add_triggerer(self) -> None:
        """Start the second triggerer."""
        self.parts = self._all_parts
        self.start_part(TRIGGERERS[1])

    def kill_part(self, part: str) -> None:
        """Kill it with all that it has started, as a machine that dies does."""
        self.processes.kill(self.children.pop(part))

    def stop_part(self, part: str) -> None:
        """Stop it as a redeploy does."""
        self.processes.stop(self.children.pop(part))

    def await_worker(self, part: str) -> None:
        """Return when a worker takes work."""
        log, begins = self.children[part].log, self._log_begins[part]
        self.console.until(
            f"{part} to take work",
            lambda: _READY in log.read_bytes()[begins:],
            seconds=180,
            alive=self.processes.check,
        )

    def tracking_store(self, folder: Path) -> str:
        """MLflow's runs are in PostgreSQL, too."""
        return self._postgres.url("mlflow")

    def airflow_env(self, part: str = "") -> dict[str, str]:
        """Return the settings of Airflow's processes, secrets included."""
        database = self._postgres.url("airflow")
        return (
            super().airflow_env()
            | {
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CORE__PARALLELISM": str(2 * self.sizes.slots + 2),
                "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "2000",
                "AIRFLOW__CORE__MAX_ACTIVE_RUNS_PER_DAG": "2000",
                "AIRFLOW__CORE__MAX_MAP_LENGTH": "5000",
                "AIRFLOW__CORE__HOSTNAME_CALLABLE": hostname.CALLABLE,
                hostname.VARIABLE: part or "fleet",
                "PYTHONPATH": str(REPOSITORY),
                "AIRFLOW__CELERY__BROKER_URL": self._redis.url,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
                "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(self.sizes.slots),
            }
            | _IMPATIENCE
        )


#: After the death of a worker Airflow's defaults wait for minutes (300 s without a heartbeat, 600 s
#: in the queue) and Celery's for a day. The story is shortened; what is shown is the same.
_IMPATIENCE = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "90",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "45",
}


def _parts(sizes: Sizes) -> Mapping[str, Sequence[str]]:
    # At exactly as many triggers as it may hold a triggerer takes no new ones.
    capacity = str(max(1000, 2 * (sizes.gates + sizes.runs)))
    triggerer = ("triggerer", "--skip-serve-logs", "--capacity", capacity)
    return {
        "api-server": ("api-server",),
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
        **dict.fromkeys(TRIGGERERS, triggerer),
        **{each: ("celery", "worker", "-H", each, *_WORKER_OPTIONS) for each in WORKERS},
    }
