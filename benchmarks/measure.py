"""How time and memory are measured, and what a result is."""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

#: Runs a subject so many times, and returns how many nanoseconds that took.
Spin = Callable[[int], int]


class Skipped(Exception):
    """A peer cannot be measured here; the text is the reason."""


@dataclass
class Row:
    """One line of a table.

    :param values: by column; numbers stay numbers for the JSON.
    :param note: why it was skipped, or what to know about it.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass
class Table:
    """One question, and the answers of all subjects to it."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def value(self, name: str, column: str) -> Any:
        """One cell, or ``None`` where the subject was not measured."""
        return next((row.values.get(column) for row in self.rows if row.name == name), None)


@dataclass(frozen=True)
class Timing:
    """Nanoseconds per call: the best round, and the median of all rounds."""

    best: float
    median: float


@contextmanager
def quiet_gc() -> Iterator[None]:
    """No garbage collection inside what is timed; all of it before."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def calibrate(spin: Spin, seconds: float) -> int:
    """How often a subject has to be called to take about this long."""
    number = 1
    while True:
        took = min(spin(number) for _ in range(3)) / 1e9  # one alone may have been interrupted
        if took > seconds / 10:
            return max(1, int(number * seconds / took))
        number *= 10


def race(spins: Mapping[str, Spin], *, rounds: int, seconds: float) -> dict[str, Timing]:
    """Time all subjects in turns, so that a noisy moment hits them all alike.

    Many short turns find a quiet moment for each on a busy machine; few long ones do not.

    :param rounds: how often each has its turn.
    :param seconds: length of one turn.
    """
    numbers = {name: calibrate(spin, seconds) for name, spin in spins.items()}
    taken: dict[str, list[float]] = {name: [] for name in spins}
    with quiet_gc():
        for turn in range(rounds):
            for name, spin in spins.items():
                taken[name].append(spin(numbers[name]) / numbers[name])
            if turn % 25 == 24:
                gc.collect()
    return {name: Timing(min(values), statistics.median(values)) for name, values in taken.items()}


def memory_of(fill: Callable[[], object]) -> int:
    """Bytes that live on after ``fill`` has run, as Python's allocator counts them."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = fill()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        del kept
        return after - before
    finally:
        tracemalloc.stop()


def timed(call: Callable[[], object]) -> tuple[float, str]:
    """Seconds of one call, and what came of it: ``"ok"``, or the name of the exception."""
    started = time.perf_counter()
    try:
        call()
    except Exception as error:
        return time.perf_counter() - started, type(error).__name__
    return time.perf_counter() - started, "ok"
