"""Every public entrance ends by the deadline that it names, and half a second."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_hokusai_dns.client import adapters, transport
from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.health.breaker import breaker_for
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache
from airflow_provider_hokusai_dns.resolver.pin import pinned
from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor
from tests.conftest import HOSTNAME
from tests.servers import Request, Stranger, black_hole, free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
]

#: What a deadline may be overshot by, seconds.
GRACE = 0.5
#: What MLflow's client spends on its own work, and a busy machine on everything.
SLACK = 0.5
CALL, IN_RUN, PROBE = 3, 5, 2.0
ADDRESS = "127.0.0.77"
#: Bytes that come now and then outlast each time-out of MLflow's client: README, Limits.
NOT_BOUNDED = {("dripping", name) for name in ("hook.run", "client call", "client call in a run")}


def drip(_request: Request) -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    while True:
        time.sleep(0.2)
        yield b" "


@contextlib.contextmanager
def condition(name: str, dns: Any, connect: Callable[..., str]) -> Iterator[tuple[MLflowHook, Any]]:
    """A connection whose server is as the name says, and a hook that has pinned it."""
    extra: dict[str, Any] = {"request_timeout": CALL, "deadline": IN_RUN}
    extra["nameservers"] = dns.address
    host = ADDRESS if name == "IP literal" else HOSTNAME
    dns.heal(HOSTNAME)
    dns.set_records(HOSTNAME, [ADDRESS], ttl=60)
    with contextlib.ExitStack() as stack:
        port = free_port(ADDRESS)
        if name == "black hole":
            stack.enter_context(black_hole(ADDRESS, port))
        elif name == "dripping":
            stack.enter_context(Stranger(drip, host=ADDRESS, port=port))
        connect(host=host, port=port, extra=extra)
        hook = MLflowHook()
        client = hook.get_conn()
        if name == "DNS silent":
            dns.silent(HOSTNAME)
            hook.resolver.clear(HOSTNAME)
        yield hook, client


class TaskInstance:
    try_number = 1

    def xcom_push(self, key: str, value: object) -> None: ...

    def get_first_reschedule_date(self, context: object) -> None:
        return None


def gate(**given: Any) -> Callable[[], object]:
    sensor = MLflowHealthSensor(
        task_id="gate", probe_timeout=PROBE, timeout=0.1, poke_interval=0.05, **given
    )
    return lambda: sensor.execute({"ti": TaskInstance()})


def entrances() -> dict[str, tuple[float, Callable[[MLflowHook, Any], object]]]:
    """Those that MLflow's own settings or the breaker hold for: each in an outage of its own."""

    def run(hook: MLflowHook, client: Any) -> None:
        with hook.run():
            pass

    def in_run(hook: MLflowHook, client: Any) -> None:
        server = hook.server
        pin = pinned(server.hostname)
        assert pin is not None
        with (
            adapters.run_is_open(server.conn_id),
            pin.patient(server.deadline, transport.CONNECT_TIMEOUT),
        ):
            client.search_experiments()

    return {
        "hook.run": (CALL, run),
        "client call": (CALL, lambda hook, client: client.search_experiments()),
        "client call in a run": (IN_RUN, in_run),
        "rest": (CALL, lambda hook, client: hook.rest("GET", "/api/2.0/mlflow/experiments/get")),
    }


def checks() -> Iterator[tuple[str, float, Callable[[], object]]]:
    """Those that have nothing in common: side by side."""
    refresh = DNSRefreshOperator(task_id="refresh")
    yield "gate, poke", PROBE, gate()
    yield "gate, reschedule", PROBE, gate(mode="reschedule")
    yield "gate, deferrable", PROBE, gate(deferrable=True)
    yield "probe", PROBE, lambda: check_connection("mlflow_default", deadline=PROBE)
    # The lookup and one probe, 10 s each.
    yield "refresh", 20.0, lambda: refresh.execute({"ti": TaskInstance()})
    yield "page", 10.0, lambda: HealthCache(patience=3.0).connections()
    yield "command line", 10.0, lambda: check_connection("mlflow_default", written_by="cli")


def seconds_of(call: Callable[[], object]) -> float:
    began = time.monotonic()
    with contextlib.suppress(Exception, TaskDeferred):
        call()
    return time.monotonic() - began


def test_every_entrance_ends_by_its_deadline(
    dns: Any, connect: Callable[..., str], clean_runtime: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the table of seconds that each took."""
    import airflow_provider_hokusai_dns.hooks.rest  # noqa: F401  the import is no part of a call

    names = ["DNS silent", "black hole", "refusal", "dripping", "IP literal"]
    table: dict[str, dict[str, float]] = {}
    late = []
    for name in names:
        limits = {}
        for entrance, (limit, call) in entrances().items():
            limits[entrance] = limit
            if (name, entrance) in NOT_BOUNDED:
                continue
            clean_runtime.forget()
            with condition(name, dns, connect) as (hook, client):
                breaker_for(hook.server).reset()
                took = seconds_of(partial(call, hook, client))
                table.setdefault(entrance, {})[name] = took
        clean_runtime.forget()
        with condition(name, dns, connect), ThreadPoolExecutor(8) as pool:
            begun = [(each[0], each[1], pool.submit(seconds_of, each[2])) for each in checks()]
            for entrance, limit, future in begun:
                limits[entrance] = limit
                table.setdefault(entrance, {})[name] = future.result()
        late += [
            (entrance, name, table[entrance][name], limit)
            for entrance, limit in limits.items()
            if table[entrance].get(name, 0.0) > limit + GRACE + SLACK
        ]
    with capsys.disabled():
        lines = [f"{'entrance':22} {'deadline':>8}" + "".join(f"{name:>12}" for name in names)]
        for entrance, row in table.items():
            cells = (f"{row[name]:12.2f}" if name in row else f"{'-':>12}" for name in names)
            lines.append(f"{entrance:22} {limits[entrance]:8.1f}" + "".join(cells))
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert late == []
