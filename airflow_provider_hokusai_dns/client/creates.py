"""Calls of MLflow's REST API that make something: how each is found again when its answer is lost.

An answer that broke off, a time-out, a 502, 503 or 504 leaves open whether the server has done what
it was asked. MLflow before 3.18 sends such a call again and may make two; 3.18 raises. We ask the
server first, by a tag that is put into the request. An object that takes no tag is recognised by
its content. A create that is not in this table cannot be looked up, and is sent once (see
:mod:`~.routes`).

Only what the documented REST API says is used. Pure: the adapter of MLflow's client
(:mod:`~.transport`) and the relay (:mod:`~.relay`) send.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode

#: On all that a task makes: which request it was.
TAG = "airflow.request_id"
#: What makes a model version that of a prompt.
_PROMPT = "mlflow.prompt.is_prompt"
#: Paths with an id in the middle.
_OF_ONE = re.compile(r"(logged-models|traces)/([^/]+)/([^/]+)")

#: Fields that an object keeps from its create.
_STAYS = ("start_time", "source", "run_id")

Fields = Mapping[str, Any]
#: The kind of an object, its name, and its id.
Key = tuple[str, str, str]


class Ask(NamedTuple):
    """One call below ``.../mlflow/``; ``fields`` are the query of a GET, else the JSON body."""

    method: str
    path: str
    fields: Fields

    def below(self, base: str) -> tuple[str, bytes | None]:
        """Its URL, and its body.

        :param base: what stands before the path, up to ``/mlflow``.
        """
        if self.method != "GET":
            return f"{base}/{self.path}", json.dumps(self.fields).encode()
        return f"{base}/{self.path}{'?' if self.fields else ''}{urlencode(self.fields)}", None


class _Kind(NamedTuple):
    """What is known of one create. An id is a path of keys into the object."""

    #: The object's name in the answer; the answer is empty without one.
    what: str
    #: The call that tells whether it is made, by the fields, the id in the path and a condition.
    ask: Callable[[Fields, str, str], Ask]
    #: Where the answer to that has it, or a list of it.
    listed: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    #: The calls that take one back, by the object; for a duplicate.
    discard: Callable[[Fields], list[Ask]] = lambda made: []
    #: For what takes no tag: whether all that it adds is in the answer to ``ask``.
    is_there: Callable[[Fields, Fields], bool] | None = None


@dataclass(frozen=True, slots=True)
class Create:
    """One call that makes something.

    :param body: the JSON to send in place of the caller's.
    :param ask: the call that tells whether it is made.
    :param token: the value of its tag.
    """

    body: bytes
    ask: Ask
    token: str
    _kind: _Kind
    _fields: Fields

    @property
    def may_be_duplicated(self) -> bool:
        """Whether MLflow makes it twice when it is sent twice."""
        return bool(self._kind.id)

    def may_be_made(self, status: int, error_code: str) -> bool:
        """Whether a refusal of a second sending may mean that the first was carried out.

        What is told by its content is refused by the database, in words of its own.
        """
        if self._kind.is_there is not None:
            return status == 400
        return error_code == "RESOURCE_ALREADY_EXISTS"

    @property
    def is_data(self) -> bool:
        """Whether it adds to what is there, and so is of use without its caller."""
        return self._kind.what in ("", "assessment")

    def found(self, document: Any) -> list[dict[str, Any]]:
        """What an answer to ``ask`` lists of this call, as the answer to the create would be."""
        kind = self._kind
        if kind.is_there is not None:
            return [{}] if kind.is_there(self._fields, document) else []
        listed = _at(document, *kind.listed)
        mine = [
            made
            for made in (listed if isinstance(listed, list) else [listed])
            if tags_of(made).get(TAG) == self.token
        ]
        if kind.what == "experiment":  # the one whose answer is not the object
            return [{"experiment_id": made.get("experiment_id")} for made in mine]
        return [{kind.what: made} for made in mine]

    def key_of(self, answer: Fields) -> Key:
        """What identifies the object in an answer to a create."""
        kind, made = self._kind, _at(answer, self._kind.what)
        return kind.what, str(_at(made, "name")), str(_at(made, *kind.id))

    def discards(self, document: Any, kept: Container[Key]) -> list[list[Ask]]:
        """For each duplicate in an answer to ``ask``, the calls that take it back.

        An author may copy tags, ours among them, from one object to another. That one is none: a
        caller has got it, or it is not what was asked for.

        :param kept: the objects that callers have got.
        """
        return [
            self._kind.discard(found[self._kind.what])
            for found in self.found(document)
            if self.key_of(found) not in kept and self._is_of_this(found[self._kind.what])
        ]

    def _is_of_this(self, made: Fields) -> bool:
        there = {**made, **_at(made, "info")}
        given = ((_given(self._fields, key), there.get(key)) for key in _STAYS)
        return all(not sent or not stored or str(sent) == str(stored) for sent, stored in given)


def create_of(
    method: str, name: str, body: bytes | str | None, run_tags: Mapping[str, str] | None = None
) -> Create | None:
    """What a request makes, where that can be asked for; with the tag put in.

    :param name: the path below ``.../mlflow/``.
    :param run_tags: further tags of a run, where the caller has not set them.
    """
    which, of = _of_one(name)
    if method != "POST" or which not in _KINDS or not body:
        return None
    kind, token = _KINDS[which], str(uuid.uuid4())
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict):
            return None
        if which == "traces/*/assessments":
            given = fields["assessment"]
            given["metadata"] = {**given.get("metadata", {}), TAG: token}
        elif kind.is_there is None:
            fields["tags"] = _tagged(fields, token, run_tags if which == "runs/create" else None)
        ask = kind.ask(fields, of, f"tags.`{TAG}` = '{token}'")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None  # not as the API has it: for the server to refuse
    return Create(json.dumps(fields).encode(), ask, token, kind, fields)


def is_known(name: str) -> bool:
    """Whether a POST to this path below ``.../mlflow/`` makes what can be asked for."""
    return _of_one(name)[0] in _KINDS


def ask_for_renamed(name: str, body: bytes | str | None) -> Ask | None:
    """For ``registered-models/rename``: whose answer, if there is a model, is that of the call.

    :param name: the path below ``.../mlflow/``.
    """
    if name != "registered-models/rename":
        return None
    new_name = _given(json_object(body or ""), "new_name")
    return Ask("GET", "registered-models/get", {"name": str(new_name)})


def ended(run_id: str, status: str) -> Ask:
    """The call that sets the end of a run, which is now."""
    now = int(time.time() * 1000)
    return Ask("POST", "runs/update", {"run_id": run_id, "status": status, "end_time": now})


def json_object(text: bytes | str) -> dict[str, Any]:
    """A body as a JSON object; empty if it is not one."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # a foreign server may nest without limit
        return {}
    return document if isinstance(document, dict) else {}


def run_of(answer: Any) -> str | None:
    """The id of the run that an answer holds."""
    run_id = _at(answer, *_RUN_ID) or _at(answer, "run", "info", "run_uuid")
    return str(run_id) if run_id else None


def status_of_run(answer: Any) -> str:
    """The status of the run that an answer holds."""
    return str(_at(answer, "run", "info", "status") or "")


def tags_of(made: Any) -> dict[str, str]:
    """The tags of a run, experiment, model or version; of an assessment the metadata."""
    for holder in (_at(made, "data"), _at(made, "info"), made):
        if isinstance(tags := _at(holder, "tags"), list):
            return {str(_at(tag, "key")): str(_at(tag, "value")) for tag in tags}
    metadata = _at(made, "metadata")
    return dict(metadata) if isinstance(metadata, dict) else {}


def _of_one(name: str) -> tuple[str, str]:
    """A path with a star in the place of its id, and the id."""
    found = _OF_ONE.fullmatch(name)
    return (f"{found[1]}/*/{found[3]}", found[2]) if found else (name, "")


def _tagged(fields: Fields, token: str, more: Mapping[str, str] | None) -> list[dict[str, str]]:
    """The caller's tags with ours. One that was copied from what another call made is replaced."""
    tags = [tag for tag in fields.get("tags") or () if tag["key"] != TAG]
    given = {tag["key"] for tag in tags}
    ours = {**(more or {}), TAG: token}
    return tags + [{"key": key, "value": ours[key]} for key in ours if key not in given]


def _at(document: Any, *keys: str) -> Any:
    """What is inside of objects; an empty one where there is something else."""
    for key in keys:
        document = document.get(key, {}) if isinstance(document, dict) else {}
    return document


def _given(fields: Fields, name: str) -> Any:
    """A field; protobuf's JSON takes it in camel case too."""
    head, *tail = name.split("_")
    return fields.get(name) or fields.get(head + "".join(map(str.title, tail)))


def _ids(objects: Any, key: str) -> set[str]:
    return {str(_at(one, key)) for one in objects} if isinstance(objects, list) else set()


# --- the kinds

_RUN_ID = ("run", "info", "run_id")


def _search(path: str) -> Callable[[Fields, str, str], Ask]:
    def ask(fields: Fields, _: str, has_tag: str) -> Ask:
        where = str(_given(fields, "experiment_id") or "0")  # MLflow's own default
        asked = {"experiment_ids": [where], "filter": has_tag, "max_results": 10}
        return Ask("POST", path, asked)

    return ask


def _discard_run(run: Fields) -> list[Ask]:
    run_id = run["info"]["run_id"]
    return [ended(run_id, "KILLED"), Ask("POST", "runs/delete", {"run_id": run_id})]


def _search_versions(fields: Fields, _: str, has_tag: str) -> Ask:
    if {"key": _PROMPT, "value": "true"} in fields["tags"]:
        has_tag += f" AND tags.`{_PROMPT}` = 'true'"  # a search shows prompts only to who names it
    return Ask("GET", "model-versions/search", {"filter": has_tag, "max_results": 10})


def _discard_version(version: Fields) -> list[Ask]:
    which = {"name": version["name"], "version": version["version"]}
    return [Ask("DELETE", "model-versions/delete", which)]


def _discard_assessment(made: Fields) -> list[Ask]:
    return [Ask("DELETE", f"traces/{made['trace_id']}/assessments/{made['assessment_id']}", {})]


def _get_run(fields: Fields, *_: str) -> Ask:
    return Ask("GET", "runs/get", {"run_id": str(_given(fields, "run_id"))})


def _has_params(sent: Fields, document: Fields) -> bool:
    params = _at(document, "model", "data", "params")
    return _ids(sent.get("params"), "key") <= _ids(params, "key")


def _has_outputs(sent: Fields, document: Fields) -> bool:
    models, outputs = sent.get("models"), _at(document, "run", "outputs", "model_outputs")
    return bool(models) and _ids(models, "model_id") <= _ids(outputs, "model_id")


def _has_model(sent: Fields, document: Fields) -> bool:
    """It stands in the history of its run, under its uuid."""
    try:
        model = str(json.loads(_given(sent, "model_json"))["model_uuid"])
    except (ValueError, TypeError, LookupError):
        return False
    return model in tags_of(_at(document, "run")).get("mlflow.log-model.history", "")


_KINDS = {
    "runs/create": _Kind(
        "run", _search("runs/search"), ("runs",), ("info", "run_id"), _discard_run
    ),
    "experiments/create": _Kind(
        "experiment",
        lambda fields, *_: Ask(
            "GET", "experiments/get-by-name", {"experiment_name": fields["name"]}
        ),
        ("experiment",),
    ),
    "registered-models/create": _Kind(
        "registered_model",
        lambda fields, *_: Ask("GET", "registered-models/get", {"name": fields["name"]}),
        ("registered_model",),
    ),
    "model-versions/create": _Kind(
        "model_version", _search_versions, ("model_versions",), ("version",), _discard_version
    ),
    "logged-models": _Kind(
        "model",
        _search("logged-models/search"),
        ("models",),
        ("info", "model_id"),
        lambda model: [Ask("DELETE", f"logged-models/{model['info']['model_id']}", {})],
    ),
    "traces/*/assessments": _Kind(
        "assessment",
        lambda fields, trace_id, _: Ask("GET", f"traces/{trace_id}", {}),
        ("trace", "trace_info", "assessments"),
        ("assessment_id",),
        _discard_assessment,
    ),
    "logged-models/*/params": _Kind(
        "",
        lambda fields, model_id, _: Ask("GET", f"logged-models/{model_id}", {}),
        is_there=_has_params,
    ),
    "runs/outputs": _Kind("", _get_run, is_there=_has_outputs),
    "runs/log-model": _Kind("", _get_run, is_there=_has_model),
}
