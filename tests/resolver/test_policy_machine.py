"""A fleet of processes with one store, and what must hold whatever happens to it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError, LookupFailed
from airflow_provider_hokusai_dns.resolver import (
    Answer,
    Cause,
    DNSResolver,
    Endpoint,
    Resolution,
    ResolverConfig,
    Source,
)
from airflow_provider_hokusai_dns.resolver.testing import ManualClock, MemoryStore

NAME = "mlflow.example.local"
TTL = 100.0
#: A process that does not ask the store for this long may be that late in what the fleet knows.
LATE = 60.0


class Process:
    """One resolver, and what its own lookups have seen."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.success: tuple[float, str] | None = None
        self.no_name_at: float | None = None
        self.failed_at = float("-inf")
        self.resolver = DNSResolver(
            ResolverConfig(jitter=0), lookup=self, store=fleet.store, clock=fleet.clock
        )

    def lookup(self, hostname, *, timeout, hint=None, thorough=True) -> Answer:
        now = self.fleet.clock.monotonic()
        cause = self.fleet.cause
        if cause is not None:
            self.failed_at = now
            if cause.says_no_such_name and self.no_name_at is None:
                self.no_name_at = now
            raise LookupFailed(cause)
        self.no_name_at = None
        address = self.fleet.new_address()
        self.success = (now, address)
        return Answer((Endpoint(address),), Source.DNS, ttl=TTL, name=hostname)

    @property
    def is_fresh(self) -> bool:
        """Whether its own answer is within its lifetime."""
        if self.success is None:
            return False
        lifetime = max(self.resolver.config.min_ttl, min(TTL, self.resolver.config.cache_ttl))
        return self.fleet.clock.monotonic() < self.success[0] + lifetime


class Fleet(RuleBasedStateMachine):
    """Every address is given once, so that it tells when DNS said it."""

    processes = Bundle("processes")

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.cause: Cause | None = None
        self.given: dict[str, float] = {}
        self.told: dict[str, float] = {}
        self.record = None
        self.alive: list[Process] = []
        self.back = 0.0  # seconds by which the wall clock was set back in all
        self.store_was_away = False

    def new_address(self) -> str:
        number = len(self.given) + 1
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        self.given[address] = self.clock.monotonic()
        return address

    def settle(self) -> None:
        """Let all that runs in the background end, and note what the store was told."""
        for process in self.alive:
            assert process.resolver.wait_idle()
        record = self.store.records.get(NAME)
        if record is None or record is self.record:
            return
        self.record = record
        stamp = record.resolved_at - (self.clock.time() - self.clock.monotonic())
        for address in record.addresses:
            # An old answer is never written as a new one.
            assert stamp <= self.given[address] + self.back + 1e-3
            if record.no_name_since is not None:
                self.told.setdefault(address, self.clock.monotonic())

    # --- what happens

    @rule(target=processes)
    def start(self) -> Process:
        process = Process(self)
        self.alive.append(process)
        return process

    @rule(process=consumes(processes))
    def stop(self, process: Process) -> None:
        self.settle()
        self.alive.remove(process)

    @rule()
    def dns_answers(self) -> None:
        self.cause = None

    @rule(cause=st.sampled_from(Cause))
    def dns_fails(self, cause: Cause) -> None:
        self.cause = cause

    @rule(
        seconds=st.sampled_from(
            [0.1, 1, 4, 6, 29, 31, 81, 101, 301, 899, 901, 3601, 43_000, 86_399]
        )
    )
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-90_000, -4000, -299, -10, 10, 299, 4000, 90_000]))
    def somebody_sets_the_wall_clock(self, seconds: float) -> None:
        self.clock.step_wall(seconds)
        self.back += max(0.0, -seconds)

    @rule(away=st.booleans())
    def store_comes_and_goes(self, away: bool) -> None:
        self.store.unreachable = away
        self.store_was_away |= away

    @rule(
        process=processes,
        max_stale=st.sampled_from([0.0, 200.0, 5000.0, 86_400.0, 259_200.0]),
        max_stale_no_name=st.sampled_from([0.0, 100.0, 900.0]),
        cache_ttl=st.sampled_from([0.0, 10.0, 300.0]),
    )
    def reconfigure(self, process: Process, **numbers: float) -> None:
        process.resolver.reconfigure(replace(process.resolver.config, **numbers))

    @rule(process=processes)
    def report(self, process: Process) -> None:
        process.resolver.report_failure(NAME, "10.0.0.1")
        self.settle()

    @rule(process=processes)
    def clean(self, process: Process) -> None:
        process.resolver.cleanup()

    # --- what must hold

    @rule(process=processes)
    def resolve(self, process: Process) -> None:
        fresh = process.is_fresh
        try:
            found = process.resolver.resolve(NAME)
        except DNSResolutionError:
            # Rule 5: the failure is remembered for ten seconds at most.
            remembered = self.clock.monotonic() < process.failed_at + 10
            assert self.cause is not None or remembered, "DNS answers, and nothing was served"
            assert not fresh, "a failure has replaced a good answer"
        else:
            assert not (fresh and found.is_stale), "a failure has replaced a good answer"
            self.check(process, found)
        self.settle()

    @rule(process=processes)
    def refresh(self, process: Process) -> None:
        fresh = process.is_fresh
        try:
            found = process.resolver.refresh(NAME)
        except DNSResolutionError:
            assert self.cause is not None, "DNS answers, and nothing was served"
            assert not fresh, "a failure has replaced a good answer"
        else:
            assert found.is_stale == (self.cause is not None)
            if self.cause is None:  # one fresh answer heals
                assert process.resolver.state(NAME) == "healthy"
                assert process.success is not None
                assert found.address == process.success[1]
                if process.resolver.config.cache_ttl:
                    assert not process.resolver.resolve(NAME).is_stale
            elif not fresh:  # while it is, refresh calls it stale, but its limit is its lifetime
                self.check(process, found)
        self.settle()

    def check(self, process: Process, found: Resolution) -> None:
        """An answer is one that DNS gave, and within every limit."""
        now, config = self.clock.monotonic(), process.resolver.config
        assert found.address in self.given, "no source ever gave this address"
        given = self.given[found.address]
        if not found.is_stale:
            assert now - given <= max(config.min_ttl, min(TTL, config.cache_ttl))
            return
        assert now - given <= config.max_stale + self.back, "served past rule 6"
        limit = config.max_stale_no_name + self.back
        if process.no_name_at is not None and given <= process.no_name_at:
            assert now <= process.no_name_at + limit, "served past rule 7"
        if found.address in self.told and not self.store_was_away:
            assert now <= self.told[found.address] + limit + LATE, "served past the fleet's rule 7"

    @invariant()
    def a_name_that_never_resolved_gets_nothing(self) -> None:
        if not getattr(self, "given", True):
            assert not self.store.records
            assert all(p.resolver.state(NAME) in ("unknown", "unhealthy") for p in self.alive)

    @precondition(lambda self: self.alive)
    @invariant()
    def the_numbers_add_up(self) -> None:
        for process in self.alive:
            m = process.resolver.metrics()
            assert m.attempts == m.hits + m.misses + m.stale + m.fallback + m.failed

    def teardown(self) -> None:
        for process in getattr(self, "alive", ()):
            assert process.resolver.wait_idle()


TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
