"""The trigger: it looks without blocking the loop, and says what it saw."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_hokusai_dns import gate
from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger
from tests.conftest import HOSTNAME, SEARCH


@pytest.fixture(autouse=True)
def looks(clean_runtime):
    """Looks that a test leaves under way end before the next one begins."""
    yield
    gate._threads().shutdown()
    gate._threads.cache_clear()


async def first_event(trigger: MLflowHealthTrigger):
    async for event in trigger.run():
        return event.payload


def trigger(**given):
    return MLflowHealthTrigger(**{"poke_interval": 0.01, **given})


def test_it_can_be_made_again_from_what_it_serializes():
    """It moves to another triggerer through the database, as JSON."""
    one = trigger(checks=("dns",), strikes={"cause": "forbidden", "count": 2}, delay=3)
    path, payload = one.serialize()
    module, _, name = path.rpartition(".")
    assert (module, name) == (MLflowHealthTrigger.__module__, "MLflowHealthTrigger")
    again = MLflowHealthTrigger(**json.loads(json.dumps(payload)))
    assert again.serialize() == one.serialize()
    assert payload["version"] == 1


def test_it_reads_what_was_deferred_before_there_was_a_version():
    """A gate that waits during an upgrade goes on waiting; one from a newer package says so."""
    assert MLflowHealthTrigger(mlflow_conn_id="ml", delay=3).delay == 3
    with pytest.raises(ValueError, match="same version"):
        MLflowHealthTrigger(version=2)


async def test_it_fires_when_the_server_is_healthy(usable):
    """With the verdict."""
    event = await first_event(trigger())
    assert (event["version"], event["open"]) == (1, True)
    assert event["verdict"]["level"] == "healthy"
    json.dumps(event)


async def test_it_waits_for_as_long_as_the_server_is_down(usable, tiny):
    """And looks once per interval, not in a loop without a pause."""
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


async def test_it_never_blocks_the_event_loop(usable, dns, monkeypatch):
    """0.2 s are reported by the triggerer, 30 s kill it: here DNS is silent for a second."""
    monkeypatch.setenv("DNS_TIMEOUT", "1")
    dns.silent(HOSTNAME)
    waiting = asyncio.create_task(first_event(trigger()))
    longest, ticks = 0.0, 0
    end = time.monotonic() + 1
    while time.monotonic() < end:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before - 0.01)
        ticks += 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert longest < 0.2
    assert ticks > 20


async def test_it_leaves_the_threads_of_the_loop_to_others(usable, dns, monkeypatch):
    """Another trigger's lookups run on those, and would wait for as long as DNS is silent."""
    monkeypatch.setenv("DNS_TIMEOUT", "1")
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
    assert took < 0.5


def test_wrong_arguments_are_refused():
    """Also where somebody makes a trigger without our sensor."""
    with pytest.raises(ValueError, match="min_health"):
        trigger(min_health="good")
