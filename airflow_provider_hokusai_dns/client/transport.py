"""How the requests of MLflow's client reach a connection's server, and how long they wait for it.

MLflow's own session retries a fixed number of times, treats a slow answer as a failure, and retries
different calls in different versions. So requests for a signed-in connection are sent by an adapter
of ours. ``requests`` selects a session's adapter by the URL, and ours is selected for URLs with the
tag of a connection (see :mod:`~.auth`). All other requests are sent as before, and no private name
of MLflow is needed.

A call waits for its server until the deadline of the connection: ``deadline`` while a run is open,
else ``request_timeout``. This applies to every fault: no name, no connection, no answer, or a
status of 502, 503 or 504. A call that creates something is sent again only after asking the server
whether it exists (see :mod:`~.creates`).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import rewind_body
from urllib3 import HTTPResponse

from airflow_provider_hokusai_dns import forks
from airflow_provider_hokusai_dns.client import dead_peer
from airflow_provider_hokusai_dns.client.creates import Ask, Create, ask_for_renamed, create_of
from airflow_provider_hokusai_dns.client.faults import try_of
from airflow_provider_hokusai_dns.client.retries import Progress, Step, Try, next_step, pause
from airflow_provider_hokusai_dns.client.routes import (
    ANSWER_TIMEOUT,
    Repeat,
    author_s_timeout,
    error_code,
    route,
    was_removed_before,
)
from airflow_provider_hokusai_dns.client.urllib3_pools import pool_classes
from airflow_provider_hokusai_dns.config.origin import origin_of
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.resolver.deadline import bounded, seconds_left

_log = logging.getLogger(__name__)

_POOL_CLASSES = pool_classes(dead_peer.noticing)
#: Seconds for one TCP connect: the pin has already tested the address.
CONNECT_TIMEOUT = 10.0
#: The least that a first attempt waits for its answer, seconds.
_SHORTEST_ANSWER = 10.0
_POOL_SIZE = 64
#: Of the pauses between attempts, seconds.
_LONGEST_PAUSE = 10.0


class ServerAwayError(requests.exceptions.RetryError):
    """A server answered 502, 503 or 504 until the deadline."""


class SentOnceError(requests.exceptions.RetryError):
    """A request that may have been carried out, and that could do harm a second time."""


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request that failed in the end.

    :param body: the body that was sent, unless it is a file.
    :param error: one sentence.
    """

    method: str
    body: bytes
    error: Exception


class Carrier(HTTPAdapter):
    """Sends the requests of one connection. Thread-safe.

    :param renew: returns the connection's current ``Authorization`` header, after a 401.
    """

    def __init__(
        self, server: MLflowServer, *, renew: Callable[[], str | None] | None = None
    ) -> None:
        super().__init__(pool_connections=2, pool_maxsize=_POOL_SIZE, max_retries=0)
        self.server = server
        self.renew = renew
        self._away = False
        #: Creates whose answer was once not seen: a slow server may have made them later.
        self._in_doubt: list[tuple[requests.PreparedRequest, Create, Mapping[str, Any]]] = []

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Notice a dead host while waiting for an answer."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOL_CLASSES

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The same for a proxy."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOL_CLASSES
        return manager

    @property
    def patience(self) -> float:
        """Seconds for which a call that starts now may wait."""
        in_run = has_open_run(self.server.conn_id)
        whole = self.server.deadline if in_run else self.server.request_timeout
        return max(0.0, min(whole, seconds_left()))

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, stream: bool = False, **kwargs: Any
    ) -> requests.Response:
        """Send a request, and again while its server is unavailable; see the module.

        :raises ServerAwayError: it answered 502, 503 or 504 until the deadline.
        :raises requests.RequestException: the error of the last attempt.
        """
        path = urlsplit(request.url or "").path
        method = (request.method or "").upper()
        body = request.body if isinstance(request.body, bytes | str) else None
        rule = route(method, path)
        create = create_of(method, rule.name, body)
        if create is not None:
            request = request.copy()
            request.prepare_body(create.body, None)
        repeat = Repeat.ONCE if rule.repeat is Repeat.READ_BACK and create is None else rule.repeat
        is_whole, allowed = True, self.server.max_retries
        began, maybe_done, attempt, sent, renewed = time.monotonic(), False, 0, 0, False
        while True:
            attempt += 1
            left = self.patience - (time.monotonic() - began) if attempt > 1 else None
            outcome = self._once(request, stream, left, create, **kwargs)
            last = try_of(outcome)
            if maybe_done and create is not None and isinstance(outcome, requests.Response):
                made = self._settled(request, create, outcome)
                if made is not None:
                    return made
            if last.status == 401 and not renewed and self._has_new_login(request):
                renewed = True
                continue
            if not last.may_pass:
                break
            sent += not last.was_not_carried_out
            maybe_done = sent > 0
            if body is None and request.body is not None:
                # A file that is sent once more takes its time; that is no outage.
                began = began if attempt > 1 else time.monotonic()
                is_whole = is_whole and _can_rewind(request)
            progress = Progress(
                repeat=repeat,
                deadline=self.patience,
                waiting_since=began,
                away_since=None,
                can_send_again=is_whole and (allowed is None or sent <= allowed),
            )
            now = time.monotonic()
            if next_step(last, progress, now) not in (Step.AGAIN, Step.READ_BACK):
                break
            self._log_away(outcome)
            if isinstance(outcome, requests.Response):
                outcome.close()
            spread = random.uniform(0.5, 1.0)  # noqa: S311
            time.sleep(pause(last, attempt, progress.gives_up_at - now, _LONGEST_PAUSE) * spread)
            if maybe_done and create is not None:
                left = max(1.0, self.patience - (time.monotonic() - began))
                if (made := self._read_back(request, create, left)) is not None:
                    return made
        left = self.patience - (time.monotonic() - began)
        if last.may_pass and maybe_done and create is not None and left > 0:
            made = self._read_back(request, create, left)  # max_retries is used up
            if made is not None:
                return made
        answer = outcome if isinstance(outcome, requests.Response) else None
        # A download must not be read here, so the rule comes first.
        if (
            maybe_done
            and rule.removes
            and answer is not None
            and was_removed_before(rule, error_code(answer.content))
        ):
            asks = ask_for_renamed(rule.name, body)
            done = {} if asks is None else self._document(request, asks)
            if done is not None:
                return self._made_up(request, done)
        if last.says_away and not last.was_not_carried_out and rule.repeat is Repeat.ONCE:
            why = outcome if answer is None else f"the answer was {answer.status_code}"
            outcome = SentOnceError(
                f"{method} {rule.name} was not sent again: {why}, so that {self.server.uri} may "
                "have carried it out. See whether it has before you repeat the call.",
                request=request, response=answer,
            )  # fmt: skip
        return self._last(request, outcome, last, body, time.monotonic() - began)

    def _once(
        self,
        request: requests.PreparedRequest,
        stream: bool,
        left: float | None,
        create: Create | None,
        **kwargs: Any,
    ) -> requests.Response | Exception:
        """One attempt: the response with its body, or the error.

        :param left: seconds until the deadline; ``None`` for the first attempt.
        """
        patience, limit = self.patience, seconds_left()
        if left is None:
            # Where nothing may wait (deadline 0) an answer still takes its time.
            left = max(patience, min(self.server.request_timeout, _SHORTEST_ANSWER, limit))
        left = answer = max(left, 0.5)
        if request.body is not None and not isinstance(request.body, bytes | str):
            answer = max(answer, patience)  # a slow store behind the server has the file now
        elif create is None:
            answer = min(answer, ANSWER_TIMEOUT)
        if limit == float("inf"):
            answer = max(answer, author_s_timeout())
        kwargs["timeout"] = (min(CONNECT_TIMEOUT, left), answer)
        kwargs["cert"] = self.server.client_cert
        if not self.server.verify:
            kwargs["verify"] = False
        elif self.server.ca_file is not None:
            kwargs["verify"] = self.server.ca_file
        elif not kwargs.get("verify"):
            kwargs["verify"] = True
        try:
            with bounded(left):
                response = super().send(request, stream=stream, **kwargs)
            if not stream:
                _ = response.content
            return response
        except (requests.exceptions.RequestException, ssl.SSLError) as error:
            return error

    def _last(
        self,
        request: requests.PreparedRequest,
        outcome: requests.Response | Exception,
        last: Try,
        body: bytes | str | None,
        took: float,
    ) -> requests.Response:
        """Return the outcome to the caller, and notify the observer of an error."""
        status = last.status
        if status and not last.says_away:
            self._log_back()
        if last.says_away and isinstance(outcome, requests.Response):
            text = " ".join(outcome.text.split())[:200]
            outcome = ServerAwayError(
                f"{request.method} {request.path_url.partition('?')[0]}: the server of connection "
                f"{self.server.conn_id!r} answered {status} for {took:.0f} s: {text}",
                request=request, response=outcome,
            )  # fmt: skip
        if isinstance(outcome, Exception) or status >= 400:
            error = outcome if isinstance(outcome, Exception) else _as_error(outcome)
            content = body.encode() if isinstance(body, str) else body or b""
            failure = FailedRequest(request.method or "", content, error)
            for watch in tuple(_watches):
                watch(failure)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    # --- creates

    def _settled(
        self, request: requests.PreparedRequest, create: Create, response: requests.Response
    ) -> requests.Response | None:
        """The answer to a create that was sent more than once; duplicates are removed."""
        if create.may_be_made(response.status_code, error_code(response.content)):
            return self._read_back(request, create)
        if not response.ok:
            return None
        self._keep_one(request, create, response.json())
        return response

    def _read_back(
        self, request: requests.PreparedRequest, create: Create, seconds: float = math.inf
    ) -> requests.Response | None:
        """The answer to a create that was carried out; ``None`` also if that cannot be asked.

        :param seconds: for the question; as long as any call by default.
        """
        with bounded(seconds):
            found = create.found(self._document(request, create.ask))
        return self._answer(request, create, found) if found else None

    def _document(self, request: requests.PreparedRequest, ask: Ask) -> Any:
        with contextlib.suppress(requests.exceptions.RequestException, ValueError):
            response = self._ask(request, ask)
            if response.ok:
                return response.json()
        return None

    def _answer(
        self, request: requests.PreparedRequest, create: Create, found: list[dict[str, Any]]
    ) -> requests.Response:
        """The response that the caller would have received, from what is on the server."""
        first = found[-1]  # runs and models are listed newest first
        self._keep_one(request, create, first)
        return self._made_up(request, first)

    def _made_up(
        self, request: requests.PreparedRequest, answer: Mapping[str, Any]
    ) -> requests.Response:
        self._log_back()
        raw = HTTPResponse(
            io.BytesIO(json.dumps(answer).encode()),
            headers={"Content-Type": "application/json"},
            status=200,
            preload_content=False,
        )
        return self.build_response(request, raw)

    def _keep_one(
        self, request: requests.PreparedRequest, create: Create, kept: Mapping[str, Any]
    ) -> None:
        """Take back what was made twice, and look again when the run ends."""
        if create.may_be_double:
            self._in_doubt.append((request, create, kept))
            self._discard_twins(request, create, kept)

    def _discard_twins(
        self, request: requests.PreparedRequest, create: Create, kept: Mapping[str, Any]
    ) -> None:
        twins = create.discards(self._document(request, create.ask), kept)
        for asks in twins:
            for ask in asks:
                with contextlib.suppress(requests.exceptions.RequestException):
                    self._ask(request, ask)
        if twins:
            path = urlsplit(request.url or "").path
            _log.warning("%s was carried out %d times: took back all but one", path, len(twins) + 1)

    def sweep(self) -> None:
        """Delete what a slow server has created a second time after all."""
        doubts, self._in_doubt = self._in_doubt, []
        for request, create, kept in doubts:
            self._discard_twins(request, create, kept)

    def _ask(self, like: requests.PreparedRequest, ask: Ask) -> requests.Response:
        """Another call to the same API, with the same login."""
        request = like.copy()
        request.method = ask.method
        request.headers.pop("Content-Length", None)
        request.url, body = ask.below(route("POST", like.url or "").base)
        request.prepare_body(body, None)
        return self.send(request)

    # --- logins and log lines

    def _has_new_login(self, request: requests.PreparedRequest) -> bool:
        """Whether the connection has a new login by now; if so, it is set on the request."""
        before = request.headers.get("Authorization")
        if self.renew is None or (now := self.renew()) is None or now == before:
            return False
        request.headers["Authorization"] = now
        return bool(_can_rewind(request))

    def _log_away(self, outcome: requests.Response | Exception) -> None:
        if not self._away and seconds_left() == float("inf"):
            self._away = True
            _log.warning(
                "MLflow at %s is unavailable (%s). Waiting for up to %.0f s.",
                self.server.uri,
                getattr(outcome, "status_code", type(outcome).__name__),
                self.patience,
            )

    def _log_back(self) -> None:
        if self._away and seconds_left() == float("inf"):  # not by what is asked in between
            self._away = False
            _log.warning("MLflow at %s answers again.", self.server.uri)


def _as_error(response: requests.Response) -> Exception:
    try:
        document = response.json()
        text = f"{document.get('error_code', '')}: {document.get('message', '')}"
    except (ValueError, AttributeError):
        text = " ".join(response.text.split())
    return requests.exceptions.HTTPError(f"{response.status_code} {text[:300]}")


def _can_rewind(request: requests.PreparedRequest) -> bool:
    """Rewind a file that is being sent."""
    if request.body is None or isinstance(request.body, bytes | str):
        return True
    try:
        rewind_body(request)
    except requests.exceptions.UnrewindableBodyError:
        return False
    return True


# --- which requests are carried

_lock = forks.free_in_child(threading.Lock())
_carriers: dict[str, Carrier] = {}
#: How many runs are open, by connection.
_runs: dict[str, int] = {}
_watches: list[Callable[[FailedRequest], None]] = []


def carry(server: MLflowServer, renew: Callable[[], str | None] | None = None) -> None:
    """Send the requests of a connection from now on, with its current settings."""
    with _lock:
        current = _carriers.get(server.conn_id)
        if current is not None and current.server == server:
            current.renew = renew
        else:
            made = _carriers[server.conn_id] = Carrier(server, renew=renew)
            if current is not None:  # the login may have changed during a run
                made._in_doubt = current._in_doubt
        _install()


def drop(conn_id: str) -> None:
    """Stop sending the requests of a connection."""
    with _lock:
        _carriers.pop(conn_id, None)


def carrier_of(conn_id: str) -> Carrier | None:
    """The carrier of a connection's requests."""
    return _carriers.get(conn_id)


@contextlib.contextmanager
def run_is_open(conn_id: str) -> Iterator[None]:
    """While the block runs, calls of this connection may wait as long as inside a run."""
    with _lock:
        _runs[conn_id] = _runs.get(conn_id, 0) + 1
    try:
        yield
    finally:
        with _lock:
            _runs[conn_id] -= 1


def has_open_run(conn_id: str) -> bool:
    """Whether a run of this connection is open in this process."""
    return _runs.get(conn_id, 0) > 0


@contextlib.contextmanager
def watched(watch: Callable[[FailedRequest], None]) -> Iterator[None]:
    """Report each request that fails in the end, on the thread of its caller."""
    _watches.append(watch)
    try:
        yield
    finally:
        _watches.remove(watch)


def _install() -> None:
    """Replace the selection of adapters. The lock is held.

    If other code has wrapped our function, it is still called: replaced again, it would become its
    own original.
    """
    saved = getattr(_get_adapter, "__hokusai_original__", None)
    if saved is None or requests.Session.get_adapter is saved:
        _get_adapter.__hokusai_original__ = requests.Session.get_adapter  # type: ignore[attr-defined]
        requests.Session.get_adapter = _get_adapter  # type: ignore[method-assign]


def _get_adapter(self: requests.Session, url: str) -> Any:
    """Replaces ``requests.Session.get_adapter``."""
    if "@" in url and _carriers:
        parts = urlsplit(url)
        tag = parts.username if parts.password is None else None
        carrier = _carriers.get(unquote(tag)) if tag else None
        if carrier is not None and origin_of(url) == origin_of(carrier.server.uri):
            return carrier
    return _get_adapter.__hokusai_original__(self, url)  # type: ignore[attr-defined]


@forks.in_child
def _after_fork_in_child() -> None:
    # A connection that parent and child both used would mix their answers.
    for conn_id, carrier in list(_carriers.items()):
        _carriers[conn_id] = Carrier(carrier.server, renew=carrier.renew)
