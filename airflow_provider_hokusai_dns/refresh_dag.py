"""The admin's refresh DAG, so that a file in ``dags/`` needs two lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.config.settings import listed_connections, listed_hostnames

if TYPE_CHECKING:
    from airflow.sdk import DAG

_DOC = """
### Refresh of DNS for MLflow

Looks up the listed connections and hostnames, bypassing every cache, and stores the answers as the
**last known good** that new workers fall back on while DNS fails.

The XComs of `refresh` contain what each name resolves to (`resolutions`), what changed (`changes`),
and the state of DNS (`health`, `metrics`).

Each run also probes MLflow once per connection, for at most 10 s, and adds a point to the history
on the page **MLflow DNS**. Without a schedule, or while the DAG is paused, no points are added.
"""


def build_refresh_dag(
    dag_id: str = "hokusai_dns_refresh", schedule: Any = None, **dag_arguments: Any
) -> DAG:
    """Create the DAG that an admin triggers from the UI, or that runs on a schedule.

    :param dag_id: the name of the DAG.
    :param schedule: as for any DAG; none by default. ``"*/5 * * * *"`` keeps the last known good
        at most five minutes old.
    :param dag_arguments: further arguments of :class:`airflow.sdk.DAG`; ``params`` are added to
        those of the form, or replace them by name.
    """
    from airflow.sdk import DAG, Param

    from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
    from airflow_provider_hokusai_dns.refresh.names import MOST_NAMES

    arguments: dict[str, Any] = {
        "description": "Ask DNS again for MLflow, and store the answer for outages",
        "catchup": False,
        "max_active_runs": 1,
        "tags": ["mlflow", "dns"],
        "doc_md": _DOC,
        "render_template_as_native_obj": True,
    }
    # The task reads these three; an author may add others, or give these another default.
    params: dict[str, Any] = {
        "connections": Param(
            list(listed_connections()),
            type="array",
            items={"type": "string"},
            title="MLflow connections (connections)",
            description="Ids of connections to MLflow, one per line.",
        ),
        "hostnames": Param(
            list(listed_hostnames()),
            type="array",
            items={"type": "string"},
            maxItems=MOST_NAMES,
            title="Further hostnames (hostnames)",
            description="One per line.",
        ),
        "fail_on_unresolved": Param(
            True,
            type="boolean",
            title="Fail if a name does not resolve (fail_on_unresolved)",
            description="Off: the run succeeds, and says so in its XComs.",
        ),
    }
    arguments |= dag_arguments
    arguments["params"] = {**params, **dict((dag_arguments.get("params") or {}).items())}
    with DAG(dag_id, schedule=schedule, **arguments) as dag:
        DNSRefreshOperator(
            task_id="refresh",
            mlflow_conn_ids="{{ params.connections }}",
            hostnames="{{ params.hostnames }}",
            fail_on="{{ 'unresolved' if params.fail_on_unresolved else 'never' }}",
        )
    return dag
