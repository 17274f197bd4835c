"""One request of a client, with all its tries, until it is answered or given up."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import aiohttp

from airflow_provider_hokusai_dns.client.creates import (
    Ask,
    Create,
    Key,
    ask_for_renamed,
    create_of,
    json_object,
)
from airflow_provider_hokusai_dns.client.orphaned_runs import workspace_header
from airflow_provider_hokusai_dns.client.relay.bodies import ClientGoneError
from airflow_provider_hokusai_dns.client.relay.calls import Call
from airflow_provider_hokusai_dns.client.relay.headers import to_server
from airflow_provider_hokusai_dns.client.relay.login import Login
from airflow_provider_hokusai_dns.client.relay.messages import (
    LONGEST_CREATE,
    Answer,
    Request,
    an_error,
    begun,
    in_json,
    release,
)
from airflow_provider_hokusai_dns.client.relay.outage import Outage
from airflow_provider_hokusai_dns.client.relay.records import LostCall
from airflow_provider_hokusai_dns.client.relay.runs import Runs
from airflow_provider_hokusai_dns.client.relay.upstream import Upstream, failure_of, reason_of
from airflow_provider_hokusai_dns.client.retries import (
    Progress,
    Step,
    Try,
    answer_limit,
    next_step,
    pause,
    retry_after,
)
from airflow_provider_hokusai_dns.client.routes import (
    Repeat,
    Route,
    author_timeout,
    error_code,
    route,
    was_removed_before,
)
from airflow_provider_hokusai_dns.config.server import WORKSPACE_HEADER
from airflow_provider_hokusai_dns.resolver.target import quoted

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer

_log = logging.getLogger(__name__)

#: What a client gets when its call was given up. Not 503 or 504: MLflow's clients repeat those,
#: and hide what is written in them. An unknown 5xx is an error to every client (RFC 9110, 15).
GIVEN_UP = 598
_LONGEST_PAUSE = 2.0
#: What one sending gets at least, seconds.
_LEAST = 5.0
#: Refusals that lose data where a client only warns about them, as MLflow's autologging does.
_REFUSALS = frozenset({401, 403, 413})


class Forwarder:
    """Sends what clients ask for to MLflow. Used on one event loop.

    :param run_tags: the tags of the task, for every run that is begun.
    :param renew: reads the login of the connection again, after a 401; called on a thread.
    """

    def __init__(
        self,
        server: MLflowServer,
        upstream: Upstream,
        runs: Runs,
        run_tags: Mapping[str, str],
        renew: Callable[[], Credentials | None] = lambda: None,
    ) -> None:
        self.runs = runs
        #: The writes that did not arrive; a later success of the same call removes it.
        self.lost: dict[tuple[str, str, str], LostCall] = {}
        #: The last call that was given up, of those that only read too.
        self.gave_up: LostCall | None = None
        #: The creates that may have made something twice, each with the base of its path and the
        #: workspace that its client named.
        self.possible_duplicates: list[tuple[Create, str, str]] = []
        #: What clients have got, of the kinds that may be made twice.
        self.kept: set[Key] = set()
        self._server = server
        self._upstream = upstream
        self._run_tags = run_tags
        self._login = Login(server, renew)
        # Read now: later it may be the relay's own, for children.
        self._author_timeout = author_timeout()
        self._outage = Outage(server.deadline)

    async def answer(
        self,
        request: Request,
        is_wanted: Callable[[], bool] = lambda: True,
        deadline: float | None = None,
        counts: bool = True,
    ) -> Answer:
        """Send a request until it is answered, or until its patience is over.

        :param is_wanted: whether the client is still there.
        :param deadline: seconds; that of the connection by default.
        :param counts: whether the task has lost something if it does not arrive.
        :raises ClientGoneError: the client hung up.
        """
        patience = self._server.deadline if deadline is None else deadline
        call = Call(request, route(request.method, request.path.partition("?")[0]), counts)
        self._outage.call_begins(time.monotonic())
        try:
            return await self._answer(call, is_wanted, patience)
        except asyncio.CancelledError:
            self._note_loss(call, f"{call.reason or 'no answer'} until the relay was closed")
            raise
        finally:
            self._outage.call_ends()

    async def _answer(self, call: Call, is_wanted: Callable[[], bool], patience: float) -> Answer:
        request, allowed = call.request, self._server.max_retries
        if call.route.repeat is Repeat.READ_BACK and not await self._prepare(call, patience):
            return an_error(413, "BAD_REQUEST", f"the body is longer than {LONGEST_CREATE} bytes")
        if call.route.name == "runs/update" and self.runs.joined is not None:
            await self._leave_joined_run_open(call, patience)
        while True:
            call.tries += 1
            last, answer = await self._send(call, patience)
            call.sent += not last.was_not_carried_out
            may_repeat = allowed is None or call.sent <= allowed
            now = time.monotonic()
            self._outage.note(last, now)
            progress = Progress(
                repeat=call.route.repeat,
                deadline=patience,
                waiting_since=request.waiting_since,
                away_since=self._outage.since,
                # What is only asked about is not sent again.
                can_send_again=(may_repeat or call.create is not None) and request.can_send_again,
            )
            step = next_step(last, progress, now)
            call.maybe_done = call.maybe_done or not (
                step is Step.ANSWER or last.was_not_carried_out
            )
            left = max(0.0, progress.gives_up_at - now)
            if step is Step.ANSWER and answer is not None and call.is_taken(answer):
                _, made = await self._read_back(call, left)
                answer = made or answer  # a slow server has carried out an earlier try after all
            if step is Step.READ_BACK:
                release(answer)
                step, answer = await self._read_back(call, left)
                step = Step.GIVE_UP if step is Step.AGAIN and not may_repeat else step
            if step is Step.ANSWER and answer is not None:
                if call.maybe_done and was_removed_before(call.route, error_code(answer.head)):
                    answer = await self._done_before(call, answer, left)
                return self._answered(call, answer, last)
            release(answer)
            if step is Step.GIVE_UP:
                return self._given_up(call, progress, now)
            if not is_wanted() and not call.is_delivered_in_any_case:
                raise ClientGoneError("the client hung up")
            if call.tries == 1:
                _log.info(
                    "%s %s: %s; it is sent again", request.method, call.route.name, call.reason
                )
            # Not for secrecy: the clients must not all come back in one moment.
            spread = random.random()  # noqa: S311
            await asyncio.sleep(pause(last, call.tries, left, _LONGEST_PAUSE, spread))

    async def ask(
        self, what: Ask, base: str, *, deadline: float, counts: bool = False, workspace: str = ""
    ) -> Answer:
        """A request of the relay's own.

        :param base: what stands before its path, up to ``/mlflow``.
        :param workspace: the one of the client that it is for; that of the task by default.
        """
        path, body = what.below(base)
        headers = [] if body is None else [("Content-Type", "application/json")]
        named = {WORKSPACE_HEADER: workspace} if workspace else workspace_header()
        headers += named.items()
        request = Request(what.method, path, headers, body)
        return await self.answer(request, deadline=deadline, counts=counts)

    async def _prepare(self, call: Call, patience: float) -> bool:
        """Add our mark to a create. False if its body is too long."""
        request = call.request
        if (content := await request.whole(max(patience, _LEAST))) is None:
            return False
        request.body = content
        call.create = create_of(request.method, call.route.name, content, self._run_tags)
        if call.create is None:  # not what MLflow takes; it says so itself
            call.route = Route(call.route.name, "", Repeat.ONCE, call.route.writes)
        else:
            request.body = call.create.body
        return True

    async def _leave_joined_run_open(self, call: Call, patience: float) -> None:
        """Take the end out of an update of the joined run: the process that opened it ends it.

        A client of MLflow ends the run that it has joined at its exit, while the task goes on.
        """
        content = await call.request.whole(max(patience, _LEAST))
        if (kept := self.runs.left_open(json_object(content or b""))) is not None:
            call.request.body = json.dumps(kept).encode()

    async def _send(self, call: Call, patience: float) -> tuple[Try, Answer | None]:
        """Send it once; after its first 401 once more, if the connection has a new login by now."""
        used = self._login.server.credentials
        last, answer = await self._try(call, patience)
        if last.status == 401 and not call.signed_in_again:  # a 401 has carried out nothing
            call.signed_in_again = True
            left = call.request.waiting_since + max(patience, _LEAST) - time.monotonic()
            if await self._login.differs_from(used, left) and call.request.can_send_again:
                release(answer)
                return await self._try(call, patience)
        return last, answer

    async def _try(self, call: Call, patience: float) -> tuple[Try, Answer | None]:
        """Send it once, and read so much of the answer that a broken connection can be retried."""
        request, loop = call.request, asyncio.get_running_loop()
        watched = request.incoming
        headers = to_server(request.headers, self._login.server, request.path)
        if watched is not None and request.length is not None:
            headers.append(("Content-Length", str(request.length)))
        longest = answer_limit(
            call.route.repeat,
            of_an_artifact="artifact" in request.path,
            patience=patience,
            author_timeout=self._author_timeout,
        )
        ends = request.waiting_since + max(patience, _LEAST)
        limit = asyncio.timeout(max(_LEAST, min(longest, ends - time.monotonic())))

        def got_further() -> None:
            request.waiting_since = time.monotonic()
            limit.reschedule(loop.time() + max(longest, _LEAST))

        if watched is not None:
            watched.on_progress = got_further
        response: aiohttp.ClientResponse | None = None
        try:
            async with limit:
                response = await self._upstream.send(
                    request.method,
                    request.path,
                    headers,
                    request.content(),
                    fresh=call.route.repeat is not Repeat.FREELY,
                )
                answer = await begun(response)
        except (aiohttp.ClientError, OSError) as error:
            if response is not None:
                response.close()
            if watched is not None and (
                watched.client_is_gone or (watched.is_waiting and isinstance(error, TimeoutError))
            ):
                raise ClientGoneError("the client hung up, or sends nothing more") from error
            call.reason = reason_of(error).rstrip(".")  # it stands inside of sentences
            return Try(failure=failure_of(error)), None
        finally:
            if watched is not None:
                watched.on_progress = lambda: None
        call.reason = f"MLflow answers {answer.status}"
        asked = retry_after(response.headers, time.time())
        return Try(status=answer.status, retry_after=asked, body=answer.head), answer

    async def _read_back(self, call: Call, left: float) -> tuple[Step, Answer | None]:
        """Whether a create was carried out although its answer was lost; twice, with a pause.

        A proxy gives up on a server that may still be at it. Where that cannot be found out, it is
        not sent again.
        """
        assert call.create is not None
        for again in (False, True):
            if again:
                await asyncio.sleep(min(1.0, left))
            found = await self.ask(
                call.create.ask, call.route.base, deadline=left, workspace=call.request.workspace
            )
            release(found)
            if found.status == 200 and (made := call.create.found(found.document)):
                _log.info("%s was carried out, although its answer was lost.", call.route.name)
                return Step.ANSWER, in_json(200, made[-1])  # they are listed newest first
            if found.status not in (200, 404):
                call.reason += f"; whether it was carried out is unknown ({found.status})"
                return Step.GIVE_UP, None
        return Step.AGAIN, None

    async def _done_before(self, call: Call, refusal: Answer, left: float) -> Answer:
        """The answer to what an earlier try has removed; the refusal where it has not."""
        made = in_json(200, {})
        if (asks := ask_for_renamed(call.route.name, call.request.text())) is not None:
            found = await self.ask(
                asks, call.route.base, deadline=left, workspace=call.request.workspace
            )
            release(found)
            if found.status != 200:
                return refusal
            made.head = found.head
        release(refusal)
        return made

    def _answered(self, call: Call, answer: Answer, last: Try) -> Answer:
        """Take note of what MLflow said. No redirect is followed, so it stores nothing."""
        if call.route.writes:
            if answer.status < 300:
                if self.lost:
                    self.lost.pop(call.key, None)
                if call.create is not None and call.create.may_be_duplicated:
                    self.kept.add(call.create.key_of(answer.document))
                    if call.maybe_done:
                        self.possible_duplicates.append(
                            (call.create, call.route.base, call.request.workspace)
                        )
                self.runs.note(call.route.name, call.request, answer)
            elif (
                answer.status < 400
                or answer.status in _REFUSALS
                or (answer.status >= 500 and answer.status != 501)
                or last.may_pass
            ):
                code = error_code(answer.head)
                reason = f"MLflow answered {answer.status}{f' {quoted(code, 100)}' if code else ''}"
                is_last_word = answer.status < 500 or last.is_switched_off
                self._note_loss(call, reason, permanent=is_last_word and not last.may_pass)
        return answer

    def _note_loss(self, call: Call, reason: str, *, permanent: bool = False) -> None:
        if call.route.writes and call.counts:
            self.lost[call.key] = call.lost(reason, permanent=permanent)

    def _given_up(self, call: Call, progress: Progress, now: float) -> Answer:
        waited = f"given up after {now - progress.waiting_since:.0f} s"
        if progress.began < progress.waiting_since:
            waited += f", as MLflow has been unavailable for {now - progress.began:.0f} s"
        reason = f"{call.reason or 'no answer'}; {waited}"
        if call.counts:
            self.gave_up = call.lost(reason)
        self._note_loss(call, reason)
        sentence = (
            f"{call.request.method} {call.route.name} did not reach {self._server.uri}: {reason}. "
            "deadline and max_retries of the Airflow connection say how long a call waits."
        )
        if call.route.repeat is Repeat.ONCE and call.maybe_done:
            sentence = (
                f"{call.request.method} {call.route.name} was not sent again: {call.reason}, so "
                f"{self._server.uri} may have carried it out. Check whether it has before you "
                "repeat the call."
            )
        _log.error("%s", sentence)
        return an_error(GIVEN_UP, "TEMPORARILY_UNAVAILABLE", sentence)
