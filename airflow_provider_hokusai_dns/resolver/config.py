"""The numbers of the policy as one frozen, validated value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from airflow_provider_hokusai_dns.resolver.target import Target, parse_address, shown

#: The highest age at which a stale answer may be served (policy rule 6).
HARD_MAX_STALE = 259_200.0
#: No duration is longer, in seconds: what is given as a time has to be one that a calendar has.
LONGEST = 315_360_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverConfig:
    """The resolver's policy. Durations are seconds; 0 is valid and means zero.

    The mappings are keyed by hostname; each entry applies to that name only.

    :raises ValueError: a field is wrong; the error names it and its value.
    """

    #: Rule 1: the longest lifetime of an answer, and the lifetime when its TTL is unknown.
    cache_ttl: float = 300.0
    #: Rule 1: the shortest lifetime, the one case in which a record's TTL is exceeded.
    min_ttl: float = 5.0
    #: Rule 1: a per-hostname lifetime that overrides both of the above.
    ttl_overrides: Mapping[str, float] = field(default_factory=dict)
    #: Rule 2: with a stale answer available, how long a caller waits for a lookup.
    stale_after: float = 0.5
    #: Rule 3: how long a lookup may take.
    timeout: float = 10.0
    #: Rule 4: how often a failed name is looked up again while a stale answer is served.
    failure_recheck: float = 30.0
    #: Rule 5: how long the same error is answered with nothing to serve; doubles up to the maximum.
    failure_ttl: float = 1.0
    failure_ttl_max: float = 10.0
    #: Rule 6: the maximum age of an answer served while DNS fails; 0 serves none.
    max_stale: float = 86_400.0
    #: Rule 6, for one hostname (a connection's own ``max_stale``).
    max_stale_overrides: Mapping[str, float] = field(default_factory=dict)
    #: Rule 7: how long an answer is served after DNS first said there is no such name.
    max_stale_no_name: float = 900.0
    #: Rule 8: how often the name is looked up again during that time.
    no_name_recheck: float = 5.0
    #: Rule 11: share of the lifetime that is left when a used name is refreshed ahead of time.
    refresh_ahead: float = 0.2
    #: Rule 12: lifetimes are shortened by up to this share.
    jitter: float = 0.1
    #: Rule 13: how long an address that did not accept a connection stays at the back.
    penalty: float = 30.0
    #: Rule 13: a report of a failed address starts a lookup at most this often.
    report_interval: float = 1.0
    #: Rule 14: names held.
    max_hosts: int = 1024
    #: Rule 16: a stored stamp this far ahead of the clock is invalid.
    max_clock_skew: float = 300.0
    #: Rule 17: a stored answer that is this old is rewritten. Less than the age in rule 18, or a
    #: name that never changes would get too old for credentials over plain http.
    store_max_age: float = 600.0
    #: How often a failing name asks the shared store again.
    store_recheck: float = 30.0
    #: The rolling window of the health level.
    window: float = 300.0
    #: Ask these instead of the system's nameservers: ``"address"`` or ``"address:port"``.
    nameservers: tuple[str, ...] = ()
    #: The same, for one hostname (a connection's own ``nameservers``).
    nameserver_overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: By hostname: the SRV name to look up instead, for addresses and port.
    srv: Mapping[str, str] = field(default_factory=dict)
    #: Search domains instead of the system's; ``None`` takes those of ``resolv.conf``.
    search: tuple[str, ...] | None = None
    #: Addresses for emergencies, by the hostname they belong to.
    static_addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.type in ("float", "int"):
                _check_number(item.name, getattr(self, item.name))
        if self.max_hosts < 1 or not isinstance(self.max_hosts, int):
            raise ValueError(f"max_hosts must be a whole number from 1, not {self.max_hosts!r}")
        if self.min_ttl > self.cache_ttl:
            # The cap is what people set (DNS_CACHE_TTL); a cap below the default floor lowers it.
            if self.min_ttl != type(self).__dataclass_fields__["min_ttl"].default:
                raise ValueError(
                    f"min_ttl {self.min_ttl!r} must not exceed cache_ttl {self.cache_ttl!r}"
                )
            object.__setattr__(self, "min_ttl", self.cache_ttl)
        for name in ("refresh_ahead", "jitter"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be a fraction below 1, not {getattr(self, name)!r}")
        _check_max_stale("max_stale", self.max_stale)
        self._normalise("ttl_overrides", _check_number)
        self._normalise("max_stale_overrides", _check_max_stale)
        self._normalise("nameserver_overrides", _nameservers)
        self._normalise("srv", _hostname)
        self._normalise("static_addresses", _static_addresses)
        object.__setattr__(self, "nameservers", _nameservers("nameservers", self.nameservers))
        if self.search is not None:
            domains = _strings("search", self.search)
            object.__setattr__(self, "search", tuple(_hostname("search", one) for one in domains))

    def _normalise(self, name: str, check: Callable[[str, object], object]) -> None:
        """Key a mapping by normalised hostnames, and check and freeze its values."""
        given: Mapping[str, object] = getattr(self, name)
        if not isinstance(given, Mapping):
            raise ValueError(f"{name} must map hostnames to values, not be {given!r}")
        checked: dict[str, object] = {}
        for key, value in given.items():
            hostname = _key(_hostname(name, key))
            if hostname in checked:
                raise ValueError(f"{name}: {hostname!r} appears twice, in two spellings")
            checked[hostname] = check(f"{name}[{key!r}]", value)
        object.__setattr__(self, name, MappingProxyType(checked))

    def ttl_override_for(self, hostname: str) -> float | None:
        """The configured lifetime of answers for one name, if it has one (rule 1)."""
        return self.ttl_overrides.get(_key(hostname))

    def static_addresses_for(self, hostname: str) -> tuple[str, ...]:
        """The addresses for emergencies of one name (rule 9)."""
        return self.static_addresses.get(_key(hostname), ())

    def nameservers_for(self, hostname: str) -> tuple[str, ...]:
        """The custom nameservers for one name; empty means those of the system."""
        return self.nameserver_overrides.get(_key(hostname), self.nameservers)

    def srv_for(self, hostname: str) -> str | None:
        """The SRV name to look up instead of one name, if there is one."""
        return self.srv.get(_key(hostname))

    def max_stale_for(self, hostname: str) -> float:
        """The maximum age of an answer for one name while DNS fails (rule 6)."""
        return self.max_stale_overrides.get(_key(hostname), self.max_stale)


def _key(hostname: str) -> str:
    """The key of a name: settings apply whether or not it is written with a final dot."""
    return hostname.removesuffix(".")


def _check_number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, not {value!r}")
    if not 0 <= value < math.inf:  # NaN is not either; a large int is no float
        raise ValueError(f"{name} must not be negative or infinite, not {value!r}")
    if value > LONGEST:
        raise ValueError(f"{name} must be at most {LONGEST:.0f} (10 years), not {value!r}")
    return value


def _check_max_stale(name: str, value: object) -> float:
    if isinstance(value, int | float) and value > HARD_MAX_STALE:
        raise ValueError(f"{name} must be at most {HARD_MAX_STALE:.0f} s (3 days), not {value!r}")
    return _check_number(name, value)


def _hostname(name: str, value: object) -> str:
    """A key or item that must be a hostname and nothing more, normalised."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: {value!r} is not a hostname")
    try:
        target = Target.parse(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if target.literal is not None or target.text != target.host_text:
        raise ValueError(f"{name}: {shown(target.text)!r} is not a hostname")
    return target.hostname


def _strings(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} must be a list of strings, not {value!r}")
    return tuple(value)


def _static_addresses(name: str, value: object) -> tuple[str, ...]:
    addresses = _strings(name, value)
    if not addresses:
        raise ValueError(f"{name} must contain at least one address")
    canonical = []
    for address in addresses:
        parsed = parse_address(address)
        if parsed is None:
            raise ValueError(
                f"{name}: {shown(address)!r} is not an IP address in its usual form "
                "(10.0.1.221, fd00::1)"
            )
        canonical.append(parsed)
    return tuple(canonical)


def _nameservers(name: str, value: object) -> tuple[str, ...]:
    servers = _strings(name, value)
    for server in servers:
        try:
            split_nameserver(server)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return servers


def split_nameserver(server: str) -> tuple[str, int]:
    """Split ``"10.0.0.2"``, ``"10.0.0.2:8600"`` or ``"[fd00::1]:53"`` into address and port.

    :raises ValueError: it is not a nameserver; the error quotes it.
    """
    try:
        target = Target.parse(server)
    except ValueError as error:
        raise ValueError(f"{shown(server)!r} is not a nameserver: {error}") from None
    if target.literal is None or "://" in server:
        raise ValueError(
            f"{shown(server)!r} is not a nameserver: give an IP address, with a port if it is not "
            "53"
        )
    return target.literal, target.port or 53
