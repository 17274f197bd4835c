"""The pin: name resolution of chosen hosts inside this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import Any
from unittest import mock

import pytest

from airflow_provider_hokusai_dns.resolver import (
    Cause,
    DNSResolutionError,
    DNSResolver,
    ResolverConfig,
    publishing,
)
from airflow_provider_hokusai_dns.resolver import pin as pin_module
from airflow_provider_hokusai_dns.resolver.deadline import bounded
from airflow_provider_hokusai_dns.resolver.lookup.system import SystemLookup
from airflow_provider_hokusai_dns.resolver.pin import PinConflictError, pin_host, pinned
from airflow_provider_hokusai_dns.resolver.pinned_port import NoConnectionError
from airflow_provider_hokusai_dns.resolver.port_reachability import ALIVE_FOR
from airflow_provider_hokusai_dns.resolver.testing import DNSServer, MemoryStore, ScriptedLookup
from tests.servers import black_hole

HOST = "mlflow.test.local"


@contextlib.contextmanager
def listening(address: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[socket.socket, int]]:
    """A listening socket, and its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(16)
        yield server, server.getsockname()[1]


@pytest.fixture
def resolver(dns: DNSServer) -> DNSResolver:
    return DNSResolver(
        ResolverConfig(
            nameservers=(dns.address,), timeout=1.0, min_ttl=0, failure_ttl=0.1, failure_ttl_max=0.1
        )
    )


@pytest.fixture(autouse=True)
def _nothing_stays_pinned() -> Iterator[None]:
    before = socket.getaddrinfo
    yield
    assert not pin_module._pins
    assert socket.getaddrinfo is before


def test_only_the_pinned_host_is_answered_by_the_resolver(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """A pinned name comes from the resolver, whatever its case and final dot; others do not."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    system = socket.getaddrinfo
    with pin_host(HOST, resolver, patience=0.0):
        for name in (HOST, HOST.upper(), HOST + ".", HOST.encode()):
            found = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
            assert found == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.9", 80))]
        assert socket.getaddrinfo("localhost", 80) == system("localhost", 80)
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("other.test.invalid", 80)


def test_family_type_and_flags_are_honoured(dns: DNSServer, resolver: DNSResolver) -> None:
    """What is asked for is what comes back, as from the system."""
    dns.set_records(HOST, ["127.0.0.9", "::1"], ttl=60)
    with pin_host(HOST, resolver):
        four = socket.getaddrinfo(HOST, None, socket.AF_INET, socket.SOCK_STREAM)
        six = socket.getaddrinfo(HOST, None, socket.AF_INET6, socket.SOCK_STREAM)
        assert [item[4][0] for item in four] == ["127.0.0.9"]
        assert [item[4][0] for item in six] == ["::1"]
        named = socket.getaddrinfo(HOST, None, flags=socket.AI_CANONNAME)
        assert named[0][3] == HOST
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(HOST, 80, flags=socket.AI_NUMERICHOST)
        dns.set_records(HOST, ["127.0.0.9"], ttl=60)
        resolver.refresh(HOST)
        with pytest.raises(socket.gaierror, match="no address of the requested family"):
            socket.getaddrinfo(HOST, None, socket.AF_INET6)


def test_every_thread_is_covered(dns: DNSServer, resolver: DNSResolver) -> None:
    """MLflow logs from threads of its own: the pin holds for the whole process."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    pin = pin_host(HOST, resolver)
    found: list[str] = []
    try:
        thread = threading.Thread(
            target=lambda: found.append(socket.getaddrinfo(HOST, 80)[0][4][0])  # type: ignore[arg-type]
        )
        thread.start()
        thread.join()
    finally:
        pin.release()
    assert found == ["127.0.0.9"]


def test_a_name_that_is_gone_keeps_its_connections_coming(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """HTTP to the hostname works after the name is gone, with the hostname in the Host header."""
    hosts: list[str] = []

    # The trial of an old address is a connection of its own, which hangs up without a word.
    def serve(server: socket.socket) -> None:
        while len(hosts) < 2:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(5)
                data = connection.recv(65536)
                if data:
                    hosts.append(data.decode().split("Host: ")[1].split("\r\n")[0])
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with listening("127.0.0.9") as (server, port):
        dns.set_records(HOST, ["127.0.0.9"], ttl=0)
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        with pin_host(HOST, resolver):
            url = f"http://{HOST}:{port}/"
            assert urllib.request.urlopen(url, timeout=5).read() == b"ok"
            dns.no_such_name(HOST)
            time.sleep(0.01)
            assert urllib.request.urlopen(url, timeout=5).read() == b"ok"
            assert resolver.resolve(HOST).is_stale
        thread.join(5)
    assert hosts == [f"{HOST}:{port}"] * 2


def test_several_addresses_are_tried_and_the_dead_one_goes_to_the_back(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """Whatever order DNS gives, what is handed out first takes connections."""
    with listening("127.0.0.12") as (_, port):
        dns.set_records(HOST, ["127.0.0.11", "127.0.0.12", "127.0.0.13"], ttl=60)
        with pin_host(HOST, resolver):
            for _ in range(3):
                found = socket.getaddrinfo(HOST, port, type=socket.SOCK_STREAM)
                assert found[0][4] == ("127.0.0.12", port)
                assert len(found) == 3


def test_a_redeploy_to_a_new_address_is_ridden_out(dns: DNSServer, resolver: DNSResolver) -> None:
    """Old address dead, name gone, then back elsewhere: a patient caller waits and gets it."""
    with listening("127.0.0.11") as (_, port):
        dns.set_records(HOST, ["127.0.0.11"], ttl=0)
        pin = pin_host(HOST, resolver, patience=0.0)
        assert socket.getaddrinfo(HOST, port)[0][4][0] == "127.0.0.11"
    try:
        dns.no_such_name(HOST)
        resolver.refresh(HOST)

        def redeploy() -> None:
            time.sleep(1.5)
            dns.set_records(HOST, ["127.0.0.12"], ttl=0)

        with listening("127.0.0.12", port), pin.patient(20):
            thread = threading.Thread(target=redeploy)
            thread.start()
            started = time.monotonic()
            found = socket.getaddrinfo(HOST, port, type=socket.SOCK_STREAM)
            thread.join()
            assert found[0][4][0] == "127.0.0.12"
            assert 1 < time.monotonic() - started < 19
    finally:
        pin.release()


def test_patience_is_counted_once_per_outage(dns: DNSServer, resolver: DNSResolver) -> None:
    """A client that retries does not multiply the wait."""
    dns.no_such_name(HOST)
    with pin_host(HOST, resolver, patience=1.0):
        started = time.monotonic()
        for _ in range(5):
            with pytest.raises(socket.gaierror) as caught:
                socket.getaddrinfo(HOST, 80)
            assert isinstance(caught.value.__cause__, DNSResolutionError)
        assert 0.7 < time.monotonic() - started < 4.5


def test_a_stale_address_that_the_stale_check_refuses_is_not_used(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """The sentence of the stale_check reaches the caller; fresh addresses are not asked about."""
    asked: list[str] = []

    def stale_check(resolution: object, address: str, port: int) -> str | None:
        asked.append(address)
        return "a stranger answers there"

    with listening("127.0.0.11") as (_, port):
        dns.set_records(HOST, ["127.0.0.11"], ttl=0)
        with pin_host(HOST, resolver, patience=0.0, stale_check=stale_check):
            socket.getaddrinfo(HOST, port)
            assert not asked
            dns.servfail(HOST)
            resolver.refresh(HOST)
            with pytest.raises(socket.gaierror, match="a stranger answers there") as caught:
                socket.getaddrinfo(HOST, port)
            assert asked == ["127.0.0.11"]
            cause = caught.value.__cause__
            assert isinstance(cause, DNSResolutionError)
            assert cause.cause is Cause.SERVFAIL


def test_the_stale_check_is_asked_about_all_stale_addresses_at_once(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """Eight black holes cost the time of one, or no deadline of a call would hold."""
    old = [f"127.0.0.{number}" for number in range(21, 29)]
    together = threading.Barrier(len(old))

    def stale_check(resolution: object, address: str, port: int) -> str | None:
        together.wait(30)  # raises unless all of them are being asked
        return "no server answers there"

    dns.set_records(HOST, old, ttl=0)
    with pin_host(HOST, resolver, patience=0.0, stale_check=stale_check):
        resolver.resolve(HOST)
        dns.servfail(HOST)
        resolver.refresh(HOST)
        with pytest.raises(socket.gaierror, match="no server answers there") as caught:
            socket.getaddrinfo(HOST, 80)
        assert all(address in str(caught.value) for address in old)


@pytest.fixture
def hole() -> Iterator[tuple[str, int]]:
    """An address from which nothing comes back, and its port."""
    with black_hole("127.0.0.21") as port:
        yield "127.0.0.21", port


def test_nobody_is_sent_into_a_black_hole_for_want_of_better(
    dns: DNSServer, resolver: DNSResolver, hole: tuple[str, int]
) -> None:
    """When patience is over the caller hears it, and need not wait for its own time-out."""
    host, port = hole
    dns.set_records(HOST, [host], ttl=0)
    with pin_host(HOST, resolver, patience=3.0) as pin:
        assert pin.addresses(port, connects=True) == [host]  # fresh, and no failure was reported
        with pytest.raises(NoConnectionError, match=f"none of {host}") as caught:
            pin.addresses(port, connects=True)
        assert (caught.value.hostname, caught.value.addresses) == (HOST, (host,))
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        started = time.monotonic()
        with pytest.raises(OSError, match="no packet comes back"):  # to every other caller
            socket.getaddrinfo(HOST, port)
        assert time.monotonic() - started < 0.9  # it is not tried again so soon
        with listening("127.0.0.22", port):
            dns.set_records(HOST, ["127.0.0.22"], ttl=0)
            resolver.refresh(HOST)
            assert socket.getaddrinfo(HOST, port)[0][4] == ("127.0.0.22", port)


def test_of_dead_addresses_those_that_refuse_are_handed_out(
    dns: DNSServer, resolver: DNSResolver, hole: tuple[str, int]
) -> None:
    """They give the caller an error of its own at once, the others would not."""
    host, port = hole
    dns.set_records(HOST, [host, "127.0.0.23"], ttl=0)
    with pin_host(HOST, resolver, patience=2.0) as pin:
        assert pin.addresses(port, connects=True) == ["127.0.0.23"]


def test_two_resolvers_for_one_host_are_refused_aloud(resolver: DNSResolver) -> None:
    """Which of two connections' settings would hold must never be a matter of luck."""
    other = DNSResolver(lookup=ScriptedLookup())
    with pin_host(HOST, resolver) as pin:
        again = pin_host(HOST.upper(), resolver, owner="again")
        assert again is pin
        again.release("again")
        with pytest.raises(PinConflictError, match=HOST):
            pin_host(HOST, other)
        assert pinned(HOST) is pin
    assert pinned(HOST) is None


def test_it_is_taken_out_only_if_it_is_still_ours(
    resolver: DNSResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that wrapped the function after us keeps its wrapper."""
    before = socket.getaddrinfo
    pin = pin_host(HOST, resolver)
    ours = socket.getaddrinfo
    assert ours is not before

    def wrapper(*args: object, **kwargs: object) -> object:
        return ours(*args, **kwargs)  # type: ignore[arg-type]

    socket.getaddrinfo = wrapper  # type: ignore[assignment]
    pin.release()
    assert socket.getaddrinfo is wrapper
    assert socket.getaddrinfo("127.0.0.1", 80)
    socket.getaddrinfo = before


def test_it_works_in_a_forked_child(dns: DNSServer, resolver: DNSResolver) -> None:
    """Locks and threads of the parent do not hang the child."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=0)
    with pin_host(HOST, resolver):
        socket.getaddrinfo(HOST, 80)
        child = os.fork()
        if child == 0:  # pragma: no cover: coverage does not see the child
            ok = False
            try:
                resolver.refresh(HOST)
                ok = socket.getaddrinfo(HOST, None)[0][4][0] == "127.0.0.9"
            finally:
                os._exit(0 if ok else 1)
        deadline = time.monotonic() + 20
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert done[1] == 0


def test_the_systems_own_lookup_does_not_come_back_to_the_pin() -> None:
    """The resolver's last live source is the function that stood there before."""
    # Without the hosts file, which has this name and is asked first.
    resolver = DNSResolver(ResolverConfig(timeout=2.0), lookup=SystemLookup())
    with pin_host("localhost", resolver):
        assert {item[4][0] for item in socket.getaddrinfo("localhost", None)} & {"127.0.0.1", "::1"}


def test_an_address_that_died_is_not_handed_out_for_long(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """What took a connection a moment ago is tried again soon: a client has few retries."""
    dns.set_records(HOST, ["127.0.0.11"], ttl=60)
    with listening("127.0.0.11") as (_, port):
        pin = pin_host(HOST, resolver, patience=60.0)
        for _ in range(3):
            socket.getaddrinfo(HOST, port)
    try:
        time.sleep(ALIVE_FOR + 0.1)
        found: list[str] = []
        thread = threading.Thread(
            target=lambda: found.append(str(socket.getaddrinfo(HOST, port)[0][4][0]))
        )
        thread.start()
        thread.join(0.5)
        assert thread.is_alive(), "a dead address was handed out"
        with listening("127.0.0.11", port):
            thread.join(30)
        assert found == ["127.0.0.11"]
    finally:
        pin.release()


def test_other_ports_of_the_host_are_as_they_were(dns: DNSServer, resolver: DNSResolver) -> None:
    """A closed port that no pin names fails at once, however patient the pin is for another."""
    dns.set_records(HOST, ["127.0.0.11"], ttl=60)
    with pin_host(HOST, resolver, port=5000, patience=20.0):
        started = time.monotonic()
        for _ in range(3):
            socket.getaddrinfo(HOST, 9)
        assert time.monotonic() - started < 15


def test_asking_without_a_port_does_not_end_an_outage(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """Only an address that took a connection does."""
    dns.set_records(HOST, ["127.0.0.11"], ttl=60)
    pin = pin_host(HOST, resolver, port=9, patience=1.5)
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            socket.getaddrinfo(HOST, None)
            time.sleep(0.01)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        started = time.monotonic()
        for _ in range(4):
            socket.getaddrinfo(HOST, 9)
        assert time.monotonic() - started < 5
    finally:
        stop.set()
        asker.join()
        pin.release()


def test_the_rules_of_two_owners_hold_together(dns: DNSServer, resolver: DNSResolver) -> None:
    """What one connection forbids, another cannot allow by coming later."""
    with listening("127.0.0.11") as (_, port):
        dns.set_records(HOST, ["127.0.0.11"], ttl=0)
        first = pin_host(
            HOST, resolver, port=port, patience=0.0, stale_check=lambda *_: "A says no", owner="a"
        )
        second = pin_host(HOST, resolver, patience=0.0, owner="b")
        try:
            socket.getaddrinfo(HOST, port)
            dns.servfail(HOST)
            resolver.refresh(HOST)
            with pytest.raises(socket.gaierror, match="A says no"):
                socket.getaddrinfo(HOST, port)
        finally:
            second.release("b")
            first.release("a")


def test_a_wrapper_around_us_is_no_reason_to_install_again(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """Or every lookup of the process would call itself for ever."""
    before = socket.getaddrinfo
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    first = pin_host(HOST, resolver, port=80)
    ours = socket.getaddrinfo
    socket.getaddrinfo = lambda *args, **kwargs: ours(*args, **kwargs)  # type: ignore[assignment]
    try:
        second = pin_host(HOST, resolver, port=80)
        assert socket.getaddrinfo("127.0.0.1", 80)
        assert socket.getaddrinfo(HOST, None)[0][4][0] == "127.0.0.9"
        second.release()
    finally:
        socket.getaddrinfo = ours
        first.release()
    assert socket.getaddrinfo is before


def test_patience_holds_right_after_a_good_connection(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """A name that is gone a moment after a connect is waited for as at any other time."""
    with listening("127.0.0.11") as (_, port):
        dns.set_records(HOST, ["127.0.0.11"], ttl=0)
        pin = pin_host(HOST, resolver, port=port, patience=1.0)
        for _ in range(2):
            socket.getaddrinfo(HOST, port)
    try:
        dns.servfail(HOST)
        resolver.clear(HOST)
        started = time.monotonic()
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(HOST, port)
        assert 0.9 < time.monotonic() - started < 20
    finally:
        pin.release()


def test_patience_begins_anew_after_an_outage_that_nobody_sat_out(
    dns: DNSServer, resolver: DNSResolver, caplog: pytest.LogCaptureFixture
) -> None:
    """The first good connection ends it, and the next outage is waited for as the first was."""
    with listening("127.0.0.11") as (_, port):
        dns.no_such_name(HOST)
        pin = pin_host(HOST, resolver, port=port, patience=1.0)
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(HOST, port)
        dns.set_records(HOST, ["127.0.0.11"], ttl=0)
        resolver.refresh(HOST)
        assert socket.getaddrinfo(HOST, port)[0][4][0] == "127.0.0.11"
        assert "reachable again" in caplog.text
    try:
        dns.servfail(HOST)
        resolver.clear(HOST)
        started = time.monotonic()
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(HOST, port)
        assert time.monotonic() - started > 0.9
    finally:
        pin.release()


def test_a_thread_can_bound_its_own_wait(dns: DNSServer, resolver: DNSResolver) -> None:
    """A caller with a deadline of its own does not wait as long as a run may."""
    dns.no_such_name(HOST)
    with pin_host(HOST, resolver, patience=30.0):
        started = time.monotonic()
        with bounded(0.5), pytest.raises(socket.gaierror):
            socket.getaddrinfo(HOST, 80)
        assert time.monotonic() - started < 20


def test_a_fresh_address_is_tried_where_that_is_wanted(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """At the entrance of a run no connection has failed yet, and one must succeed all the same."""
    dns.set_records(HOST, ["127.0.0.11"], ttl=60)
    with pin_host(HOST, resolver, port=9, patience=1.0) as pin:
        started = time.monotonic()
        assert pin.addresses(9, connects=True, must_be_tested=True) == ["127.0.0.11"]
        assert time.monotonic() - started > 0.9


def test_a_pin_is_found_again_after_one_who_was_there_first_put_the_systems_back(
    resolver: DNSResolver, dns: DNSServer
) -> None:
    """As ``mock.patch`` does at its end: the next use of the pin takes the place again."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    with mock.patch("socket.getaddrinfo", side_effect=AssertionError("no DNS in this test")):
        pin = pin_host(HOST, resolver, port=1)
        assert socket.getaddrinfo(HOST, 80)[0][4][0] == "127.0.0.9"
    with pin, pytest.raises(socket.gaierror):
        socket.getaddrinfo(HOST, 80)
    with pin_host(HOST, resolver, port=1):
        assert socket.getaddrinfo(HOST, 80)[0][4][0] == "127.0.0.9"
        assert socket.gethostbyname(HOST) == "127.0.0.9"


def test_one_who_lets_no_other_name_through_is_no_reason_to_go_in_circles(
    resolver: DNSResolver, dns: DNSServer
) -> None:
    """A wrapper of ours that answers itself hides us; taking the place again must not loop."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    before = socket.getaddrinfo
    first = pin_host(HOST, resolver, port=1, owner="first")
    ours = socket.getaddrinfo

    def guard(host: object, *arguments: object, **named: object) -> object:
        if host != "localhost":
            raise OSError("not in this process")
        return ours(host, *arguments, **named)  # type: ignore[arg-type]

    socket.getaddrinfo = guard  # type: ignore[assignment]
    try:
        with pin_host(HOST, resolver, port=1):
            assert socket.getaddrinfo(HOST, 80)[0][4][0] == "127.0.0.9"
            assert socket.getaddrinfo("localhost", 80)
            with pytest.raises(OSError, match="not in this process"):
                socket.getaddrinfo("other.test.local", 80)
            first.release("first")
        assert socket.getaddrinfo is guard
    finally:
        socket.getaddrinfo = before


@pytest.mark.parametrize(
    ("module", "patch"),
    [
        ("gevent", "import gevent.monkey; gevent.monkey.patch_all()"),
        ("eventlet", "import eventlet; eventlet.monkey_patch(thread=False)"),
        ("pytest_socket", "import pytest_socket; pytest_socket.disable_socket()"),
    ],
)
def test_a_pin_is_found_again_after_others_put_functions_there(module: str, patch: str) -> None:
    """Once the process has been patched by others, the next use of the pin covers it."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    script = f"""
import socket
from airflow_provider_hokusai_dns.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.pin import pin_host
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup

resolver = DNSResolver(lookup=ScriptedLookup({{{HOST!r}: "127.0.0.9"}}))
pin_host({HOST!r}, resolver, port=1)
{patch}
pin_host({HOST!r}, resolver, port=1)
print(socket.getaddrinfo({HOST!r}, 80)[0][4][0])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "127.0.0.9", done.stderr


def test_what_one_greenlet_does_is_not_taken_for_another() -> None:
    """Where gevent patches after us, greenlets share what belongs to a thread."""
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    script = f"""
import socket
from airflow_provider_hokusai_dns.resolver import DNSResolver, deadline
from airflow_provider_hokusai_dns.resolver.lookup.system import bypassing_pin
from airflow_provider_hokusai_dns.resolver.pin import pin_host
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup
import gevent.monkey
gevent.monkey.patch_all()
import gevent

def one():
    with bypassing_pin(), deadline.bounded(0.1):
        gevent.sleep(0.3)

def other():
    gevent.sleep(0.1)
    print(socket.getaddrinfo({HOST!r}, 80)[0][4][0], deadline.seconds_left())

pin_host({HOST!r}, DNSResolver(lookup=ScriptedLookup({{{HOST!r}: "127.0.0.9"}})), port=1)
gevent.joinall([gevent.spawn(one), gevent.spawn(other)], raise_error=True)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "127.0.0.9 inf", done.stderr


def test_an_absolute_name_stays_absolute(dns: DNSServer) -> None:
    """A wildcard of a search domain must not be handed out, with credentials, for ``name.``."""
    dns.no_such_name(HOST)
    dns.set_records(f"{HOST}.corp.example", ["127.0.0.66"], ttl=60)
    resolver = DNSResolver(
        ResolverConfig(nameservers=(dns.address,), search=("corp.example",), timeout=2.0)
    )
    with pin_host(HOST, resolver, port=1):
        assert socket.getaddrinfo(HOST, 80)[0][4][0] == "127.0.0.66"
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(HOST + ".", 80)
    with pin_host(HOST + ".", resolver, port=1) as pin:
        for name in (HOST, HOST + "."):
            with pytest.raises(socket.gaierror):
                socket.getaddrinfo(name, 80)
            with pytest.raises(DNSResolutionError):
                pin.addresses(None, connects=False)


def test_a_log_handler_that_connects_to_the_host_is_no_deadlock(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """Logs are shipped over HTTP, perhaps to the same host: nothing is logged under a lock."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    with listening("127.0.0.9") as (_, port):
        pass  # and gone again: refused

    class Ships(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            shipper = threading.Thread(target=lambda: socket.getaddrinfo(HOST, port), daemon=True)
            shipper.start()
            shipper.join(5)
            arrived.append(not shipper.is_alive())

    arrived: list[bool] = []
    logger = logging.getLogger("airflow_provider_hokusai_dns")
    handler = Ships(logging.WARNING)
    with pin_host(HOST, resolver, patience=1.0) as pin:
        logger.addHandler(handler)
        try:
            pin.addresses(port, connects=True, must_be_tested=True)
        finally:
            logger.removeHandler(handler)
    assert arrived == [True]


def test_a_log_handler_that_connects_while_the_store_is_asked_waits_for_nothing(
    lookup: ScriptedLookup,
) -> None:
    """A store logs that it cannot be read, while the lookup that it is asked for is under way."""
    lookup.set("localhost", Cause.SERVFAIL)
    took: list[float] = []

    class Connecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            began = time.monotonic()
            socket.create_connection(("localhost", port)).close()
            took.append(time.monotonic() - began)

    store = MemoryStore()
    store.error = OSError("no database")
    logger, handler = logging.getLogger(publishing.__name__), Connecting()
    resolver = DNSResolver(ResolverConfig(timeout=4.0), lookup=lookup, store=store)
    with listening("127.0.0.1") as (_, port), pin_host("localhost", resolver, patience=0.0):
        logger.addHandler(handler)
        try:
            with pytest.raises(socket.gaierror):
                socket.getaddrinfo("localhost", port)
            assert resolver.wait_idle(10)
        finally:
            logger.removeHandler(handler)
    assert took
    assert max(took) < 2.0


def test_the_rule_of_an_owner_goes_with_its_release(dns: DNSServer, resolver: DNSResolver) -> None:
    """A connection that is not in use any more holds up no other one."""
    dns.set_records(HOST, ["127.0.0.11"], ttl=60)
    with listening("127.0.0.11") as (_, port):
        pass
    patient = pin_host(HOST, resolver, patience=60.0, owner="patient")
    with pin_host(HOST, resolver, patience=0.5):
        patient.release("patient")
        began = time.monotonic()
        assert patient.addresses(port, connects=True, must_be_tested=True) == ["127.0.0.11"]
        assert time.monotonic() - began < 5


def test_a_coroutine_that_gave_up_does_not_hold_up_its_process(
    dns: DNSServer, resolver: DNSResolver
) -> None:
    """``asyncio.run`` joins its executor: a thread of that does not wait as long as a run may."""
    dns.no_such_name(HOST)

    async def give_up() -> float:
        loop = asyncio.get_running_loop()
        waits = [
            asyncio.ensure_future(asyncio.wait_for(loop.getaddrinfo(HOST, 80), 0.2))
            for _ in range(40)
        ]
        await asyncio.gather(*waits, return_exceptions=True)
        began = time.monotonic()
        await asyncio.to_thread(lambda: None)
        return time.monotonic() - began

    with pin_host(HOST, resolver, patience=60.0):
        began = time.monotonic()
        assert asyncio.run(give_up()) < 5
        assert time.monotonic() - began < 6


@pytest.mark.parametrize(
    ("host", "addresses"),
    [(HOST, ["127.0.0.9"]), (HOST, ["127.0.0.9", "127.0.0.10", "::1"]), ("127.0.0.9", [])],
)
def test_a_connection_on_a_good_day_runs_little_code_of_ours(
    dns: DNSServer, resolver: DNSResolver, host: str, addresses: list[str]
) -> None:
    """A few functions, and none that decides or takes a lock: they run with cold caches."""
    dns.set_records(HOST, addresses, ttl=60)
    connections: list[list[str]] = []

    def note(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and "airflow_provider_hokusai_dns" in frame.f_code.co_filename:
            connections[-1].append(frame.f_code.co_name)

    with listening("0.0.0.0") as (_, port), pin_host(host, resolver, port=port):
        for _ in range(4):
            socket.create_connection((host, port)).close()
        sys.setprofile(note)
        try:
            for _ in range(3):  # on a busy machine a late reply may still change the answer
                connections.append([])
                socket.create_connection((host, port)).close()
        finally:
            sys.setprofile(None)
    ran = min(connections, key=len)
    assert 0 < len(ran) <= 8, ran


def test_what_is_given_once_more_ends_with_the_pin_and_its_resolver(
    dns: DNSServer, resolver: DNSResolver, lookup: ScriptedLookup
) -> None:
    """Not with the cached arguments of the call: each may change while connections are made."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    with listening("0.0.0.0") as (_, port):

        def peer() -> str:
            with socket.create_connection((HOST, port)) as connection:
                return connection.getpeername()[0]  # type: ignore[no-any-return]

        with pin_host(HOST, resolver, port=port) as pin:
            assert {peer() for _ in range(5)} == {"127.0.0.9"}
            lookup.set(HOST, "127.0.0.10")
            pin.resolve_by(DNSResolver(lookup=lookup))
            assert {peer() for _ in range(5)} == {"127.0.0.10"}
            pin.resolver.report_failure(HOST, "127.0.0.10")
            lookup.set(HOST, "127.0.0.11")
            pin.resolver.refresh(HOST)
            assert {peer() for _ in range(5)} == {"127.0.0.11"}
        with pin_host("other.test.local", resolver), pytest.raises(socket.gaierror):
            peer()


def test_a_pinned_address_is_found_again_though_the_sentinel_asks_for_it(
    resolver: DNSResolver,
) -> None:
    """The pin is looked for by a call with an address that may be pinned, and was asked for."""
    with listening() as (_, port), pin_host("127.0.0.1", resolver, port=port):
        for _ in range(4):
            socket.create_connection(("127.0.0.1", port)).close()
        there = socket.getaddrinfo
        pin_host("other.test.local", resolver).release()
        assert socket.getaddrinfo is there


def test_a_function_that_remembers_answers_does_not_hide_the_pin(
    resolver: DNSResolver, dns: DNSServer
) -> None:
    """A cache in front of ours would give the first answer for ever, and none of its outcomes."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    socket.getaddrinfo("127.0.0.1", None)
    with pin_host(HOST, resolver, port=80):
        ours = socket.getaddrinfo
        socket.getaddrinfo = functools.lru_cache(ours)
        try:
            assert socket.getaddrinfo(HOST, 80)[0][4][0] == "127.0.0.9"
            pin_host(HOST, resolver, port=80)
            dns.set_records(HOST, ["127.0.0.10"], ttl=60)
            resolver.refresh(HOST)
            assert socket.getaddrinfo(HOST, 80)[0][4][0] == "127.0.0.10"
            assert socket.getaddrinfo("127.0.0.1", None)
        finally:
            socket.getaddrinfo = ours


def getaddrinfo(host: Any, port: Any, *more: Any) -> Any:
    """Stands there as the socket integration of sentry-sdk does."""
    return getaddrinfo.real(host, port, *more)  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrapper", ["a function", "mock"])
def test_a_coroutine_that_gave_up_is_known_through_what_wraps_the_pin(
    resolver: DNSResolver, dns: DNSServer, wrapper: str
) -> None:
    """Or its event loop would join the thread until the patience of a run ends."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)

    async def main() -> None:
        with contextlib.suppress(TimeoutError, OSError):
            loop = asyncio.get_running_loop()
            await asyncio.wait_for(loop.getaddrinfo(HOST, 9, type=socket.SOCK_STREAM), 0.2)

    with pin_host(HOST, resolver, port=9, patience=15.0) as pin:
        pin.addresses(9, connects=True)  # of which nothing is heard, so that the next is tried
        getaddrinfo.real = socket.getaddrinfo  # type: ignore[attr-defined]
        put = mock.Mock(wraps=socket.getaddrinfo) if wrapper == "mock" else getaddrinfo
        began = time.monotonic()
        with mock.patch("socket.getaddrinfo", put):
            asyncio.run(main())
    assert time.monotonic() - began < 6.0


def test_an_answer_is_a_plain_list_for_another_process(
    resolver: DNSResolver, dns: DNSServer
) -> None:
    """As one from a pool of processes: it has no part in what becomes of the first."""
    dns.set_records(HOST, ["127.0.0.9"], ttl=60)
    with pin_host(HOST, resolver, port=80):
        found = socket.getaddrinfo(HOST, 80)
        copied = pickle.loads(pickle.dumps(found))
    assert copied == found
    assert type(copied) is list


def test_a_port_that_is_none_is_refused_as_by_the_system(resolver: DNSResolver) -> None:
    with pin_host(HOST, resolver, port=80), pytest.raises(OSError, match="Int or String expected"):
        socket.getaddrinfo(HOST, [80])  # type: ignore[arg-type]


@pytest.mark.parametrize("more", [(None,), (80, 0, socket.SOCK_DGRAM)])
def test_a_deadline_holds_for_a_lookup_that_is_for_no_connection(
    resolver: DNSResolver, dns: DNSServer, more: tuple[Any, ...]
) -> None:
    """Nothing is tried for it, and so no patience is asked; the lookup itself takes long."""
    dns.silent(HOST)
    resolver.reconfigure(replace(resolver.config, timeout=8.0))

    async def give_up() -> None:
        with contextlib.suppress(TimeoutError, OSError):
            await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo(HOST, *more[:1]), 0.2)

    with pin_host(HOST, resolver):
        began = time.monotonic()
        with bounded(0.5), pytest.raises(socket.gaierror, match="no outcome"):
            socket.getaddrinfo(HOST, *more)
        assert time.monotonic() - began < 2.0
        began = time.monotonic()
        asyncio.run(give_up())
        assert time.monotonic() - began < 4.0
