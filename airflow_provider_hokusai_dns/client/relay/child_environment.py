"""The environment of a child, so that any MLflow client in it uses the relay. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

#: Longer than any wait of the relay, so that a child never gives up first, seconds.
_MARGIN = 60
#: Variables that direct an MLflow client elsewhere, or that only the relay needs.
_REMOVED = (
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)
EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
_LOOPBACK = ("127.0.0.1", "localhost")
_NO_PROXY = ("NO_PROXY", "no_proxy")


def child_variables(
    base: Mapping[str, str],
    *,
    uri: str,
    token: str,
    user: str,
    deadline: float,
    registry_uri: str | None = None,
    run_id: str | None = None,
    experiment_id: str | None = None,
    workspace: str | None = None,
) -> dict[str, str | None]:
    """The changes to an environment; ``None`` removes a variable.

    The client repeats nothing and waits longer than the relay, so that there is one retry policy
    and not two multiplied. The token is also set as user name and password, because MLflow's
    clients prefer those, and would read them from ``~/.mlflow/credentials``.

    :param base: the environment to change, for its ``NO_PROXY`` and a longer timeout.
    :param user: MLflow's clients note it as the user of a run; the relay takes any.
    :param deadline: seconds for which the relay waits.
    :param registry_uri: the model registry; the relay by default.
    :param run_id: of the run that ``mlflow.start_run()`` joins.
    """
    timeout = int(deadline) + _MARGIN
    given = base.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "")
    if given.isascii() and given.isdigit():
        timeout = max(timeout, int(given))
    proxies = ",".join(base[name] for name in _NO_PROXY if base.get(name))
    hosts = [host.strip() for host in proxies.split(",") if host.strip()]
    # A lone * is for every host; in a list, most clients read it as no host.
    no_proxy = "*" if {*hosts} == {"*"} else ",".join(dict.fromkeys((*hosts, *_LOOPBACK)))
    changes: dict[str, str | None] = {
        **dict.fromkeys(_REMOVED),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_REGISTRY_URI": registry_uri or uri,
        "MLFLOW_TRACKING_USERNAME": user,
        "MLFLOW_TRACKING_PASSWORD": token,
        "MLFLOW_TRACKING_TOKEN": token,
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        # It would print a link to the relay, which leads people nowhere.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        **dict.fromkeys(_NO_PROXY, no_proxy),
    }
    if workspace is not None:
        changes["MLFLOW_WORKSPACE"] = None  # the relay sets the header
    if run_id is not None:
        changes["MLFLOW_RUN_ID"] = run_id
    if experiment_id is not None:
        changes[EXPERIMENT_ID] = experiment_id
        changes["MLFLOW_EXPERIMENT_NAME"] = None
    return changes


def changed(base: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """An environment with changes applied."""
    merged = {**base, **changes}
    return {name: value for name, value in merged.items() if value is not None}
