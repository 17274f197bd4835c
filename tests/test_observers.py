"""Every name of the design arrives where Airflow's metrics go."""

from __future__ import annotations

import configparser
import gzip
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.conftest import HOSTNAME
from tests.docs.blocks import all_blocks

#: Without ``hokusai_dns.`` in front; whether the hostname is a tag.
NAMES = {
    "lookup": True,
    "lookup_ms": True,
    "probe_ms": True,
    "error.nxdomain": True,
    "error.timeout": True,
    "cache_hit": False,
    "stale_served": False,
    "static_served": False,
    "breaker.open": False,
}
REPOSITORY = Path(__file__).parents[1]
CLOUDWATCH = [block for block in all_blocks() if block.file == "docs/cloudwatch.md"]


def metrics_section(marker: str) -> dict[str, str]:
    """The configuration of Airflow on the CloudWatch page that has this option."""
    (text,) = [b.text for b in CLOUDWATCH if b.language == "ini" and f"{marker} = " in b.text]
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return dict(parser["metrics"])


def alarms() -> dict[str, str]:
    """The metrics of the alarms to copy, each with the kind that its dimension selects."""
    (text,) = [block.text for block in CLOUDWATCH if block.words == ("alarms",)]
    properties = [one["Properties"] for one in yaml.safe_load(text)["Resources"].values()]
    return {one["MetricName"]: one["Dimensions"][0]["Value"] for one in properties}


def emit(**settings: str) -> None:
    """Run the script with these settings of section ``[metrics]``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW__METRICS")}
    environment |= {f"AIRFLOW__METRICS__{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "tests.emit_metrics"],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_statsd_gets_every_name():
    """At a real UDP listener; plain StatsD has no tags, so no hostname is in any name.

    The alarms for CloudWatch select counters that arrive here.
    """
    received: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        listener.settimeout(0.5)
        port = str(listener.getsockname()[1])
        emit(**metrics_section("statsd_on") | {"statsd_host": "127.0.0.1", "statsd_port": port})
        while True:
            try:
                received += listener.recv(65536).decode().splitlines()
            except TimeoutError:
                break
    ours = {line.partition(":")[0]: line for line in received if "hokusai_dns" in line}
    assert {f"airflow.hokusai_dns.{name}" for name in NAMES} <= ours.keys()
    assert ours["airflow.hokusai_dns.lookup"].endswith("|c")
    assert ours["airflow.hokusai_dns.probe_ms"].endswith("|ms")
    assert {name: ours[name].rpartition("|")[2] for name in alarms()} == dict.fromkeys(
        alarms(), "c"
    )
    assert set(alarms().values()) == {"counter"}
    assert not any("local" in name or "127" in name for name in ours)


@pytest.fixture
def collector():
    """An OTLP listener over HTTP; gives what it was sent."""
    pytest.importorskip("opentelemetry.proto", reason="Airflow's OpenTelemetry is not installed")
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            bodies.append(gzip.decompress(body) if zipped else body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_address[1], bodies
    server.shutdown()
    thread.join()
    server.server_close()


def test_opentelemetry_gets_every_name_and_the_hostname(collector):
    """As a collector receives it, OTLP over HTTP; here the hostname is an attribute."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
    )

    port, bodies = collector
    emit(**metrics_section("otel_on") | {"otel_host": "127.0.0.1", "otel_port": str(port)})
    found: dict[str, set[tuple[str, str]]] = {}
    for body in bodies:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = getattr(metric, metric.WhichOneof("data")).data_points
                    tags = {(a.key, a.value.string_value) for p in points for a in p.attributes}
                    found.setdefault(metric.name, set()).update(tags)
    ours = {f"airflow.hokusai_dns.{name}": tagged for name, tagged in NAMES.items()}
    assert ours.keys() | alarms().keys() <= found.keys()
    of_a_name = {name for name in ours if "hostname" in dict(found[name])}
    assert of_a_name == {name for name, tagged in ours.items() if tagged}
    assert ("hostname", HOSTNAME) in found["airflow.hokusai_dns.lookup"]
    assert ("hostname", HOSTNAME) in found["airflow.hokusai_dns.probe_ms"]


@pytest.mark.parametrize("forks", [False, True])
def test_a_silent_name_of_the_statsd_server_holds_no_lookup_up(dns, usable, forks):
    """Airflow looks it up with the first metric of a process, and of each forked child."""
    code = f"""
import socket, time
from multiprocessing import get_context

from airflow.providers.common.compat.sdk import Stats
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

def silent():
    time.sleep(10)
    raise socket.gaierror(-3, "Temporary failure in name resolution")

def main():
    began = time.monotonic()
    assert MLflowHook().resolve().source == "dns"
    took = time.monotonic() - began
    assert took < 5, took

Stats.initialize(factory=silent, export_legacy_names=True)
if {forks}:
    process = get_context("fork").Process(target=main)
    process.start()
    process.join()
    assert process.exitcode == 0
else:
    main()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
