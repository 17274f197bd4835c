"""The faults of the system that this package replaces: what must be true instead.

Those of its MLflow side (retries that multiply, runs never ended, the breaker, endpoints, the key
file) have their tests beside the code that replaced them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import Cause, DNSResolver, ResolverConfig, Source
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup

NAME = "mlflow.hokusai-development.local"
OTHER = "other.hokusai-development.local"


def test_two_threads_with_a_loop_each_both_come_back():
    """Two threads, each with a loop of its own, resolve one slow name: both come back."""
    lookup = ScriptedLookup({NAME: "10.0.0.1"})
    resolver = DNSResolver(lookup=lookup)
    lookup.hold(NAME)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(lambda: asyncio.run(resolver.aresolve(NAME))) for _ in range(2)]
        lookup.wait_for_calls(NAME)
        lookup.release()
        assert {call.result(5).address for call in calls} == {"10.0.0.1"}
    assert resolver.wait_idle()


def test_callers_of_a_failing_name_share_one_lookup():
    """Twenty callers of a failing name share one lookup: the last is told when the first is."""
    lookup = ScriptedLookup({NAME: Cause.SERVFAIL})
    resolver = DNSResolver(lookup=lookup)
    lookup.hold(NAME)

    def call() -> float:
        with pytest.raises(DNSResolutionError):
            resolver.resolve(NAME)
        return time.monotonic()

    with ThreadPoolExecutor(20) as pool:
        calls = [pool.submit(call) for _ in range(20)]
        lookup.wait_for_calls(NAME)
        time.sleep(0.1)
        lookup.release()
        ends = [call.result(5) for call in calls]
    assert max(ends) - min(ends) < 5
    assert lookup.calls(NAME) == 1
    assert resolver.wait_idle()


def test_a_silent_server_costs_the_timeout_once(dns):
    """A silent server costs the time that was set, and not a multiple of it."""
    dns.silent()
    resolver = DNSResolver(ResolverConfig(nameservers=(dns.address,), timeout=0.5))
    started = time.monotonic()
    with pytest.raises(DNSResolutionError) as caught:
        resolver.resolve(NAME)
    assert time.monotonic() - started < 4
    assert caught.value.cause is Cause.TIMEOUT
    assert resolver.wait_idle()


def test_a_failure_is_cached(make, lookup):
    """A hundred calls of a dead name ask once."""
    resolver = make()
    lookup.set(NAME, Cause.SERVFAIL)
    for _ in range(100):
        with pytest.raises(DNSResolutionError):
            resolver.resolve(NAME)
    assert lookup.calls(NAME) == 1


@pytest.mark.parametrize(("cause", "limit"), [(Cause.TIMEOUT, 86_400), (Cause.NXDOMAIN, 900)])
def test_a_stale_answer_has_a_limit(make, lookup, clock, cause, limit):
    """There is an end to it: a day while DNS is dead, 900 s when the name is gone."""
    lookup.script(NAME, "10.0.0.1", cause)
    resolver = make(ttl_overrides={NAME: 0})
    resolver.resolve(NAME)
    for _ in range(10):
        clock.advance(limit / 10 - 0.01)
        assert resolver.resolve(NAME).source is Source.STALE
        assert resolver.wait_idle()
    clock.advance(limit / 5)
    with pytest.raises(DNSResolutionError):
        resolver.resolve(NAME)


def test_the_static_address_is_given_for_its_hostname_only(make, lookup):
    """It belongs to one hostname: not to another, nor to a part of it, nor to what contains it."""
    resolver = make(static_addresses={NAME: ("10.9.9.9",)})
    assert resolver.resolve(f"http://{NAME.upper()}:5000").source is Source.STATIC
    for name in (OTHER, f"x.{NAME}", NAME.partition(".")[2], f"{NAME}.example"):
        with pytest.raises(DNSResolutionError):
            resolver.resolve(name)


@pytest.mark.parametrize(
    ("url", "rendered"),
    [
        ("http://a.b/a.b", "http://10.0.0.1/a.b"),
        ("http://x/y?host=a.b&u=http://a.b/", None),
        ("http://a.b:80/?u=a.b#a.b", "http://10.0.0.1:80/?u=a.b#a.b"),
        ("http://a.b:a.b@a.b/", "http://a.b:a.b@10.0.0.1/"),
        ("HTTP://A.B/Path", "HTTP://10.0.0.1/Path"),
        ("http://h/http", "http://10.0.0.2/http"),
    ],
)
def test_only_the_host_of_a_url_is_rewritten(make, lookup, url, rendered):
    """Only the host changes: not the path, the query, the userinfo; also for upper-case names."""
    lookup.set("a.b", "10.0.0.1")
    lookup.set("h", "10.0.0.2")
    lookup.set("x", "10.0.0.3")
    expected = rendered or url.replace("//x/", "//10.0.0.3/")
    assert str(make().resolve(url)) == expected


def test_ipv6_can_be_used(make, lookup, dns):
    """As a literal, as an answer, as a static address; with brackets where a URL wants them."""
    assert str(make().resolve("http://[fd00::1]:5000/x")) == "http://[fd00::1]:5000/x"
    dns.set_records(NAME, ["fd00::2"])
    asked = make(lookup=None, nameservers=(dns.address,))
    assert str(asked.resolve(f"http://{NAME}:5000/x")) == "http://[fd00::2]:5000/x"
    static = make(static_addresses={NAME: ("fd00::3",)})
    assert str(static.resolve(f"{NAME}:5000")) == "[fd00::3]:5000"


@pytest.mark.parametrize("text", ["1", "127.1", "0x7f.1", "1.2", "010.0.0.1", "2130706433"])
def test_odd_numbers_are_not_taken_for_addresses(make, text):
    """``127.1`` and ``0x7f.1`` mean what the reader likes: refused, as target and setting."""
    with pytest.raises(ValueError, match="address"):
        make().resolve(text)
    with pytest.raises(ValueError, match="static_addresses"):
        ResolverConfig(static_addresses={NAME: (text,)})


def test_the_ttl_of_the_record_counts(dns, make, clock):
    """A record of ten seconds is looked up again after ten seconds, not after five minutes."""
    dns.set_records(NAME, ["10.0.0.1"], ttl=10)
    resolver = make(lookup=None, nameservers=(dns.address,))
    resolver.resolve(NAME)
    dns.set_records(NAME, ["10.0.0.2"], ttl=10)
    clock.advance(10)
    assert resolver.resolve(NAME).address == "10.0.0.2"


def test_all_addresses_are_used(make, lookup):
    """All are there, and each takes its turn."""
    lookup.set(NAME, ("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    resolver = make()
    resolver.resolve(NAME)
    found = [resolver.resolve(NAME) for _ in range(3)]
    assert {f.address for f in found} == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert all(len(f.addresses) == 3 for f in found)


def test_the_error_rate_is_that_of_the_last_minutes(make, lookup, clock):
    """After an hour of failures five good minutes are enough, not fifteen hours."""
    lookup.set(NAME, Cause.TIMEOUT)
    resolver = make(static_addresses={NAME: ("10.9.9.9",)})
    for _ in range(1000):
        resolver.refresh(NAME)
        clock.advance(3.6)
    assert resolver.metrics().level == "unhealthy"
    lookup.set(NAME, "10.0.0.1")
    for _ in range(20):
        clock.advance(15)
        resolver.refresh(NAME)
    assert resolver.metrics().level == "healthy"
    assert resolver.metrics().error_rate == 0


@pytest.mark.parametrize("step", [-10_000_000, 10_000_000])
def test_a_step_of_the_wall_clock_does_not_change_a_lifetime(make, lookup, clock, step):
    """Setting the clock neither ends a lifetime nor makes it longer."""
    lookup.script(NAME, "10.0.0.1", "10.0.0.2")
    resolver = make()
    resolver.resolve(NAME)
    clock.step_wall(step)
    assert resolver.resolve(NAME).source is Source.CACHE
    clock.advance(101)
    assert resolver.resolve(NAME).address == "10.0.0.2"


def test_zero_is_not_taken_for_the_default(make, lookup, clock):
    """No cache, no stale, no failure cache: as said, and not 300, 86400 and 1."""
    lookup.script(NAME, "10.0.0.1", "10.0.0.2", Cause.SERVFAIL)
    resolver = make(cache_ttl=0, max_stale=0, failure_ttl=0)
    assert [resolver.resolve(NAME).address for _ in range(2)] == ["10.0.0.1", "10.0.0.2"]
    for _ in range(3):
        with pytest.raises(DNSResolutionError):
            resolver.resolve(NAME)
    assert lookup.calls(NAME) == 5
    assert ResolverConfig(cache_ttl=0).cache_ttl == 0


def test_nothing_grows_with_the_number_of_names(make, lookup, clock):
    """After thousands of names nothing is left beyond the bound: slots, flights, threads."""
    before = threading.active_count()
    resolver = make(max_hosts=16)
    for number in range(3000):
        name = f"h{number}.local"
        if number % 2:
            lookup.set(name, "10.0.0.1")
            resolver.resolve(name)
            resolver.resolve(f"http://{name}/")
        else:
            with pytest.raises(DNSResolutionError):
                resolver.resolve(name)
    assert resolver.wait_idle()
    assert resolver.metrics().cache_size <= 16
    assert len(resolver._ready) <= 64
    assert not resolver._updater.flights._flights
    assert threading.active_count() <= before + 64


@pytest.mark.parametrize("url", ["https:///x", "http://", "http://:80", "http://@/"])
def test_a_url_without_a_host_is_a_clear_error(make, url):
    """It is a clear error, before anything is done."""
    with pytest.raises(ValueError, match="host"):
        make().resolve(url)


async def test_the_sync_function_resolves_inside_a_running_loop(make, lookup):
    """It resolves there as anywhere."""
    lookup.set(NAME, "10.0.0.1")
    assert str(make().resolve(f"http://{NAME}:5000")) == "http://10.0.0.1:5000"
