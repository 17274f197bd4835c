"""One call, two ways to wait: the steps of a call are the same for threads and for coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait

from airflow_provider_hokusai_dns.resolver.model import Resolution

#: Yields what to wait for, for how many seconds, and what to call in place of waiting for those who
#: can drive it themselves; returns the answer.
Steps = Generator[
    tuple[Future[None], float, Callable[[float | None], None] | None], None, Resolution
]


def run_blocking(steps: Steps) -> Resolution:
    """Run the steps of a call on this thread."""
    try:
        while True:
            future, seconds, lead = next(steps)
            if lead is not None:
                began = time.monotonic()
                lead(seconds)
                seconds -= time.monotonic() - began
            if not future.done():
                wait((future,), max(0.0, seconds))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def run_async(steps: Steps) -> Resolution:
    """Run the steps of a call in a coroutine."""
    try:
        while True:
            future, seconds, lead = next(steps)
            if lead is not None:
                lead(None)
            waiting = asyncio.wrap_future(future)
            try:
                await asyncio.wait((waiting,), timeout=seconds)
            finally:
                # Harms nobody: the flight's futures cannot be cancelled. Left alone, it would be
                # woken in an event loop that may be closed by then.
                with contextlib.suppress(RuntimeError):  # it is closed already
                    waiting.cancel()
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
