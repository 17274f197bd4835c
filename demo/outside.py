"""The outer process, the one a person's command is: starts a conductor and answers for its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo import conductor, interrupt, namespaces
from demo.console import Console
from demo.errors import DemoError
from demo.layout import REPOSITORY
from demo.processes import Processes

HOME = REPOSITORY / ".demo"
_PATIENCE = 20.0


def tell(console: Console, *, namespace: bool) -> int:
    """Tell the story in the foreground; returns the exit code. Nothing is left running."""
    root = HOME / "story"
    with locked("story"):
        private, label = choose_surroundings(console, namespace=namespace)
        fresh(root)
        return conducted(
            root,
            lambda lifeline: conductor.command(
                "story", root, private=private, label=label, lifeline=lifeline
            ),
        )


def conducted(root: Path, command: Callable[[int], list[str]]) -> int:
    """Let a conductor do it in the foreground; returns its exit code. Nothing is left running.

    :param command: the conductor's command line, given its end of the lifeline.
    """
    reading, writing = os.pipe()
    # The subreaper in here collects what a conductor killed outright would leave behind.
    orphans = Processes(root / "logs")
    try:
        process = subprocess.Popen(
            command(reading), cwd=REPOSITORY, pass_fds=(reading,), start_new_session=True
        )
        os.close(reading)
        return _await(process, writing)
    finally:
        interrupt.ignore_signals()
        orphans.stop_all()


def choose_surroundings(console: Console, *, namespace: bool) -> tuple[bool, str]:
    """Decide between a private namespace and the stand-in, and say which it is, and why."""
    reason = "you asked for it" if not namespace else namespaces.why_not()
    if reason is None:
        console.say(
            "In private namespaces: the outage is a real one of this system's resolver, "
            "and nothing outside notices it."
        )
        return True, "real outage of the operating system's resolver, in private namespaces"
    label = f"STAND-IN for an outage, no private namespace ({reason})"
    console.say(console.paint(label, "yellow"))
    console.say(
        "The demo's one name is answered by the demo's DNS server through Python's getaddrinfo; "
        "the system's resolver is left as it is."
    )
    return False, label


@contextmanager
def locked(name: str, home: Path = HOME) -> Iterator[None]:
    """Hold the only right to this part of ``.demo``, or of another home.

    :raises DemoError: somebody else has it.
    """
    home.mkdir(mode=0o700, exist_ok=True)
    with (home / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DemoError(
                f"Another {home.name.lstrip('.')} is running from this folder; wait for it, or end "
                "it first."
            ) from error
        yield


def fresh(root: Path, *, keep: Sequence[str] = ()) -> bool:
    """Empty this folder; returns whether something of it was kept.

    :param keep: paths below it that stay.
    :raises DemoError: it holds what we may not remove.
    """
    try:
        aside = root.with_name(f"{root.name}.kept")
        for path in keep:
            if (root / path).exists() and not (aside / path).exists():
                (aside / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).rename(aside / path)
        if root.exists():
            shutil.rmtree(root)
        if aside.exists():  # also after an interruption just here
            aside.rename(root)
            return True
        root.mkdir(parents=True, mode=0o700)
        return False
    except OSError as error:
        raise DemoError(
            f"Cannot empty {root} ({error.strerror}: {error.filename}). It was perhaps made by "
            "another user: remove it by hand."
        ) from error


def _await(process: subprocess.Popen[bytes], lifeline: int) -> int:
    try:
        return process.wait()
    except KeyboardInterrupt:
        os.close(lifeline)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(_PATIENCE)
        return conductor.INTERRUPTED
    finally:
        if process.poll() is None:
            process.kill()  # with it goes the whole PID namespace, or what the caller collects
            process.wait()
