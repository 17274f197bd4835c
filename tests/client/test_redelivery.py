"""Batches whose way to the server broke are sent again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from mlflow.exceptions import MlflowException

from airflow_provider_hokusai_dns.client.auth import sign_in
from airflow_provider_hokusai_dns.client.delivery_hooks import deliver
from airflow_provider_hokusai_dns.client.run import open_run
from tests.servers import MLflowProcess
from tests.values import a_server

ENVIRONMENT_CHANGED = MlflowException("API request failed: '_MLFLOW_TELEMETRY_SESSION_ID'")
BAD_BATCH = MlflowException("INVALID_PARAMETER_VALUE: no such run")


def test_a_batch_that_met_a_changed_environment_is_sent_again_and_no_other() -> None:
    """What breaks on the way is the transport's, and a bad batch stays bad."""
    errors: list[Exception] = [
        BAD_BATCH,
        ENVIRONMENT_CHANGED,
        KeyError("_MLFLOW_TELEMETRY_SESSION_ID"),
    ]

    def send() -> str:
        if errors:
            raise errors.pop()
        return "taken"

    with pytest.raises(MlflowException, match="no such run"):
        deliver(send)
    assert deliver(send) == "taken"


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
