"""resolv.conf as glibc reads it; the parity matrix shows the same beside glibc itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.resolver.lookup.files import parse_hosts
from airflow_provider_hokusai_dns.resolver.lookup.questions import Server
from airflow_provider_hokusai_dns.resolver.lookup.resolv_conf import ResolvConf, parse_resolv_conf


def parse(text: str, hostname: str = "worker", **environ: str) -> ResolvConf:
    return parse_resolv_conf(text, environ, hostname=lambda: hostname)


@pytest.mark.parametrize(
    ("lines", "addresses"),
    [
        ("nameserver 10.0.0.1\nnameserver fd00::1", ("10.0.0.1", "fd00::1")),
        ("nameserver 10.0.0.1 10.0.0.2 # words", ("10.0.0.1",)),
        (
            "nameserver dns.test\nnameserver 10.0.0.1:53\nnameserver 10.0.0.1,10.0.0.2",
            ("127.0.0.1",),
        ),
        ("nameserver [::1]\nnameserver\nnameserver \n nameserver 10.0.0.1", ("127.0.0.1",)),
        ("nameserver 10.1\nnameserver 0x0a000002", ("10.0.0.1", "10.0.0.2")),
        ("nameserver fe80::1%eth0\nnameserver fd00::1%eth0", ("fe80::1%eth0", "fd00::1")),
        ("nameserver 10.0.0.1\nnameserver 10.0.0.1", ("10.0.0.1",)),
        ("#nameserver 10.0.0.1\nNameserver 10.0.0.1\nnameserverx 10.0.0.1", ("127.0.0.1",)),
        ("nameserver 10.0.0.1\r\nsearch a.test\r\n", ("10.0.0.1",)),
        ("", ("127.0.0.1",)),
    ],
)
def test_a_line_that_cannot_be_read_takes_nothing_from_the_others(lines, addresses):
    """Where none names a nameserver, the one on this machine is asked."""
    assert parse(lines).nameservers == tuple(Server(address) for address in addresses)


@pytest.mark.parametrize(
    ("text", "hostname", "search"),
    [
        ("search a.test b.test", "w.c.test", ("a.test", "b.test")),
        ("domain a.test b.test", "w.c.test", ("a.test",)),
        ("search a.test\ndomain b.test", "w", ("b.test",)),
        ("search\ndomain ", "w.c.test", ("c.test",)),
        ("", "w", ()),
        ("", "w" * 64, ()),
        ("", "w..test", (".test",)),
    ],
)
def test_search_domains_are_the_last_line_or_the_machines_own(text, hostname, search):
    """Whatever the machine is called, it breaks nothing."""
    assert parse(text, hostname).search == search
    assert parse(text, hostname).candidates("mlflow")


def test_the_environment_goes_before_the_file():
    """``LOCALDOMAIN`` and ``RES_OPTIONS`` (resolv.conf(5))."""
    conf = parse(
        "search a.test\noptions ndots:3", LOCALDOMAIN="b.test c.test", RES_OPTIONS="ndots:5"
    )
    assert (conf.search, conf.ndots) == (("b.test", "c.test"), 5)


def test_an_empty_localdomain_means_that_no_domain_is_searched():
    """Neither those of the file nor the machine's own."""
    assert parse("search a.test", "w.c.test", LOCALDOMAIN="").candidates("mlflow") == ["mlflow."]
    assert parse("", "w.c.test", LOCALDOMAIN=" ").candidates("mlflow") == ["mlflow."]


@pytest.mark.parametrize("local", [" a.test\tb.test \nc.test", "\ta.test  b.test"])
def test_before_a_leading_blank_of_localdomain_there_is_the_root(local):
    """As for glibc: a blank ends a domain, even an empty one, and a newline ends the list."""
    names = parse("", "w.c.test", LOCALDOMAIN=local).candidates("mlflow")
    assert names == ["mlflow.", "mlflow.a.test.", "mlflow.b.test."]


def test_options_are_honoured_within_glibcs_bounds():
    """What is not known is ignored; of a flag only its beginning counts, as for glibc."""
    conf = parse("options ndots:99 timeout:0 attempts:9 rotate use-vc edns0:1 blue no_aaaa")
    assert (conf.ndots, conf.timeout, conf.attempts) == (15, 1, 5)
    assert (conf.rotate, conf.use_vc, conf.edns0, conf.no_aaaa) == (True, True, True, False)
    assert [parse(f"options ndots:{text}").ndots for text in ("-1", "+2", "3x", "")] == [
        15,
        2,
        3,
        0,
    ]
    assert parse("options single-request-reopen").single_request
    assert parse("options ndots:x").ndots == 0
    assert parse("options timeout:-1").timeout == 1


def test_an_option_that_lacks_its_number_is_ignored():
    """Without a colon it is none that glibc knows."""
    assert parse("options ndots timeout attempts") == parse("")


@pytest.mark.parametrize(
    ("search", "ndots", "name", "names"),
    [
        ((".x",), 1, "m", ["m.x.", "m."]),
        (("a..b", "x" * 64, "a,b.test", "ok.test"), 1, "m", ["m.a,b.test.", "m.ok.test.", "m."]),
        ((".", "x"), 5, "m", ["m.", "m.x."]),
        (("x", "x."), 1, "m.n", ["m.n.", "m.n.x."]),
        (("x",), 0, "m", ["m.", "m.x."]),
        (("x",), 5, "m.n.", ["m.n."]),
        (("search.domain.test",), 5, ".".join(["a" * 60] * 4), [".".join(["a" * 60] * 4) + "."]),
    ],
)
def test_candidates_are_the_names_that_can_exist(search, ndots, name, names):
    """One that cannot says nothing about the others."""
    conf = ResolvConf(search=search, ndots=ndots)
    assert conf.candidates(name) == names
    assert conf.candidates(name, names[-1])[0] == names[-1]
    assert conf.candidates(name, "stranger.") == names


@given(st.text(max_size=200), st.text(max_size=20))
def test_any_text_is_a_resolv_conf(text, hostname):
    """With a nameserver to ask, and a name to ask for."""
    conf = parse(text, hostname)
    assert conf.nameservers
    assert conf.candidates("mlflow.test")
    assert parse(f"options {text}").nameservers


@given(st.text(alphabet=" \t\r\f\v\x1c\x85\u2028\n#1.a:", max_size=60))
def test_what_stands_in_a_comment_of_the_hosts_file_stays_there(text):
    """A line ends with a line feed and with nothing else."""
    comment = "# " + text.replace("\n", " ")
    assert parse_hosts(f"{comment} 10.0.0.9 evil\n10.0.0.1 good\n") == {"good": ("10.0.0.1",)}
