"""One lookup per name over threads, tasks and event loops, and what may happen to who waits."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import Cause, DNSResolver, ResolverConfig, Source
from airflow_provider_hokusai_dns.resolver.single_flight import SingleFlight
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup
from airflow_provider_hokusai_dns.resolver.updater import Updater
from airflow_provider_hokusai_dns.resolver.workers import Workers

NAME = "mlflow.example.local"
OTHER = "other.example.local"


@pytest.fixture
def lookup():
    scripted = ScriptedLookup({NAME: "10.0.0.1", OTHER: "10.0.0.2"})
    yield scripted
    scripted.release()


@pytest.fixture
def resolver(lookup):
    made = DNSResolver(lookup=lookup)
    yield made
    lookup.release()
    assert made.wait_idle()


def outcome(call) -> str:
    try:
        return call().address
    except DNSResolutionError as error:
        return error.cause.value


async def aoutcome(resolver: DNSResolver, name: str = NAME) -> str:
    try:
        return (await resolver.aresolve(name)).address
    except DNSResolutionError as error:
        return error.cause.value


@pytest.mark.parametrize("result", ["10.0.0.1", Cause.SERVFAIL, RuntimeError("odd")])
def test_a_thousand_callers_over_threads_tasks_and_four_loops_make_one_lookup(
    lookup, resolver, result
):
    """100 threads and 4 loops of 225 tasks each, for success and for every kind of failure."""
    lookup.set(NAME, result)
    lookup.hold(NAME)
    outcomes: Counter[str] = Counter()
    ready = threading.Barrier(105)

    def thread() -> None:
        ready.wait(30)
        found = outcome(lambda: resolver.resolve(NAME))
        with lock:
            outcomes[found] += 1

    def loop() -> None:
        async def main() -> list[str]:
            return await asyncio.gather(*(aoutcome(resolver) for _ in range(225)))

        ready.wait(30)
        found = asyncio.run(main())
        with lock:
            outcomes.update(found)

    lock = threading.Lock()
    threads = [threading.Thread(target=thread) for _ in range(100)]
    threads += [threading.Thread(target=loop) for _ in range(4)]
    for each in threads:
        each.start()
    ready.wait(30)
    lookup.wait_for_calls(NAME)
    time.sleep(0.3)
    lookup.release(NAME)
    for each in threads:
        each.join(30)
    expected = {"10.0.0.1": "10.0.0.1", Cause.SERVFAIL: "servfail"}.get(result, "malformed")
    assert outcomes == {expected: 1000}
    assert lookup.calls(NAME) == 1
    assert resolver.metrics().attempts == 1000
    assert resolver.metrics().lookups == 1


async def test_a_waiter_that_is_cancelled_harms_nobody(lookup, resolver):
    """Neither the others nor the lookup, however many go."""
    lookup.hold(NAME)
    tasks = [asyncio.create_task(resolver.aresolve(NAME)) for _ in range(50)]
    await asyncio.to_thread(lookup.wait_for_calls, NAME)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.sleep(0.05)
    lookup.release()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results[::2])
    assert {r.address for r in results[1::2]} == {"10.0.0.1"}
    assert lookup.calls(NAME) == 1


async def test_all_waiters_may_go_and_the_answer_is_kept_all_the_same(lookup, resolver):
    """A time-out around the call: the next caller finds what the lookup brought."""
    lookup.hold(NAME)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await resolver.aresolve(NAME)
    lookup.release()
    assert await asyncio.to_thread(resolver.wait_idle)
    assert (await resolver.aresolve(NAME)).source is Source.CACHE


def test_a_loop_that_is_closed_while_it_waits_harms_nobody(lookup, resolver, caplog):
    """Cancelled properly, or closed with its tasks pending: other loops and threads get theirs."""
    lookup.hold(NAME)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(resolver.aresolve(NAME), 0.05)

    asyncio.run(give_up())
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(resolver.aresolve(NAME))
    loop.run_until_complete(asyncio.sleep(0.05))
    abandoned._log_destroy_pending = False  # it is destroyed pending, that is the point
    loop.close()
    with ThreadPoolExecutor(2) as pool:
        thread = pool.submit(resolver.resolve, NAME)
        other = pool.submit(lambda: asyncio.run(aoutcome(resolver)))
        time.sleep(0.05)
        lookup.release()
        assert thread.result(10).address == other.result(10) == "10.0.0.1"
    assert resolver.wait_idle()
    assert resolver.resolve(NAME).source is Source.CACHE
    coroutine = abandoned.get_coro()
    del abandoned
    coroutine.close()
    gc.collect()


def test_a_hanging_lookup_holds_neither_callers_past_their_bound_nor_other_names(lookup):
    """Sixty names hang for good; their callers go on time, and another name is resolved at once."""
    resolver = DNSResolver(ResolverConfig(timeout=1), lookup=lookup)
    names = [f"hang{n}.local" for n in range(60)]
    for name in names:
        lookup.hold(name, past_timeout=True)
    with ThreadPoolExecutor(60) as pool:
        started = time.monotonic()
        calls = [pool.submit(outcome, lambda name=name: resolver.resolve(name)) for name in names]
        lookup.wait_for_calls(names[-1])
        begun = time.monotonic()
        assert resolver.resolve(OTHER).address == "10.0.0.2"
        assert time.monotonic() - begun < 0.9
        assert {call.result(10) for call in calls} == {"timeout"}
        assert time.monotonic() - started < 15
    lookup.release()
    assert resolver.wait_idle()


async def test_tasks_are_held_no_longer_than_threads(lookup):
    """The same bound for coroutines."""
    resolver = DNSResolver(ResolverConfig(timeout=0.1), lookup=lookup)
    lookup.hold(NAME, past_timeout=True)
    started = time.monotonic()
    assert await asyncio.gather(*(aoutcome(resolver) for _ in range(20))) == ["timeout"] * 20
    assert time.monotonic() - started < 10
    lookup.release()
    assert resolver.wait_idle()


def test_only_its_own_work_removes_a_flight_and_always():
    """Also when the work raises; and who comes afterwards starts another one."""
    workers = Workers("test")
    flights = SingleFlight(workers)
    flight = flights.join("key", 0.0, lambda flight: 1 / 0)
    assert flight.final.wait(5)
    assert flight.early.is_set()
    assert workers.wait_idle()
    assert not flights.busy("key")
    again = flights.join("key", 1.0, lambda flight: lambda: None)
    assert again is not flight
    assert workers.wait_idle()


def test_what_is_left_to_do_after_landing_holds_up_nobody():
    """The flight is over for callers while its afterwards still runs."""
    workers, go_on = Workers("test"), threading.Event()
    flights = SingleFlight(workers)
    flight = flights.join("key", 0.0, lambda flight: lambda: go_on.wait(10))
    assert flight.final.wait(5)
    assert not flights.busy("key")
    assert not workers.wait_idle(0.05)
    go_on.set()
    assert workers.wait_idle()


# --- fork


def in_child(work) -> str:
    """What ``work`` returns in a forked child, as text; "hangs" if it does not end in 20 s."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - another process
        try:
            os.write(write, str(work()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    deadline = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(read)
            return "hangs"
        time.sleep(0.01)
    text = os.read(read, 10_000).decode()
    os.close(read)
    return text


def test_after_fork_the_child_keeps_the_cache_and_looks_up_for_itself(lookup, resolver):
    """What was known is known; new names start threads of the child's own."""
    resolver.resolve(NAME)

    def work():
        return [resolver.resolve(name).source.value for name in (NAME, OTHER, OTHER)]

    assert in_child(work) == "['cache', 'dns', 'cache']"
    assert resolver.resolve(OTHER).source is Source.DNS


def test_after_fork_with_a_lookup_in_flight_the_child_starts_its_own(lookup, resolver):
    """The parent's thread did not come along: no caller waits for it. The parent's goes on."""
    lookup.hold(NAME)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(resolver.resolve, NAME)
        lookup.wait_for_calls(NAME)

        def work():
            lookup.release()
            begun = time.monotonic()
            found = resolver.resolve(NAME)
            return f"{found.source.value} {time.monotonic() - begun < 2}"

        assert in_child(work) == "dns True"
        lookup.release()
        assert waiting.result(10).source is Source.DNS
    assert lookup.calls(NAME) == 1


def test_after_fork_locks_that_were_held_are_free(lookup, resolver):
    """Also those of the slots, the workers and the observers; waiting for idle ends as well."""
    resolver.resolve(NAME)
    slot = resolver._state.find(NAME)
    held = [
        resolver._state._lock,
        resolver._updater.flights._lock,
        resolver._workers._changed,
        resolver._state.observers._lock,
        resolver._state.record(slot).turn,
    ]
    taken, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in held:
            lock.acquire()
        taken.set()
        go_on.wait(30)
        for lock in held:
            lock.release()

    resolver.add_observer(lambda event: None)
    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)

    def work():
        resolver.refresh(NAME)
        resolver.report_failure(NAME, "10.0.0.1")
        resolver.metrics()
        return resolver.wait_idle(5)

    try:
        assert in_child(work) == "True"
    finally:
        go_on.set()
        holder.join(10)


def run_script(text: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("just_begun", ["dns.name", "dns.message", "dns.rdtypes.IN.A"])
def test_a_fork_while_dnspython_is_being_imported_leaves_a_child_that_resolves(just_begun):
    """The first lookup imports it, which takes a fifth of a second; a fork may come just then."""
    done = run_script(
        f"""
        import os, threading, time
        from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
        from airflow_provider_hokusai_dns.resolver.testing.server import DNSServer

        import sys
        with DNSServer() as server:
            for name in [name for name in sys.modules if name == "dns" or name.startswith("dns.")]:
                del sys.modules[name]
            config = ResolverConfig(nameservers=(server.address,), timeout=2)
            resolver = DNSResolver(config)
            server.set_records("a.test", ["10.0.0.1"])
            resolver.warm(["a.test"])
            while "{just_begun}" not in sys.modules:
                time.sleep(0.0002)
            if os.fork() == 0:
                print(resolver.resolve("a.test").address, flush=True)
                os._exit(0)
            os.wait()
            resolver.wait_idle()
        """
    )
    assert (done.stdout, done.returncode) == ("10.0.0.1\n", 0), done.stderr


# --- the end of the interpreter


def test_the_interpreter_ends_though_a_lookup_hangs():
    """The end of the process waits for no lookup that has no caller."""
    started = time.monotonic()
    done = run_script(
        f"""
        from airflow_provider_hokusai_dns.resolver import DNSResolver
        from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup
        lookup = ScriptedLookup()
        lookup.hold("{NAME}", past_timeout=True)
        DNSResolver(lookup=lookup).warm(["{NAME}"])
        lookup.wait_for_calls("{NAME}")
        print("bye")
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("bye\n", "", 0)
    assert time.monotonic() - started < 10


def test_names_are_resolved_while_the_interpreter_ends():
    """An exit handler that flushes its log needs an address, with or without new threads."""
    done = run_script(
        f"""
        import atexit
        from airflow_provider_hokusai_dns.resolver import DNSResolver
        from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup
        resolver = DNSResolver(lookup=ScriptedLookup({{"{NAME}": "10.0.0.1"}}))
        atexit.register(lambda: print(resolver.resolve("{NAME}").address))
        """
    )
    assert (done.stdout, done.stderr) == ("10.0.0.1\n", "")


# --- workers


def test_without_new_threads_the_work_is_done_on_the_callers(monkeypatch, lookup):
    """As when the interpreter ends, or the system allows no more."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    resolver = DNSResolver(lookup=lookup)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert resolver.resolve(NAME).source is Source.DNS
    assert resolver.wait_idle(1)


def test_workers_do_every_job_with_no_more_threads_than_allowed():
    """What comes beyond waits for its turn; idle threads are used again, and end."""
    workers = Workers("few", limit=3, linger=0.05)
    running, most, done = 0, 0, []
    lock = threading.Lock()

    def job(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
            done.append(number)

    for number in range(100):
        workers.run(lambda number=number: job(number))
    assert workers.wait_idle()
    assert sorted(done) == list(range(100))
    assert most <= 3
    deadline = time.monotonic() + 5
    while any(t.name == "few" for t in threading.enumerate()):
        assert time.monotonic() < deadline, "idle threads do not end"
        time.sleep(0.01)
    assert workers.call(lambda: 7).result(5) == 7


def test_a_job_that_raises_is_logged_and_costs_no_thread(caplog):
    """And its error comes out of the future where there is one."""
    workers = Workers("raising", limit=1)
    workers.run(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        workers.call(lambda: 1 / 0).result(5)
    assert workers.call(lambda: "alive").result(5) == "alive"
    assert workers.wait_idle()
    assert "A background job of the resolver failed" in caplog.text


def test_a_lookup_that_landed_between_a_decision_and_its_flight_is_not_made_again(
    lookup, monkeypatch
):
    """A caller who saw nothing, and comes too late to join, finds the answer instead."""
    resolver = DNSResolver(lookup=lookup)
    start_or_join, late = Updater.start_or_join, []

    def start_late(updater, slot, **given):
        if not late:  # another caller is faster than we are
            late.append(1)
            resolver.resolve(NAME)
            assert resolver.wait_idle()
        return start_or_join(updater, slot, **given)

    monkeypatch.setattr(Updater, "start_or_join", start_late)
    assert resolver.resolve(NAME).address == "10.0.0.1"
    assert lookup.calls(NAME) == 1


def test_a_failure_that_is_known_starts_no_lookup_when_the_one_under_way_has_just_ended(
    lookup, monkeypatch
):
    """Who finds it under way, and comes too late to join, is answered with its failure."""
    lookup.set(NAME, Cause.SERVFAIL)
    resolver = DNSResolver(lookup=lookup)
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)
    assert resolver.wait_idle()
    answers = [True, False]
    monkeypatch.setattr(SingleFlight, "busy", lambda flights, slot: answers.pop(0))
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)
    assert not answers
    assert lookup.calls(NAME) == 1


def test_a_lookup_whose_caller_vanished_before_he_drove_it_is_taken_over():
    """He was interrupted between the two; the next caller has it driven by a thread."""
    workers = Workers("test")
    flights = SingleFlight(workers)
    flight = flights.join(
        "key", 0.0, lambda flight: lambda: None, lead=lambda flight, seconds: None
    )
    with ThreadPoolExecutor(1) as others:
        soon = others.submit(flights.join, "key", 0.5, lambda flight: lambda: None)
        assert soon.result(10) is flight
        assert not flight.final.is_set()
        later = others.submit(flights.join, "key", 2.0, lambda flight: lambda: None)
        assert later.result(10) is flight
    assert flight.final.wait(10)
    assert workers.wait_idle()
    assert not flights.busy("key")
