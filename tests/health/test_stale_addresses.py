"""Old addresses over plain http: who may get what."""

from __future__ import annotations

import pytest

from airflow_provider_hokusai_dns.config.server import Credentials, StaleOverHTTP
from airflow_provider_hokusai_dns.health.probe import probe
from airflow_provider_hokusai_dns.health.reply import Reply
from airflow_provider_hokusai_dns.health.stale_addresses import (
    CHECK,
    USE,
    check_stale_address,
    not_mlflow_at,
    stale_address_rule,
)
from airflow_provider_hokusai_dns.health.verdict import State
from airflow_provider_hokusai_dns.resolver.model import Source
from tests.servers import Request, Stranger, free_port, http, looks_like_mlflow
from tests.values import a_server, an_address

LOGIN = Credentials("ada", "hunter2")
NEVER, CHECKED, ALWAYS = StaleOverHTTP.NEVER, StaleOverHTTP.CHECKED, StaleOverHTTP.ALWAYS


@pytest.mark.parametrize(
    ("choice", "source", "age", "login", "scheme", "verify", "answer"),
    [
        (NEVER, Source.DNS, 0, True, "http", True, USE),
        (NEVER, Source.CACHE, 0, True, "http", True, USE),
        (NEVER, Source.STALE, 80_000, True, "https", True, USE),
        (NEVER, Source.STALE, 1, False, "http", True, "never"),
        (NEVER, Source.STATIC, 0, False, "http", True, "a static one"),
        (CHECKED, Source.STALE, 899, True, "http", True, CHECK),
        (CHECKED, Source.STORE, 901, True, "http", True, "901 s"),
        (CHECKED, Source.STALE, 80_000, False, "http", True, CHECK),
        (CHECKED, Source.STATIC, 0, True, "http", True, CHECK),
        (CHECKED, Source.STALE, 901, True, "https", False, "901 s"),
        (ALWAYS, Source.STALE, 80_000, True, "http", True, USE),
    ],
)
def test_the_rule(
    choice: StaleOverHTTP,
    source: Source,
    age: float,
    login: bool,
    scheme: str,
    verify: bool,
    answer: str,
) -> None:
    """Fresh is free; a verified certificate decides; else the author's choice and the age do."""
    server = a_server(
        scheme=scheme,
        verify=verify,
        allow_stale_over_http=choice,
        credentials=LOGIN if login else Credentials(),
    )
    rule = stale_address_rule(server, an_address("10.0.0.1", source=source, age=age))
    assert rule == answer if answer in (USE, CHECK) else answer in rule


@pytest.mark.parametrize(
    ("choice", "age", "words"),
    [
        (NEVER, 1, "does not allow a stale one without a verified certificate"),
        (CHECKED, 901, "without a verified certificate no credentials are sent"),
    ],
)
def test_https_without_verification_is_not_called_plain_http(
    choice: StaleOverHTTP, age: float, words: str
) -> None:
    """It is as unsafe, but what is wrong is ``verify``, and "use https" would not help."""
    server = a_server(scheme="https", verify=False, allow_stale_over_http=choice, credentials=LOGIN)
    rule = stale_address_rule(server, an_address("10.0.0.1", source=Source.STALE, age=age))
    assert words in rule
    assert "verify the certificate" in rule.lower()
    assert "plain http" not in rule
    assert "use https" not in rule.lower()


def test_a_stranger_over_https_without_verification_is_told_likewise() -> None:
    """The advice is for the setting that the connection has."""
    server = a_server(scheme="https", verify=False)
    said = not_mlflow_at(server, [Reply("health", 200, body=b"hello")], "10.0.0.1")
    assert said is not None
    assert "verify the certificate" in said
    assert "use https" not in said


def ok_to_everything(_: Request) -> bytes:
    return http(body="OK")


def basic_auth_mlflow(request: Request) -> bytes:
    if request.path == "/health":
        return http(body="OK")
    return http(401, "You are not authenticated", WWW_Authenticate='Basic realm="mlflow"')


@pytest.mark.parametrize("answer", [looks_like_mlflow, basic_auth_mlflow])
def test_an_mlflow_at_the_stale_address_may_be_used(answer: object) -> None:
    """With or without a login of its own. That it is ours, this cannot prove."""
    with Stranger(answer) as stranger:  # type: ignore[arg-type]
        server = a_server(port=stranger.port, credentials=LOGIN)
        old = an_address("127.0.0.1", source=Source.STALE, age=60)
        assert check_stale_address(server, old, "127.0.0.1", stranger.port) is None
    assert all("authorization" not in request.headers for request in stranger.requests)


def test_a_stranger_who_says_ok_gets_nothing() -> None:
    """Many servers answer OK to /health; the pin is told why not, and the probe sends no login."""
    with Stranger(ok_to_everything) as stranger:
        server = a_server(port=stranger.port, credentials=LOGIN)
        old = an_address("127.0.0.1", source=Source.STALE, age=60)
        why = check_stale_address(server, old, "127.0.0.1", stranger.port)
        verdict = probe(server, old)
    assert why is not None
    assert "no MLflow answers" in why
    assert (verdict.state, verdict.cause) == (State.UNRESOLVED, "old_address_refused")
    assert all("authorization" not in request.headers for request in stranger.requests)


def test_a_stranger_who_answers_nothing_costs_a_bounded_while() -> None:
    """A closed port, and one that takes connections and is silent."""
    server = a_server(port=free_port(), credentials=LOGIN)
    old = an_address("127.0.0.1", source=Source.STALE, age=60)
    why = check_stale_address(server, old, "127.0.0.1", server.connect_port)
    assert why is not None
    assert "refused" in why
    me: list[Stranger] = []

    def silent(_: Request) -> object:
        me[0].wait(30)
        return iter(())

    with Stranger(silent) as stranger:  # type: ignore[arg-type]
        me.append(stranger)
        why = check_stale_address(server, old, "127.0.0.1", stranger.port, timeout=0.5)
    assert why is not None
    assert "timeout" in why


def test_never_does_not_even_connect() -> None:
    """The author said so."""
    with Stranger(looks_like_mlflow) as stranger:
        server = a_server(port=stranger.port, allow_stale_over_http=NEVER)
        old = an_address("127.0.0.1", source=Source.STALE)
        assert "never" in str(check_stale_address(server, old, "127.0.0.1", stranger.port))
        assert probe(server, old).state is State.UNRESOLVED
    assert stranger.connections == 0


def test_always_does_not_ask() -> None:
    """The author takes the risk, and the pin hands the address out at once."""
    with Stranger(ok_to_everything) as stranger:
        server = a_server(port=stranger.port, credentials=LOGIN, allow_stale_over_http=ALWAYS)
        old = an_address("127.0.0.1", source=Source.STALE, age=80_000)
        assert check_stale_address(server, old, "127.0.0.1", stranger.port) is None
    assert stranger.connections == 0


def test_over_https_the_certificate_decides() -> None:
    """The pin need not ask."""
    old = an_address("127.0.0.1", source=Source.STALE, age=80_000)
    assert check_stale_address(a_server(scheme="https"), old, "127.0.0.1", 1) is None


def test_a_stranger_at_one_stale_address_does_not_hide_the_server_at_the_next() -> None:
    """In either order, as for the pin; with strangers alone the first is named."""
    with Stranger(ok_to_everything, host="127.0.0.71") as other:
        with Stranger(looks_like_mlflow, host="127.0.0.72", port=other.port) as own:
            server = a_server(port=other.port)
            for order in ((other.host, own.host), (own.host, other.host)):
                verdict = probe(server, an_address(*order, source=Source.STALE, age=60))
                assert (verdict.state, verdict.address) == (State.DEGRADED, own.host)
        verdict = probe(
            a_server(port=other.port), an_address(other.host, own.host, source=Source.STALE, age=60)
        )
        assert (verdict.state, verdict.address) == (State.UNRESOLVED, other.host)


def test_a_stranger_is_told_at_the_address_where_it_answered() -> None:
    """That is not always the first one."""
    with Stranger(ok_to_everything, host="127.0.0.72") as other:
        resolution = an_address("127.0.0.71", other.host, source=Source.STALE, age=60)
        verdict = probe(a_server(port=other.port), resolution)
    assert verdict.address == other.host
    assert f"at the stale address {other.host} no MLflow answers" in verdict.sentence


def test_a_dead_address_offers_no_setting_that_cures_nothing() -> None:
    """Where nothing listens, allow_stale_over_http changes nothing; at another server it may."""
    resolution = an_address("127.0.0.1", source=Source.STALE, age=10)
    dead = check_stale_address(a_server(), resolution, "127.0.0.1", free_port())
    assert dead is not None
    assert "Wait for DNS." in dead
    assert "allow_stale_over_http" not in dead
    with Stranger(lambda _: http(404, b"no")) as stranger:
        other = check_stale_address(a_server(), resolution, "127.0.0.1", stranger.port)
    assert other is not None
    assert "allow_stale_over_http to always" in other
