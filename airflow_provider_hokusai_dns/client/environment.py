"""What MLflow's client takes from the process and from nowhere else.

Time-outs, retries, TLS files and the tracking URI are the process's: ``MlflowClient`` has no other
door for them. Whoever needs them claims them here for a while. Two claims that can live together
are merged, the strictest wins and a warning says so; two that cannot are refused.
No secret goes this way: paths and numbers only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.client.deadlines import HTTPSettings, http_settings
from airflow_provider_hokusai_dns.exceptions import EnvironmentConflictError

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.server import MLflowServer

_log = logging.getLogger(__name__)

_TRACKING_URI = "MLFLOW_TRACKING_URI"
_CA_FILE = "MLFLOW_TRACKING_SERVER_CERT_PATH"
_CLIENT_CERT = "MLFLOW_TRACKING_CLIENT_CERT_PATH"
_INSECURE = "MLFLOW_TRACKING_INSECURE_TLS"
_NO_LINKS = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"


def tls_variables(server: MLflowServer) -> dict[str, str | None]:
    """The TLS settings of a connection as MLflow reads them; empty over plain http.

    ``None`` takes a variable away. A CA file of the environment stays where the connection has
    none: it is the machine's.
    """
    if server.scheme != "https":
        return {}
    variables: dict[str, str | None] = {
        _INSECURE: None if server.verify else "true",
        _CLIENT_CERT: server.client_cert,
    }
    if not server.verify:
        variables[_CA_FILE] = None  # MLflow refuses the two together
    elif server.ca_file is not None:
        variables[_CA_FILE] = server.ca_file
    return variables


@dataclass(eq=False)
class Claim:
    """What one connection needs of the process, until :meth:`release`; a context manager too."""

    conn_id: str
    http: HTTPSettings
    tls: Mapping[str, str | None]
    in_run: bool
    started: bool = True
    _released: bool = field(default=False, repr=False)

    def start(self, server: MLflowServer) -> None:
        """The run has begun: from now on a call may take as long as one inside a run."""
        with _lock:
            self.http = http_settings(server, in_run=True)
            self.started = True
            _warn_of_others(self)
            _apply()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back; the environment is as before after the last one. May be called twice."""
        with _lock:
            if not self._released:
                self._released = True
                _claims.remove(self)
                _apply()


_lock = threading.Lock()
_claims: list[Claim] = []
#: By variable: what was there before us, and what we put there.
_changed: dict[str, tuple[str | None, str | None]] = {}


def claim(server: MLflowServer, *, in_run: bool = False, started: bool = True) -> Claim:
    """Make MLflow's client use the deadlines and TLS settings of a connection.

    While a run is open its settings hold: what is written inside a run may wait longer than a call
    outside of one. Outside of runs, a later claim of the same connection replaces the earlier.

    :param started: ``False`` for a run that is being opened, which is a call outside of runs until
        :meth:`Claim.start`.
    :raises EnvironmentConflictError: when another connection has other TLS settings.
    """
    new = Claim(
        conn_id=server.conn_id,
        http=http_settings(server, in_run=in_run and started),
        tls=tls_variables(server),
        in_run=in_run,
        started=started,
    )
    with _lock:
        same = [c for c in _claims if c.conn_id == new.conn_id and not c.in_run and not in_run]
        for other in _claims:
            if other in same:
                continue
            if new.tls and other.tls and new.tls != other.tls:
                names = sorted(
                    name
                    for name in {*new.tls, *other.tls}
                    if new.tls.get(name) != other.tls.get(name)
                )
                raise EnvironmentConflictError(
                    ", ".join(names),
                    (new.conn_id, other.conn_id),
                    "Put both CA certificates into one file and name it on both connections, or "
                    "use them in two tasks.",
                )
        for old in same:
            old._released = True
            _claims.remove(old)
        _warn_of_others(new)
        _claims.append(new)
        _apply()
    return new


def _warn_of_others(new: Claim) -> None:
    """Say which claims make the patience of this one shorter, or the other way round."""
    for other in _claims:
        together = (other.in_run, other.started) == (new.in_run, new.started)
        if other.conn_id != new.conn_id and together and other.http != new.http:
            _log.warning(
                "Connections %r and %r are used at the same time and have different deadlines; "
                "MLflow's client has one set of time-outs per process, so the shorter hold for "
                "both (%s).",
                new.conn_id,
                other.conn_id,
                new.http.strictest(other.http),
            )


def release_all() -> None:
    """Give everything back: the environment is as before the first claim. For tests."""
    for each in tuple(_claims):
        each.release()


def _apply() -> None:
    """Bring the environment in line with the claims. The lock is held."""
    wanted: dict[str, str | None] = {}
    deciding = [c for c in _claims if c.in_run and c.started] or _claims
    if deciding:
        http = deciding[0].http
        for other in deciding[1:]:
            http = http.strictest(other.http)
        wanted.update(http.variables())
        # It prints a link with our tag in it (http://<connection>@host), after one more request.
        wanted[_NO_LINKS] = "true"
    for each in _claims:
        wanted.update(each.tls)
    for name in list(_changed):
        if name not in wanted:
            before, ours = _changed.pop(name)
            if os.environ.get(name) == ours:
                _put(name, before)
    for name, value in wanted.items():
        before = _changed[name][0] if name in _changed else os.environ.get(name)
        _changed[name] = (before, value)
        _put(name, value)


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


_uri_lock = threading.Lock()
_uri_holders: list[tuple[str, str, str | None]] = []
_uri_ours: str | None = None
_uri_before: tuple[str | None, str | None, str | None, str | None] | None = None


@contextlib.contextmanager
def fluent_uri(conn_id: str, tracking_uri: str, registry_uri: str | None = None) -> Iterator[None]:
    """Make ``mlflow.log_metric`` and its like go to one server, and set back after.

    The fluent API has one tracking URI per process: with two servers at once, both threads would
    write to the second.

    :raises EnvironmentConflictError: while another run of this process is on another server.
    """
    with _uri_lock:
        for holder, uri, registry in _uri_holders:
            if (uri, registry) != (tracking_uri, registry_uri):
                raise EnvironmentConflictError(
                    "the tracking URI",
                    (conn_id, holder),
                    "End the run on the other server first, or use an MlflowClient of the hook "
                    "for one of them.",
                )
        if not _uri_holders:
            _enter_uri(tracking_uri, registry_uri)
        entry = (conn_id, tracking_uri, registry_uri)
        _uri_holders.append(entry)
    try:
        yield
    finally:
        with _uri_lock:
            _uri_holders.remove(entry)
            if not _uri_holders:
                _leave_uri()


def _enter_uri(tracking_uri: str, registry_uri: str | None) -> None:
    global _uri_before, _uri_ours
    import mlflow

    _uri_ours = tracking_uri
    tracking, registry = _uri_modules()
    _uri_before = (
        tracking._tracking_uri,
        os.environ.get(_TRACKING_URI),
        registry._registry_uri,
        os.environ.get("MLFLOW_REGISTRY_URI"),
    )
    mlflow.set_tracking_uri(tracking_uri)
    # Without this, a registry URI of somebody else would get what this run registers.
    mlflow.set_registry_uri(registry_uri or tracking_uri)


def _leave_uri() -> None:
    global _uri_before
    assert _uri_before is not None
    import mlflow

    tracking_uri, tracking_variable, registry_uri, registry_variable = _uri_before
    _uri_before = None
    set_tracking_uri: Any = mlflow.set_tracking_uri
    set_tracking_uri(tracking_uri)
    _uri_modules()[1]._registry_uri = registry_uri
    _put(_TRACKING_URI, tracking_variable)
    _put("MLFLOW_REGISTRY_URI", registry_variable)


def without_us(name: str) -> str | None:
    """A variable as it is without our claims and runs, for whoever reads settings out of it.

    Inside a run of another connection, ``MLFLOW_TRACKING_URI`` is that of the run: taken for a
    setting, it would lead to the wrong server, and without credentials.
    """
    now = os.environ.get(name)
    # Without the lock, under which MLflow may just be imported for the first time.
    if name == _TRACKING_URI and (held := _uri_before) is not None and now == _uri_ours:
        return held[1]
    with _lock:
        before, ours = _changed.get(name, (now, now))
        return before if now == ours else now


def _uri_modules() -> tuple[Any, Any]:
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    return tracking, registry


def _after_fork_in_child() -> None:
    global _lock, _uri_lock
    # Another thread of the parent may have held them.
    _lock = threading.Lock()
    _uri_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
