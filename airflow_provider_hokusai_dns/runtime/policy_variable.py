"""The Variable that changes the policy of a running fleet; see ``docs/settings.md``.

A process reads ``airflow.cfg`` once. This Variable is read again while the process runs, so a
triggerer and an API server follow it without a restart.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from airflow_provider_hokusai_dns.config import settings
from airflow_provider_hokusai_dns.config.errors import SettingError
from airflow_provider_hokusai_dns.config.fields import checked, did_you_mean
from airflow_provider_hokusai_dns.resolver.target import quoted
from airflow_provider_hokusai_dns.store.record import BrokenVariableError, load_object

KEY = "hokusai_dns_policy"
_WHERE = f"Variable {KEY!r}"
_VERSION = 1
#: Seconds between two reads in one process.
_EVERY = 15.0
#: Reads in a row that find no Variable before it counts as deleted: Airflow also reports a Variable
#: as missing if it cannot read it right now.
_MISSES = 2


def parse_policy(text: str) -> dict[str, float]:
    """The numbers of the policy that the Variable sets.

    :raises SettingError: a key is wrong, and the error names it; the whole text is then rejected.
    """
    try:
        values = load_object(text)
    except BrokenVariableError as error:
        raise SettingError(_WHERE, "text", str(error)) from None
    version = values.pop("version", _VERSION)
    if isinstance(version, bool) or version != _VERSION:
        raise SettingError(_WHERE, "version", f"it must be {_VERSION}")
    known = settings.policy_numbers()
    for name in values:
        if name not in known:
            # Only the name: the value of an unknown key may be a secret.
            raise SettingError(
                _WHERE,
                quoted(name, 60),
                f"it cannot be set here. {did_you_mean(name, known)}Known are {', '.join(known)}",
            )
    return {name: checked(_WHERE, name, known[name], value) for name, value in values.items()}


def _check_with_settings(values: Mapping[str, float]) -> None:
    """Check that numbers do not contradict the settings that they do not replace."""
    try:
        settings.resolver_config(values)
    except SettingError as error:
        try:
            settings.resolver_config()
        except SettingError:
            return  # the settings themselves are wrong; that is reported where they are used
        raise SettingError(_WHERE, error.field, error.reason) from None


@dataclass
class PolicyVariable:
    """The policy of the Variable that this process accepted last.

    Only :func:`~.runtime.follow_policy` changes it.

    :param values: the numbers in force; empty if there is no Variable.
    :param problem: why the current text is rejected; ``None`` if it is in force.
    """

    values: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    problem: str | None = None
    _read_at: float = float("-inf")
    _misses: int = 0

    def claim_read(self) -> bool:
        """Claim the next read if it is due; usually true for one caller only."""
        now = time.monotonic()
        if now - self._read_at < _EVERY:
            return False
        self._read_at = now
        return True

    def take(self, text: str | None) -> None:
        """Accept a whole text, or reject it and keep the numbers in force.

        :param text: ``None`` if Airflow returned none.
        """
        if text is None:
            self._misses += 1
            if self._misses >= _MISSES:
                self.values, self.problem = MappingProxyType({}), None
            return
        self._misses = 0
        try:
            values = parse_policy(text)
            _check_with_settings(values)
        except SettingError as error:
            self.problem = str(error)
        else:
            self.values, self.problem = MappingProxyType(values), None
