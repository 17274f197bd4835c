"""Real servers for tests: MLflow in processes of its own, and strangers on a socket."""

from __future__ import annotations

import atexit
import contextlib
import errno
import http.client
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")

#: It takes ten on an idle machine; the limit is for busy ones.
START_SECONDS = 180.0
#: The folder of the MLflow client to test with, where that is not the environment's.
OTHER_CLIENT = os.environ.get("HOKUSAI_TEST_MLFLOW")


def client_environment() -> dict[str, str]:
    """The environment for a child that uses the MLflow client that is tested."""
    return {**os.environ, **({"PYTHONPATH": OTHER_CLIENT} if OTHER_CLIENT else {})}


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port on which no process listens now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _watch_over(leader: int) -> subprocess.Popen[bytes]:
    """End a session of processes when this process is gone, however it went.

    The shell waits at the end of a pipe of which only we have the other one. Told "done", it goes.
    """
    script = f"read word || kill -KILL -{leader}"
    return subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _dismiss(watchdog: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        watchdog.communicate(b"done\n")


def end_session(process: subprocess.Popen[bytes], watchdog: subprocess.Popen[bytes]) -> None:
    """Kill a process that began a session, and all that came out of it."""
    end = time.monotonic() + 20
    while (members := session_members(process.pid)) and time.monotonic() < end:
        _signal(members, signal.SIGKILL)
        process.poll()
        time.sleep(0.02)
    process.wait(10)
    _dismiss(watchdog)


def wait_until(
    condition: Callable[[], T],
    seconds: float = 10.0,
    *,
    pause: float = 0.02,
    told: Callable[[], str] = str,
) -> T:
    """Wait until something is true, and give what it is.

    :param pause: seconds between two looks.
    :param told: what to say when it does not come true.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() >= end:
            raise AssertionError(f"it did not come true within {seconds:g} s {told()}")
        time.sleep(pause)
    return found


def is_installed() -> bool:
    """Whether Airflow finds us: it does so by our entry points alone."""
    try:
        importlib.metadata.distribution("airflow-provider-hokusai-dns")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


class MLflowProcess:
    """An MLflow server in processes of its own. A context manager; may be stopped and started.

    :param folder: its database, artifacts and log; kept over a restart.
    :param host: the loopback address to listen on; may be changed before it is started again.
    :param port: a free one by default; kept over a restart.
    :param allowed_hosts: for ``--allowed-hosts``; ``None`` leaves MLflow's default, which refuses
        every hostname but localhost.
    :param admin: login and password of the administrator, which turns basic authentication on.
    :param tls: certificate and key file, which turn https on.
    :param workspaces: whether workspaces are enabled.
    :param arguments: further ones for ``mlflow server``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        allowed_hosts: Sequence[str] | None = ("*",),
        admin: tuple[str, str] | None = None,
        tls: tuple[Path, Path] | None = None,
        workspaces: bool = False,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = port or free_port(host)
        self.log_file = folder / "mlflow.log"
        self._arguments = [
            "--port",
            str(self.port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ]
        if allowed_hosts is not None:
            self._arguments += ["--allowed-hosts", ",".join(allowed_hosts)]
        if admin is not None:
            self._arguments += ["--app-name", "basic-auth"]
        if tls is not None:
            options = f"--ssl-certfile {tls[0]} --ssl-keyfile {tls[1]}"
            self._arguments += ["--uvicorn-opts", options]
        if workspaces:
            self._arguments += ["--enable-workspaces"]
        self._arguments += arguments
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")},
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONUNBUFFERED": "1",
        }
        if allowed_hosts is not None:  # the security middleware is made before the argument is read
            self._environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = ",".join(allowed_hosts)
        if admin is not None:
            self._environment |= {
                "MLFLOW_AUTH_ADMIN_USERNAME": admin[0],
                "MLFLOW_AUTH_ADMIN_PASSWORD": admin[1],
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "only-for-tests",
            }
        self._environment |= environment or {}
        self._scheme = "http" if tls is None else "https"
        self._leader: int | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """The server by its address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._scheme}://{host}:{self.port}"

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def __enter__(self) -> MLflowProcess:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers.

        :raises RuntimeError: with the end of its log, when it does not.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--host", self.host, *self._arguments]
        self._leader = _forks_with(self._environment).start(
            arguments, self._environment, self.folder, self.log_file
        )
        self._watchdog = _watch_over(self._leader)
        try:
            self._wait(self._leader)
        except BaseException:
            self.stop()
            raise

    def _wait(self, leader: int) -> None:
        def up() -> bool:
            if not session_members(leader):
                raise RuntimeError(f"MLflow ended while it started:\n{self.log[-3000:]}")
            return self._answers()

        wait_until(up, START_SECONDS, pause=0.05, told=lambda: f"MLflow:\n{self.log[-3000:]}")

    def _answers(self) -> bool:
        if self._scheme == "https":
            # Tests of TLS look closer; here a listener is enough.
            with contextlib.suppress(OSError):
                socket.create_connection((self.host, self.port), timeout=1).close()
                return True
            return False
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer,
        ):
            return answer.read() == b"OK"
        return False

    def stop(self, *, kill: bool = False) -> None:
        """Stop it and all of its children. Does nothing when it does not run.

        :param kill: at once, as a container that is torn down.
        """
        leader, self._leader = self._leader, None
        if leader is None:
            return
        members = session_members(leader)
        _signal(members, signal.SIGKILL if kill else signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not session_members(leader))
        _signal(session_members(leader) | members, signal.SIGKILL)
        if self._watchdog is not None:
            _dismiss(self._watchdog)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not session_members(leader))


class _Forks:
    """The process that forks MLflow servers, see ``mlflow_forks.py``; it ends with this one.

    :param environment: in which it imports MLflow, and finds MLflow's plugins.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.mlflow_forks"],
            cwd=Path(__file__).parents[1],
            env={**environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        atexit.register(self.close)

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
    ) -> int:
        """Start ``mlflow server`` in a session of its own; gives the session's number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "arguments": [*arguments], "environment": {**environment}, "folder": str(folder),
            "log": str(log),
        }  # fmt: skip
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it; the servers are ended by those who have started them."""
        if os.getpid() == self._owner:  # and not a test's fork
            self._process.communicate()


_forks: dict[str, _Forks] = {}
_forks_lock = threading.Lock()


def _forks_with(environment: Mapping[str, str]) -> _Forks:
    path = environment.get("PYTHONPATH", "")
    with _forks_lock:
        if path not in _forks:
            _forks[path] = _Forks(environment)
        return _forks[path]


def session_members(leader: int) -> set[int]:
    """The processes of a session, those left out that have ended and only wait for their parent.

    A process whose first thread has ended is shown as a zombie while its other threads still hold
    its sockets open; after a SIGKILL that can last until a slow disk is done.
    """
    members = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                has_ended = fields[0] == "Z" and int(fields[17]) <= 1
                if int(fields[3]) == leader and not has_ended:
                    members.add(int(entry.name))
    return members


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def black_hole(host: str, port: int = 0) -> Iterator[int]:
    """A port whose backlog has run over: it swallows connections, as a firewall does, or as an
    address in a VPC whose task is gone.
    """
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind_when_free(hole, host, port)
        hole.listen(0)
        address = hole.getsockname()
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        time.sleep(0.05)
        yield int(address[1])


def _bind_when_free(listener: socket.socket, host: str, port: int) -> None:
    """A server that was killed a moment ago may hold its port until a slow disk is done."""
    end = time.monotonic() + 30
    while True:
        try:
            return listener.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
            time.sleep(0.05)


_OF_A_CONNECTION = ("connection", "content-length", "transfer-encoding", "keep-alive")


class Handler(BaseHTTPRequestHandler):
    """Keeps connections, sends an answer as one packet, and logs nothing."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # or Nagle and the kernel wait for each other

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def pass_on(self, answer: http.client.HTTPResponse, data: bytes) -> None:
        """Give an answer of a server behind this one, without what is of its connection."""
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_A_CONNECTION:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class HTTPThread:
    """An HTTP server on a thread of its own, while the block runs.

    :param handler: answers; made of :class:`Handler`.
    :param port: a free one by default.
    """

    def __init__(self, handler: type[Handler], host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass(frozen=True)
class Request:
    """One HTTP request as a stranger saw it. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


Answer = bytes | Iterator[bytes]


@dataclass
class Stranger:
    """A server on a socket that answers as a function says, and keeps what it was asked.

    :param answer: gives the raw bytes of an HTTP answer, at once or piece by piece. It may be
        changed while the server runs.
    :param tls: for https.
    """

    answer: Callable[[Request], Answer]
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> Stranger:
        self._listener = socket.create_server(
            (self.host, self.port),
            family=socket.AF_INET6 if ":" in self.host else socket.AF_INET,
        )
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    @property
    def uri(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    def wait(self, seconds: float) -> bool:
        """For answers that take their time: whether the server was stopped meanwhile."""
        return self._stopped.wait(seconds)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.tls is not None:
                connection = self.tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while (request := _read_request(stream)) is not None:
                self.requests.append(request)
                answer = self.answer(request)
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    connection.sendall(piece)
                if not isinstance(answer, bytes):
                    break
        self._open.discard(connection)


def _read_request(stream: object) -> Request | None:
    readline, read = stream.readline, stream.read  # type: ignore[attr-defined]
    parts = readline(65536).decode("latin-1").split()
    if len(parts) < 2:
        return None
    headers = {}
    while line := readline(65536).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = read(int(headers.get("content-length", 0)))
    return Request(parts[0], parts[1], headers, body)


def http(
    status: int = 200,
    body: bytes | str = b"",
    content_type: str = "text/plain",
    **headers: str,
) -> bytes:
    """The bytes of an HTTP answer; an underscore in a header's name stands for a hyphen."""
    content = body.encode() if isinstance(body, str) else body
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(content)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def looks_like_mlflow(request: Request) -> bytes:
    """An answer as an MLflow server gives it to a probe, for strangers that pose as one."""
    if request.path == "/health":
        return http(body="OK")
    if request.path == "/version":
        return http(body="3.17.2")
    if request.path.startswith("/api/2.0/mlflow/"):
        return http(body="{}", content_type="application/json")
    return http(404, "Not Found")


def has_basic_auth() -> bool:
    """Whether MLflow's basic-auth app can run here (``mlflow[auth]``)."""
    from importlib.util import find_spec

    return find_spec("flask_wtf") is not None


def has_program(name: str) -> bool:
    """Whether a program is installed, for tests that skip without it."""
    return shutil.which(name) is not None


class Busy(threading.Thread):
    """A server that accepts, reads nothing for some seconds, and then answers each request."""

    def __init__(self, seconds: float, host: str = "127.0.0.52") -> None:
        super().__init__(daemon=True)
        self.host = host
        self.received: list[int] = []
        self._seconds = seconds
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Busy:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.join(20)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                time.sleep(self._seconds)
                length = 0
                while (line := stream.readline().strip().lower()) != b"":
                    name, _, value = line.partition(b":")
                    length = int(value) if name == b"content-length" else length
                try:
                    self.received.append(len(stream.read(length)))
                    connection.sendall(http(body="{}", content_type="application/json"))
                except OSError:
                    continue
