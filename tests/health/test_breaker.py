"""The circuit breaker, on a clock that is moved by hand."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from datetime import UTC, datetime

import pytest

from airflow_provider_hokusai_dns.exceptions import BreakerOpenError
from airflow_provider_hokusai_dns.health import breaker as breaker_module
from airflow_provider_hokusai_dns.health.breaker import BreakerState, CircuitBreaker, breaker_for
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.resolver.testing import ManualClock
from tests.values import a_server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker("http://mlflow.test", threshold=3, cooldown=10, clock=clock)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with breaker.attempt() as attempt:
            attempt.failure("nothing listens there")


def test_it_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    """And then refuses with the reason and the time that is left."""
    fail(breaker, 2)
    assert breaker.status().state is BreakerState.CLOSED
    fail(breaker)
    with (
        pytest.raises(BreakerOpenError, match="nothing listens there") as caught,
        breaker.attempt(),
    ):
        pytest.fail("no call is let through")
    assert caught.value.retry_in == pytest.approx(10)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_success_starts_the_count_anew(breaker: CircuitBreaker) -> None:
    """Only failures in a row mean that the server is down."""
    fail(breaker, 2)
    with breaker.attempt() as attempt:
        attempt.success()
    fail(breaker, 2)
    assert breaker.status().state is BreakerState.CLOSED


def test_what_says_nothing_about_mlflow_counts_for_nothing(breaker: CircuitBreaker) -> None:
    """The author's own exceptions, a 404, a 400: the attempt ends without a word."""
    fail(breaker, 2)
    for _ in range(10):
        with pytest.raises(KeyError), breaker.attempt():
            raise KeyError
    assert breaker.status().failures == 2
    fail(breaker)
    assert breaker.status().state is BreakerState.OPEN


def test_half_open_lets_exactly_one_try(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Every other caller is refused until the one has an answer."""
    fail(breaker, 3)
    clock.advance(10)
    assert breaker.status().state is BreakerState.HALF_OPEN
    entered, refused = [], []
    hold, started = threading.Event(), threading.Barrier(9)

    def caller() -> None:
        started.wait()
        try:
            with breaker.attempt() as attempt:
                entered.append(attempt)
                hold.wait(5)
                attempt.success()
        except BreakerOpenError:
            refused.append(1)

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    while len(refused) < 7 and any(thread.is_alive() for thread in threads):
        threads[0].join(0.01)
    hold.set()
    for thread in threads:
        thread.join(5)
    assert (len(entered), len(refused)) == (1, 7)
    assert breaker.status().state is BreakerState.CLOSED


def test_a_failed_try_waits_twice_as_long(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Up to the maximum, so that recovery is seen within a minute."""
    fail(breaker, 3)
    waits = []
    for _ in range(5):
        status = breaker.status()
        assert status.retry_at is not None
        wait = (status.retry_at - datetime.fromtimestamp(clock.time(), UTC)).total_seconds()
        waits.append(round(wait))
        clock.advance(wait)
        fail(breaker)
    assert waits == [10, 20, 40, 60, 60]


def test_a_prober_that_never_comes_back_holds_its_place_for_one_cooldown(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """Its thread may have been killed."""
    fail(breaker, 3)
    clock.advance(10)
    lost = breaker.attempt()
    lost.__enter__()
    with pytest.raises(BreakerOpenError), breaker.attempt():
        pytest.fail("the place is taken")
    clock.advance(10)
    with breaker.attempt() as attempt:
        attempt.success()
    lost.__exit__(None, None, None)
    assert breaker.status().state is BreakerState.CLOSED


def test_a_try_without_a_word_leaves_the_place_to_the_next(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """An author's exception in the one try tells nothing."""
    fail(breaker, 3)
    clock.advance(10)
    with pytest.raises(KeyError), breaker.attempt():
        raise KeyError
    with breaker.attempt() as attempt:
        attempt.success()


def test_a_late_failure_from_before_does_not_move_the_time(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """Calls that were under way when it opened do not keep it open."""
    early = breaker.attempt()
    attempt = early.__enter__()
    fail(breaker, 3)
    retry_at = breaker.status().retry_at
    clock.advance(5)
    attempt.failure("late")
    early.__exit__(None, None, None)
    assert breaker.status().retry_at == retry_at


def test_reset_closes_it(breaker: CircuitBreaker) -> None:
    """In code, for those who know that MLflow is back."""
    fail(breaker, 3)
    breaker.reset()
    breaker.check()
    assert breaker.status().failures == 0


def test_check_refuses_without_taking_the_one_try(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """For entrances that do not ask MLflow themselves."""
    fail(breaker, 3)
    with pytest.raises(BreakerOpenError):
        breaker.check()
    clock.advance(10)
    breaker.check()
    with breaker.attempt() as attempt:
        attempt.success()


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        (State.UNREACHABLE, 1),
        (State.BACKEND_DOWN, 1),
        (State.UNRESOLVED, 1),
        (State.HEALTHY, 0),
        (State.DEGRADED, 0),
        (State.UNAUTHENTICATED, 0),
        (State.CONFIG, 0),
    ],
)
def test_a_verdict_counts_when_it_says_that_mlflow_is_down(
    breaker: CircuitBreaker, state: State, counts: int
) -> None:
    """A refused login is an answer; a broken connection form is no question."""
    verdict = Verdict(
        state=state,
        cause="",
        sentence="",
        conn_id="c",
        tracking_uri="u",
        checked_at=datetime.now(UTC),
    )
    with breaker.attempt() as attempt:
        attempt.verdict(verdict)
    assert breaker.status().failures == counts


def test_times_of_the_status_are_wall_time(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """For pages and logs."""
    with breaker.attempt() as attempt:
        attempt.success()
    succeeded = datetime.fromtimestamp(clock.time(), UTC)
    clock.advance(7)
    fail(breaker, 3)
    failed = datetime.fromtimestamp(clock.time(), UTC)
    status = breaker.status()
    assert status.last_success is not None
    assert status.last_failure is not None
    assert status.opened_at is not None
    assert abs((status.last_success - succeeded).total_seconds()) < 0.01
    assert abs((status.last_failure - failed).total_seconds()) < 0.01
    assert abs((status.opened_at - failed).total_seconds()) < 0.01


@pytest.mark.parametrize("bad", [{"threshold": 0}, {"cooldown": 0}, {"cooldown": 100}])
def test_numbers_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    """Before anything depends on them."""
    with pytest.raises(ValueError, match=next(iter(bad))):
        CircuitBreaker(**bad)  # type: ignore[arg-type]


def test_there_is_one_per_server_in_a_process() -> None:
    """A changed connection is another server."""
    assert breaker_for(a_server()) is breaker_for(a_server())
    assert breaker_for(a_server()) is not breaker_for(a_server(port=1))


def test_an_edited_connection_leaves_a_bounded_number_of_breakers() -> None:
    """A process of the API server lives for months."""
    latest = [breaker_for(a_server(port=port)) for port in range(1, 1000)][-1]
    assert len(breaker_module._by_server) <= 256
    assert breaker_for(a_server(port=999)) is latest


def test_a_child_process_is_not_locked_out(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Another thread of the parent held the lock, and was the prober, at the fork."""
    fail(breaker, 3)
    clock.advance(10)
    prober = breaker.attempt()
    prober.__enter__()
    with breaker._lock:
        child = os.fork()
        if child == 0:
            try:
                with breaker.attempt() as attempt:
                    attempt.success()
                os._exit(0)
            finally:
                os._exit(1)
    prober.__exit__(None, None, None)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_each_change_is_told_once(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Opened, tried, opened again, tried, closed; and what changes nothing is not told."""
    told: list[str] = []
    breaker.on_change = told.append
    fail(breaker, 3)
    with pytest.raises(BreakerOpenError), breaker.attempt():
        pytest.fail("no call is let through")
    clock.advance(10)
    fail(breaker)
    clock.advance(20)
    for _ in range(3):
        with contextlib.suppress(LookupError), breaker.attempt():
            raise LookupError("of the author: it says nothing of MLflow")
    for _ in range(2):
        with breaker.attempt() as attempt:
            attempt.success()
    breaker.reset()
    fail(breaker, 3)
    breaker.reset()
    states = ["open", "half_open", "open", "half_open", "closed", "open", "closed"]
    assert told == states


def test_what_counts_the_changes_may_fail(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """The call gets its own outcome, and the next one its turn."""

    def broken(_: BreakerState) -> None:
        raise RuntimeError("no statsd here")

    breaker.on_change = broken
    fail(breaker, 3)
    clock.advance(10)
    with pytest.raises(LookupError), breaker.attempt():
        raise LookupError("of the author")
    with breaker.attempt() as attempt:
        attempt.success()
    assert breaker.status().state is BreakerState.CLOSED


def test_a_signal_handler_may_use_the_breaker_that_it_interrupts() -> None:
    """It runs in the thread that holds the lock; here, while the breaker is closed."""

    class Interrupted(CircuitBreaker):
        def _clear(self) -> None:
            super()._clear()
            if hasattr(self, "on_change"):
                self.check()

    thread = threading.Thread(target=Interrupted("m").reset, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
