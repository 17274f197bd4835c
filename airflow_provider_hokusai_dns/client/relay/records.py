"""The records of a relay: the runs that its clients started, and the calls that did not arrive."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from airflow_provider_hokusai_dns.client.errors import Loss

#: Alone: the ids of models and traces are as long, behind a prefix.
_RUN_ID = re.compile(r"(?<![\w-])[0-9a-f]{32}(?![\w-])")
#: What an id of a run looks like: one of a server that is not MLflow may be anything.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_REASONS = 3
#: The status of a run that has ended.
TERMINAL = frozenset({"FINISHED", "FAILED", "KILLED"})


def run_id_in(*texts: str) -> str | None:
    """The first run id in a path or a body, for naming what was lost."""
    for text in texts:
        if match := _RUN_ID.search(text):
            return match[0]
    return None


def is_id(text: str) -> bool:
    """Whether a text of a server looks like the id of a run."""
    return _ID.fullmatch(text) is not None


@dataclass
class Runs:
    """The runs that clients of a relay started and have not ended. One thread writes it.

    :param joined: a run that the process that opened it ends, and not the relay.
    :param open: each with the workspace that its client named; empty for none.
    """

    joined: str | None = None
    open: dict[str, str] = field(default_factory=dict)

    def __contains__(self, run_id: str) -> bool:
        return run_id == self.joined or run_id in self.open

    def begun(self, run_id: str, workspace: str = "") -> None:
        """A run was created, or resumed."""
        if run_id != self.joined and is_id(run_id):
            self.open[run_id] = workspace

    def updated(self, run_id: str, status: str, workspace: str = "") -> None:
        """A client has set the status of a run."""
        if status in TERMINAL:
            self.open.pop(run_id, None)
        elif status == "RUNNING":
            self.begun(run_id, workspace)

    def deleted(self, run_id: str) -> None:
        """A run is gone."""
        self.open.pop(run_id, None)


@dataclass(frozen=True, slots=True)
class LostCall:
    """A write that did not reach MLflow.

    :param name: what was called, for example ``runs/log-batch``.
    :param run_id: where the call names a run.
    :param reason: why, for people.
    :param permanent: whether MLflow refused it, so that sending it later would not help.
    """

    name: str
    run_id: str | None
    reason: str
    permanent: bool = False


def losses_of(calls: Iterable[LostCall]) -> tuple[Loss, ...]:
    """Calls as losses by kind, with the first few reasons."""
    by_name: dict[str, list[LostCall]] = {}
    for call in calls:
        by_name.setdefault(call.name, []).append(call)
    return tuple(
        Loss(
            f"calls of {name}" if len(group) > 1 else f"call of {name}",
            len(group),
            tuple(dict.fromkeys(call.reason for call in group))[:_MAX_REASONS],
        )
        for name, group in by_name.items()
    )
