"""Puts the parts together: one resolver per process, fed by settings, store, metrics and logs."""

from __future__ import annotations

import logging
import os
import sys
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns import settings, stats
from airflow_provider_hokusai_dns.resolver import DNSResolver, Event, Resolution, Source
from airflow_provider_hokusai_dns.resolver.pin import Pin, pin_host
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.variables import VariableStore

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_hokusai_dns.resolver import ResolverConfig
    from airflow_provider_hokusai_dns.tracking.server import MLflowServer

log = logging.getLogger(__name__)

#: What a connection may say about its hostname, and the field of the policy it goes to.
_CLAIMS = {
    "cache_ttl": "ttl_overrides",
    "max_stale": "max_stale_overrides",
    "nameservers": "nameserver_overrides",
    "fallback_addresses": "static_addresses",
}


class ConnectionConflictError(ValueError):
    """Two connections want different things for one hostname.

    :param hostname: the name they share.
    :param field: the extra in which they differ.
    :param conn_ids: the two connections.
    """

    def __init__(self, hostname: str, field: str, conn_ids: tuple[str, str]) -> None:
        super().__init__(
            f"Connections {conn_ids[0]!r} and {conn_ids[1]!r} both lead to {hostname!r}, but their "
            f"{field} differ. One name has one answer in a process: make the fields equal, or "
            "leave one of them empty."
        )
        self.hostname = hostname
        self.field = field
        self.conn_ids = conn_ids

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.hostname, self.field, self.conn_ids))


class Narrator:
    """Tells the story of each name in the log: one line per change, and what to do about it."""

    def __init__(self, resolver: DNSResolver) -> None:
        self._resolver = resolver
        self._told: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Observe a resolver."""
        if event.kind in ("stale_served", "static_served") and event.resolution is not None:
            # Slow DNS is no news while memory answers. A stored address is: it may be hours
            # old, and a short task ends before the lookup does.
            slow_only = event.cause is None and event.resolution.source is Source.STALE
            if not slow_only:
                self._tell_old(event, event.resolution)
        elif event.kind == "state" and event.state == "unhealthy":
            self._tell_nothing(event)
        elif event.kind == "state" and event.state == "healthy":
            if self._told.pop(event.hostname, None) is not None:
                log.info("DNS answers for %r again: all is well with the name", event.hostname)
        elif event.kind == "store_rejected":
            log.warning("The stored address of %r is not used: %s", event.hostname, event.detail)

    def _tell_old(self, event: Event, resolution: Resolution) -> None:
        story = f"{resolution.source.value} {event.cause}"
        if self._told.get(event.hostname) == story:
            return
        self._told[event.hostname] = story
        why = event.cause.value if event.cause is not None else "no answer yet"
        if resolution.source is Source.STATIC:
            log.warning(
                "DNS gives no address for %r (%s) and none is remembered: using the static address "
                "%s. It is never checked against DNS: take it out when DNS is back",
                event.hostname,
                why,
                resolution.address,
            )
            return
        config = self._resolver.config
        no_name = event.cause is not None and event.cause.says_no_such_name
        log.warning(
            "DNS gives no address for %r (%s): using %s from %s, %.0f s old. Work goes on for up "
            "to %.0f s %s; look at the DNS of the name, or start the server behind it again",
            event.hostname,
            why,
            resolution.address,
            "the shared Variable" if resolution.source is Source.STORE else "memory",
            resolution.age() or 0.0,
            config.max_stale_no_name if no_name else config.max_stale_for(event.hostname),
            "after the name went away" if no_name else "of age",
        )

    def _tell_nothing(self, event: Event) -> None:
        if self._told.get(event.hostname) == "nothing":
            return
        self._told[event.hostname] = "nothing"
        log.error(
            "DNS gives no address for %r (%s) and there is nothing old, stored or static to use "
            "instead. Check the name for a typo, then the DNS; in an emergency set "
            "fallback_addresses on the connection",
            event.hostname,
            event.cause.value if event.cause else "no answer",
        )


@dataclass
class _Process:
    """What this process has put together so far."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    resolver: DNSResolver | None = None
    store: VariableStore | None = None
    #: By hostname, then by connection id: what the connection says about the name.
    claims: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    #: The pins that stay for as long as this process does, by hostname.
    pins: dict[str, Pin] = field(default_factory=dict)
    #: The connection, and its one hostname, that ``MLFLOW_FALLBACK_IP`` belongs to.
    fallback_owner: tuple[str, str] | None = None
    complained: str = ""
    #: The settings that the resolver has been given; ``None`` when a connection said something new.
    in_force: tuple[str | None, ...] | None = None


_process = _Process()


def resolver() -> DNSResolver:
    """The resolver of this process, with the settings as they are now.

    :raises SettingError: a setting is wrong, and there is no earlier configuration to keep.
    """
    with _process.lock:
        return _configured()


def resolver_for(server: MLflowServer) -> DNSResolver:
    """The resolver of this process, which also knows what this connection says about its name.

    :raises ConnectionConflictError: another connection says something else about the same name.
    :raises SettingError: a setting is wrong, and there is no earlier configuration to keep.
    """
    target = Target.parse(server.hostname)
    claims: dict[str, dict[str, Any]] = {}
    if server.nameservers:  # what is pinned beside MLflow lives in the same private zone
        claims = {hostname: {"nameservers": server.nameservers} for hostname in server.also_pin}
    if target.literal is None:
        claims[target.hostname] = _says(server)
    with _process.lock:
        _forget_claims(server.conn_id, but=claims)
        for hostname, said in claims.items():
            _claim(hostname, server.conn_id, said)
        if target.literal is None and not server.fallback_addresses:
            _own_fallback(target.hostname, server.conn_id)
        return _configured()


def private_resolver(server: MLflowServer) -> DNSResolver:
    """A resolver of one's own, which knows nothing and leaves nothing behind.

    For the Test button: it runs in a process that serves others too, under a made-up connection id,
    and has to find what DNS says to this connection now.

    :raises SettingError: a setting is wrong.
    """
    target = Target.parse(server.hostname)
    config = settings.resolver_config()
    if target.literal is None:
        config = _with_claims(config, {target.hostname: {server.conn_id: _says(server)}})
    return DNSResolver(config)


def pin(server: MLflowServer) -> tuple[Pin, ...]:
    """Answer this process's lookups of the hosts of a connection, for as long as it lives.

    A client may be used at any time until then. Calling it again puts the newest rules in force.

    :returns: the pin of the server, and then those of ``also_pin``.
    :raises ConnectionConflictError: another connection says something else about the same name.
    """
    from airflow_provider_hokusai_dns.tracking import deadlines
    from airflow_provider_hokusai_dns.tracking.file_hosts import vet_old_file_host
    from airflow_provider_hokusai_dns.tracking.probe import vet_old_address

    names, patience = resolver_for(server), deadlines.patience(server)
    # A file host is first asked for its artifact, maybe hours from now: DNS may be gone by then.
    names.warm(server.also_pin)
    connect_timeout = deadlines.connect_timeout(server)
    with _process.lock:
        first = pin_host(
            server.hostname,
            names,
            port=server.connect_port,
            patience=patience,
            vet=partial(vet_old_address, server),
            owner=server.conn_id,
            connect_timeout=connect_timeout,
        )
        others = [
            pin_host(
                hostname,
                names,
                patience=patience,
                vet=partial(vet_old_file_host, server),
                owner=f"{server.conn_id}, also_pin",
                connect_timeout=connect_timeout,
            )
            for hostname in server.also_pin
        ]
        return tuple(_hold(each) for each in (first, *others))


def _hold(new: Pin) -> Pin:
    if _process.pins.get(new.hostname) is new:
        new.release()  # one hold is enough
    _process.pins[new.hostname] = new
    return new


def mask_credentials(server: MLflowServer) -> None:
    """Keep the secrets of a connection out of Airflow's logs, also in the form of a header."""
    from airflow.sdk.log import mask_secret

    header = server.credentials.authorization() or ""
    for secret in (server.credentials.secret, header.partition(" ")[2]):
        if secret:
            mask_secret(secret)


def store() -> VariableStore:
    """Where this process keeps the last known good and the history; a call is bounded in time."""
    with _process.lock:
        return _store()


def keep_in(store: VariableStore) -> None:
    """Keep the last known good there, in a process that is no task. Before its first resolution."""
    with _process.lock:
        _process.store = store


def metrics() -> dict[str, Any]:
    """The numbers of this process's resolver as plain values; empty before its first use."""
    return {} if _process.resolver is None else _process.resolver.metrics().as_dict()


def forget() -> None:
    """Start anew: the next call makes another resolver. For tests."""
    from airflow_provider_hokusai_dns.tracking import environment

    environment.release_all()
    with _process.lock:
        for held in _process.pins.values():
            held.release()
        _process.pins = {}
        _process.resolver = None
        _process.store = None
        _process.claims = {}
        _process.fallback_owner = None
        _process.complained = ""
        _process.in_force = None


def settle(patience: float = 5.0) -> None:
    """Under ``dag.test()``, wait until the resolver has done with the shared Variable.

    There the task talks to Airflow without a lock: a Variable that is read beside the author's XCom
    would take the XCom's answer. A real task's line has a lock, so nothing is waited for.

    :param patience: seconds.
    """
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    line = getattr(runner, "SUPERVISOR_COMMS", None)
    if type(line).__name__ == "InProcessSupervisorComms" and _process.resolver is not None:
        _process.resolver.wait_idle(patience)


def _store() -> VariableStore:
    _process.store = _process.store or VariableStore()
    return _process.store


def _says(server: MLflowServer) -> dict[str, Any]:
    return {
        name: getattr(server, name) for name in _CLAIMS if getattr(server, name) not in (None, ())
    }


def _own_fallback(hostname: str, conn_id: str) -> None:
    """Give ``MLFLOW_FALLBACK_IP`` to the name of the first connection that has none of its own.

    It goes along when that connection is led elsewhere, and to no second name.
    """
    owner = _process.fallback_owner
    if owner is None or (owner[0] == conn_id and owner[1] != hostname):
        _process.fallback_owner = (conn_id, hostname)
        _process.in_force = None
    elif owner[1] != hostname and _process.complained != hostname and settings.has_fallback():
        _process.complained = hostname
        log.warning(
            "MLFLOW_FALLBACK_IP belongs to %r in this process and is not used for %r: put "
            "fallback_addresses on the connection %r instead",
            owner[1],
            hostname,
            conn_id,
        )


def _forget_claims(conn_id: str, *, but: Collection[str]) -> None:
    """Take back what a connection said about names that it does not lead to any more."""
    for hostname in [name for name in _process.claims if name not in but]:
        if _process.claims[hostname].pop(conn_id, None) is not None:
            _process.in_force = None


def _claim(hostname: str, conn_id: str, said: dict[str, Any]) -> None:
    """Take down what a connection says about a name, unless another says something else."""
    others = _process.claims.get(hostname, {})
    for other_id, theirs in others.items():
        for name in said.keys() & theirs.keys():
            if other_id != conn_id and theirs[name] != said[name]:
                raise ConnectionConflictError(hostname, name, (other_id, conn_id))
    if others.get(conn_id) != said:
        _process.claims[hostname] = {**others, conn_id: said}
        _process.in_force = None


def _with_claims(
    config: ResolverConfig, claims: dict[str, dict[str, dict[str, Any]]]
) -> ResolverConfig:
    fields: dict[str, dict[str, Any]] = {
        name: dict(getattr(config, name)) for name in _CLAIMS.values()
    }
    for hostname, by_connection in claims.items():
        for said in by_connection.values():
            for name, value in said.items():
                fields[_CLAIMS[name]][hostname] = value
    return replace(config, **fields)  # type: ignore[arg-type]


def _configured() -> DNSResolver:
    """The resolver with the configuration as it is now; a broken change is refused (A15)."""
    fingerprint = settings.fingerprint()
    if _process.resolver is not None and _process.in_force == fingerprint:
        return _process.resolver
    try:
        config = settings.resolver_config()
        if _process.fallback_owner is not None:  # the name of a connection in use goes before
            static = settings.static_addresses()
            config = replace(
                config, static_addresses={_process.fallback_owner[1]: static} if static else {}
            )
        config = _with_claims(config, _process.claims)
    except ValueError as error:
        if _process.resolver is None:
            raise
        if _process.complained != str(error):
            _process.complained = str(error)
            log.error("The changed settings are refused, the old ones stay: %s", error)
        return _process.resolver
    if _process.resolver is None:
        _process.resolver = DNSResolver(config, store=_store())
        _process.resolver.add_observer(stats.count_event)
        _process.resolver.add_observer(Narrator(_process.resolver))
    elif config != _process.resolver.config:
        _process.resolver.reconfigure(config)
    _process.in_force = fingerprint
    return _process.resolver


def _after_fork_in_child() -> None:
    _process.lock = threading.RLock()  # may have been held by a thread that did not come along


os.register_at_fork(after_in_child=_after_fork_in_child)
