"""Our lookup beside ``getaddrinfo``, inside a network and an ``/etc`` of our own.

``python -m tests.resolver.lookup.parity GROUP`` runs in a private namespace (see ``test_parity``),
and prints one JSON line per case. The nameservers are another process in there, so that neither
lookup is measured with the other's interpreter lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver import (
    ResolverConfig,
)
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.resolver.testing import ANY, DNSServer, Fault, ScriptedLookup

ETC = Path("/etc")
MAIN, GOOD, SILENT, SERVFAIL, NXDOMAIN, LAME, SLOW, CLOSED, LOCAL = (
    f"127.0.0.{n}" for n in (2, 3, 4, 5, 6, 7, 8, 9, 1)
)
LINK_LOCAL = "fe80::53"

# --- resolv.conf


def plain(text: str) -> Callable[[], None]:
    return lambda: (ETC / "resolv.conf").write_text(text)


def renamed() -> None:
    (ETC / "resolv.conf.new").write_text(f"nameserver {MAIN}\n")
    (ETC / "resolv.conf.new").replace(ETC / "resolv.conf")


def linked() -> None:
    (ETC / "run-resolv.conf").write_text(f"nameserver {MAIN}\n")
    (ETC / "resolv.conf").unlink(missing_ok=True)
    (ETC / "resolv.conf").symlink_to("run-resolv.conf")


def missing() -> None:
    (ETC / "resolv.conf").unlink(missing_ok=True)


NS = f"nameserver {MAIN}\n"
FORMS: dict[str, Callable[[], None]] = {
    name: plain(text)
    for name, text in {
        "one": NS,
        "two": f"{NS}nameserver {GOOD}\n",
        "five": NS + "".join(f"nameserver {ns}\n" for ns in (GOOD, CLOSED, GOOD, LOCAL)),
        "closed first": f"nameserver {CLOSED}\n{NS}",
        "servfail first": f"nameserver {SERVFAIL}\n{NS}",
        "lame first": f"nameserver {LAME}\n{NS}",
        "search": f"{NS}search a.test zone.test\n",
        "search before": f"search a.test zone.test\n{NS}",
        "search twice": f"search zone.test\nsearch a.test\n{NS}",
        "domain": f"{NS}domain zone.test\n",
        "domain and search": f"domain a.test\nsearch zone.test\n{NS}",
        "ndots 5": f"{NS}search a.test zone.test\noptions ndots:5\n",
        "ndots 0": f"{NS}search zone.test\noptions ndots:0\n",
        "ndots 99": f"{NS}search zone.test\noptions ndots:99\n",
        "ndots none": f"{NS}search zone.test\noptions ndots:\n",
        "root searched": f"{NS}search . zone.test\n",
        "dotted search": f"{NS}search .zone.test zone.test.\n",
        "odd search": f"{NS}search a..b {'x' * 64}.test zone.test\n",
        "comma search": f"{NS}search a.test,zone.test zone.test\n",
        "named nameserver": f"nameserver good.zone.test\n{NS}",
        "nameserver with port": f"nameserver 127.0.0.9:53\nnameserver [::1]:53\n{NS}",
        "nameservers with comma": f"nameserver {CLOSED},{GOOD}\n{NS}",
        "trailing words": f"nameserver {MAIN} 127.0.0.9 # the good one\n",
        "tabs": f"nameserver\t{MAIN}\nsearch\tzone.test\t\n",
        "indented": f"  nameserver {CLOSED}\n{NS}",
        "comments": f"# nameserver {CLOSED}\n;nameserver {CLOSED}\n\n{NS}",
        "unknown words": f"lookup file bind\nsortlist 127.0.0.0\n{NS}options blue:1\n",
        "short address": "nameserver 127.2\n",
        "hex address": "nameserver 0x7f.2\n",
        "any address": "nameserver 0.0.0.0\n",
        "ipv6": "nameserver ::1\n",
        "link-local": f"nameserver {LINK_LOCAL}%lo\n",
        "empty": "",
        "only comments": "# nothing here\n",
        "no newline": f"nameserver {MAIN}",
        "rotate": f"{NS}nameserver {GOOD}\noptions rotate\n",
        "use-vc": f"{NS}options use-vc\n",
        "edns0": f"{NS}options edns0 trust-ad\n",
        "single-request": f"{NS}options single-request\n",
        "single-request-reopen": f"{NS}options single-request-reopen\n",
        "no-tld-query": f"{NS}search a.test\noptions no-tld-query\n",
        "no-aaaa": f"{NS}options no-aaaa\n",
        "many options": f"{NS}options ndots:2 timeout:1 attempts:1 rotate debug inet6\n",
    }.items()
}
FORMS |= {"renamed": renamed, "linked": linked, "missing": missing}

#: What a person, a template or another system may write; each with a few names only.
ODD_FORMS: dict[str, Callable[[], None]] = {
    name: plain(text)
    for name, text in {
        "crlf": f"nameserver {MAIN}\r\nsearch zone.test\r\noptions ndots:2\r\n",
        "mapped nameserver": f"nameserver ::ffff:{MAIN}\n",
        "semicolon behind": f"nameserver {CLOSED};{GOOD}\n{NS}",
        "hash behind": f"nameserver {CLOSED}#53\n{NS}",
        "zone of another interface": f"nameserver {LINK_LOCAL}%nowhere0\n{NS}",
        "zone by number": f"nameserver {LINK_LOCAL}%1\n",
        "zone of a global address": f"nameserver ::1%lo\n{NS}",
        "upper case": f"NAMESERVER {CLOSED}\nOptions ndots:5\n{NS}",
        "nul": f"nameserver {CLOSED}\0\n{NS}search zone.test\n",
        "byte order mark": f"\ufeffnameserver {CLOSED}\n{NS}",
        "empty search": f"{NS}search zone.test\nsearch\nsearch \n",
        "domain of two words": f"{NS}domain zone.test a.test\n",
        "search and a comment": f"{NS}search zone.test # a.test\n",
        "ten domains": f"{NS}search {' '.join(f'd{n}.example' for n in range(9))} zone.test\n",
        "long domain": f"{NS}search {'.'.join(['x' * 60] * 4)}.test zone.test\n",
        "underscore domain": f"{NS}search _a.test zone.test\n",
        "same domain twice": f"{NS}search zone.test ZONE.test zone.test\n",
        "same nameserver twice": f"{NS}{NS}nameserver {GOOD}\n",
        "ndots -1": f"{NS}search a.test zone.test\noptions ndots:-1\n",
        "ndots +2": f"{NS}search a.test zone.test\noptions ndots:+2\n",
        "ndots blank": f"{NS}search a.test zone.test\noptions ndots: 2\n",
        "ndots 2x": f"{NS}search a.test zone.test\noptions ndots:2x\n",
        "ndots twice": f"{NS}search a.test zone.test\noptions ndots:9 ndots:1\noptions ndots:2\n",
        "ndots word": f"{NS}search a.test zone.test\noptions ndots\n",
        "options tab": f"{NS}search a.test zone.test\noptions\tndots:2\trotate\n",
        "options before": f"options ndots:2\nsearch a.test zone.test\n{NS}",
        "underscored options": f"{NS}search a.test\noptions no_aaaa use_vc no_tld_query\n",
        "longer options": f"{NS}options no-aaaa-please rotate:1 edns0x use-vcx\n",
        "timeout 0": f"{NS}options timeout:0 attempts:0\n",
        "timeout huge": f"{NS}options timeout:99999999999 attempts:99\n",
        "servfail and closed": f"nameserver {SERVFAIL}\nnameserver {CLOSED}\n{NS}",
        "refused and lame": f"nameserver {LAME}\nnameserver {SERVFAIL}\n{NS}",
        "nxdomain first": f"nameserver {NXDOMAIN}\n{NS}",
        "edns0 and tcp": f"{NS}options edns0 use-vc single-request-reopen\n",
    }.items()
}


def with_environ(text: str, **environ: str) -> Callable[[], None]:
    def put() -> None:
        plain(text)()
        os.environ.update(environ)

    return put


ODD_FORMS |= {
    "LOCALDOMAIN": with_environ(f"{NS}search a.test\n", LOCALDOMAIN="zone.test x.test"),
    "LOCALDOMAIN tabs": with_environ(f"{NS}search a.test\n", LOCALDOMAIN="\tzone.test\ta.test"),
    "LOCALDOMAIN blank": with_environ(f"{NS}search a.test\n", LOCALDOMAIN=" zone.test \na.test"),
    "LOCALDOMAIN empty": with_environ(f"{NS}search zone.test\n", LOCALDOMAIN=""),
    "RES_OPTIONS": with_environ(f"{NS}search a.test zone.test\n", RES_OPTIONS="ndots:3 use-vc"),
    "RES_OPTIONS empty": with_environ(f"{NS}search a.test\noptions ndots:2\n", RES_OPTIONS=""),
}
ODD_NAMES = ("both", "both.zone.test", "twice.zone.test", "v6only.zone.test", "single", "single.")

#: Those that wait: each case costs glibc seconds.
SLOW_FORMS = {
    name: plain(text)
    for name, text in {
        "slow one": f"{NS}options timeout:1 attempts:3\n",
        "silent first": f"nameserver {SILENT}\n{NS}options timeout:1\n",
        "two silent first": f"nameserver {SILENT}\nnameserver 127.0.0.14\n{NS}options timeout:1\n",
        "dead search": f"{NS}search dead.example\noptions ndots:5 timeout:1 attempts:1\n",
        "slow nameserver": f"nameserver {SLOW}\n",
        "slow beside another": f"nameserver {SLOW}\nnameserver {NXDOMAIN}\n",
    }.items()
}

# --- hosts

HOSTS = {
    "none": b"",
    "usual": b"127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
    "two lines": b"10.9.0.1 both.zone.test\nfd09::1 both.zone.test other\n"
    b"10.9.0.2 both.zone.test\n",
    "comments": b"# x\r10.9.0.3 both.zone.test\n# y\x0c10.9.0.4 both.zone.test\n"
    b"# z\xc2\x8510.9.0.5 both.zone.test\n# \xe2\x80\xa810.9.0.6 both.zone.test\n",
    "crlf and case": b"10.9.0.7\tBOTH.zone.test v4only.zone.test\r\n",
    "junk": b"\xff\xfe\nnot-an-address both.zone.test\n10.9.0.8\n0x7f.1 v4only.zone.test\n"
    b"10.9.0.9 \t v6only.zone.test#comment\n",
}

ODD_HOSTS = {
    "loopback 6": b"::1 both.zone.test\n",
    "both loopbacks": b"127.0.0.1 both.zone.test\n::1 both.zone.test\n",
    "mapped": b"::ffff:10.9.0.1 both.zone.test\n",
    "zone id": b"fe80::1%lo both.zone.test\n",
    "short address": b"10.9.1 both.zone.test\n0x0a.9.0.1 both.zone.test\n"
    b"010.9.0.1 both.zone.test\n",
    "long line": b"10.9.0.1 "
    + b" ".join(b"n%d.test" % n for n in range(900))
    + b" both.zone.test\n",
    "no newline": b"10.9.0.1 both.zone.test",
    "nul": b"10.9.0.1 both.zone.test\0x\n10.9.0.2 \0 both.zone.test\n",
    "indented": b" \t 10.9.0.1 both.zone.test\n",
    "same twice": b"10.9.0.1 both.zone.test both.zone.test\n10.9.0.1 both.zone.test\n",
    "short name": b"10.9.0.1 both both.a.test\n",
    "byte order mark": b"\xef\xbb\xbf10.9.0.1 both.zone.test\n",
    "vertical tab": b"10.9.0.1\x0bboth.zone.test\n10.9.0.2 x\x0cboth.zone.test\n",
    "family apart": b"fd09::1 x both.zone.test\n10.9.0.1 y\n10.9.0.2 both.zone.test\n",
    "hundred": b"".join(b"10.9.1.%d both.zone.test\n" % n for n in range(100)),
}

# --- names, each with what its nameserver does

BOTH = ("10.0.0.1", "fd00::1")
NAMES = {
    "both.zone.test": BOTH,
    "v4only.zone.test": ("10.0.0.2",),
    "v6only.zone.test": ("fd00::2",),
    "eight.zone.test": tuple(f"10.0.1.{n}" for n in range(8)),
    "under_score.zone.test": BOTH,
    "xn--mnchen-3ya.zone.test": BOTH,
    "sink.zone.test": ("0.0.0.0",),
    "single": BOTH,
    "cut.zone.test": tuple(f"10.0.2.{n}" for n in range(60)),
    "nodata.zone.test": (),
    "nx-a.zone.test": ("fd00::3",),
    "nx-aaaa.zone.test": ("10.0.0.3",),
    "fail-aaaa.zone.test": ("10.0.0.4",),
    "refuse-aaaa.zone.test": ("10.0.0.5",),
    "servfail.zone.test": BOTH,
    "refused.zone.test": BOTH,
    "formerr.zone.test": BOTH,
    "late.zone.test": BOTH,
    "both.a.test": ("10.5.0.1",),
    "twice.zone.test": ("10.0.0.7",),
    "twice.zone.test.a.test": ("10.5.0.2",),
}
ASKED = (
    *(name for name in NAMES if name not in ("single", "both.a.test", "late.zone.test")),
    "both.zone.test.", "BOTH.Zone.TEST", "alias.zone.test", "chain.zone.test", "loop.zone.test",
    "nowhere.zone.test", "gone.zone.test", "gone.example", "single", "single.", "both", "v4only",
    "under_score", "münchen.zone.test", "localhost", "a.localhost", "x" * 63 + ".zone.test",
)  # fmt: skip
SLOW_NAMES = {
    "both.zone.test": BOTH,
    "lost.zone.test": BOTH,
    "lost-a.zone.test": BOTH,
    "lost-aaaa.zone.test": BOTH,
    "silent-aaaa.zone.test": ("10.0.0.6",),
    "garbage-first.zone.test": BOTH,
    "wrong-id-first.zone.test": BOTH,
    "slow.zone.test": BOTH,
}
SOME_HOSTS = ("none", "usual")


def groups() -> dict[str, list[tuple[str, str, str]]]:
    """The cases of each process: form, hosts file, name."""
    fast = [(form, hosts, name) for form in FORMS for hosts in SOME_HOSTS for name in ASKED]
    fast += [
        ("one", hosts, name) for hosts in HOSTS for name in (*ASKED, "other", "BOTH.zone.test")
    ]
    fast += [
        (form, "none", "late.zone.test") for form in ("one", "two", "use-vc", "single-request")
    ]
    fast += [(form, "none", name) for form in ODD_FORMS for name in ODD_NAMES]
    fast += [("search", hosts, name) for hosts in ODD_HOSTS for name in ("both.zone.test", "both")]
    fast += [
        (form, "none", f"{name}.wire.test")
        for form in ("one", "two", "edns0", "use-vc", "single-request")
        for name in WIRE
    ]
    fast += [("two", "none", f"{name}.wire.test") for name in UNREADABLE]
    # What glibc does not do, and we do on purpose: an entry holds for the absolute form too.
    fast = [case for case in fast if not (case[1] in _HIDING and case[2] == "both.zone.test.")]
    found = {"fast": fast}
    for form in SLOW_FORMS:
        found[form] = [(form, "none", name) for name in SLOW_NAMES]
    return found


_HIDING = ("two lines", "crlf and case")


# --- nameservers


def fill(server: DNSServer) -> DNSServer:
    for name, addresses in {**NAMES, **SLOW_NAMES}.items():
        if addresses:
            server.set_records(name, addresses)
    for name in (*WIRE, *UNREADABLE):
        server.set_records(f"{name}.wire.test", BOTH)
    server.set_rdata("nodata.zone.test", "TXT", ['"x"'])
    server.set_cname("alias.zone.test", "both.zone.test")
    server.set_cname("chain.zone.test", "alias.zone.test")
    server.set_cname("loop.zone.test", "pool.zone.test")
    server.set_cname("pool.zone.test", "loop.zone.test")
    server.set_cname("nowhere.zone.test", "gone.zone.test")
    server.set_records("x" * 63 + ".zone.test", ["10.0.3.1"])
    server.fault("nx-a.zone.test", Fault.NO_SUCH_NAME, rdtype="A")
    server.fault("nx-aaaa.zone.test", Fault.NO_SUCH_NAME, rdtype="AAAA")
    server.fault("fail-aaaa.zone.test", Fault.SERVFAIL, rdtype="AAAA")
    server.fault("refuse-aaaa.zone.test", Fault.REFUSED, rdtype="AAAA")
    return server


def break_(server: DNSServer) -> DNSServer:
    """What only the first nameserver does."""
    for name, payload in {**WIRE, **UNREADABLE}.items():
        server.garbage(f"{name}.wire.test", payload=payload)
    server.servfail("servfail.zone.test")
    server.fault("refused.zone.test", Fault.REFUSED)
    server.fault("formerr.zone.test", Fault.FORMERR)
    server.delay("late.zone.test", 0.3)
    lost = (Fault.SILENT, *[Fault.ANSWER] * 9999)
    server.fault("lost.zone.test", *lost, every=2)
    server.fault("lost-a.zone.test", *lost, rdtype="A")
    server.fault("lost-aaaa.zone.test", *lost, rdtype="AAAA")
    server.fault("silent-aaaa.zone.test", Fault.SILENT, rdtype="AAAA")
    server.fault("garbage-first.zone.test", Fault.GARBAGE, Fault.ANSWER, every=2)
    server.fault("wrong-id-first.zone.test", Fault.WRONG_ID, Fault.ANSWER, every=2)
    server.delay("slow.zone.test", 1.3)
    for name in SLOW_NAMES:
        server.fault(f"{name}.dead.example", Fault.SILENT)
    return server


def lame(wire: bytes) -> bytes:
    """An empty answer of one that knows nothing and looks nothing up (RFC 2308, 2.2)."""
    import dns.flags
    import dns.message

    message = dns.message.from_wire(wire)
    message.answer, message.authority = [], []
    message.set_rcode(0)
    message.flags &= ~(dns.flags.RA | dns.flags.AA)
    return message.to_wire()


def _changed(change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    """The right answer, changed."""

    def payload(wire: bytes) -> bytes:
        import dns.message

        message = dns.message.from_wire(wire)
        change(message)
        return message.to_wire(max_size=65535)

    return payload


def _rr(name: str, kind: str, data: str, ttl: int = 10) -> Any:
    import dns.rrset

    return dns.rrset.from_text(name, ttl, "IN", kind, data)


def _chain(length: int, *, backwards: bool = False) -> Callable[[Any], None]:
    """Aliases before the addresses."""

    def change(message: Any) -> None:
        import dns.rrset

        asked = message.question[0].name.to_text()
        names = [asked, *(f"c{n}.wire.test." for n in range(length))]
        found = [(name, "CNAME", after) for name, after in pairwise(names)]
        for rrset in message.answer:
            found += [
                (names[-1], dns.rdatatype.to_text(rrset.rdtype), one.to_text()) for one in rrset
            ]
        message.answer = [_rr(*one) for one in (reversed(found) if backwards else found)]

    return change


def _answer(*records: tuple[str, str, str]) -> Callable[[Any], None]:
    """Records in place of those that are there, of either type."""

    def change(message: Any) -> None:
        asked = message.question[0].name.to_text()
        message.answer = [_rr(name or asked, kind, data) for name, kind, data in records]

    return change


def _also(*records: tuple[str, str, str]) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        asked = message.question[0].name.to_text()
        message.answer += [_rr(name or asked, kind, data) for name, kind, data in records]

    return change


def _rcode(code: int, *, empty: bool = True) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        if empty:
            message.answer = []
        message.set_rcode(code)

    return change


def _flags(mask: int, value: int = 0) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        message.flags = message.flags & ~mask | value

    return change


def _upper(message: Any) -> None:
    for rrset in message.answer:
        rrset.name = type(rrset.name)([label.upper() for label in rrset.name.labels])


def _ttl(ttl: int) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        for rrset in message.answer:
            rrset.ttl = ttl

    return change


def _no_question(message: Any) -> None:
    message.question = []


_SIG = "A 8 3 10 20300101000000 20200101000000 1 test. AAAA"
#: How a nameserver may answer, well or badly.
WIRE: dict[str, Callable[[bytes], bytes]] = {
    name: _changed(change)
    for name, change in {
        "alias": _chain(1),
        "chain9": _chain(9),
        "chain15": _chain(15),
        "backwards": _chain(2, backwards=True),
        "upper": _upper,
        "ttl0": _ttl(0),
        "ttlmax": _ttl(2**31 - 1),
        "notimp": _rcode(4),
        "notauth": _rcode(9),
        "yxdomain": _rcode(6),
        "nxdomain-with-answer": _rcode(3, empty=False),
        "servfail-with-answer": _rcode(2, empty=False),
        "formerr-with-answer": _rcode(1, empty=False),
        "no-ra": _flags(0x80),
        "aa": _flags(0, 0x400),
        "ad": _flags(0, 0x20),
        "tc-with-answer": _flags(0, 0x200),
        "no-question": _no_question,
        "signed": _also(("", "RRSIG", _SIG)),
        "text-too": _also(("", "TXT", '"x"')),
        "other-too": _also(("other.wire.test.", "A", "10.6.6.6")),
        "wrong-type": _answer(("", "A", "10.6.0.1")),
        "wrong-type-6": _answer(("", "AAAA", "fd06::1")),
        "twice": _answer(("", "A", "10.6.0.1"), ("", "A", "10.6.0.1"), ("", "AAAA", "fd06::1")),
        "alias-only": _answer(("", "CNAME", "both.zone.test.")),
        "two-aliases": _answer(
            ("", "CNAME", "c.wire.test."), ("", "CNAME", "d.wire.test."),
            ("c.wire.test.", "A", "10.6.0.1"), ("d.wire.test.", "A", "10.6.0.2"),
        ),
        "dname": _answer(
            ("wire.test.", "DNAME", "other.test."), ("", "CNAME", "x.other.test."),
            ("x.other.test.", "A", "10.6.0.1"), ("x.other.test.", "AAAA", "fd06::1"),
        ),
        "odd-alias": _answer(("", "CNAME", "a\\032b.wire.test."),
            ("a\\032b.wire.test.", "A", "10.6.0.1")),
        "mapped": _answer(("", "A", "10.6.0.1"), ("", "AAAA", "::ffff:10.6.0.2")),
    }.items()
}  # fmt: skip
WIRE["trailing"] = lambda wire: wire + b"trailing"
#: No answers; those of the second nameserver are taken.
UNREADABLE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda wire: wire[:-3],
    "counts": lambda wire: wire[:6] + b"\0\x09" + wire[8:],
    "header": lambda wire: wire[:12],
    "empty": lambda wire: b"",
    "class": lambda wire: wire.replace(b"\0\x01\0\x01", b"\0\x01\0\x03"),
}


def serve() -> None:
    """All nameservers in this process, until its input ends."""
    servers = [break_(fill(DNSServer(MAIN, 53)))]
    servers += [fill(DNSServer(host, 53)) for host in (GOOD, LOCAL, "::1", f"{LINK_LOCAL}%lo")]
    for host, spoil in {
        SILENT: lambda server: server.silent(),
        "127.0.0.14": lambda server: server.silent(),
        SERVFAIL: lambda server: server.servfail(),
        NXDOMAIN: lambda server: server.no_such_name(),
        LAME: lambda server: server.garbage(payload=lame),
        SLOW: lambda server: server.delay(ANY, 1.3),
    }.items():
        server = DNSServer(host, 53)
        if host == SLOW:
            fill(server)
        spoil(server)
        servers.append(server)
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()


# --- the two lookups


def theirs(name: str) -> tuple[set[str] | str, float]:
    """glibc's addresses, or its error; on a thread of its own, whose resolver state is new."""
    found: list[set[str] | str] = []

    def ask() -> None:
        try:
            infos = socket.getaddrinfo(name, None, 0, socket.SOCK_STREAM)
            found.append({str(ip_address(info[4][0])) for info in infos})
        except (OSError, UnicodeError) as error:
            found.append(str(error))

    thread = threading.Thread(target=ask)
    started = time.monotonic()
    thread.start()
    thread.join()
    return found[0], time.monotonic() - started


def ours(name: str) -> tuple[set[str] | str, float]:
    """Our addresses without any help of the system, and the seconds until the first of them."""
    lookup = LiveLookup(ResolverConfig(), system=ScriptedLookup())
    started = time.monotonic()
    try:
        hostname = Target.parse(name).hostname
        pending = lookup.begin(hostname, timeout=10.0)
        pending.run(10.0)
        took = time.monotonic() - started
        if isinstance(pending.outcome, LookupFailed):
            raise pending.outcome
        answers = [pending.outcome]
    except (LookupFailed, ValueError) as error:
        return str(error), time.monotonic() - started
    pending.go_on(answers.append)
    return set(answers[-1].addresses), took


def compare(case: tuple[str, str, str]) -> dict[str, Any]:
    form, hosts, name = case
    for variable in ("LOCALDOMAIN", "RES_OPTIONS"):
        os.environ.pop(variable, None)
    {**FORMS, **ODD_FORMS, **SLOW_FORMS}[form]()
    (ETC / "hosts").write_bytes({**HOSTS, **ODD_HOSTS}[hosts])
    (their, their_time), (our, our_time) = theirs(name), ours(name)
    wrong = ""
    if isinstance(their, set) and their != our:
        wrong = "other addresses"
    elif isinstance(their, set) and our_time > their_time + 0.5:
        wrong = "later"
    shown = [sorted(found) if isinstance(found, set) else found for found in (their, our)]
    return {"case": case, "wrong": wrong, "theirs": shown[0], "ours": shown[1],
            "seconds": [round(their_time, 2), round(our_time, 2)]}  # fmt: skip


# --- the place


def furnish(folder: Path) -> None:
    """Loopback with a link-local address, and an ``/etc`` of our own. Inside the namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        flags = struct.unpack(
            "16sh14x", fcntl.ioctl(control, 0x8913, struct.pack("16sh14x", b"lo", 0))
        )
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", flags[1] | 1))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        address = socket.inet_pton(socket.AF_INET6, LINK_LOCAL)
        fcntl.ioctl(control, 0x8916, struct.pack("16sIi", address, 64, socket.if_nametoindex("lo")))
    socket.sethostname("worker.zone.test")
    for name in ("ld.so.cache", "passwd", "group", "host.conf", "localtime"):
        if (ETC / name).exists():
            shutil.copy(ETC / name, folder / name)
    (folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    subprocess.run(["mount", "--bind", str(folder), str(ETC)], check=True)
    if Path("/run/nscd").is_dir():
        subprocess.run(["mount", "-t", "tmpfs", "none", "/run/nscd"], check=True)


@contextlib.contextmanager
def nameservers() -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.resolver.lookup.parity", "--serve"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the nameservers do not start"
        yield
        process.kill()


def main(word: str) -> None:
    if word == "--serve":
        serve()
        return
    with tempfile.TemporaryDirectory() as folder:
        furnish(Path(folder))
        with nameservers():
            for case in groups()[word]:
                found = compare(case)
                if found["wrong"]:  # a busy machine may be late once
                    found = compare(case)
                sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
