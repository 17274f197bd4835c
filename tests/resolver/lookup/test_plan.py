"""The schedule in virtual time: nameservers that are written down, and nothing slept."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver import Answer, Cause
from airflow_provider_hokusai_dns.resolver.lookup.nameserver_health import (
    SILENT_FOR,
    NameserverHealth,
)
from airflow_provider_hokusai_dns.resolver.lookup.pending_question import Query
from airflow_provider_hokusai_dns.resolver.lookup.plan import Plan
from airflow_provider_hokusai_dns.resolver.lookup.questions import Reply, Server
from airflow_provider_hokusai_dns.resolver.lookup.resolv_conf import ResolvConf

ONE, TWO, THREE = (Server(f"10.0.0.{n}") for n in (1, 2, 3))
NAME = "mlflow.test."
START = 1000.0

A = Reply(addresses=("10.1.0.1",), ttl=10.0)
B = Reply(addresses=("10.2.0.2",), ttl=20.0)
AAAA = Reply(addresses=("fd00::1",), ttl=30.0)
NXDOMAIN, NODATA = Reply(Cause.NXDOMAIN), Reply(Cause.NODATA)
SERVFAIL, REFUSED = Reply(Cause.SERVFAIL), Reply(Cause.REFUSED)
NETWORK = Reply(Cause.NETWORK, note="Connection refused")
SILENCE = None

Says = Reply | None | tuple[float, Reply]


@dataclass
class World:
    """Nameservers, and what each says to a question: ``(server, name, kind)``, with wildcards.

    A reply comes at once, ``(seconds, reply)`` comes later, ``None`` never does. A list is one
    for each query in turn, its last for all that follow.
    """

    says: dict[tuple[object, object, object], Says | list[Says]]
    now: float = START
    sent: list[tuple[float, Query]] = field(default_factory=list)
    health: NameserverHealth = field(default_factory=NameserverHealth)

    def run(
        self,
        servers: tuple[Server, ...] = (ONE,),
        names: tuple[str, ...] = (NAME,),
        *,
        timeout: float = 10.0,
        on: bool = False,
        **more,
    ) -> Answer | LookupFailed:
        """Drive one plan to its outcome, or with ``on`` until nothing more can come."""
        more.setdefault("conf", ResolvConf())
        plan = Plan(names, servers, self.health, self.now, timeout, **more)
        events: list[tuple[float, int, Query, Reply]] = []
        count = itertools.count()
        self.began, self.plan = self.now, plan
        while True:
            while plan.outbox:
                query = plan.outbox.pop(0)
                self.sent.append((self.now, query))
                said = self._says(query)
                if isinstance(said, tuple):
                    heapq.heappush(events, (self.now + said[0], next(count), query, said[1]))
                elif said is not None:
                    heapq.heappush(events, (self.now, next(count), query, said))
            if plan.is_over(self.now) if on else plan.outcome is not None:
                assert plan.outcome is not None
                return plan.outcome
            due = events[0][0] if events else float("inf")
            assert min(due, plan.wake_at) < float("inf"), "nothing will ever happen"
            if due <= plan.wake_at:
                self.now, _, query, reply = heapq.heappop(events)
                if reply.cause is Cause.NETWORK:
                    plan.broke(query, reply, self.now)
                else:
                    plan.replied(query, reply, self.now)
            else:
                self.now = plan.wake_at
                plan.tick(self.now)

    def _says(self, query: Query) -> Says:
        name, kind = query.question
        for key in itertools.product((query.server, "*"), (name, "*"), (kind, "*")):
            if key in self.says:
                said = self.says[key]
                if isinstance(said, list):
                    return said.pop(0) if len(said) > 1 else said[0]
                return said
        return SILENCE

    @property
    def took(self) -> float:
        return self.now - self.began

    def asked(self) -> list[tuple[str, str, str, float]]:
        """Server, name, kind and seconds since the beginning, of each query."""
        return [
            (query.server.address, *query.question, at - self.began)
            for at, query in self.sent
            if at >= self.began
        ]


def world(**says: Says | list[Says]) -> World:
    """One nameserver, by family."""
    return World({(ONE, "*", kind): said for kind, said in says.items()})


def test_a_good_nameserver_costs_one_query_per_family():
    """Both at the same moment, and the shorter TTL of the two."""
    w = world(A=A, AAAA=AAAA)
    answer = w.run((ONE, TWO, THREE))
    assert isinstance(answer, Answer)
    assert (answer.addresses, answer.ttl, answer.name) == (("10.1.0.1", "fd00::1"), 10, NAME)
    assert w.asked() == [("10.0.0.1", NAME, "A", 0), ("10.0.0.1", NAME, "AAAA", 0)]
    assert w.took == 0


def test_a_slow_nameserver_is_waited_for_and_its_late_reply_counts():
    """Each query keeps its ear: nothing is forgotten at the next try, and tries lengthen."""
    w = world(A=(4.3, A), AAAA=(4.3, NODATA))
    assert w.run().addresses == A.addresses
    assert w.took == pytest.approx(4.3)
    times = [at for _, _, kind, at in w.asked() if kind == "A"]
    assert times == [0, 0.5, 1.5, 3.5]


def test_a_lost_packet_costs_half_a_second():
    """Before the system is asked, whose answer has no TTL."""
    w = world(A=[SILENCE, A], AAAA=NODATA)
    assert w.run().ttl == 10
    assert w.took == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [SERVFAIL, REFUSED, NETWORK, Reply(Cause.MALFORMED)])
def test_a_nameserver_that_fails_is_followed_by_the_next_at_once(bad):
    """And is not asked again for this name."""
    w = World({(ONE, "*", "*"): bad, (TWO, "*", "A"): A, (TWO, "*", "AAAA"): NODATA})
    assert w.run((ONE, TWO)).addresses == A.addresses
    assert w.took == 0
    assert len(w.sent) == 4


def test_a_nameserver_that_fails_one_name_is_first_again_for_the_next():
    """A preference is for health, and not for answers."""
    w = World({(ONE, "other.test.", "*"): SERVFAIL, (ONE, NAME, "*"): A, (TWO, "*", "*"): NXDOMAIN})
    assert isinstance(w.run((ONE, TWO), ("other.test.",)), LookupFailed)
    assert w.run((ONE, TWO)).addresses == A.addresses


def test_a_dead_first_nameserver_costs_a_second_once():
    """Then it is asked last, then in its place with the next beside it, and heals by a packet."""
    w = World({(TWO, "*", "A"): A, (TWO, "*", "AAAA"): NODATA})
    assert w.run((ONE, TWO)).addresses == A.addresses
    assert w.took == pytest.approx(1.0)
    w.now += 1
    w.run((ONE, TWO))
    assert w.took == 0
    assert {query[0] for query in w.asked() if query[2] == "A"} == {"10.0.0.2"}
    w.now += SILENT_FOR
    w.run((ONE, TWO))
    assert w.took == 0
    assert {query[0] for query in w.asked()} == {"10.0.0.1", "10.0.0.2"}
    w.says[ONE, "*", "A"], w.says[ONE, "*", "AAAA"] = B, NODATA
    assert w.run((ONE, TWO)).addresses == B.addresses
    assert not w.health.is_silent(ONE)


def test_of_three_dead_nameservers_none_is_given_up():
    """They are asked in turn until the time is over, and each of them is named."""
    w = World({})
    failed = w.run((ONE, TWO, THREE))
    assert isinstance(failed, LookupFailed)
    assert failed.cause is Cause.TIMEOUT
    assert w.took == pytest.approx(10)
    said = {str(step) for step in failed.tried}
    for server in (ONE, TWO, THREE):
        assert any(f"dns {server} A {NAME}: no answer" in step for step in said)


@pytest.mark.parametrize("reply", [NXDOMAIN, NODATA])
def test_a_no_of_a_later_nameserver_waits_for_the_earlier_one(reply):
    """``[inside, public]``: a packet to ``inside`` is lost, and ``public`` knows no such name."""
    w = World(
        {
            (ONE, "*", "A"): [SILENCE, A],
            (ONE, "*", "AAAA"): [SILENCE, NODATA],
            (TWO, "*", "*"): reply,
        }
    )
    assert w.run((ONE, TWO)).addresses == A.addresses
    assert w.took == pytest.approx(1.0)


def test_a_no_does_not_outvote_a_nameserver_that_was_not_asked():
    """One that has fallen silent is behind the others, and asked before their "no" is believed."""
    w = World({(ONE, "*", "*"): A, (TWO, "*", "*"): NXDOMAIN})
    w.health.unanswered(ONE, w.now - 2, w.now)
    answer = w.run((ONE, TWO))
    assert answer.addresses == A.addresses
    assert [query[0] for query in w.asked()] == ["10.0.0.2", "10.0.0.2", "10.0.0.1", "10.0.0.1"]


def test_a_no_stands_when_the_earlier_nameserver_stays_silent():
    """A name that is gone is known to be gone also beside a dead nameserver."""
    w = World({(TWO, "*", "*"): NXDOMAIN})
    assert w.run((ONE, TWO)).cause is Cause.NXDOMAIN
    assert w.took < 3.1


def test_an_address_of_a_later_nameserver_waits_a_second_for_the_earlier_one():
    """The list has an order: what the first says within a second counts."""
    says = {(ONE, "*", "A"): (0.9, A), (ONE, "*", "AAAA"): NODATA, (TWO, "*", "*"): B}
    w = World(says)
    assert w.run((ONE, TWO)).addresses == A.addresses
    w = World(says | {(ONE, "*", "A"): (1.1, A)})
    assert w.run((ONE, TWO)).addresses == B.addresses
    assert w.took == pytest.approx(1.0)


# --- the two families


@pytest.mark.parametrize("seconds", [0.4, 0.9, 3.0, 8.0])
def test_no_such_name_of_aaaa_is_none_while_a_is_open(seconds):
    """RFC 4074, 4.2: servers say so where they mean "no data"."""
    w = world(AAAA=NXDOMAIN, A=(seconds, A))
    assert w.run().addresses == A.addresses
    assert w.took == pytest.approx(seconds)


def test_no_such_name_of_aaaa_alone_is_not_known():
    """A that never answers is a time-out: rule 7's clock must not start."""
    assert world(AAAA=NXDOMAIN).run().cause is Cause.TIMEOUT
    assert world(AAAA=NXDOMAIN, A=SERVFAIL).run().cause is Cause.SERVFAIL


def test_no_such_name_of_a_is_believed_though_aaaa_is_silent():
    """After a moment: firewalls and servers are about that drop AAAA."""
    w = world(A=NXDOMAIN)
    assert w.run().cause is Cause.NXDOMAIN
    assert w.took == pytest.approx(2.0)


def test_an_ipv6_address_waits_a_second_for_the_ipv4_one():
    """One that is lost or slow is no rarity, and a v6-only answer helps few."""
    w = world(AAAA=AAAA, A=(0.9, A))
    assert set(w.run().addresses) == {*A.addresses, *AAAA.addresses}
    w = world(AAAA=AAAA)
    assert w.run().addresses == AAAA.addresses
    assert w.took == pytest.approx(1.0)


def test_an_ipv4_address_waits_a_quarter_of_a_second_for_ipv6():
    """Then the caller has it, and what comes later is merged."""
    w = world(A=A, AAAA=(0.7, AAAA))
    assert w.run().addresses == A.addresses
    assert w.took == pytest.approx(0.25)
    w = world(A=A, AAAA=(0.7, AAAA))
    assert w.run(on=True).addresses == (*A.addresses, *AAAA.addresses)
    assert w.took == pytest.approx(0.7)


def test_a_family_that_never_answers_is_asked_twice_and_listened_to_for_three_seconds():
    """What comes after the outcome costs next to nothing."""
    w = world(A=A)
    w.run(on=True)
    assert w.took == pytest.approx(3.25)
    assert sum(kind == "AAAA" for _, _, kind, _ in w.asked()) == 2


def test_one_family_at_a_time_where_the_options_say_so():
    """``options single-request``: a firewall that drops the second of two queries."""
    w = world(A=(0.3, A), AAAA=AAAA)
    assert len(w.run(conf=ResolvConf(single_request=True)).addresses) == 2
    (_, _, first, _), (_, _, second, at) = w.asked()
    assert (first, second, at) == ("A", "AAAA", pytest.approx(0.3))


# --- the search list

SEARCHED = ("mlflow.test.dead.example.", NAME)


def test_a_silent_search_domain_does_not_cost_the_whole_time():
    """glibc answers after ten seconds; the name as it is answers after two and a half."""
    w = World({("*", NAME, "A"): A, ("*", NAME, "AAAA"): NODATA})
    answer = w.run(names=SEARCHED)
    assert (answer.name, answer.addresses) == (NAME, A.addresses)
    assert w.took == pytest.approx(2.5)


def test_the_name_that_answered_before_is_asked_alone():
    """With the hint first, a silent search domain costs nothing at all."""
    w = World({("*", NAME, "A"): A, ("*", NAME, "AAAA"): NODATA})
    assert w.run(names=(NAME, SEARCHED[0]), hint=NAME).name == NAME
    assert w.took == 0
    assert len(w.sent) == 2


def test_an_earlier_candidate_that_is_slow_is_preferred():
    """The list has an order: a slow production goes before a quick staging."""
    w = World({("*", SEARCHED[0], "*"): (2.2, A), ("*", NAME, "*"): B})
    assert w.run(names=SEARCHED).addresses == A.addresses


def test_a_dead_nameserver_does_not_slow_each_search_domain_down():
    """Its part in a "no" is waited for once, and not in front of every candidate."""
    names = (*(f"mlflow.{n}.test." for n in range(3)), NAME)
    w = World({(TWO, "*", "*"): NXDOMAIN, (TWO, NAME, "*"): A})
    w.health.unanswered(ONE, w.now - 2, w.now)
    assert w.run((ONE, TWO), names).addresses == A.addresses
    assert w.took == 0


@pytest.mark.parametrize(
    ("says", "hint", "cause"),
    [
        # the name as it is was asked first: it decides
        ((NXDOMAIN, REFUSED), None, Cause.NXDOMAIN),
        ((NXDOMAIN, SERVFAIL), None, Cause.NXDOMAIN),
        ((SERVFAIL, NXDOMAIN), None, Cause.SERVFAIL),
        # the name that answered before decides
        ((NXDOMAIN, SERVFAIL), 1, Cause.SERVFAIL),
        ((SERVFAIL, NXDOMAIN), 1, Cause.NXDOMAIN),
    ],
)
def test_the_known_name_or_the_name_as_it_is_decides(says, hint, cause):
    """A refused search domain must not keep an old answer for a day that may live 900 s."""
    names = (NAME, "mlflow.test.search.test.")
    w = World({("*", name, "*"): said for name, said in zip(names, says, strict=True)})
    known = None if hint is None else names[hint]
    order = names if hint is None else (names[1], names[0])
    assert w.run(names=order, hint=known).cause is cause


@pytest.mark.parametrize(
    ("searched", "cause"),
    [
        (REFUSED, Cause.NXDOMAIN),
        (SERVFAIL, Cause.SERVFAIL),
        (NODATA, Cause.NODATA),
        (NXDOMAIN, Cause.NXDOMAIN),
    ],
)
def test_asked_last_the_name_as_it_is_decides_unless_a_domain_may_have_it(searched, cause):
    """As glibc has it: a domain that refuses says nothing, one that cannot tell might have it."""
    w = World({("*", "mlflow.search.test.", "*"): searched, ("*", "mlflow.", "*"): NXDOMAIN})
    assert w.run(names=("mlflow.search.test.", "mlflow.")).cause is cause


# --- truncation and EDNS


def test_a_truncated_answer_is_asked_for_over_tcp_of_the_same_nameserver():
    """Where that is refused it is the network, and the next one is asked."""
    cut = Reply(truncated=True)
    w = World({(ONE, "*", "*"): [cut, cut, NETWORK]})
    failed = w.run()
    assert failed.cause is Cause.NETWORK
    assert [query.tcp for _, query in w.sent] == [False, False, True, True]
    w = World({(ONE, "*", "*"): [cut, cut, NETWORK], (TWO, "*", "*"): A})
    assert w.run((ONE, TWO)).addresses == A.addresses


def test_a_nameserver_older_than_edns_is_asked_without_it():
    """RFC 6891, 6.2.2."""
    w = world(A=[Reply(Cause.MALFORMED, note="FORMERR"), A], AAAA=NODATA)
    assert w.run(conf=ResolvConf(edns0=True)).addresses == A.addresses
    assert [query.edns for _, query in w.sent] == [True, True, False]


# --- whatever happens

REPLIES = st.sampled_from([A, B, AAAA, NXDOMAIN, NODATA, SERVFAIL, REFUSED, NETWORK])
SAYINGS: Callable[..., st.SearchStrategy[Says]] = lambda: st.one_of(  # noqa: E731
    st.just(SILENCE), REPLIES, st.tuples(st.floats(0, 12), REPLIES)
)
KEYS = st.tuples(
    st.sampled_from([ONE, TWO, "*"]),
    st.sampled_from([NAME, "mlflow.test.a.test.", "*"]),
    st.sampled_from(["A", "AAAA", "*"]),
)


@given(
    says=st.dictionaries(KEYS, st.one_of(SAYINGS(), st.lists(SAYINGS(), min_size=1, max_size=4))),
    servers=st.sampled_from([(ONE,), (ONE, TWO), (TWO, ONE, THREE)]),
    names=st.sampled_from([(NAME,), (NAME, "mlflow.test.a.test."), ("mlflow.test.a.test.", NAME)]),
    timeout=st.sampled_from([0.01, 1.0, 10.0]),
)
def test_whatever_nameservers_do_a_lookup_ends_in_time_and_asks_a_bounded_number(
    says, servers, names, timeout
):
    """With addresses that were given, or with a cause and who said what."""
    w = World(says)
    outcome = w.run(servers, names, timeout=timeout)
    assert w.took <= timeout + 1e-6
    assert len(w.sent) <= len(names) * 2 * (len(servers) * 2 + 5)
    if isinstance(outcome, LookupFailed):
        assert outcome.tried
    else:
        given = {*A.addresses, *B.addresses, *AAAA.addresses}
        assert set(outcome.addresses) <= given
        assert outcome.addresses
        assert outcome.ttl in (10, 20, 30)


@given(
    delays=st.lists(st.floats(0, 9), min_size=2, max_size=2),
    broken=st.sampled_from([SERVFAIL, REFUSED, NETWORK, SILENCE]),
    place=st.integers(0, 2),
)
def test_one_nameserver_that_answers_is_enough(delays, broken, place):
    """Wherever it stands in the list, and however slow: an address that comes in time is had."""
    servers = [TWO, THREE]
    servers.insert(place, ONE)
    w = World(
        {
            (ONE, "*", "A"): (delays[0] / 2, A),
            (ONE, "*", "AAAA"): (delays[1] / 2, AAAA),
            ("*", "*", "*"): broken,
        }
    )
    assert isinstance(w.run(tuple(servers)), Answer)
