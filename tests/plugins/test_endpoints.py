"""What the endpoints answer; who may read them is tested at a real API server."""

from __future__ import annotations

import json
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI
from markdown_it import MarkdownIt
from prometheus_client.parser import text_string_to_metric_families

from airflow_provider_hokusai_dns.gates.check import check_connection, misconfigured
from airflow_provider_hokusai_dns.gates.connection_health import (
    ConnectionHealth,
    ConnectionTarget,
)
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.plugins import guide, prometheus
from airflow_provider_hokusai_dns.plugins.endpoints import Headers, add_endpoints
from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache
from airflow_provider_hokusai_dns.plugins.history_cache import note
from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.store.history import HistoryPoint, history_key, render_history
from airflow_provider_hokusai_dns.store.record import iso_seconds, render_record, variable_key
from tests.conftest import HOSTNAME, SEARCH
from tests.servers import wait_until
from tests.values import metric_names

with warnings.catch_warnings():  # it would rather have another client, which Airflow has not
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

REPOSITORY = Path(__file__).parents[2]
#: One that a browser would run, a quote that ends a label, and a line break.
EVIL = '<script>alert(1)</script>"\\\n'


def ask(cache: HealthCache | None = None) -> TestClient:
    """The endpoints as a user sees them who may see all."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(Headers)
    add_endpoints(app, cache or HealthCache(patience=30.0), [])
    return TestClient(app)


@pytest.fixture
def variable(monkeypatch):
    """Put a text into a Variable."""

    def put(key, text):
        monkeypatch.setenv(f"AIRFLOW_VAR_{key.upper()}", text)

    return put


def no_nonsense(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


class TestTheDetails:
    """As the contract of the page says."""

    def test_are_whole_and_typed(self, usable, tiny, variable):
        """Every field of version 1: address, source, age, and whose eyes saw it."""
        record = LastKnownGood(HOSTNAME, ("10.0.0.1",), time.time() - 60, written_by="refresh")
        variable(variable_key(HOSTNAME), render_record(record))
        answer = ask().get("/health/mlflow")
        assert answer.headers["x-content-type-options"] == "nosniff"
        body = json.loads(answer.text, parse_constant=no_nonsense)
        assert body["version"] == 1
        assert body["seen_by"]["pid"] > 0
        (one,) = body["connections"]
        assert (one["state"], one["dns"], one["mlflow"], one["cause"]) == (*["healthy"] * 3, None)
        assert (one["addresses"], one["hostname"]) == ([tiny.address], HOSTNAME)
        assert (one["source"], one["variable_problem"]) == ("dns", None)
        assert 0 <= one["age"] < 60
        assert 0 < one["ttl_left"] <= 10
        assert one["latency_ms"] > 0
        assert one["looked_at"].endswith("Z")
        assert one["last_known_good"]["written_by"] == "refresh"

    def test_tell_a_stale_address_and_why(self, usable, dns, tiny, variable):
        """Degraded, with the cause as data and a sentence for people."""
        record = LastKnownGood(HOSTNAME, (tiny.address,), time.time() - 60)
        variable(variable_key(HOSTNAME), render_record(record))
        dns.no_such_name(HOSTNAME)
        (one,) = ask().get("/health/mlflow").json()["connections"]
        assert (one["state"], one["dns"], one["cause"]) == ("degraded", "degraded", "nxdomain")
        assert (one["source"], one["addresses"]) == ("store", [tiny.address])
        assert one["ttl_left"] is None
        assert "nxdomain" in one["sentence"]

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"version": 1, "hostname": NaN}', f'"{EVIL}"', "\x00"]
    )
    def test_tell_of_a_variable_edited_into_nonsense(self, usable, variable, text, tiny):
        """Passed over by the check, and shown as what it is."""
        variable(variable_key(HOSTNAME), text.replace("\x00", "nul"))
        answer = ask().get("/health/mlflow")
        (one,) = json.loads(answer.text, parse_constant=no_nonsense)["connections"]
        assert variable_key(HOSTNAME) in one["variable_problem"]
        assert one["last_known_good"] is None
        assert one["state"] == "healthy"

    def test_can_be_asked_for_one_connection(self, usable, connect, monkeypatch, tiny):
        """Only what is listed is looked at; what a caller makes up is not even repeated."""
        connect("other", host="nowhere.local")
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "mlflow_default, other")
        client = ask()
        one = client.get("/health/mlflow", params={"conn_id": "mlflow_default"}).json()
        assert [each["conn_id"] for each in one["connections"]] == ["mlflow_default"]
        for unknown in ("missing", EVIL, "x" * 60_000, ""):
            answer = client.get("/health/mlflow", params={"conn_id": ["other", unknown]})
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/json"
            assert len(answer.text) < 200
        assert tiny.count(SEARCH) == 1

    def test_say_that_the_list_of_connections_is_wrong(self, monkeypatch):
        """The one thing that must not fail is what tells of it."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "[broken")
        client = ask()
        body = client.get("/health/mlflow").json()
        assert (body["connections"], "JSON list" in body["problem"]) == ([], True)
        assert client.get("/ready").status_code == 503
        assert "hokusai_dns_connections_setting_broken 1.0" in client.get("/metrics").text

    def test_log_a_wrong_setting_again_that_was_right_in_between(self, monkeypatch, caplog):
        """Once each time, however often it is read."""
        now = [0.0]
        cache = HealthCache(now=lambda: now[0])
        for times in (1, 2):
            for listed, every in [("[broken", "soon"), ("[broken", "soon"), ("ml", "20")]:
                monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", listed)
                monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__LOOK_EVERY", every)
                now[0] += 1000.0
                cache.listed()
            assert caplog.text.count("Health of MLflow is unknown") == times
            assert caplog.text.count("look_every: ") == times

    def test_never_let_html_be_more_than_text(self, connect, clean_runtime, monkeypatch):
        """A hostname, an id and a sentence come from people; nothing of ours is HTML but /docs."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", json.dumps([EVIL]))
        client = ask()
        for path in ("/health", "/ready", "/health/mlflow", "/history", "/metrics"):
            answer = client.get(path)
            assert "html" not in answer.headers["content-type"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        (family,) = [
            one
            for one in text_string_to_metric_families(client.get("/metrics").text)
            if one.name == prometheus.CONNECTION_CAUSE
        ]
        assert family.samples[0].labels["conn_id"] == EVIL


class TestReady:
    """For load balancers of what depends on MLflow."""

    def test_is_200_while_every_connection_can_be_used(self, usable):
        """At degraded or better."""
        answer = ask().get("/ready")
        assert (answer.status_code, answer.json()["mlflow"]) == (200, "healthy")

    def test_is_503_when_one_cannot(self, usable, connect, monkeypatch, tiny):
        """In words only, whatever is wrong."""
        connect("other", host="nowhere.local", extra={"nameservers": "127.0.0.1:1"})
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "mlflow_default, other")
        monkeypatch.setenv("DNS_TIMEOUT", "0.5")
        answer = ask().get("/ready")
        assert answer.status_code == 503
        assert answer.json()["overall"] == "unhealthy"
        assert "local" not in answer.text


class TestOneLookHoweverManyAsk:
    """One probe per interval, and no caller waits for a server that hangs."""

    def test_200_callers_wait_for_nothing_while_a_check_hangs(self, usable):
        """Only who set it going waits, and only for a moment."""
        go_on, checks = threading.Event(), []

        def check(conn_id):
            checks.append(conn_id)
            go_on.wait(30)
            return check_connection(conn_id)

        cache = HealthCache(check=check, patience=1.0)
        took = []

        def call():
            begun = time.monotonic()
            cache.connections()
            took.append(time.monotonic() - begun)

        callers = [threading.Thread(target=call) for _ in range(200)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(30)
        go_on.set()
        assert len(took) == 200
        assert checks == ["mlflow_default"]
        assert sum(seconds > 0.9 for seconds in took) <= 2

    def test_fifty_connections_are_looked_at_together(self, connect, monkeypatch, clean_runtime):
        """And the page has its answer in the patience of one."""
        ids = [f"c{number}" for number in range(50)]
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", ",".join(ids))
        go_on = threading.Event()

        def check(conn_id):
            go_on.wait(30)
            return misconfigured(conn_id, ValueError("x"))

        cache = HealthCache(check=check, patience=0.5)
        begun = time.monotonic()
        assert len(cache.connections()) == 50
        assert time.monotonic() - begun < 10
        go_on.set()

    def test_a_check_that_breaks_is_repeated_at_the_next_interval(self, usable, caplog):
        """A bug of ours must not end all checks of a connection."""

        class Clock:
            now = 0.0

            def __call__(self):
                return self.now

        clock, answers = Clock(), [RuntimeError("x")]

        def check(conn_id):
            if answers:
                raise answers.pop()
            return check_connection(conn_id)

        cache = HealthCache(check=check, now=clock, patience=30.0)
        assert cache.connections()[0].mlflow == "unknown"
        assert "RuntimeError" in caplog.text
        clock.now = 20.0
        assert cache.connections()[0].mlflow == "healthy"

    def test_an_old_verdict_is_not_passed_off_as_a_new_one(self, usable):
        """Without a request for ten minutes there was no check: the word is then "unknown"."""
        clock = [0.0]
        cache = HealthCache(now=lambda: clock[0], patience=30.0)
        cache.connections()
        assert cache.words()["mlflow"] == "healthy"
        clock[0] = 600.0
        assert cache.words()["mlflow"] == "unknown"

    def test_the_verdict_of_a_former_server_is_not_told_of_an_edited_connection(
        self, usable, connect, monkeypatch
    ):
        """The row names the new host at once, and nothing has been asked there yet."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__LOOK_EVERY", "600")
        clock = [0.0]
        cache = HealthCache(now=lambda: clock[0], patience=30.0)
        assert cache.connections()[0].mlflow == "healthy"
        connect(host="edited.local", port=1)
        clock[0] = 11.0
        row = cache.connections()[0].status_row()
        assert (row["hostname"], row["state"], row["addresses"]) == ("edited.local", "unknown", [])
        row = cache.connections()[0].status_row()
        assert (row["hostname"], row["state"]) == ("edited.local", "unhealthy")
        assert "edited.local" in row["sentence"]

    def test_nor_is_one_that_a_check_still_brings_after_the_edit(self, usable, connect):
        """The check began before it, and lasts: that is why the connection was edited."""
        clock = [0.0]
        of_the_former = check_connection("mlflow_default")

        def check(conn_id):
            wait_until(
                lambda: cache.connections(check=False)[0].target.hostname == "edited.local", 30
            )
            return of_the_former

        cache = HealthCache(check=check, now=lambda: clock[0], patience=30.0)
        assert cache.connections(check=False)[0].target.hostname == HOSTNAME
        connect(host="edited.local", port=1)
        clock[0] = 11.0
        row = cache.connections()[0].status_row()
        assert (row["hostname"], row["state"], row["addresses"]) == ("edited.local", "unknown", [])


def test_a_hundred_calls_give_one_line(usable, tiny, caplog):
    """What is wrong, since when nothing changed; and one line when it is over."""
    clock = [0.0]
    cache = HealthCache(now=lambda: clock[0], patience=30.0)
    tiny.answers["/health"] = (503, "down")

    def told():
        return [r.getMessage() for r in caplog.records if r.name.endswith("cache")]

    for clock[0] in range(0, 2000, 20):
        cache.connections()
    (line,) = told()
    assert "mlflow_default" in line
    assert "unhealthy" in line
    tiny.answers.clear()
    caplog.set_level("INFO")
    for clock[0] in range(2000, 4000, 20):
        cache.connections()
    assert len(told()) == 2


class TestTheHistory:
    """What the refresh DAG wrote."""

    def point(self, seconds_ago, **given):
        usual = {"state": "resolved", "addresses": ["10.0.0.1"], "cause": None, "lookup_ms": 12.0,
                 "probe": "healthy", "probe_ms": 41.0}  # fmt: skip
        return HistoryPoint(at=iso_seconds(time.time() - seconds_ago), **{**usual, **given})

    def test_is_shown_by_name(self, usable, variable):
        """Oldest first, with its age."""
        points = (self.point(600), self.point(120, state="failed", cause="nxdomain"))
        variable(history_key(HOSTNAME), render_history(HOSTNAME, points))
        body = ask().get("/history").json()
        assert [one["state"] for one in body["names"][HOSTNAME]] == ["resolved", "failed"]
        assert (body["newest"], body["version"]) == (points[1]["at"], 1)
        assert 119 <= body["age"] <= 150
        assert body["note"] == "The last refresh was 2 minutes ago."

    def test_edited_into_nonsense_is_told(self, usable, variable):
        """And is empty."""
        variable(history_key(HOSTNAME), '{"version": 1, "points": NaN}')
        answer = ask().get("/history")
        body = json.loads(answer.text, parse_constant=no_nonsense)
        assert body["names"] == {HOSTNAME: []}
        assert "is ignored" in body["problems"][HOSTNAME]

    @pytest.mark.parametrize(
        ("bad", "said"), [([1], "1 point in the Variable"), ([1, 2], "2 points in the Variable")]
    )
    def test_counts_the_points_that_are_ignored(self, usable, variable, bad, said):
        """In the singular too."""
        document = json.loads(render_history(HOSTNAME, (self.point(60),)))
        document["points"] += bad
        variable(history_key(HOSTNAME), json.dumps(document))
        problem = ask().get("/history").json()["problems"][HOSTNAME]
        assert problem.startswith(said)

    @pytest.mark.parametrize(
        ("age", "said"),
        [(None, "unpause and trigger"), (30.0, "less than a minute"), (3700.0, "1 hour ago."),
         (20_000.0, "5 hours ago: check whether the DAG hokusai_dns_refresh is paused")],
    )  # fmt: skip
    def test_says_what_to_do_about_its_age(self, age, said):
        """Paused, without a schedule, or never run."""
        assert said in note(age)
        assert "could not be read" in note(None, unread=True)


def a_known(hostname=HOSTNAME, **changes):
    from datetime import UTC, datetime

    verdict = Verdict(state=State.HOST_REJECTED, cause="invalid_host_header", sentence="x",
                      conn_id="c", tracking_uri="u", checked_at=datetime.now(UTC),
                      address="10.0.0.1", latencies={"health": 12.0})  # fmt: skip
    return ConnectionHealth("c", ConnectionTarget(hostname), verdict, **changes)


class TestTheMetrics:
    """Prometheus text, by the reference parser."""

    def test_are_what_the_parser_reads(self, usable, variable):
        """One state of each kind is 1, and the numbers are seconds."""
        record = LastKnownGood(HOSTNAME, ("10.0.0.1",), time.time() - 60)
        variable(variable_key(HOSTNAME), render_record(record))
        answer = ask().get("/metrics")
        assert answer.headers["content-type"] == prometheus.CONTENT_TYPE
        samples = [
            sample
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        ]
        labels = {"conn_id": "mlflow_default", "hostname": HOSTNAME}
        states = {
            sample.labels["state"]: sample.value
            for sample in samples
            if sample.name == prometheus.CONNECTION_STATE
        }
        assert states == {"healthy": 1, "degraded": 0, "unhealthy": 0, "unknown": 0}
        (age,) = [s for s in samples if s.name == "hokusai_dns_last_known_good_age_seconds"]
        assert age.labels == labels
        assert 59 <= age.value <= 90
        assert {s.name for s in samples} <= metric_names()

    @pytest.mark.parametrize("hostname", [EVIL, "ünï.local", '\\"', "a\nb 1.0"])
    def test_escape_what_stands_in_a_label(self, hostname):
        """A hostname cannot add a line of its own."""
        text = prometheus.render([a_known(hostname)], {"errors": {"timeout": 2}}).decode()
        families = list(text_string_to_metric_families(text))
        named = [s.labels["hostname"] for f in families for s in f.samples if "conn_id" in s.labels]
        assert named
        assert set(named) == {hostname}
        (cause,) = [f for f in families if f.name == prometheus.CONNECTION_CAUSE]
        assert cause.samples[0].labels["cause"] == "invalid_host_header"
        assert cause.samples[0].labels["state"] == "host_rejected"

    def test_are_all_that_the_alert_rules_name(self):
        """Rules that people copy must not wait for a series that never comes."""
        import re

        rules = yaml.safe_load((REPOSITORY / "docs" / "alerts.yml").read_text())
        (group,) = rules["groups"]
        assert len(group["rules"]) >= 3
        for rule in group["rules"]:
            names = set(re.findall(r"\bhokusai_dns_\w+", rule["expr"]))
            assert names
            assert names <= metric_names()
            assert {"summary", "description"} <= rule["annotations"].keys()
            assert rule["labels"]["severity"] in ("critical", "warning")

    @pytest.mark.parametrize(("given", "opens"), [("True", True), ("False", False), ("?", False)])
    def test_are_for_anyone_only_where_the_setting_says_so(self, monkeypatch, given, opens, caplog):
        """A wrong value opens nothing, and is told."""
        from fastapi import Depends, HTTPException

        def no_user():
            raise HTTPException(401)

        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__METRICS_FOR_ANYONE", given)
        app = FastAPI()
        add_endpoints(app, HealthCache(check=lambda conn_id: misconfigured(conn_id, ValueError())),
                      [Depends(no_user)])  # fmt: skip
        assert TestClient(app).get("/metrics").status_code == (200 if opens else 401)
        assert TestClient(app).get("/health/mlflow").status_code == 401
        assert ("metrics_for_anyone" in caplog.text) == (given == "?")


def test_the_reference_describes_every_endpoint():
    """With its example, and without a script or anything from elsewhere."""
    client = ask()
    shape = client.get("/openapi.json").json()
    page = client.get("/docs")
    assert shape["paths"].keys() == {"/health", "/ready", "/health/mlflow", "/history", "/metrics"}
    for path in shape["paths"]:
        assert f"GET {path}" in page.text
    assert "10.0.1.221" in page.text
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_the_guide_is_rendered_once_for_all_who_open_it(monkeypatch):
    """mdurl, which the parser uses, fills a table at its first use: others read the half of it."""
    inside, parse = [], MarkdownIt.parse

    def counted(self, text):
        inside.append(threading.get_ident())
        return parse(self, text)

    monkeypatch.setattr(MarkdownIt, "parse", counted)
    guide._rendered.cache_clear()
    client = ask()
    with ThreadPoolExecutor(8) as threads:
        answers = [*threads.map(lambda _: client.get("/guide"), range(8))]
    assert {answer.status_code for answer in answers} == {200}
    assert len(inside) == 1
