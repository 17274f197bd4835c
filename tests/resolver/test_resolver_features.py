"""Bounds, failure cache, addresses, warming, configuration."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import replace

import pytest

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import (
    Answer,
    Cause,
    DNSResolver,
    Endpoint,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.cache import Cache
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup

NAME = "mlflow.example.local"
OTHER = "other.example.local"
STATIC = {"static_addresses": {NAME: ("10.9.9.9",)}}


# --- bounds and the failure cache


def test_cleanup_drops_what_has_nothing_left_to_serve(make, lookup, clock):
    """By call: old answers past their limit and forgotten failures; nothing else."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make(max_stale=1000)
    resolver.resolve(NAME)
    with pytest.raises(DNSResolutionError):
        resolver.resolve(OTHER)
    clock.advance(9)
    assert resolver.cleanup() == 0
    clock.advance(1)
    assert resolver.cleanup() == 1
    clock.advance(989)
    assert resolver.cleanup() == 0
    clock.advance(1)
    assert resolver.cleanup() == 1
    metrics = resolver.metrics()
    assert metrics.cache_size == 0
    assert (metrics.attempts, metrics.misses, metrics.failed) == (2, 1, 1)


def test_a_name_whose_first_lookup_has_not_begun_is_not_cleaned_away():
    """Its caller is between making the place and filling it."""
    cache = Cache()
    cache.add(NAME)
    assert cache.cleanup(1e9, ResolverConfig(), lambda slot: False) == 0


def test_cleanup_happens_in_the_background_of_ordinary_calls(make, lookup, clock):
    """No caller has to call it."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make()
    with pytest.raises(DNSResolutionError):
        resolver.resolve(OTHER)
    clock.advance(61)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    assert resolver.metrics().cache_size == 1


def test_cleanup_leaves_a_lookup_under_way_alone(make, lookup, clock):
    """A name that is looked up for the first time has something to come."""
    lookup.set(NAME, "10.0.0.1")
    lookup.hold(NAME)
    resolver = make()
    resolver.warm([NAME])
    lookup.wait_for_calls(NAME)
    assert resolver.cleanup() == 0
    lookup.release()
    assert resolver.wait_idle()
    assert resolver.resolve(NAME).source is Source.CACHE


def test_cleanup_leaves_a_failed_name_alone_while_it_is_looked_up_again(make, lookup, clock):
    """Who comes after the cleanup joins the lookup under way."""
    resolver = make()
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)
    clock.advance(60)
    lookup.set(NAME, "10.0.0.1")
    lookup.hold(NAME)
    resolver.warm([NAME])
    lookup.wait_for_calls(NAME, 2)
    assert resolver.cleanup() == 0
    lookup.release()
    assert resolver.resolve(NAME).address == "10.0.0.1"
    assert lookup.calls(NAME) == 2


def test_cleanup_keeps_a_name_that_lives_on_its_static_address(make, lookup, clock):
    """Or its next caller would wait for a dead DNS again."""
    lookup.set(NAME, Cause.TIMEOUT)
    resolver = make(**STATIC)
    resolver.resolve(NAME)
    clock.advance(29)
    assert resolver.cleanup() == 0
    resolver.resolve(NAME)
    assert lookup.calls(NAME) == 1


def test_a_failure_is_remembered_and_the_pause_doubles(make, lookup, clock):
    """A dead DNS is asked 1, 2, 4, 8, 10, 10 s apart, however often callers come."""
    lookup.set(NAME, Cause.SERVFAIL)
    resolver = make()
    asked = []
    for tenth in range(400):
        calls = lookup.calls(NAME)
        with pytest.raises(DNSResolutionError):
            resolver.resolve(NAME)
        if lookup.calls(NAME) > calls:
            asked.append(tenth / 10)
        clock.advance(0.1)
    gaps = [round(b - a) for a, b in itertools.pairwise(asked)]
    assert gaps == [1, 2, 4, 8, 10, 10]
    assert resolver.metrics().failed == 400


# --- addresses


def test_addresses_are_all_kept_and_rotated(make, lookup):
    """Every address is first in its turn."""
    addresses = tuple(f"10.0.0.{n}" for n in range(1, 9))
    lookup.set(NAME, addresses)
    resolver = make()
    resolver.resolve(NAME)
    firsts = Counter()
    for _ in range(80):
        found = resolver.resolve(NAME)
        assert sorted(found.addresses) == sorted(addresses)
        firsts[found.address] += 1
    assert set(firsts.values()) == {10}


def test_processes_that_resolve_once_each_lookup_do_not_all_take_the_first(make, lookup):
    """The turn goes on from lookup to lookup, also where each answer is used once only."""
    lookup.set(NAME, ("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    resolver = make()
    assert {resolver.refresh(NAME).address for _ in range(3)} == {
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    }


@pytest.mark.parametrize("six_first", [True, False])
def test_families_are_interleaved(make, lookup, monkeypatch, six_first):
    """One dead family costs one try; which is first depends on whether there is a way to IPv6."""
    monkeypatch.setattr(
        "airflow_provider_hokusai_dns.resolver.ready.ipv6_is_routable", lambda: six_first
    )
    lookup.set(NAME, ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"))
    resolver = make()
    for _ in range(10):
        found = resolver.resolve(NAME).addresses
        kinds = [":" in a for a in found]
        assert kinds == (
            [True, False, True, False, False] if six_first else [False, True, False, True, False]
        )


def test_a_reported_address_goes_to_the_back_on_the_hit_path_too(make, lookup, clock):
    """At once and for 30 s; then it takes its turn again."""
    lookup.set(NAME, ("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    resolver = make()
    resolver.resolve(NAME)
    resolver.resolve(NAME)
    resolver.report_failure(f"http://{NAME}/x", "10.0.0.2")
    assert resolver.wait_idle()
    for _ in range(9):
        assert resolver.resolve(NAME).addresses[-1] == "10.0.0.2"
    clock.advance(30)
    assert "10.0.0.2" in {resolver.resolve(NAME).address for _ in range(3)}


def test_a_report_of_nonsense_is_a_value_error_and_of_a_stranger_nothing(make, lookup):
    """A name that is not held has nothing to reorder."""
    resolver = make()
    with pytest.raises(ValueError, match="'nowhere'"):
        resolver.report_failure(NAME, "nowhere")
    resolver.report_failure(NAME, "10.0.0.1")
    assert lookup.calls() == 0


def test_reports_do_not_pile_up(make, lookup, clock):
    """A million reports of other addresses leave no million penalties."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make()
    resolver.resolve(NAME)
    lookup.set(NAME, Cause.TIMEOUT)
    for number in range(2000):
        resolver.report_failure(NAME, f"10.1.{number // 250}.{number % 250}")
        clock.advance(1)
    assert resolver.wait_idle()
    assert len(resolver._state.find(NAME).penalties) < 100


def test_an_answer_may_carry_a_port_per_address(make, lookup):
    """SRV comes later; the shape is there: the port of the first endpoint goes into the text."""
    lookup.set(NAME, Answer((Endpoint("10.0.0.1", 5001), Endpoint("fd00::1", 5002)), Source.DNS))
    resolver = make()
    found = {str(resolver.resolve(f"http://{NAME}:80/x")) for _ in range(9)}
    assert found <= {"http://10.0.0.1:5001/x", "http://[fd00::1]:5002/x"}
    assert resolver.resolve(NAME).port in (5001, 5002)


# --- warming


def test_refresh_ahead_keeps_a_used_name_fresh_without_anybody_waiting(make, lookup, clock):
    """A use in the last fifth starts the lookup; its answer is there before the old one ends."""
    lookup.script(NAME, "10.0.0.1", "10.0.0.2")
    resolver = make()
    resolver.resolve(NAME)
    clock.advance(85)
    lookup.hold(NAME)
    assert resolver.resolve(NAME).address == "10.0.0.1"
    lookup.release()
    assert resolver.wait_idle()
    clock.advance(75)
    found = resolver.resolve(NAME)
    assert (found.source, found.address) == (Source.CACHE, "10.0.0.2")


def test_a_single_text_is_no_list_of_names_to_warm(make, lookup):
    """Its letters would be looked up."""
    with pytest.raises(ValueError, match=f"targets must be a list, not '{NAME}'"):
        make().warm(NAME)
    assert not lookup.calls()


def test_warming_looks_names_up_in_the_background(make, lookup):
    """All of them, without waiting; and what is fresh already is left alone."""
    names = [f"h{n}.local" for n in range(200)]
    for name in names:
        lookup.set(name, "10.0.0.1")
    resolver = make()
    resolver.warm(names)
    assert resolver.wait_idle()
    resolver.warm(names)
    assert resolver.wait_idle()
    assert lookup.calls() == 200
    assert {resolver.resolve(name).source for name in names} == {Source.CACHE}


def test_warming_does_not_ask_a_dead_dns_again_and_again(make, lookup):
    """The failure cache holds for it as for every caller."""
    resolver = make()
    for _ in range(5):
        resolver.warm([NAME])
        assert resolver.wait_idle()
    assert lookup.calls(NAME) == 1


# --- configuration


def test_a_new_configuration_holds_at_once(make, lookup, clock):
    """What is cached stays, and is judged by the new numbers, on the hit path too."""
    lookup.script(NAME, "10.0.0.1", Cause.TIMEOUT)
    resolver = make()
    resolver.resolve(NAME)
    assert resolver.resolve(NAME).source is Source.CACHE
    clock.advance(60)
    resolver.reconfigure(replace(resolver.config, cache_ttl=50))
    assert resolver.resolve(NAME).source is Source.STALE
    resolver.reconfigure(replace(resolver.config, max_stale=0, **STATIC))
    assert resolver.resolve(NAME).source is Source.STATIC
    resolver.reconfigure(replace(resolver.config, static_addresses={}))
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)
    resolver.reconfigure(replace(resolver.config, max_stale=86_400))
    assert resolver.resolve(NAME).source is Source.STALE


def test_a_broken_configuration_is_refused_and_the_old_one_kept(make, lookup):
    """The error names field and value."""
    resolver = make()
    before = resolver.config
    with pytest.raises(ValueError, match=r"timeout.*-1"):
        resolver.reconfigure(replace(resolver.config, timeout=-1))
    assert resolver.config is before


def test_new_nameservers_are_asked_and_a_given_lookup_is_kept(dns, make, lookup, clock):
    """The default lookup follows the configuration; one that was passed in is the caller's."""
    resolver = make(lookup=None, nameservers=("127.0.0.1:1",), timeout=0.2)
    dns.set_records(NAME, ["10.0.0.1"])
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)
    clock.advance(2)
    resolver.reconfigure(replace(resolver.config, nameservers=(dns.address,), window=10))
    assert resolver.resolve(NAME).source is Source.DNS
    lookup.set(NAME, "10.0.0.7")
    given = make()
    given.reconfigure(replace(given.config, nameservers=(dns.address,)))
    assert given.resolve(NAME).address == "10.0.0.7"


def test_reconfiguring_while_threads_resolve_never_raises(make, lookup):
    """A thousand swaps under eight threads: every call gets an answer."""
    lookup.set(NAME, ("10.0.0.1", "10.0.0.2"))
    resolver = make()
    resolver.resolve(NAME)
    stop, errors = threading.Event(), []

    def work():
        while not stop.is_set():
            try:
                resolver.resolve(NAME)
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(300):
        resolver.reconfigure(replace(resolver.config, cache_ttl=100 + number % 7))
    stop.set()
    for thread in threads:
        thread.join(10)
    assert errors == []


# --- 0 means 0


@pytest.mark.parametrize("more", [{}, {"max_stale": 0}])
def test_without_caching_every_answer_is_live_and_fresh(make, lookup, more):
    """``DNS_CACHE_TTL=0``: each call looks up, and what it finds is not stale but an answer."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make(cache_ttl=0, **more)
    for _ in range(3):
        found = resolver.resolve(NAME)
        assert (found.source, found.is_stale) == (Source.DNS, False)
    assert resolver.refresh(NAME).source is Source.DNS
    assert lookup.calls(NAME) == 4
    assert resolver.metrics().misses == 4


def test_with_every_number_zero_the_resolver_still_answers():
    """0 is legal everywhere it is allowed."""
    from dataclasses import fields

    zeros = {
        f.name: 0.0
        for f in fields(ResolverConfig)
        if f.type == "float" and f.name not in ("timeout", "window")
    }
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    resolver = DNSResolver(ResolverConfig(**zeros), lookup=lookup)
    assert resolver.resolve(NAME).address == "10.0.0.1"
    lookup.set(NAME, Cause.NXDOMAIN)
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)
