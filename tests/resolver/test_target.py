"""What callers pass, parsed and rendered back."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.resolver.target import (
    Target,
    normalise_hostname,
    parse_address,
    shown,
)

ADDRESSES = ("10.0.1.221", "fd00::1", "fe80::1%eth0")

# -- strategies ------------------------------------------------------------------------------------

_INNER = st.text("abcdefghijklmnopqrstuvwxyzABCDEFXYZ0123456789_-", max_size=20)
_EDGE = st.sampled_from("abczABCZ059_")
_LABELS = st.builds(lambda a, b, c: a + b + c, _EDGE, _INNER, _EDGE) | _EDGE
#: The last label is never a number, or the whole would look like an address.
_TLDS = st.builds(lambda a, b: a + b, st.sampled_from("abcxyzLX"), st.text("abc-", max_size=5)).map(
    lambda label: label.rstrip("-")
)
HOSTNAMES = st.builds(
    lambda labels, tld, dot: ".".join([*labels, tld]) + dot,
    st.lists(_LABELS, max_size=4),
    _TLDS,
    st.sampled_from(["", "."]),
)
IPV4 = st.integers(0, 2**32 - 1).map(lambda number: str(IPv4Address(number)))
ZONES = st.sampled_from(["", "", "", "%eth0", "%1", "%wlan-0.5"])
IPV6 = st.builds(
    lambda number, zone: str(IPv6Address(number)) + zone, st.integers(0, 2**128 - 1), ZONES
)
PORTS = st.integers(1, 65535)
USERINFO = st.just("") | st.text(
    st.characters(codec="utf-8", exclude_characters="/?#\\ ", exclude_categories=["Cc", "Cs"]),
    max_size=15,
).map(lambda text: text + "@")
PATHS = st.just("") | st.builds(
    lambda sign, text: sign + text, st.sampled_from("/?#"), st.text(max_size=25)
)


def _in_url(host: str) -> str:
    return f"[{host.replace('%', '%25')}]" if ":" in host else host


URLS = st.builds(
    lambda scheme, user, host, port, rest: f"{scheme}://{user}{_in_url(host)}{port}{rest}",
    st.sampled_from(["http", "https", "HTTP", "mlflow+https"]),
    USERINFO,
    HOSTNAMES | IPV4 | IPV6,
    st.sampled_from(["", ":"]) | PORTS.map(lambda port: f":{port}"),
    PATHS,
)
BARE = (
    HOSTNAMES
    | IPV4
    | IPV6
    | st.builds(lambda host, port: f"{host}:{port}", HOSTNAMES | IPV4, PORTS)
    | st.builds(lambda host, port: f"[{host}]:{port}", IPV6, PORTS)
    | IPV6.map(lambda host: f"[{host}]")
)
TARGETS = BARE | URLS

# -- properties ------------------------------------------------------------------------------------


@given(TARGETS)
def test_rendering_the_host_itself_gives_the_text_back(text: str):
    """Parse and render are inverse: what stood around the host is untouched to the letter."""
    target = Target.parse(text)
    assert target.prefix + target.host_text + target.suffix == target.text == text
    if target.literal is None:
        assert target.render(target.host_text) == text


@given(TARGETS, IPV4 | IPV6)
def test_a_rendered_target_parses_to_the_address_and_to_the_rest_of_itself(text: str, address: str):
    """The answer has the form of the question: same scheme, userinfo, port, path, query."""
    target = Target.parse(text)
    again = Target.parse(target.render(address))
    assert again.literal == again.hostname == address
    assert (again.prefix, again.suffix, again.port) == (target.prefix, target.suffix, target.port)
    assert again.render(address) == again.text


@given(TARGETS, IPV4 | IPV6, PORTS)
def test_a_port_of_the_answer_replaces_that_of_the_text(text: str, address: str, port: int):
    """An SRV answer carries its own port; everything else stays."""
    target = Target.parse(text)
    again = Target.parse(target.render(address, port))
    assert (again.literal, again.port) == (address, port)
    assert again.prefix == target.prefix
    assert again.render(address, target.port or 1) == target.render(address, target.port or 1)


@given(HOSTNAMES, PORTS, PATHS, USERINFO)
def test_every_form_of_one_name_has_the_same_hostname(
    name: str, port: int, path: str, userinfo: str
):
    """Hostname, ``host:port`` and URL mean one entry of the cache, whatever their case."""
    forms = [name, name.upper(), f"{name}:{port}", f"https://{userinfo}{name}:{port}{path}"]
    assert {Target.parse(form).hostname for form in forms} == {name.lower()}


@given(st.text(max_size=60) | st.builds(lambda a, b: f"{a}://{b}", st.text(max_size=5), st.text()))
def test_no_text_does_anything_but_parse_or_raise_value_error(text: str):
    """Whatever is passed, the error is ours, and a target that parsed can be rendered."""
    shown(text)
    try:
        target = Target.parse(text)
    except ValueError:
        return
    assert Target.parse(target.render("10.0.0.1")).literal == "10.0.0.1"
    assert target.hostname.isascii()


@given(
    st.text("abcXYZ0123456789/:?#@%.-_~!$&'()*+,;=", min_size=6, max_size=20),
    st.sampled_from(["http://{}@h.local:x/", "http://user:{}@h.local:99999", "user:{}@h.local",
                     "http://user:{}@/p", "http://u:{}@h h/", "u:{}@h:1", "http:/u:{}@h",
                     "http://user:{}@1.2/", "http://h_.-/?{}@x", "https://{}@[::1/"]),
)  # fmt: skip
def test_no_error_tells_a_password(secret: str, form: str):
    """Messages end in logs: they show scheme, host and port, and never what may be a secret."""
    secret = f"s3{secret}cr"
    text = form.format(secret)
    try:
        Target.parse(text)
    except ValueError as error:
        message = str(error)
    else:
        return  # An unescaped slash ended the host: by RFC 3986 this was no password.
    for part in secret.replace("@", "/").replace("?", "/").replace("#", "/").split("/"):
        if len(part) > 3:
            assert part not in message


# -- examples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hostname", "port", "rendered"),
    [
        ("mlflow.local", "mlflow.local", None, "10.0.0.1"),
        ("MLflow.Local", "mlflow.local", None, "10.0.0.1"),
        ("mlflow.local.", "mlflow.local.", None, "10.0.0.1"),
        ("mlflow", "mlflow", None, "10.0.0.1"),
        ("_srv._tcp.my_host.local", "_srv._tcp.my_host.local", None, "10.0.0.1"),
        ("1.2.a", "1.2.a", None, "10.0.0.1"),
        ("mlflow.local:5000", "mlflow.local", 5000, "10.0.0.1:5000"),
        ("http://mlflow.local", "mlflow.local", None, "http://10.0.0.1"),
        ("HTTPS://MLflow.Local:443/", "mlflow.local", 443, "HTTPS://10.0.0.1:443/"),
        ("http://mlflow.local:/x", "mlflow.local", None, "http://10.0.0.1:/x"),
        ("http://mlflow.local?q=mlflow.local", "mlflow.local", None,
         "http://10.0.0.1?q=mlflow.local"),
        ("http://mlflow.local#mlflow.local", "mlflow.local", None, "http://10.0.0.1#mlflow.local"),
        ("http://a.b/a.b/a.b?a.b", "a.b", None, "http://10.0.0.1/a.b/a.b?a.b"),
        ("http://a.b:a.b@a.b/", "a.b", None, "http://a.b:a.b@10.0.0.1/"),
        ("http://u:p@x@a.b/", "a.b", None, "http://u:p@x@10.0.0.1/"),
        ("http://a.b/x@y:z", "a.b", None, "http://10.0.0.1/x@y:z"),
        ("http://a.b/http://c.d:1/", "a.b", None, "http://10.0.0.1/http://c.d:1/"),
        ("bücher.example", "xn--bcher-kva.example", None, "10.0.0.1"),
        ("http://BÜCHER.example.:80/", "xn--bcher-kva.example.", 80, "http://10.0.0.1:80/"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None, "10.0.0.1"),
        ("straße.example", "xn--strae-oqa.example", None, "10.0.0.1"),
    ],
)  # fmt: skip
def test_names_in_every_form(text: str, hostname: str, port: int | None, rendered: str):
    """The host is found and replaced by position, never by searching for its text."""
    target = Target.parse(text)
    assert (target.hostname, target.port, target.literal) == (hostname, port, None)
    assert target.render("10.0.0.1") == rendered


@pytest.mark.parametrize(
    ("text", "literal", "port"),
    [
        ("10.0.1.221", "10.0.1.221", None),
        ("10.0.1.221:5000", "10.0.1.221", 5000),
        ("http://10.0.1.221:5000/x", "10.0.1.221", 5000),
        ("::1", "::1", None),
        ("FD00:0::1", "fd00::1", None),
        ("[::1]", "::1", None),
        ("[::1]:5000", "::1", 5000),
        ("http://[::1]/", "::1", None),
        ("http://[FD00::1]:5000/", "fd00::1", 5000),
        ("::ffff:10.0.0.1", "::ffff:a00:1", None),
        ("fe80::1%eth0", "fe80::1%eth0", None),
        ("[fe80::1%eth0]:5000", "fe80::1%eth0", 5000),
        ("http://[fe80::1%25eth0]:5000/", "fe80::1%eth0", 5000),
        ("http://[fe80::1%eth0]/", "fe80::1%eth0", None),
    ],
)
def test_literal_addresses_in_every_form(text: str, literal: str, port: int | None):
    """An address is its own hostname, in canonical form; the text keeps its own."""
    target = Target.parse(text)
    assert (target.literal, target.hostname, target.port) == (literal, literal, port)
    assert target.text == text


@pytest.mark.parametrize(
    ("text", "address", "port", "rendered"),
    [
        ("a.b", "fd00::1", None, "fd00::1"),
        ("a.b", "fd00::1", 80, "[fd00::1]:80"),
        ("a.b:5000", "fd00::1", None, "[fd00::1]:5000"),
        ("a.b:5000", "fe80::1%eth0", None, "[fe80::1%eth0]:5000"),
        ("http://a.b/", "fd00::1", None, "http://[fd00::1]/"),
        ("http://a.b/", "fe80::1%eth0", None, "http://[fe80::1%25eth0]/"),
        ("[::1]", "fd00::1", None, "[fd00::1]"),
        ("::1", "fd00::1", None, "fd00::1"),
        ("a.b", "10.0.0.1", 80, "10.0.0.1:80"),
        ("a.b:5000", "10.0.0.1", 80, "10.0.0.1:80"),
        ("http://a.b:5000/5000", "10.0.0.1", 80, "http://10.0.0.1:80/5000"),
        ("http://a.b:/x", "10.0.0.1", 80, "http://10.0.0.1:80/x"),
    ],
)
def test_addresses_of_both_families_are_rendered_as_their_place_demands(
    text: str, address: str, port: int | None, rendered: str
):
    """Brackets where a port or a URL needs them, the zone id's percent sign escaped in URLs."""
    assert Target.parse(text).render(address, port) == rendered


@pytest.mark.parametrize(
    "text",
    ["1", "127.1", "1.2", "1.2.3", "0x7f.1", "0x7f000001", "0x", "017700000001", "010.0.0.1",
     "10.0.0.256", "10.0.0.1.", "10.0.0.1.5", "a.1", "a.0x1f", "10.0.0.\uff11"],
)  # fmt: skip
def test_only_canonical_addresses_are_addresses(text: str):
    """What ``inet_aton`` would guess at is refused, and taken neither for a name nor an address."""
    assert parse_address(text) is None
    for form in (text, f"{text}:5000", f"http://{text}/"):
        with pytest.raises(ValueError, match=r"neither a hostname nor an address.*10\.0\.1\.221"):
            Target.parse(form)


@pytest.mark.parametrize(
    "text", ["", "localhost", "::1%", "::1%a%b", "::1%a]b", "fe80::1%a b", ":::1", "1:2:3", " ::1"]
)
def test_what_is_no_address(text: str):
    """``parse_address`` answers ``None`` for everything else."""
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the target is empty"),
        ("a" * 9000, "9000 characters long, 8192 at most"),
        ("a" * 64, "is longer than 63"),
        (".".join(["a" * 60] * 5), "304 characters long; a hostname has 253 at most"),
        ("a..b", "has an empty label"),
        (".", "has an empty label"),
        (".a", "has an empty label"),
        ("a.b..", "has an empty label"),
        ("-a.b", "label '-a' may contain letters"),
        ("a-.b", "label 'a-' may contain letters"),
        ("a%20b", "label 'a%20b' may contain letters"),
        ("a*b", "may contain letters"),
        ("a b", r"'a b' is neither a host nor a URL: it contains a space"),
        ("a.b\n", r"it contains the character '\\n'"),
        ("a\x00b", r"it contains the character '\\x00'"),
        ("a\\b", r"it contains the character"),
        ("http://a b/", r"'http://a b/' is neither a host nor a URL: it contains a space"),
        ("http://a.b\t/", "it contains the character"),
        ("a.b:0", "port '0' in 'a.b:0' is not a number from 1 to 65535"),
        ("a.b:65536", "port '65536'"),
        ("a.b:000080", "port '000080'"),
        ("a.b:-1", "the port in 'a.b:...' is not a number"),
        ("a.b:http", "the port in 'a.b:...'"),
        ("a.b:٣", "port '٣'"),
        ("a.b:", "'a.b:' has a colon but no port"),
        ("[::1]:", "has a colon but no port"),
        (":5000", "':5000' has no host"),
        ("http://", "'http://' has no host"),
        ("https:///x", "'https:///...' has no host"),
        ("http://:5000/", "has no host"),
        ("http://user@/x", "'http:///...' has no host"),
        ("http://[]/", "has no host"),
        ("[]", "has no host"),
        ("http://::1/", r"write an IPv6 address in a URL in brackets, as in \[::1\]"),
        ("[::1", "has a bracket that does not close"),
        ("[::1]5000", "has a bracket that does not close"),
        ("[10.0.0.1]", r"'\[10.0.0.1\]' in '\[10.0.0.1\]' is not an IPv6 address"),
        ("http://[a.b]/", "is not an IPv6 address"),
        ("http://[fe80::1%25]/", "is not an IPv6 address"),
        ("a:b:c", "'a:...' is neither host:port nor an IPv6 address"),
        ("a.b/c", "'a.b/...' is neither a host nor a URL: a URL begins with http://"),
        ("a.b:5000/c", "is neither a host nor a URL"),
        ("//a.b", "is neither a host nor a URL"),
        ("://a.b", "is neither a host nor a URL"),
        ("1http://a.b", "is neither a host nor a URL"),
        ("http:/a.b", "is neither a host nor a URL"),
        ("user@a.b", "'a.b' is neither a host nor a URL"),
        ("http://user:pa/ss@a.b/", r"'http://...' has no valid host and port.* %2F"),
        ("😀.example", "is not a hostname: Codepoint U"),
        ("ä" * 70, "is not a hostname"),
        ("ä..b", "is not a hostname"),
        ("\ud800.example", "is not a hostname"),
    ],
)
def test_input_that_can_never_be_right_is_refused_with_the_reason(text: str, message: str):
    """The error names the part and its value, before anything is done."""
    with pytest.raises(ValueError, match=message):
        Target.parse(text)


@pytest.mark.parametrize("value", [None, 5, b"a.b", ["a.b"]])
def test_only_a_string_is_a_target(value: object):
    """The error names the type that came instead."""
    with pytest.raises(ValueError, match=f"a target must be a string, not {type(value).__name__}"):
        Target.parse(value)  # type: ignore[arg-type]


def test_a_name_of_the_greatest_length_is_a_name():
    """253 characters, in labels of up to 63, with or without the final dot."""
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(name) == 253
    assert normalise_hostname(name) == name
    assert normalise_hostname(name.upper() + ".") == name + "."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:pass@a.b:5000/path?q#f", "http://a.b:5000/..."),
        ("http://a.b/", "http://a.b/"),
        ("http://a.b", "http://a.b"),
        ("http://user:pa/ss@a.b/", "http://..."),
        ("user:pass@a.b:5000/path", "a.b:5000/..."),
        ("user:pass", "user:..."),
        ("http://user:pass", "http://user:..."),
        ("http://a:b:c/", "http://a:.../"),
        ("[fd00::1]:5000", "[fd00::1]:5000"),
        ("fd00::1", "fd00::1"),
        ("a.b:5000", "a.b:5000"),
        ("a.b?token=x", "a.b/..."),
        ("http://" + "a" * 400, "http://" + "a" * 293),
        ("a" * 400, "a" * 300),
    ],
)
def test_what_messages_show_of_a_target(text: str, expected: str):
    """Scheme, host and port; no userinfo, path or query."""
    assert shown(text) == expected


def test_the_repr_of_a_target_tells_no_secret():
    """A target in a traceback or a log line shows its host and port alone."""
    target = Target.parse("http://user:s3cret@a.b:5000/?token=s3cret")
    assert repr(target) == "Target(hostname='a.b', host_text='a.b', port=5000, literal=None)"
