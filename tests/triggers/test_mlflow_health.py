"""The trigger: it checks without blocking the loop, and says what it saw."""

from __future__ import annotations

import asyncio
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_hokusai_dns.gates import shared_probes
from airflow_provider_hokusai_dns.gates.decision import GatePayload
from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger
from tests.conftest import HOSTNAME, SEARCH


@pytest.fixture(autouse=True)
def checks(clean_runtime):
    """Checks that a test leaves under way end before the next one begins."""
    yield
    assert shared_probes._threads.wait_idle(30)


async def first_event(trigger: MLflowHealthTrigger):
    async for event in trigger.run():
        return event.payload


def trigger(**given):
    return MLflowHealthTrigger(**{"poke_interval": 0.01, **given})


def test_it_can_be_made_again_from_what_it_serializes():
    """It moves to another triggerer, and over a restart, through the database as JSON."""
    one = trigger(
        checks=("dns",),
        strikes={"cause": "forbidden", "count": 2},
        delay=3,
        end_from_trigger=True,
        do_xcom_push=False,
        silent_fail=True,
    )
    path, payload = one.serialize()
    module, _, name = path.rpartition(".")
    assert (module, name) == (MLflowHealthTrigger.__module__, "MLflowHealthTrigger")
    again = MLflowHealthTrigger(**json.loads(json.dumps(payload)))
    assert again.serialize() == one.serialize()
    assert payload.keys() == GatePayload.__annotations__.keys()
    assert payload["version"] == 3


VERSION_1 = {
    "version": 1,
    "mlflow_conn_id": "ml",
    "min_health": "healthy",
    "checks": ["dns"],
    "fail_fast_on": [],
    "poke_interval": 30.0,
    "probe_timeout": 10.0,
    "delay": 3.0,
    "strikes": {"cause": "", "count": 0},
}


@pytest.mark.parametrize("without", [(), ("version",), ("version", "probe_timeout")])
def test_it_reads_what_an_older_version_has_deferred(without):
    """A gate that waits during an upgrade goes on waiting, and ends as that version meant it to."""
    old = {key: value for key, value in VERSION_1.items() if key not in without}
    _, payload = MLflowHealthTrigger(**old).serialize()
    added = {"end_from_trigger": False, "do_xcom_push": True, "silent_fail": False, "seen": None}
    assert payload == {**VERSION_1, "version": 3, **added}


NEWER = {**VERSION_1, "version": 4, "patience": "of a newer version"}
WRONG = {**VERSION_1, "min_health": "good"}
UNKNOWN = {**VERSION_1, "min_helth": "healthy"}


@pytest.mark.parametrize(
    ("payload", "told"),
    [(NEWER, "same version"), (WRONG, "'good'"), (UNKNOWN, "'min_helth'")],
)
async def test_a_payload_it_cannot_use_fails_one_gate_and_not_the_triggerer(payload, told):
    """Airflow's own runner survives a TypeError, and by any other error all triggers end."""
    from airflow.executors.workloads import RunTrigger
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger

    path, _ = trigger().serialize()
    runner = TriggerRunner()
    encrypted = Trigger.encrypt_kwargs(payload)
    runner.to_create.append(RunTrigger(id=7, classpath=path, encrypted_kwargs=encrypted))
    await runner.create_triggers()
    ((number, error),) = runner.failed_triggers
    assert number == 7
    assert told in str(error)
    assert not runner.triggers


@pytest.mark.parametrize("name", ["poke_interval", "probe_timeout", "delay"])
@pytest.mark.parametrize("seconds", [True, math.nan, math.inf, -1, "30"])
def test_seconds_that_cannot_be_waited_are_refused(name, seconds):
    """A trigger of an operator of one's own has them from its author, unchecked by a sensor."""
    with pytest.raises(TypeError, match=f"{name} must be a number of seconds .* not {seconds!r}"):
        trigger(**{name: seconds})


async def test_a_gate_that_stays_shut_goes_to_a_worker(usable, tiny):
    """Only there Airflow honours soft_fail and never_fail, and ends a task without a retry."""
    tiny.answers[SEARCH] = (401, "no")
    (event,) = [event async for event in trigger(end_from_trigger=True).run()]
    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["open"] is False
    assert "timed_out" not in event.payload


@pytest.mark.parametrize("zone", [UTC, None])
async def test_it_says_what_it_saw_last_when_the_time_is_up(usable, tiny, zone):
    """Airflow itself would end the wait without a word about MLflow."""
    tiny.answers[SEARCH] = (503, {})
    waiting = trigger(poke_interval=0.05)
    waiting.timeout_after = (datetime.now(UTC) + timedelta(seconds=1)).replace(tzinfo=zone)
    event = await asyncio.wait_for(first_event(waiting), 30)
    assert (event["open"], event["timed_out"]) == (False, True)
    assert event["verdict"]["state"] == "backend_down"


async def test_it_writes_a_line_when_something_changes_and_not_for_each_check(usable, tiny, capfd):
    """A thousand gates that wait for a night must not fill the disk."""
    tiny.answers[SEARCH] = (503, {})
    waiting = asyncio.create_task(first_event(trigger(fail_fast_on=())))
    await asyncio.sleep(0.5)
    tiny.answers[SEARCH] = (401, {})
    await asyncio.sleep(0.5)
    assert tiny.count(SEARCH) >= 4
    tiny.answers.clear()
    await asyncio.wait_for(waiting, 30)
    lines = [line for line in capfd.readouterr().out.splitlines() if "MLflow is" in line]
    assert [line.partition("MLflow is ")[2].split(":")[0] for line in lines] == [
        "unhealthy (backend down)",
        "unhealthy (unauthenticated)",
        "healthy",
    ]


async def test_it_fires_when_the_server_is_healthy(usable):
    """With the verdict."""
    event = await first_event(trigger())
    assert (event["version"], event["open"]) == (1, True)
    assert event["verdict"]["level"] == "healthy"
    json.dumps(event)


async def test_it_waits_for_as_long_as_the_server_is_down(usable, tiny):
    """And checks once per interval, not in a loop without a pause."""
    tiny.answers[SEARCH] = (503, {})
    waiting = asyncio.create_task(first_event(trigger(poke_interval=0.05)))
    await asyncio.sleep(0.4)
    assert not waiting.done()
    assert 2 <= tiny.count(SEARCH) <= 8
    tiny.answers.clear()
    assert (await asyncio.wait_for(waiting, 5))["open"] is True


async def test_it_gives_up_on_a_cause_that_waiting_cannot_cure(usable, tiny):
    """And counts what the worker has seen before."""
    tiny.answers[SEARCH] = (401, "no")
    event = await first_event(trigger(strikes={"cause": "unauthenticated", "count": 1}))
    assert (event["open"], event["verdict"]["state"]) == (False, "unauthenticated")
    assert tiny.count(SEARCH) == 2


async def test_it_leaves_the_threads_of_the_loop_to_others(usable, dns, monkeypatch):
    """Another trigger's lookups run on those, and would wait for as long as DNS is silent."""
    monkeypatch.setenv("DNS_TIMEOUT", "5")
    dns.silent(HOSTNAME)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    waiting = [asyncio.create_task(first_event(trigger())) for _ in range(4)]
    await asyncio.sleep(0.1)
    before = time.monotonic()
    await loop.getaddrinfo("127.0.0.1", 80)
    took = time.monotonic() - before
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert took < 3  # behind ours it would be five
