"""What a gate sees, and when it gives up."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.cli.explain import StoredRecord, explain
from airflow_provider_hokusai_dns.config.connections import load_server
from airflow_provider_hokusai_dns.gates.check import check_connection, check_server, former_status
from airflow_provider_hokusai_dns.gates.decision import (
    DEFAULT_FAIL_FAST,
    Strikes,
    check_arguments,
    in_one_line,
)
from airflow_provider_hokusai_dns.health.breaker import breaker_for
from airflow_provider_hokusai_dns.health.reply import OPEN_CHECKS
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.conftest import HOSTNAME, REGISTRY, SEARCH, Texts


def verdict(state: State) -> Verdict:
    return Verdict(
        state=state,
        cause="x",
        sentence="So it is.",
        conn_id="c",
        tracking_uri="http://h",
        checked_at=datetime.now(UTC),
    )


class TestStrikes:
    """Three times the same cause that waiting cannot cure, without a break."""

    def after(self, *states: State) -> Strikes:
        strikes = Strikes()
        for state in states:
            strikes = strikes.after(verdict(state), DEFAULT_FAIL_FAST)
        return strikes

    def test_are_three(self):
        """Twice may be a server that is just starting."""
        assert not self.after(State.UNAUTHENTICATED, State.UNAUTHENTICATED).out
        assert self.after(*[State.UNAUTHENTICATED] * 3).out

    def test_begin_again_with_another_cause(self):
        """Something is moving: it is being repaired."""
        assert self.after(State.UNAUTHENTICATED, State.UNAUTHENTICATED, State.FORBIDDEN).count == 1

    def test_begin_again_after_a_cause_that_passes(self):
        """An outage in between says nothing about the password."""
        seen = [State.UNAUTHENTICATED, State.UNAUTHENTICATED, State.UNREACHABLE]
        assert self.after(*seen) == Strikes()
        assert self.after(*seen, State.UNAUTHENTICATED).count == 1

    @pytest.mark.parametrize("value", [None, {}, [], "x", {"cause": 1, "count": "2"}, {"count": 1}])
    def test_are_none_where_what_was_kept_is_something_else(self, value):
        """What another version kept does not end a wait."""
        assert Strikes.from_dict(value) == Strikes()

    def test_can_be_kept(self):
        """They cross processes as plain values."""
        assert Strikes.from_dict(Strikes("forbidden", 2).as_dict()) == Strikes("forbidden", 2)


class TestTheArguments:
    """A wrong argument is an error when the DAG is parsed, and names the argument."""

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"min_health": "unhealthy"}, "min_health"),
            ({"min_health": "good"}, "min_health"),
            ({"checks": ["dns", "artefact"]}, "artefact"),
            ({"checks": []}, "checks"),
            ({"fail_fast_on": ["wrong_password"]}, "wrong_password"),
            ({"fail_fast_on": ["healthy"]}, "healthy"),
        ],
    )
    def test_that_are_wrong_are_named(self, given, told):
        """With the value, and what it may be."""
        usual = {"min_health": "degraded", "checks": ["dns"], "fail_fast_on": []}
        with pytest.raises(ValueError, match=told):
            check_arguments(**{**usual, **given})


def opened_breaker(tiny):
    """The breaker of the connection, after checks that found MLflow's database away."""
    breaker = breaker_for(load_server())
    tiny.answers[SEARCH] = (503, {})
    for _ in range(3):
        check_connection("mlflow_default")
    assert breaker.status().state == "open"
    return breaker


class TestALook:
    """One live lookup and one probe."""

    def test_sees_a_healthy_server(self, usable, tiny):
        """Name, server, database and registry were asked, once each."""
        seen = check_connection("mlflow_default").verdict
        assert (seen.state, seen.address_source) == (State.HEALTHY, "dns")
        assert (tiny.count(SEARCH), tiny.count(REGISTRY)) == (1, 1)

    def test_asks_dns_each_time(self, usable, dns):
        """A gate wants to know how it is now, and not how it was."""
        check_connection("mlflow_default")
        before = dns.count(HOSTNAME, "A")
        check_connection("mlflow_default")
        assert dns.count(HOSTNAME, "A") == before + 1

    def test_sees_a_stale_address_on_which_mlflow_works(self, usable, dns):
        """Degraded, with the cause and the age."""
        check_connection("mlflow_default")
        dns.no_such_name(HOSTNAME)
        seen = check_connection("mlflow_default").verdict
        assert (seen.state, seen.dns_cause) == (State.DEGRADED, "nxdomain")
        assert seen.address_age is not None

    @pytest.fixture
    def too_old(self, usable, dns, monkeypatch):
        """The address of a moment ago is still known, and must not be used any more."""
        for option in ("MIN_TTL", "CACHE_TTL", "MAX_STALE_NO_NAME"):
            monkeypatch.setenv(f"AIRFLOW__HOKUSAI_DNS__{option}", "0")
        check_connection("mlflow_default")
        dns.no_such_name(HOSTNAME)

    def test_says_that_the_known_address_is_too_old_and_suggests_no_typo(self, too_old):
        """The name has resolved before: what is wrong is not how it is written."""
        sentence = check_connection("mlflow_default").verdict.sentence
        assert "the one that is remembered may no longer be used" in sentence
        assert "typo" not in sentence
        assert "fallback_addresses" in sentence

    def test_does_not_say_that_none_is_remembered_where_it_is_too_old(
        self, too_old, usable, monkeypatch, caplog
    ):
        """In the log and in what the command explains, where a static address is used instead."""
        monkeypatch.setenv("MLFLOW_FALLBACK_IP", "127.0.0.9")
        resolver = runtime.resolver_for_server(load_server())
        assert check_connection("mlflow_default").verdict.address_source == "static"
        (line,) = [record.getMessage() for record in caplog.records if "static" in record.msg]
        told = explain(Target.parse(HOSTNAME), resolver, lambda _: StoredRecord("key")).sentence
        for words in (line, told):
            assert "no stale or stored" in words
            assert "none is" not in words

    @pytest.mark.parametrize("is_late", [True, False])
    def test_does_not_say_that_none_is_remembered_where_the_variable_could_not_be_read(
        self, usable, dns, caplog, is_late
    ):
        """The stored address may be there: Airflow's API server, its login or database is away."""
        free = threading.Event()

        class Away(Texts):
            def get(self, key):
                if is_late:
                    free.wait(20)
                raise PermissionError

        runtime.use_store(VariableStore(patience=0.1, variables=Away()))
        dns.no_such_name(HOSTNAME)
        told = check_connection("mlflow_default").verdict.sentence
        resolver = runtime.resolver_for_server(load_server())
        told += explain(Target.parse(HOSTNAME), resolver, lambda _: StoredRecord("key")).sentence
        with pytest.raises(DNSResolutionError, match="shared store: could not be read"):
            resolver.resolve(HOSTNAME)
        runtime.wait_idle(5)
        free.set()
        told += caplog.text
        assert told.count("the stored one could not be read") == 3
        assert told.count("check Airflow's API server and database,") == 1
        assert "none is" not in told

    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            ({}, ("The static address of MLFLOW_FALLBACK_IP", "Remove it from the environment")),
            (
                {"fallback_addresses": "127.0.0.9"},
                ("The static address of the connection", "Remove it from the connection"),
            ),
        ],
    )
    def test_says_where_a_static_address_has_to_be_removed(
        self, usable, dns, monkeypatch, extra, words
    ):
        """An emergency address that stays hides the next outage, so it must be found again."""
        monkeypatch.setenv("MLFLOW_FALLBACK_IP", "127.0.0.9")
        usable(**extra)
        dns.servfail(HOSTNAME)
        seen = check_connection("mlflow_default").verdict
        assert seen.address_source == "static"
        assert all(one in seen.sentence for one in words)

    def test_sees_a_name_that_is_not_there(self, usable, dns):
        """Nothing is remembered by a fresh process."""
        dns.no_such_name(HOSTNAME)
        assert check_connection("mlflow_default").verdict.state is State.UNRESOLVED

    @pytest.mark.parametrize(
        ("status_code", "body", "state"),
        [
            (401, "no", State.UNAUTHENTICATED),
            (403, {"error_code": "PERMISSION_DENIED"}, State.FORBIDDEN),
            (403, "Invalid Host header - possible DNS rebinding attack detected",
             State.HOST_REJECTED),
            (503, {"error_code": "TEMPORARILY_UNAVAILABLE"}, State.BACKEND_DOWN),
        ],
    )  # fmt: skip
    def test_tells_the_states_apart(self, usable, tiny, status_code, body, state):
        """Each is a different thing to do about it."""
        tiny.answers[SEARCH] = (status_code, body)
        assert check_connection("mlflow_default").verdict.state is state

    def test_sees_a_connection_that_is_wrong_or_missing(self, connect, clean_runtime):
        """An admin may be correcting it: it is a verdict, and no exception."""
        connect(host="ml flow.local")
        seen = check_connection("mlflow_default").verdict
        assert seen.state is State.CONFIG
        assert "ml flow.local" in seen.sentence
        missing = check_connection("nowhere").verdict
        assert (missing.state, missing.cause) == (State.CONFIG, "missing")

    def test_sees_a_connection_that_may_not_be_read(self, monkeypatch, clean_runtime):
        """Airflow's own error for that is a PermissionError, and not one of its exceptions."""
        from airflow.providers.common.compat.sdk import BaseHook

        def denied(conn_id):
            raise PermissionError("no")

        monkeypatch.setattr(BaseHook, "get_connection", denied)
        seen = check_connection("ml").verdict
        assert (seen.state, seen.cause) == (State.CONFIG, "connection")
        assert "may not read" in seen.sentence

    def test_opens_the_other_entrances_when_the_server_is_back(self, usable, tiny):
        """A good check closes the breaker; bad ones open it."""
        breaker = opened_breaker(tiny)
        tiny.answers.clear()
        check_connection("mlflow_default")
        assert breaker.status().state == "closed"

    def test_that_mlflow_answers_closes_the_breaker_whatever_it_answers(self, usable, tiny):
        """A hook says then what the gate says, and not that MLflow was down a moment ago."""
        breaker = opened_breaker(tiny)
        tiny.answers |= dict.fromkeys([*OPEN_CHECKS.values(), SEARCH], (404, "of a proxy"))
        assert check_connection("mlflow_default").verdict.state is State.NOT_MLFLOW
        assert breaker.status().state == "open"
        tiny.answers.clear()
        tiny.answers[SEARCH] = (401, "no")
        assert check_connection("mlflow_default").verdict.state is State.UNAUTHENTICATED
        assert breaker.status().state == "closed"

    def test_of_the_test_button_leaves_no_breaker_behind(self, usable, tiny):
        """It comes under a made-up connection id each time."""
        from airflow_provider_hokusai_dns import runtime
        from airflow_provider_hokusai_dns.config import connections
        from airflow_provider_hokusai_dns.health import breaker

        server = replace(connections.load_server(), conn_id="made_up")
        done = check_server(server, private=runtime.private_resolver(server))
        assert done.verdict.state is State.HEALTHY
        assert not any(conn_id == "made_up" for conn_id, *_ in breaker._by_server)


def test_the_line_for_the_log_says_what_is_why_and_what_comes():
    """One line that a person understands."""
    line = in_one_line(verdict(State.UNAUTHENTICATED), Strikes("unauthenticated", 2))
    assert line == (
        "MLflow is unhealthy (unauthenticated): So it is. Check 2 of 3; "
        "after check 3 the gate gives up."
    )


class TestTheStatus:
    """The dict of the former system."""

    def test_has_its_keys(self, usable, tiny):
        """Existing readers go on reading them."""
        seen = former_status("mlflow_default")
        assert seen["connected"] is True
        assert seen["error"] is None
        assert seen["tracking_uri"] == f"http://{HOSTNAME}:{tiny.port}"
        assert seen["response_time_ms"] > 0
        assert seen["circuit_breaker_state"] == "closed"
        dns_part = seen["dns_resolution"]
        assert dns_part["raw_uri"] == f"http://{HOSTNAME}:{tiny.port}"
        assert dns_part["resolved_uri"] == f"http://{tiny.address}:{tiny.port}"
        assert dns_part["health"] == "healthy"
        assert dns_part["metrics"]["attempts"] >= 1

    def test_never_raises(self, clean_runtime):
        """Also without a connection."""
        seen = former_status("nowhere")
        assert seen["connected"] is False
        assert "nowhere" in seen["error"]


class TestALetterBeyondASCII:
    """In what goes into the first lines of a request."""

    def test_in_a_path_is_sent_as_the_client_of_mlflow_sends_it(self, usable, tiny):
        answers = {
            "/health": "OK",
            "/version": "3.17.2",
            "/api/3.0/mlflow/server-info": {"store_type": "SqlStore"},
            SEARCH: {"experiments": []},
            REGISTRY: {},
        }
        for path, answer in answers.items():
            tiny.answers[f"/mlfl%C3%B6w{path}"] = (200, answer)
        usable(path_prefix="/mlflöw")
        assert MLflowHook().rest("POST", SEARCH, json={}) == {"experiments": []}
        assert list(MLflowHook().get_conn().search_experiments()) == []
        verdict = check_connection("mlflow_default").verdict
        assert verdict.level == "healthy", verdict.sentence

    def test_in_a_workspace_is_a_wrong_field(self, usable):
        usable(workspace="команда")
        verdict = check_connection("mlflow_default").verdict
        assert verdict.state is State.CONFIG
        assert "workspace" in verdict.sentence


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_timeout": timedelta(seconds=5)},
        {"probe_timeout": "10"},
        {"probe_timeout": True},
        {"probe_timeout": math.nan},
        {"probe_timeout": math.inf},
        {"probe_timeout": -1},
        {"checks": None},
        {"checks": "dns"},
        {"fail_fast_on": None},
    ],
    ids=str,
)
def test_an_argument_of_another_type_is_named_with_its_value(wrong):
    """A time span is natural beside ``timeout``, which may be one."""
    given = {"min_health": "degraded", "checks": ["dns"], "fail_fast_on": []} | wrong
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=name) as error:
        check_arguments(**given)
    assert repr(value) in str(error.value)
