"""Name resolution of chosen hosts inside this process, backed by the resolver.

MLflow's client takes no session and no resolver of ours, so the one place where all of its traffic
comes by is :func:`socket.getaddrinfo`. For a pinned host the resolver answers it. The hostname
stays in the URI, so that TLS, SNI, virtual hosts and MLflow's Host check keep working. Every other
host goes to the system as before.

Process-wide on purpose: MLflow logs and uploads from threads of its own, where no context variable
of the caller reaches. Not covered, because they do not ask here: a proxy named in the environment,
the resolvers of uvloop, aiodns and gRPC, and processes started by ``spawn`` or ``subprocess``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

from airflow_provider_hokusai_dns.exceptions import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.blind_spots import blind_spots
from airflow_provider_hokusai_dns.resolver.lookup.system import is_looking_up
from airflow_provider_hokusai_dns.resolver.port_reachability import (
    PinPolicy,
    PortReachability,
    StaleAddressCheck,
    bounded,
)
from airflow_provider_hokusai_dns.resolver.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.target import Target

__all__ = ["Pin", "PinConflictError", "StaleAddressCheck", "bounded", "pin_host", "pinned"]

log = logging.getLogger(__name__)


class PinConflictError(ValueError):
    """A host is pinned to another resolver already."""


class Pin:
    """One pinned host; made by :func:`pin_host`. A context manager, which releases it."""

    def __init__(self, hostname: str, resolver: DNSResolver) -> None:
        self.hostname = hostname
        self.resolver = resolver
        self.count = 0
        self._lock = threading.Lock()
        self._policies: dict[str, PinPolicy] = {}
        self._patient: list[tuple[float, float]] = []
        self._ports: dict[int, PortReachability] = {}

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def set_policy(self, owner: str, policy: PinPolicy) -> None:
        """Put a policy in force, in place of the owner's last one. Others' policies stay."""
        with self._lock:
            self._policies = {**self._policies, owner: policy}
            for reachability in self._ports.values():
                reachability.forget()

    def resolve_by(self, resolver: DNSResolver) -> None:
        """Answer from another resolver from now on; rules, patience and holds stay."""
        with self._lock:
            self.resolver = resolver
            self._ports = {}

    @contextlib.contextmanager
    def patient(self, seconds: float, connect_timeout: float = 0.0) -> Iterator[None]:
        """Ride out outages of up to ``seconds`` while the block runs, whatever the policies say.

        :param connect_timeout: that of the client meanwhile, see :func:`pin_host`.
        """
        block = (seconds, connect_timeout)
        with self._lock:
            self._patient.append(block)
        try:
            yield
        finally:
            with self._lock:
                self._patient.remove(block)

    def release(self) -> None:
        """Undo one :func:`pin_host`; the last one takes the pin out."""
        _release(self)

    def addresses(self, port: int | None, *, connects: bool, tried: bool = False) -> list[str]:
        """The addresses to hand out now, in the order to try.

        :param connects: whether the caller will open a TCP connection to ``port``. If so, and if a
            policy speaks of that port, addresses are tried and an outage is ridden out.
        :param tried: try them in any case, also one that is fresh.
        :raises DNSResolutionError: nothing can be served, or nothing that may be used.
        :raises OSError: an outage was ridden out in vain, and every address swallows connections.
        """
        if not connects or port is None or not self._policies_for(port):
            return list(self.resolver.resolve(self.hostname).addresses)
        reachability = self._ports.get(port)
        if reachability is None:
            with self._lock:
                reachability = self._ports.setdefault(
                    port,
                    PortReachability(
                        self.hostname,
                        port,
                        self.resolver,
                        lambda: self._policies_for(port),
                        lambda: self._patience_for(port),
                    ),
                )
        return reachability.addresses(tried=tried)

    def _policies_for(self, port: int) -> list[PinPolicy]:
        return [policy for policy in self._policies.values() if policy.port in (None, port)]

    def _patience_for(self, port: int) -> list[tuple[float, float]]:
        """Each patience in force with the connect timeout beside it, seconds."""
        with self._lock:
            # Who asked for the length of a block knows better, also when it is less.
            return [*self._patient] or [
                (policy.patience, policy.connect_timeout) for policy in self._policies_for(port)
            ]

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for reachability in self._ports.values():
            reachability.after_fork()


def pin_host(
    hostname: str,
    resolver: DNSResolver,
    *,
    port: int | None = None,
    patience: float = 30.0,
    stale_check: StaleAddressCheck | None = None,
    owner: str = "",
    connect_timeout: float = 0.0,
) -> Pin:
    """Answer this process's lookups of one host from a resolver.

    Pinning the same host to the same resolver again gives the same pin. The policies of several
    owners hold together: each of their stale checks has to agree, and the longest patience counts.

    :param hostname: a name; or an address, whose outages are then ridden out too.
    :param port: addresses are tried and outages ridden out for this port only; ``None`` for all.
    :param patience: seconds for which an outage is ridden out.
    :param stale_check: asked before an address that is not fresh is handed out.
    :param owner: whose policy this is; it takes the place of the same owner's last one.
    :param connect_timeout: seconds after which the client gives a connect up, which are then taken
        off the patience where an address swallows connections; 0 if unknown.
    :raises PinConflictError: the host is pinned to another resolver.
    :raises ValueError: ``hostname`` is none.
    """
    key = Target.parse(hostname).hostname.removesuffix(".")
    with _lock:
        pin = _pins.get(key)
        if pin is None:
            pin = _pins[key] = Pin(key, resolver)
            _tell_blind_spots(key)
        elif pin.resolver is not resolver:
            raise PinConflictError(
                f"{key!r} is pinned to another resolver in this process already: "
                "give both connections the same settings, or release the other one first"
            )
        pin.set_policy(owner, PinPolicy(port, patience, stale_check, connect_timeout))
        pin.count += 1
        _install()
    return pin


def _tell_blind_spots(hostname: str) -> None:
    """Say what this pin does not cover, each thing once in a process."""
    for sentence in blind_spots(hostname):
        if sentence not in _told:
            _told.add(sentence)
            log.warning("Not covered by the pin of %s: %s.", hostname, sentence)


def pinned(hostname: str) -> Pin | None:
    """The pin of a host, if there is one."""
    return _pins.get(_key(hostname))


_pins: dict[str, Pin] = {}
_told: set[str] = set()
_in_place = False
_lock = threading.Lock()


def _key(host: str) -> str:
    return host.lower().removesuffix(".")


def _release(pin: Pin) -> None:
    global _in_place
    with _lock:
        pin.count -= 1
        if pin.count <= 0 and _pins.get(pin.hostname) is pin:
            del _pins[pin.hostname]
        if not _pins and socket.getaddrinfo is _getaddrinfo:  # only if it is still ours
            socket.getaddrinfo = _getaddrinfo.__hokusai_original__  # type: ignore[attr-defined]
            _in_place = False


def _install() -> None:
    """Take the place of :func:`socket.getaddrinfo`, unless we have it. The lock is held.

    Once somebody has wrapped us we are still in the chain, under a function that we do not know:
    taking the place a second time would make us our own original.
    """
    global _in_place
    saved = getattr(_getaddrinfo, "__hokusai_original__", None)
    if not _in_place or socket.getaddrinfo is saved:
        _getaddrinfo.__hokusai_original__ = socket.getaddrinfo  # type: ignore[attr-defined]
        socket.getaddrinfo = _getaddrinfo
        _in_place = True


def _getaddrinfo(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[Any]:
    """Stands where :func:`socket.getaddrinfo` stood."""
    system = _getaddrinfo.__hokusai_original__  # type: ignore[attr-defined]
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    pin = _pins.get(_key(name)) if isinstance(name, str) else None
    if pin is None or flags & socket.AI_NUMERICHOST or is_looking_up():
        return system(host, port, family, type, proto, flags)  # type: ignore[no-any-return]
    number = _port_number(port)
    connects = number is not None and type in (0, socket.SOCK_STREAM)
    try:
        addresses = pin.addresses(number, connects=connects)
    except DNSResolutionError as error:
        raise socket.gaierror(socket.EAI_AGAIN, str(error)) from error
    found: list[Any] = []
    for address in addresses:
        try:
            # The system makes the tuples, so that family, type, protocol and flags are its own.
            found += system(address, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        except socket.gaierror as error:
            failed = error  # an address of the other family than the one asked for
    if not found:
        raise socket.gaierror(
            socket.EAI_NONAME, f"{name} has no address of the family asked for: {failed}"
        )
    if flags & socket.AI_CANONNAME:
        found[0] = (*found[0][:3], name, found[0][4])
    return found


def _port_number(port: Any) -> int | None:
    if isinstance(port, bytes):
        port = port.decode("ascii", "replace")
    if isinstance(port, int):
        return port or None
    if isinstance(port, str):
        if port.isdigit():
            return int(port) or None
        with contextlib.suppress(OSError):
            return socket.getservbyname(port)
    return None


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for pin in _pins.values():
        pin._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
