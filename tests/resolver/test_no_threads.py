"""The system allows no further thread: an event loop is not blocked for that."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

NAME = "mlflow.example.local"
#: A limit that holds for root too: each thread wants a stack that does not fit any more.
BEFORE = f"""
import asyncio, resource, socket, sys, threading, time
from airflow_provider_hokusai_dns.client.aio import aiohttp_resolver
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from airflow_provider_hokusai_dns.resolver.pin import pin_host
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup
import aiohttp

NAME = {NAME!r}

def allow_no_thread():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    threading.stack_size(512 * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (used + 128 * 2**20,) * 2)
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return
    sys.exit("threads can be started")

async def timed(awaitable):
    '''What came of it, and the longest time for which the loop did not turn.'''
    longest, last = 0.0, time.monotonic()
    task = asyncio.ensure_future(awaitable)
    while not task.done():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    error = task.exception()
    print(repr(error) if error else task.result(), file=sys.stderr)
    print("blocked" if longest > 1.0 else "free", type(error).__name__ if error else "answer")
"""


def run(code: str) -> str:
    """Run it under the limit, with a nameserver that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        nameserver = f"127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", BEFORE + textwrap.dedent(code), nameserver],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_coroutine_learns_at_once_that_no_lookup_can_be_made() -> None:
    """It was the lookup itself that ran on the loop, for as long as DNS was silent."""
    assert (
        run(
            """
            names = DNSResolver(ResolverConfig(nameservers=(sys.argv[1],), timeout=5.0))
            allow_no_thread()
            asyncio.run(timed(names.aresolve(NAME)))
            """
        )
        == "free DNSResolutionError"
    )


def test_a_coroutine_gets_what_is_known() -> None:
    """An answer that is past its lifetime is served, as for every other failure."""
    assert (
        run(
            """
            lookup = ScriptedLookup({NAME: "10.0.0.1"})
            names = DNSResolver(ResolverConfig(cache_ttl=0.1, min_ttl=0.0), lookup=lookup)
            names.resolve(NAME)
            names.wait_idle()
            time.sleep(0.2)
            allow_no_thread()
            lookup.hold(NAME, past_timeout=True)
            asyncio.run(timed(names.aresolve(NAME)))
            """
        )
        == "free answer"
    )


def test_aiohttp_gets_an_error_that_it_knows() -> None:
    """An :class:`OSError`, as of every resolver."""
    assert (
        run(
            """
            names = DNSResolver(ResolverConfig(nameservers=(sys.argv[1],), timeout=5.0))
            async def main():
                resolver = aiohttp_resolver()
                await timed(resolver.resolve(NAME, 80, socket.AF_INET))
                await resolver.close()
            with pin_host(NAME, names):
                allow_no_thread()
                asyncio.run(main())
            """
        )
        == "free OSError"
    )


def test_a_gate_waits_until_a_thread_can_be_started() -> None:
    """It says nothing about MLflow that no check can be made now."""
    assert (
        run(
            """
            import logging
            from airflow_provider_hokusai_dns.gates import shared_probes
            from airflow_provider_hokusai_dns.config.server import MLflowServer
            logging.basicConfig(stream=sys.stderr)
            shared_probes._THREAD_PAUSE = 0.1
            async def read(conn_id):
                return MLflowServer(conn_id="ml", scheme="http", hostname="127.0.0.1", port=9)
            shared_probes._read = read
            async def main():
                key = shared_probes.ProbeKey.of("ml", (), 1.0)
                await timed(asyncio.wait_for(shared_probes._check(key), 0.5))
            allow_no_thread()
            asyncio.run(main())
            """
        )
        == "free TimeoutError"
    )


def test_a_thread_does_the_work_itself() -> None:
    """It would only wait for another one."""
    assert (
        run(
            """
            names = DNSResolver(lookup=ScriptedLookup({NAME: "10.0.0.1"}))
            allow_no_thread()
            names.warm([NAME])
            print(names.resolve(NAME).source)
            """
        )
        == "cache"
    )


def test_a_call_that_blocks_its_loop_anyway_gets_its_answer() -> None:
    """Code that connects in a coroutine without awaiting: its own thread does the work."""
    assert (
        run(
            """
            lookup = ScriptedLookup({NAME: ("127.0.0.1", "127.0.0.2")})
            server = socket.create_server(("", 0))
            port = server.getsockname()[1]
            async def main():
                socket.create_connection((NAME, port)).close()
                print("connected")
            with pin_host(NAME, DNSResolver(lookup=lookup), port=port):
                allow_no_thread()
                asyncio.run(main())
            """
        )
        == "connected"
    )
