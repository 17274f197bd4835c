"""What the endpoints add for the page: a fresh check, a limit of a stale address, the guide."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.gates.connection_health import (
    ConnectionHealth,
    ConnectionTarget,
    stale_limit_row,
)
from airflow_provider_hokusai_dns.health.judge import judge
from airflow_provider_hokusai_dns.plugins import health_cache
from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache
from airflow_provider_hokusai_dns.plugins.history_cache import HistoryCache
from airflow_provider_hokusai_dns.resolver import LastKnownGood, Resolution
from airflow_provider_hokusai_dns.resolver.model import Dates, Endpoint, Source, StaleLimit
from airflow_provider_hokusai_dns.resolver.testing import ManualClock
from airflow_provider_hokusai_dns.store.history import HistoryPoint, history_key, render_history
from airflow_provider_hokusai_dns.store.record import iso_seconds
from tests.conftest import HOSTNAME
from tests.plugins.test_endpoints import ask
from tests.values import a_server

NOW = 1_795_417_200.0


def test_concurrent_callers_of_a_fresh_process_all_get_the_history(usable, monkeypatch):
    """Also while another one reads it: "no refresh has ever run" would be wrong."""
    point = HistoryPoint(
        at=iso_seconds(time.time()), state="resolved", addresses=["10.0.0.1"], cause=None,
        lookup_ms=1.0, probe=None, probe_ms=None,
    )  # fmt: skip
    text = render_history(HOSTNAME, (point,))
    monkeypatch.setenv(f"AIRFLOW_VAR_{history_key(HOSTNAME).upper()}", text)
    client, together = ask(), threading.Barrier(6)

    def call() -> int:
        together.wait(10)
        return len(client.get("/history").json()["names"].get(HOSTNAME, ()))

    with ThreadPoolExecutor(6) as pool:
        assert [one.result() for one in [pool.submit(call) for _ in range(6)]] == [1] * 6


def test_a_caller_waits_for_another_who_reads_what_is_not_known_yet(monkeypatch):
    """For a bounded time; and reads nothing twice."""
    entered, go_on, reads = threading.Event(), threading.Event(), []

    class Store:
        def history(self, name):
            reads.append(name)
            entered.set()
            go_on.wait(10)
            return (), None

    monkeypatch.setattr("airflow_provider_hokusai_dns.runtime.store", lambda _: Store())
    histories, wanted = HistoryCache(), [ConnectionTarget("a.local")]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(histories.report, wanted)
        assert entered.wait(10)
        second = pool.submit(histories.report, wanted)
        go_on.set()
        assert list(second.result()["names"]) == list(first.result()["names"]) == ["a.local"]
    assert reads == ["a.local"]


def test_a_fresh_answer_checks_again_after_two_seconds(usable):
    """What a refresh changed is seen at once; and no caller makes it check without a bound."""
    now, checks = [0.0], []

    def check(conn_id):
        checks.append(now[0])
        return check_connection(conn_id)

    cache = HealthCache(check=check, now=lambda: now[0], patience=30.0)
    for now[0], fresh in ((0.0, False), (1.0, True), (3.0, False), (3.0, True), (4.0, True)):
        cache.connections(fresh=fresh)
    assert checks == [0.0, 3.0]


def a_stale_one(
    *, until: float, age: float = 100.0, seconds: float = 900.0, gone: bool = True
) -> Resolution:
    return Resolution(
        target=HOSTNAME,
        hostname=HOSTNAME,
        endpoints=(Endpoint("10.0.0.1"),),
        source=Source.STALE,
        dates=Dates(
            ManualClock(start=0), NOW, stamp=-age, limit=StaleLimit(until - NOW, seconds, gone)
        ),
    )


@pytest.mark.parametrize(
    ("until", "login_limit", "expected"),
    [
        (NOW - 100 + 86_400, None, {"ends_in": 86_300.0, "limit": 86_400.0, "rule": "age"}),
        (NOW + 840, None, {"ends_in": 840.0, "limit": 900.0, "rule": "no_such_name"}),
        (NOW + 840, 900.0, {"ends_in": 800.0, "limit": 900.0, "rule": "login_over_http"}),
        (NOW + 500, 900.0, {"ends_in": 500.0, "limit": 900.0, "rule": "no_such_name"}),
        (NOW - 5, None, {"ends_in": 0.0, "limit": 900.0, "rule": "no_such_name"}),
    ],
)
def test_the_sooner_limit_of_a_stale_address_is_told(until, login_limit, expected):
    """With its rule: 24 h of age, 15 min without the name, 15 min with a login over http."""
    target = ConnectionTarget(HOSTNAME, login_limit=login_limit)
    gone = until < NOW - 100 + 86_400
    found = a_stale_one(until=until, seconds=900.0 if gone else 86_400.0, gone=gone)
    assert stale_limit_row(found, target) == expected


def test_the_time_left_of_a_stale_address_follows_the_clock_of_the_policy():
    """It ends by the clock that does not step: a wall clock that does would tell another time."""
    found = a_stale_one(until=NOW + 840)
    clock = found.dates.clock
    clock.advance(40)
    clock.step_wall(3600)
    assert stale_limit_row(found, ConnectionTarget(HOSTNAME))["ends_in"] == 800


def test_a_name_that_is_gone_has_its_limit_at_the_endpoint(usable, dns, monkeypatch):
    """Out of a real resolver, which knows the address of a moment ago."""
    for option in ("MIN_TTL", "CACHE_TTL"):  # or the address of a moment ago would still be fresh
        monkeypatch.setenv(f"AIRFLOW__HOKUSAI_DNS__{option}", "0")
    client = ask(HealthCache(patience=30.0))
    assert client.get("/health/mlflow").json()["connections"][0]["stale"] is None
    dns.no_such_name(HOSTNAME)
    monkeypatch.setattr(health_cache, "_FRESH_EVERY", 0.0)
    (one,) = client.get("/health/mlflow?fresh=true").json()["connections"]
    assert one["dns"] == "degraded"
    assert one["stale"]["rule"] == "no_such_name"
    assert 880 < one["stale"]["ends_in"] <= 900


def test_a_policy_that_changes_after_the_check_does_not_change_the_rule(usable, dns, monkeypatch):
    """The time left is of the last check, so its limit is too; the next check has the new ones."""
    for option in ("MIN_TTL", "CACHE_TTL"):
        monkeypatch.setenv(f"AIRFLOW__HOKUSAI_DNS__{option}", "0")
    now = [0.0]
    client = ask(HealthCache(now=lambda: now[0], patience=30.0))
    client.get("/health/mlflow")
    dns.servfail(HOSTNAME)
    now[0] = 20.0
    client.get("/health/mlflow")
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__MAX_STALE", "172800")
    told = []
    for now[0] in (31.0, 40.0):  # the connection is read again; then the server is checked again
        (one,) = client.get("/health/mlflow").json()["connections"]
        told.append((one["stale"]["rule"], one["stale"]["limit"]))
    assert told == [("age", 86_400.0), ("age", 172_800.0)]


def test_the_limit_of_an_age_is_the_one_of_the_connection(usable, dns, monkeypatch):
    """Its own ``max_stale`` is part of its view of the name, and no other connection's."""
    for option in ("MIN_TTL", "CACHE_TTL"):
        monkeypatch.setenv(f"AIRFLOW__HOKUSAI_DNS__{option}", "0")
    usable(max_stale=5000)
    client = ask(HealthCache(patience=30.0))
    client.get("/health/mlflow")
    dns.servfail(HOSTNAME)
    monkeypatch.setattr(health_cache, "_FRESH_EVERY", 0.0)
    (one,) = client.get("/health/mlflow?fresh=true").json()["connections"]
    assert (one["stale"]["rule"], one["stale"]["limit"]) == ("age", 5000.0)
    assert 4900 < one["stale"]["ends_in"] <= 5000


@pytest.mark.parametrize(
    ("age", "away", "extra", "level"),
    [
        (1000, 100, {}, "degraded"),
        (1000, 901, {}, "unhealthy"),
        (90_000, 100, {}, "unhealthy"),
        (1000, 100, {"max_stale": 500}, "unhealthy"),
        (1000, 901, {"fallback_addresses": ("10.0.0.9",)}, "degraded"),
    ],
)
def test_a_name_that_is_gone_is_judged_by_what_is_still_served(
    age, away, extra, level, clean_runtime
):
    """From the record alone, before a check: both limits count, and so does a static address."""
    server = a_server(hostname=HOSTNAME, **extra)
    config = clean_runtime.resolver_for_server(server).config
    now = time.time()
    record = LastKnownGood(HOSTNAME, ("10.0.0.1",), now - age, no_name_since=now - away)
    assert ConnectionTarget.of(server, config, record).dns(now) == level


def test_a_stale_address_that_is_refused_has_no_time_left(usable, dns, monkeypatch):
    """No request goes there, whatever its age: "used for another 24 h" would be wrong."""
    for option in ("MIN_TTL", "CACHE_TTL"):
        monkeypatch.setenv(f"AIRFLOW__HOKUSAI_DNS__{option}", "0")
    usable(allow_stale_over_http="never")
    client = ask(HealthCache(patience=30.0))
    client.get("/health/mlflow")
    dns.servfail(HOSTNAME)
    monkeypatch.setattr(health_cache, "_FRESH_EVERY", 0.0)
    (one,) = client.get("/health/mlflow?fresh=true").json()["connections"]
    assert (one["cause"], one["source"]) == ("old_address_refused", "stale")
    assert one["stale"] is None


def test_an_address_that_is_refused_for_its_age_has_the_limit_that_has_passed():
    """That is why it is refused."""
    found = a_stale_one(until=NOW + 840, age=1000.0)
    target = ConnectionTarget(HOSTNAME, login_limit=900.0)
    verdict = judge(a_server(), found, checked_at=datetime.now(UTC), refusal="too old")
    row = ConnectionHealth("a", target, verdict, found).status_row()
    assert row["stale"] == {"ends_in": 0.0, "limit": 900.0, "rule": "login_over_http"}


def test_the_failure_guide_is_a_page_of_the_api_server(usable):
    """Without a script, and with an anchor for each word, also where one occurs twice."""
    answer = ask().get("/guide")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for anchor in ("causes-of-dns.timeout", "failures-of-a-request.timeout"):
        assert answer.text.count(f'id="{anchor}"') == 1
    assert "<script" not in answer.text
    assert ".md" not in answer.text.replace("failures.md", "")
