"""The little DNS server as a process of its own, told what to do by lines of text."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.query
import pytest

from airflow_provider_hokusai_dns.resolver.testing import Zone, send_command
from airflow_provider_hokusai_dns.resolver.testing.__main__ import main
from airflow_provider_hokusai_dns.resolver.testing.control import run_command

NAME = "mlflow.local"
MODULE = "airflow_provider_hokusai_dns.resolver.testing"


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A running server, and the words of its first line."""
    with subprocess.Popen(
        [sys.executable, "-m", MODULE, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as running:
        try:
            assert running.stdout is not None
            yield running, running.stdout.readline().split()
        finally:
            running.kill()


def ask(port: str, name: str = NAME) -> list[str]:
    question = dns.message.make_query(name, "A")
    answer = dns.query.udp(question, "127.0.0.1", timeout=5, port=int(port))
    return [record.to_text() for rrset in answer.answer for record in rrset]


def test_commands_over_standard_input():
    """Records from the command line, changes by lines, an answer to each; the end ends it."""
    with process("--record", f"{NAME}=10.0.0.1,fd00::1") as (server, words):
        assert words[:3] == ["listening", "on", "127.0.0.1"]
        assert server.stdin is not None
        assert server.stdout is not None
        assert ask(words[3]) == ["10.0.0.1"]
        server.stdin.write(f"set {NAME} 10.0.0.2 ttl=3\n\n")
        server.stdin.flush()
        assert json.loads(server.stdout.readline()) == {"ok": True}
        assert ask(words[3]) == ["10.0.0.2"]
        server.stdin.close()
        assert server.wait(10) == 0


def test_commands_over_a_port():
    """Another process tells the server what to do, and asks what it saw."""
    with process("--control", "0") as (server, words):
        control = words[-1]
        send_command(control, f"set {NAME} 10.0.0.1")
        assert ask(words[3]) == ["10.0.0.1"]
        assert send_command(control, f"count {NAME} A") == {"count": 1}
        with pytest.raises(ValueError, match="unknown command 'explode'"):
            send_command(control, "explode")
        send_command(control, "stop")
        assert server.wait(10) == 0


def test_a_server_that_ends_in_the_middle_of_a_command_has_not_carried_it_out():
    """A test that steers it would go on with an outage that never began."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def end() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)

        dying = threading.Thread(target=end)
        dying.start()
        with pytest.raises(OSError, match="ended without an answer"):
            send_command(listener.getsockname()[1], f"silent {NAME}")
        dying.join(10)


def test_commands_over_a_unix_socket_that_is_gone_afterwards(tmp_path: Path):
    """A file reaches into another network namespace; SIGTERM ends the server and removes it."""
    path = tmp_path / "control"
    with process("--control", str(path)) as (server, words):
        assert words[-1] == str(path)
        send_command(path, f"set {NAME} 10.0.0.1")
        assert ask(words[3]) == ["10.0.0.1"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--record", f"{NAME}=10.0"], "'10.0'"),
        (["--control", "nonsense"], "--control takes a port or the path"),
        (["--host", "192.0.2.1"], "192.0.2.1 port"),
    ],
)
def test_a_server_that_cannot_start_says_why(arguments: list[str], message: str):
    """One line on standard error, and exit code 1."""
    with process(*arguments) as (server, words):
        assert words == []
        assert server.wait(10) == 1
        assert server.stderr is not None
        assert message in server.stderr.read()


def test_a_taken_port_is_told():
    """The message names the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        with process("--port", port) as (server, _words):
            assert server.wait(10) == 1
            assert server.stderr is not None
            assert f"port {port}" in server.stderr.read()


def test_the_same_inside_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """``main`` answers each line, ends at ``stop``, and leaves the signal handlers as they were."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"set {NAME} 10.0.0.1\n\ncount\nstop\nset x"))
    assert main(["--record", f"{NAME}=10.0.0.9", "--ttl", "5"]) == 0
    first, *answers = capsys.readouterr().out.splitlines()
    assert first.startswith("listening on 127.0.0.1 ")
    assert [json.loads(answer) for answer in answers] == [{"ok": True}, {"ok": True, "count": 0}]
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_the_control_socket_inside_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Several lines over one connection, and ``stop`` over another."""
    path = tmp_path / "control"
    said: list[dict[str, object]] = []

    def steer() -> None:
        while not said:
            with contextlib.suppress(OSError):  # It does not listen yet.
                said.append(send_command(path, f"set {NAME} 10.0.0.1"))
            time.sleep(0.005)
        said.append(send_command(path, "stop"))

    steering = threading.Thread(target=steer)
    steering.start()
    assert main(["--control", str(path)]) == 0
    steering.join(10)
    assert said == [{}, {}]
    assert str(path) in capsys.readouterr().out
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--control", "nonsense"], "--control takes a port or the path of a Unix socket"),
        (["--record", NAME], "'' does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_a_wrong_argument_inside_this_process(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    """Exit code 1, and the reason on standard error."""
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("set a.local 10.0.0.1 fd00::1 ttl=5", {"ok": True}),
        ("cname b.local a.local", {"ok": True}),
        ("rdata _x._tcp.local SRV '1 2 80 a.local.'", {"ok": True}),
        ("delay a.local 0.5", {"ok": True}),
        ("flapping a.local answer servfail every=2", {"ok": True}),
        ("servfail", {"ok": True}),
        ("no_such_name a.local AAAA", {"ok": True}),
        ("hold a.local", {"ok": True}),
        ("release a.local", {"ok": True}),
        ("heal", {"ok": True}),
        ("remove a.local", {"ok": True}),
        ("count", {"ok": True, "count": 0}),
        ("queries", {"ok": True, "queries": []}),
        ("clear", {"ok": True}),
    ],
)
def test_every_command_has_its_answer(line: str, answer: dict[str, object]):
    """One line in, one line of JSON out."""
    assert json.loads(run_command(Zone(), line)) == answer


@pytest.mark.parametrize(
    "line",
    ["", "explode", "set", "set a.local 10.0", "set a.local 10.0.0.1 ttl=x", "delay a.local",
     "delay a.local soon", "flapping a.local never", "count a b c d", "set 'a"],
)  # fmt: skip
def test_a_wrong_command_is_answered_and_never_raises(line: str):
    """The answer repeats the line and says what is wrong."""
    answer = json.loads(run_command(Zone(), line))
    assert not answer["ok"]
    assert repr(line) in answer["error"]


@pytest.mark.parametrize("port", ["70000", "65536"])
def test_a_port_that_cannot_be_is_an_error(port: str) -> None:
    """The system's own function takes it modulo 65536."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_hokusai_dns.resolver.testing", "--port", port],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot start" in done.stderr
    assert port in done.stderr
