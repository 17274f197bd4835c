"""A clone of our own in which a command of this repository runs, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


class Clone:
    """A copy of some folders, so that nothing of yours is touched.

    :param package: what is run, as ``python -m``; its files go to a hidden folder of that name.
    :param folders: what is copied.
    """

    def __init__(self, folder: Path, package: str, *folders: str) -> None:
        self.folder = folder
        self.home = folder / f".{package}"
        self._package = package
        self._started: list[subprocess.Popen[str]] = []
        for name in folders:
            shutil.copytree(
                REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start the command line, as the leader of a process group like a shell's job."""
        process = subprocess.Popen(
            [sys.executable, "-m", self._package, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            process_group=0,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run it to its end; returns exit code and output."""
        process = self.start(*arguments, env=env)
        output, _ = process.communicate(timeout=880)
        return process.returncode, output

    def interrupt(self, process: subprocess.Popen[str], seen: str) -> None:
        """Press ctrl-C, and see that there is one clear line and nothing left.

        :param seen: what it has written so far.
        """
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        output = seen + rest
        assert process.returncode == 130, output
        assert "interrupted" in rest
        assert "Traceback" not in output
        assert self.leftovers() == []
        assert_ports_are_free(output)

    @property
    def report(self) -> dict:
        """What it has written for machines."""
        return json.loads((self.home / "report.json").read_text())

    def leftovers(self) -> list[str]:
        """Processes that still work in this folder, each with its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or entry.name == str(os.getpid()):
                continue
            try:
                where = (entry / "cwd").readlink()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if where.is_relative_to(self.folder):
                found.append(f"{entry.name}: {command}")
        return found

    def clean_up(self) -> None:
        """End whatever a failed test has left."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
        if (self.home / "up.json").exists():
            self.run("down")
        for line in self.leftovers():
            os.kill(int(line.partition(":")[0]), signal.SIGKILL)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Read the output line by line until one holds this text."""
    assert process.stdout is not None
    lines = []
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        lines.append(line)
        if text in line:
            return "".join(lines)
        assert line, f"it ended before {text!r}:\n{''.join(lines)}"
    pytest.fail(f"no {text!r} in time:\n{''.join(lines)}")


def assert_ports_are_free(output: str) -> None:
    """No process answers any more on the ports that this output names."""
    named = set(re.findall(r"(127\.0\.0\.\d+):(\d{4,5})\b", output))
    for address, port in named:
        assert not accepts(address, int(port)), f"{address}:{port} still answers"


def accepts(address: str, port: int) -> bool:
    """Whether a process listens there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0
