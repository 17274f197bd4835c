"""Name resolution of chosen hosts inside this process, backed by the resolver.

MLflow's client accepts neither a session nor a resolver, but all of its lookups call
:func:`socket.getaddrinfo`. For a pinned host, the resolver answers that call. The hostname stays in
the URI, so that TLS, SNI, virtual hosts and MLflow's Host check keep working. All other hosts are
resolved by the system as before.

A pin applies to the whole process, because MLflow logs and uploads from its own threads, which do
not have the caller's context variables. Lookups that do not call these functions are not covered;
see README, section Limits.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any, Self

from airflow_provider_hokusai_dns.resolver import forks
from airflow_provider_hokusai_dns.resolver.deadline import seconds_left
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.handouts import Handout
from airflow_provider_hokusai_dns.resolver.lookup.system import unpinned
from airflow_provider_hokusai_dns.resolver.model import FOREVER, Attempt, Cause, Resolution
from airflow_provider_hokusai_dns.resolver.pinned_port import (
    GRACE,
    PinnedPort,
    ReusableAnswer,
    is_of_family,
)
from airflow_provider_hokusai_dns.resolver.port_reachability import (
    Patience,
    PinPolicy,
    StaleAddressCheck,
)
from airflow_provider_hokusai_dns.resolver.resolver import DNSResolver
from airflow_provider_hokusai_dns.resolver.socket_functions import (
    Function,
    Sentinel,
    SocketFunctions,
)
from airflow_provider_hokusai_dns.resolver.system_answers import (
    CANONNAME,
    ERRORS,
    NUMERICHOST,
    items_of,
    question,
)
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.resolver.workers import Workers

#: Seconds of patience for ``loop.getaddrinfo``: it occupies a thread of the event loop's executor,
#: which ``asyncio.run`` joins even if the coroutine has given up.
_ON_A_LOOPS_THREAD = 2.0


class PinConflictError(ValueError):
    """The host is already pinned to another resolver."""


class Pin:
    """One pinned host; created by :func:`pin_host`. As a context manager it is released at the end.

    :param hostname: without a final dot.
    """

    def __init__(self, hostname: str, resolver: DNSResolver) -> None:
        self.hostname = hostname
        self.resolver = resolver
        self._lock = forks.free_in_child(threading.RLock())  # reentrant: for a signal handler
        self._policies: dict[str, PinPolicy] = {}  # by owner
        self._absolute = False
        #: Those that a policy names: an answer with ports of its own (SRV) is for them.
        self.ports: frozenset[int | None] = frozenset()
        self._patient: list[Patience] = []
        self._ports: dict[tuple[bool, int, int], PinnedPort] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    @property
    def owners(self) -> frozenset[str]:
        """The owners that have a policy here."""
        return frozenset(self._policies)

    def set_policy(self, owner: str, policy: PinPolicy | None) -> None:
        """Apply a policy, which replaces the owner's previous one. Policies of others stay.

        :param policy: ``None`` removes the owner's.
        """
        with self._lock:
            policies = {who: held for who, held in self._policies.items() if who != owner}
            if policy is not None:
                policies[owner] = policy
            self._policies = policies
            self.ports = frozenset(held.port for held in policies.values())
            self._absolute = bool(policies) and all(held.absolute for held in policies.values())
            _last.clear()
            ports = self._ports
            self._ports = {k: v for k, v in [*ports.items()] if self._policies_for(k[1])}
        for key, port in ports.items():
            port.forget(for_good=key not in self._ports)

    def resolve_by(self, resolver: DNSResolver) -> None:
        """Answer from another resolver from now on; policies, patience and owners stay."""
        with self._lock:
            self.resolver = resolver
            ports, self._ports = self._ports, {}
            _last.clear()
        for port in ports.values():
            port.forget(for_good=True)

    @contextlib.contextmanager
    def patient(self, seconds: float, connect_timeout: float = 0.0) -> Iterator[None]:
        """Inside the block, wait up to ``seconds`` for an outage to end, whatever the policies say.

        :param connect_timeout: that of the client inside the block, see :func:`pin_host`.
        """
        block = Patience(seconds, connect_timeout)
        with self._lock:
            self._patient.append(block)
        try:
            yield
        finally:
            with self._lock:
                self._patient.remove(block)

    def release(self, owner: str = "") -> None:
        """Remove an owner's policy; the pin ends with its last owner."""
        self.set_policy(owner, None)
        with _lock:
            if not self._policies and _pins.get(self.hostname) is self:
                del _pins[self.hostname]
            if not _pins:
                _functions.uninstall()

    def addresses(
        self,
        port: int | None,
        *,
        connects: bool,
        must_be_tested: bool = False,
        family: int = 0,
        absolute: bool = False,
        max_patience: float = FOREVER,
    ) -> Handout:
        """The addresses to return now, in the order to try.

        :param connects: whether the caller will open a TCP connection to ``port``. If so, and if a
            policy applies to that port, addresses are tested, and the call waits during an outage.
        :param must_be_tested: return only addresses of which one has just accepted a connection.
        :param family: the address family that the caller can use, 0 for any. The result is empty if
            there is none.
        :param absolute: whether the caller's name ends with a dot.
        :param max_patience: maximum patience in seconds.
        :raises DNSResolutionError: there is no address, or none that may be used.
        :raises OSError: the outage outlasted the patience, and no address answers.
        """
        absolute = absolute or self._absolute
        key = absolute, port or 0, family
        pinned_port = self._ports.get(key) if connects else None
        if pinned_port is None:
            name = self.hostname + "." if absolute else self.hostname
            if not connects or port is None or not self._policies_for(port):
                found = self._resolve(name, min(max_patience, seconds_left())).endpoints
                places = tuple(str(e) for e in found if is_of_family(e.address, family))
                return Handout(places, places)
            with self._lock:
                pinned_port = self._ports.setdefault(
                    key,
                    PinnedPort(
                        name,
                        port,
                        self.resolver,
                        lambda: self._policies_for(port),
                        lambda: self._patience_for(port),
                        family=family,
                    ),
                )
        return pinned_port.addresses(must_be_tested=must_be_tested, max_patience=max_patience)

    def _resolve(self, name: str, seconds: float) -> Resolution:
        """Resolve with a time limit; other callers continue to wait for the lookup."""
        if seconds == FOREVER or self.resolver.ready(name) is not None:
            return self.resolver.resolve(name)
        resolving = _resolving.call(partial(self.resolver.resolve, name))
        try:
            return resolving.result(max(GRACE, seconds))
        except TimeoutError:
            attempt = Attempt("live lookup", "no outcome", seconds)
            raise DNSResolutionError(name, Cause.TIMEOUT, (attempt,)) from None

    def reusable_answer(
        self, handout: Handout, port: int, family: int, absolute: bool
    ) -> ReusableAnswer | None:
        """The last answer for these arguments of :meth:`addresses`, if it can be reused."""
        pinned_port = self._ports.get((absolute or self._absolute, port, family))
        return None if pinned_port is None else pinned_port.reusable_answer(handout)

    def _policies_for(self, port: int) -> list[PinPolicy]:
        """The policies for this port, else those for every port (a file host of another server)."""
        policies = self._policies.values()
        named = [policy for policy in policies if policy.port == port]
        return named or [policy for policy in policies if policy.port is None]

    def _patience_for(self, port: int) -> list[Patience]:
        """All patience values in force."""
        with self._lock:
            # A caller that set a length for a block overrides it, also with a shorter one.
            in_force = [*self._patient]
        in_force = in_force or [policy.patience for policy in self._policies_for(port)]
        return in_force or [Patience(0.0)]  # released meanwhile


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

    Pinning the same host to the same resolver again returns the same pin. The policies of several
    owners are combined: all stale checks must agree, and the longest patience applies.

    :param hostname: a name; or an address, for which calls then wait during an outage too. With a
        final dot, no search domains are tried.
    :param port: the port for which addresses are tested and calls wait; ``None`` for all.
    :param patience: how long calls wait for an outage to end, seconds.
    :param stale_check: called before an address that is not fresh is returned.
    :param owner: the owner of this policy, which replaces the owner's previous one;
        :meth:`Pin.release` removes it.
    :param connect_timeout: seconds after which the client gives up a connect; 0 if unknown. It is
        subtracted from the patience if an address does not answer at all.
    :raises PinConflictError: the host is pinned to another resolver.
    :raises ValueError: ``hostname`` is neither a hostname nor an address.
    """
    name = Target.parse(hostname).hostname
    key = name.removesuffix(".")
    policy = PinPolicy(port, Patience(patience, connect_timeout), stale_check, absolute=name != key)
    with _lock:
        pin = _pins.get(key)
        if pin is not None and pin.resolver is not resolver:
            raise PinConflictError(
                f"{key!r} is pinned to another resolver in this process already: "
                "give both connections the same settings, or release the other one first"
            )
        if pin is None:
            pin = _pins[key] = Pin(key, resolver)
        pin.set_policy(owner, policy)
    missing = _functions.missing()  # without the lock, because it calls foreign functions
    with _lock:
        if _pins:
            _functions.install(missing)
    return pin


def pinned(hostname: str) -> Pin | None:
    """The pin of a host, or ``None``."""
    return _pins.get(_key(hostname))


_pins: dict[str, Pin] = {}
_resolving = Workers("hokusai-dns-pin")
#: Answers for a good day, by the arguments of the call.
_last: dict[tuple[Any, ...], ReusableAnswer] = {}
_MOST_LAST = 256
_lock = forks.free_in_child(threading.RLock())


def _key(host: str) -> str:
    if not host.isascii():
        with contextlib.suppress(UnicodeError):  # the codec with which the system's own encodes it
            host = host.encode("idna").decode("ascii")
    return host.lower().removesuffix(".")


# --- in the place of the system's functions


def _pin_for(host: Any) -> Pin | None:
    """The pin that answers a call; ``None`` if the system answers it."""
    if isinstance(host, Sentinel):
        host.was_seen = True
        return None
    name = _text(host)
    return _pins.get(_key(name)) if isinstance(name, str) and not unpinned.get() else None


def _text(host: Any) -> Any:
    return host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host


def _make_getaddrinfo(system: Function) -> Function:
    def getaddrinfo(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """Replaces :func:`socket.getaddrinfo`."""
        try:
            last = _last.get((host, port, family, type, proto, flags))
        except TypeError:  # a Sentinel, bytes that change, or what the system does not take
            last = None
        if last is not None and not unpinned.get() and (found := last.port.again(last)) is not None:
            return found
        pin = _pin_for(host)
        if pin is None or flags & NUMERICHOST or port.__hash__ is None:
            return system(host, port, family, type, proto, flags)  # type: ignore[no-any-return]
        max_patience = _ON_A_LOOPS_THREAD if _is_for_a_loop(sys._getframe(1)) else FOREVER
        return _answer(pin, _text(host), (port, family, type, proto, flags), max_patience)

    return getaddrinfo


def _is_for_a_loop(caller: FrameType | None) -> bool:
    """Whether ``loop.getaddrinfo`` called: then the caller is an executor, perhaps through other
    functions that replace :func:`socket.getaddrinfo`, as ours does.
    """
    while caller is not None:
        module = caller.f_globals.get("__name__")
        if caller.f_code.co_name != "getaddrinfo" and module != "unittest.mock":
            return module in ("concurrent.futures.thread", "asyncio.base_events")
        caller = caller.f_back
    return False


def _make_gethostbyname(system: Function) -> Function:
    def gethostbyname(host: Any) -> str:
        """Replaces :func:`socket.gethostbyname`."""
        pin = _pin_for(host)
        return system(host) if pin is None else _ipv4_of(pin, _text(host))[0]

    return gethostbyname


def _make_gethostbyname_ex(system: Function) -> Function:
    def gethostbyname_ex(host: Any) -> tuple[str, list[str], list[str]]:
        """Replaces :func:`socket.gethostbyname_ex`."""
        pin = _pin_for(host)
        if pin is None:
            return system(host)  # type: ignore[no-any-return]
        return _text(host), [], _ipv4_of(pin, _text(host))

    return gethostbyname_ex


_functions = SocketFunctions(
    {
        "getaddrinfo": _make_getaddrinfo,
        "gethostbyname": _make_gethostbyname,
        "gethostbyname_ex": _make_gethostbyname_ex,
    }
)


def _ipv4_of(pin: Pin, name: str) -> list[str]:
    found = _answer(pin, name, (None, socket.AF_INET, socket.SOCK_STREAM, 0, 0), FOREVER)
    return [item[4][0] for item in found]


def _answer(pin: Pin, name: str, arguments: tuple[Any, ...], max_patience: float) -> list[Any]:
    """What the system would return for a pinned host if DNS returned our addresses."""
    # Check the arguments first: no caller should wait for a lookup to learn of an error there.
    number, connects, family = question(*arguments)
    absolute = name.endswith(".")
    try:
        handout = pin.addresses(
            number or None,
            connects=connects,
            family=family,
            absolute=absolute,
            max_patience=max_patience,
        )
    except DNSResolutionError as error:
        raise socket.gaierror(ERRORS.get(error.cause, socket.EAI_AGAIN), str(error)) from error
    own_ports = connects and number in pin.ports
    found = items_of(handout.places, own_ports, *arguments)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, f"{name} has no address of the requested family")
    if arguments[4] & CANONNAME:
        found = ((*found[0][:3], name, found[0][4]), *found[1:])
    handout[:] = found
    last = pin.reusable_answer(handout, number, family, absolute) if connects else None
    if last is not None:
        if len(_last) >= _MOST_LAST:
            _last.clear()
        _last[name, *arguments] = last
    return handout
