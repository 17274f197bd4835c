"""How a run on several workers is distributed: the longest first, so that none is left at the end.

A file stays on one worker, with the servers that it started; the tests of the files below have
nothing in common, so each goes to whichever worker is free.

Half of the workers have the tests that mostly wait: for a deadline, an outage, a server's answer.
They leave the cores to the other half, which has the tests that compute.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

#: Files whose tests are minutes long and share no server.
SINGLE = (
    "tests/client/test_mlflow_versions.py::test_the_promises_hold_on",
    "tests/e2e/test_fleet.py",
    "tests/matrix/test_hangs.py",
    "tests/packaging/test_next.py",
)
#: Minutes of a whole Airflow each, with claims that are times: not beside each other.
STORIES = "tests/e2e/test_demo.py::test_story"
#: Tests of many children in one outage, which is made once for all of them.
OUTAGES = "tests/client/relay/test_children.py::test_a_child_of_any_kind"
#: What takes longer than 20 s, the longest first. What is missing here starts later, no more.
LONGEST = (
    STORIES,
    "tests/e2e/test_demo.py",
    "tests/client/test_mlflow_versions.py::test_the_promises_hold_on",
    "tests/e2e/test_demo_play.py",
    "tests/client/relay/test_children.py",
    "tests/client/relay/test_airflow.py",
    "tests/integration/test_gates_in_a_triggerer.py",
    "tests/integration/test_parts_that_go_away.py",
    "tests/integration/test_modes.py",
    "tests/matrix/test_matrix.py",
    "tests/matrix/test_hangs.py::test_a_redeploy",
    "tests/page/test_in_airflow.py",
    "tests/matrix/test_deadlines.py",
    "tests/matrix/test_hangs.py",
    "tests/packaging/test_next.py",
    "tests/test_no_secret_anywhere.py",
    "tests/test_benchmarks_mlflow.py",
    "tests/e2e/test_fleet.py",
    "tests/integration/test_dag_runs.py",
    "tests/integration/test_night_drill.py",
    "tests/integration/test_tasks_at_the_api.py",
    "tests/integration/test_api_server.py",
    "tests/client/test_promises.py",
    "tests/docs/test_blocks.py",
    "tests/packaging/test_floor.py",
    "tests/page/test_page.py",
    "tests/hooks/test_mlflow_hook.py",
)
#: What takes longer than 10 s, and less than a third of it on a core.
WAITING = (
    "tests/client/relay/test_creates.py",
    "tests/client/relay/test_forwarding.py",
    "tests/client/relay/test_the_end.py",
    "tests/client/test_run.py",
    "tests/client/test_transport.py",
    "tests/hooks/test_rest.py",
    "tests/matrix/test_deadlines.py",
    "tests/matrix/test_hangs.py",
    "tests/resolver/lookup/test_parity.py",
    "tests/resolver/test_pin.py",
)


def scope(test: str) -> str:
    """Give what stays on one worker with a test: its file, a part of it, or the test alone."""
    if test.startswith(STORIES):
        return STORIES
    if test.startswith(OUTAGES):
        return f"{OUTAGES}[{test.rpartition('-')[2]}"
    return test if test.startswith(SINGLE) else test.partition("::")[0]


def _place(test: str) -> int:
    return next((i for i, name in enumerate(LONGEST) if test.startswith(name)), len(LONGEST))


def _is_for_waiting(worker: str, workers: int) -> bool:
    """Whether a worker (``gw0``, ...) has the tests that wait: every second one of four or more."""
    return workers >= 4 and int(worker.removeprefix("gw")) % 2 == 1


def pytest_configure(config: pytest.Config) -> None:
    """In a worker that computes: let those go first that wait, for they have time limits."""
    worker = getattr(config, "workerinput", None)
    if worker and not _is_for_waiting(worker["workerid"], worker["workercount"]):
        os.nice(5)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: the longest first, each file in its own order."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute scopes in the order in which the workers have collected them."""
    from xdist.scheduler import LoadFileScheduling

    class Longest(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

        def _next(self, node: Any) -> str | None:
            """The next scope of a worker's half."""
            wanted = _is_for_waiting(node.gateway.id, self.numnodes)
            return next((s for s in self.workqueue if s.startswith(WAITING) == wanted), None)

        def _assign_work_unit(self, node: Any) -> None:
            """Give a worker a scope of its half, or, where that is done, of the other."""
            if (found := self._next(node)) is not None:
                self.workqueue.move_to_end(found, last=False)
            super()._assign_work_unit(node)

        def _reschedule(self, node: Any) -> None:
            """End a worker that waits when that is done: more that compute would be too many."""
            if _is_for_waiting(node.gateway.id, self.numnodes) and self._next(node) is None:
                if not node.shutting_down:
                    node.shutdown()
            else:
                super()._reschedule(node)

    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # that would be by the number of tests
    return Longest(config, log)
