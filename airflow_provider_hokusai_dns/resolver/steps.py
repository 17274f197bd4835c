"""One call, two ways to wait: the steps of a call are the same for threads and for coroutines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from concurrent.futures import Future, wait

from airflow_provider_hokusai_dns.resolver.model import Resolution

#: Yields what to wait for and for how many seconds, and returns the answer.
Steps = Generator[tuple[Future[None], float], None, Resolution]


def run_blocking(steps: Steps) -> Resolution:
    """Run the steps of a call on this thread."""
    try:
        while True:
            future, seconds = next(steps)
            wait((future,), seconds)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def run_async(steps: Steps) -> Resolution:
    """Run the steps of a call in a coroutine."""
    try:
        while True:
            future, seconds = next(steps)
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
