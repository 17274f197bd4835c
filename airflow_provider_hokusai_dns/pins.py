"""How this process reaches the hosts of its connections: its pins, and the addresses of a relay.

Its state is changed under :func:`.runtime.locked`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config import connections
from airflow_provider_hokusai_dns.config.errors import (
    ConnectionConflictError,
    ConnectionUndefinedError,
)
from airflow_provider_hokusai_dns.resolver.target import Target

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.config.server import MLflowServer, View
    from airflow_provider_hokusai_dns.resolver import DNSResolver, Resolution
    from airflow_provider_hokusai_dns.resolver.pin import Pin


@dataclass(frozen=True, slots=True)
class _Pinned:
    """A pin that lasts as long as this process, and the view of all its owners."""

    pin: Pin
    view: View


#: By normalised hostname (:func:`_pin_key`); changed only under :func:`.runtime.locked`.
_pins: dict[str, _Pinned] = {}


def pin(server: MLflowServer) -> tuple[Pin, ...]:
    """Answer this process's lookups of the hosts of a connection until the process ends.

    A client may be used at any time until then. Calling it again applies the current settings.

    :returns: the pin of the server, followed by those of ``also_pin``.
    :raises ConnectionConflictError: another connection resolves one of the names in a different
        way.
    """
    from airflow_provider_hokusai_dns.health.stale_addresses import (
        check_stale_address,
        check_stale_file_host,
    )
    from airflow_provider_hokusai_dns.resolver.blind_spots import warn_about_blind_spots

    host = server.connect_host
    beside = [one for one in server.also_pin if _pin_key(one) != _pin_key(host)]
    _evict_outdated_owners(host, server.conn_id, server.view)
    for hostname in beside:
        _evict_outdated_owners(hostname, server.conn_id, server.view_beside)
    with runtime.locked():
        first = _pin(server, host, server.view, check_stale_address, server.connect_port)
        others = [_pin(server, host, server.view_beside, check_stale_file_host) for host in beside]
    if others:
        # The first artifact may be fetched hours from now, when DNS may not work.
        others[0].resolver.warm(beside)
    pins = (first, *others)
    for each in pins if server.proxy is None else ():
        warn_about_blind_spots(each.hostname)
    return pins


def _pin(
    server: MLflowServer,
    hostname: str,
    view: View,
    stale_check: Callable[[MLflowServer, Resolution, str, int], str | None],
    port: int | None = None,
) -> Pin:
    from airflow_provider_hokusai_dns.client import transport
    from airflow_provider_hokusai_dns.resolver.pin import pin_host

    pinned = _pins.get(_pin_key(hostname))
    if view == server.view:
        dns = runtime.resolver_for_server(server)
    else:
        dns = runtime.resolver_for_view(view)
    if pinned is not None and pinned.view != view:
        if others := pinned.pin.owners - {server.conn_id}:
            # another thread pinned it after _evict_outdated_owners
            raise _conflict(pinned, min(others), server.conn_id, view)
        pinned.pin.resolve_by(dns)  # the connection was edited
        pinned = replace(pinned, view=view)
        _add(pinned)
    new = pin_host(
        hostname,
        dns,
        port=port,
        patience=server.request_timeout,
        stale_check=partial(stale_check, server),
        owner=server.conn_id,
        connect_timeout=transport.CONNECT_TIMEOUT,
    )
    if pinned is None or pinned.pin is not new:
        _add(_Pinned(new, view))
    return new


def _add(pinned: _Pinned) -> None:
    _pins[pinned.pin.hostname] = pinned
    _update_kept_resolvers()


def _update_kept_resolvers() -> None:
    runtime.keep_resolvers_for_views(pinned.view for pinned in _pins.values())


@runtime.at_forget
def _release_all() -> None:
    for pinned in _pins.values():
        for owner in pinned.pin.owners:
            pinned.pin.release(owner)
    _pins.clear()


def _pin_key(hostname: str) -> str:
    return Target.parse(hostname).hostname.removesuffix(".")


def _evict_outdated_owners(hostname: str, conn_id: str, view: View) -> None:
    """Release the owners of a pin with other name settings, if they were deleted or edited.

    Their credentials are removed first, so that their clients do not send them to the server of
    this connection.

    :raises ConnectionConflictError: an owner still needs its name settings; nothing is released.
    """
    from airflow_provider_hokusai_dns.client import auth

    pinned = _pins.get(_pin_key(hostname))
    if pinned is None or pinned.view == view:
        return
    others = pinned.pin.owners - {conn_id}
    for owner in others:
        if _is_in_force(owner, pinned, conn_id):
            raise _conflict(pinned, owner, conn_id, view)
    for owner in others:
        auth.forget(owner)
        pinned.pin.release(owner)
    with runtime.locked():
        if not pinned.pin.owners and _pins.get(pinned.pin.hostname) is pinned:
            del _pins[pinned.pin.hostname]
            _update_kept_resolvers()


def _is_in_force(owner: str, pinned: _Pinned, caller: str) -> bool:
    """Whether a connection still has the name settings with which a name is pinned.

    Airflow also reports a connection as missing if it cannot read it right now. The other one is
    only considered deleted if Airflow returns the calling connection.
    """
    try:
        server = connections.load_server(owner)
    except ConnectionUndefinedError:
        return False
    except LookupError:
        try:
            connections.load_server(caller)
        except (LookupError, ValueError):
            return True
        return False
    except ValueError:  # edited into one that cannot be used
        return False
    return pinned.view == _view_of(server, pinned.pin.hostname)


def _view_of(server: MLflowServer, hostname: str) -> View | None:
    """The name settings of a connection for a host; ``None`` if it does not use that host."""
    if _pin_key(server.connect_host) == hostname:
        return server.view
    return server.view_beside if hostname in map(_pin_key, server.also_pin) else None


def _conflict(pinned: _Pinned, owner: str, conn_id: str, view: View) -> ConnectionConflictError:
    field = pinned.view.difference(view)
    return ConnectionConflictError(pinned.pin.hostname, field, (owner, conn_id))


def relay_addresses(server: MLflowServer, dns: DNSResolver) -> Callable[[], list[str]]:
    """The addresses for each new connection of a relay, after trials, penalties and stale checks.

    It pins nothing. Two relays to one name have separate policies.
    """
    from airflow_provider_hokusai_dns.health.stale_addresses import check_stale_address
    from airflow_provider_hokusai_dns.resolver.pinned_port import PinnedPort
    from airflow_provider_hokusai_dns.resolver.port_reachability import Patience, PinPolicy

    patience = Patience(server.deadline)
    policy = PinPolicy(server.connect_port, patience, partial(check_stale_address, server))
    port = PinnedPort(
        server.connect_host, server.connect_port, dns, lambda: [policy], lambda: [patience]
    )
    return port.addresses
