"""The calls of a relay's clients that did not arrive, and the error that reports them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from airflow_provider_hokusai_dns.client.errors import Loss, LostDataError

#: Alone: the ids of models and traces are as long, behind a prefix.
_RUN_ID = re.compile(r"(?<![\w-])[0-9a-f]{32}(?![\w-])")
_MAX_REASONS = 3


def run_id_in(*texts: str) -> str | None:
    """The first run id in a path or a body, for naming what was lost."""
    for text in texts:
        if match := _RUN_ID.search(text):
            return match[0]
    return None


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
            all(call.permanent for call in group),
        )
        for name, group in by_name.items()
    )


class RelayLostDataError(LostDataError):
    """Calls of a relay's clients that did not reach MLflow.

    :param conn_id: the connection of the relay.
    :param calls: the calls, each with the reason.
    """

    def __init__(self, conn_id: str, calls: tuple[LostCall, ...]) -> None:
        runs = sorted({call.run_id for call in calls if call.run_id})
        losses = losses_of(calls)
        RuntimeError.__init__(
            self,
            f"what processes of this task sent to MLflow (connection {conn_id!r}) did not arrive: "
            f"{', '.join(map(str, losses))}"
            + (f"; runs: {', '.join(runs)}" if runs else "")
            + ". A longer deadline on the connection (and a higher max_retries, if it has one) "
            "waits longer for MLflow.",
        )
        self.conn_id = conn_id
        self.calls = calls
        self.run_id = runs[0] if runs else ""
        self.losses = losses
