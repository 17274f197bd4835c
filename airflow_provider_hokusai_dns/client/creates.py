"""MLflow REST API calls that create something: how to repeat one without creating a duplicate.

After an incomplete answer, a timeout, or a 502, 503 or 504, it is unknown whether the server has
carried out the call. MLflow before 3.18 repeats such a call and may create a duplicate; 3.18
raises. We ask the server first: by a tag that is added to the request, or by the name if that is
unique. A create with neither (a webhook, a scorer, an evaluation dataset ...) is not sent again, as
in 3.18.

Only the documented REST API is used; nothing here sends requests.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

#: Tag with the request's id on every run, model version, logged model and assessment of a task.
TAG = "airflow.request_id"
#: The tag by which a model version is that of a prompt.
PROMPT = "mlflow.prompt.is_prompt"

#: POSTs that have no effect the second time, and those that only read. More than MLflow 3.18
#: repeats: also calls for which a store compares first, or for which a repetition is an error.
_IDEMPOTENT_POSTS = frozenset(
    f"{where}/{what}"
    for where, whats in {
        "artifacts": "presigned-upload-url presigned-download-url",
        "datasets": "search */records */add-experiments */remove-experiments",
        "experiments": "search search-datasets update delete restore set-experiment-tag"
        " delete-experiment-tag",
        "issues": "search",
        "logged-models": "search",
        "model-versions": "search set-tag transition-stage",
        "registered-models": "search set-tag alias get-latest-versions rename",
        "runs": "search log-batch log-metric log-parameter set-tag delete-tag update delete restore"
        " log-inputs",
        "traces": "search metrics batchGetInfos calculate-filter-correlation link-to-run"
        " link-prompts delete-traces",
    }.items()
    for what in whats.split()
) | {"traces"}
#: Paths with an id in the middle.
_OF_ONE = re.compile(r"(datasets|logged-models|traces)/([^/]+)/([^/]+)")


class Ask(NamedTuple):
    """One call under ``.../mlflow/``; ``fields`` are the query of a GET, else the JSON body."""

    method: str
    path: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Create:
    """One call that creates something.

    :param body: the JSON to send instead of the caller's.
    :param ask: the call that finds out whether it exists.
    :param found: the objects in an answer to ``ask``, each in the form of the create's own answer.
    :param discard: the calls that delete one of them, if it is a duplicate.
    """

    body: bytes
    ask: Ask
    found: Callable[[Mapping[str, Any]], list[dict[str, Any]]]
    discard: Callable[[Mapping[str, Any]], list[Ask]]


def below_mlflow(path: str) -> str | None:
    """The part of a REST path after ``.../mlflow/``; ``None`` for paths of other kinds."""
    head, found, tail = path.partition("/mlflow/")
    return tail if found and head.rpartition("/")[0].endswith("api") else None


def is_idempotent(method: str, path: str) -> bool:
    """Whether a call may be sent twice without asking.

    Artifacts, multipart uploads and spans are outside ``.../mlflow/``: MLflow repeats them.
    """
    tail = below_mlflow(path)
    return method != "POST" or tail is None or _of_one(tail)[0] in _IDEMPOTENT_POSTS


def _of_one(tail: str) -> tuple[str, str]:
    """A path with a star in the place of its id, and the id."""
    found = _OF_ONE.fullmatch(tail)
    return (f"{found[1]}/*/{found[3]}", found[2]) if found else (tail, "")


def create_of(method: str, path: str, body: bytes | str | None) -> Create | None:
    """The create of a request, with the tag added, if its result can be looked up."""
    which, of = _of_one(below_mlflow(path) or "")
    if method != "POST" or which not in _KINDS or not body:
        return None
    try:
        return _KINDS[which](json.loads(body), of)
    except (ValueError, TypeError, KeyError):
        return None  # not as the API has it: for the server to refuse


def _tagged(fields: dict[str, Any]) -> tuple[bytes, str]:
    token = uuid.uuid4().hex
    fields["tags"] = [*fields.get("tags", ()), {"key": TAG, "value": token}]
    return json.dumps(fields).encode(), f"tags.`{TAG}` = '{token}'"


def _run(fields: dict[str, Any], _: str) -> Create:
    body, has_tag = _tagged(fields)

    def discard(answer: Mapping[str, Any]) -> list[Ask]:
        run_id, now = answer["run"]["info"]["run_id"], int(time.time() * 1000)
        end = {"run_id": run_id, "status": "KILLED", "end_time": now}
        return [Ask("POST", "runs/update", end), Ask("POST", "runs/delete", {"run_id": run_id})]

    return Create(
        body,
        Ask("POST", "runs/search", {"experiment_ids": [fields["experiment_id"]],
                                    "filter": has_tag, "max_results": 10}),
        lambda answer: [{"run": run} for run in answer.get("runs", ())],
        discard,
    )  # fmt: skip


def _logged_model(fields: dict[str, Any], _: str) -> Create:
    body, has_tag = _tagged(fields)
    return Create(
        body,
        Ask("POST", "logged-models/search", {"experiment_ids": [fields["experiment_id"]],
                                             "filter": has_tag, "max_results": 10}),
        lambda answer: [{"model": model} for model in answer.get("models", ())],
        lambda answer: [Ask("DELETE", f"logged-models/{answer['model']['info']['model_id']}", {})],
    )  # fmt: skip


def _model_version(fields: dict[str, Any], _: str) -> Create:
    is_prompt = {"key": PROMPT, "value": "true"} in fields.get("tags", ())
    body, has_tag = _tagged(fields)
    if is_prompt:  # a search shows them only where it names this
        has_tag += f" AND tags.`{PROMPT}` = 'true'"

    def discard(answer: Mapping[str, Any]) -> list[Ask]:
        version = answer["model_version"]
        fields = {"name": version["name"], "version": version["version"]}
        return [Ask("DELETE", "model-versions/delete", fields)]

    return Create(
        body,
        Ask("GET", "model-versions/search", {"filter": has_tag, "max_results": 10}),
        lambda answer: [{"model_version": each} for each in answer.get("model_versions", ())],
        discard,
    )


def _experiment(fields: dict[str, Any], _: str) -> Create:
    def found(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        there = answer.get("experiment", {})
        is_active = there.get("lifecycle_stage") == "active"
        return [{"experiment_id": there["experiment_id"]}] if is_active else []

    ask = Ask("GET", "experiments/get-by-name", {"experiment_name": fields["name"]})
    return Create(json.dumps(fields).encode(), ask, found, lambda _: [])


def _registered_model(fields: dict[str, Any], _: str) -> Create:
    return Create(
        json.dumps(fields).encode(),
        Ask("GET", "registered-models/get", {"name": fields["name"]}),
        lambda answer: [dict(answer)] if "registered_model" in answer else [],
        lambda _: [],
    )


def _added(
    fields: dict[str, Any], ask: Ask, is_there: Callable[[Mapping[str, Any]], bool]
) -> Create:
    """A create that adds to an existing object with an empty answer; repeated, it adds twice."""

    def found(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{}] if is_there(answer) else []

    return Create(json.dumps(fields).encode(), ask, found, lambda _: [])


def _model_params(fields: dict[str, Any], model_id: str) -> Create:
    sent = {param["key"] for param in fields["params"]}

    def is_there(answer: Mapping[str, Any]) -> bool:
        return sent <= {param["key"] for param in answer["model"]["data"].get("params", ())}

    return _added(fields, Ask("GET", f"logged-models/{model_id}", {}), is_there)


def _outputs(fields: dict[str, Any], _: str) -> Create:
    sent = {model["model_id"] for model in fields["models"]}

    def is_there(answer: Mapping[str, Any]) -> bool:
        there = answer["run"].get("outputs", {}).get("model_outputs", ())
        return sent <= {model["model_id"] for model in there}

    return _added(fields, Ask("GET", "runs/get", {"run_id": fields["run_id"]}), is_there)


def _model_of_a_run(fields: dict[str, Any], _: str) -> Create:
    """A model that is recorded in the history of its run, under its uuid."""
    model = json.loads(fields["model_json"])["model_uuid"]

    def is_there(answer: Mapping[str, Any]) -> bool:
        tags = {tag["key"]: tag["value"] for tag in answer["run"]["data"].get("tags", ())}
        return model in tags.get("mlflow.log-model.history", "")

    return _added(fields, Ask("GET", "runs/get", {"run_id": fields["run_id"]}), is_there)


def _assessment(fields: dict[str, Any], trace_id: str) -> Create:
    token = uuid.uuid4().hex
    given = fields["assessment"]
    given["metadata"] = {**given.get("metadata", {}), TAG: token}

    def found(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        there = answer["trace"]["trace_info"].get("assessments", ())
        mine = [each for each in there if each.get("metadata", {}).get(TAG) == token]
        return [{"assessment": each} for each in mine]

    def discard(answer: Mapping[str, Any]) -> list[Ask]:
        which = answer["assessment"]["assessment_id"]
        return [Ask("DELETE", f"traces/{trace_id}/assessments/{which}", {})]

    return Create(json.dumps(fields).encode(), Ask("GET", f"traces/{trace_id}", {}), found, discard)


_KINDS: dict[str, Callable[[dict[str, Any], str], Create]] = {
    "runs/create": _run,
    "experiments/create": _experiment,
    "registered-models/create": _registered_model,
    "model-versions/create": _model_version,
    "logged-models": _logged_model,
    "logged-models/*/params": _model_params,
    "runs/log-model": _model_of_a_run,
    "runs/outputs": _outputs,
    "traces/*/assessments": _assessment,
}
