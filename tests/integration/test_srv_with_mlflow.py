"""SRV as Kubernetes and Consul have it: real nameservers, and a real MLflow that only they know."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.refresh.names import refresh_names
from airflow_provider_hokusai_dns.resolver import Source
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.certificates import Authority
from tests.conftest import REGISTRY, Texts
from tests.nameservers import Nsd, RealServer, Unbound
from tests.servers import MLflowProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class Place(NamedTuple):
    """Where a name lives.

    :param service: the SRV name, relative to the zone.
    """

    zone: str
    service: str
    hostname: str


KUBERNETES = Place("cluster.local", "_http._tcp.mlflow.ns.svc", "mlflow.ns.svc.cluster.local")
CONSUL = Place("consul", "_mlflow._tcp.service", "mlflow.service.consul")


class SecondPort(socketserver.ThreadingTCPServer):
    """Another port of a server, as after a redeploy: passes bytes on, and counts connections."""

    daemon_threads = True

    def __init__(self, server: MLflowProcess) -> None:
        class PassOn(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer.connections += 1
                with socket.create_connection((server.host, server.port)) as there:
                    ends = {self.request: there, there: self.request}
                    while True:
                        for end in select.select(ends, (), ())[0]:
                            piece = end.recv(65536)
                            if not piece:
                                return
                            ends[end].sendall(piece)

        outer = self
        self.host, self.connections = server.host, 0
        super().__init__((server.host, 0), PassOn)
        self.port = self.server_address[1]


@pytest.fixture(scope="module", params=["https", "http"])
def running(request, tmp_path_factory) -> Iterator[tuple[MLflowProcess, Path | None]]:
    """A server, and the file of its CA where it speaks TLS."""
    folder = tmp_path_factory.mktemp(request.param)
    tls = ca_file = None
    if request.param == "https":
        authority = Authority(folder)
        tls, ca_file = authority.issue(KUBERNETES.hostname, CONSUL.hostname), authority.file
    with MLflowProcess(folder / "mlflow", host="127.0.0.71", tls=tls) as server:
        yield server, ca_file


def records(place: Place, server: MLflowProcess | SecondPort) -> list[str]:
    return [f"{place.service} 1 SRV 0 100 {server.port} node", f"node 1 A {server.host}"]


class Scene(NamedTuple):
    """One connection.

    :param publish: replaces the zone by these records, and waits until the nameserver says so.
    """

    place: Place
    server: MLflowProcess
    publish: Callable[..., None]


@pytest.fixture(
    params=[(KUBERNETES, "nsd"), (CONSUL, "unbound")],
    ids=lambda param: f"{param[0].zone}-{param[1]}",
)
def scene(request, running, connect, clean_runtime, tmp_path) -> Iterator[Scene]:
    (place, front), (mlflow, ca_file) = request.param, running
    with ExitStack() as stack:
        nsd = Nsd(tmp_path, place.zone, records(place, mlflow))
        server: RealServer = nsd
        stack.callback(nsd.stop)
        nsd.start()
        if front == "unbound":
            server = Unbound(tmp_path, nsd)
            stack.callback(server.stop)
            server.start()
        name = f"{place.service}.{place.zone}"
        as_host = {"host": name, "extra": {"srv_lookup": True}}
        beside = {"host": place.hostname, "extra": {"srv": name}}
        chosen = as_host if place is KUBERNETES else beside
        chosen["extra"] |= {"nameservers": [server.address]}
        if ca_file is not None:
            chosen["extra"]["ca_file"] = str(ca_file)
        connect(schema="http" if ca_file is None else "https", **chosen)
        clean_runtime.use_store(VariableStore(variables=Texts()))

        def publish(*lines: str, says: str = "") -> None:
            nsd.publish(*lines)
            # While nsd reads its zone again, its old process may still answer now and then.
            deadline, in_a_row = time.monotonic() + 20, 0
            while in_a_row < 10:
                answer = server.ask(name, "SRV")
                in_a_row = in_a_row + 1 if says in answer else 0
                assert time.monotonic() < deadline, answer
                time.sleep(0.05)

        yield Scene(place, mlflow, publish)


def test_healthy_moved_and_gone(scene):
    """Gate, run, client and refresh find the port, follow it, and keep it when the name is gone."""
    import mlflow

    done = check_connection("mlflow_default")
    assert done.verdict.state == "healthy", done.verdict
    assert done.resolution.places == (f"{scene.server.host}:{scene.server.port}",)
    hook = MLflowHook()
    assert hook.tracking_uri.endswith(f"://{scene.place.hostname}")
    with hook.run("srv") as run:
        mlflow.log_metric("loss", 1.0)
    assert hook.get_conn().get_run(run.info.run_id).data.metrics == {"loss": 1.0}

    with SecondPort(scene.server) as moved:
        threading.Thread(target=moved.serve_forever, args=(0.05,), daemon=True).start()
        scene.publish(*records(scene.place, moved), says=f" {moved.port} ")
        refresh_names(["mlflow_default"], [], probe=False)
        places = (f"{moved.host}:{moved.port}",)
        assert hook.resolve().places == places
        assert check_connection("mlflow_default").verdict.state == "healthy"
        assert moved.connections > 0
        assert hook.rest("GET", REGISTRY) == {}

        scene.publish("unrelated A 127.0.0.1", says="NXDOMAIN")
        gone = hook.refresh_dns_resolution()
        assert (gone.source, gone.cause, gone.places) == (Source.STALE, "nxdomain", places)
        assert hook.rest("GET", REGISTRY) == {}
        assert check_connection("mlflow_default").verdict.state == "degraded"
        moved.shutdown()
