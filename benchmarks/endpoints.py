"""``python -m benchmarks.endpoints``: what 200 callers of our endpoints cost Airflow's API server.

The 99th percentile of Airflow's own health endpoint: alone, beside callers while MLflow is well,
and beside them while MLflow takes connections and answers nothing. The callers are a process of
their own and keep a fixed rate, so that the three are comparable; the looks are counted at the
server that hangs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import requests

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.integration.api_server import ApiServer
from tests.servers import Stranger, looks_like_mlflow

CALLERS = 200
PATHS = ("/health/mlflow", "/ready", "/metrics", "/health")
NAME = "mlflow.bench.local"


async def call(url: str, token: str, seconds: float, every: float) -> list[int]:
    """200 callers, each of whom asks every few seconds; gives the statuses."""
    import aiohttp

    end = time.monotonic() + seconds
    statuses: list[int] = []

    async def caller(number: int, session: aiohttp.ClientSession) -> None:
        await asyncio.sleep(every * number / CALLERS)
        while time.monotonic() < end:
            begun = time.monotonic()
            async with session.get(f"{url}/hokusai-dns{PATHS[number % len(PATHS)]}") as answer:
                await answer.read()
                statuses.append(answer.status)
            await asyncio.sleep(max(0.0, every - (time.monotonic() - begun)))

    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"}, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        await asyncio.gather(*(caller(number, session) for number in range(CALLERS)))
    return statuses


def p99_ms(url: str, seconds: float) -> float:
    """Of Airflow's own health endpoint."""
    took = []
    end = time.monotonic() + seconds
    with requests.Session() as session:
        while time.monotonic() < end or len(took) < 50:
            begun = time.monotonic()
            session.get(f"{url}/api/v2/monitor/health", timeout=60)
            took.append((time.monotonic() - begun) * 1000)
            time.sleep(0.02)
    return quantiles(took, n=100)[-1]


def beside(server: ApiServer, seconds: float, every: float) -> tuple[float, int]:
    """The percentile beside the callers, and how many answers those got."""
    arguments = [server.url, server.token("viewer"), str(seconds), str(every)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.endpoints", "--call", *arguments],
        stdout=subprocess.PIPE,
    ) as callers:
        p99 = p99_ms(server.url, seconds)
        assert callers.stdout is not None
        statuses = json.loads(callers.stdout.read())
    assert set(statuses) <= {200, 503}, set(statuses)
    return p99, len(statuses)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each of the three")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between a caller's calls")
    parser.add_argument("--call", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        url, token, seconds, every = options.call
        print(json.dumps(asyncio.run(call(url, token, float(seconds), float(every)))))
        return

    hanging = False

    def answer(request: object) -> bytes | Iterator[bytes]:
        return hang() if hanging else looks_like_mlflow(request)

    def hang() -> Iterator[bytes]:
        mlflow.wait(60)
        yield b""

    with (
        tempfile.TemporaryDirectory() as home,
        DNSServer() as dns,
        Stranger(answer, host="127.0.0.48") as mlflow,
        ApiServer(Path(home), {}) as server,
    ):
        dns.set_records(NAME, [mlflow.host])
        server.connect(host=NAME, port=mlflow.port, extra={"nameservers": dns.address})
        alone = p99_ms(server.url, options.seconds)
        well, _ = beside(server, options.seconds, options.every)
        hanging = True
        before = len(mlflow.requests)
        hung, answers = beside(server, options.seconds, options.every)
        looks = sum(one.path == "/health" for one in mlflow.requests[before:])
    print(
        f"p99 of Airflow's health: {alone:.0f} ms alone; {well:.0f} ms ({well / alone:.1f} x) "
        f"beside {CALLERS} callers, one call each {options.every:.0f} s; {hung:.0f} ms "
        f"({hung / alone:.1f} x) beside them while MLflow hangs"
    )
    print(f"{answers} answers in {options.seconds:.0f} s, {looks} looks at MLflow")


if __name__ == "__main__":
    main()
