"""Which handlers of SIGTERM are called, and how often, beside those of other code."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from airflow_provider_hokusai_dns.client import sigterm

called: list[str] = []


@pytest.fixture(autouse=True)
def _airflow() -> Iterator[None]:
    """A handler that was there before, as Airflow's is in a task."""
    called.clear()
    before = signal.signal(signal.SIGTERM, lambda *_: called.append("airflow"))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("chains", [False, True])
def test_a_run_is_ended_also_after_other_code_has_set_a_handler_during_an_earlier_one(
    chains: bool,
) -> None:
    """Each handler is called once, also where that code calls the one that it has replaced."""

    def theirs(number: int, frame: FrameType | None) -> None:
        called.append("theirs")
        if chains:
            assert callable(earlier)
            earlier(number, frame)

    with sigterm.on_sigterm(lambda _: called.append("earlier run")):
        earlier = signal.signal(signal.SIGTERM, theirs)
    for _ in range(2):
        called.clear()
        with sigterm.on_sigterm(lambda _: called.append("run")):
            os.kill(os.getpid(), signal.SIGTERM)
        assert called == ["run", "theirs", *(["airflow"] if chains else [])]
        assert signal.getsignal(signal.SIGTERM) is theirs


def test_a_run_inside_which_other_code_sets_a_handler_is_ended_by_the_next_one() -> None:
    """The handler of the inner block runs the jobs of both."""
    with sigterm.on_sigterm(lambda _: called.append("outer")):
        signal.signal(signal.SIGTERM, lambda *_: called.append("theirs"))
        with sigterm.on_sigterm(lambda _: called.append("inner")):
            os.kill(os.getpid(), signal.SIGTERM)
    assert sorted(called) == ["inner", "outer", "theirs"]


def test_a_second_signal_runs_the_jobs_again() -> None:
    """A task may survive the first."""
    with sigterm.on_sigterm(lambda _: called.append("run")):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert called == ["run", "airflow"] * 2


def test_our_handler_that_other_code_puts_back_after_each_run_calls_no_chain_of_itself() -> None:
    """A library that restores what it found, when the run has ended."""
    for _ in range(1000):
        with sigterm.on_sigterm(lambda _: called.append("former run")):
            found = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, found)
    with sigterm.on_sigterm(lambda _: called.append("run")):
        os.kill(os.getpid(), signal.SIGTERM)
    assert called == ["run", "airflow"]
