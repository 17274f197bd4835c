"""A pipe between the user's command and the process that runs the demo for it.

The command holds the writing end of a pipe. When it asks to stop, or dies in whatever way, the
conductor is interrupted as by ctrl-C and stops everything. ``make up`` cuts the line when
everything runs.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import NoReturn

LET_GO = b"."


def interrupt_at_end_of(descriptor: int) -> None:
    """Interrupt the main thread when the other end of this pipe closes without letting go."""
    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        if os.read(descriptor, 1) != LET_GO:
            signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP interrupt like ctrl-C.

    SIGINT is set as well: a background job of a non-interactive shell inherits it as ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Ignore interrupts from here on: the shutdown runs once, to its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
