"""Runs that a killed worker left RUNNING, found by their tags and ended by the next try."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.resolver.deadline import bounded
from airflow_provider_hokusai_dns.resolver.target import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

#: The tags that name one task instance, and its try. The hook sets all of them on every new run.
TAG_DAG = "airflow.dag_id"
TAG_TASK = "airflow.task_id"
TAG_DAG_RUN = "airflow.run_id"
TAG_MAP_INDEX = "airflow.map_index"
TAG_TRY = "airflow.try_number"
#: In addition, if a try was rescheduled: a retry policy of Airflow 3.4 does that, and the try keeps
#: its number.
TAG_RESCHEDULES = "airflow.reschedule_count"

#: What all attempts of one task instance have in common.
IDENTITY = (TAG_DAG, TAG_TASK, TAG_DAG_RUN, TAG_MAP_INDEX)
#: A run without a number is not ours to end.
_NOT_OURS = (1_000_000, 0)
_PARENT = "mlflow.parentRunId"
_MAX_DEPTH = 5
#: MLflow's own limits of a page.
_EXPERIMENTS, _RUNS = 1000, 100
#: Seconds, for servers whose requests we do not send.
_TIMEOUT = 30
#: Between two searches for a run that is being begun, seconds.
_RECHECK = 0.2


def end_orphaned_runs(
    tracking_uri: str, experiment_id: str, own_run_id: str, tags: Mapping[str, str]
) -> tuple[str, ...]:
    """End as KILLED the runs that earlier tries of the same task instance left RUNNING.

    Does nothing in a first try. A failure is logged and not raised: the new run matters more.

    :param tags: those of the new run; without the five names above nothing is searched.
    :returns: the ids of the runs that were ended, nested ones included.
    """
    if not has_earlier_attempt(tags):
        return ()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    ended: list[str] = []
    try:
        # All are read first: a run that is ended leaves the search, and moves its pages.
        for run in list(_running(client, [experiment_id], {key: tags[key] for key in IDENTITY})):
            if run.info.run_id != own_run_id and attempt_of(run.data.tags) < attempt_of(tags):
                _end(client, tracking_uri, run, ended, _MAX_DEPTH)
    except Exception as error:
        _log.warning(
            "Could not look for runs that an earlier try of this task left RUNNING: %s",
            quoted(error, 500),
        )
    if ended:
        _log.info("Ended as KILLED what an earlier try left RUNNING: %s", ", ".join(ended))
    return tuple(ended)


def end_what_is_being_begun(tracking_uri: str, tags: Mapping[str, str], seconds: float) -> None:
    """End as KILLED the runs of this try, while MLflow's answer to their begin is still to come.

    For a task that is stopped in that moment: it knows no id yet, and there may be no next try.

    :param tags: those of the run; without the five names above there is nothing to look for.
    """
    if not all(key in tags for key in (*IDENTITY, TAG_TRY)):
        return
    from mlflow import MlflowClient

    client, end, ended = MlflowClient(tracking_uri), time.monotonic() + seconds, False
    while not ended and (left := end - time.monotonic()) > 0:
        with bounded(left), suppress(Exception):  # MLflow may be away
            found = _pages(partial(client.search_experiments, max_results=_EXPERIMENTS))
            experiments = [each.experiment_id for each in found]
            for run in list(_running(client, experiments, {key: tags[key] for key in IDENTITY})):
                if attempt_of(run.data.tags) == attempt_of(tags):
                    terminate(tracking_uri, run.info.run_id, "KILLED")
                    ended = True
        time.sleep(max(0.0, min(_RECHECK, end - time.monotonic())))


def has_earlier_attempt(tags: Mapping[str, str]) -> bool:
    """Whether the task may have left runs, in an earlier try or before a reschedule."""
    return all(key in tags for key in IDENTITY) and (1, 0) < attempt_of(tags) < _NOT_OURS


def attempt_of(tags: Mapping[str, str]) -> tuple[int, int]:
    """The try that created a run, and how often it had been rescheduled; sortable."""
    tried, rescheduled = tags.get(TAG_TRY, ""), tags.get(TAG_RESCHEDULES, "0")
    if not tried.isdigit() or not rescheduled.isdigit():
        return _NOT_OURS
    return int(tried), int(rescheduled)


def _running(client: Any, experiment_ids: list[str], tags: Mapping[str, str]) -> Iterator[Any]:
    """The RUNNING runs with exactly these tags."""
    # A quote cannot be escaped in MLflow's filter language; what it cannot say is compared here.
    conditions = ["attributes.status = 'RUNNING'"] + [
        f"tags.`{key}` = '{value}'" for key, value in tags.items() if "'" not in value
    ]
    search = partial(
        client.search_runs, experiment_ids, " and ".join(conditions), max_results=_RUNS
    )
    for run in _pages(search):
        if all(run.data.tags.get(key) == value for key, value in tags.items()):
            yield run


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _end(client: Any, tracking_uri: str, run: Any, ended: list[str], depth: int) -> None:
    """End one run, after the runs nested in it."""
    run_id = run.info.run_id
    if depth > 0:
        for child in list(_running(client, [run.info.experiment_id], {_PARENT: run_id})):
            _end(client, tracking_uri, child, ended, depth - 1)
    terminate(tracking_uri, run_id, "KILLED")
    ended.append(run_id)


def terminate(tracking_uri: str, run_id: str, status: str) -> None:
    """Set the end of a run, and nothing else, by the REST API.

    ``MlflowClient.set_terminated`` would first shut down the queues for asynchronous logging, which
    other runs of this process are using, and wait for them without a time limit.

    :raises requests.RequestException: the server could not be reached.
    """
    import requests

    from airflow_provider_hokusai_dns.client.auth import Authorize

    response = requests.post(
        f"{tracking_uri}/api/2.0/mlflow/runs/update",
        json={"run_id": run_id, "status": status, "end_time": int(time.time() * 1000)},
        auth=Authorize(),
        timeout=_TIMEOUT,
    )
    if not response.ok:
        answer = " ".join(response.text.split())[:300]
        raise requests.HTTPError(f"{response.status_code}: {answer}", response=response)
