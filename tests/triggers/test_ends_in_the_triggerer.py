"""How an open gate ends its task from the triggerer, and what it leaves behind."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger
from tests.conftest import SEARCH

RUNNER = "airflow.sdk.execution_time.task_runner"
TI = SimpleNamespace(dag_id="d", task_id="gate", run_id="one", map_index=3)


class Supervisor:
    """What a triggerer sends to its supervisor."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent, self.error = [], error
        self.loops_thread = threading.get_ident()

    async def asend(self, message):
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    def send(self, message):
        assert threading.get_ident() != self.loops_thread, "it would block the event loop"
        self.sent.append(message)


@pytest.fixture
def supervisor(monkeypatch, usable):
    """The triggerer's line to its supervisor."""

    def put(error=None):
        line = Supervisor(error)
        monkeypatch.setitem(sys.modules, RUNNER, SimpleNamespace(SUPERVISOR_COMMS=line))
        return line

    return put


async def events_of(ti, **given):
    trigger = MLflowHealthTrigger(poke_interval=0.01, end_from_trigger=True, **given)
    trigger._task_instance = ti
    return [event async for event in trigger.run()]


async def test_an_open_gate_pushes_its_xcom_and_ends_its_task_without_a_worker(supervisor):
    """As a task pushes it: Airflow would store the XCom of the event as text of JSON."""
    line = supervisor()
    (event,) = await events_of(TI)
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is None
    (xcom,) = [one for one in line.sent if type(one).__name__ == "SetXCom"]
    assert xcom.value["level"] == "healthy"
    assert (xcom.dag_id, xcom.task_id, xcom.run_id, xcom.map_index) == ("d", "gate", "one", 3)
    assert xcom.key == "return_value"


async def test_a_gate_whose_xcom_cannot_be_pushed_ends_on_a_worker(supervisor, capfd):
    """There it is pushed again; a line says so."""
    supervisor(ConnectionError("away"))
    (event,) = await events_of(TI)
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["verdict"]["level"] == "healthy"
    assert "could not be pushed from here (ConnectionError)" in capfd.readouterr().out


async def test_a_custom_xcom_backend_is_called_and_does_not_block_the_loop(supervisor, monkeypatch):
    """It may upload the value: all triggers of the triggerer would wait for that."""
    line, called_on = supervisor(), []

    class Backend(BaseXCom):
        @staticmethod
        def serialize_value(value, **_):
            called_on.append(threading.get_ident())
            return f"s3://bucket/{value['level']}"

    monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom", Backend)
    (event,) = await events_of(TI)
    assert isinstance(event, TaskSuccessEvent)
    (xcom,) = [one for one in line.sent if type(one).__name__ == "SetXCom"]
    assert xcom.value == "s3://bucket/healthy"
    assert threading.get_ident() not in called_on


async def test_a_gate_without_xcom_ends_without_one(supervisor):
    """The author said so."""
    line = supervisor()
    (event,) = await events_of(TI, do_xcom_push=False)
    assert isinstance(event, TaskSuccessEvent)
    assert not [one for one in line.sent if type(one).__name__ == "SetXCom"]


async def test_under_dag_test_a_gate_ends_on_a_worker(usable):
    """`dag.test()` knows no event that ends a task, and gives a trigger no task instance."""
    (event,) = await events_of(None)
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["open"] is True


async def test_what_is_not_healthy_is_a_warning(usable, tiny, capfd):
    """At INFO it would be lost among the lines of a night."""
    tiny.answers[SEARCH] = (401, "no")
    await events_of(None)
    lines = [line for line in capfd.readouterr().out.splitlines() if "MLflow is" in line]
    assert lines
    assert all("[warning" in line for line in lines)
