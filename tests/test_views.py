"""Two connections to one hostname: each is resolved as it says itself, and as no other says."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from airflow_provider_hokusai_dns import pins, runtime
from airflow_provider_hokusai_dns.client import auth
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.exceptions import ConnectionConflictError
from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.refresh.names import refresh_names
from airflow_provider_hokusai_dns.resolver import Source
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from airflow_provider_hokusai_dns.store.record import variable_key
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.conftest import Texts

HOSTNAME = "mlflow.views-test.local"
EVIL_ADDRESS = "127.0.0.66"
SECRET = "views-test-secret"


@pytest.fixture
def evil_dns():
    with DNSServer() as server:
        server.set_records(HOSTNAME, [EVIL_ADDRESS], ttl=60)
        server.set_records("evil.local", [EVIL_ADDRESS], ttl=60)
        yield server


@pytest.fixture
def texts(clean_runtime):
    """What is stored for the fleet."""
    texts = Texts()
    clean_runtime.use_store(VariableStore(variables=texts))
    return texts.texts


@pytest.fixture
def trap(tiny):
    """Takes connections where the evil name server leads, on MLflow's port."""
    with socket.create_server((EVIL_ADDRESS, tiny.port)) as listener:
        listener.settimeout(0)
        yield listener


@pytest.fixture(params=["its hostname", "beside it"])
def evil(request, connect, evil_dns, tiny):
    """A connection of a user who may edit connections and knows no other login."""
    if request.param == "its hostname":
        return connect("evil", host=HOSTNAME, port=tiny.port,
                       extra={"nameservers": evil_dns.address})  # fmt: skip
    return connect("evil", host="evil.local", port=tiny.port,
                   extra={"nameservers": evil_dns.address, "also_pin": HOSTNAME})  # fmt: skip


@pytest.fixture(params=["system", "own"])
def victim(request, connect, dns, tiny, monkeypatch):
    """A connection with a login, over plain http, with nameservers of its own or without."""
    dns.set_records(HOSTNAME, [tiny.address], ttl=60)
    extra = {"nameservers": dns.address} if request.param == "own" else {}
    if not extra:
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    return connect("victim", host=HOSTNAME, port=tiny.port, login="me", password=SECRET,
                   extra=extra)  # fmt: skip


def was_connected(trap: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        trap.accept()[0].close()
        return True
    return False


def test_a_gate_goes_where_its_own_connection_leads(evil, victim, trap, tiny, texts):
    """In a process that has checked the other one before, as a triggerer and the API server do."""
    check_connection(evil, deadline=2.0)  # the trap never answers
    while was_connected(trap):
        pass
    verdict = check_connection(victim).verdict
    assert (verdict.state, verdict.address) == ("healthy", tiny.address)
    assert not was_connected(trap)
    assert all(SECRET not in text for text in texts.values())


def test_a_refresh_keeps_what_each_connection_sees_apart(evil, victim, dns, texts, monkeypatch):
    """Other workers fall back on the stored address: that of the victim's own nameservers."""
    refresh_names([evil, victim], [], probe=False)
    named = () if "AIRFLOW__HOKUSAI_DNS__NAMESERVERS" in os.environ else (dns.address,)
    stored = json.loads(texts[variable_key(HOSTNAME, asked=named)])
    assert stored["addresses"] == ["127.0.0.9"]
    assert stored.get("asked", []) == list(named)
    others = [text for key, text in texts.items() if "history" not in key]
    assert sum(EVIL_ADDRESS in text for text in others) == 1

    runtime.forget()
    runtime.use_store(VariableStore(variables=_texts_of(texts)))
    dns.silent(HOSTNAME)
    monkeypatch.setenv("DNS_TIMEOUT", "1")
    found = runtime.resolver_for_server(_server(victim)).resolve(HOSTNAME)
    assert (found.address, found.source) == ("127.0.0.9", Source.STORE)


def test_the_history_of_each_is_its_own(evil, victim, dns, texts):
    """The status page draws for each connection what its refreshes saw."""
    refresh_names([evil, victim], [], probe=False)
    histories = {key: text for key, text in texts.items() if "history" in key}
    assert len(histories) == 2
    assert sum(EVIL_ADDRESS in text for text in histories.values()) == 1


def test_a_task_that_has_both_is_refused(evil, victim, tiny, trap, texts):
    """MLflow's client resolves a name in one way per process; the error says what to do."""
    pins.pin(_server(victim))
    with pytest.raises(ConnectionConflictError, match=r"'victim' and 'evil'.*nameservers differ"):
        pins.pin(_server(evil))
    assert socket.getaddrinfo(HOSTNAME, None)[0][4][0] == tiny.address
    runtime.forget()
    pins.pin(_server(evil))
    with pytest.raises(ConnectionConflictError, match=r"'evil' and 'victim'"):
        pins.pin(_server(victim))


def test_a_pin_ends_with_its_connection(evil, victim, tiny, connect, texts, monkeypatch):
    """Once it is gone, or leads elsewhere, the next one is free to use the name."""
    auth.sign_in(_server(evil))
    pins.pin(_server(evil))
    monkeypatch.delenv("AIRFLOW_CONN_EVIL")
    pins.pin(_server(victim))
    assert socket.getaddrinfo(HOSTNAME, None)[0][4][0] == tiny.address
    assert "evil" in auth._signed_out, "its clients would send their login where victim leads"


def test_an_edit_of_one_owner_moves_no_other(connect, dns, evil_dns, tiny, texts, monkeypatch):
    """They share a pin; the login of one does not follow the nameservers of the other."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    dns.set_records(HOSTNAME, [tiny.address], ttl=60)
    for conn_id in ("one", "two"):
        pins.pin(_server(connect(conn_id, host=HOSTNAME, port=tiny.port)))
    connect("one", host=HOSTNAME, port=tiny.port, extra={"nameservers": evil_dns.address})
    with pytest.raises(ConnectionConflictError, match="'two' and 'one'"):
        pins.pin(_server("one"))
    monkeypatch.delenv("AIRFLOW_CONN_ONE")
    connect("three", host=HOSTNAME, port=tiny.port, extra={"nameservers": evil_dns.address})
    with pytest.raises(ConnectionConflictError, match="'two' and 'three'"):
        pins.pin(_server("three"))
    assert socket.getaddrinfo(HOSTNAME, None)[0][4][0] == tiny.address


def test_what_a_connection_pins_beside_its_own_host_changes_nothing_for_that_host(
    connect, dns, tiny, texts, monkeypatch
):
    """Its policy for every port yields to that of the host's own connection for its port."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    dns.set_records(HOSTNAME, [tiny.address], ttl=60)
    (pin,) = pins.pin(_server(connect("own", host=HOSTNAME, port=tiny.port)))
    beside = {"also_pin": HOSTNAME, "allow_stale_over_http": "never", "deadline": 9000}
    pins.pin(_server(connect("other", host="127.0.0.1", extra=beside)))
    assert len(pin._policies_for(tiny.port)) == 1
    assert len(pin._policies_for(1)) == 1


def test_a_connection_that_was_edited_moves_its_own_pin(victim, dns, evil_dns, texts, tiny):
    """A long task follows the nameservers of its connection; what waits on the pin stays."""
    server = _server(victim)
    (pin,) = pins.pin(server)
    with pin.patient(60):
        (again,) = pins.pin(replace(server, nameservers=(evil_dns.address,)))
        assert again is pin
        assert socket.getaddrinfo(HOSTNAME, None)[0][4][0] == EVIL_ADDRESS
        assert pin._patient
    assert len(pin.owners) == 1


def _server(conn_id: str) -> MLflowServer:
    from airflow_provider_hokusai_dns.config.connections import load_server

    return load_server(conn_id)


def _texts_of(texts: dict[str, str]) -> Texts:
    variables = Texts()
    variables.texts = texts
    return variables


# --- any sequence of connections

HOSTS = ("a.views.local", "b.views.local")
IDS = st.sampled_from(["one", "two", "three"])
#: 0 is the system's; what a name server answers tells which one was asked.
ASKED = st.sampled_from([0, 1, 2])


class Connections(RuleBasedStateMachine):
    """Connections come, change and go, in one process; some are pinned as a task pins them."""

    dns: tuple[DNSServer, ...]

    def __init__(self) -> None:
        super().__init__()
        runtime.forget()
        runtime.use_store(VariableStore(variables=Texts()))
        os.environ["AIRFLOW__HOKUSAI_DNS__NAMESERVERS"] = self.dns[0].address
        self.servers: dict[str, MLflowServer] = {}
        self.asks: dict[str, int] = {}
        #: As they were when their client was made.
        self.clients: dict[str, MLflowServer] = {}

    def teardown(self) -> None:
        runtime.forget()
        for conn_id in [*self.servers]:
            self.remove(conn_id)
        del os.environ["AIRFLOW__HOKUSAI_DNS__NAMESERVERS"]
        for conn_id in self.clients:
            auth.forget(conn_id)
        auth._signed_out.clear()

    @rule(conn_id=IDS, host=st.sampled_from(HOSTS), asked=ASKED, beside=st.booleans(),
          ttl=st.sampled_from([None, 5]), static=st.booleans())  # fmt: skip
    def add_or_change(self, conn_id, host, asked, beside, ttl, static):
        extra: dict[str, object] = {"cache_ttl": ttl}
        if asked:
            extra["nameservers"] = self.dns[asked].address
        if beside:
            extra["also_pin"] = [one for one in HOSTS if one != host]
        if static:
            extra["fallback_addresses"] = f"127.0.9.{asked}"
        fields = {"conn_type": "mlflow", "host": host, "extra": extra}
        os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(fields)
        self.servers[conn_id] = _server(conn_id)
        self.asks[conn_id] = asked

    @rule(conn_id=IDS)
    def remove(self, conn_id):
        os.environ.pop(f"AIRFLOW_CONN_{conn_id.upper()}", None)
        self.servers.pop(conn_id, None)

    @rule(conn_id=IDS)
    def check(self, conn_id):
        """As a gate, the status page or a refresh does it."""
        if conn_id in self.servers:
            server = self.servers[conn_id]
            found = runtime.resolver_for_server(server).refresh(server.hostname, always=True)
            assert found.address == f"127.0.8.{self.asks[conn_id]}"

    @rule(conn_id=IDS)
    def pin(self, conn_id):
        """As a task does it: its client is signed in, and its hosts are pinned."""
        if conn_id not in self.servers:
            return
        server = self.servers[conn_id]
        try:
            pins.pin(server)
        except ConnectionConflictError as error:
            other = next(one for one in error.conn_ids if one != conn_id)
            assert other in self.servers, "a connection that is gone holds nothing"
            return
        auth.sign_in(server)
        self.clients[conn_id] = server

    @invariant()
    def a_login_goes_where_its_own_connection_says(self):
        for conn_id, server in self.clients.items():
            if conn_id in auth._signed_in:
                held = pins._pins[server.hostname]
                assert held.view == server.view
                address = socket.getaddrinfo(server.hostname, None)[0][4][0]
                assert address == f"127.0.8.{self.dns_of(server)}"

    def dns_of(self, server: MLflowServer) -> int:
        return next(
            (n for n, dns in enumerate(self.dns) if server.nameservers == (dns.address,)), 0
        )


def test_no_sequence_of_connections_leads_one_where_another_says(clean_runtime):
    """Added, changed and removed, with the same and other hosts, nameservers and pins."""
    with contextlib.ExitStack() as stack:
        Connections.dns = tuple(stack.enter_context(DNSServer()) for _ in range(3))
        for number, server in enumerate(Connections.dns):
            for host in HOSTS:
                server.set_records(host, [f"127.0.8.{number}"], ttl=60)
        run_state_machine_as_test(
            Connections,
            settings=settings(
                max_examples=40,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
