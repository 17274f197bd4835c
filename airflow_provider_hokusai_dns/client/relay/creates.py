"""How a create is marked before it is sent, and found again if its answer was lost. Pure functions.

A run, experiment, model or version gets a tag with the id of the call that created it. An object
without that tag was created by another call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from airflow_provider_hokusai_dns.client.creates import PROMPT

#: The tag with the id of the relay's call that created an object.
TAG_CALL = "hokusai_dns.relay_call"

#: By route: where the answer has what was made, as a search or a get would show it.
_TAGGED = {
    "runs/create": "run",
    "experiments/create": "experiment",
    "registered-models/create": "registered_model",
    "model-versions/create": "model_version",
    "logged-models": "model",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A request that finds out whether something was created.

    :param path: with its query, under the server's prefix.
    :param body: ``None`` for a GET.
    """

    method: str
    path: str
    body: bytes | None = None


def marked(
    name: str, body: Mapping[str, Any], call_id: str, run_tags: Mapping[str, str]
) -> dict[str, Any]:
    """The body of a create with our tag, and with the task's tags if it creates a run.

    A tag that the client has set itself is not changed.

    :param name: the route.
    :param run_tags: those of the task.
    """
    if name not in _TAGGED:
        return dict(body)
    given = body.get("tags")
    tags = list(given) if isinstance(given, list) else []
    there = {tag.get("key") for tag in tags if isinstance(tag, Mapping)}
    ours = {**(run_tags if name == "runs/create" else {}), TAG_CALL: call_id}
    tags += [{"key": key, "value": value} for key, value in ours.items() if key not in there]
    return {**body, "tags": tags}


def question(name: str, base: str, body: Mapping[str, Any], call_id: str) -> Question:
    """The request to find what a create may have created.

    :param name: a route that is read back.
    :param base: of the route, for example ``/api/2.0/mlflow``.
    :param body: as it was sent.
    """
    tag = f"tags.`{TAG_CALL}` = '{call_id}'"
    experiment = str(body.get("experiment_id") or body.get("experimentId") or "0")
    text = str(body.get("name") or "")
    run_id = str(body.get("run_id") or body.get("runId") or "")
    match name:
        case "runs/create":
            asked = {"experiment_ids": [experiment], "filter": tag, "max_results": 1}
            return _post(f"{base}/runs/search", asked)
        case "logged-models":
            asked = {"experiment_ids": [experiment], "filter": tag, "max_results": 1}
            return _post(f"{base}/logged-models/search", asked)
        case "experiments/create":
            return _get(f"{base}/experiments/get-by-name", experiment_name=text)
        case "registered-models/create":
            return _get(f"{base}/registered-models/get", name=text)
        case "model-versions/create":
            # A quote cannot be escaped in this filter language, and a name may hold one kind only.
            mark = '"' if "'" in text else "'"
            where = f"name={mark}{text}{mark}"
            if {"key": PROMPT, "value": "true"} in (body.get("tags") or ()):
                where += f" AND tags.`{PROMPT}` = 'true'"  # a search hides them otherwise
            order = "version_number DESC"
            return _get(
                f"{base}/model-versions/search", filter=where, max_results="50", order_by=order
            )
    return _get(f"{base}/runs/get", run_id=run_id)  # runs/outputs, runs/log-model


def answer(
    name: str, body: Mapping[str, Any], call_id: str, document: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The lost answer, rebuilt from what was found; ``None`` if the create was not carried out.

    :param body: as it was sent.
    :param document: MLflow's answer to :func:`question`.
    """
    match name:
        case "runs/create":
            return _first("run", document.get("runs"), call_id)
        case "logged-models":
            return _first("model", document.get("models"), call_id)
        case "model-versions/create":
            return _first("model_version", document.get("model_versions"), call_id)
        case "registered-models/create":
            return _first("registered_model", [document.get("registered_model")], call_id)
        case "experiments/create":
            made = _first("experiment", [document.get("experiment")], call_id)
            return made and {"experiment_id": made["experiment"].get("experiment_id")}
        case "runs/outputs":
            there = _values(_at(document, "run", "outputs").get("model_outputs"), "model_id")
            sent = _values(body.get("models"), "model_id")
            return {} if sent and sent <= there else None
        case "runs/log-model":
            return _model_in_history(body, document)
    return None


def run_of(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """Run and experiment id of an answer that contains a run."""
    info = _at(document, "run", "info")
    run_id = info.get("run_id") or info.get("run_uuid")
    return (str(run_id), str(info.get("experiment_id", ""))) if run_id else None


def _model_in_history(
    body: Mapping[str, Any], document: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Find a model that was added to a run in the history of the run, by its uuid."""
    try:
        uuid = str(json.loads(str(body.get("model_json")))["model_uuid"])
    except (ValueError, KeyError, TypeError):
        return None
    history = tags_of(_at(document, "run")).get("mlflow.log-model.history", "")
    return {} if uuid in history else None


def _first(name: str, found: Any, call_id: str) -> dict[str, Any] | None:
    for one in found if isinstance(found, list) else ():
        if isinstance(one, Mapping) and tags_of(one).get(TAG_CALL) == call_id:
            return {name: one}
    return None


def tags_of(made: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a run, experiment, model or version."""
    for holder in (_at(made, "data"), _at(made, "info"), made):
        if isinstance(tags := holder.get("tags"), list):
            return {
                str(tag.get("key")): str(tag.get("value"))
                for tag in tags
                if isinstance(tag, Mapping)
            }
    return {}


def _at(document: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A nested object; an empty one if it is missing or something else."""
    for key in keys:
        inner = document.get(key)
        document = inner if isinstance(inner, Mapping) else {}
    return document


def _values(objects: Any, key: str) -> set[str]:
    there = objects if isinstance(objects, list) else ()
    return {str(one.get(key)) for one in there if isinstance(one, Mapping)}


def _post(path: str, body: Mapping[str, Any]) -> Question:
    return Question("POST", path, json.dumps(body).encode())


def _get(path: str, **query: str) -> Question:
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return Question("GET", f"{path}?{text}")
