"""The steps of the demo. Each one changes something and waits; claims are evaluated at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from demo import claims, evidence, names, report
from demo.console import Console
from demo.errors import DemoError
from demo.layout import FIRST_ADDRESS, MLFLOW_NAME, SECOND_ADDRESS
from demo.stack import Stack

REFRESH, TRAINING, PLAIN = "hokusai_dns_refresh", "mlflow_training_example", "plain_training"
CHILD = "child_training"
_DAGS = {REFRESH, TRAINING, PLAIN, CHILD}
_ENDED = ("success", "failed")
_RUN_LIMIT = 300.0  # generous: a busy machine is no failed claim
_SHORT = 0.01  # seconds between two metrics, where nothing happens in between
_LONG = 0.15  # a run of half a minute, so that a redeploy fits inside; longer on a slow machine
#: Seconds of the healthy run for each second between two metrics of a run during the redeploy.
_SLOWNESS = 80.0
#: What bounds the plain client, where MLflow's own defaults are 7 retries and 120 s.
PLAIN_BOUNDS = {"max_retries": 1, "timeout": 5}


def tell(stack: Stack, label: str) -> bool:
    """Run every step; returns whether every claim held."""
    story = _Story(stack)
    for chapter in (
        story.curtain,
        story.refresh,
        story.healthy,
        story.name_gone,
        story.dns_silent,
        story.redeploy,
        story.steady_again,
    ):
        chapter()
    stack.console.heading("Collecting the results from Airflow and MLflow")
    found = evidence.collect(stack.airflow, stack.mlflow)
    verdicts = claims.judge(found, names.changes(stack.layout.root))
    report.show(stack, found, verdicts, label, PLAIN_BOUNDS)
    return all(verdict.held for verdict in verdicts)


def warm_up(stack: Stack) -> None:
    """Run a refresh and one training, so that ``make up`` has something to show."""
    story = _Story(stack)
    story.curtain()
    story.refresh()
    story.healthy()


class _Story:
    """The steps, in order."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._console: Console = stack.console
        self._healthy_seconds = 0.0

    def curtain(self) -> None:
        """Start everything."""
        self._console.heading("Starting a DNS server, an MLflow server and Airflow")
        self._stack.start()
        self._stack.await_dags(_DAGS)

    def refresh(self) -> None:
        """An admin triggers the refresh DAG; the last known good exists afterwards."""
        self._console.heading("An admin triggers the refresh DAG")
        self._run(REFRESH, claims.REFRESH)
        for key, value in evidence.stored(self._stack.airflow).items():
            if addresses := ", ".join(value.get("addresses", ())):  # a history has none
                self._console.say(f"Variable {key}: {addresses}")

    def healthy(self) -> None:
        """DNS and MLflow work."""
        self._console.heading("Training while DNS and MLflow work")
        began = time.monotonic()
        self._run(TRAINING, claims.HEALTHY, {"pause": _SHORT})
        self._healthy_seconds = time.monotonic() - began

    def name_gone(self) -> None:
        """DNS says that there is no such name."""
        self._console.heading(f"The name disappears: DNS answers NXDOMAIN for {MLFLOW_NAME}")
        self._stack.names.gone()
        self._run(TRAINING, claims.GONE, {"pause": _SHORT})

    def dns_silent(self) -> None:
        """DNS does not answer; the plain client runs next to ours."""
        self._console.heading("DNS stops answering; a plain MLflow client runs the same training")
        self._stack.names.silent()
        self._bounds()
        self._trigger(TRAINING, claims.SILENT, {"pause": _SHORT})
        self._trigger(PLAIN, claims.SILENT_PLAIN, {"pause": _SHORT, **PLAIN_BOUNDS})
        self._await(TRAINING, claims.SILENT)
        self._await(PLAIN, claims.SILENT_PLAIN)

    def redeploy(self) -> None:
        """As ECS does it: name gone, old server stopped, a new one elsewhere, name back."""
        stack, console = self._stack, self._console
        console.heading("MLflow is redeployed to another address while three runs are writing")
        stack.names.answer(FIRST_ADDRESS)
        self._bounds()
        # All three must still be writing when the last of them has begun.
        pause = max(_LONG, round(self._healthy_seconds / _SLOWNESS, 2))
        self._trigger(TRAINING, claims.WRITING, {"pause": pause})
        self._trigger(PLAIN, claims.WRITING_PLAIN, {"pause": pause, **PLAIN_BOUNDS})
        console.say("(the third run writes from a child process, through a relay)")
        self._trigger(CHILD, claims.WRITING_CHILD, {"pause": pause})
        for run in (claims.WRITING, claims.WRITING_PLAIN, claims.WRITING_CHILD):
            self._await_metrics(run, 20)
        stack.names.gone()
        console.say("the name does not exist any more")
        stack.stop_mlflow()
        console.say(f"the old MLflow on {FIRST_ADDRESS} has stopped")
        self._trigger(TRAINING, claims.GATED, {"pause": _SHORT})
        stack.start_mlflow(SECOND_ADDRESS)
        stack.await_mlflow()
        self._await_closed_gate(claims.GATED)
        stack.names.answer(SECOND_ADDRESS)
        console.say(f"the name exists again, with address {SECOND_ADDRESS}")
        self._await(PLAIN, claims.WRITING_PLAIN)
        self._await(TRAINING, claims.WRITING)
        self._await(CHILD, claims.WRITING_CHILD)
        self._await(TRAINING, claims.GATED)

    def steady_again(self) -> None:
        """DNS works: fresh answers only."""
        self._console.heading("DNS works again")
        self._run(REFRESH, claims.REFRESH_AGAIN)
        self._run(TRAINING, claims.STEADY, {"pause": _SHORT})

    # --- the means

    def _bounds(self) -> None:
        retries, timeout = PLAIN_BOUNDS["max_retries"], PLAIN_BOUNDS["timeout"]
        self._console.say(
            f"(the plain client is bounded for this short outage: {retries} retry instead of 7, "
            f"{timeout} s per call instead of 120)"
        )

    def _run(self, dag_id: str, run_id: str, conf: dict[str, Any] | None = None) -> None:
        self._trigger(dag_id, run_id, conf or {})
        self._await(dag_id, run_id)

    def _trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        if dag_id == TRAINING:
            conf = {"run_name": run_id, **conf}
        self._stack.airflow.trigger(dag_id, conf, run_id)
        self._console.say(f"triggered {dag_id}, run {run_id!r}")

    def _await(self, dag_id: str, run_id: str) -> None:
        """Wait for the end of a DAG run, whatever it is, and report it."""
        began = time.monotonic()

        def ended() -> dict[str, Any] | None:
            run = self._stack.airflow.dag_run(dag_id, run_id)
            return run if run["state"] in _ENDED else None

        run = self._until(
            f"run {run_id!r} to end", ended, detail=lambda: self._tasks(dag_id, run_id)
        )
        state, failed = run["state"], self._failed_tasks(dag_id, run_id)
        if failed:
            state += f" (failed: {', '.join(failed)})"
        state = self._console.paint(state, "yellow" if failed else "green")
        self._console.waited(f"run {run_id!r}: {state}", time.monotonic() - began)

    def _await_metrics(self, run_id: str, least: int) -> None:
        """Wait until the server holds this many values of a run."""
        count = 0

        def enough() -> bool:
            nonlocal count
            for run in self._stack.mlflow.runs():
                if evidence.dag_run_of(run) == run_id:
                    counts = self._stack.mlflow.metric_counts(run["info"]["run_id"])
                    count = counts.get(evidence.METRIC, 0)
            return count >= least

        self._until(f"run {run_id!r} to write", enough, detail=lambda: f"{count} metrics so far")
        self._console.say(f"run {run_id!r} is writing: {count} of 200 metrics on the server")

    def _await_closed_gate(self, run_id: str) -> None:
        """Wait until a gate has made a check, and has not opened."""

        def waiting() -> bool:
            tasks = self._stack.airflow.tasks(TRAINING, run_id)
            return any(task["state"] in ("up_for_reschedule", "deferred") for task in tasks)

        self._until(
            f"the gate of run {run_id!r} to check MLflow",
            waiting,
            detail=lambda: self._tasks(TRAINING, run_id),
            pause=0.1,
        )
        self._console.say(f"the gate of run {run_id!r} has checked MLflow and keeps waiting")

    def _failed_tasks(self, dag_id: str, run_id: str) -> list[str]:
        tasks = self._stack.airflow.tasks(dag_id, run_id)
        return [task["task_id"] for task in tasks if task["state"] != "success"]

    def _tasks(self, dag_id: str, run_id: str) -> str:
        tasks = self._stack.airflow.tasks(dag_id, run_id)
        return ", ".join(f"{task['task_id']} {task['state'] or 'not yet'}" for task in tasks)

    def _until(
        self,
        what: str,
        check: Callable[[], Any],
        *,
        detail: Callable[[], str],
        pause: float = 1.0,
    ) -> Any:
        try:
            return self._console.until(
                what,
                check,
                seconds=_RUN_LIMIT,
                alive=self._stack.processes.check,
                detail=detail,
                pause=pause,
            )
        except DemoError as error:
            raise DemoError(f"{error} Airflow's logs have details.") from error
