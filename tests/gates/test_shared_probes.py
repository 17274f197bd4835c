"""Many gates in one triggerer: one check per interval, however many there are."""

from __future__ import annotations

import asyncio
import gc
import time
import traceback
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from airflow_provider_hokusai_dns.gates import shared_probes
from airflow_provider_hokusai_dns.gates.shared_probes import (
    CheckFailedError,
    ProbeKey,
    SharedProbe,
    shared_probe,
)
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.triggers.mlflow_health import MLflowHealthTrigger
from tests.conftest import HOSTNAME, SEARCH

KEY = ProbeKey.of("ml", ("dns", "tracking"), 10.0)
#: Long enough for a busy machine, and never reached on one that is not.
PATIENCE = 60


class Checks:
    """Checks that a test lets end; each verdict says which check it was."""

    def __init__(self) -> None:
        self.begun = 0
        self.held = False
        self.error: Exception | None = None
        self._released = asyncio.Event()

    def release(self) -> None:
        self._released.set()

    async def __call__(self, key: ProbeKey) -> Verdict:
        self.begun += 1
        number = self.begun
        if self.held:
            await self._released.wait()
        if self.error is not None:
            raise self.error
        return Verdict(
            state=State.HEALTHY,
            cause=str(number),
            sentence="",
            conn_id=key.conn_id,
            tracking_uri="",
            checked_at=datetime.now(UTC),
        )


@pytest.fixture
async def checks():
    return Checks()


@pytest.fixture
def probe(checks):
    return SharedProbe(KEY, checks)


@pytest.fixture
async def complaints():
    """What asyncio has to complain of, such as an exception that was never retrieved."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: said.append(told["message"]))
    yield said
    gc.collect()
    await asyncio.sleep(0)
    assert said == []


async def begun(probe, count, **given):
    """Gates that wait for their next seen_last."""
    gates = [asyncio.create_task(probe.next(given.get("every", 30))) for _ in range(count)]
    await asyncio.sleep(0.01)
    return gates


class TestAWatch:
    """The looks for one key."""

    async def test_gives_one_check_to_all_who_wait(self, probe, checks):
        """A gate that comes while it is under way joins it."""
        checks.held = True
        gates = await begun(probe, 500)
        checks.release()
        sights = await asyncio.gather(*gates)
        assert checks.begun == 1
        assert len(set(map(id, sights))) == 1

    async def test_takes_what_is_younger_than_the_gates_own_interval(self, probe, checks):
        """Another gate has seen it; a gate that is more impatient looks itself."""
        first = await probe.next(30)
        assert await probe.next(60) is first
        assert await probe.next(0.0) is not first
        assert checks.begun == 2

    async def test_never_gives_a_gate_the_same_check_twice(self, probe, checks):
        """Three strikes are three checks."""
        seen_last = await probe.next(0.05)
        for _ in range(3):
            before, seen_last = seen_last, await probe.next(0.05, after=seen_last)
            assert seen_last is not before
        assert checks.begun == 4

    async def test_waits_an_interval_less_a_little(self, probe):
        """Jitter only ever shortens it, and is drawn again for each check."""
        seen_last = await probe.next(1)
        again = await probe.next(1, after=seen_last)
        assert again.at - seen_last.at >= 0.9 * seen_last.share
        shares = {(await probe.next(0.0)).share for _ in range(50)}
        assert len(shares) > 10
        assert all(0.9 <= share <= 1.0 for share in shares)

    async def test_goes_on_when_the_one_who_began_it_is_cancelled(self, probe, checks, complaints):
        """And when nearly all are: those who stay get their seen_last."""
        checks.held = True
        gates = await begun(probe, 500)
        for gate in [*gates[:200], *gates[201:]]:
            gate.cancel()
        await asyncio.sleep(0)
        checks.release()
        assert (await gates[200]).verdict.cause == "1"
        assert checks.begun == 1
        assert all(gate.cancelled() for gate in gates if gate is not gates[200])

    async def test_serves_who_comes_after_all_have_left(self, probe, checks, complaints):
        """The verdict of a check without a waiter is kept."""
        checks.held = True
        for gate in await begun(probe, 10):
            gate.cancel()
        await asyncio.sleep(0)
        late = asyncio.create_task(probe.next(30))
        await asyncio.sleep(0)
        checks.release()
        assert (await late).verdict.cause == "1"
        assert checks.begun == 1

    async def test_survives_a_storm(self, probe, checks, complaints):
        """Gates come and go at any moment, and the next check is as good as the first."""
        for turn in range(100):
            gates = [asyncio.create_task(probe.next(0.0)) for _ in range(20)]
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            for gate in gates[turn % 3 :: 2]:
                gate.cancel()
            done = await asyncio.gather(*gates, return_exceptions=True)
            assert all(
                isinstance(one, (shared_probes.TimedVerdict, asyncio.CancelledError))
                for one in done
            )
        assert checks.begun <= 300

    async def test_tells_each_gate_that_a_check_failed(self, probe, checks, complaints):
        """By an exception of its own, which does not grow with the number of gates."""
        checks.error = OSError("no more threads")
        failed = await asyncio.gather(*await begun(probe, 200), return_exceptions=True)
        assert len({id(error) for error in failed}) == 200
        assert {(type(error), error.conn_id, error.kind) for error in failed} == {
            (CheckFailedError, "ml", "OSError")
        }
        lengths = {len(traceback.format_exception(error)) for error in failed}
        assert max(lengths) < 20
        checks.error = None
        assert (await probe.next(30)).verdict.state is State.HEALTHY

    async def test_wakes_its_gates_by_and_by(self, probe, checks):
        """The triggerer has others to serve than the thousand that heard the same."""
        checks.held = True
        gates = await begun(probe, 1000)
        turns: list[int] = []

        async def another() -> None:
            while sum(gate.done() for gate in gates) < 1000:
                turns.append(sum(gate.done() for gate in gates))
                await asyncio.sleep(0)

        checks.release()
        await asyncio.wait_for(another(), PATIENCE)
        steps = [late - early for early, late in pairwise(turns)]
        assert max(steps) <= 2 * shared_probes._AT_ONCE


class TestSharedProbes:
    """Those of one loop."""

    def test_takes_checks_in_any_order_for_one_question(self):
        """And the rest of a key apart."""
        assert ProbeKey.of("ml", ("tracking", "dns"), 10.0) == KEY
        others = {
            ProbeKey.of("other", ("dns", "tracking"), 10.0),
            ProbeKey.of("ml", ("dns",), 10.0),
            ProbeKey.of("ml", ("dns", "tracking"), 5.0),
        }
        assert KEY not in others
        assert len(others) == 3

    def test_keeps_no_more_than_agreed(self):
        """A connection id may be a template, and never come again."""

        async def ask() -> None:
            kept = shared_probe(KEY)
            for number in range(shared_probes._MOST_KEYS - 1):
                shared_probe(ProbeKey.of(f"c{number}", ("dns",), 1.0))
            assert shared_probe(KEY) is kept
            shared_probe(ProbeKey.of("one more", ("dns",), 1.0))
            assert shared_probe(KEY) is kept
            probes = shared_probes._by_loop[asyncio.get_running_loop()]
            assert len(probes) == shared_probes._MOST_KEYS

        asyncio.run(ask())

    def test_goes_with_its_loop(self):
        """Nothing is left of a loop that has ended, also in the middle of a check."""
        import weakref

        async def leave() -> weakref.ref[SharedProbe]:
            probe = shared_probe(KEY)
            assert shared_probe(KEY) is probe
            probe._check = lambda key: asyncio.sleep(3600)
            await begun(probe, 3)
            return weakref.ref(probe)

        left = asyncio.run(leave())
        gc.collect()
        assert left() is None


# --- gates on a real resolver, a real name server and something that answers as MLflow does


def gate(**given):
    usual = {"poke_interval": 0.5, "fail_fast_on": (), "end_from_trigger": True}
    return MLflowHealthTrigger(**{**usual, **given})


async def first(trigger):
    async for event in trigger.run():
        return event
    return None


def waiting(count, **given):
    return [asyncio.create_task(first(gate(**given))) for _ in range(count)]


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for happens in other threads)
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def checks_end(clean_runtime):
    """Checks that a test leaves under way end before the next one begins."""
    yield
    assert shared_probes._threads.wait_idle(30)


@pytest.fixture
def reads(monkeypatch):
    """The ids of the connections that were read, in their order."""
    from airflow.providers.common.compat.sdk import BaseHook

    seen: list[str] = []
    real = BaseHook.aget_connection

    async def counted(conn_id):
        seen.append(conn_id)
        return await real(conn_id)

    monkeypatch.setattr(BaseHook, "aget_connection", counted)
    return seen


async def test_hundreds_of_gates_cost_one_check_per_interval(usable, tiny, dns, reads, capfd):
    """One connection read, one lookup, one probe; and all open when MLflow is back."""
    tiny.answers[SEARCH] = (503, {})
    every, checks = 1.0, 5
    began = time.monotonic()
    gates = waiting(300, poke_interval=every)
    await until(lambda: tiny.count(SEARCH) >= checks)
    most = (time.monotonic() - began) / (0.9 * every) + 1
    assert checks <= tiny.count(SEARCH) <= most
    assert len(reads) <= most
    assert dns.count(HOSTNAME, "A") <= most
    tiny.answers.clear()
    opened = time.monotonic()
    events = await asyncio.wait_for(asyncio.gather(*gates), PATIENCE)
    assert time.monotonic() - opened < every + 20
    assert all(event.payload["open"] for event in events)
    assert len({event.payload["verdict"]["checked_at"] for event in events}) == 1
    lines = [line for line in capfd.readouterr().out.splitlines() if "MLflow is" in line]
    assert len(lines) == 2 * len(gates)  # what was wrong, and that it is over


async def test_gates_that_come_one_after_the_other_fall_into_step(usable, tiny):
    """As workers defer them: each at another moment, and with the same interval."""
    tiny.answers[SEARCH] = (503, {})
    began = time.monotonic()
    gates = []
    for _ in range(100):
        gates += waiting(1, poke_interval=1.0)
        await asyncio.sleep(0.01)
    await until(lambda: tiny.count(SEARCH) >= 4)
    assert tiny.count(SEARCH) <= (time.monotonic() - began) / 0.9 + 1
    tiny.answers.clear()
    await asyncio.wait_for(asyncio.gather(*gates), PATIENCE)


async def test_different_questions_stay_apart(usable, tiny, dns, connect):
    """Two connections to one server with different credentials, and other checks."""
    usual = {"host": HOSTNAME, "port": tiny.port, "extra": {"nameservers": dns.address}}
    connect("alice", login="alice", password="of-alice", **usual)
    connect("bob", login="bob", password="of-bob", **usual)
    tiny.answers[SEARCH] = (503, {})
    gates = [
        *waiting(20, mlflow_conn_id="alice"),
        *waiting(20, mlflow_conn_id="bob"),
        *waiting(20, mlflow_conn_id="bob", probe_timeout=7.0),
    ]
    named = waiting(20, mlflow_conn_id="bob", checks=("dns",))
    events = await asyncio.wait_for(asyncio.gather(*named), PATIENCE)
    assert {event.payload["verdict"]["level"] for event in events} == {"healthy"}
    await until(lambda: tiny.count(SEARCH) >= 6)
    sent = [headers["Authorization"] for _, path, headers in tiny.asked if path == SEARCH]
    assert len(set(sent)) == 2
    tiny.answers.clear()
    events = await asyncio.wait_for(asyncio.gather(*gates), PATIENCE)
    seen = [event.payload["verdict"]["conn_id"] for event in events]
    assert seen == ["alice"] * 20 + ["bob"] * 40


async def test_what_one_calls_good_enough_is_no_question(usable, tiny, dns):
    """min_health is judged by each gate, on the same seen_last."""
    await asyncio.wait_for(first(gate()), PATIENCE)
    dns.no_such_name(HOSTNAME)
    asked = tiny.count(SEARCH)
    await asyncio.sleep(0.5)
    strict = waiting(20, min_health="healthy", poke_interval=0.3)
    content = waiting(20, poke_interval=0.3)
    events = await asyncio.wait_for(asyncio.gather(*content), PATIENCE)
    assert {event.payload["verdict"]["level"] for event in events} == {"degraded"}
    assert tiny.count(SEARCH) == asked + 1
    dns.set_records(HOSTNAME, [tiny.address])
    events = await asyncio.wait_for(asyncio.gather(*strict), PATIENCE)
    assert {event.payload["verdict"]["level"] for event in events} == {"healthy"}


async def test_a_changed_connection_is_used_at_the_next_check(usable, tiny, connect, dns):
    """It was corrected in the UI; the triggerer is not restarted for that."""
    connect(host="127.0.0.1", port=1)
    gates = waiting(50)
    await asyncio.sleep(1.2)
    assert not any(one.done() for one in gates)
    connect(host=HOSTNAME, port=tiny.port, extra={"nameservers": dns.address})
    changed = time.monotonic()
    events = await asyncio.wait_for(asyncio.gather(*gates), PATIENCE)
    assert time.monotonic() - changed < 0.5 + 20
    assert {event.payload["verdict"]["address"] for event in events} == {tiny.address}


async def test_a_deleted_connection_is_a_cause_and_its_return_is_noticed(
    usable, tiny, monkeypatch, capfd
):
    """Gates wait on, because Airflow says the same of one that it cannot reach."""
    tiny.answers[SEARCH] = (503, {})
    gates, impatient = waiting(50), waiting(50, fail_fast_on=("missing",))
    await until(lambda: tiny.count(SEARCH) >= 1)
    monkeypatch.delenv("AIRFLOW_CONN_MLFLOW_DEFAULT")
    events = await asyncio.wait_for(asyncio.gather(*impatient), PATIENCE)
    assert {event.payload["verdict"]["cause"] for event in events} == {"missing"}
    assert not any(one.done() for one in gates)
    tiny.answers.clear()
    usable()
    events = await asyncio.wait_for(asyncio.gather(*gates), PATIENCE)
    assert all(event.payload["open"] for event in events)


async def test_a_connection_that_airflow_does_not_give_out_holds_nobody(usable, monkeypatch):
    """All gates wait with the one check: it counts as missing, and the next check asks again."""
    from airflow.providers.common.compat.sdk import BaseHook

    real, given_out = BaseHook.aget_connection, asyncio.Event()

    async def late(conn_id):
        await given_out.wait()
        return await real(conn_id)

    monkeypatch.setattr(BaseHook, "aget_connection", late)
    monkeypatch.setattr(shared_probes, "_READ_PATIENCE", 0.2)
    gates, impatient = waiting(20), waiting(20, fail_fast_on=("missing",), poke_interval=0.1)
    events = await asyncio.wait_for(asyncio.gather(*impatient), PATIENCE)
    assert {event.payload["verdict"]["cause"] for event in events} == {"missing"}
    given_out.set()
    monkeypatch.setattr(shared_probes, "_READ_PATIENCE", 60)
    events = await asyncio.wait_for(asyncio.gather(*gates), PATIENCE)
    assert all(event.payload["open"] for event in events)
    assert not shared_probes._overdue


async def test_gates_that_are_cancelled_in_a_check_harm_no_other(usable, tiny, dns, monkeypatch):
    """A user clears a DAG while DNS is silent; the rest still gets what that check finds."""
    monkeypatch.setenv("DNS_TIMEOUT", "1")
    dns.silent(HOSTNAME)
    gates = waiting(300)
    await until(lambda: dns.count(HOSTNAME, "A") >= 1)
    for one in gates[:299]:  # among them the one that began it
        one.cancel()
    await asyncio.sleep(0)
    dns.set_records(HOSTNAME, [tiny.address])
    event = await asyncio.wait_for(gates[299], PATIENCE)
    assert event.payload["verdict"]["level"] == "healthy"
    done = await asyncio.gather(*gates[:299], return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in done)


async def test_the_event_loop_is_never_blocked(usable, tiny, dns, monkeypatch):
    """The triggerer reports 0.2 s. Here DNS is silent for three, then MLflow refuses hundreds."""
    monkeypatch.setenv("DNS_TIMEOUT", "3")
    dns.silent(HOSTNAME)
    longest, ticks = 0.0, 0

    async def heartbeat() -> None:
        nonlocal longest, ticks
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)
            ticks += 1

    beating = asyncio.create_task(heartbeat())
    gates = waiting(300)
    await asyncio.sleep(4)
    tiny.answers[SEARCH] = (503, {})
    dns.set_records(HOSTNAME, [tiny.address])
    await until(lambda: tiny.count(SEARCH) >= 2)
    tiny.answers.clear()
    await asyncio.wait_for(asyncio.gather(*gates), PATIENCE)
    beating.cancel()
    assert longest < 1.0  # a busy machine pauses a process, but not for that long
    assert ticks > 50
