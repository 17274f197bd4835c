"""The verdict as a value, and what each answer of a probe means."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime

import pytest

from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer, Proxy
from airflow_provider_hokusai_dns.health.judge import judge
from airflow_provider_hokusai_dns.health.reply import Reply, ReplyFailure
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.resolver.model import Cause, Source
from tests.values import a_server, an_address, no_address

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SERVER = a_server(credentials=Credentials("ada", "hunter2"))
HEALTH = Reply("health", 200, body=b"OK", milliseconds=4.04)
TRACKING = Reply("tracking", 200, body=b'{"experiments": []}', milliseconds=14)
REGISTRY = Reply("registry", 200, body=b"{}")
GOOD = (HEALTH, TRACKING, REGISTRY)


def verdict_of(*replies: Reply, server: MLflowServer = SERVER, stale: bool = False) -> Verdict:
    source = Source.STALE if stale else Source.DNS
    return judge(server, an_address("10.0.1.221", source=source), replies, checked_at=NOW)


def test_good_answers_on_a_fresh_address_are_healthy() -> None:
    """All is well only when name, server, store and registry are."""
    verdict = verdict_of(*GOOD)
    assert (verdict.state, verdict.level, verdict.cause) == (State.HEALTHY, "healthy", "ok")
    assert verdict.latencies == {"health": 4.0, "tracking": 14.0, "registry": 0.0}
    assert verdict.dns_cause is None


@pytest.mark.parametrize(
    ("source", "origin"),
    [
        (Source.DNS, ", an address that DNS returned just now."),
        (Source.SYSTEM, ", an address from the system's own lookup."),
        (Source.HOSTS, ", an address from the hosts file."),
        (Source.CACHE, ", an address that was looked up a moment ago."),
    ],
)
def test_a_healthy_address_is_told_with_what_gave_it(source: Source, origin: str) -> None:
    """The system's own lookup has one too where no nameserver has: DNS returned nothing then."""
    verdict = judge(SERVER, an_address("10.0.1.221", source=source), GOOD, checked_at=NOW)
    assert verdict.sentence.endswith(origin)


def test_good_answers_on_a_stale_address_are_degraded_and_say_why() -> None:
    """A working old address is good enough for some, and its age and reason are named."""
    resolution = an_address("10.0.1.221", source=Source.STALE, cause=Cause.SERVFAIL, age=42)
    verdict = judge(SERVER, resolution, GOOD, checked_at=NOW)
    assert (verdict.state, verdict.cause, verdict.dns_cause) == (
        State.DEGRADED,
        "servfail",
        "servfail",
    )
    assert verdict.address_source == "stale"
    assert verdict.address_age == pytest.approx(42, abs=1)
    assert "10.0.1.221, 42 s old" in verdict.sentence


def test_a_name_of_a_proxy_that_is_gone_does_not_make_mlflow_the_suspect() -> None:
    """What was redeployed, if anything, is the proxy."""
    server = a_server(proxy=Proxy("proxy.test", 3128))
    verdict = judge(server, an_address("10.0.0.1", source=Source.STALE), GOOD, checked_at=NOW)
    assert "the proxy 'proxy.test' does not exist" in verdict.sentence
    assert verdict.sentence.endswith("Is the proxy being redeployed?")


@pytest.mark.parametrize(
    ("nameservers", "advice"),
    [((), "DNS servers that this machine asks"), (("10.0.0.2",), "nameservers of the connection")],
)
def test_the_nameservers_to_check_are_those_that_were_asked(
    nameservers: tuple[str, ...], advice: str
) -> None:
    """A connection with its own asks no others; those of the machine may be set by an option."""
    server = a_server(nameservers=nameservers)
    old = an_address("10.0.0.1", source=Source.STALE, cause=Cause.TIMEOUT, age=42)
    for found in (old, no_address(Cause.TIMEOUT)):
        assert f"heck the {advice}" in judge(server, found, GOOD, checked_at=NOW).sentence


@pytest.mark.parametrize("body", [b'{"error_code": "PERMISSION_DENIED"}', b"Permission denied"])
def test_a_refusal_of_mlflow_behind_a_proxy_stays_mlflows(body: bytes) -> None:
    """A proxy passes it on; its own refusal has another text."""
    server = a_server(proxy=Proxy("proxy.test", 3128))
    assert verdict_of(HEALTH, Reply("tracking", 403, body), server=server).state is State.FORBIDDEN
    verdict = verdict_of(Reply("tracking", 403, b"<html>Access denied"), server=server)
    assert (verdict.state, verdict.cause) == (State.UNREACHABLE, "proxy_refused")


def test_a_name_without_any_address_is_unresolved() -> None:
    """Nothing to ask: the cause of DNS is the cause of the verdict."""
    verdict = judge(SERVER, no_address(Cause.TIMEOUT), checked_at=NOW)
    assert (verdict.state, verdict.cause, verdict.dns_cause) == (
        State.UNRESOLVED,
        "timeout",
        "timeout",
    )
    assert verdict.address is None
    assert "fallback_addresses" in verdict.sentence


INVALID_HOST = Reply("server_info", 403, b"Invalid Host header - possible DNS")


@pytest.mark.parametrize(
    ("reply", "state", "cause", "advice"),
    [
        (INVALID_HOST, State.HOST_REJECTED, "invalid_host_header", "--allowed-hosts mlflow.test"),
        (Reply("tracking", 401), State.UNAUTHENTICATED, "http_401", "login and password"),
        (
            Reply("tracking", 403, b'{"error_code": "PERMISSION_DENIED"}'),
            State.FORBIDDEN,
            "permission_denied",
            "permission",
        ),
        (Reply("tracking", 503), State.BACKEND_DOWN, "http_503", "database"),
        (Reply("registry", 500), State.BACKEND_DOWN, "http_500", "model registry"),
        (Reply("tracking", 429), State.BACKEND_DOWN, "http_429", "rate limit"),
        (Reply("tracking", failure=ReplyFailure.TIMEOUT), State.BACKEND_DOWN, "timeout", "locked"),
        (Reply("tracking", 404, body=b"no"), State.NOT_MLFLOW, "http_404", "path_prefix"),
        (Reply("tracking", 200, body=b"<html>"), State.NOT_MLFLOW, "http_200", "host, port"),
        (Reply("tracking", 200, b'{"a": 1}'), State.NOT_MLFLOW, "http_200", "host, port"),
        (Reply("tracking", 200, b"[1]"), State.NOT_MLFLOW, "http_200", "host, port"),
        (Reply("health", 200, body=b"<html>"), State.NOT_MLFLOW, "http_200", "not an MLflow"),
        (Reply("health", 502), State.BACKEND_DOWN, "http_502", "MLflow is running behind its load"),
        (
            Reply("health", 302, location="https://u:hunter2@x.test/l?t=hunter2"),
            State.NOT_MLFLOW,
            "redirect",
            "'https://x.test/...'",
        ),
        (
            Reply("health", failure=ReplyFailure.REFUSED),
            State.UNREACHABLE,
            "refused",
            "nothing listens",
        ),
        (
            Reply("health", failure=ReplyFailure.CONNECT_TIMEOUT),
            State.UNREACHABLE,
            "connect_timeout",
            "firewall",
        ),
        (
            Reply("health", failure=ReplyFailure.NETWORK, detail="Network is unreachable"),
            State.UNREACHABLE,
            "network",
            "Network is unreachable at 10.0.1.221 port 80. Check routes",
        ),
        (
            Reply("health", failure=ReplyFailure.NETWORK, detail=os.strerror(errno.EMFILE)),
            State.UNREACHABLE,
            "network",
            "Raise this process's limit (ulimit -n)",
        ),
        (Reply("health", failure=ReplyFailure.TIMEOUT), State.UNREACHABLE, "timeout", "hanging"),
        (Reply("health", failure=ReplyFailure.NOT_HTTP), State.NOT_MLFLOW, "not_http", "schema"),
        (
            Reply("tracking", failure=ReplyFailure.BODY_TOO_LARGE, detail="too much"),
            State.NOT_MLFLOW,
            "body_too_large",
            "too much",
        ),
        (
            Reply("health", failure=ReplyFailure.CERTIFICATE_UNTRUSTED),
            State.TLS_ERROR,
            "certificate_untrusted",
            "ca_file",
        ),
        (
            Reply(
                "health", failure=ReplyFailure.TLS_FILE, detail="the ca_file '/x' cannot be used"
            ),
            State.CONFIG,
            "tls_file",
            "the ca_file '/x'",
        ),
        (Reply("artifact", 500), State.ARTIFACT_FAILED, "http_500", "artifact store"),
        (
            Reply("artifact", detail="not_proxied"),
            State.ARTIFACT_FAILED,
            "not_proxied",
            "leave",
        ),
        (
            Reply("artifact", failure=ReplyFailure.TIMEOUT),
            State.ARTIFACT_FAILED,
            "timeout",
            "artifact store",
        ),
    ],
)
def test_each_bad_answer_is_a_state_with_its_cause_and_advice(
    reply: Reply, state: State, cause: str, advice: str
) -> None:
    """Every state is a different thing to do, and the sentence says which; never a secret."""
    before = [good for good in GOOD if good.check != reply.check][
        : 1 if reply.check != "health" else 0
    ]
    verdict = verdict_of(*before, reply)
    assert (verdict.state, verdict.cause, verdict.level) == (state, cause, "unhealthy")
    assert advice in verdict.sentence
    assert "hunter2" not in json.dumps(verdict.as_dict()) + repr(verdict)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_proxy_that_hides_the_health_path_proves_nothing(status: int) -> None:
    """Many ingresses let only the API through."""
    assert verdict_of(Reply("health", status), TRACKING).state is State.HEALTHY


@pytest.mark.parametrize(
    "reply",
    [
        Reply("tracking", 404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}'),
        Reply("tracking", 500, b'{"message": "Workspace APIs are not available"}'),
    ],
)
def test_a_workspace_that_is_not_there_is_told_apart(reply: Reply) -> None:
    """MLflow answers 404 with workspaces and 500 without; both are the connection's matter."""
    verdict = verdict_of(HEALTH, reply, server=a_server(workspace="blue"))
    assert verdict.state is State.WORKSPACE_MISSING
    assert "'blue'" in verdict.sentence


def test_a_connection_without_a_login_is_told_to_set_one() -> None:
    """The advice differs from the one for a wrong password."""
    sentence = verdict_of(HEALTH, Reply("tracking", 401), server=a_server()).sentence
    assert "has none" in sentence


@pytest.mark.parametrize(
    ("level", "healthy", "degraded"),
    [(State.HEALTHY, True, True), (State.DEGRADED, False, True), (State.CONFIG, False, False)],
)
def test_a_gate_chooses_how_good_is_good_enough(
    level: State, healthy: bool, degraded: bool
) -> None:
    """Healthy meets both, degraded only the lower, and nothing else meets any."""
    verdict = Verdict(
        state=level, cause="", sentence="", conn_id="c", tracking_uri="u", checked_at=NOW
    )
    assert (verdict.meets("healthy"), verdict.meets("degraded")) == (healthy, degraded)
    with pytest.raises(ValueError, match="'unhealthy'"):
        verdict.meets("unhealthy")


def test_a_verdict_survives_json() -> None:
    """It crosses processes as trigger payload and XCom."""
    for verdict in (verdict_of(*GOOD), verdict_of(HEALTH, Reply("tracking", 503), stale=True)):
        assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))) == verdict


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"state": "fine"}, {"checked_at": "noon"}, {"latencies": 3}, {"state": None}],
)
def test_a_dict_that_is_no_verdict_is_refused(change: dict[str, object]) -> None:
    """Another version, or nonsense, is a ValueError and no half of a verdict."""
    with pytest.raises(ValueError, match=r"verdict of version 2|not a verdict"):
        Verdict.from_dict({**verdict_of(*GOOD).as_dict(), **change})
    with pytest.raises(ValueError, match="not a verdict"):
        Verdict.from_dict({"version": 1, "state": "healthy"})


@pytest.mark.parametrize(
    ("reply", "says_mlflow"),
    [
        (Reply("health", 200, body=b"OK"), True),
        (Reply("health", 200, body=b"OK, all fine"), False),
        (Reply("version", 200, body=b"3.17.2\n"), True),
        (Reply("version", 200, body=b"4.0.0rc1"), True),
        (Reply("version", 200, body=b"OK"), False),
        (Reply("version", 200, body=b"nginx/1.2.3.4"), False),
        (Reply("version", 401, challenge='Basic realm="mlflow"'), True),
        (Reply("version", 401, challenge='Basic realm="intranet"'), False),
        (Reply("server_info", 200, body=b'{"store_type": "SqlStore"}'), True),
        (Reply("server_info", 200, body=b"{}"), False),
        (Reply("health", failure=ReplyFailure.REFUSED), False),
    ],
)
def test_mlflow_is_told_from_others_by_more_than_an_ok(reply: Reply, says_mlflow: bool) -> None:
    """Without credentials, three answers can speak for MLflow."""
    assert reply.looks_like_mlflow is says_mlflow
