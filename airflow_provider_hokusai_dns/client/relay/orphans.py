"""Orphaned runs of an earlier try, and duplicate runs.

Uses REST and tags, without MLflow's client: the parent of the processes need not import it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_hokusai_dns.client.begun_inside import run_ids_in_use
from airflow_provider_hokusai_dns.client.creates import Ask, Create, Key, ended, status_of_run
from airflow_provider_hokusai_dns.client.orphaned_runs import Search, orphaned
from airflow_provider_hokusai_dns.client.relay.messages import release
from airflow_provider_hokusai_dns.client.relay.runs import TERMINAL, is_id
from airflow_provider_hokusai_dns.resolver.target import quoted

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.client.relay.messages import Answer
    from airflow_provider_hokusai_dns.client.relay.runs import Runs

_log = logging.getLogger(__name__)
T = TypeVar("T")

_API = "/api/2.0/mlflow"

#: Asks below a base, which stands before the path.
Asks = Callable[[Ask, str], Awaitable["Answer"]]


async def end_orphans(ask: Asks, tags: Mapping[str, str], runs: Runs) -> None:
    """End as KILLED the runs that clients of an earlier try of this task left RUNNING.

    All experiments are searched. A failure is logged and not raised: the task matters more.

    :param tags: those of this try.
    :param runs: those of this try, which change meanwhile.
    """
    killed = []
    try:
        for run_id in await _found(ask, orphaned(tags)):
            if run_id in runs or run_id in run_ids_in_use() or not is_id(run_id):
                continue
            if (await end_run(ask, run_id, "KILLED")).status < 400:
                killed.append(run_id)
    except Exception as error:
        _log.warning("Could not search for runs that an earlier try left RUNNING: %s", error)
    if killed:
        _log.info("Ended as KILLED, left RUNNING by an earlier try: %s", ", ".join(killed))


async def delete_duplicates(ask: Asks, create: Create, base: str, kept: Container[Key]) -> None:
    """Delete what a call created in addition to what its client received.

    :param ask: in the workspace of that client.
    :param base: of the path of the call.
    :param kept: what clients have got.
    """
    listed = await ask(create.ask, base)
    for calls in create.discards(listed.document, kept):
        done = [(await ask(call, base)).status for call in calls]
        if done and done[-1] < 400:
            which = f"{calls[-1].path} {json.dumps(calls[-1].fields)}"
            _log.info("Deleted a duplicate: %s", quoted(which))


async def end_run(ask: Asks, run_id: str, status: str) -> Answer:
    """Set the end of a run."""
    return await ask(ended(run_id, status), _API)


async def has_ended(ask: Asks, run_id: str) -> bool:
    """Whether a run has a final status already; false where MLflow does not say so."""
    answer = await ask(Ask("GET", "runs/get", {"run_id": run_id}), _API)
    release(answer)
    return answer.status == 200 and status_of_run(answer.document) in TERMINAL


async def _found(ask: Asks, search: Search[T]) -> T:
    try:
        call = next(search)
        while True:
            answer = await ask(call, _API)
            if answer.status >= 400 or answer.rest is not None:
                release(answer)
                raise RuntimeError(f"{call.path} got status {answer.status}, or too long an answer")
            call = search.send(answer.document)
    except StopIteration as done:
        found: T = done.value
        return found
