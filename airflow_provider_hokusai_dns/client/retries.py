"""Whether to repeat a call, check whether it was carried out, answer, or give up. Pure functions.

One rule for every call: it waits for MLflow for up to the ``deadline`` of the connection, counted
while nothing gets through, and is sent again at most ``max_retries`` times if that is set. Behind a
relay, if MLflow has already been unavailable for a while, the time counts from then, so that a
client that keeps logging does not wait the whole deadline at each call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum

from airflow_provider_hokusai_dns.client.routes import ANSWER_TIMEOUT, PATIENCE_WITH_500, Repeat

#: A proxy's words for "MLflow is away", and those of MLflow while it starts or is overrun.
_AWAY = frozenset({502, 503, 504})
#: Those of a server that is there and has not carried the request out.
OVERRUN = frozenset({408, 425, 429})
_MAY_PASS = _AWAY | OVERRUN
#: What SQLAlchemy says when no database connection comes free; MLflow answers 400 with it.
_POOL_IS_FULL = b"QueuePool limit of size"
#: How MLflow refuses a part that it was started without, with 500 or 503: workspaces, artifacts, or
#: all except artifacts.
_SWITCHED_OFF = re.compile(
    "FEATURE_DISABLED|without workspaces support|Artifact serving is (?:disabled|not configured)"
    "|running (?:with `--no-serve-artifacts`|in `--artifacts-only` mode)"
)
_FIRST_PAUSE = 0.2
#: The longest Retry-After that is honoured, seconds: a server may ask for an hour.
_LONGEST_RETRY_AFTER = 30.0
#: All clients get the same Retry-After, often of 1 s; they come back over at least so many seconds.
_LEAST_SPREAD = 1.0


class NoAnswer(StrEnum):
    """Why there is no answer."""

    #: No connection came about: nothing was sent.
    NOT_SENT = "not_sent"
    #: The connection ended before the whole answer was there: it may have been carried out.
    CUT = "cut"
    #: A certificate, a TLS file, the proxy's refusal: waiting does not help.
    FINAL = "final"


class Step(StrEnum):
    """What to do next."""

    ANSWER = "answer"
    AGAIN = "again"
    READ_BACK = "read_back"
    GIVE_UP = "give_up"


@dataclass(frozen=True, slots=True)
class Try:
    """The outcome of one try.

    :param status: of the answer; 0 where there was none.
    :param failure: why there was none.
    :param retry_after: seconds that the server asked for; 0 for none.
    :param body: the answer, as far as it was read; for JSON of MLflow it is whole.
    """

    status: int = 0
    failure: NoAnswer | None = None
    retry_after: float = 0.0
    body: bytes = b""

    @property
    def says_away(self) -> bool:
        """Whether MLflow was not there at all, as far as this can tell."""
        return self.failure in (NoAnswer.NOT_SENT, NoAnswer.CUT) or (
            self.status in _AWAY and not self.is_switched_off
        )

    @property
    def is_switched_off(self) -> bool:
        """Whether MLflow was started without what is asked of it."""
        return self.status >= 500 and is_switched_off(self.body.decode(errors="replace"))

    @property
    def was_not_carried_out(self) -> bool:
        """Whether it is certain that MLflow has done nothing.

        A proxy answers 503 where it has no server, and also where its server broke off in the
        middle (Envoy).
        """
        if self.failure is not None:
            return self.failure is not NoAnswer.CUT
        return self.status in OVERRUN

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be taken later."""
        if self.failure is not None:
            return self.failure is not NoAnswer.FINAL
        if self.status in _MAY_PASS or self.status == 500:
            return not self.is_switched_off
        return self.status == 400 and _POOL_IS_FULL in self.body


def is_switched_off(text: str) -> bool:
    """Whether MLflow says in an answer or error that it was started without a part."""
    return _SWITCHED_OFF.search(text) is not None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one call of a client. Times are monotonic seconds.

    :param waiting_since: when it came, or when it got further for the last time.
    :param can_send_again: whether the whole body is still there, and ``max_retries`` allows it.
    :param away_since: when MLflow went away for all calls; ``None`` while it is there.
    """

    repeat: Repeat
    deadline: float
    waiting_since: float
    can_send_again: bool
    away_since: float | None = None

    @property
    def began(self) -> float:
        """From when on the deadline counts: for all calls in an outage it is one."""
        if self.away_since is None:
            return self.waiting_since
        return min(self.waiting_since, self.away_since)

    @property
    def gives_up_at(self) -> float:
        """When this call gives up."""
        return self.began + self.deadline


def next_step(last: Try, progress: Progress, now: float) -> Step:
    """Decide what to do after a try. A step ``AGAIN`` comes after :func:`pause`."""
    over = Step.ANSWER if last.failure is None else Step.GIVE_UP
    if not last.may_pass or not progress.can_send_again:
        return over
    if progress.repeat is Repeat.ONCE and not last.was_not_carried_out:
        return over
    end = progress.gives_up_at
    if last.status == 500:
        end = min(end, progress.waiting_since + PATIENCE_WITH_500)
    if now >= end:
        return over
    if progress.repeat is Repeat.READ_BACK and not last.was_not_carried_out:
        return Step.READ_BACK
    return Step.AGAIN


def answer_limit(
    repeat: Repeat, *, of_an_artifact: bool, patience: float, author_timeout: float
) -> float:
    """Seconds without progress after which one sending has failed.

    A server that hangs is asked again on another connection, as MLflow's client does it. What a
    server may have to fetch or to store first takes its time, and so does what it may have begun.

    :param author_timeout: the time-out that the task's author has set; 0 for none.
    """
    if repeat is Repeat.FREELY and not of_an_artifact:
        return min(patience, max(ANSWER_TIMEOUT, author_timeout))
    return patience


def pause(last: Try, tries: int, left: float, longest: float, spread: float) -> float:
    """Seconds to wait before the next sending, at most ``left``.

    :param tries: how often it was sent.
    :param longest: up to which the pauses grow, unless the server asks for more.
    :param spread: a random number from 0 to 1, so that clients do not all come at once: of what a
        client chooses, half of the pause or up to the whole; after what the server asks for, up to
        half of it more, or up to a second. A server's time is shortened only by the deadline.
    """
    half_or_more = 0.5 + spread / 2
    grown = min(left, longest, _FIRST_PAUSE * 2.0 ** min(tries - 1, 10)) * half_or_more
    asked = last.retry_after
    if asked >= left:
        asked = max(left * half_or_more, min(left, _LEAST_SPREAD))
    elif asked:
        asked += min(left - asked, max(_LEAST_SPREAD, asked / 2)) * spread
    return max(0.0, grown, asked)


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """The seconds that the ``Retry-After`` of an answer asks for, at most 30 of them.

    Either form of RFC 9110, 10.2.3; 0 for an invalid value. A date is compared with that of the
    answer, if it has one: the clocks of two machines differ.

    :param now: seconds since the epoch.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return _LONGEST_RETRY_AFTER if len(text) > 5 else min(_LONGEST_RETRY_AFTER, float(text))
    until, since = _seconds_of(text), _seconds_of(headers.get("Date", ""))
    left = 0.0 if until is None else until - (now if since is None else since)
    return max(0.0, min(_LONGEST_RETRY_AFTER, left))


def _seconds_of(date: str) -> float | None:
    """An HTTP date as seconds since the epoch; ``None`` if it is not one."""
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):  # of a stranger
        return None
