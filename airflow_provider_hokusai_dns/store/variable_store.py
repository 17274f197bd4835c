"""The shared last known good, in Airflow Variables.

One Variable per hostname, with JSON that an admin can read and edit. Three things are difficult:

* *A missing Variable means "not known".* An unreachable API server has the same result after
  13 seconds. So a read that took too long is not followed by a write.
* *A call cannot be cancelled.* It occupies the task's connection to its supervisor until the answer
  comes, and the author's next XCom waits behind it. So no call is waited for longer than two
  seconds, there is never more than one of ours under way, and while one is overdue no other is
  started: an API server that hangs delays a task by two seconds once, and not two per name and try.
* *There is no compare-and-set.* Two writers are reconciled by :func:`~.record.merge`, which takes
  the newer answer and the earliest "no such name" after it, in any order. What is lost in a race of
  milliseconds is written again by the next refresh.
"""

from __future__ import annotations

import atexit
import logging
import time
import weakref
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import NamedTuple, TypeVar

from airflow_provider_hokusai_dns import supervisor
from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
from airflow_provider_hokusai_dns.resolver.errors import StoreOverdue, StoreUnreadableError
from airflow_provider_hokusai_dns.resolver.model import LastKnownGood
from airflow_provider_hokusai_dns.store.bounded_calls import BoundedCall
from airflow_provider_hokusai_dns.store.history import (
    History,
    HistoryPoint,
    history_key,
    parse_history,
    render_history,
    with_point,
)
from airflow_provider_hokusai_dns.store.record import (
    BrokenVariableError,
    EncryptedVariableError,
    dropped_fields,
    merge,
    parse_record,
    render_record,
    variable_key,
    whole_seconds,
)
from airflow_provider_hokusai_dns.store.variables import (
    LOST,
    MetastoreVariables,
    SdkVariables,
    Variables,
    notice_dag_test,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

#: A worker asks the secrets backend itself, before the API server does so again.
_NO_ANSWER = (
    "Airflow does not answer, check its API server, database and [secrets] backend (load, log)"
)


class Examined(NamedTuple):
    """What a Variable holds.

    :param record: ``None`` if nothing valid is stored, or if it could not be read.
    :param problem: a sentence on what is wrong with the Variable, for admins.
    :param was_read: whether Airflow answered.
    """

    record: LastKnownGood | None = None
    problem: str | None = None
    was_read: bool = True


#: Of the stores of this process.
_bounded_calls: weakref.WeakSet[BoundedCall] = weakref.WeakSet()


@atexit.register
def _leave_no_answer() -> None:
    """Wait for the answers of the supervisor before this process ends, for a minute at most.

    ``@task.external_python`` and ``@task.virtualenv`` give their process the connection of the
    task. The task would read an answer that is left in it, or the rest of one, as its own, and
    could wait forever. A task itself ends without these functions.
    """
    if supervisor.connection() is not None and not notice_dag_test():
        end = time.monotonic() + LOST
        for call in list(_bounded_calls):
            if not call.end(end - time.monotonic()):
                log.warning(
                    "This process ends before Airflow has answered: its task may take the late "
                    "answer for that to its next request, and fail: %s", _NO_ANSWER
                )  # fmt: skip


class VariableStore:
    """A :class:`~.resolver.model.Store` that never exceeds its time limit.

    :param patience: seconds for each read, and for each of the two steps of a write.
    :param variables: where the texts are stored; Airflow's Variables by default.
    :param now: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        patience: float = 2.0,
        variables: Variables | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._given = variables
        self._bounded = BoundedCall(patience)
        _bounded_calls.add(self._bounded)
        self._now = now
        #: Gives the seconds by which a timestamp may be ahead (policy rule 16).
        self.max_clock_skew: Callable[[], float] = lambda: ResolverConfig().max_clock_skew
        self._said: dict[str, str] = {}
        #: The nameservers whose answers are stored here; empty for the system's.
        self._asked: tuple[str, ...] = ()

    @property
    def _variables(self) -> Variables:
        return self._given or (MetastoreVariables() if notice_dag_test() else SdkVariables())

    def for_nameservers(self, asked: tuple[str, ...]) -> VariableStore:
        """The same store, for the answers of the nameservers set on a connection.

        They are stored under separate keys: a user who may edit one connection must not decide
        where the fleet's requests for another go.

        :param asked: in the connection's order; empty means the system's.
        """
        if asked == self._asked:
            return self
        other = copy(self)  # one connection to Airflow for all of them
        other._asked = asked
        return other

    def set_patience(self, seconds: float) -> None:
        """Set the time limit, of all nameservers' answers alike.

        :param seconds: as ``patience`` of the class.
        """
        self._bounded.patience = seconds

    def read(self, hostname: str) -> LastKnownGood | None:
        """The stored record, or ``None`` if none is known. A broken one is reported once.

        :raises StoreOverdue: Airflow did not answer in time. If its answer is there at the next
            read, that returns it.
        :raises StoreUnreadableError: Airflow returned an error.
        """
        return self._examine(hostname).record

    def examine(self, hostname: str) -> Examined:
        """The stored record, and what is wrong with its Variable."""
        try:
            return self._examine(hostname)
        except StoreUnreadableError:
            return Examined(was_read=False)

    def _examine(self, hostname: str) -> Examined:
        key = self._key(hostname)
        try:
            text = self.text(key, may_be_late=True)
            record = None if text is None else self._parse(hostname, text)
            self._said.pop(key, None)  # so that it is logged again when it breaks again
            return Examined(record)
        except BrokenVariableError as error:
            self._report_broken(key, hostname, error)
            return Examined(problem=f"The Variable {key} is ignored: {error}; {_advice(error)}.")
        except Exception as error:
            self._report_trouble("read", key, error)
            if isinstance(error, StoreOverdue):
                raise
            raise StoreUnreadableError from None

    def text(self, key: str, *, may_be_late: bool = False) -> str | None:
        """The text of a Variable, within the time limit; ``None`` if it is not known.

        :param may_be_late: whether it may be the answer to an earlier call that was overdue. Not
            before a write: what is stored may be newer.
        :raises StoreOverdue: Airflow did not answer in time.
        """
        text = self._call(lambda: self._variables.get(key), key if may_be_late else "")
        self._said.pop("", None)  # so that it is logged again when Airflow does not answer again
        return text

    def history(self, hostname: str) -> tuple[tuple[HistoryPoint, ...], str | None]:
        """The history of a name, and a sentence on what is wrong with its Variable."""
        key = history_key(hostname, self._asked)
        try:
            text = self.text(key)
            if text is None:
                return (), None
            known = self._parse_history(hostname, text)
            self._said.pop(key, None)
        except BrokenVariableError as error:
            what = _advice(error) if error.foreign else "the next refresh starts a new history"
            return (), f"The Variable {key} is ignored: {error}; {what}."
        except Exception as error:  # not known is not the same as nothing there
            self._report_trouble("read", key, error)
            return (), f"The Variable {key} could not be read just now: try again in a moment."
        if known.passed_over:
            what = "1 point" if known.passed_over == 1 else f"{known.passed_over} points"
            return known.points, (
                f"{what} in the Variable {key} cannot be shown: malformed, or written while a "
                "clock was wrong."
            )
        return known.points, None

    def remember(self, hostname: str, point: HistoryPoint) -> bool:
        """Add a point to the history of a name. Returns whether it was stored.

        A text that cannot be read is replaced: only the history of one day is lost. A text of
        another version or name stays. If two processes write in the same milliseconds, one point is
        lost.
        """
        key = history_key(hostname, self._asked)
        points: tuple[HistoryPoint, ...] = ()
        try:
            text = self.text(key)
            if text is not None:
                try:
                    points = self._parse_history(hostname, text).points
                except BrokenVariableError as error:
                    again = "it is left unchanged" if error.foreign else "a new history is started"
                    self._say(key, f"broken {error}", "Variable %s: %s; %s", key, error, again)
                    if error.foreign:
                        return False
            points = with_point(points, point, now=self._now())
            rendered = render_history(hostname, points, self._asked)
            description = (
                f"The last day of {hostname} as its refreshes measured it, kept by hokusai-dns"
            )
            self._call(lambda: self._variables.set(key, rendered, description))
            self._said.pop(key, None)
        except Exception as error:
            self._report_trouble("written", key, error)
            return False
        return True

    def write(self, record: LastKnownGood) -> bool:
        """Store a record, unless the stored one is as good or newer. Returns whether it is stored.

        A text that cannot be read is not overwritten, with two exceptions: a timestamp from a wrong
        clock, and a requested refresh, which first saves the previous text.
        """
        key = self._key(record.hostname)
        try:
            text = self.text(key)
            stored, merged = self._reconcile(key, text, whole_seconds(record))
            if merged is None or merged == stored:
                return merged is not None
            rendered = render_record(merged, beside=text, asked=self._asked)
            description = f"Last known good address of {record.hostname}, kept by hokusai-dns"
            self._call(lambda: self._variables.set(key, rendered, description))
            if dropped := dropped_fields(text, rendered):
                log.warning(
                    "Variable %s would have become too long to read: the fields that were added to "
                    "it are dropped (%s)", key, ", ".join(dropped)[:400]
                )  # fmt: skip
        except Exception as error:
            self._report_trouble("written", key, error)
            return False
        return True

    def call_in_time(self, what: str, function: Callable[[], object]) -> bool:
        """Send something else to Airflow in the same way, within the time limit of a Variable.

        :param what: for the log.
        :returns: whether it was sent in time. Never raises.
        """
        try:
            self._call(function)
        except StoreOverdue:
            log.warning("%s was not sent within %s s: %s", what, self._bounded.patience, _NO_ANSWER)
        except ImportError:
            log.debug("%s cannot be sent in this process", what)
        except Exception as error:
            log.warning("%s could not be sent (%s)", what, type(error).__name__)
        else:
            return True
        return False

    def _call(self, function: Callable[[], T], key: str = "") -> T:
        if supervisor.belongs_to_parent():
            raise ImportError("a forked child has no supervisor")
        return self._bounded.call(function, key)

    def _key(self, hostname: str) -> str:
        return variable_key(hostname, asked=self._asked)

    def _parse(self, hostname: str, text: str) -> LastKnownGood:
        return parse_record(
            hostname, text, now=self._now(), skew=self.max_clock_skew(), asked=self._asked
        )

    def _parse_history(self, hostname: str, text: str) -> History:
        return parse_history(
            hostname, text, now=self._now(), skew=self.max_clock_skew(), asked=self._asked
        )

    def _reconcile(
        self, key: str, text: str | None, record: LastKnownGood
    ) -> tuple[LastKnownGood | None, LastKnownGood | None]:
        """The stored record, and the one to store: ``None`` leaves the Variable unchanged."""
        if text is None:
            return None, record
        try:
            stored = self._parse(record.hostname, text)
        except BrokenVariableError as error:
            self._report_broken(key, record.hostname, error)
            if error.replaceable:
                return None, record
            if error.foreign or record.written_by != "refresh":
                return None, None
            aside = f"{key}_unreadable"
            self._call(
                lambda: self._variables.set(aside, text, f"Text of {key} before it was repaired")
            )
            log.warning(
                "Variable %s is repaired by this refresh; its previous text is in %s", key, aside
            )
            return None, record
        merged = merge(stored, record)
        since = stored.no_name_since
        if record.resolved_at == stored.resolved_at and (
            since is None or since <= stored.resolved_at
        ):
            merged = record  # whole seconds cannot tell: the answer that is being written is newer
        if replace(merged, written_by=stored.written_by) == stored:
            return stored, stored  # another writer is no reason to write
        return stored, merged

    def _report_broken(self, key: str, hostname: str, error: BrokenVariableError) -> None:
        text = "Variable %s (last known good of %s) is ignored: %s; %s"
        self._say(key, f"broken {error}", text, key, hostname, error, _advice(error))

    def _report_trouble(self, done: str, key: str, error: Exception) -> None:
        if isinstance(error, ImportError):  # a process that cannot write, by Airflow's design
            log.debug("Variable %s cannot be %s in this process", key, done)
        elif isinstance(error, StoreOverdue):
            text = "Variable %s could not be %s within %s s, continuing without it: %s"
            self._say("", "overdue", text, key, done, self._bounded.patience, _NO_ANSWER)
        else:
            text = (
                "Variable %s could not be %s (%s), continuing without it: check Airflow's API "
                "server, database and [secrets] backend"
            )
            self._say(key, type(error).__name__, text, key, done, type(error).__name__)

    def _say(self, subject: str, what: str, message: str, *values: object) -> None:
        """Log once per change of what is wrong."""
        if self._said.get(subject) != what:
            self._said[subject] = what
            log.warning(message, *values)


def _advice(error: BrokenVariableError) -> str:
    if error.replaceable:
        return "the next good answer replaces it"
    if isinstance(error, EncryptedVariableError):
        return "set the same [core] fernet_key for every component of Airflow"
    if error.foreign:
        return "correct or delete it under Admin, Variables"
    return "correct it under Admin, Variables, or run the refresh DAG, which repairs it"
