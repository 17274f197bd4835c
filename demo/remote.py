"""Commands for a stack that runs: sent over a Unix socket, done by the one who conducts.

Only the conductor is inside the namespaces, and only it starts and ends the servers.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.errors import DemoError
from demo.layout import FIRST_ADDRESS, SECOND_ADDRESS
from demo.processes import die_with_parent
from demo.stack import Stack, python_module

#: Relative to the demo's folder: such paths may be no longer than about a hundred characters.
_SOCKET = "./stack.sock"
_MAX_REQUEST = 65_536
MLFLOW_STATES = {
    "stop": "stopped",
    "start": "runs where it ran last",
    "move": "runs at another address, and DNS gives that one",
}
DNS_STATES = {
    "back": "the name exists again",
    "gone": "there is no such name",
    "silent": "queries stay without an answer",
    "failing": "the server says that it failed",
}


def ask(root: Path, request: Sequence[str]) -> int:
    """Have the running stack do this; returns the exit code of what it ran.

    Its output goes to our own output and error output.

    :param root: the stack's folder.
    :param request: ``mlflow`` or ``dns`` and one word, or ``airflow`` and its arguments.
    :raises DemoError: it could not be done, or nothing is running.
    """
    os.chdir(root)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(_SOCKET)
        except OSError as error:
            raise DemoError(
                "The running stack does not take commands; make down, make up."
            ) from error
        outputs = [sys.stdout.fileno(), sys.stderr.fileno()]
        socket.send_fds(line, [json.dumps(list(request)).encode()], outputs)
        reply = line.makefile().readline()
    answer = json.loads(reply) if reply else {"error": "The stack ended before it answered."}
    if "error" in answer:
        raise DemoError(answer["error"])
    return int(answer["code"])


class Remote:
    """The conductor's end."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        Path(_SOCKET).unlink(missing_ok=True)  # of a stack that was killed
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(_SOCKET)
        self._listener.listen()
        self._commands: list[tuple[subprocess.Popen[bytes], socket.socket]] = []

    def serve(self, seconds: float) -> None:
        """Do what is asked for in this time, one request after the other."""
        self._collect()
        if not select.select([self._listener], [], [], seconds)[0]:
            return
        line, _ = self._listener.accept()
        text, outputs, _, _ = socket.recv_fds(line, _MAX_REQUEST, 2)
        try:
            command, *arguments = json.loads(text)
            if command == "airflow":
                self._commands.append((self._start_airflow(arguments, outputs), line))
                return
            {"mlflow": self._mlflow, "dns": self._dns}[command](*arguments)
            _answer(line, {"code": 0})
        except DemoError as error:
            _answer(line, {"error": str(error)})
        finally:
            for descriptor in outputs:
                os.close(descriptor)

    def _collect(self) -> None:
        """Answer those whose command has ended; end the command of one who has gone."""
        for process, line in list(self._commands):
            gone = bool(select.select([line], [], [], 0)[0])
            if gone and process.poll() is None:
                process.terminate()
            if process.poll() is not None:
                _answer(line, {"code": process.returncode})
                self._commands.remove((process, line))

    def _start_airflow(
        self, arguments: Sequence[str], outputs: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*python_module("airflow"), *arguments],
            env=self._stack.airflow_env(),
            stdin=subprocess.DEVNULL,
            stdout=outputs[0],
            stderr=outputs[1],
            preexec_fn=die_with_parent,
        )

    def _mlflow(self, action: str) -> None:
        stack = self._stack
        if action in ("stop", "move"):
            stack.stop_mlflow()
        if action == "move":
            other = {FIRST_ADDRESS: SECOND_ADDRESS, SECOND_ADDRESS: FIRST_ADDRESS}
            stack.start_mlflow(other[stack.mlflow_address])
            stack.await_mlflow()
            stack.names.answer(stack.mlflow_address)
        elif action == "start" and not stack.mlflow.is_up():
            stack.start_mlflow(stack.mlflow_address)
            stack.await_mlflow()

    def _dns(self, state: str) -> None:
        names = self._stack.names
        if state == "back":
            names.answer(self._stack.mlflow_address)
        else:
            {"gone": names.gone, "silent": names.silent, "failing": names.failing}[state]()


def _answer(line: socket.socket, answer: dict[str, Any]) -> None:
    with line, contextlib.suppress(OSError):
        line.sendall(json.dumps(answer).encode() + b"\n")
