"""The output on the terminal: headings, progress with what it waits for, colours."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from demo.errors import DemoError, TryAgain

T = TypeVar("T")
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_LOG_EVERY = 10.0
#: Columns of a line, where it can be helped.
WIDTH = 100


class Console:
    """Writes the story line by line; in a log file the same words without colour.

    :param stream: where to; colours only if it is a terminal and ``NO_COLOR`` is not set.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._out = stream or sys.stdout
        self._terminal = self._out.isatty()
        self._colours = self._terminal and "NO_COLOR" not in os.environ
        self._born = time.monotonic()

    def paint(self, text: str, *styles: str) -> str:
        """Return the text in these styles, or as it is where colours make no sense."""
        if not self._colours:
            return text
        return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"

    @property
    def elapsed(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._born

    def line(self, text: str = "") -> None:
        """Print one line."""
        print(text, file=self._out, flush=True)

    def heading(self, text: str) -> None:
        """Print the beginning of a step."""
        self.line()
        self.line(f"{self.paint(f'{self.elapsed:5.0f} s', 'dim')}  {self.paint(text, 'bold')}")

    def say(self, text: str) -> None:
        """Print something that happened, in lines of at most 100 columns."""
        for line in _wrap(text, WIDTH - 9) or [""]:
            self.line(f"         {line}")

    def failure(self, text: str, logs: Path | None = None) -> None:
        """Print why the demo stops here."""
        self.line()
        self.line(self.paint(f"Stopped: {text}", "red"))
        if logs is not None:
            self.line(f"More in {logs}")

    def waited(self, text: str, seconds: float) -> None:
        """Print what a wait ended with."""
        self.say(f"{text} {self.paint(f'({seconds:.1f} s)', 'dim')}")

    @contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[Callable[[], str]], None]]:
        """Show what is waited for: a live line on a terminal, one line now and then in a log.

        Yields a function to be called at each pause. What it is given says how far things are, and
        is called only where that is shown.
        """
        began = time.monotonic()
        shown = began

        def tick(so_far: Callable[[], str]) -> None:
            nonlocal shown
            now = time.monotonic()
            if not self._terminal and now - shown < _LOG_EVERY:
                return
            shown = now
            detail = so_far()
            text = f"waiting for {what}, {now - began:.0f} s" + (f" - {detail}" if detail else "")
            if self._terminal:
                text = f"         {text}"[: _columns() - 1]
                self._out.write(f"\r\033[K{self.paint(text, 'dim')}")
                self._out.flush()
            else:
                self.say(f"... {text}")

        try:
            yield tick
        finally:
            if self._terminal:
                self._out.write("\r\033[K")
                self._out.flush()

    def until(
        self,
        what: str,
        check: Callable[[], T | None],
        *,
        seconds: float,
        alive: Callable[[], None] | None = None,
        detail: Callable[[], str] = lambda: "",
        pause: float = 0.5,
    ) -> T:
        """Ask again and again until the answer is true, showing what is waited for.

        :param check: what to ask; a false answer, or :class:`TryAgain`, means "not yet".
        :param seconds: how long to wait at most.
        :param alive: asked in between; raises when waiting has become pointless.
        :param detail: how far it is; asked only where that is shown.
        :param pause: seconds between two questions. A question to Airflow costs it 0.1 s of a core.
        :raises DemoError: the time limit has passed.
        """
        deadline = time.monotonic() + seconds
        refused = ""

        def so_far() -> str:
            try:
                return refused or detail()
            except TryAgain as error:
                return str(error)

        with self.waiting(what) as tick:
            while True:
                refused = ""
                try:
                    if answer := check():
                        return answer
                except TryAgain as error:
                    refused = str(error)
                if alive is not None:
                    alive()
                if time.monotonic() > deadline:
                    last = so_far()
                    raise DemoError(
                        f"Gave up waiting for {what} after {seconds:.0f} s."
                        + (f" Last seen: {last}." if last else "")
                    )
                tick(so_far)
                time.sleep(pause)


def _wrap(text: str, width: int) -> list[str]:
    """Lines of this width; a path or an address is never cut in two."""
    return textwrap.wrap(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _columns() -> int:
    try:
        return max(20, os.get_terminal_size().columns)
    except OSError:
        return 80
