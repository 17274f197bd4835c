"""Reads the resolver's policy from Airflow's configuration and the environment.

The settings become a :class:`~.resolver.config.ResolverConfig`, which is validated as a whole
before it is used.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from airflow_provider_hokusai_dns.config import fields
from airflow_provider_hokusai_dns.config.errors import SettingError
from airflow_provider_hokusai_dns.config.overrides import original_value
from airflow_provider_hokusai_dns.resolver.config import ResolverConfig
from airflow_provider_hokusai_dns.resolver.target import Target, quoted

#: The connection that is used by default.
DEFAULT_CONN_ID = "mlflow_default"
#: The types of a connection to MLflow.
CONN_TYPES = ("mlflow", "http", "https")
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
#: The section of ``airflow.cfg``; ``AIRFLOW__HOKUSAI_DNS__...`` in the environment.
SECTION = "hokusai_dns"
#: Environment variables of the former system, which override the section.
_ENVIRONMENT = {"cache_ttl": "DNS_CACHE_TTL", "timeout": "DNS_TIMEOUT"}
_FALLBACK_VARIABLE = "MLFLOW_FALLBACK_IP"
_SECTION_NAME = f"section [{SECTION}]"
_LISTS: dict[str, Callable[[object], Any]] = {
    "nameservers": fields.read_nameservers,
    "search": fields.read_items,
}
#: The options that are not part of the policy, and their readers.
OTHER_OPTIONS: dict[str, Callable[[object], Any]] = {
    "connections": fields.read_items,
    "hostnames": fields.read_hostnames,
    "look_every": fields.read_seconds_above_zero,
    "metrics_for_anyone": fields.read_flag,
    "relay_keep": fields.read_count,
}


def option(name: str) -> str | None:
    """One option of section ``[hokusai_dns]``; ``None`` if it is unset or empty."""
    from airflow.providers.common.compat.sdk import conf

    value = conf.get(SECTION, name, fallback=None)
    return value.strip() or None if isinstance(value, str) else None


def listed_connections() -> tuple[str, ...]:
    """The connections that the refresh DAG refreshes and the health endpoints check by default."""
    listed: tuple[str, ...] = _other("connections", DEFAULT_CONN_ID)
    return listed


def listed_hostnames() -> tuple[str, ...]:
    """Further hostnames: refreshed by the refresh DAG by default, and looked up early by processes.

    :raises SettingError: one is not a hostname; the error names it.
    """
    listed: tuple[str, ...] = _other("hostnames", "")
    return listed


def relay_keep() -> int:
    """Bytes of the temporary files in which a relay keeps artifacts until they are delivered.

    :raises SettingError: it is not a number.
    """
    megabytes: int = _other("relay_keep", 1024)
    return megabytes * 2**20


def _other(name: str, default: object) -> Any:
    """An option that is not part of the policy."""
    return fields.checked(_SECTION_NAME, name, OTHER_OPTIONS[name], option(name) or default)


def wrong_options() -> list[SettingError]:
    """What is wrong with options that no check reads: some tasks or processes fail by them."""
    found: list[SettingError] = []
    for name, read in OTHER_OPTIONS.items():
        try:
            if (raw := option(name)) is not None:
                fields.checked(_SECTION_NAME, name, read, raw)
        except SettingError as error:
            found.append(error)
    return found


def unknown_options() -> list[str]:
    """A sentence for each option that is set and that does not exist: Airflow accepts any name."""
    from airflow.providers.common.compat.sdk import conf

    known = (*OTHER_OPTIONS, *policy_options())
    prefix = f"AIRFLOW__{SECTION.upper()}__"
    set_here = [name.removeprefix(prefix) for name in os.environ if name.startswith(prefix)]
    in_file = conf.options(SECTION) if conf.has_section(SECTION) else []
    return [
        f"{where}{quoted(name, 60)} is ignored: there is no such option. "
        f"{fields.did_you_mean(name, names)}".rstrip()
        for where, given, names in (
            (f"environment, {prefix}: ", set_here, [name.upper() for name in known]),
            (f"{_SECTION_NAME}: ", in_file, known),
        )
        for name in given
        if name not in names
    ]


def policy_options() -> dict[str, Callable[[object], Any]]:
    """Every option of the section that sets one field of the policy, and its reader."""
    return _LISTS | policy_numbers()


def policy_numbers() -> dict[str, Callable[[object], Any]]:
    """The options that are numbers: those that the Variable ``hokusai_dns_policy`` may set.

    The others choose the DNS servers, which a user who may edit Variables must not do.
    """
    readers: dict[str, Callable[[object], Any]] = {
        item.name: fields.read_count if item.type == "int" else fields.read_seconds
        for item in dataclasses.fields(ResolverConfig)
        if item.type in ("float", "int")
    }
    return readers | {"timeout": fields.read_seconds_above_zero}  # with 0 no name would resolve


def fingerprint() -> tuple[str | None, ...]:
    """All inputs of :func:`resolver_config` that can change while a process runs.

    Airflow reads its file once, and the environment each time. Reading each option through Airflow
    takes milliseconds, which is too slow for every resolution.
    """
    return tuple(map(original_value, _CHANGEABLE))


def resolver_config(overrides: Mapping[str, float] = MappingProxyType({})) -> ResolverConfig:
    """The policy from the environment and the section, before any connection's settings.

    :param overrides: numbers that take precedence over both.
    :raises SettingError: a setting is wrong; the error names it and its value.
    """
    values: dict[str, Any] = dict(overrides)
    origin: dict[str, tuple[str, str]] = {name: ("overrides", name) for name in overrides}
    for name, read in policy_options().items():
        if name in overrides:
            continue
        variable = _ENVIRONMENT.get(name, "")
        raw = os.environ.get(variable, "").strip() if variable else ""
        origin[name] = ("environment", variable) if raw else (_SECTION_NAME, name)
        raw = raw or option(name) or ""
        if raw:
            values[name] = fields.checked(*origin[name], read, raw)
    # Read without a hostname too: a wrong value is an error before a connection asks for it.
    if (addresses := static_addresses()) and (hostname := _tracking_hostname()):
        values["static_addresses"] = {hostname: addresses}
    try:
        return ResolverConfig(**values)
    except ValueError as error:
        name = next((n for n in values if str(error).startswith((f"{n} ", f"{n}:"))), "")
        where, field = origin.get(name, (_SECTION_NAME, "options"))
        raise SettingError(where, field, f"{error}") from None


def static_addresses() -> tuple[str, ...]:
    """The addresses in ``MLFLOW_FALLBACK_IP``; empty if it is not set.

    They belong to one hostname: that of the connection in use, or else that of
    ``MLFLOW_TRACKING_URI``.

    :raises SettingError: it contains something that is not an address.
    """
    raw = os.environ.get(_FALLBACK_VARIABLE, "")
    return fields.checked("environment", _FALLBACK_VARIABLE, fields.read_addresses, raw)


def has_fallback() -> bool:
    """Whether ``MLFLOW_FALLBACK_IP`` is set, valid or not."""
    return bool(os.environ.get(_FALLBACK_VARIABLE, "").strip())


def _tracking_hostname() -> str | None:
    """The hostname in ``MLFLOW_TRACKING_URI``, if it has one."""
    try:
        target = Target.parse((original_value(TRACKING_VARIABLE) or "").strip())
    except ValueError:
        return None
    is_server = target.prefix.lower().startswith(("http://", "https://"))
    return target.hostname if is_server and target.literal is None else None


_CHANGEABLE = (
    *_ENVIRONMENT.values(),
    _FALLBACK_VARIABLE,
    TRACKING_VARIABLE,
    *(f"AIRFLOW__{SECTION.upper()}__{name.upper()}" for name in policy_options()),
)
