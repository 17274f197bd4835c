"""The public errors, in one place. Imports nothing of ours.

Each is a sentence for people, carries its fields, and survives pickling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hokusai_dns.resolver.model import Attempt, Cause


class PicklableError(Exception):
    """Unpickles from its own fields, which have the names of its arguments.

    An exception pickles its message as its only argument otherwise, and fails when it is read.
    """

    def __reduce__(self) -> tuple[object, ...]:
        code = type(self).__init__.__code__
        names = code.co_varnames[1 : code.co_argcount]
        return (type(self), tuple(getattr(self, name) for name in names))


class DNSResolutionError(PicklableError):
    """Nothing can be served for a hostname.

    :param hostname: the name, without port or path.
    :param cause: why the live lookup failed.
    :param tried: what was asked, in order; ends with the store and the static address.
    """

    def __init__(
        self, hostname: str, cause: Cause, tried: Sequence[Attempt] = (), detail: str = ""
    ) -> None:
        self.hostname = hostname
        self.cause = cause
        self.tried = tuple(tried)
        self.detail = detail
        steps = "; ".join(str(step) for step in self.tried) or "nothing was asked"
        super().__init__(
            f"{hostname!r} cannot be resolved ({cause.value}{': ' + detail if detail else ''}), "
            f"and there is no stale, stored or static address left to serve. Tried: {steps}."
        )


class LookupFailed(PicklableError):
    """A live lookup gave no address.

    :param cause: why, as data.
    :param detail: one sentence for people.
    :param tried: what was asked, in order.
    """

    def __init__(self, cause: Cause, detail: str = "", tried: Sequence[Attempt] = ()) -> None:
        super().__init__(detail or cause.value)
        self.cause = cause
        self.detail = detail or cause.value
        self.tried = tuple(tried)


class SettingError(PicklableError, ValueError):
    """A setting that can never be right.

    :param where: for example ``"connection 'mlflow_default'"`` or ``"environment"``.
    :param field: the name of the field, variable or option.
    :param reason: one sentence on what is wrong and what to write instead, with the value in it
        unless it may be a secret.
    """

    def __init__(self, where: str, field: str, reason: str) -> None:
        super().__init__(f"{where}, {field}: {reason}")
        self.where = where
        self.field = field
        self.reason = reason


class TLSFileError(ValueError):
    """A CA file or a client certificate of the connection cannot be used."""


class ConnectionMissingError(PicklableError, LookupError):
    """There is no such connection, or Airflow cannot read it now: it does not say which.

    :param conn_id: the connection that was asked for.
    :param hint: what to do, in one sentence.
    """

    def __init__(self, conn_id: str, hint: str) -> None:
        super().__init__(f"There is no connection {conn_id!r}. {hint}")
        self.conn_id = conn_id
        self.hint = hint


class ConnectionUndefinedError(ConnectionMissingError):
    """Airflow says that there is no such connection: retrying will not help."""


class ConnectionConflictError(PicklableError, ValueError):
    """One task uses two connections that want one hostname to be resolved in different ways.

    :param hostname: the name they share.
    :param field: the extra in which they differ.
    :param conn_ids: the two connections.
    """

    def __init__(self, hostname: str, field: str, conn_ids: tuple[str, str]) -> None:
        super().__init__(
            f"Connections {conn_ids[0]!r} and {conn_ids[1]!r} both lead to {hostname!r}, but their "
            f"{field} differ. MLflow's client resolves a name in one way per process: use the two "
            f"connections in two tasks, or make their {field} equal."
        )
        self.hostname = hostname
        self.field = field
        self.conn_ids = conn_ids


class EnvironmentConflictError(PicklableError, RuntimeError):
    """Two connections need different values of a setting that a process has only once.

    :param what: the thing.
    :param conn_ids: the connection that asked, and the one that has it.
    :param advice: what to do.
    """

    def __init__(self, what: str, conn_ids: tuple[str, str], advice: str) -> None:
        super().__init__(
            f"connections {conn_ids[0]!r} and {conn_ids[1]!r} cannot be used at the same time in "
            f"one process: they differ in {what}, which MLflow's client has once per process. "
            f"{advice}"
        )
        self.what = what
        self.conn_ids = conn_ids
        self.advice = advice


class AuthProviderError(RuntimeError):
    """MLflow would not ask our plugin, and would send requests without credentials."""


class NotSignedInError(PicklableError, RuntimeError):
    """A request for a connection whose credentials were forgotten.

    :param conn_id: the connection.
    """

    def __init__(self, conn_id: str) -> None:
        super().__init__(
            f"the MLflow client of connection {conn_id!r} was used after its credentials were "
            "forgotten: take a new client from the hook"
        )
        self.conn_id = conn_id


class BreakerOpenError(PicklableError):
    """A call was refused because MLflow was down a moment ago.

    :param name: the server.
    :param reason: the last failure.
    :param retry_in: seconds until a caller is let through again.
    """

    def __init__(self, name: str, reason: str, retry_in: float) -> None:
        super().__init__(
            f"{name} is not called for another {retry_in:.0f} s, because it was down just now: "
            f"{reason}"
        )
        self.name = name
        self.reason = reason
        self.retry_in = retry_in


class MLflowUnreachableError(PicklableError, ConnectionError):
    """Nothing accepts a connection where MLflow should be.

    :param uri: the tracking URI, in its hostname form.
    :param addresses: what was tried.
    """

    def __init__(self, uri: str, addresses: tuple[str, ...]) -> None:
        super().__init__(
            f"{uri} cannot be reached: nothing accepts a connection at {', '.join(addresses)}. Is "
            "MLflow running, is the port right? A gate (MLflowHealthSensor) would have waited."
        )
        self.uri = uri
        self.addresses = addresses


class MLflowRestError(PicklableError, RuntimeError):
    """A call of the REST API failed.

    :param method: the HTTP method.
    :param path: the path that was asked for, without the query.
    :param status: the HTTP status, 0 when there was no answer.
    :param code: MLflow's own ``error_code``, empty where it gave none.
    :param reason: one sentence.
    """

    def __init__(self, method: str, path: str, status: int, code: str, reason: str) -> None:
        super().__init__(f"{method} {path} failed ({status or 'no answer'} {code}): {reason}")
        self.method = method
        self.path = path
        self.status = status
        self.code = code
        self.reason = reason

    @property
    def says_down(self) -> bool:
        """Whether this means that MLflow is down; a 404 does not."""
        return self.status == 0 or self.status >= 500


@dataclass(frozen=True, slots=True)
class Loss:
    """Some things of one kind that did not arrive.

    :param kind: ``metrics``, ``params``, ``tags``, ``artifacts`` or ``traces``.
    :param reasons: the first few errors, for people.
    """

    kind: str
    count: int
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        why = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return f"{self.count} {self.kind}{why}"


class LostDataError(PicklableError, RuntimeError):
    """Something that was logged asynchronously did not arrive.

    :param run_id: the run.
    :param losses: what, and why.
    """

    def __init__(self, run_id: str, losses: tuple[Loss, ...]) -> None:
        super().__init__(
            f"run {run_id} has lost data that was logged asynchronously: "
            f"{', '.join(map(str, losses))}. It is marked FAILED. Log with synchronous=True to see "
            "the error where it happens, or raise the deadline of the connection."
        )
        self.run_id = run_id
        self.losses = losses


class RunEndError(PicklableError, RuntimeError):
    """A run could not be ended.

    :param run_id: the run.
    :param status: what it should have been.
    :param losses: what did not arrive either.
    """

    def __init__(self, run_id: str, status: str, losses: tuple[Loss, ...] = ()) -> None:
        lost = f"; lost with it: {', '.join(map(str, losses))}" if losses else ""
        super().__init__(
            f"run {run_id} could not be ended as {status} and is still RUNNING on the server{lost}."
            " The next try of the task ends it"
        )
        self.run_id = run_id
        self.status = status
        self.losses = losses


class MLflowRefusedError(PicklableError, RuntimeError):
    """MLflow cannot be used as the connection has it, and waiting does not change that.

    :param sentence: what is wrong and what to do, as a gate says it.
    :param state: the state of the server.
    """

    def __init__(self, sentence: str, state: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.state = state


class AmbiguousRunError(PicklableError, RuntimeError):
    """It cannot be told which of several runs is meant.

    :param why: one sentence.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class AsyncOutsideRunError(PicklableError, RuntimeError):
    """Something was to be logged asynchronously where nothing waits for its arrival.

    :param call: the method of the client.
    """

    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call}(synchronous=False) outside of hook.run: MLflow sends it when the process "
            "exits, and Airflow ends the process before that. Log inside `with hook.run(...)` "
            "(run_id= resumes a run), which waits for it, or with synchronous=True"
        )
        self.call = call
