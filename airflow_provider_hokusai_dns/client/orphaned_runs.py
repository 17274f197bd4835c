"""Runs that a killed worker left RUNNING, found by their tags and ended by the next try.

A search does no I/O: it yields what is to be asked, and is sent the answers. This module asks with
``requests``, and the relay as it asks (:mod:`~.relay.orphans`). Neither imports MLflow.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_hokusai_dns.client.creates import Ask, Fields, ended, tags_of
from airflow_provider_hokusai_dns.config.server import WORKSPACE_HEADER
from airflow_provider_hokusai_dns.resolver.deadline import bounded
from airflow_provider_hokusai_dns.resolver.target import quoted

if TYPE_CHECKING:
    import requests

_log = logging.getLogger(__name__)
T = TypeVar("T")
#: What it yields, what it is sent, and what it finds.
Search = Generator[Ask, Fields, T]
TaskTry = tuple[int, int]

#: The tags that name one task instance, and its try. The hook sets all of them on every new run.
TAG_DAG = "airflow.dag_id"
TAG_TASK = "airflow.task_id"
TAG_DAG_RUN = "airflow.run_id"
TAG_MAP_INDEX = "airflow.map_index"
TAG_TRY = "airflow.try_number"
#: In addition, if a try was rescheduled: a retry policy of Airflow 3.4 does that, and the try keeps
#: its number.
TAG_RESCHEDULES = "airflow.reschedule_count"

TAG_URL = "airflow.url"

#: What all tries of one task instance have in common.
IDENTITY = (TAG_DAG, TAG_TASK, TAG_DAG_RUN, TAG_MAP_INDEX)
#: All that the hook sets: what is begun inside a run gets these, and not the author's.
TASK_TAGS = frozenset({*IDENTITY, TAG_TRY, TAG_RESCHEDULES, TAG_URL})
#: A run without a number is not ours to end.
_NOT_OURS = (1_000_000, 0)
_PARENT = "mlflow.parentRunId"
#: MLflow's own limits of a page.
_EXPERIMENTS, _RUNS = 1000, 100
#: Experiments per page: each may have a long note.
_PAGE_OF_EXPERIMENTS = 200
#: Seconds, for servers whose requests we do not send.
_TIMEOUT = 30
#: Between two searches for a run that is being begun, seconds.
_RECHECK = 0.2


def end_orphaned_runs(
    tracking_uri: str, experiment_id: str, own_run_ids: Collection[str], tags: Mapping[str, str]
) -> None:
    """End as KILLED the runs that earlier tries of the same task instance left RUNNING.

    Does nothing in a first try. A failure is logged and not raised: the new run matters more.

    :param own_run_ids: the new run, and those that continue: one of an earlier try may be resumed.
    :param tags: those of the new run; without the five names above nothing is searched.
    """
    if not has_earlier_try(tags):
        return
    killed: list[str] = []
    try:
        search = _orphaned_and_nested(tags, own_run_ids, experiment_id)
        for run_id in _found(tracking_uri, search):
            terminate(tracking_uri, run_id, "KILLED")
            killed.append(run_id)
    except Exception as error:
        _log.warning(
            "Could not search for runs that an earlier try of this task left RUNNING: %s",
            quoted(error, 500),
        )
    if killed:
        _log.info("Ended as KILLED, left RUNNING by an earlier try: %s", ", ".join(killed))


def end_runs_being_created(tracking_uri: str, tags: Mapping[str, str], seconds: float) -> None:
    """End as KILLED the runs of this try, while MLflow's answer to their begin is still to come.

    For a task that is stopped in that moment: it knows no id yet, and there may be no next try.

    :param tags: those of the run; without the five names above there is nothing to look for.
    """
    if not all(key in tags for key in (*IDENTITY, TAG_TRY)):
        return
    end, is_done = time.monotonic() + seconds, False
    while not is_done and (left := end - time.monotonic()) > 0:
        with bounded(left), suppress(Exception):  # MLflow may be away
            for run_id, its_try in _found(tracking_uri, _of_task(tags)).items():
                if its_try == task_try_of(tags):
                    terminate(tracking_uri, run_id, "KILLED")
                    is_done = True
        time.sleep(max(0.0, min(_RECHECK, end - time.monotonic())))


def has_earlier_try(tags: Mapping[str, str]) -> bool:
    """Whether the task may have left runs, in an earlier try or before a reschedule."""
    return all(key in tags for key in IDENTITY) and (1, 0) < task_try_of(tags) < _NOT_OURS


def task_try_of(tags: Mapping[str, str]) -> TaskTry:
    """The try that created a run, and how often it had been rescheduled; sortable."""
    tried, rescheduled = tags.get(TAG_TRY, ""), tags.get(TAG_RESCHEDULES, "0")
    if not tried.isdigit() or not rescheduled.isdigit():
        return _NOT_OURS
    return int(tried), int(rescheduled)


# --- searches


def orphaned(
    tags: Mapping[str, str],
    own_run_ids: Collection[str] = (),
    experiment_ids: Sequence[str] | None = None,
) -> Search[list[str]]:
    """The ids of the runs that earlier tries of a task left RUNNING.

    All are read before any is ended, which takes it out of the search and moves its pages.

    :param own_run_ids: runs of this task that continue.
    :param experiment_ids: where to look; everywhere by default.
    """
    found = yield from _of_task(tags, experiment_ids)
    mine = task_try_of(tags)
    return [run_id for run_id, other in found.items() if other < mine and run_id not in own_run_ids]


def _orphaned_and_nested(
    tags: Mapping[str, str], own_run_ids: Collection[str], experiment_id: str
) -> Search[list[str]]:
    """Each after what is nested in it, which would not be found without it."""
    found = yield from orphaned(tags, own_run_ids, [experiment_id])
    for run_id in found:  # which grows
        nested = yield from _running([experiment_id], {_PARENT: run_id})
        found += [each for each in nested if each not in (*found, *own_run_ids)]
    return found[::-1]


def _of_task(
    tags: Mapping[str, str], experiment_ids: Sequence[str] | None = None
) -> Search[dict[str, TaskTry]]:
    if experiment_ids is None:
        experiments = yield from _pages("experiments", {"max_results": _PAGE_OF_EXPERIMENTS})
        experiment_ids = [str(each["experiment_id"]) for each in experiments]
    return (yield from _running(experiment_ids, {key: tags[key] for key in IDENTITY}))


def _running(experiment_ids: Sequence[str], tags: Mapping[str, str]) -> Search[dict[str, TaskTry]]:
    """The RUNNING runs with exactly these tags: their ids, and which try they are of."""
    # A quote cannot be escaped in MLflow's filter language; what it cannot say is compared here.
    conditions = ["attributes.status = 'RUNNING'"] + [
        f"tags.`{key}` = '{value}'" for key, value in tags.items() if "'" not in value
    ]
    asked = {"filter": " and ".join(conditions), "max_results": _RUNS}
    found = {}
    for first in range(0, len(experiment_ids), _EXPERIMENTS):
        some = experiment_ids[first : first + _EXPERIMENTS]
        for run in (yield from _pages("runs", {"experiment_ids": some, **asked})):
            if tags.items() <= (its := tags_of(run)).items():
                found[str(run["info"]["run_id"])] = task_try_of(its)
    return found


def _pages(what: str, asked: Fields) -> Search[list[Fields]]:
    found: list[Fields] = []
    token = ""
    while True:
        page = yield Ask("POST", f"{what}/search", {**asked, "page_token": token})
        found += page.get(what) or ()
        token = page.get("next_page_token") or ""
        if not token:
            return found


# --- with requests


def _found(tracking_uri: str, search: Search[T]) -> T:
    try:
        ask = next(search)
        while True:
            ask = search.send(_answer(tracking_uri, ask).json())
    except StopIteration as done:
        found: T = done.value
        return found


def terminate(tracking_uri: str, run_id: str, status: str) -> None:
    """Set the end of a run, and nothing else, by the REST API.

    ``MlflowClient.set_terminated`` would first shut down the queues for asynchronous logging, which
    other runs of this process are using, and wait for them without a time limit.

    :raises requests.RequestException: the server could not be reached.
    """
    _answer(tracking_uri, ended(run_id, status))


def reopen(tracking_uri: str, run_id: str) -> None:
    """Set a run that was ended back to RUNNING.

    :raises requests.RequestException: the server could not be reached.
    """
    call = Ask("POST", "runs/update", {"run_id": run_id, "status": "RUNNING"})
    _answer(tracking_uri, call)


def workspace_header() -> dict[str, str]:
    """What MLflow's client sends of the task's own workspace; a connection's takes precedence."""
    workspace = os.environ.get("MLFLOW_WORKSPACE", "").strip()
    return {WORKSPACE_HEADER: workspace} if workspace else {}


def _answer(tracking_uri: str, ask: Ask) -> requests.Response:
    import requests

    from airflow_provider_hokusai_dns.client.auth import Authorize

    response = requests.post(
        f"{tracking_uri}/api/2.0/mlflow/{ask.path}",
        json=ask.fields,
        headers=workspace_header(),
        auth=Authorize(),
        timeout=_TIMEOUT,
    )
    if not response.ok:
        answer = " ".join(response.text.split())[:300]
        raise requests.HTTPError(f"{response.status_code}: {answer}", response=response)
    return response
