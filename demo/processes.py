"""Starting real processes, noticing when one dies, and leaving none behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.errors import DemoError

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1
_LOG_TAIL = 12


@dataclass(slots=True)
class Child:
    """One process that was started, in a session of its own."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """Return the end of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
        except OSError:
            return ""
        return "\n".join(f"    {line}" for line in lines)


class Processes:
    """The processes of one demo, ended together.

    Each runs in its own session, so a ctrl-C at the terminal reaches only the one who conducts, and
    the order of ending stays in one hand. Orphans come back to this process (a subreaper, or the
    first process of a PID namespace), so nothing escapes by forking twice.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path | None = None
    ) -> Child:
        """Start one process; its output goes to a log file of its own.

        :raises DemoError: the program is not there.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        try:
            with log.open("ab") as output:
                popen = subprocess.Popen(
                    command,
                    env=dict(env),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
        except OSError as error:
            raise DemoError(f"Cannot start {name} ({command[0]}): {error.strerror}.") from error
        child = Child(name, popen, log)
        self._children.append(child)
        return child

    def run(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start a process that is meant to end by itself; see :meth:`finished`."""
        return self.start(name, command, env)

    def finished(self, child: Child) -> bool:
        """Whether such a process has ended without an error.

        :raises DemoError: it ended badly.
        """
        code = child.popen.poll()
        if code is None:
            return False
        self._children.remove(child)
        if code:
            raise DemoError(f"{child.name} failed with exit code {code}:\n{child.tail()}")
        return True

    def check(self, *, may_die: str = "") -> None:
        """Check that every process is running.

        :param may_die: the name with which those begin whose end is no trouble: a person who plays
            with the demo may well want to see what happens without them.

        :raises DemoError: a process that should be running has ended; with the end of its log.
        """
        for child in self._children:
            code = child.popen.poll()
            if code is not None and not (may_die and child.name.startswith(may_die)):
                raise DemoError(
                    f"{child.name} exited unexpectedly (exit code {code}). The end of "
                    f"{child.log.name}:\n{child.tail()}"
                )

    def stop(self, child: Child, *, patience: float = 8.0) -> None:
        """End one process and whatever it started in its session."""
        if child in self._children:
            self._children.remove(child)
        _end([child.popen], descendants(child.popen.pid), patience)

    def kill(self, child: Child) -> None:
        """End one process and whatever it started without asking, as a dying machine does."""
        self._children.remove(child)
        _end([child.popen], descendants(child.popen.pid), 0.0, ask=False)

    def stop_all(self, *, patience: float = 4.0) -> None:
        """End everything this process has started, also what has lost its parent meanwhile."""
        children, self._children = self._children, []
        _end([child.popen for child in children], descendants(os.getpid()), patience)


def die_with_parent() -> None:
    """In a fresh child: be killed when the parent dies, so that even SIGKILL leaves nothing."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end(
    leaders: list[subprocess.Popen[bytes]], family: set[int], patience: float, *, ask: bool = True
) -> None:
    for popen in leaders if ask else ():
        _signal_group(popen.pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(popen.poll() is None for popen in leaders):
        time.sleep(0.05)
    for popen in leaders:
        _signal_group(popen.pid, signal.SIGKILL)
        family |= descendants(popen.pid)
    # What moved to a session of its own was not reached by the group's signal. The family was
    # written down before its leaders died; a number that was given away since is not in it, because
    # orphans stay ours, as zombies, until they are collected below.
    mine = descendants(os.getpid())
    for pid in family & mine:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for popen in leaders:
        with contextlib.suppress(subprocess.TimeoutExpired):
            popen.wait(timeout=5)
    for pid in family & mine:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def descendants(pid: int) -> set[int]:
    """Return the process ids below this one, read from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The second field is a name in brackets and may hold anything.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    below = list(children.get(pid, ()))
    while below:
        each = below.pop()
        if each not in found:
            found.add(each)
            below.extend(children.get(each, ()))
    return found
