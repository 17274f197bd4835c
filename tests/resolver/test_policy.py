"""The 17 rules of the policy, each by its number, on the pure functions where that is possible."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver import (
    Answer,
    Cause,
    Endpoint,
    LastKnownGood,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.cache import Cache
from airflow_provider_hokusai_dns.resolver.config import HARD_MAX_STALE
from airflow_provider_hokusai_dns.resolver.freshness import (
    Action,
    Entry,
    adopt,
    check_record,
    decide,
    expires_at,
    fail,
    level_of,
    lifetime,
    recheck_at,
    stale_until,
    succeed,
    wants_all_sources,
    worth_writing,
)
from airflow_provider_hokusai_dns.resolver.order import in_order

NAME = "mlflow.example.local"
CONFIG = ResolverConfig(jitter=0.0)
T0 = 1000.0
WALL = 1_800_000_000.0
CANNOT_BE_ASKED = [Cause.TIMEOUT, Cause.SERVFAIL, Cause.REFUSED, Cause.NETWORK, Cause.MALFORMED]
NO_NAME = [Cause.NXDOMAIN, Cause.NODATA]


def answer(at: float = T0, ttl: float | None = 100.0, *addresses: str, **more: object) -> Answer:
    endpoints = tuple(Endpoint(address) for address in addresses or ("10.0.0.1",))
    return Answer(endpoints, more.pop("source", Source.DNS), at, ttl, **more)  # type: ignore[arg-type]


def known(at: float = T0, ttl: float | None = 100.0) -> Entry:
    return succeed(Entry(NAME), answer(at, ttl), 0.0)


def record(resolved_at: float = WALL, *addresses: str, **more: object) -> LastKnownGood:
    return LastKnownGood(NAME, addresses or ("10.0.0.9",), resolved_at, **more)  # type: ignore[arg-type]


def action(entry: Entry, now: float, config: ResolverConfig = CONFIG) -> Action:
    return decide(entry, now, config).action


# --- rule 1


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(10, 10), (300, 300), (301, 300), (86_400, 300), (None, 300), (4.9, 5), (0, 5), (2**31, 300)],
)
def test_rule_1_a_lifetime_is_the_records_ttl_between_floor_and_cap(ttl, seconds):
    """min(TTL, cap), never under the floor; the cap when the TTL is unknown."""
    assert lifetime(NAME, ttl, CONFIG, 0.0) == seconds


@pytest.mark.parametrize(("override", "ttl"), [(1.0, 100), (4000.0, 10), (0.0, 10), (7.0, None)])
def test_rule_1_an_override_beats_ttl_cap_and_floor_for_its_own_hostname(override, ttl):
    """The per-hostname override is taken as it is, 0 included, and for no other name."""
    config = ResolverConfig(ttl_overrides={NAME: override}, jitter=0.0)
    assert lifetime(NAME, ttl, config, 0.0) == override
    assert lifetime("other.local", ttl, config, 0.0) == lifetime("other.local", ttl, CONFIG, 0.0)


def test_rule_1_a_floor_above_the_cap_is_refused():
    """Floor <= cap, or the configuration is an error that says so."""
    with pytest.raises(ValueError, match="min_ttl"):
        ResolverConfig(cache_ttl=10, min_ttl=11)


def test_rule_1_an_answer_is_fresh_to_the_end_of_its_lifetime_and_no_longer():
    """At the very second of expiry it is old."""
    assert expires_at(known(), CONFIG) == T0 + 100
    assert action(known(), T0 + 50) is Action.FRESH
    assert action(known(), T0 + 99.9) is Action.AHEAD
    assert action(known(), T0 + 100) is Action.STALE_WAIT


# --- rules 2, 3


def test_rule_2_a_stale_answer_waits_a_moment_for_the_lookup_and_slow_is_not_degraded():
    """Expired without a failure: wait shortly, then the old answer; the name stays healthy."""
    assert action(known(), T0 + 101) is Action.STALE_WAIT
    assert level_of(known(), T0 + 101, CONFIG) == "healthy"
    assert level_of(fail(known(), Cause.TIMEOUT, T0 + 101), T0 + 101, CONFIG) == "degraded"
    assert CONFIG.stale_after == 0.5


def test_rule_3_with_nothing_old_a_caller_waits_for_the_lookup():
    """A name never seen, and a name whose answer is too old, both wait; the default is 10 s."""
    assert decide(Entry(NAME), T0, CONFIG) == (Action.WAIT, T0)
    assert action(known(), T0 + 86_400) is Action.WAIT
    assert CONFIG.timeout == 10
    assert level_of(Entry(NAME), T0, CONFIG) == "unknown"


# --- rules 4, 8


@pytest.mark.parametrize(
    ("cause", "pause"), [(c, 30) for c in CANNOT_BE_ASKED] + [(c, 5) for c in NO_NAME]
)
def test_rules_4_and_8_a_failed_name_is_served_stale_and_looked_up_again_at_its_pace(cause, pause):
    """Every 30 s after a failure, every 5 s while DNS says that there is no such name."""
    entry = fail(known(), cause, T0 + 100)
    assert decide(entry, T0 + 100, CONFIG) == (Action.STALE, T0 + 100 + pause)
    assert action(entry, T0 + 100 + pause - 0.01) is Action.STALE
    assert action(entry, T0 + 100 + pause) is Action.STALE_RECHECK


def test_rule_4_the_recheck_ends_where_the_stale_answer_runs_out():
    """The decision does not hold for longer than the answer may be served."""
    entry = fail(known(), Cause.SERVFAIL, T0 + 86_390)
    assert decide(entry, T0 + 86_391, CONFIG) == (Action.STALE, T0 + 86_400)


# --- rule 5


def test_rule_5_the_same_error_is_given_for_1_s_doubling_to_10():
    """1, 2, 4, 8, 10, 10 ... seconds, and never an overflow, however long it fails."""
    entry, now, pauses = Entry(NAME), T0, []
    for _ in range(6):
        entry = fail(entry, Cause.SERVFAIL, now)
        decision = decide(entry, now, CONFIG)
        assert decision.action is Action.FAILED
        pauses.append(decision.until - now)
        assert action(entry, decision.until) is Action.WAIT
        now = decision.until
    assert pauses == [1, 2, 4, 8, 10, 10]
    entry = replace(entry, failure=replace(entry.failure, count=10**6))
    assert decide(entry, entry.failure.at, CONFIG).until == entry.failure.at + 10


def test_rule_5_a_lookup_that_was_given_up_and_then_fails_is_one_failure():
    """The pause does not double twice for one lookup."""
    given_up = fail(Entry(NAME), Cause.TIMEOUT, T0)
    ended = fail(given_up, Cause.SERVFAIL, T0 + 5, again=True)
    assert (ended.failure.count, ended.failure.cause) == (1, Cause.SERVFAIL)
    assert decide(ended, T0 + 5, CONFIG).until == T0 + 6


def test_rule_5_zero_means_that_failures_are_not_remembered():
    """0 is legal and means what it says."""
    config = ResolverConfig(failure_ttl=0)
    assert action(fail(Entry(NAME), Cause.SERVFAIL, T0), T0, config) is Action.WAIT


@pytest.mark.parametrize(
    ("entry", "numbers", "wanted"),
    [
        (Entry(NAME), {}, True),  # nothing old
        (known(), {}, False),
        (fail(known(), Cause.SERVFAIL, T0 + 100), {}, True),  # not for the first time
        (succeed(Entry(NAME), answer(source=Source.SYSTEM), 0.0), {}, True),
        (succeed(Entry(NAME), answer(source=Source.HOSTS), 0.0), {}, True),
        (replace(known(), no_name_since=T0 + 10), {"max_stale_no_name": 120}, True),
        (known(), {"max_stale": 130}, True),  # too old before the next look
        (known(), {"max_stale": 131}, False),
        (known(), {"max_stale": 0}, True),
    ],
)
def test_rule_4_only_a_name_that_dns_knew_can_wait_for_the_next_lookup(entry, numbers, wanted):
    """What the first failed lookup leaves out, the second makes up for."""
    config = ResolverConfig(jitter=0.0, **numbers)
    assert wants_all_sources(entry, T0 + 100, config) is wanted


# --- rules 6, 7


@pytest.mark.parametrize("cause", CANNOT_BE_ASKED)
def test_rule_6_the_oldest_answer_is_a_day_old_while_dns_cannot_be_asked(cause):
    """86400 s from the answer itself, not from the failure."""
    entry = fail(known(), cause, T0 + 80_000)
    assert stale_until(entry, CONFIG) == T0 + 86_400
    assert action(entry, T0 + 86_399) in (Action.STALE, Action.STALE_RECHECK)
    assert level_of(entry, T0 + 86_399, CONFIG) == "degraded"
    assert action(entry, T0 + 86_400) in (Action.FAILED, Action.WAIT)
    assert level_of(entry, T0 + 86_400, CONFIG) == "unhealthy"


def test_rule_6_zero_serves_nothing_old_and_three_days_are_the_most():
    """0 = off; the hard cap is 259200 s, also for a single name."""
    off = ResolverConfig(max_stale=0, jitter=0)
    assert action(fail(known(), Cause.TIMEOUT, T0 + 100), T0 + 100, off) is Action.FAILED
    assert action(known(), T0 + 100, off) is Action.WAIT
    assert HARD_MAX_STALE == 259_200
    for wrong in ({"max_stale": 259_201}, {"max_stale_overrides": {NAME: 259_201}}):
        with pytest.raises(ValueError, match="259200"):
            ResolverConfig(**wrong)


def test_rule_6_one_hostname_may_have_its_own_limit():
    """A connection's own max_stale holds for its name only."""
    config = ResolverConfig(max_stale_overrides={NAME: 200}, jitter=0)
    assert stale_until(known(), config) == T0 + 200
    assert stale_until(replace(known(), hostname="other.local"), config) == T0 + 86_400


@pytest.mark.parametrize("cause", NO_NAME)
def test_rule_7_no_such_name_is_believed_after_900_s_from_its_first_sighting(cause):
    """The clock starts with the first "no such name", and later ones do not move it."""
    entry = fail(known(), cause, T0 + 100)
    entry = fail(entry, cause, T0 + 800)
    assert stale_until(entry, CONFIG) == T0 + 1000
    assert action(entry, T0 + 999) in (Action.STALE, Action.STALE_RECHECK)
    assert action(entry, T0 + 1000) in (Action.FAILED, Action.WAIT)


def test_rule_7_a_later_failure_of_another_cause_does_not_make_the_limit_longer():
    """After "no such name" came silence: what is known to be gone stays gone."""
    entry = fail(fail(known(), Cause.NXDOMAIN, T0 + 100), Cause.TIMEOUT, T0 + 900)
    assert stale_until(entry, CONFIG) == T0 + 1000
    assert recheck_at(entry, CONFIG) == T0 + 905


def test_rule_7_an_answer_ends_the_clock_and_zero_is_strict():
    """A success forgets the sighting; with 0 nothing is served once the name is gone."""
    healed = succeed(fail(known(), Cause.NXDOMAIN, T0 + 100), answer(T0 + 200), 0.0)
    assert healed.no_name_since is None
    strict = ResolverConfig(max_stale_no_name=0, jitter=0)
    assert action(fail(known(), Cause.NXDOMAIN, T0 + 100), T0 + 100, strict) is Action.FAILED


def test_rule_7_the_clock_of_the_fleet_counts_for_a_process_that_starts_now():
    """``no_name_since`` of the store limits the stored answer in a fresh process."""
    stored = record(WALL - 2000, no_name_since=WALL - 850)
    entry = adopt(fail(Entry(NAME), Cause.NXDOMAIN, T0), stored, T0, WALL, CONFIG)
    assert stale_until(entry, CONFIG) == T0 + 50
    again = adopt(entry, stored, T0 + 10, WALL + 10, CONFIG)
    assert stale_until(again, CONFIG) == T0 + 50


def test_rule_7_only_a_sighting_after_the_answer_says_anything_about_it():
    """An outage that was over before the stored answer was given does not shorten its life."""
    stored = record(WALL - 50, no_name_since=WALL - 5000)
    entry = adopt(fail(Entry(NAME), Cause.TIMEOUT, T0), stored, T0, WALL, CONFIG)
    assert entry.no_name_since is None
    assert stale_until(entry, CONFIG) == T0 - 50 + 86_400


def test_rule_7_an_own_sighting_outlives_a_stored_answer_that_is_older():
    """The store's answer is from before the name vanished: our own sighting limits it."""
    entry = fail(Entry(NAME), Cause.NODATA, T0)
    entry = adopt(entry, record(WALL - 100), T0 + 1, WALL + 1, CONFIG)
    assert entry.no_name_since == T0


def test_rule_7_a_name_that_was_gone_for_us_is_held_to_that_though_the_store_is_newer():
    """Our last word was "no such name": a newer answer of another process gets 900 s from then."""
    entry = fail(Entry(NAME), Cause.NXDOMAIN, T0)
    entry = adopt(entry, record(WALL + 5), T0 + 10, WALL + 10, CONFIG)
    assert (entry.answer.resolved_at, entry.no_name_since) == (T0 + 5, T0)


# --- rule 9


def test_rule_9_a_name_that_never_resolved_has_nothing_old():
    """Typing errors must be visible."""
    entry = fail(Entry(NAME), Cause.NXDOMAIN, T0)
    assert stale_until(entry, CONFIG) == float("-inf")
    assert action(entry, T0) is Action.FAILED
    assert level_of(entry, T0, CONFIG) == "unhealthy"


@pytest.mark.parametrize("cause", list(Cause))
def test_rule_9_a_static_address_is_served_for_every_cause_also_past_the_limits(cause):
    """An emergency setting works in the emergency; and it works for its own name alone."""
    config = ResolverConfig(static_addresses={NAME: ("10.9.9.9",)}, jitter=0)
    for entry in (Entry(NAME), known(T0 - 100_000)):
        assert action(entry, T0, config) is Action.WAIT  # the live lookup comes first
        failed = fail(entry, cause, T0)
        pause = 5 if cause in NO_NAME else 30
        assert decide(failed, T0, config) == (Action.STALE, T0 + pause)
        assert action(failed, T0 + pause, config) is Action.STALE_RECHECK
        assert level_of(failed, T0, config) == "degraded"
        other = replace(failed, hostname="other.local")
        assert action(other, T0, config) is Action.FAILED
        assert level_of(other, T0, config) == "unhealthy"


# --- rule 10


def test_rule_10_one_family_without_records_cancels_nothing_of_the_other(dns, make, clock):
    """No data, or an outright "no such name", for AAAA: the A record is served, and vice versa."""
    resolver = make(lookup=None, nameservers=(dns.address,))
    dns.set_records("four.test", ["10.0.0.1"])
    dns.set_records("six.test", ["fd00::1"])
    dns.set_records("broken.test", ["10.0.0.2"])
    dns.no_such_name("broken.test", rdtype="AAAA")  # RFC 4074, section 4.2
    assert resolver.resolve("four.test").addresses == ("10.0.0.1",)
    assert resolver.resolve("six.test").addresses == ("fd00::1",)
    assert resolver.resolve("broken.test").addresses == ("10.0.0.2",)


# --- rules 11, 12


def test_rule_11_the_last_fifth_of_a_lifetime_refreshes_ahead():
    """From 80 of 100 s on, a use starts a lookup in the background; the default share is 0.2."""
    assert decide(known(), T0 + 79, CONFIG) == (Action.FRESH, T0 + 80)
    assert decide(known(), T0 + 80, CONFIG) == (Action.AHEAD, T0 + 100)
    never = ResolverConfig(refresh_ahead=0, jitter=0)
    assert decide(known(), T0 + 99, never) == (Action.FRESH, T0 + 100)


def test_rule_11_a_refresh_ahead_that_failed_is_not_repeated_at_every_use():
    """The pause of rule 4 holds for a name that is still fresh as well."""
    entry = fail(known(ttl=300), Cause.TIMEOUT, T0 + 245)
    assert decide(entry, T0 + 250, CONFIG) == (Action.FRESH, T0 + 275)
    assert action(entry, T0 + 275) is Action.AHEAD
    late = fail(known(), Cause.TIMEOUT, T0 + 90)
    assert decide(late, T0 + 95, CONFIG) == (Action.FRESH, T0 + 100)
    assert level_of(late, T0 + 95, CONFIG) == "healthy"


def test_rule_11_a_name_that_nobody_uses_is_not_refreshed(make, lookup, clock):
    """Time alone starts no lookup."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make()
    resolver.resolve(NAME)
    clock.advance(95)
    assert resolver.wait_idle()
    assert lookup.calls(NAME) == 1
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    assert lookup.calls(NAME) == 2


def test_rule_12_jitter_only_shortens_and_by_a_tenth_at_most():
    """Downwards only, and never under the floor."""
    config = ResolverConfig()
    assert lifetime(NAME, 100, config, 0.0) == 100
    assert lifetime(NAME, 100, config, 1.0) == pytest.approx(90)
    assert lifetime(NAME, 5, config, 1.0) == 5
    overridden = ResolverConfig(ttl_overrides={NAME: 100})
    assert lifetime(NAME, 7, overridden, 1.0) == pytest.approx(90)


def test_rule_12_two_processes_do_not_ask_in_step(make, lookup, clock):
    """The share is drawn again for every answer."""
    lookup.set(NAME, "10.0.0.1")
    ends = {make(jitter=0.1).resolve(NAME).expires_at for _ in range(20)}
    assert len(ends) > 10


# --- rule 13


def test_rule_13_an_address_that_failed_goes_to_the_back_and_the_list_never_becomes_empty():
    """Until its 30 s are over; and when all failed, all are still there."""
    endpoints = tuple(Endpoint(f"10.0.0.{n}") for n in (1, 2, 3))

    def order(by_address, now=T0):
        penalties = {(address, None): until for address, until in by_address.items()}
        return [e.address for e in in_order(endpoints, penalties, now, ipv6_first=False)]

    assert order({"10.0.0.1": T0 + 30}) == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    assert order({"10.0.0.1": T0}) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert sorted(order(dict.fromkeys(order({}), T0 + 30))) == order({})
    assert CONFIG.penalty == 30


def test_rule_13_a_report_looks_up_again_at_most_once_per_second(make, lookup, clock):
    """Ten reports in one second are one lookup; one a second later is another."""
    lookup.set(NAME, ("10.0.0.1", "10.0.0.2"))
    resolver = make()
    resolver.resolve(NAME)
    for _ in range(10):
        resolver.report_failure(NAME, "10.0.0.1")
        assert resolver.wait_idle()
    assert lookup.calls(NAME) == 2
    clock.advance(1)
    resolver.report_failure(NAME, "10.0.0.1")
    assert resolver.wait_idle()
    assert lookup.calls(NAME) == 3


# --- rule 14


def test_rule_14_failures_go_first_then_stale_then_what_was_not_used_lately():
    """With one place too few, exactly the least valuable name goes."""
    config = ResolverConfig(max_hosts=4, jitter=0)
    entries = {
        "failed": fail(Entry("failed"), Cause.SERVFAIL, T0),
        "stale": replace(known(T0 - 200), hostname="stale"),
        "unused": replace(known(), hostname="unused"),
        "used": replace(known(), hostname="used"),
    }
    cache = Cache()
    for name in ("used", "unused", "stale", "failed"):
        slot = cache.add(name)
        slot.entry = entries[name]
        slot.of(Source.STALE).n = 50 if name == "stale" else 0
        slot.n = 1 if name == "used" else 0
    gone = []
    while len(cache):
        before = {slot.entry.hostname for slot in cache.values()}
        assert cache.make_room(T0 + 1, replace(config, max_hosts=len(cache)), lambda slot: False)
        (name,) = before - {slot.entry.hostname for slot in cache.values()}
        gone.append(name)
        if name == "stale":
            cache.get("used").n += 1
    assert gone == ["failed", "stale", "unused", "used"]


def test_rule_14_a_name_may_be_added_while_others_are_dropped():
    """By a signal handler, in the thread that holds the lock."""
    cache = Cache()
    cache.add("failed").entry = fail(Entry("failed"), Cause.SERVFAIL, T0)
    cache.add("new")
    assert cache.cleanup(T0 + 1e6, ResolverConfig(), lambda slot: not cache.add("late")) == 1
    assert set(cache) == {"new", "late"}


def test_rule_14_what_was_used_long_ago_counts_for_nothing():
    """Lately is since the last time that room was made."""
    config = ResolverConfig(max_hosts=2, jitter=0)
    cache = Cache()
    for name in ("often-once", "just-now"):
        cache.add(name).entry = replace(known(), hostname=name)
    cache.get("often-once").n = 1000
    cache.get("often-once").uses_at_last_eviction = 1000
    cache.get("just-now").n = 1
    assert cache.make_room(T0 + 1, config, lambda slot: False)
    assert [slot.entry.hostname for slot in cache.values()] == ["just-now"]


def test_rule_14_no_more_names_are_held_than_allowed(make, lookup):
    """The bound holds for any number of names, good and failing."""
    resolver = make(max_hosts=10)
    for number in range(50):
        name = f"h{number}.local"
        if number % 2:
            lookup.set(name, "10.0.0.1")
            resolver.resolve(name)
        else:
            with pytest.raises(DNSResolutionError):
                resolver.resolve(name)
        assert resolver.metrics().cache_size <= 10
    assert resolver.metrics().attempts == 50


# --- rule 15


@pytest.mark.parametrize("cause", list(Cause))
def test_rule_15_a_failure_never_replaces_a_good_answer(cause):
    """While it is fresh it is served as fresh, whatever a refresh ahead came back with."""
    entry = fail(known(), cause, T0 + 85)
    assert entry.answer == known().answer
    assert action(entry, T0 + 86) is Action.FRESH
    assert level_of(entry, T0 + 86, CONFIG) == "healthy"


def test_rule_15_a_stored_answer_does_not_replace_one_that_is_still_fresh():
    """What the store holds is never fresh, so a fresh answer is kept, even if it is older."""
    entry = fail(known(), Cause.TIMEOUT, T0 + 85)
    entry = adopt(entry, record(WALL), T0 + 86, WALL + 1, CONFIG)
    assert action(entry, T0 + 86) is Action.FRESH
    assert level_of(entry, T0 + 86, CONFIG) == "healthy"


# --- rule 16


def test_rule_16_a_stored_answer_keeps_its_own_age_and_is_never_fresh():
    """Whatever its TTL, it is served as old, and for what is left of its life only."""
    entry = adopt(Entry(NAME), record(WALL - 1000, ttl=86_400), T0, WALL, CONFIG)
    assert entry.answer.source is Source.STORE
    assert entry.answer.resolved_at == T0 - 1000
    assert expires_at(entry, CONFIG) == float("-inf")
    assert stale_until(entry, CONFIG) == T0 - 1000 + 86_400
    assert action(entry, T0) is Action.STALE_WAIT
    assert level_of(entry, T0, CONFIG) == "degraded"


@pytest.mark.parametrize("field", ["resolved_at", "no_name_since"])
def test_rule_16_a_stamp_more_than_300_s_ahead_is_refused_with_its_name(field):
    """One wrong clock must not make an address immortal; 300 s are put up with."""
    good = record(WALL - 10, no_name_since=WALL - 5)
    with pytest.raises(ValueError, match=rf"{field} is 301 s ahead"):
        adopt(Entry(NAME), replace(good, **{field: WALL + 301}), T0, WALL, CONFIG)
    entry = adopt(Entry(NAME), replace(good, **{field: WALL + 300}), T0, WALL, CONFIG)
    assert entry.answer.resolved_at <= T0


@pytest.mark.parametrize(
    "broken",
    [
        {"addresses": ()},
        {"addresses": ("not-an-address",)},
        {"addresses": ("10.0.0.1", "0x7f.1")},
        {"addresses": (7,)},
        {"addresses": None},
        {"resolved_at": float("nan")},
        {"resolved_at": float("-inf")},
        {"resolved_at": "yesterday"},
        {"no_name_since": float("nan")},
        {"ttl": "long"},
        {"ttl": -1},
        {"hostname": "other.local"},
    ],
)
def test_rule_16_a_record_that_makes_no_sense_is_refused(broken):
    """Another implementation of the store may hand over anything: none of it is served."""
    with pytest.raises(ValueError, match=next(iter(broken))):
        adopt(Entry(NAME), replace(record(WALL - 1), **broken), T0, WALL, CONFIG)


def test_rule_16_the_newer_of_two_answers_wins():
    """An own old answer gives way to a newer stored one, and not to an older one."""
    mine = fail(known(), Cause.TIMEOUT, T0 + 200)
    newer = adopt(mine, record(WALL + 150), T0 + 200, WALL + 200, CONFIG)
    assert newer.answer.addresses == ("10.0.0.9",)
    older = adopt(mine, record(WALL - 150), T0 + 200, WALL + 200, CONFIG)
    assert older.answer == mine.answer


def test_rule_16_a_stored_answer_is_never_written_back_as_new(make, lookup, store, clock):
    """A process that lives off the store leaves the record's stamp alone."""
    before = record(clock.time() - 1000)
    store.records[NAME] = before
    lookup.set(NAME, Cause.NXDOMAIN)
    resolver = make(store=store)
    assert resolver.refresh(NAME).source is Source.STORE
    assert resolver.wait_idle()
    assert store.records[NAME].resolved_at == pytest.approx(before.resolved_at)
    assert store.records[NAME].no_name_since == pytest.approx(clock.time())


# --- rule 17


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (None, True),
        (record(WALL - 100, "10.0.0.1"), False),  # known, and young
        (record(WALL - 100, "10.0.0.1", "10.0.0.7"), False),  # one in common is enough
        (record(WALL - 100, "10.0.0.7"), True),  # none in common
        (record(WALL - 599, "10.0.0.1"), False),
        (record(WALL - 600, "10.0.0.1"), True),  # ten minutes old
        (record(WALL - 100, "10.0.0.1", no_name_since=WALL - 50), True),  # no longer true
        (record(WALL, "10.0.0.7"), False),  # newer wins
        (record(WALL + 100, "10.0.0.7"), False),
        (record(WALL + 301, "10.0.0.7"), True),  # rule 16: invalid, may be overwritten
    ],
)
def test_rule_17_what_is_worth_a_write(stored, wanted):
    """None in common, older than ten minutes, or nothing there; and newer wins."""
    assert worth_writing(stored, answer(), WALL, WALL, CONFIG) is wanted


def test_rule_17_whether_a_stored_stamp_is_valid_is_asked_of_the_clock_and_not_of_the_answer():
    """An answer that waited 400 s for a slow store does not overwrite a newer one."""
    assert not worth_writing(record(WALL + 400, "10.0.0.7"), answer(), WALL, WALL + 400, CONFIG)


def test_rule_17_every_process_keeps_the_record_true_and_young(make, lookup, store, clock):
    """No refresh DAG runs here, and the record never gets older than ten minutes."""
    resolver = make(store=store)
    for hour in range(36):
        lookup.set(NAME, f"10.0.0.{hour}")
        for _ in range(6):
            clock.advance(600)
            resolver.resolve(NAME)
            assert resolver.wait_idle()
            record = store.records[NAME]
            assert record.addresses == (f"10.0.0.{hour}",)
            assert clock.time() - record.resolved_at <= 600


def test_rule_17_costs_one_read_per_interval_and_a_write_where_one_is_due(
    make, lookup, store, clock
):
    """Counted over an hour of one process that looks the name up every ten seconds."""
    lookup.set(NAME, Answer((Endpoint("10.0.0.1"),), Source.DNS, ttl=10))
    resolver = make(store=store, jitter=0.0)
    for _ in range(360):
        resolver.resolve(NAME)
        assert resolver.wait_idle()
        clock.advance(10)
    assert 6 <= store.reads[NAME] <= 7
    assert 6 <= store.writes[NAME] <= 7


@pytest.mark.parametrize("age", [0, 31, 300, 569, 571, 599])
def test_rule_17_a_record_whose_writer_has_ended_gets_no_older(make, lookup, store, clock, age):
    """The next process to compare it found it young; it looks the name up every ten seconds."""
    lookup.set(NAME, Answer((Endpoint("10.0.0.1"),), Source.DNS, ttl=10))
    store.records[NAME] = record(clock.time() - age, "10.0.0.1")
    resolver = make(store=store, jitter=0.0)
    for _ in range(200):
        resolver.resolve(NAME)
        assert resolver.wait_idle()
        clock.advance(10)
        assert clock.time() - store.records[NAME].resolved_at <= 600 + 30 + 20
    assert store.reads[NAME] <= 2 + 2000 / 600


def test_rule_17_a_record_that_no_answer_here_may_replace_is_compared_once_per_interval(
    make, lookup, store, clock
):
    """It is of a wider reach, and old: reading it more often changes nothing."""
    lookup.set(NAME, Answer((Endpoint("127.0.0.1"),), Source.DNS, ttl=10))
    store.records[NAME] = record(clock.time() - 2000, "10.0.0.1")
    resolver = make(store=store, jitter=0.0)
    for _ in range(200):
        resolver.resolve(NAME)
        assert resolver.wait_idle()
        clock.advance(10)
    assert (store.reads[NAME], store.writes[NAME]) == (4, 0)


def test_rule_17_a_store_that_was_unreachable_is_asked_again(make, lookup, store, clock):
    """The record is published when it is stored, and not when that was tried."""
    lookup.set(NAME, Answer((Endpoint("10.0.0.1"),), Source.DNS, ttl=10))
    store.unreachable = True
    resolver = make(store=store, jitter=0.0)
    for _ in range(10):
        resolver.resolve(NAME)
        assert resolver.wait_idle()
        clock.advance(10)
    assert 2 <= store.writes[NAME] <= 4, "once per store_recheck of 30 s"
    store.unreachable = False
    clock.advance(30)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    clock.advance(2000)
    lookup.set(NAME, Cause.SERVFAIL)
    assert make(store=store).resolve(NAME).addresses == ("10.0.0.1",)


def test_rule_17_a_refresh_writes_in_any_case(make, lookup, store, clock):
    """A caller that asks for one wants the record to be as young as the refresh."""
    lookup.set(NAME, "10.0.0.1")
    resolver = make(store=store)
    resolver.resolve(NAME)
    assert resolver.wait_idle()
    assert store.records[NAME].written_by == "hook"
    clock.advance(100)
    resolver.refresh(NAME, always=True)
    assert store.records[NAME].written_by == "refresh"


def test_rule_17_a_refresh_that_meets_an_empty_store_signs_its_record(make, lookup, store):
    """The background write of the hook does not get in before the one of the refresh."""
    lookup.set(NAME, "10.0.0.1")
    for _ in range(20):
        store.records.clear()
        resolver = make(store=store)
        resolver.refresh(NAME, written_by="gate")
        assert resolver.wait_idle()
        assert store.records[NAME].written_by == "gate"


@pytest.mark.parametrize(
    ("services", "said"),
    [
        (("10.0.0.1",), "not an endpoint"),
        ((Endpoint("name.local", 5000),), "not an endpoint"),
        ((Endpoint("10.0.0.1", None),), "not a port"),
        ((Endpoint("10.0.0.1", 0),), "not a port"),
        ((Endpoint("10.0.0.1", 65536),), "not a port"),
    ],
)
def test_a_stored_record_with_impossible_services_is_refused(services, said):
    """A store may be of any kind: an SRV record's ports are checked as its addresses are."""
    with pytest.raises(ValueError, match=said):
        check_record(NAME, replace(record(WALL, "10.0.0.1"), services=services))
