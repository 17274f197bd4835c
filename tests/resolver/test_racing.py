"""Trying addresses by short connects."""

from __future__ import annotations

import socket
import time

import pytest

from airflow_provider_hokusai_dns.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.pin import pin_host
from airflow_provider_hokusai_dns.resolver.racing import dial, race
from tests.servers import black_hole


def test_a_refusal_is_passed_at_once() -> None:
    """A refused address costs no pause, and is told as a loser."""
    with socket.create_server(("127.0.0.12", 0)) as server:
        port = server.getsockname()[1]
        started = time.monotonic()
        trial = race(["127.0.0.11", "127.0.0.12"], port)
        assert trial.winners == ("127.0.0.12",)
        assert trial.losers == ("127.0.0.11",)
        assert time.monotonic() - started < 0.9


def test_a_black_hole_holds_nobody_up() -> None:
    """An address that is silent is overtaken by the next, and is neither winner nor loser."""
    with black_hole("127.0.0.1") as port, socket.create_server(("127.0.0.12", port)):
        started = time.monotonic()
        trial = race(["127.0.0.1", "127.0.0.12"], port)
        assert trial.winners == ("127.0.0.12",)
        assert time.monotonic() - started < 0.9


def test_all_dead_is_bounded() -> None:
    """With nothing alive, everything is a loser within the time."""
    with black_hole("127.0.0.1") as port:
        started = time.monotonic()
        trial = race(["127.0.0.1", "127.0.0.11"], port, timeout=0.3)
        assert trial.winners == ()
        assert set(trial.losers) == {"127.0.0.1", "127.0.0.11"}
        assert trial.silent == {"127.0.0.1"}  # the other one refused
        assert time.monotonic() - started < 10


def test_ipv6_is_tried_as_well() -> None:
    """Families are mixed freely."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        trial = race(["127.0.0.11", "::1"], port)
        assert trial.winners == ("::1",)


def test_a_dial_of_ours_passes_the_pin() -> None:
    """A probe has a deadline of its own; the patience of a pinned address is for clients."""
    resolver = DNSResolver()
    with pin_host("127.0.0.11", resolver, patience=60.0):
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                dial("127.0.0.11", 9, 2.0)
        assert time.monotonic() - began < 5
