"""A resolver on a clock that is moved by hand, whose lookups are written down beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_hokusai_dns.resolver import DNSResolver, ResolverConfig
from airflow_provider_hokusai_dns.resolver.testing import (
    ManualClock,
    MemoryStore,
    ScriptedLookup,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def lookup(clock: ManualClock) -> ScriptedLookup:
    return ScriptedLookup(clock=clock, ttl=100)


@pytest.fixture
def store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def make(clock: ManualClock, lookup: ScriptedLookup) -> Iterator[Callable[..., DNSResolver]]:
    """Makes resolvers; at the end every lookup is let go, and nothing may be left under way.

    Settings are keywords; ``lookup``, ``store`` and ``clock`` are passed on. There is no jitter
    unless a test wants it.
    """
    made: list[DNSResolver] = []

    def build(**given: Any) -> DNSResolver:
        parts = {"lookup": lookup, "clock": clock}
        parts |= {key: given.pop(key) for key in ("lookup", "store", "clock") if key in given}
        resolver = DNSResolver(ResolverConfig(**{"jitter": 0.0, **given}), **parts)
        made.append(resolver)
        return resolver

    yield build
    lookup.release()
    for resolver in made:
        assert resolver.wait_idle(), "something is still under way"
