"""The errors of runs, of what they log, and of their credentials."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_hokusai_dns.resolver.errors import PicklableError


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
            "removed: get a new client from the hook"
        )
        self.conn_id = conn_id


@dataclass(frozen=True, slots=True)
class Loss:
    """Data of one kind that did not arrive.

    :param kind: ``metrics``, ``params``, ``tags``, ``artifacts`` or ``traces``.
    :param reasons: the first few errors, for people.
    :param permanent: whether MLflow refused all of it, so that sending it later would not help.
    """

    kind: str
    count: int
    reasons: tuple[str, ...] = ()
    permanent: bool = False

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


class AmbiguousRunError(PicklableError, RuntimeError):
    """It is not clear which of several runs is meant.

    :param why: one sentence.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


#: Methods of the client that begin a trace, which MLflow sends by the URI of the process.
TRACING = ("start_trace", "start_span")


class AsyncOutsideRunError(PicklableError, RuntimeError):
    """Asynchronous logging was used where nothing waits until the data has arrived.

    :param call: the method of the client.
    """

    def __init__(self, call: str) -> None:
        what = (
            f"{call}(synchronous=False) outside of hook.run: MLflow sends it when the process "
            "exits, and Airflow ends the process before that"
        )
        instead = ", or with synchronous=True"
        if call in TRACING:
            instead = ""
            what = (
                f"{call} outside of hook.run: MLflow sends a trace to the server of the process, "
                "and not to that of this client"
            )
        super().__init__(
            f"{what}. Log inside `with hook.run(...)` (run_id= resumes a run), which waits for "
            f"it{instead}"
        )
        self.call = call
