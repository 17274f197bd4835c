"""Which requests may be sent again, and MLflow's own time limits.

The rules follow the code and behaviour of MLflow's stores (3.1 to 3.18): sending a metric,
parameter, tag or artifact twice has no further effect; a create has. A POST that is in no table
here is sent once, whatever a newer MLflow does with it. Used for MLflow's client and the relay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_hokusai_dns.client.creates import is_known, json_object
from airflow_provider_hokusai_dns.config.overrides import original_value


class Repeat(StrEnum):
    """What a second sending does."""

    FREELY = "freely"
    #: It makes something a second time, and what it made can be found again.
    READ_BACK = "read_back"
    #: It may do harm: only where it is certain that MLflow has not carried out the first.
    ONCE = "once"


@dataclass(frozen=True, slots=True)
class Route:
    """The rule for one method and path.

    :param name: the path below ``/mlflow/``, or the whole path; ids are left in.
    :param base: what stands before it, for questions to the same API; empty outside of it.
    :param writes: whether something is lost when it does not arrive.
    :param removes: a second time answers "does not exist", which is then what was wanted.
    """

    name: str
    base: str
    repeat: Repeat
    writes: bool
    removes: bool = False


# The server may stand below a path of its own, such as /mlflow.
_API = re.compile(r"(?P<base>.*/(?:ajax-)?api/(?P<version>\d+)\.\d+/mlflow)/(?P<name>.+?)/?\Z")
#: What stores something is below one of these; a gateway's completions and graphql only answer.
_STORING = re.compile(r".*/(?:(?:ajax-)?api/\d+\.\d+/|v1/traces/?\Z)")
_ARTIFACTS = re.compile(r".*/(?:ajax-)?api/\d+\.\d+/mlflow-artifacts/(?P<name>.+)\Z")

#: POSTs that only read.
_READING = re.compile(
    r"""(?:.+/)?(?:search|search-datasets|batchGetInfos|calculate-filter-correlation|list)
      | traces/metrics
      | registered-models/get-latest-versions
      | artifacts/presigned-(?:upload|download)-url
    """,
    re.VERBOSE,
)
#: POSTs that write, and that change nothing when they come a second time.
_IDEMPOTENT = re.compile(
    r"""runs/(?:update|log-metric|log-parameter|log-batch|log-inputs|set-tag)
      | experiments/(?:update|set-experiment-tag)
      | traces/(?:link-to-run|link-prompts)
      | (?:registered-models|model-versions)/set-tag
      | registered-models/alias
      | model-versions/transition-stage
      | datasets/[^/]+/(?:add-experiments|remove-experiments|records)
      | upload-artifact
    """,
    re.VERBOSE,
)
#: POSTs whose second sending is refused, because the first has done it. Not among them is
#: ``traces/delete-traces``: with ``max_traces`` a second time removes others.
_REMOVING = re.compile(
    r"(?:runs|experiments)/(?:delete|restore|delete-tag|delete-experiment-tag)"
    r"|registered-models/rename"
)
#: MLflow's own time-out for an answer; what may be repeated is tried again after it, seconds.
ANSWER_TIMEOUT = 120.0
_TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
#: Seconds for which MLflow's own 500 is repeated, as by a plain client: its database may be locked.
PATIENCE_WITH_500 = 247.0
_NOT_THERE = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"})
#: Calls on a run that must be active, or deleted, which MLflow otherwise calls a wrong parameter.
_OF_A_STATE = frozenset({"runs/delete", "runs/restore"})


def route(method: str, path: str) -> Route:
    """Judge a request.

    :param method: in upper case.
    :param path: decoded or not, without the query.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        return Route(path, "", Repeat.FREELY, writes=False)
    writes = _STORING.match(path) is not None
    if method in ("DELETE", "PUT", "PATCH"):  # artifacts; updates of tags, models and traces
        return Route(_short(path), "", Repeat.FREELY, writes, removes=method == "DELETE")
    if match := _ARTIFACTS.match(path):
        return _artifact_post(match["name"])
    if match := _API.match(path):
        return _api_post(match["base"], match["name"], int(match["version"]))
    if path.rstrip("/").endswith("/v1/traces"):  # OpenTelemetry: spans have ids of their own
        return Route("v1/traces", "", Repeat.FREELY, writes=True)
    return Route(_short(path), "", Repeat.ONCE, writes)


def author_timeout() -> float:
    """The value of MLflow's own variable, if the author has set it, seconds."""
    try:
        return float(original_value(_TIMEOUT_VARIABLE) or "0")
    except ValueError:
        return 0.0


def error_code(body: bytes) -> str:
    """MLflow's ``error_code``, or nothing where the body is no error of MLflow's."""
    return str(json_object(body).get("error_code") or "")


def was_removed_before(rule: Route, code: str) -> bool:
    """Whether this is the answer to a second sending of what :attr:`~Route.removes`.

    The new name of a model is to be asked for too (:func:`~.creates.ask_for_renamed`).

    :param code: MLflow's ``error_code``.
    """
    is_refused_state = rule.name in _OF_A_STATE and code == "INVALID_PARAMETER_VALUE"
    return rule.removes and (code in _NOT_THERE or is_refused_state)


def _api_post(base: str, name: str, version: int) -> Route:
    if _READING.fullmatch(name):
        return Route(name, base, Repeat.FREELY, writes=False)
    # Since API 3 the client gives a trace its id.
    if _IDEMPOTENT.fullmatch(name) or (name == "traces" and version >= 3):
        return Route(name, base, Repeat.FREELY, writes=True)
    if _REMOVING.fullmatch(name):
        return Route(name, base, Repeat.FREELY, writes=True, removes=True)
    if is_known(name):
        return Route(name, base, Repeat.READ_BACK, writes=True)
    return Route(name, base, Repeat.ONCE, writes=True)


def _artifact_post(name: str) -> Route:
    # A second multipart upload leaves the first without parts; a store that refuses to complete
    # one twice does no harm, and the caller would have had an error without it.
    again = name.startswith(("mpu/", "presigned/"))
    return Route(name, "", Repeat.FREELY if again else Repeat.ONCE, writes=True)


def _short(path: str) -> str:
    match = _API.match(path) or _ARTIFACTS.match(path)
    return match["name"] if match else path
