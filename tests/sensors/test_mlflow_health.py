"""The gate: poke, reschedule and deferrable mode, as far as they need no database."""

from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow.models.trigger import Trigger
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.serialization.decoders import smart_decode_trigger_kwargs
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor
from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger
from tests.conftest import HOSTNAME, SEARCH


class TaskInstance:
    """As much of a task instance as the sensor uses."""

    def __init__(self, try_number: int = 1) -> None:
        self.try_number = try_number
        self.pushed: dict[str, object] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.pushed[key] = value

    def get_first_reschedule_date(self, context: object) -> None:
        return None


@pytest.fixture
def ti():
    return TaskInstance()


@pytest.fixture
def context(ti):
    return {"ti": ti}


def sensor(**given):
    return MLflowHealthSensor(**{"task_id": "gate", "poke_interval": 0.01, "timeout": 5, **given})


def run(gate_sensor, context):
    return gate_sensor.execute(context)


class TestPokeMode:
    """One process that looks until it likes what it sees."""

    def test_opens_and_gives_the_verdict_as_xcom(self, usable, context):
        """A dict with the reason, that downstream tasks can read."""
        seen = run(sensor(), context)
        assert (seen["level"], seen["version"]) == ("healthy", 1)
        assert HOSTNAME in seen["sentence"]

    def test_waits_until_the_server_is_back(self, usable, tiny, context, monkeypatch):
        """And looks again each interval."""
        tiny.answers[SEARCH] = (503, {})
        checks = []

        def check(*args, **kwargs):
            checks.append(1)
            if len(checks) == 3:
                tiny.answers.clear()
            return check_connection(*args, **kwargs)

        monkeypatch.setattr(
            "airflow_provider_hokusai_dns.sensors.mlflow_health.check_connection", check
        )
        assert run(sensor(), context)["level"] == "healthy"
        assert len(checks) == 3

    def test_writes_one_line_per_check(self, usable, tiny, context, capfd):
        """That a person understands."""
        run(sensor(), context)
        lines = [line for line in capfd.readouterr().out.splitlines() if "MLflow is" in line]
        assert len(lines) == 1
        assert f"MLflow is healthy: http://{HOSTNAME}:{tiny.port} answers at" in lines[0]

    def test_is_content_with_a_stale_address_if_the_author_is(self, usable, dns, context):
        """degraded is the default; healthy waits for DNS."""
        run(sensor(), context)
        dns.no_such_name(HOSTNAME)
        assert run(sensor(), context)["level"] == "degraded"
        with pytest.raises(AirflowSensorTimeout, match=r'The gate opens at min_health="healthy" '):
            run(sensor(min_health="healthy", timeout=0.02), context)

    def test_times_out_with_the_last_verdict_as_xcom(self, usable, tiny, context, ti):
        """A summary at the end of the DAG can say why."""
        tiny.answers[SEARCH] = (503, {})
        with pytest.raises(AirflowSensorTimeout):
            run(sensor(timeout=0.02), context)
        assert ti.pushed["return_value"]["state"] == "backend_down"

    def test_skips_on_timeout_when_soft_fail_is_set(self, usable, tiny, context):
        """As in Airflow's own sensors."""
        tiny.answers[SEARCH] = (503, {})
        with pytest.raises(AirflowSkipException):
            run(sensor(timeout=0.02, soft_fail=True), context)

    def test_says_what_is_wrong_with_the_connection_in_whole_sentences(self, connect, context):
        """Others stand before and after it."""
        connect(extra={"cache_tll": 5}, host=HOSTNAME)
        with pytest.raises(AirflowFailException) as caught:
            run(sensor(), context)
        said = "checks in a row. Connection 'mlflow_default', extra 'cache_tll': "
        assert said in str(caught.value)
        assert str(caught.value).endswith(".")

    def test_ends_after_three_times_a_wrong_password(self, usable, tiny, context, ti):
        """Waiting a week for a wrong password does not help."""
        tiny.answers[SEARCH] = (401, "no")
        with pytest.raises(AirflowFailException, match="unauthenticated in 3 checks in a row"):
            run(sensor(), context)
        assert tiny.count(SEARCH) == 3
        assert ti.pushed["return_value"]["state"] == "unauthenticated"

    def test_skips_on_a_wrong_password_when_soft_fail_is_set(self, usable, tiny, context):
        """The author said that this task may be left out."""
        tiny.answers[SEARCH] = (401, "no")
        with pytest.raises(AirflowSkipException):
            run(sensor(soft_fail=True), context)

    def test_waits_on_where_the_author_wants_to_wait(self, usable, tiny, context):
        """An empty list never gives up before the timeout."""
        tiny.answers[SEARCH] = (401, "no")
        with pytest.raises(AirflowSensorTimeout):
            run(sensor(fail_fast_on=(), timeout=0.8), context)
        assert tiny.count(SEARCH) > 3

    def test_waits_for_a_connection_that_is_not_there(self, context, ti, clean_runtime):
        """Airflow says the same of one that its API server or secrets backend did not give."""
        with pytest.raises(AirflowSensorTimeout):
            run(sensor(mlflow_conn_id="nowhere", timeout=0.2), context)
        assert "'nowhere'" in ti.pushed["return_value"]["sentence"]

    def test_ends_soon_on_a_connection_that_does_not_exist_on_request(self, context, clean_runtime):
        """The id is in the message, and what to do."""
        with pytest.raises(AirflowFailException, match="'nowhere'"):
            run(sensor(mlflow_conn_id="nowhere", fail_fast_on=["missing"]), context)

    def test_gives_a_check_no_longer_than_the_author_says(self, usable, dns, context, ti):
        """Also while DNS is silent."""
        dns.silent(HOSTNAME)
        began = time.monotonic()
        with pytest.raises(AirflowSensorTimeout):
            run(sensor(probe_timeout=0.6, timeout=0.01), context)
        assert time.monotonic() - began < 9
        assert ti.pushed["return_value"]["dns_cause"] == "timeout"

    def test_checks_an_artifact_only_on_request(self, usable, tiny, context):
        """It writes, so it is made only on request."""
        run(sensor(), context)
        assert all("artifacts" not in path for _, path, _ in tiny.asked)
        with pytest.raises(AirflowSensorTimeout):
            run(sensor(checks=("dns", "tracking", "artifact"), timeout=0.02), context)
        assert any("artifacts" in path for _, path, _ in tiny.asked)

    def test_asks_nobody_but_dns_when_that_is_all_that_is_checked(self, usable, tiny, context):
        """A gate for the name alone."""
        assert run(sensor(checks=("dns",)), context)["level"] == "healthy"
        assert not tiny.asked


class TestRescheduleMode:
    """Every poke is a process of its own, so nothing is remembered in the object."""

    def poke(self, context, **given):
        return run(sensor(mode="reschedule", **given), context)

    def test_asks_to_be_rescheduled(self, usable, tiny, context):
        """And frees its worker meanwhile."""
        tiny.answers[SEARCH] = (503, {})
        with pytest.raises(AirflowRescheduleException):
            self.poke(context)

    def test_counts_strikes_in_the_task_state_of_airflow(self, usable, tiny, ti):
        """XComs are cleared between two pokes; this survives (Airflow 3.3)."""
        tiny.answers[SEARCH] = (401, "no")
        kept: dict[str, object] = {}
        state = SimpleNamespace(get=kept.get, set=kept.__setitem__)
        context = {"ti": ti, "task_state_store": state}
        for _ in range(2):
            with pytest.raises(AirflowRescheduleException):
                self.poke(context)
        assert tiny.count(SEARCH) == 2
        with pytest.raises(AirflowFailException):
            self.poke(context)

    def test_begins_to_count_anew_with_a_new_try(self, usable, tiny):
        """A user cleared the task after correcting the password on the server."""
        tiny.answers[SEARCH] = (401, "no")
        kept: dict[str, object] = {}
        state = SimpleNamespace(get=kept.get, set=kept.__setitem__)
        for try_number in (1, 1, 2, 2):
            with pytest.raises(AirflowRescheduleException):
                self.poke({"ti": TaskInstance(try_number), "task_state_store": state})

    def test_begins_to_count_anew_after_another_state(self, usable, tiny, ti):
        """Three times running means without a break."""
        kept: dict[str, object] = {}
        context = {
            "ti": ti,
            "task_state_store": SimpleNamespace(get=kept.get, set=kept.__setitem__),
        }
        for code in (401, 401, 503, 401, 401):
            tiny.answers[SEARCH] = (code, {})
            with pytest.raises(AirflowRescheduleException):
                self.poke(context)

    def test_checks_three_times_in_one_poke_where_airflow_cannot_remember(
        self, usable, tiny, context
    ):
        """Before Airflow 3.3 nothing of a task survives a poke but its end."""
        tiny.answers[SEARCH] = (401, "no")
        with pytest.raises(AirflowFailException):
            self.poke(context)
        assert tiny.count(SEARCH) == 3


class TestDeferrableMode:
    """One check here, the rest in the triggerer."""

    def deferred(self, context, **given):
        with pytest.raises(TaskDeferred) as caught:
            run(sensor(deferrable=True, **given), context)
        return caught.value

    def test_opens_at_once_when_all_is_well(self, usable, context):
        """Nothing is deferred."""
        assert run(sensor(deferrable=True), context)["level"] == "healthy"

    def test_defers_with_what_it_has_seen(self, usable, tiny, context):
        """The trigger goes on counting where this check stopped, after the interval."""
        tiny.answers[SEARCH] = (401, "no")
        deferred = self.deferred(context, poke_interval=7, timeout=99)
        _, payload = deferred.trigger.serialize()
        assert payload["strikes"] == {"cause": "unauthenticated", "count": 1}
        assert (payload["delay"], payload["poke_interval"]) == (7, 7)
        assert payload["probe_timeout"] == 10
        assert deferred.timeout.total_seconds() == 99
        assert deferred.method_name == "execute_complete"

    def test_gives_the_trigger_all_it_needs(self, usable, tiny, context):
        """And ends there when it opens, with its XCom."""
        tiny.answers[SEARCH] = (503, {})
        given = {"min_health": "healthy", "checks": ("tracking",), "fail_fast_on": ()}
        _, payload = self.deferred(context, **given, probe_timeout=3).trigger.serialize()
        assert payload.pop("seen")["state"] == "backend_down"
        assert payload == {
            "version": 3,
            "mlflow_conn_id": "mlflow_default",
            "min_health": "healthy",
            "checks": ["tracking"],
            "fail_fast_on": [],
            "poke_interval": 0.01,
            "probe_timeout": 3,
            "delay": 0.01,
            "strikes": {"cause": "", "count": 0},
            "end_from_trigger": True,
            "do_xcom_push": True,
            "silent_fail": False,
        }

    @pytest.mark.parametrize(
        "given",
        [
            {"end_from_trigger": False},
            {"outlets": [Asset("model")]},
            {"post_execute": lambda context, result: None},
            {"on_success_callback": lambda context: None},
            {"on_success_callback": [lambda context: None]},
            {"multiple_outputs": True},
        ],
    )
    def test_ends_on_a_worker_where_airflow_needs_one(self, usable, tiny, context, given):
        """What a task leaves behind beside its XCom is made there alone."""
        tiny.answers[SEARCH] = (503, {})
        _, payload = self.deferred(context, **given).trigger.serialize()
        assert payload["end_from_trigger"] is False

    def test_has_no_timeout_of_zero(self, usable, tiny, context):
        """Airflow would take it for none, and the gate would wait for ever."""
        tiny.answers[SEARCH] = (503, {})
        assert self.deferred(context, timeout=0).timeout > timedelta(0)

    def test_goes_on_after_a_first_check_that_failed_if_the_author_says_so(
        self, context, monkeypatch
    ):
        """silent_fail; not on a worker, where a stock sensor would sleep until its next poke."""
        monkeypatch.setattr(CHECK, broken(RuntimeError("out of memory")))
        self.deferred(context, silent_fail=True)

    def event(self, usable, **changed):
        verdict = check_connection("mlflow_default").verdict
        return {"version": 1, "open": True, "verdict": verdict.as_dict(), **changed}

    def test_resumes_with_the_verdict_as_xcom(self, usable, context):
        """The same as in the other modes."""
        seen = sensor().execute_complete(context, self.event(usable))
        assert seen["level"] == "healthy"

    def test_fails_when_waiting_is_of_no_use(self, usable, tiny, context, ti):
        """With the verdict as XCom."""
        tiny.answers[SEARCH] = (401, "no")
        with pytest.raises(AirflowFailException, match="unauthenticated"):
            sensor().execute_complete(context, self.event(usable, open=False))
        assert ti.pushed["return_value"]["state"] == "unauthenticated"

    @pytest.mark.parametrize(
        "event",
        [
            None,
            {},
            "success",
            {"version": 2, "open": True},
            {"version": 1, "open": True},
            {"version": 1, "open": True, "verdict": {"version": 2}},
        ],
    )
    def test_refuses_an_event_of_another_version(self, context, event):
        """Triggerer and worker may run different packages during an upgrade."""
        with pytest.raises(AirflowException, match="same version"):
            sensor().execute_complete(context, event)


CHECK = "airflow_provider_hokusai_dns.sensors.mlflow_health.check_connection"


def broken(error):
    """A check that ends with an exception, which ours never should."""

    def check(*args, **kwargs):
        raise error

    return check


class TestStartingInTheTriggerer:
    """Without the first check on a worker, as Airflow 3.3 and newer do it."""

    def begins(self, **given):
        return sensor(deferrable=True, start_from_trigger=True, **given)

    def test_has_what_its_trigger_needs(self):
        """Beside the class, whose own arguments every other gate would share."""
        one = self.begins(mlflow_conn_id="ml_{{ ds_nodash }}", min_health="healthy", timeout=99)
        assert one.start_from_trigger is True
        args = one.start_trigger_args
        assert (args.next_method, args.timeout) == ("execute_complete", timedelta(seconds=99))
        path, payload = MLflowHealthTrigger(**args.trigger_kwargs).serialize()
        assert args.trigger_cls == path
        assert (payload["mlflow_conn_id"], payload["min_health"]) == (
            "ml_{{ ds_nodash }}",
            "healthy",
        )
        assert (payload["delay"], payload["end_from_trigger"]) == (0, True)
        assert MLflowHealthSensor.start_trigger_args is None

    def test_is_for_deferrable_gates_that_ask_for_it(self):
        """The others begin on a worker; one that is not deferrable never gets to a triggerer."""
        one = sensor(deferrable=True)
        assert (one.start_from_trigger, one.start_trigger_args) == (False, None)
        with pytest.raises(ValueError, match="start_from_trigger=True needs deferrable=True"):
            sensor(start_from_trigger=True)

    def test_is_not_for_a_connection_that_another_task_names(self):
        """A worker has to ask what it is."""
        with DAG("named_by_another", schedule=None):
            other = EmptyOperator(task_id="other")
            one = self.begins(mlflow_conn_id=other.output)
        assert one.start_from_trigger is False

    def test_is_not_for_mapped_gates(self):
        """Airflow knows only the arguments of the class there: each would wait for the default."""
        with DAG("mapped", schedule=None) as dag:
            MLflowHealthSensor.partial(
                task_id="gate", deferrable=True, start_from_trigger=True
            ).expand(mlflow_conn_id=["a", "b"])
        task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("gate")
        assert task.start_trigger_args is None

    def test_survives_the_serialized_dag(self):
        """The scheduler makes the trigger of what stands there, and of nothing else."""
        with DAG("begins_in_the_triggerer", schedule=None) as dag:
            self.begins(mlflow_conn_id="ml", timeout=99)
        task = DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("gate")
        args = task.start_trigger_args
        encrypted = Trigger.encrypt_kwargs(args.trigger_kwargs)
        given = {
            name: smart_decode_trigger_kwargs(value)
            for name, value in Trigger._decrypt_kwargs(encrypted).items()
        }
        _, payload = MLflowHealthTrigger(**given).serialize()
        assert payload["mlflow_conn_id"] == "ml"
        assert payload["checks"] == ["dns", "tracking", "registry"]
        assert args.timeout == timedelta(seconds=99)


class TestTheArguments:
    """What a DAG author writes."""

    def test_have_the_defaults_of_the_design(self):
        """A gate needs a task id and nothing else."""
        usual = MLflowHealthSensor(task_id="gate")
        assert (usual.poke_interval, usual.timeout, usual.min_health) == (30, 3600, "degraded")
        assert usual.checks == ("dns", "tracking", "registry")
        assert usual.mlflow_conn_id == "mlflow_default"
        assert usual.deferrable is False
        assert usual.probe_timeout == 10
        assert "missing" not in usual.fail_fast_on

    def test_are_refused_when_the_dag_is_parsed(self):
        """And not when it runs at night."""
        with pytest.raises(ValueError, match="artefact"):
            sensor(checks=("artefact",))
        with pytest.raises(ValueError, match="probe_timeout"):
            sensor(probe_timeout=0)
        with pytest.raises(
            ValueError, match=r"the id of a connection must be a string .*, not None"
        ):
            sensor(mlflow_conn_id=None)

    @pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e10])
    def test_a_probe_timeout_that_cannot_be_waited_is_refused(self, seconds):
        """Each check would end in an error of the system's timers."""
        with pytest.raises(ValueError, match="probe_timeout"):
            sensor(probe_timeout=seconds)

    def test_may_template_the_connection(self):
        """For DAGs that are made per team."""
        assert "mlflow_conn_id" in MLflowHealthSensor.template_fields
