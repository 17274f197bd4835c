"""The runs that clients of a relay begin and end, as their calls say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.client.creates import json_object, run_of

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.client.relay.messages import Answer, Request

#: What an id of a run looks like: one of a server that is not MLflow may be anything.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: The status of a run that has ended.
TERMINAL = frozenset({"FINISHED", "FAILED", "KILLED"})
#: ``RunStatus`` of MLflow's protocol, for clients that send the number.
_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}


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

    def note(self, name: str, request: Request, answer: Answer) -> None:
        """What a call that MLflow has carried out says about a run.

        :param name: of the call, below ``.../mlflow/``.
        """
        match name:
            case "runs/create":
                if (made := run_of(answer.document)) is not None:
                    self.begun(made, request.workspace)
            case "runs/update":
                given = json_object(request.text())
                if run_id := _run_id(given):
                    self.updated(run_id, _status(given), request.workspace)
            case "runs/delete":
                self.deleted(_run_id(json_object(request.text())))

    def left_open(self, update: Mapping[str, Any]) -> dict[str, Any] | None:
        """An update that would end the joined run, without that; ``None`` for any other."""
        if _run_id(update) != self.joined or _status(update) not in TERMINAL:
            return None
        return {k: v for k, v in update.items() if k not in ("status", "end_time", "endTime")}


def _status(update: Mapping[str, Any]) -> str:
    value = update.get("status")
    return _STATUS.get(value, "") if isinstance(value, int) else str(value or "")


def _run_id(fields: Mapping[str, Any]) -> str:
    """The run of a call; protobuf's JSON takes camel case too."""
    names = ("run_id", "runId", "run_uuid", "runUuid")
    return str(next((fields[name] for name in names if fields.get(name)), ""))
