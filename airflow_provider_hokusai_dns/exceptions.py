"""The public errors, in one place. Imports no other module of this package.

The message of each is a sentence for people. Each has fields, and can be pickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_hokusai_dns.resolver.model import Attempt, Cause


class PicklableError(Exception):
    """Is unpickled from its fields, which have the names of its arguments.

    By default an exception pickles its message as its only argument, and unpickling fails.
    """

    def __reduce__(self) -> tuple[object, ...]:
        code = type(self).__init__.__code__
        names = code.co_varnames[1 : code.co_argcount]
        return (type(self), tuple(getattr(self, name) for name in names))


class DNSResolutionError(PicklableError):
    """There is no address to serve for a hostname.

    :param hostname: the name, without port or path.
    :param cause: why the live lookup failed.
    :param tried: the sources asked, in order; ends with the store and the static address.
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
    """A live lookup returned no address.

    :param cause: why, for programs.
    :param detail: one sentence for people.
    :param tried: the sources asked, in order.
    """

    def __init__(self, cause: Cause, detail: str = "", tried: Sequence[Attempt] = ()) -> None:
        super().__init__(detail or cause.value)
        self.cause = cause
        self.detail = detail or cause.value
        self.tried = tuple(tried)


class SettingError(PicklableError, ValueError):
    """A setting is invalid.

    :param where: for example ``"connection 'mlflow_default'"`` or ``"environment"``.
    :param field: the name of the field, variable or option.
    :param reason: one sentence on what is wrong and what to write instead. It contains the value,
        unless that may be a secret.
    """

    def __init__(self, where: str, field: str, reason: str) -> None:
        super().__init__(f"{where}, {field}: {reason}")
        self.where = where
        self.field = field
        self.reason = reason


class TLSFileError(ValueError):
    """A CA file or a client certificate of the connection cannot be used."""


class ConnectionMissingError(PicklableError, LookupError):
    """The connection does not exist, or Airflow cannot read it now: Airflow does not say which.

    :param conn_id: the requested connection.
    :param hint: what to do, in one sentence.
    """

    def __init__(self, conn_id: str, hint: str) -> None:
        super().__init__(f"There is no connection {conn_id!r}. {hint}")
        self.conn_id = conn_id
        self.hint = hint


class ConnectionUndefinedError(ConnectionMissingError):
    """Airflow reports that the connection does not exist: retrying will not help."""


class ConnectionConflictError(PicklableError, ValueError):
    """One task uses two connections that resolve one hostname in different ways.

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
    """Two connections need different values of a setting that exists once per process.

    :param what: the setting.
    :param conn_ids: the connection that needs it now, and the one that has set it.
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
    """MLflow would not call our auth plugin, and would send requests without credentials."""


class NotSignedInError(PicklableError, RuntimeError):
    """A request was made for a connection whose credentials have been removed.

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
    :param retry_in: seconds until a call is allowed again.
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
    """No address of MLflow accepts a connection.

    :param uri: the tracking URI, with the hostname.
    :param addresses: the addresses that were tried.
    """

    def __init__(self, uri: str, addresses: tuple[str, ...]) -> None:
        super().__init__(
            f"{uri} cannot be reached: nothing accepts a connection at {', '.join(addresses)}. Is "
            "MLflow running, is the port right? A gate (MLflowHealthSensor) would have waited."
        )
        self.uri = uri
        self.addresses = addresses


class MLflowRestError(PicklableError, RuntimeError):
    """A call to the REST API failed.

    :param method: the HTTP method.
    :param path: the path that was asked for, without the query.
    :param status: the HTTP status, 0 when there was no answer.
    :param code: MLflow's own ``error_code``, empty if there was none.
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
        """Whether this error means that MLflow is down; a 404 does not."""
        return self.status == 0 or self.status >= 500


@dataclass(frozen=True, slots=True)
class Loss:
    """Data of one kind that did not arrive.

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
    :param losses: what was lost, and why.
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
    :param status: the status that it should have.
    :param losses: data that did not arrive either.
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
    """MLflow cannot be used with this connection, and retrying will not help.

    :param sentence: what is wrong and what to do, in a gate's words.
    :param state: the state of the server.
    """

    def __init__(self, sentence: str, state: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.state = state


class AmbiguousRunError(PicklableError, RuntimeError):
    """It is not clear which of several runs is meant.

    :param why: one sentence.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class AsyncOutsideRunError(PicklableError, RuntimeError):
    """Asynchronous logging was used where nothing waits until the data has arrived.

    :param call: the method of the client.
    """

    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call}(synchronous=False) outside of hook.run: MLflow sends it when the process "
            "exits, and Airflow ends the process before that. Log inside `with hook.run(...)` "
            "(run_id= resumes a run), which waits for it, or with synchronous=True"
        )
        self.call = call
