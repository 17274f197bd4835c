"""Gates made of Airflow's own deferrable HttpSensor, to compare with.

In a file of its own: whatever a file imports, each task of its DAGs pays for.
"""

from __future__ import annotations

from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import dag

from fleet import names
from fleet.sizes import GATES_PER_RUN, INTERVAL, TIMEOUT


@dag(dag_id=names.HTTP_GATES, schedule=None, catchup=False, tags=["fleet"])
def http_gates() -> None:
    """Nothing but gates."""
    for number in range(GATES_PER_RUN):
        HttpSensor(
            task_id=f"gate_{number}",
            http_conn_id=names.COUNTED_HTTP,
            endpoint=names.HTTP_SENSOR,
            poke_interval=INTERVAL,
            timeout=TIMEOUT,
            retries=0,
            deferrable=True,
        )


http_gates()
