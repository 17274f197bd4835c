"""A light client of MLflow's REST API, on the http provider's hook (about 0.5 s to import).

A separate module, because a DAG file imports
:mod:`~airflow_provider_hokusai_dns.hooks.mlflow`, which must cost nothing while it is parsed.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import requests
from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk import Connection
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError

from airflow_provider_hokusai_dns.client.retries import (
    NoAnswer,
    Progress,
    Step,
    Try,
    is_switched_off,
    next_step,
    pause,
    retry_after,
)
from airflow_provider_hokusai_dns.client.routes import Repeat, route, was_removed_before
from airflow_provider_hokusai_dns.client.urllib3_pools import OwnConnections
from airflow_provider_hokusai_dns.config.fields import described
from airflow_provider_hokusai_dns.hooks.errors import MLflowRestError
from airflow_provider_hokusai_dns.resolver.deadline import bounded
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.target import quoted

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer

_CONNECT_TIMEOUT = 5.0
#: The least that a further try has for its answer, seconds.
_LEAST = 0.5
#: Seconds after the deadline in which a more exact error may still be raised.
_GRACE = 0.25
#: Bytes of an answer. The longest page that MLflow returns, 50,000 runs without data, is shorter.
_LONGEST = 64 * 2**20
#: The longest pause between two tries, seconds, unless the server asks for more.
_LONGEST_PAUSE = 5.0
#: What MLflow's error codes look like; anything else is not repeated.
_ERROR_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


def _closed_after(deadline: float, base: type[HTTPConnection]) -> type[HTTPConnection]:
    """Connections that are closed unused if they are established after the deadline.

    By then the caller has received an error and may be retrying: a request sent now would be sent
    twice.
    """

    class ClosedAfterDeadline(base):  # type: ignore[misc,valid-type]
        def connect(self) -> None:
            super().connect()
            if time.monotonic() > deadline:
                self.close()
                raise ConnectTimeoutError(self, "the connection was established after the deadline")

    return ClosedAfterDeadline


class _Bounded(OwnConnections):
    """Reads an answer up to a length and a time, and then closes the connection.

    The caller has returned by then. Without the limit, a server that never stops sending would fill
    the task's memory from an abandoned thread.

    It also translates the exceptions of ``requests``: the http provider would log them, and their
    text contains the URL with its query.
    """

    def __init__(self, method: str, path: str, deadline: float) -> None:
        super().__init__(partial(_closed_after, deadline), pool_connections=1, pool_maxsize=1)
        self._call = method, path
        self._deadline = deadline

    def close(self) -> None:
        """Close the connection, which would stay open until the pools are garbage-collected.

        The http provider's hook does not close its session at all.
        """
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated over
                manager.pools[key].close()
        super().close()

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            return self._read(super().send(*args, **kwargs))
        except requests.exceptions.RequestException as error:
            raise _translated(error, *self._call) from _without_url(error)

    def _read(self, response: requests.Response) -> requests.Response:
        body = bytearray()
        for piece in response.iter_content(2**16):
            body += piece
            if len(body) > _LONGEST:
                response.close()
                reason = f"the answer is longer than {_LONGEST >> 20} MiB: is this MLflow?"
                raise MLflowRestError(*self._call, response.status_code, "body_too_large", reason)
            if time.monotonic() > self._deadline:
                response.close()
                raise requests.exceptions.ReadTimeout
        response._content = bytes(body)
        return response


class RestHook(HttpHook):
    """The http provider's hook for one server. The name is already pinned, and stays in the URL.

    It does not get our connection, because it would send the extras as headers: the connection it
    gets has only a host.
    """

    adapter: _Bounded

    def __init__(self, method: str, server: MLflowServer, path: str, deadline: float) -> None:
        adapter = _Bounded(method, path, deadline)
        super().__init__(method=method, auth_type=lambda: self._signed, adapter=adapter)
        self._server = server

    def get_connection(self, conn_id: str) -> Connection:  # type: ignore[override]
        """A connection without secrets and extras."""
        return Connection(conn_id=conn_id, conn_type="http", host=self._server.uri)

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """With the login; ``requests`` drops it on a redirect to another host."""
        request.headers.update(self._server.headers(request.path_url))
        return request


def call(
    server: MLflowServer,
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    json: Mapping[str, Any] | None = None,
    renew: Callable[[], Credentials | None] = lambda: None,
) -> dict[str, Any]:
    """Call the REST API of a pinned server.

    A failed call is sent again by the rules of a run (see :mod:`~.client.retries`), within the
    ``request_timeout`` and ``max_retries`` of the connection, if nothing can happen twice: a create
    whose answer was lost is not sent again.

    :param path: below the server's prefix, for example ``/api/2.0/mlflow/experiments/search``.
    :param renew: reads the login again after a 401; a new one is tried once.
    :raises MLflowRestError: the call failed, or the deadline has passed.
    :raises ValueError: an argument is wrong, or ``json`` contains NaN or an infinite number.
    """
    for what, given in (("params", params), ("json", json)):
        if not isinstance(given, Mapping | None):
            raise ValueError(f"{what} of a REST call must be a dict, not {described(given)}")
    if not isinstance(method, str) or not method.isalpha():
        wrong = described(method)  # it may be the path, with a secret in its query
        raise ValueError(f"the method of a REST call must be a word such as 'GET', not {wrong}")
    method, name = method.upper(), str(path).partition("?")[0]
    if not name.startswith("/") or "//" in name:
        raise ValueError(f"the path of a REST call must begin with one slash, unlike {name!r}")
    began = time.monotonic()
    deadline = began + server.request_timeout
    rule = route(method, name)
    # A second rename is refused, and its answer would have to be asked for.
    is_harmless = rule.repeat is Repeat.FREELY and rule.name != "registered-models/rename"
    allowed, tries, sent, renewed = server.max_retries, 0, 0, False
    known: MLflowRestError | None = None  # the last failure that the deadline did not cause
    while True:
        tries += 1
        try:
            return _once(server, method, path, params, json, deadline)
        except MLflowRestError as error:
            if sent and was_removed_before(rule, error.code):
                return {}
            if error.status == 401 and not renewed:
                renewed, login = True, renew()
                if login not in (None, server.credentials) and time.monotonic() < deadline:
                    server = replace(server, credentials=login)
                    continue
            last, now = _try_of(error), time.monotonic()
            sent += not last.was_not_carried_out
            progress = Progress(
                repeat=Repeat.FREELY if is_harmless else Repeat.ONCE,
                deadline=server.request_timeout,
                waiting_since=began,
                can_send_again=allowed is None or sent <= allowed,
            )
            left = deadline - now - _LEAST
            if error.status or left > 0:
                known = error
            # Only a pause that the server asks for is shortened: the last ones must be no burst.
            most, spread = left if last.retry_after else math.inf, random.random()  # noqa: S311
            seconds = pause(last, tries, most, _LONGEST_PAUSE, spread)
            if next_step(last, progress, now) is not Step.AGAIN or left <= 0 or seconds > left:
                if known is None or known is error:
                    raise
                raise known from None
        time.sleep(seconds)


class _ConnectionLostError(MLflowRestError):
    """The connection broke after it was established: the request may have been carried out."""


def _try_of(error: MLflowRestError) -> Try:
    """What the rules for sending again need to know of a failed call."""
    if error.code == "tls_error":
        return Try(failure=NoAnswer.FINAL)
    if not error.status:
        is_cut = isinstance(error, _ConnectionLostError)
        return Try(failure=NoAnswer.CUT if is_cut else NoAnswer.NOT_SENT)
    body = f"{error.code} {error.reason}".encode(errors="replace")
    return Try(error.status, retry_after=error.retry_after, body=body)


def _once(
    server: MLflowServer,
    method: str,
    path: str,
    params: Mapping[str, Any] | None,
    json: Mapping[str, Any] | None,
    deadline: float,
) -> dict[str, Any]:
    """One request on a thread that is abandoned at the deadline.

    A timeout of ``requests`` limits each wait for bytes, so a server that trickles bytes can
    outlast it. Nothing is sent after the deadline: inside ``hook.run`` the pin would wait for
    MLflow for minutes, and the thread would then send a request that the caller gave up long ago.
    """
    left, name = deadline - time.monotonic(), path.partition("?")[0]
    outcome: list[requests.Response | BaseException] = []

    def send() -> None:
        try:
            hook = RestHook(method, server, name, deadline)
            with bounded(max(0.0, deadline - time.monotonic())), closing(hook.adapter):
                outcome.append(
                    hook.run(
                        path,
                        data=dict(params) if params and method == "GET" else None,
                        extra_options={
                            "check_response": False,
                            "allow_redirects": False,
                            "timeout": (min(_CONNECT_TIMEOUT, max(0.1, left)), max(0.1, left)),
                            "verify": (server.ca_file or True) if server.verify else False,
                            "cert": server.client_cert,
                        },
                        **({"json": dict(json)} if json is not None else {}),
                        **({"params": dict(params)} if params and method != "GET" else {}),
                    )
                )
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=send, name="hokusai-dns-rest", daemon=True)
    thread.start()
    thread.join(max(0.0, left) + _GRACE)
    late = f"no complete answer within {server.request_timeout:g} s (request_timeout)"
    if not outcome:
        raise _ConnectionLostError(method, name, 0, "", late)
    if isinstance(outcome[0], BaseException):
        raise _translated(outcome[0], method, name)
    return _document(outcome[0], method, name)


def _translated(error: BaseException, method: str, path: str) -> BaseException:
    """Translate an exception of ``requests``. Its text is dropped: the URL may contain a secret."""
    if isinstance(error, MLflowRestError):
        return error
    if isinstance(error, requests.exceptions.InvalidJSONError):  # the caller's; nothing was sent
        return ValueError(f"the body of {method} {path} is not valid JSON: {error}")
    inner: BaseException | None = error
    why = ""
    while inner is not None:  # the pin's own error is at the bottom, and says the most
        if isinstance(inner, DNSResolutionError):
            return MLflowRestError(method, path, 0, "unresolved", str(inner))
        if isinstance(inner, OSError) and inner.strerror:
            why = f" ({inner.strerror})"
        inner = inner.__cause__ or inner.__context__
    if isinstance(error, requests.exceptions.ProxyError):
        reason = "the proxy set in the environment cannot be reached, or refuses to connect"
        return MLflowRestError(method, path, 0, "unreachable", reason)
    if isinstance(error, requests.exceptions.SSLError):
        return MLflowRestError(method, path, 495, "tls_error", "no secure connection could be made")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return MLflowRestError(method, path, 0, "unreachable", "it accepts no connection")
    if isinstance(error, requests.exceptions.ConnectionError):
        refused = "NewConnectionError" in repr(error.args) or "refused" in str(error).lower()
        kind = MLflowRestError if refused else _ConnectionLostError
        reason = f"the connection was refused or closed early{why}"
        return kind(method, path, 0, "unreachable", reason)
    if isinstance(error, requests.exceptions.RequestException):
        return _ConnectionLostError(method, path, 0, "", f"{type(error).__name__}")
    return error


def _without_url(error: requests.exceptions.RequestException) -> BaseException | None:
    """What may be shown as the cause of a translated exception: all above it quotes the URL."""
    inner = error.args[0] if error.args else None
    return inner.reason if isinstance(inner, MaxRetryError) else None


def _document(response: requests.Response, method: str, path: str) -> dict[str, Any]:
    try:
        document = response.json()
    except (ValueError, RecursionError):  # a foreign server may nest without limit
        document = None
    status = response.status_code
    if status >= 300:
        given = document if isinstance(document, dict) else {}
        code = str(given.get("error_code", ""))
        said = given.get("message")
        if not said:  # not before: the body may be long, and its character set has to be guessed
            text = response.text
            said = text if is_switched_off(text) else response.reason
        reason = f"the server says {quoted(said, 500)}" if said else "the server gives no reason"
        code = code if _ERROR_CODE.match(code) else ""
        asked = retry_after(response.headers, time.time())
        raise MLflowRestError(method, path, status, code, reason, asked)
    if not isinstance(document, dict):
        reason = "the answer is not a JSON object: is this MLflow's REST API (/api/...)?"
        raise MLflowRestError(method, path, status, "", reason)
    return document
