"""A connection whose server only an SRV record knows: its host, and its port."""

from __future__ import annotations

import json

import pytest

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config.connections import load_server
from airflow_provider_hokusai_dns.exceptions import SettingError
from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.gates.connection_health import ConnectionHealth
from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook
from airflow_provider_hokusai_dns.refresh.names import refresh_names
from airflow_provider_hokusai_dns.resolver import Source
from airflow_provider_hokusai_dns.store.record import variable_key
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.conftest import REGISTRY, Texts, TinyMLflow
from tests.servers import wait_until

HOST = "mlflow.srv-test.local"
SRV = "_mlflow._tcp.srv-test.local"


@pytest.fixture
def texts(clean_runtime):
    texts = Texts()
    clean_runtime.use_store(VariableStore(variables=texts))
    return texts.texts


@pytest.fixture
def move(dns, monkeypatch):
    """Let the SRV record lead to a server; nothing else knows its port."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)

    def to(server: TinyMLflow) -> None:
        dns.set_records(f"node-{server.port}.srv-test.local", [server.address], ttl=1)
        dns.set_srv(SRV, [(1, 1, server.port, f"node-{server.port}.srv-test.local")], ttl=1)

    return to


@pytest.fixture
def connected(connect, texts, move, tiny):
    move(tiny)
    return connect(host=HOST, extra={"srv": SRV})


def rest() -> object:
    return MLflowHook().rest("GET", REGISTRY)


def test_a_check_finds_the_port_and_the_hostname_stays(connected, tiny):
    """In the URI, in the Host header, and on the status page beside the place that was found."""
    done = check_connection(connected)
    assert done.verdict.state == "healthy"
    assert done.verdict.tracking_uri == f"http://{HOST}"
    assert {headers["Host"] for _, _, headers in tiny.asked} == {HOST}
    row = ConnectionHealth(connected, verdict=done.verdict, found=done.resolution).status_row()
    assert row["addresses"] == [f"{tiny.address}:{tiny.port}"]


def test_a_call_goes_to_the_port_and_follows_it(connected, tiny, move):
    """A redeploy to another port is a move like one to another address."""
    assert rest() == {}
    assert tiny.count(REGISTRY) == 1
    with TinyMLflow(tiny.address) as other:
        move(other)
        MLflowHook().refresh_dns_resolution()
        assert rest() == {}
        assert (tiny.count(REGISTRY), other.count(REGISTRY)) == (1, 1)


def test_the_client_of_mlflow_goes_to_the_port(connected, tiny):
    """Its own, through the pin; over http, as it stands in the URI."""
    found = MLflowHook().get_conn().search_registered_models()
    assert (list(found), tiny.count(REGISTRY)) == ([], 1)


async def test_aiohttp_goes_to_the_port(connected, tiny):
    """By the resolver that the hook hands out."""
    import aiohttp

    hook = MLflowHook()
    connector = aiohttp.TCPConnector(resolver=hook.aiohttp_resolver(), use_dns_cache=False)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"{hook.tracking_uri}/health") as answer,
    ):
        assert answer.status == 200
    assert tiny.count("/health") == 1


def test_a_record_of_the_fleet_keeps_the_port(connected, dns, texts, tiny, monkeypatch):
    """A worker that meets a dead DNS gets both; the hostname's own record is another."""
    refresh_names([connected], [], probe=False)
    key = variable_key(HOST, asked=(f"SRV {SRV}",))
    stored = json.loads(texts[key])
    assert (stored["version"], stored["asked"]) == (2, [f"SRV {SRV}"])
    assert variable_key(HOST) not in texts

    variables = Texts()
    variables.texts = texts
    runtime.forget()
    runtime.use_store(VariableStore(variables=variables))
    monkeypatch.setenv("DNS_TIMEOUT", "1")
    dns.silent(SRV)
    found = MLflowHook().resolve()
    assert (found.source, found.places) == (Source.STORE, (f"{tiny.address}:{tiny.port}",))
    assert check_connection(connected).verdict.state == "degraded"


def test_a_service_that_is_gone_is_served_stale(connected, dns, tiny):
    """The rules of stale hold as for any name."""
    assert rest() == {}
    dns.no_such_name(SRV)
    found = MLflowHook().refresh_dns_resolution()
    assert (found.is_stale, found.cause) == (True, "nxdomain")
    assert rest() == {}


def test_sentences_name_the_record_that_is_gone_and_not_the_hostname(connected, dns, caplog):
    """The hostname is not looked up, so nothing is known of it; it may well exist."""
    dns.set_records(HOST, ["10.0.0.1"], ttl=1)
    check_connection(connected)
    dns.no_such_name(SRV)
    degraded = check_connection(connected).verdict
    assert f"DNS says that the SRV record {SRV!r} does not exist (nxdomain)" in degraded.sentence
    named = f"{HOST!r} (SRV record {SRV!r})"
    wait_until(lambda: named in caplog.text)  # logged after the caller has its answer
    caplog.clear()
    runtime.forget()
    unresolved = check_connection(connected).verdict
    assert unresolved.state == "unresolved"
    assert f"the SRV record {SRV!r} has no address (nxdomain)" in unresolved.sentence
    assert "check the SRV name of the connection for a typo" in unresolved.sentence
    wait_until(lambda: named in caplog.text)


def test_the_log_names_the_port_of_a_stale_address(connected, dns, tiny, caplog):
    """As the verdict does: the record of one host may lead to several ports."""
    check_connection(connected)
    dns.no_such_name(SRV)
    verdict = check_connection(connected).verdict
    assert verdict.address == f"{tiny.address}:{tiny.port}"
    wait_until(lambda: f"using {verdict.address} from memory" in caplog.text)


def test_the_port_of_the_connection_is_not_blamed_for_that_of_the_record(connected, dns, tiny):
    """It is not used."""
    dns.set_srv(SRV, [(1, 1, 1, f"node-{tiny.port}.srv-test.local")], ttl=1)
    verdict = check_connection(connected).verdict
    assert verdict.cause == "refused"
    assert f"nothing listens at {tiny.address} port 1" in verdict.sentence
    assert "correct the port of the SRV record" in verdict.sentence


def test_a_dead_port_goes_to_the_back(connect, texts, dns, tiny, move):
    """Two on one address: what failed is the port, and the other one is tried first."""
    move(tiny)
    node = f"node-{tiny.port}.srv-test.local"
    dns.set_srv(SRV, [(1, 1, 1, node), (2, 1, tiny.port, node)], ttl=60)
    connect(host=HOST, extra={"srv": SRV})
    assert check_connection("mlflow_default").verdict.state == "healthy"
    assert MLflowHook().resolve().places[0] == f"{tiny.address}:{tiny.port}"
    assert rest() == {}


@pytest.mark.parametrize(
    ("host", "hostname"),
    [(SRV, "srv-test.local"), ("mlflow.service.consul", "mlflow.service.consul")],
)
def test_srv_lookup_takes_the_host_for_the_record(connect, host, hostname):
    """As Airflow's HTTP connections have it; the URI then has the part after the labels."""
    server = load_server(connect(host=host, extra={"srv_lookup": True}))
    assert (server.srv, server.hostname, server.uri) == (host, hostname, f"http://{hostname}")


@pytest.mark.parametrize(
    ("host", "extra", "said"),
    [
        ("10.0.0.1", {"srv": SRV}, "is an address"),
        ("10.0.0.1", {"srv_lookup": True}, "is an address"),
        (HOST, {"srv": SRV, "srv_lookup": True}, "leave one of the two empty"),
        (HOST, {"srv": "10.0.0.1"}, "srv"),
        (HOST, {"srv": "a b"}, "srv"),
        (HOST, {"srv": "a.local,b.local"}, "srv"),
        (HOST, {"srv": 7}, "srv"),
    ],
)
def test_a_wrong_field_is_named(connect, host, extra, said):
    """Before anything is looked up."""
    with pytest.raises(SettingError, match=said):
        load_server(connect(host=host, extra=extra))
