"""Connects the parts: the resolvers of this process with settings, store, metrics and logs."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_hokusai_dns import observers, supervisor
from airflow_provider_hokusai_dns.config import settings
from airflow_provider_hokusai_dns.config.errors import (
    ConnectionConflictError as ConnectionConflictError,
)
from airflow_provider_hokusai_dns.config.errors import SettingError
from airflow_provider_hokusai_dns.config.server import MLflowServer, View
from airflow_provider_hokusai_dns.resolver import (
    DNSMetrics,
    DNSResolver,
    LastKnownGood,
    ResolverConfig,
    forks,
)
from airflow_provider_hokusai_dns.runtime.policy import Policy, for_view
from airflow_provider_hokusai_dns.runtime.policy_variable import KEY
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from airflow_provider_hokusai_dns.store.variables import notice_dag_test

log = logging.getLogger(__name__)

#: Maximum number of views whose resolvers are kept, except that pinned ones are never dropped.
#: Edited connections leave unused ones.
_MOST_VIEWS = 256
_DEFAULT_VIEW = View()


@dataclass
class _Process:
    """The state of this module in one process."""

    lock: threading.RLock = field(default_factory=lambda: forks.free_in_child(threading.RLock()))
    #: Nesting depth of :func:`locked`.
    depth: int = 0
    #: By view, in order of use.
    resolvers: OrderedDict[View, DNSResolver] = field(default_factory=OrderedDict)
    store: VariableStore | None = None
    #: Views whose resolvers are never dropped.
    kept: frozenset[View] = frozenset()
    policy: Policy = field(default_factory=Policy)
    #: The policy that the resolvers follow.
    followed: ResolverConfig | None = None
    #: What the resolvers have counted that were dropped.
    counted: DNSMetrics = field(default_factory=DNSMetrics)


_process = _Process()
_at_forget: list[Callable[[], None]] = []


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the lock of this module's state and that of :mod:`~.pins`.

    This module logs nothing while it holds the lock, and everything after its release.
    """
    log_lines: list[tuple[Any, ...]] = []
    try:
        with _process.lock:
            _process.depth += 1
            try:
                yield
            finally:
                _process.depth -= 1
                if not _process.depth:
                    log_lines, _process.policy.log_lines = _process.policy.log_lines, []
    finally:
        for level, text, *values in log_lines:
            log.log(level, text, *values)


def resolver() -> DNSResolver:
    """The resolver of this process for names without a connection, with the current settings."""
    return resolver_for_view(_DEFAULT_VIEW)


def resolver_for_server(server: MLflowServer) -> DNSResolver:
    """The resolver of this process for the names of a connection.

    Connections with equal name settings share one resolver; all others are independent.
    """
    with locked():
        _process.policy.own_fallback(server)
        return resolver_for_view(server.view)


def resolver_for_view(view: View) -> DNSResolver:
    """The resolver of this process for a view.

    :raises SettingError: a setting is wrong, and there is no earlier configuration to keep.
    """
    notice_dag_test()
    with locked():
        policy = _policy()
        dns = _process.resolvers.get(view)
        if dns is None:
            dns_store = _PolicyFollowingStore(store(view.asked))
            dns = DNSResolver(for_view(policy, view), store=dns_store)
            dns.add_observer(observers.count_event)
            dns.add_observer(observers.LogObserver(dns))
            if len(_process.resolvers) >= _MOST_VIEWS:
                unpinned = (known for known in _process.resolvers if known not in _process.kept)
                if (dropped := _process.resolvers.pop(next(unpinned, view), None)) is not None:
                    _process.counted = DNSMetrics.total(
                        [_process.counted, dropped.metrics().without_state()]
                    )
            _process.resolvers[view] = dns
        # Never removed in between: a child that is forked at that moment would make a second one,
        # and could not use what its parent has pinned.
        _process.resolvers.move_to_end(view)
        return dns


def keep_resolvers_for_views(views: Iterable[View]) -> None:
    """Set the views whose resolvers are always in use: these are never dropped."""
    with locked():
        _process.kept = frozenset(views)


def private_resolver(server: MLflowServer) -> DNSResolver:
    """A separate resolver with an empty cache, which stores nothing.

    For the Test button: it runs in a process that serves others too, with a generated connection
    id, and must find the current answer of DNS for this connection, as a task that uses no other.

    :raises SettingError: a setting is wrong.
    """
    policy = Policy(variable=_process.policy.variable)
    policy.own_fallback(server)
    return DNSResolver(for_view(policy.current(), server.view))


def warm(servers: Iterable[MLflowServer], hostnames: Iterable[str] = ()) -> None:
    """Look up the names of connections and further hostnames in the background.

    A long-lived process then has them in memory before it needs them, even if neither DNS nor
    Airflow's API server answers at that time.
    """
    resolver().warm(hostnames)
    for server in servers:
        resolver_for_server(server).warm([server.connect_host])
        resolver_for_view(server.view_beside).warm(server.also_pin)


def warm_listed(read: Callable[[str], MLflowServer]) -> None:
    """Look up the names that the deployment lists, with the current policy. Blocks.

    :param read: reads a connection; one that cannot be read is reported where it is used.
    """
    servers = []
    try:
        for conn_id in settings.listed_connections():
            with contextlib.suppress(LookupError, ValueError):
                servers.append(read(conn_id))
        follow_policy()
        warm(servers, settings.listed_hostnames())
    except SettingError as error:
        log.warning("The listed names are not looked up ahead of time: %s", error)


def mask_credentials(server: MLflowServer) -> None:
    """Mask the secrets of a connection in Airflow's logs, even as part of a header."""
    header = server.credentials.authorization() or ""
    proxy = (server.proxy and server.proxy.authorization) or ""
    mask(server.credentials.secret, header.partition(" ")[2], proxy.partition(" ")[2])


def mask(*texts: str | None) -> None:
    """Mask secrets in Airflow's logs."""
    from airflow.sdk.log import mask_secret

    with supervisor.withheld_from_child():
        for text in filter(None, texts):
            mask_secret(text)


def store(asked: tuple[str, ...] = ()) -> VariableStore:
    """The store of this process for the last known good and the history; calls have a time limit.

    :param asked: :attr:`.View.asked` of a connection, whose answers are stored separately.
    """
    with locked():
        return (_process.store or use_store(VariableStore())).for_nameservers(asked)


def max_clock_skew() -> float:
    """Seconds by which a stored timestamp may be ahead, by the policy in force."""
    with locked(), contextlib.suppress(SettingError):  # reported where a resolver is asked for
        return _policy().max_clock_skew
    return ResolverConfig().max_clock_skew


def use_store(store: VariableStore) -> VariableStore:
    """Set the store, in a process that is not a task. To be called before its first resolution."""
    store.max_clock_skew = max_clock_skew
    with locked():
        _process.store = store
    return store


def follow_policy() -> None:
    """Apply the Variable ``hokusai_dns_policy``, read at most every 15 s per process.

    It may block as long as one read of a Variable, so no caller waits for it before its own lookup.
    A broken text is rejected as a whole, with one line in the log. Never raises.
    """
    if not _process.policy.variable.claim_read():
        return
    try:
        text = store().text(KEY)
    except Exception as error:  # not known; what was accepted before stays
        log.debug("Variable %s could not be read (%s)", KEY, type(error).__name__)
        return
    with locked():
        _process.policy.take(text)
        with contextlib.suppress(SettingError):  # reported where a resolver is asked for
            _policy()


def policy_status() -> dict[str, Any]:
    """What the Variable sets in this process, and what is wrong with it, as plain values."""
    with locked():
        return _process.policy.status()


@dataclass(frozen=True, slots=True)
class _PolicyFollowingStore:
    """A store that reads the policy Variable again after each record.

    So the record is judged by the current policy. The record is read first: if Airflow answers
    slowly, the record is more important.
    """

    store: VariableStore

    def read(self, hostname: str) -> LastKnownGood | None:
        skew = max_clock_skew()
        record = self.store.read(hostname)
        follow_policy()
        if record is None and max_clock_skew() != skew:
            record = self.store.read(hostname)
        return record

    def write(self, record: LastKnownGood) -> bool:
        return self.store.write(record)


def dns_metrics() -> DNSMetrics:
    """The numbers of all resolvers of this process together."""
    with locked():
        return DNSMetrics.total(
            [_process.counted, *(dns.metrics() for dns in _process.resolvers.values())]
        )


def metrics() -> dict[str, Any]:
    """The numbers of this process's resolvers as plain values; empty before their first use."""
    return dns_metrics().as_dict() if _process.resolvers else {}


def at_forget(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function, under the lock, when the process starts over. A decorator."""
    _at_forget.append(function)
    return function


def forget() -> None:
    """Start over: the next call makes another resolver. For tests."""
    with locked():
        for function in _at_forget:
            function()
        fresh = _Process(_process.lock, depth=_process.depth)
        vars(_process).update(vars(fresh))


def wait_idle(seconds: float) -> None:
    """Wait until the resolvers of this process have nothing to do, at most this long."""
    end = time.monotonic() + seconds
    for dns in [*_process.resolvers.values()]:
        dns.wait_idle(max(0.0, end - time.monotonic()))


def _policy() -> ResolverConfig:
    """The current policy, which all resolvers then follow. The lock is held."""
    policy = _process.policy.current()
    if policy is not _process.followed:
        for view, dns in _process.resolvers.items():
            dns.reconfigure(for_view(policy, view))
        _process.followed = policy
    return policy


@forks.in_child
def _reset_depth() -> None:
    _process.depth = 0
