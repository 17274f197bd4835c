"""The policy of this process, from its settings, its Variable and the connections in use."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_hokusai_dns.config import settings
from airflow_provider_hokusai_dns.config.errors import SettingError
from airflow_provider_hokusai_dns.config.server import MLflowServer, View
from airflow_provider_hokusai_dns.resolver import ResolverConfig
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.runtime.policy_variable import KEY, PolicyVariable


@dataclass
class Policy:
    """The policy before any connection's settings. For one thread at a time.

    :param log_lines: level, text and values of each line that the caller is to log.
    """

    log_lines: list[tuple[Any, ...]] = field(default_factory=list)
    variable: PolicyVariable = field(default_factory=PolicyVariable)
    _config: ResolverConfig | None = None
    #: The settings that it was built from; ``None`` to build it again.
    _fingerprint: tuple[str | None, ...] | None = None
    #: The numbers of the Variable that are part of it.
    _numbers: Mapping[str, float] = field(default_factory=dict)
    #: Why changed settings were rejected last.
    _rejected: str = ""
    #: The connection, and its one hostname, that ``MLFLOW_FALLBACK_IP`` belongs to.
    _fallback_owner: tuple[str, str] | None = None
    #: Hosts for which it was logged that they do not own it.
    _fallback_warned: set[str] = field(default_factory=set)

    def current(self) -> ResolverConfig:
        """The policy from the current settings; the same object until it changes.

        An invalid change is logged and rejected.

        :raises SettingError: a setting is wrong, and there is no earlier policy to keep.
        """
        fingerprint = settings.fingerprint()
        if self._config is not None and self._fingerprint == fingerprint:
            self._rejected = ""  # so that a change is logged again when it is invalid again
            return self._config
        numbers = self.variable.values
        try:
            config = settings.resolver_config(numbers)
            if self._fallback_owner is not None:  # the name of a connection in use goes before
                static = settings.static_addresses()
                owned = {self._fallback_owner[1]: static} if static else {}
                config = replace(config, static_addresses=owned)
        except ValueError as error:
            if self._config is None:
                raise
            if self._rejected != str(error):
                self._rejected = str(error)
                line = (
                    "The changed settings are invalid and not applied, the previous ones stay: %s"
                )
                self.log_lines.append((logging.ERROR, line, error))
            return self._config
        if self._config is None:
            unknown = settings.unknown_options()
            self.log_lines += [(logging.WARNING, "%s", line) for line in unknown]
        if config != self._config:
            self._config = config
        self._fingerprint, self._numbers, self._rejected = fingerprint, numbers, ""
        return self._config

    def take(self, text: str | None) -> None:
        """Apply the text of the Variable; one with an error is rejected as a whole, and logged.

        :param text: ``None`` if Airflow returned none.
        """
        variable = self.variable
        before = variable.values, variable.problem
        variable.take(text)
        if variable.problem is not None and variable.problem != before[1]:
            line = "The policy stays as it was, because the %s. Correct it under Admin, Variables"
            self.log_lines.append((logging.ERROR, line, variable.problem))
        if variable.values != before[0]:
            self._fingerprint = None
            with contextlib.suppress(SettingError):  # reported where a resolver is asked for
                self.current()
            if self._variable_is_applied:  # else the settings are invalid, as logged
                numbers = ", ".join(f"{name}={value:g}" for name, value in variable.values.items())
                line = "The policy changed by the Variable %s: %s"
                self.log_lines.append((logging.INFO, line, KEY, numbers or "back to the settings"))

    def status(self) -> dict[str, Any]:
        """What the Variable sets, and what is wrong with it, as plain values."""
        values, problem = self.variable.values, self.variable.problem
        if not self._variable_is_applied:
            values = self._numbers
            why = f"the settings are invalid ({self._rejected})"
            problem = problem or f"The change of Variable {KEY!r} is not applied: {why}"
        return {"variable": KEY, "values": dict(values), "problem": problem}

    @property
    def _variable_is_applied(self) -> bool:
        """Whether it has the numbers of the Variable, or has not been built yet."""
        return self._config is None or self._numbers == self.variable.values

    def own_fallback(self, server: MLflowServer) -> None:
        """Apply ``MLFLOW_FALLBACK_IP`` to the first connection that has no static addresses.

        Only to one whose name is resolved here. If the host of that connection changes, it applies
        to the new host. It never applies to a second host. A listed connection takes precedence
        over one that is not listed.
        """
        target = Target.parse(server.hostname)
        if target.literal is not None or server.proxy is not None or server.fallback_addresses:
            return
        hostname, conn_id, owner = target.hostname, server.conn_id, self._fallback_owner
        if owner is not None and owner[1] == hostname:
            return
        if (
            owner is None
            or owner[0] == conn_id
            or (_is_listed(conn_id) and not _is_listed(owner[0]))
        ):
            self._fallback_owner = (conn_id, hostname)
            self._fingerprint = None
        elif hostname not in self._fallback_warned and settings.has_fallback():
            self._fallback_warned.add(hostname)
            line = (
                "MLFLOW_FALLBACK_IP belongs to %r in this process and is not used for %r: put "
                "fallback_addresses on the connection %r instead"
            )
            self.log_lines.append((logging.WARNING, line, owner[1], hostname, conn_id))


def for_view(policy: ResolverConfig, view: View) -> ResolverConfig:
    """The policy, with the settings of a view applied."""
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
    return replace(policy, **own) if own else policy


def _is_listed(conn_id: str) -> bool:
    try:
        return settings.has_fallback() and conn_id in settings.listed_connections()
    except SettingError:
        return False
