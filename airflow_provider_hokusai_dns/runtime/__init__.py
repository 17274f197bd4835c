"""Connects the parts: the resolvers of this process with settings, store, metrics and logs."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_hokusai_dns import observers
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
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.runtime.policy_variable import KEY, PolicyVariable
from airflow_provider_hokusai_dns.store.variables import VariableStore, notice_dag_test

log = logging.getLogger(__name__)

#: Maximum number of views whose resolvers are kept, except that pinned ones are never dropped.
#: Edited connections leave unused ones.
_MOST_VIEWS = 256
_DEFAULT_VIEW = View()
_BACK = "back to the settings"


@dataclass
class _Process:
    """The state of this module in one process."""

    lock: threading.RLock = field(default_factory=lambda: forks.free_in_child(threading.RLock()))
    #: Nesting depth of :func:`locked`.
    depth: int = 0
    #: Log lines to write once the lock is released.
    log_lines: list[tuple[Any, ...]] = field(default_factory=list)
    #: By view, in order of use.
    resolvers: dict[View, DNSResolver] = field(default_factory=dict)
    store: VariableStore | None = None
    #: Views whose resolvers are never dropped.
    kept: frozenset[View] = frozenset()
    #: The connection, and its one hostname, that ``MLFLOW_FALLBACK_IP`` belongs to.
    fallback_owner: tuple[str, str] | None = None
    #: Hosts for which it was logged that they do not own it.
    fallback_warned: set[str] = field(default_factory=set)
    #: Why changed settings were rejected last.
    rejected_settings: str = ""
    policy_variable: PolicyVariable = field(default_factory=PolicyVariable)
    #: The policy before any connection's settings, and the settings that it was built from.
    policy: ResolverConfig | None = None
    in_force: tuple[str | None, ...] | None = None
    #: What the resolvers have counted that were dropped.
    counted: DNSMetrics = field(default_factory=DNSMetrics)
    #: The numbers of the Variable that are part of it.
    numbers_in_force: Mapping[str, float] = field(default_factory=dict)


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
                    log_lines, _process.log_lines = _process.log_lines, []
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
    target = Target.parse(server.hostname)
    with locked():
        is_named = target.literal is None and server.proxy is None
        if is_named and not server.fallback_addresses:
            _own_fallback(target.hostname, server.conn_id)
        return resolver_for_view(server.view)


def resolver_for_view(view: View) -> DNSResolver:
    """The resolver of this process for a view.

    :raises SettingError: a setting is wrong, and there is no earlier configuration to keep.
    """
    notice_dag_test()
    with locked():
        policy = _policy()
        dns = _process.resolvers.pop(view, None)
        if dns is None:
            dns_store = _PolicyFollowingStore(store(view.asked))
            dns = DNSResolver(_as_seen(policy, view), store=dns_store)
            dns.add_observer(observers.count_event)
            dns.add_observer(observers.LogObserver(dns))
            if len(_process.resolvers) >= _MOST_VIEWS:
                unpinned = (known for known in _process.resolvers if known not in _process.kept)
                if (dropped := _process.resolvers.pop(next(unpinned, view), None)) is not None:
                    _process.counted = DNSMetrics.total(
                        [_process.counted, dropped.metrics().without_state()]
                    )
        _process.resolvers[view] = dns
        return dns


def keep_resolvers_for_views(views: Iterable[View]) -> None:
    """Set the views whose resolvers are always in use: these are never dropped."""
    with locked():
        _process.kept = frozenset(views)


def private_resolver(server: MLflowServer) -> DNSResolver:
    """A separate resolver with an empty cache, which stores nothing.

    For the Test button: it runs in a process that serves others too, with a generated connection
    id, and must find the current answer of DNS for this connection.

    :raises SettingError: a setting is wrong.
    """
    policy = settings.resolver_config(_process.policy_variable.values)
    return DNSResolver(_as_seen(policy, server.view))


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

    for text in filter(None, texts):
        mask_secret(text)


def store(asked: tuple[str, ...] = ()) -> VariableStore:
    """The store of this process for the last known good and the history; calls have a time limit.

    :param asked: the nameservers and SRV name of a connection (:attr:`.View.asked`), whose answers
        are stored separately.
    """
    with locked():
        return (_process.store or use_store(VariableStore())).seen_by(asked)


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
    variable = _process.policy_variable
    if not variable.claim_read():
        return
    try:
        text = store().text(KEY)
    except Exception as error:  # not known; what was accepted before stays
        log.debug("Variable %s could not be read (%s)", KEY, type(error).__name__)
        return
    with locked():
        before = variable.values, variable.problem
        variable.take(text)
        if variable.problem is not None and variable.problem != before[1]:
            line = "The policy stays as it was, because the %s. Correct it under Admin, Variables"
            _process.log_lines.append((logging.ERROR, line, variable.problem))
        if variable.values != before[0]:
            _process.in_force = None
            with contextlib.suppress(SettingError):  # reported where a resolver is asked for
                _policy()
            if _are_in_force(variable.values):  # else the settings are invalid, as logged
                numbers = ", ".join(f"{name}={value:g}" for name, value in variable.values.items())
                line, told = "The policy changed by the Variable %s: %s", numbers or _BACK
                _process.log_lines.append((logging.INFO, line, KEY, told))


def policy_status() -> dict[str, Any]:
    """What the Variable sets in this process, and what is wrong with it, as plain values."""
    with locked():
        variable = _process.policy_variable
        status = variable.as_dict()
        if not _are_in_force(variable.values):
            why = f"the settings are invalid ({_process.rejected_settings})"
            status["values"] = dict(_process.numbers_in_force)
            status["problem"] = (
                variable.problem or f"The change of Variable {KEY!r} is not applied: {why}"
            )
        return status


def _are_in_force(numbers: Mapping[str, float]) -> bool:
    """Whether the policy has these numbers, or there is none yet. The lock is held."""
    return _process.policy is None or _process.numbers_in_force == numbers


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


def _own_fallback(hostname: str, conn_id: str) -> None:
    """Apply ``MLFLOW_FALLBACK_IP`` to the host of the first connection without static addresses.

    If the host of that connection changes, it applies to the new host. It never applies to a second
    host. A listed connection takes precedence over one that is not listed.
    """
    owner = _process.fallback_owner
    if (
        owner is None
        or (owner[0] == conn_id and owner[1] != hostname)
        or (owner[1] != hostname and _is_listed(conn_id) and not _is_listed(owner[0]))
    ):
        _process.fallback_owner = (conn_id, hostname)
        _process.in_force = None
    elif (
        owner[1] != hostname
        and hostname not in _process.fallback_warned
        and settings.has_fallback()
    ):
        _process.fallback_warned.add(hostname)
        line = (
            "MLFLOW_FALLBACK_IP belongs to %r in this process and is not used for %r: put "
            "fallback_addresses on the connection %r instead"
        )
        _process.log_lines.append((logging.WARNING, line, owner[1], hostname, conn_id))


def _is_listed(conn_id: str) -> bool:
    try:
        return settings.has_fallback() and conn_id in settings.listed_connections()
    except SettingError:
        return False


def _policy() -> ResolverConfig:
    """The policy from the current settings; an invalid change is rejected. The lock is held."""
    fingerprint = settings.fingerprint()
    if _process.policy is not None and _process.in_force == fingerprint:
        return _process.policy
    numbers = _process.policy_variable.values
    try:
        policy = settings.resolver_config(numbers)
        if _process.fallback_owner is not None:  # the name of a connection in use goes before
            static = settings.static_addresses()
            policy = replace(
                policy, static_addresses={_process.fallback_owner[1]: static} if static else {}
            )
    except ValueError as error:
        if _process.policy is None:
            raise
        if _process.rejected_settings != str(error):
            _process.rejected_settings = str(error)
            line = "The changed settings are invalid and not applied, the previous ones stay: %s"
            _process.log_lines.append((logging.ERROR, line, error))
        return _process.policy
    if policy != _process.policy:
        for view, dns in _process.resolvers.items():
            dns.reconfigure(_as_seen(policy, view))
    _process.policy, _process.in_force = policy, fingerprint
    _process.numbers_in_force = numbers
    return policy


def _as_seen(policy: ResolverConfig, view: View) -> ResolverConfig:
    """The policy, with the settings of a view applied."""
    if view == _DEFAULT_VIEW:
        return policy
    own: dict[str, Any] = {}
    if view.nameservers:
        own["nameservers"] = view.nameservers
    if view.srv:
        own["srv"] = {view.hostname: view.srv}
    if view.fallback_addresses:
        static = {**policy.static_addresses, view.hostname: view.fallback_addresses}
        own["static_addresses"] = static
    if view.cache_ttl is not None:
        own["ttl_overrides"] = {view.hostname: view.cache_ttl}
    if view.max_stale is not None:
        own["max_stale_overrides"] = {view.hostname: view.max_stale}
    return replace(policy, **own)


@forks.in_child
def _reset_depth() -> None:
    _process.depth = 0
