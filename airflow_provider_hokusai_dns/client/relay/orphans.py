"""Orphaned runs of an earlier try, and duplicate runs.

Uses REST and tags, without MLflow's client: the parent of the processes need not import it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.client.creates import Create, tags_of
from airflow_provider_hokusai_dns.client.orphaned_runs import IDENTITY, attempt_of

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.client.relay.messages import Answer

_log = logging.getLogger(__name__)

_API = "/api/2.0/mlflow"
#: MLflow's own limits of a page.
_EXPERIMENTS, _RUNS = 1000, 100

Ask = Callable[[str, str, Mapping[str, Any] | bytes | None], Awaitable["Answer"]]


async def end_orphans(ask: Ask, tags: Mapping[str, str], own_run_id: str | None) -> None:
    """End as KILLED the runs that clients of an earlier try of this task left RUNNING.

    All experiments are searched. A failure is logged and not raised: the task matters more.

    :param tags: those of this try.
    :param own_run_id: a run of this task that continues.
    """
    ended = []
    try:
        experiments = [found async for found in _experiments(ask)]
        # All are read first: a run that is ended leaves the search, and moves its pages.
        for run in [run async for run in _running(ask, experiments, tags)]:
            run_id = str(run["info"]["run_id"])
            if run_id == own_run_id or attempt_of(tags_of(run)) >= attempt_of(tags):
                continue
            if (await end_run(ask, run_id, "KILLED")).status < 400:
                ended.append(run_id)
    except Exception as error:
        _log.warning("Could not search for runs that an earlier try left RUNNING: %s", error)
    if ended:
        _log.info("Ended as KILLED what an earlier try left RUNNING: %s", ", ".join(ended))


async def delete_doubles(
    ask: Ask, doubtful: Iterable[tuple[Create, str, Mapping[str, Any]]]
) -> None:
    """Delete what a call created in addition to what its client received.

    :param doubtful: each with the base of its path and the answer that the client received.
    """
    for create, base, kept in doubtful:
        listed = await ask(create.ask.method, *create.ask.below(base))
        for calls in create.discards(listed.document, kept):
            done = [(await ask(call.method, *call.below(base))).status for call in calls]
            if done and done[-1] < 400:
                which = f"{calls[-1].path} {json.dumps(calls[-1].fields)}"
                _log.info("Deleted what was made twice: %s", which)


async def end_run(ask: Ask, run_id: str, status: str) -> Answer:
    """Set the end of a run."""
    ended = {"run_id": run_id, "status": status, "end_time": int(time.time() * 1000)}
    return await ask("POST", f"{_API}/runs/update", ended)


async def _experiments(ask: Ask) -> AsyncIterator[str]:
    token = ""
    while True:
        asked = {"max_results": _EXPERIMENTS, **({"page_token": token} if token else {})}
        document = (await ask("POST", f"{_API}/experiments/search", asked)).document
        for experiment in document.get("experiments") or ():
            yield str(experiment["experiment_id"])
        token = document.get("next_page_token") or ""
        if not token:
            return


async def _running(
    ask: Ask, experiments: list[str], tags: Mapping[str, str]
) -> AsyncIterator[Mapping[str, Any]]:
    """The RUNNING runs of this task, of any try."""
    # A quote cannot be escaped in MLflow's filter language; what it cannot say is compared here.
    conditions = ["attributes.status = 'RUNNING'"] + [
        f"tags.`{key}` = '{tags[key]}'" for key in IDENTITY if "'" not in tags[key]
    ]
    for first in range(0, len(experiments), _EXPERIMENTS):
        token = ""
        while True:
            document = (await ask("POST", f"{_API}/runs/search", {
                "experiment_ids": experiments[first : first + _EXPERIMENTS],
                "filter": " and ".join(conditions),
                "max_results": _RUNS,
                **({"page_token": token} if token else {}),
            })).document  # fmt: skip
            for run in document.get("runs") or ():
                run_tags = tags_of(run)
                if all(run_tags.get(key) == tags[key] for key in IDENTITY):
                    yield run
            token = document.get("next_page_token") or ""
            if not token:
                break
