"""Batches whose way to the server broke are sent again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from mlflow.exceptions import MlflowException
from requests.exceptions import ChunkedEncodingError, ConnectionError, ConnectTimeout
from urllib3.exceptions import ReadTimeoutError

from airflow_provider_hokusai_dns.client.auth import sign_in
from airflow_provider_hokusai_dns.client.redelivery import deliver, was_on_the_way
from airflow_provider_hokusai_dns.client.run import open_run
from tests.servers import MLflowProcess
from tests.values import a_server


def as_mlflow_raises_it(error: Exception) -> MlflowException:
    """MLflow raises its own while it handles the other, without a ``from``."""
    try:
        try:
            raise error
        except Exception:
            raise MlflowException(f"API request failed with exception {error}")  # noqa: B904
    except MlflowException as wrapped:
        return wrapped


BROKEN_OFF = as_mlflow_raises_it(ChunkedEncodingError("Connection broken: IncompleteRead"))
STOPPED = as_mlflow_raises_it(
    ConnectionError(ReadTimeoutError(None, "/", "Read timed out."))  # type: ignore[arg-type]
)
POOL_FULL = MlflowException("QueuePool limit of size 5 overflow 10 reached")
ENVIRONMENT_CHANGED = as_mlflow_raises_it(KeyError("_MLFLOW_TELEMETRY_SESSION_ID"))
NO_SERVER = as_mlflow_raises_it(ConnectTimeout("nobody there"))
BAD_BATCH = MlflowException("INVALID_PARAMETER_VALUE: no such run")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (BROKEN_OFF, True),
        (STOPPED, True),
        (POOL_FULL, True),
        (ENVIRONMENT_CHANGED, True),
        (KeyError("_MLFLOW_TELEMETRY_SESSION_ID"), True),
        (NO_SERVER, False),
        (BAD_BATCH, False),
    ],
)
def test_only_what_mlflow_does_not_repeat_itself_is_repeated(error: Exception, again: bool) -> None:
    """A server that is away was waited for already, and a bad batch stays bad."""
    assert was_on_the_way(error) is again


def test_what_succeeds_in_the_end_is_returned_and_what_does_not_is_raised() -> None:
    """The last error comes out as it is; the number of sendings is bounded."""
    errors = [BROKEN_OFF, POOL_FULL]

    def send() -> str:
        if errors:
            raise errors.pop()
        return "taken"

    assert deliver(send, pause=0.0) == "taken"
    sent = []

    def never() -> None:
        sent.append(1)
        raise POOL_FULL

    with pytest.raises(MlflowException, match="QueuePool"):
        deliver(never, pause=0.0)
    assert len(sent) == 6


class BreakingProxy:
    """Passes connections on to a server, and breaks off the first answer to a batch."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self.broken = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            breaks = threading.Event()
            threading.Thread(
                target=self._requests, args=(client, server, breaks), daemon=True
            ).start()
            while data := server.recv(65536):
                head, separator, _ = data.partition(b"\r\n\r\n")
                if breaks.is_set():
                    client.sendall(head + separator)  # the answer is there, its body is not
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)

    def _requests(
        self, client: socket.socket, server: socket.socket, breaks: threading.Event
    ) -> None:
        try:
            while data := client.recv(65536):
                if b"/runs/log-batch" in data:
                    with self._lock:
                        if not self.broken:
                            self.broken += 1
                            breaks.set()
                server.sendall(data)
        except OSError:
            pass


@pytest.fixture
def proxy(mlflow_server: MLflowProcess) -> Iterator[BreakingProxy]:
    proxy = BreakingProxy(mlflow_server.host, mlflow_server.port)
    yield proxy
    proxy.close()


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_an_answer_that_breaks_off_costs_a_run_nothing(
    mlflow_server: MLflowProcess, proxy: BreakingProxy
) -> None:
    """The server took the batch and was stopped in the middle of its answer."""
    import mlflow

    server = a_server(hostname=mlflow_server.host, port=proxy.port)
    with open_run(server, sign_in(server)) as active:
        for step in range(20):
            mlflow.log_metric("loss", 1.0, step=step, synchronous=False)
    assert proxy.broken == 1
    client = mlflow.MlflowClient(mlflow_server.uri)
    assert client.get_run(active.info.run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(active.info.run_id, "loss")) == 20
