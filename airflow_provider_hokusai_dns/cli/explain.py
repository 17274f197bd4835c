"""How a name gets its address: the answer of every source, and what the resolver chose.

The resolver makes the choice, as in a new task. In addition each source is queried separately, even
those that a lookup skips because an earlier one had an answer: finding a fault needs all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from airflow_provider_hokusai_dns.gates.connection_health import (
    ConnectionTarget,
    rounded,
    stale_limit_row,
    usable_until,
)
from airflow_provider_hokusai_dns.resolver import (
    Cause,
    DNSResolver,
    LastKnownGood,
    Resolution,
    ResolverConfig,
    Source,
    wording,
)
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError, LookupFailed
from airflow_provider_hokusai_dns.resolver.lookup.files import parse_hosts, read_text
from airflow_provider_hokusai_dns.resolver.lookup.stub_resolver import StubResolver
from airflow_provider_hokusai_dns.resolver.lookup.system import SystemLookup
from airflow_provider_hokusai_dns.resolver.target import Target, shown
from airflow_provider_hokusai_dns.resolver.workers import Workers

T = TypeVar("T")

_HOSTS = Path("/etc/hosts")
#: Seconds beyond the timeout of a lookup after which the wait for an answer ends.
_GRACE = 1.0


class StoredRecord(NamedTuple):
    """The content of one Variable.

    :param problem: what is wrong with it, or why it cannot be read, as a sentence.
    """

    key: str
    record: LastKnownGood | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One source, and its answer.

    :param outcome: one line for people.
    :param cause: why it returned nothing, for programs, if it was queried and did not.
    :param ttl: seconds, as returned by the source.
    :param ms: how long it took, if that was measured.
    """

    source: str
    asked: str
    outcome: str
    addresses: tuple[str, ...] = ()
    cause: str | None = None
    ttl: float | None = None
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The path of one target to its address.

    :param target: as given, without parts that may be secret.
    :param conn_id: the connection whose settings apply to the name; ``None`` if there is none.
    :param state: ``healthy``, ``degraded`` or ``unhealthy``.
    :param ttl_left: seconds for which the answer is still fresh.
    """

    target: str
    conn_id: str | None
    hostname: str
    state: str
    addresses: tuple[str, ...]
    source: str | None
    cause: str | None
    age: float | None
    ttl_left: float | None
    sentence: str
    steps: tuple[Step, ...]


def explain(
    target: Target,
    resolver: DNSResolver,
    read: Callable[[str], StoredRecord],
    *,
    conn_id: str | None = None,
    login_limit: float | None = None,
    hosts: Path = _HOSTS,
) -> Explanation:
    """Resolve a target, and query each source separately. Takes at most about one lookup's timeout.

    :param read: returns what is stored for a hostname.
    :param login_limit: that of the connection, as for :class:`~.ConnectionTarget`.
    """
    config = resolver.config
    queries = _ParallelQueries(config.timeout + _GRACE)
    decision = queries.begin(lambda: _decide(resolver, target.hostname))
    if target.literal is not None:
        steps = [Step("target", shown(target.text), "it is an address: no lookup is needed")]
    else:
        steps = _steps(target.hostname, config, queries, read, hosts)
    overdue = DNSResolutionError(target.hostname, Cause.TIMEOUT, (), "no outcome in time")
    found = queries.end(decision, overdue)
    where = (shown(target.text), conn_id, target.hostname)
    if isinstance(found, DNSResolutionError):
        return Explanation(
            *where, "unhealthy", (), None, found.cause.value, None, None,
            _why_nothing(found), tuple(steps),
        )  # fmt: skip
    ttl_left, age = rounded(found.ttl_left()), rounded(found.age())
    return Explanation(
        *where,
        "degraded" if found.is_stale else "healthy",
        found.places,
        found.source.value,
        None if found.cause is None else found.cause.value,
        age,
        ttl_left,
        _why_this(found, ttl_left, login_limit, config.stale_after),
        tuple(steps),
    )


class _ParallelQueries:
    """Queries that run at the same time, with one common deadline."""

    def __init__(self, seconds: float) -> None:
        self.begin = Workers("hokusai-dns-explain").call
        self._end = time.monotonic() + seconds

    def end(self, future: Future[T], otherwise: T) -> T:
        """The answer, or a substitute for one that did not arrive in time."""
        wait((future,), max(0.0, self._end - time.monotonic()))
        return future.result() if future.done() else otherwise


def _decide(resolver: DNSResolver, hostname: str) -> Resolution | DNSResolutionError:
    try:
        return resolver.resolve(hostname)
    except DNSResolutionError as error:
        return error


def _steps(
    hostname: str,
    config: ResolverConfig,
    queries: _ParallelQueries,
    read: Callable[[str], StoredRecord],
    hosts: Path,
) -> list[Step]:
    """The steps, in the order in which a task would try them."""
    dns = queries.begin(partial(_ask_nameservers, hostname, config))
    nameservers = config.nameservers_for(hostname)
    asks_system = not nameservers and config.srv_for(hostname) is None
    system = queries.begin(partial(_ask_system, hostname)) if asks_system else None
    store = queries.begin(partial(_ask_store, hostname, config, read))
    steps = [
        Step(
            "memory", "this process", "empty; a process that has asked before answers from memory"
        ),
        _ask_hosts(hostname, hosts),
    ]
    silence = [Step("nameserver", "all", "no answer in time", cause="timeout")]
    said = queries.end(dns, silence)
    steps += said
    if system is None:
        why = (
            "nameservers are configured" if nameservers else "it cannot tell the port of a service"
        )
        steps.append(Step("system lookup", "", f"not asked, because {why}"))
    else:
        late = Step("system lookup", "getaddrinfo", "no answer in time", cause="timeout")
        steps.append(queries.end(system, late))
    steps.append(queries.end(store, Step("stored", "", "Airflow's database does not answer")))
    static = config.static_addresses_for(hostname)
    outcome = ", ".join(static) or "none for this name"
    steps.append(Step("static address", "settings", outcome, addresses=static))
    return steps


def _ask_hosts(hostname: str, hosts: Path) -> Step:
    try:
        text = read_text(hosts)
    except OSError as error:
        return Step("hosts file", str(hosts), f"cannot be read: {error.strerror}")
    addresses = parse_hosts(text).get(hostname.removesuffix("."), ())
    return Step("hosts file", str(hosts), ", ".join(addresses) or "no entry", addresses=addresses)


def _ask_nameservers(hostname: str, config: ResolverConfig) -> list[Step]:
    service = config.srv_for(hostname)
    stub = StubResolver(config.nameservers_for(hostname), config.search)
    kinds = ("A", "AAAA") if service is None else ("SRV",)
    return [
        Step(
            "nameserver",
            f"{one.nameserver} {one.family} {one.name}",
            one.outcome if one.ttl is None else f"{one.outcome} (TTL {one.ttl:.0f} s)",
            one.addresses,
            None if one.cause is None else one.cause.value,
            one.ttl,
            _ms(one.seconds),
        )
        for one in stub.ask_each(service or hostname, timeout=config.timeout, kinds=kinds)
    ]


def _ask_system(hostname: str) -> Step:
    started = time.monotonic()
    try:
        answer = SystemLookup().lookup(hostname, timeout=0.0)
    except LookupFailed as failed:
        took = _ms(time.monotonic() - started)
        return Step(
            "system lookup", "getaddrinfo", failed.detail, cause=failed.cause.value, ms=took
        )
    took, addresses = _ms(time.monotonic() - started), answer.addresses
    return Step("system lookup", "getaddrinfo", ", ".join(addresses), addresses, ms=took)


def _ask_store(hostname: str, config: ResolverConfig, read: Callable[[str], StoredRecord]) -> Step:
    started = time.monotonic()
    stored = read(hostname)
    took = _ms(time.monotonic() - started)
    asked = f"Variable {stored.key}"
    if stored.record is None:
        return Step("stored", asked, stored.problem or "nothing is known", ms=took)
    record, now = stored.record, time.time()
    outcome = f"{', '.join(record.places)}, {now - record.resolved_at:.0f} s old"
    outcome += f", written by {record.written_by}"
    if record.no_name_since is not None:
        outcome += f"; the name has been missing for {now - record.no_name_since:.0f} s"
    if now >= usable_until(record, now, config):
        outcome += "; too old to be served"
    return Step("stored", asked, outcome, record.addresses, ttl=record.ttl, ms=took)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _why_this(
    found: Resolution, ttl_left: float | None, login_limit: float | None, stale_after: float
) -> str:
    addresses = ", ".join(found.places)
    why = f"DNS had not answered after {stale_after:g} s"  # it may have since: see the steps
    if found.cause is not None:
        why = f"DNS returns no address right now ({found.cause.value})"
    if found.source is Source.STATIC:
        return (
            f"{addresses}: the static address, because {why} "
            "and no stale or stored one can be used. It is never checked against DNS"
        )
    if found.is_stale:
        limit = wording.stale_limit_in_words(found)
        row = stale_limit_row(found, ConnectionTarget(login_limit=login_limit))
        if row is not None and row["rule"] == "login_over_http":
            limit = f"{login_limit:.0f} s of age, with a login and no verified certificate"
        return (
            f"{addresses}: the stored last known good, {found.age() or 0.0:.0f} s old, because "
            f"{why}. Good for up to {limit}"
        )
    fresh = "" if ttl_left is None else f". Fresh for {ttl_left:.0f} s more"
    return f"{addresses}: {wording.REASONS[found.source]}{fresh}"


def _why_nothing(error: DNSResolutionError) -> str:
    known = wording.what_is_remembered(is_known=error.is_known, is_unread=error.is_unread)
    advice = wording.what_to_check(error.cause, is_known=error.is_known)
    return (
        f"there is no address: DNS returns none ({error.cause.value}), and {known}. {advice}; "
        "in an emergency set fallback_addresses on the connection"
    )
