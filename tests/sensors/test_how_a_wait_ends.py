"""The table "How a wait ends" in docs/dag-authors.md, run through in every mode."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.models.trigger import Trigger
from airflow.sdk import DAG, BaseSensorOperator
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk.execution_time.timeout import timeout as execution_timeout
from airflow.serialization.decoders import smart_decode_trigger_kwargs
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_hokusai_dns.gates.decision import unchecked
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor
from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger
from tests.conftest import SEARCH

GUIDE = Path(__file__).parents[2] / "docs" / "dag-authors.md"
FLAGS = {"no flag": {}, "`soft_fail`": {"soft_fail": True}, "`never_fail`": {"never_fail": True}}
MODES = ("poke", "reschedule", "deferrable", "deferrable, from its trigger")
CHECK = "airflow_provider_hokusai_dns.sensors.mlflow_health.check_connection"


def table() -> dict[tuple[str, str], str]:
    """By what ends the wait and by flag: how the task ends."""
    section = GUIDE.read_text().partition("### How a wait ends")[2].partition("\n##")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    heads, _, *rest = rows
    return {
        (row[0], flag): end for row in rest for flag, end in zip(heads[1:], row[1:], strict=True)
    }


TABLE = table()


def end_of(call) -> str:
    """In the words of the table, as Airflow's task runner takes an exception."""
    try:
        call()
    except AirflowSkipException:
        return "skipped"
    except (AirflowFailException, AirflowSensorTimeout):
        return "fails"
    except (TaskDeferred, AirflowRescheduleException):
        return "waits"
    except BaseException:  # also AirflowTaskTimeout
        return "fails, is retried"
    return "opens"


class Ti:
    """As much of a task instance as a gate uses."""

    def __init__(self, first: datetime | None = None) -> None:
        self.try_number = 1
        self.pushed: dict[str, object] = {}
        self._first = first

    def xcom_push(self, key: str, value: object) -> None:
        self.pushed[key] = value

    def get_first_reschedule_date(self, context: object) -> datetime | None:
        return self._first


class Stock(BaseSensorOperator):
    """A sensor of Airflow's own, which pokes as it is told to."""

    def __init__(self, *, poke, **kwargs):
        super().__init__(task_id="stock", poke_interval=0.01, **kwargs)
        self.poke = poke


def fail(error):
    """A poke or a check that raises."""

    def failing(*args, **kwargs):
        raise error

    return failing


def broken(*args, **kwargs):
    """A check that ends with an exception, which ours never should."""
    raise RuntimeError("out of memory")


LIMITS = {
    "`timeout`": {"timeout": 0.1},
    "`execution_timeout`": {"timeout": 60, "execution_timeout": timedelta(seconds=0.3)},
    "three checks in a row with the same state in `fail_fast_on`": {"timeout": 60},
    "an exception in a check": {"timeout": 60},
}


def run(task, context):
    """As the task runner does."""
    if task.execution_timeout is None:
        return task.execute(context)
    with execution_timeout(task.execution_timeout.total_seconds()):
        return task.execute(context)


def resume(task, event, context):
    return task.resume_execution("execute_complete", {"event": event}, context)


def event_of(deferred):
    """What the trigger of a deferred gate says."""
    _, payload = deferred.trigger.serialize()
    trigger = MLflowHealthTrigger(**payload)
    trigger.timeout_after = datetime.now(UTC) + deferred.timeout

    async def first():
        async for event in trigger.run():
            return event.payload

    return asyncio.run(asyncio.wait_for(first(), 60))


@pytest.fixture
def shut(usable, tiny):
    """An MLflow that a gate waits for."""
    tiny.answers[SEARCH] = (503, {})
    return tiny


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("what", LIMITS)
def test_a_gate_ends_as_the_table_says(shut, monkeypatch, what, flag, mode):
    """Poke, reschedule, the first check of a deferrable gate, and the trigger's."""
    given = {"task_id": "gate", "poke_interval": 0.02, **FLAGS[flag], **LIMITS[what]}
    if what.startswith("three"):
        shut.answers[SEARCH] = (401, "no")
    long_ago = datetime.now(UTC) - timedelta(seconds=30)
    ti = Ti(long_ago if what == "`timeout`" else None)
    context = {"ti": ti}
    one = MLflowHealthSensor(
        **given,
        mode="reschedule" if mode == "reschedule" else "poke",
        deferrable=mode.startswith("deferrable"),
    )
    if mode in ("poke", "reschedule") and what == "`execution_timeout`":
        # An alarm in a log call would hang: Airflow's handler logs too, and waits for structlog's
        # lock, which its own thread holds.
        monkeypatch.setattr(CHECK, slow)
    if mode == MODES[3] or (mode == "deferrable" and what != "an exception in a check"):
        with pytest.raises(TaskDeferred) as caught:
            run(one, context)
        again = MLflowHealthSensor(**given, deferrable=True)  # in a process of its own
        if what == "an exception in a check":
            kwargs = {"error": "Trigger failure", "traceback": ["RuntimeError: out of memory"]}
            end = end_of(lambda: again.resume_execution("__fail__", kwargs, context))
        else:
            event = event_of(caught.value)
            end = end_of(lambda: resume(again, event, context))
    else:
        if what == "an exception in a check":
            monkeypatch.setattr(CHECK, broken)
        end = end_of(lambda: run(one, context))
    assert end == TABLE[what, flag]
    if what != "an exception in a check":
        assert ti.pushed["return_value"]["sentence"], "the verdict is the XCom"


def slow(*args, **kwargs):
    """A check that takes longer than `execution_timeout`."""
    import time

    time.sleep(30)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("what", LIMITS)
def test_a_stock_sensor_ends_as_the_table_says(what, flag):
    """In poke mode; that is what every mode of the gate follows."""
    poke = {
        "`timeout`": lambda context: False,
        "`execution_timeout`": slow,
        "an exception in a check": broken,
    }.get(what, fail(AirflowFailException("hopeless")))
    stock = Stock(poke=poke, **FLAGS[flag], **LIMITS[what])
    assert end_of(lambda: run(stock, {"ti": Ti()})) == TABLE[what, flag]


def test_execution_timeout_that_hits_a_pause_honours_the_flags_too(shut):
    """Airflow's own sensors honour them only where it hits a poke."""
    ti = Ti()
    given = {"timeout": 60, "execution_timeout": timedelta(seconds=3), "poke_interval": 30}
    one = MLflowHealthSensor(task_id="gate", soft_fail=True, **given)
    with pytest.raises(AirflowSkipException, match=r"execution_timeout \(3 s\).*database"):
        run(one, {"ti": ti})
    assert ti.pushed["return_value"]["state"] == "backend_down"


def test_execution_timeout_in_the_first_check_has_a_verdict_too(usable, monkeypatch):
    """Nothing was seen, and that is what the XCom says."""
    monkeypatch.setattr(CHECK, slow)
    ti = Ti()
    one = MLflowHealthSensor(task_id="gate", execution_timeout=timedelta(seconds=0.2))
    assert end_of(lambda: run(one, {"ti": ti})) == "fails, is retried"
    assert "No check of MLflow finished" in ti.pushed["return_value"]["sentence"]


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_time_out_says_why(shut, mode):
    """Airflow's own message knows nothing of MLflow."""
    long_ago = datetime.now(UTC) - timedelta(seconds=30)
    one = MLflowHealthSensor(task_id="gate", timeout=0.05, poke_interval=0.02, mode=mode)
    with pytest.raises(AirflowSensorTimeout, match=r"^Gate timed out after 0.05 s\. MLflow is unh"):
        one.execute({"ti": Ti(long_ago)})


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_a_trigger_that_said_nothing_ends_the_gate_as_the_table_says(reason):
    """The scheduler saw the time-out first, or the trigger raised."""
    what = "`timeout`" if reason == "Trigger timeout" else "an exception in a check"
    kwargs = {"error": reason, "traceback": []}
    for flag, given in FLAGS.items():
        one = MLflowHealthSensor(task_id="gate", deferrable=True, **given)
        end = end_of(lambda one=one: one.resume_execution("__fail__", kwargs, {"ti": Ti()}))
        assert end == TABLE[what, flag]


@pytest.mark.parametrize("from_trigger", [True, False])
def test_a_triggerer_that_reported_nothing_is_the_reason_of_a_time_out(from_trigger):
    """It is not running, or has too much to do. A worker's check, if there was one, stays."""
    ti, kwargs = Ti(), {"error": "Trigger timeout", "traceback": []}
    given = {"deferrable": True, "start_from_trigger": from_trigger, "timeout": 12}
    one = MLflowHealthSensor(task_id="gate", **given)
    with pytest.raises(AirflowSensorTimeout, match=r"12 s\. .* The triggerer reported no check"):
        one.resume_execution("__fail__", kwargs, {"ti": ti})
    pushed = ti.pushed.get("return_value", {})
    assert ("The triggerer reported" in pushed.get("sentence", "")) == from_trigger


def test_an_event_that_cannot_be_read_is_an_exception_in_a_check():
    """Triggerer and worker of different versions."""
    for flag, given in FLAGS.items():
        one = MLflowHealthSensor(task_id="gate", deferrable=True, **given)
        end = end_of(lambda one=one: resume(one, {"version": 99}, {"ti": Ti()}))
        assert end == TABLE["an exception in a check", flag]


class TestTheTimeOfAGate:
    """It ends when it should, and not later."""

    @pytest.mark.parametrize(
        ("timeout", "limit", "least", "most"), [(60, 8, 7, 8), (8, 60, 8, 8), (60, None, 60, 60)]
    )
    def test_is_the_lesser_of_both_where_it_is_deferred(self, shut, timeout, limit, least, most):
        """Airflow counts execution_timeout down on a worker alone."""
        given = {} if limit is None else {"execution_timeout": timedelta(seconds=limit)}
        one = MLflowHealthSensor(task_id="gate", deferrable=True, timeout=timeout, **given)
        with pytest.raises(TaskDeferred) as caught:
            one.execute({"ti": Ti()})
        assert least <= caught.value.timeout.total_seconds() <= most

    @pytest.mark.parametrize("mode", ["poke", "deferrable"])
    def test_is_not_longer_for_a_long_poke_interval(self, shut, mode):
        """The last check is at the time-out; the reason is in the error."""
        given = {"timeout": 0.5, "poke_interval": 60}
        one = MLflowHealthSensor(task_id="gate", deferrable=mode == "deferrable", **given)
        began = datetime.now(UTC)
        if mode == "poke":
            with pytest.raises(AirflowSensorTimeout, match="database"):
                one.execute({"ti": Ti()})
        else:
            with pytest.raises(TaskDeferred) as caught:
                one.execute({"ti": Ti()})
            event = event_of(caught.value)
            assert event["timed_out"]
            assert event["verdict"]["state"] == "backend_down", "what the worker saw"
        assert datetime.now(UTC) - began < timedelta(seconds=20)

    def test_is_bounded_in_reschedule_mode_too(self, shut):
        """The next process is asked for at the time-out."""
        one = MLflowHealthSensor(task_id="gate", timeout=5, poke_interval=600, mode="reschedule")
        with pytest.raises(AirflowRescheduleException) as caught:
            one.execute({"ti": Ti()})
        assert caught.value.reschedule_date < datetime.now(UTC) + timedelta(seconds=6)

    def test_is_bounded_in_the_first_check_of_a_trigger(self, usable, dns, shut):
        """A gate that began there, with DNS silent: our event comes before Airflow's time-out."""
        from tests.conftest import HOSTNAME

        dns.silent(HOSTNAME)
        trigger = MLflowHealthTrigger(delay=0.0, poke_interval=60)
        trigger.timeout_after = datetime.now(UTC) + timedelta(seconds=0.5)

        async def first():
            async for event in trigger.run():
                return event.payload, datetime.now(UTC)

        event, at = asyncio.run(asyncio.wait_for(first(), 60))
        assert event["timed_out"]
        assert "No check of MLflow finished" in event["verdict"]["sentence"]
        assert at < trigger.timeout_after + timedelta(seconds=2)


class TestAnExceptionInTheTriggerer:
    """A check there raises, which ours never should."""

    async def first(self, monkeypatch, errors, **given):
        from airflow_provider_hokusai_dns.gates import shared_probes

        checks = iter(errors)

        async def check(key):
            if (error := next(checks, None)) is not None:
                raise error
            return unchecked("ml")

        monkeypatch.setattr(shared_probes, "_check", check)
        trigger = MLflowHealthTrigger(poke_interval=0.02, **given)
        trigger.timeout_after = datetime.now(UTC) + timedelta(seconds=1)
        async for event in trigger.run():
            return event.payload

    async def test_ends_the_trigger(self, monkeypatch):
        """Airflow resumes the task with it."""
        from airflow_provider_hokusai_dns.gates.shared_probes import CheckFailedError

        with pytest.raises(CheckFailedError):
            await self.first(monkeypatch, [RuntimeError("out of memory")])

    async def test_is_gone_over_with_silent_fail(self, monkeypatch):
        """As in poke mode."""
        errors = [RuntimeError("out of memory")] * 3
        event = await self.first(monkeypatch, errors, silent_fail=True)
        assert event["timed_out"]


class TestWhatIsLeftBehindOnAWorker:
    """It is known when the DAG is serialized, and not when the gate is made."""

    def serialized(self, change=None, sensor=MLflowHealthSensor, **given):
        with DAG("late", schedule=None) as dag:
            one = sensor(task_id="gate", deferrable=True, start_from_trigger=True, **given)
            if change is not None:
                change(one)
        task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("gate")
        kept = Trigger._decrypt_kwargs(
            Trigger.encrypt_kwargs(task.start_trigger_args.trigger_kwargs)
        )
        return {name: smart_decode_trigger_kwargs(value) for name, value in kept.items()}

    def test_nothing_usually(self):
        """So the gate ends in the triggerer."""
        assert self.serialized()["end_from_trigger"] is True

    def test_outlets_that_come_later(self):
        """Without a worker there would be no asset event."""
        from airflow.sdk import Asset

        later = self.serialized(lambda one: one.outlets.append(Asset("opened")))
        assert later["end_from_trigger"] is False

    def test_a_post_execute_that_is_overridden(self):
        """By a class, by an argument, or on the object."""

        class Gate(MLflowHealthSensor):
            def post_execute(self, context, result=None):
                """A callback of the author."""

        def hook(context, result=None):
            """A callback of the author."""

        assert self.serialized(sensor=Gate)["end_from_trigger"] is False
        assert self.serialized(post_execute=hook)["end_from_trigger"] is False
        later = self.serialized(lambda one: setattr(one, "post_execute", hook))
        assert later["end_from_trigger"] is False

    def test_an_execute_complete_that_is_overridden(self):
        """A subclass does more once its gate is open."""

        class Gate(MLflowHealthSensor):
            def execute_complete(self, context, event=None):
                return super().execute_complete(context, event)

        assert self.serialized(sensor=Gate)["end_from_trigger"] is False

    def test_other_arguments_that_come_later(self):
        """All of what the trigger is made of is read then."""
        later = self.serialized(lambda one: setattr(one, "poke_interval", 7.0))
        assert later["poke_interval"] == 7.0
