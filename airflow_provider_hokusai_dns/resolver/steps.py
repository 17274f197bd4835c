"""Runs the steps of a call, which are the same for threads and for coroutines."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from airflow_provider_hokusai_dns.resolver.model import Resolution
from airflow_provider_hokusai_dns.resolver.one_time_event import OneTimeEvent

#: Yields what to wait for, for how many seconds, and a function that runs the lookup on the
#: caller's thread instead of waiting; returns the answer.
Steps = Generator[tuple[OneTimeEvent, float, Callable[[float], None] | None], None, Resolution]


def run_blocking(steps: Steps) -> Resolution:
    """Run the steps of a call on this thread."""
    try:
        while True:
            event, seconds, lead = next(steps)
            if lead is not None:
                began = time.monotonic()
                lead(seconds)
                seconds -= time.monotonic() - began
            if not event.is_set():
                event.wait(max(0.0, seconds))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def run_async(steps: Steps) -> Resolution:
    """Run the steps of a call in a coroutine."""
    try:
        while True:
            event, seconds, lead = next(steps)
            if lead is not None:
                lead(0.0)  # sends the queries; a thread waits for the answers
            if not event.is_set():
                await event.wait_async(seconds)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
