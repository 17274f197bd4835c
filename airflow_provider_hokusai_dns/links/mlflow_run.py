"""A button from any task that opened a run with ``MLflowHook.run`` to that run's page in MLflow.

The task stores the URL as an XCom, from which the API server builds the button. The link is
global, because any operator may open a run; Airflow shows it if there is a URL.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

log = logging.getLogger(__name__)

#: Where Airflow looks for a link of this class. It is deleted when the task is cleared.
KEY = "_link_MLflowRunLink"


class MLflowRunLink(BaseOperatorLink):
    """The button "MLflow run"."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The URL that the task stored, or an empty string. Called by the API server.

        It never raises: the API server calls it for every task of every DAG.
        """
        try:
            return _only_web(_stored(ti_key))
        except Exception:
            log.debug("The link to the MLflow run cannot be read", exc_info=True)
            return ""


def run_url(tracking_uri: str, experiment_id: str, run_id: str) -> str:
    """The page of a run in MLflow's own UI.

    :param tracking_uri: with the hostname, without a tag or a secret.
    """
    return (
        f"{tracking_uri.rstrip('/')}/#/experiments/{quote(experiment_id, safe='')}"
        f"/runs/{quote(run_id, safe='')}"
    )


def leave_url(ti: Any, url: str) -> None:
    """Store the URL, from inside a task.

    It is stored in Airflow's database, like Airflow's own links, and not in a custom XCom backend,
    which the API server would not read.
    """
    from airflow.sdk.bases.xcom import BaseXCom

    BaseXCom.set(
        key=KEY,
        value=url,
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
    )


def _stored(ti_key: TaskInstanceKey) -> object:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = select(XComModel.value).where(
        XComModel.key == KEY,
        XComModel.dag_id == ti_key.dag_id,
        XComModel.run_id == ti_key.run_id,
        XComModel.task_id == ti_key.task_id,
        XComModel.map_index == ti_key.map_index,
    )
    with create_session() as session:
        value = session.scalar(wanted)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _only_web(value: object) -> str:
    """The URL if it is http or https, otherwise nothing: any task may write this XCom."""
    if isinstance(value, str) and value.lower().startswith(("http://", "https://")):
        return value
    return ""
