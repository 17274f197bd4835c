"""A pinned host is answered as the system would, errors too."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_hokusai_dns.resolver import Cause, DNSResolver
from airflow_provider_hokusai_dns.resolver.pin import pin_host
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup

HOST = "mlflow.test.local"
FAMILIES = [0, socket.AF_INET, socket.AF_INET6, 99]
TYPES = [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, 99]
PORTS = [None, 0, 80, "80", "http", b"http", "no-such-service", "²", 70000, "", 1.5]
FLAGS = [
    0,
    socket.AI_CANONNAME,
    socket.AI_PASSIVE,
    socket.AI_NUMERICSERV,
    socket.AI_V4MAPPED,
    socket.AI_V4MAPPED | socket.AI_ALL,
    0x8000,
]


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except Exception as error:
        return type(error), error.args[0], str(error)


def test_every_combination_of_arguments_gives_what_the_system_gives() -> None:
    """Results and errors of 1540 combinations, for a name that the hosts file knows."""
    system = socket.getaddrinfo
    known = dict.fromkeys(item[4][0] for item in system("localhost", None))
    resolver = DNSResolver(lookup=ScriptedLookup({"localhost": tuple(known)}))
    different = []
    with pin_host("localhost", resolver, port=1):
        assert socket.getaddrinfo is not system
        for arguments in itertools.product(PORTS, FAMILIES, TYPES, [0], FLAGS):
            ours = outcome(socket.getaddrinfo, "localhost", *arguments)
            theirs = outcome(system, "localhost", *arguments)
            if ours != theirs and not (theirs[0] is socket.gaierror and ours[:2] == theirs[:2]):
                different.append((arguments, ours, theirs))
    assert different == []


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause.NXDOMAIN, socket.EAI_NONAME),
        (Cause.NODATA, socket.EAI_NODATA),
        (Cause.SERVFAIL, socket.EAI_AGAIN),
        (Cause.TIMEOUT, socket.EAI_AGAIN),
        (Cause.MALFORMED, socket.EAI_FAIL),
    ],
)
def test_a_failed_lookup_has_the_code_of_the_system(cause: Cause, code: int) -> None:
    with (
        pin_host(HOST, DNSResolver(lookup=ScriptedLookup({HOST: cause}))),
        pytest.raises(socket.gaierror, match="cannot be resolved") as caught,
    ):
        socket.getaddrinfo(HOST, None)
    assert caught.value.errno == code


def test_mapped_addresses_are_given_for_want_of_better_only() -> None:
    """``AI_V4MAPPED`` without ``AI_ALL`` (RFC 3493, section 6.1)."""
    resolver = DNSResolver(lookup=ScriptedLookup({HOST: ("127.0.0.1", "::1")}))
    with pin_host(HOST, resolver, port=1):
        for flags, addresses in (
            (socket.AI_V4MAPPED, {"::1"}),
            (socket.AI_V4MAPPED | socket.AI_ALL, {"::1", "::ffff:127.0.0.1"}),
        ):
            found = socket.getaddrinfo(HOST, 80, socket.AF_INET6, flags=flags)
            assert {item[4][0] for item in found} == addresses


def test_a_wrong_argument_is_told_before_the_name_is_waited_for() -> None:
    lookup = ScriptedLookup()
    with pin_host(HOST, DNSResolver(lookup=lookup)):
        with pytest.raises(socket.gaierror) as caught:
            socket.getaddrinfo(HOST, "no-such-service")
        assert caught.value.errno == socket.EAI_SERVICE
    assert lookup.calls() == 0


@pytest.mark.parametrize("call", [socket.gethostbyname, socket.gethostbyname_ex])
def test_the_older_functions_are_answered_as_well(call: Callable[[str], Any]) -> None:
    """They give IPv4 addresses only."""
    name = call.__name__
    lookup = ScriptedLookup({HOST: ("::1", "127.0.0.9"), "six.test.local": "::1"})
    resolver = DNSResolver(lookup=lookup)
    with pin_host(HOST, resolver), pin_host("six.test.local", resolver):
        found = getattr(socket, name)(HOST)
        assert found == ("127.0.0.9" if name == "gethostbyname" else (HOST, [], ["127.0.0.9"]))
        assert getattr(socket, name)("127.0.0.1") == call("127.0.0.1")
        with pytest.raises(socket.gaierror):
            getattr(socket, name)("six.test.local")
    assert getattr(socket, name) is call


def test_a_name_in_unicode_is_the_same_name() -> None:
    resolver = DNSResolver(lookup=ScriptedLookup({"mlflow.xn--bro-hoa.example": "127.0.0.9"}))
    with pin_host("mlflow.büro.example", resolver, port=1):
        for name in ("mlflow.büro.example", "mlflow.xn--bro-hoa.example", "MLflow.BÜRO.example"):
            assert socket.getaddrinfo(name, 80)[0][4][0] == "127.0.0.9"
