"""Causes are a closed set: they become labels of Prometheus, whatever a server says."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from airflow_provider_hokusai_dns.client.delivery import DeliveryTracker
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.gates.connection_health import ConnectionHealth
from airflow_provider_hokusai_dns.health.breaker import Call
from airflow_provider_hokusai_dns.health.judge import CAUSES, judge
from airflow_provider_hokusai_dns.health.reply import Reply, ReplyFailure
from airflow_provider_hokusai_dns.plugins import prometheus
from airflow_provider_hokusai_dns.resolver.model import Cause, Endpoint, Resolution, Source

NOW = datetime(2026, 11, 26, tzinfo=UTC)
FOUND = Resolution("ml.local", "ml.local", (Endpoint("10.0.0.1"),), Source.DNS)
#: 20 kB, another one each time, with a line of the log in it.
LONG = "E{}\n[2026-11-26] INFO all is well " + "x" * 20_000

CHECKS = st.sampled_from(["health", "version", "server_info", "tracking", "registry", "artifact"])
DOCUMENTS = st.dictionaries(
    st.sampled_from(["error_code", "message"]),
    st.text() | st.integers() | st.sampled_from(["PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST"]),
)
REPLIES = st.builds(
    Reply,
    check=CHECKS,
    status=st.integers(100, 999),
    body=st.binary() | DOCUMENTS.map(lambda value: json.dumps(value).encode()),
    location=st.text(),
    failure=st.none() | st.sampled_from(ReplyFailure),
)


@given(
    st.lists(REPLIES, max_size=4),
    st.sampled_from([None, "team-a"]),
    st.just(FOUND) | st.sampled_from(Cause).map(lambda cause: DNSResolutionError("ml", cause)),
    st.sampled_from([None, "refused for a reason"]),
)
def test_every_cause_is_one_of_a_closed_set_and_every_sentence_one_line(
    replies, workspace, found, refusal
):
    """Whatever status, code, message, or redirect a server gives."""
    server = MLflowServer(conn_id="ml", scheme="http", hostname="ml.local", workspace=workspace)
    verdict = judge(server, found, replies, checked_at=NOW, refusal=refusal)
    assert verdict.cause in CAUSES
    assert verdict.sentence.isprintable()
    assert len(verdict.sentence) < 2000


@pytest.mark.parametrize(("workspace", "state"), [(None, "forbidden"), ("a", "workspace_missing")])
@pytest.mark.parametrize(
    ("code", "cause"),
    [("PERMISSION_DENIED", "permission_denied"), ("SOMETHING_NEW", "http_403"), ("", "http_403")],
)
def test_an_error_code_of_mlflow_is_a_cause_and_any_other_text_is_not(
    workspace, state, code, cause
):
    """MLflow's own say more than the status."""
    server = MLflowServer(conn_id="ml", scheme="http", hostname="ml.local", workspace=workspace)
    body = json.dumps({"error_code": code, "message": "no workspace"}).encode()
    verdict = judge(server, FOUND, [Reply("tracking", 403, body=body)], checked_at=NOW)
    assert (verdict.state, verdict.cause) == (state, cause)


def test_a_server_with_new_codes_makes_one_series():
    """One series for all of them; else a hostile server would fill Prometheus."""
    server = MLflowServer(conn_id="ml", scheme="http", hostname="ml.local")
    series = set()
    for number in range(20):
        body = json.dumps({"error_code": LONG.format(number), "message": LONG}).encode()
        verdict = judge(server, FOUND, [Reply("tracking", 403, body=body)], checked_at=NOW)
        known = ConnectionHealth("ml", verdict=verdict, found=FOUND)
        text = prometheus.render([known], {}, broken=False)
        text = text.decode() if isinstance(text, bytes) else text
        for family in text_string_to_metric_families(text):
            if family.name == "hokusai_dns_connection_cause":
                series |= {tuple(sorted(sample.labels.items())) for sample in family.samples}
    assert len(series) == 1
    assert all(len(value) < 60 for _, value in next(iter(series)))


def test_what_a_run_lost_is_told_in_bounded_lines():
    """The errors of MLflow's client carry what the server said."""
    tracker = DeliveryTracker("run")
    tracker.failed({"metrics": 1}, RuntimeError(LONG))
    (reason,) = tracker._reasons["metrics"]
    assert reason.isprintable()
    assert len(reason) < 600


def test_a_call_keeps_no_verdict_longer_than_its_sentence():
    """The breaker repeats it in every refusal."""
    call = Call()
    body = json.dumps({"message": LONG}).encode()
    server = MLflowServer(conn_id="ml", scheme="http", hostname="ml.local")
    call.verdict(judge(server, FOUND, [Reply("tracking", 503, body=body)], checked_at=NOW))
    assert call.reason.isprintable()
    assert len(call.reason) < 500
