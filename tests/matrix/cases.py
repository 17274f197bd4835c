"""Runs the cells of the matrix; a script, because most of what is looked at is the process's.

MLflow and Airflow are imported once. Then every case is a process of its own, forked as Airflow
forks its tasks: with an own name server, an own resolver and an own environment.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from airflow_provider_hokusai_dns.resolver.model import LastKnownGood
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from airflow_provider_hokusai_dns.store.record import render_record, variable_key
from tests.matrix import axes, flows

CONN_ID = "mlflow_matrix"
_TTL = 1
_forking = multiprocessing.get_context("fork")


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """All flows of one setup, in the given columns one after the other."""
    os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps(case["connection"])
    with DNSServer() as dns:
        os.environ["AIRFLOW__HOKUSAI_DNS__NAMESERVERS"] = dns.address
        os.environ["AIRFLOW__HOKUSAI_DNS__MIN_TTL"] = "0.5"
        os.environ["AIRFLOW__HOKUSAI_DNS__TIMEOUT"] = "2"
        world = _World(dns, case["addresses"])
        return {column: _guarded(world, column) for column in case["columns"]}


class _World:
    """The names of one case, and what DNS says of them."""

    def __init__(self, dns: DNSServer, addresses: dict[str, str]) -> None:
        self.dns = dns
        self.addresses = addresses

    def heal(self) -> None:
        for name, address in self.addresses.items():
            self.dns.heal(name)
            self.dns.set_records(name, [address], ttl=_TTL)

    def break_down(self, how: str) -> None:
        for name in self.addresses:
            if how == "no such name":
                self.dns.no_such_name(name)
            elif how == "SERVFAIL":
                self.dns.servfail(name)
            elif how == "silent":
                self.dns.silent(name)

    def store(self) -> None:
        """What another task left behind a minute ago."""
        for name, address in self.addresses.items():
            record = LastKnownGood(name, (address,), time.time() - 60, ttl=10.0)
            os.environ[f"AIRFLOW_VAR_{variable_key(name).upper()}"] = render_record(record)


def _guarded(world: _World, column: str) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        seen = _run_column(world, column)
    except BaseException:
        seen = {"error": traceback.format_exc()}
    return {**seen, "seconds": round(time.perf_counter() - started, 1)}


def _run_column(world: _World, column: str) -> dict[str, Any]:
    from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

    how, _, knowledge = column.partition(", ")
    hook = MLflowHook(CONN_ID)
    if knowledge == "store":
        world.store()
    else:
        world.heal()
        for name in world.addresses:
            hook.resolver.refresh(name)
    world.break_down(how)
    if knowledge == "memory":
        time.sleep(_TTL + 0.1)
    cells = _run_flows(hook)
    found = hook.resolve()
    if found.is_stale and found.cause is None:  # the flows were quicker than the first lookup
        hook.resolver.wait_idle(15)
        found = hook.resolve()
    return {
        "cells": cells,
        "source": found.source.value if found.is_stale else "fresh",
        "cause": None if found.cause is None else found.cause.value,
        "only_the_pin": _system_knows_nothing(hook.server.hostname),
    }


def _run_flows(hook: Any) -> dict[str, str]:
    """By flow: ``ok``, or what went wrong."""
    cells: dict[str, str] = {}
    under_way = {}
    folder = Path(tempfile.mkdtemp())
    try:
        with hook.run(axes.EXPERIMENT) as run:
            task = flows.Task(hook, hook.get_conn(), run.info.run_id, folder)
            for name, flow in flows.BY_NAME.items():
                _hang_up()
                under_way[name] = flow(task)
                _step(cells, name, under_way[name])
        for name in [name for name in under_way if name not in cells]:
            _hang_up()
            _step(cells, name, under_way[name], last=True)
    except BaseException:
        cells |= {name: traceback.format_exc() for name in axes.FLOWS if name not in cells}
    finally:
        shutil.rmtree(folder)
    return cells


def _step(cells: dict[str, str], name: str, flow: Any, *, last: bool = False) -> None:
    try:
        next(flow)
    except StopIteration:
        cells[name] = "ok"
    except Exception:
        cells[name] = traceback.format_exc()
    else:
        if last:
            cells[name] = "a flow has one yield"


def _hang_up() -> None:
    """What five idle seconds do: the server hangs up, and the name is needed again."""
    from mlflow.utils.request_utils import _cached_get_request_session

    _cached_get_request_session.cache_clear()


def _system_knows_nothing(hostname: str) -> bool:
    import _socket

    try:
        _socket.getaddrinfo(hostname, 80)  # the C function, which no pin stands before
    except OSError:
        return True
    return False


def _run_group(cases: list[dict[str, Any]], out: Path) -> None:
    """Run the cases of one MLflow server, each in its process, and write after each what it saw."""
    seen: dict[str, dict[str, Any]] = {case["setup"]: {} for case in cases}
    with _forking.Pool(1, maxtasksperchild=1) as pool:
        for case, columns in zip(cases, pool.imap(run_case, cases), strict=True):
            seen[case["setup"]] |= columns
            out.write_text(json.dumps(seen))


def main(spec: Path, folder: Path) -> int:
    """Run the cases of a file; one file per server for what they saw.

    One at a time per server: its SQLite is locked for many seconds when several clients write.
    """
    import airflow.sdk  # noqa: F401
    import mlflow.tracing

    from airflow_provider_hokusai_dns.client import run  # noqa: F401
    from airflow_provider_hokusai_dns.health import probe  # noqa: F401
    from airflow_provider_hokusai_dns.hooks import mlflow, rest  # noqa: F401

    groups: dict[str, list[dict[str, Any]]] = {}
    for case in json.loads(spec.read_text()):
        groups.setdefault(case["server"], []).append(case)
    processes = [
        _forking.Process(target=_run_group, args=(cases, folder / f"{server}.json"))
        for server, cases in groups.items()
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return max(abs(process.exitcode or 0) for process in processes)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
