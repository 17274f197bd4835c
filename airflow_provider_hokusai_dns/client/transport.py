"""How the requests of MLflow's client reach a connection's server, and how long they wait for it.

MLflow's own session retries a fixed number of times, treats a slow answer as a failure, and retries
different calls in different versions. So requests for a signed-in connection are sent by an adapter
of ours (see :mod:`~.adapters`).

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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.utils import rewind_body
from urllib3 import HTTPResponse

from airflow_provider_hokusai_dns.client import dead_peer
from airflow_provider_hokusai_dns.client.creates import Ask, Create, Key, ask_for_renamed, create_of
from airflow_provider_hokusai_dns.client.outcomes import EXPLAINED, try_of
from airflow_provider_hokusai_dns.client.retries import Progress, Step, Try, next_step, pause
from airflow_provider_hokusai_dns.client.routes import (
    ANSWER_TIMEOUT,
    Repeat,
    Route,
    author_timeout,
    error_code,
    route,
    was_removed_before,
)
from airflow_provider_hokusai_dns.client.urllib3_pools import OwnConnections
from airflow_provider_hokusai_dns.config.origin import origin_of, with_userinfo
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.resolver.deadline import bounded, seconds_left

_log = logging.getLogger(__name__)

#: Seconds for one TCP connect: the pin has already tested the address.
CONNECT_TIMEOUT = 10.0
#: The least that a first try waits for its answer, seconds.
_SHORTEST_ANSWER = 10.0
_POOL_SIZE = 64
#: Beside the tag, in the URL of a redirect to another server.
REDIRECTED = "redirected"
#: The longest pause between two tries, seconds.
_LONGEST_PAUSE = 10.0


#: Of one try.
Outcome = requests.Response | Exception


class ServerAwayError(requests.exceptions.RetryError):
    """A server answered 502, 503 or 504 until the deadline."""


class SentOnceError(requests.exceptions.RetryError):
    """A request that may have been carried out, and that could do harm a second time."""


@dataclass(slots=True)
class Call:
    """One call under way.

    :param rule: which call it is.
    :param text: the body that its caller sends, unless it is a file.
    """

    request: requests.PreparedRequest
    rule: Route
    text: bytes | str | None
    create: Create | None
    began: float = field(default_factory=time.monotonic)
    tries: int = 0
    sent: int = 0  # tries that may have reached MLflow
    signed_in_again: bool = False
    is_whole: bool = True  # the body can be sent again from its beginning

    @classmethod
    def of(cls, request: requests.PreparedRequest) -> Call:
        """A call to make, with our mark in a create."""
        method, path = (request.method or "").upper(), urlsplit(request.url or "").path
        text = request.body if isinstance(request.body, bytes | str) else None
        rule = route(method, path)
        create = create_of(method, rule.name, text)
        if create is not None:
            request = request.copy()
            request.prepare_body(create.body, None)
        return cls(request, rule, text, create)

    @property
    def maybe_done(self) -> bool:
        """Whether MLflow may have carried it out."""
        return self.sent > 0

    @property
    def sends_a_file(self) -> bool:
        """Whether the body is read while it is sent."""
        return self.text is None and self.request.body is not None

    @property
    def repeat(self) -> Repeat:
        """Whether it may be sent again; not a create that MLflow would not accept."""
        is_unknown = self.rule.repeat is Repeat.READ_BACK and self.create is None
        return Repeat.ONCE if is_unknown else self.rule.repeat


#: Called with a call that fails in the end, and its error.
FailureObserver = Callable[[Call, Exception], object]


class ConnectionAdapter(OwnConnections):
    """Sends the requests of one connection. Thread-safe.

    :param renew: returns the connection's current ``Authorization`` header, after a 401.
    :param in_run: whether a run of the connection is open.
    :param failed: told of each call that fails in the end, on the thread of its caller; with the
        error, which is one sentence.
    """

    def __init__(
        self,
        server: MLflowServer,
        *,
        renew: Callable[[], str | None] = lambda: None,
        in_run: Callable[[], bool] = lambda: False,
        failed: FailureObserver = lambda call, error: None,
    ) -> None:
        super().__init__(
            dead_peer.with_dead_peer_detection, pool_connections=2, pool_maxsize=_POOL_SIZE
        )
        self.server = server
        self.renew = renew
        self._in_run = in_run
        self._failed = failed
        self._away = False
        #: Creates whose answer was once not seen: a slow server may have made them later.
        self._in_doubt: list[tuple[requests.PreparedRequest, Create]] = []
        #: What callers have got, of the kinds that may be made twice.
        self._kept: set[Key] = set()

    @property
    def patience(self) -> float:
        """Seconds for which a call that starts now may wait."""
        whole = self.server.deadline if self._in_run() else self.server.request_timeout
        return max(0.0, min(whole, seconds_left()))

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, stream: bool = False, **kwargs: Any
    ) -> requests.Response:
        """Send a request, and again while its server is unavailable; see the module.

        :raises ServerAwayError: it answered 502, 503 or 504 until the deadline.
        :raises requests.RequestException: the error of the last try.
        :raises SentOnceError: it may have been carried out, and could do harm a second time.
        """
        if origin_of(request.url or "") != origin_of(self.server.uri):
            return self._send_elsewhere(request, stream, **kwargs)
        call = Call.of(request)
        while True:
            outcome = self._once(call, stream, **kwargs)
            last = try_of(outcome)
            if (made := self._settle_create(call, outcome)) is not None:
                return made
            if last.status == 401 and self._has_new_login(call):
                continue
            seconds = self._pause_after(call, last)
            if seconds is None:
                return self._ended(call, outcome, last)
            self._log_away(call, outcome)
            if isinstance(outcome, requests.Response):
                outcome.close()
            time.sleep(seconds)
            if call.maybe_done and (made := self._read_back(call, max(1.0, self._left(call)))):
                return made

    def _send_elsewhere(
        self, request: requests.PreparedRequest, stream: bool, **kwargs: Any
    ) -> requests.Response:
        """Follow a redirect to another server, once. ``requests`` has removed the login."""
        left = self._first_wait()
        kwargs["timeout"] = (min(CONNECT_TIMEOUT, left), min(ANSWER_TIMEOUT, left))
        with bounded(left):
            return _followed_by_us(super().send(request, stream=stream, **kwargs), request)

    def _first_wait(self) -> float:
        """Seconds for a first try. Where nothing may wait (deadline 0) an answer takes its time."""
        shortest = min(self.server.request_timeout, _SHORTEST_ANSWER, seconds_left())
        return max(self.patience, shortest, 0.5)

    def _left(self, call: Call) -> float:
        """Seconds until the call is given up."""
        return self.patience - (time.monotonic() - call.began)

    def _once(self, call: Call, stream: bool, **kwargs: Any) -> Outcome:
        """One try: the response with its body, or the error."""
        request, patience, limit = call.request, self.patience, seconds_left()
        left = self._left(call) if call.tries else self._first_wait()
        call.tries += 1
        left = answer = max(left, 0.5)
        if call.sends_a_file:
            answer = max(answer, patience)  # a slow store behind the server has the file now
        elif call.create is None:
            answer = min(answer, ANSWER_TIMEOUT)
        if limit == float("inf"):
            answer = max(answer, author_timeout())
        kwargs["timeout"] = (min(CONNECT_TIMEOUT, left), answer)
        kwargs["cert"] = self.server.client_cert
        bundle = self.server.ca_file or kwargs.get("verify") or True
        kwargs["verify"] = bundle if self.server.verify else False
        try:
            with bounded(left):
                response = super().send(request, stream=stream, **kwargs)
            if not stream or response.status_code in EXPLAINED:
                _ = response.content
            return response
        except (requests.exceptions.RequestException, ssl.SSLError) as error:
            return error

    def _pause_after(self, call: Call, last: Try) -> float | None:
        """Seconds until a failed request is sent again; ``None`` if it is not."""
        if not last.may_pass:
            return None
        call.sent += not last.was_not_carried_out
        if call.sends_a_file:
            # A file that is sent once more takes its time; that is no outage.
            call.began = call.began if call.tries > 1 else time.monotonic()
            call.is_whole = call.is_whole and _rewind(call.request)
        allowed, now = self.server.max_retries, time.monotonic()
        progress = Progress(
            repeat=call.repeat,
            deadline=self.patience,
            waiting_since=call.began,
            can_send_again=call.is_whole and (allowed is None or call.sent <= allowed),
        )
        if next_step(last, progress, now) not in (Step.AGAIN, Step.READ_BACK):
            return None
        spread = random.random()  # noqa: S311
        return pause(last, call.tries, progress.gives_up_at - now, _LONGEST_PAUSE, spread)

    def _ended(self, call: Call, outcome: Outcome, last: Try) -> requests.Response:
        """What the caller gets after the last try."""
        left = self._left(call) if last.may_pass and call.maybe_done else 0.0
        if left > 0 and (made := self._read_back(call, left)) is not None:
            return made
        answer = outcome if isinstance(outcome, requests.Response) else None
        # A download must not be read here, so the rule comes first.
        if (
            call.maybe_done
            and call.rule.removes
            and answer is not None
            and was_removed_before(call.rule, error_code(answer.content))
        ):
            asks = ask_for_renamed(call.rule.name, call.text)
            done = {} if asks is None else self._document(call.request, asks)
            if done is not None:
                return self._synthetic_response(call.request, done)
        if last.says_away and not last.was_not_carried_out and call.repeat is Repeat.ONCE:
            why = outcome if answer is None else f"the answer was {answer.status_code}"
            outcome = SentOnceError(
                f"{call.request.method} {call.rule.name} was not sent again: {why}, so "
                f"{self.server.uri} may have carried it out. Check whether it has before you "
                "repeat the call.",
                request=call.request, response=answer,
            )  # fmt: skip
        return self._report(call, outcome, last)

    def _report(self, call: Call, outcome: Outcome, last: Try) -> requests.Response:
        """Return the outcome to the caller, and notify the observer of an error."""
        request, status = call.request, last.status
        if status and not last.may_pass:
            self._log_back()
        if last.says_away and isinstance(outcome, requests.Response):
            text = " ".join(outcome.text.split())[:200]
            outcome = ServerAwayError(
                f"{request.method} {request.path_url.partition('?')[0]}: the server of connection "
                f"{self.server.conn_id!r} answered {status} after "
                f"{time.monotonic() - call.began:.0f} s of waiting: {text}",
                request=request, response=outcome,
            )  # fmt: skip
        if isinstance(outcome, Exception):
            self._failed(call, outcome)
            raise outcome
        if status >= 400:
            self._failed(call, _as_error(outcome))
        if call.create is not None and call.create.may_be_duplicated and outcome.ok:
            with contextlib.suppress(ValueError):
                self._kept.add(call.create.key_of(outcome.json()))
        return _followed_by_us(outcome, request)

    # --- creates

    def _settle_create(self, call: Call, outcome: Outcome) -> requests.Response | None:
        """The answer to a create that was sent more than once; duplicates are removed."""
        if call.create is None or not call.maybe_done or isinstance(outcome, Exception):
            return None
        if call.create.may_be_made(outcome.status_code, error_code(outcome.content)):
            return self._read_back(call)
        if not outcome.ok:
            return None
        self._keep_one(call.request, call.create, outcome.json())
        return outcome

    def _read_back(self, call: Call, seconds: float = math.inf) -> requests.Response | None:
        """The answer to a create that was carried out; ``None`` also if that cannot be asked.

        :param seconds: for the question; as long as any call by default.
        """
        if call.create is None:
            return None
        with bounded(seconds):
            found = call.create.found(self._document(call.request, call.create.ask))
        if not found:
            return None
        first = found[-1]  # runs and models are listed newest first
        self._keep_one(call.request, call.create, first)
        return self._synthetic_response(call.request, first)

    def _document(self, request: requests.PreparedRequest, ask: Ask) -> Any:
        with contextlib.suppress(requests.exceptions.RequestException, ValueError):
            response = self._ask(request, ask)
            if response.ok:
                return response.json()
        return None

    def _synthetic_response(
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
        if create.may_be_duplicated:
            self._kept.add(create.key_of(kept))
            self._in_doubt.append((request, create))
            self._delete_duplicates(request, create)

    def _delete_duplicates(self, request: requests.PreparedRequest, create: Create) -> None:
        duplicates = create.discards(self._document(request, create.ask), self._kept)
        for asks in duplicates:
            for ask in asks:
                with contextlib.suppress(requests.exceptions.RequestException):
                    self._ask(request, ask)
        if duplicates:
            path = urlsplit(request.url or "").path
            _log.warning(
                "%s was carried out %d times: removed all but one", path, len(duplicates) + 1
            )

    def take_over(self, former: ConnectionAdapter) -> None:
        """Take over the creates in doubt of the adapter that this one replaces."""
        self._in_doubt, self._kept = former._in_doubt, former._kept

    def sweep(self) -> None:
        """Delete what a slow server has created a second time after all."""
        doubts, self._in_doubt = self._in_doubt, []
        for request, create in doubts:
            self._delete_duplicates(request, create)

    def _ask(self, like: requests.PreparedRequest, ask: Ask) -> requests.Response:
        """Another call to the same API, with the same login."""
        request = like.copy()
        request.method = ask.method
        request.headers.pop("Content-Length", None)
        request.url, body = ask.below(route("POST", like.url or "").base)
        request.prepare_body(body, None)
        return self.send(request)

    # --- logins and log lines

    def _has_new_login(self, call: Call) -> bool:
        """Whether the connection has a new login by now; if so, it is set on the request. Once."""
        before, is_first = call.request.headers.get("Authorization"), not call.signed_in_again
        call.signed_in_again = True
        if not is_first or (now := self.renew()) in (None, before):
            return False
        call.request.headers["Authorization"] = now
        return _rewind(call.request)

    def _log_away(self, call: Call, outcome: Outcome) -> None:
        if not self._away and seconds_left() == float("inf"):
            self._away = True
            _log.warning(
                "MLflow at %s is unavailable (%s). Waiting for up to %.0f s.",
                self.server.uri,
                getattr(outcome, "status_code", type(outcome).__name__),
                self._left(call),
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
    message = f"{response.status_code} {text[:300]}"
    return requests.exceptions.HTTPError(message, response=response)


def _followed_by_us(
    response: requests.Response, request: requests.PreparedRequest
) -> requests.Response:
    """If it is a redirect, put the tag of the request into its target, so that we send that too."""
    if response.is_redirect:
        with contextlib.suppress(ValueError):  # requests refuses such a target
            before = request.url or ""
            after = urljoin(before, response.headers["location"])
            tag = urlsplit(before).netloc.rpartition("@")[0]
            if origin_of(before) != origin_of(after):
                tag = f"{urlsplit(before).username}:{REDIRECTED}"
            response.headers["location"] = with_userinfo(after, tag)
    return response


def _rewind(request: requests.PreparedRequest) -> bool:
    """Rewind the body; whether it can be sent again."""
    if request.body is None or isinstance(request.body, bytes | str):
        return True
    try:
        rewind_body(request)
    except requests.exceptions.UnrewindableBodyError:
        return False
    return True
