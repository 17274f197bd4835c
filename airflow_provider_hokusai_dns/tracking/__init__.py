"""The paths of before the packages ``health`` and ``client``, for code that still imports them."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

#: By former module: where its public names are now.
_MOVED = {
    "auth": ("client.auth",),
    "breaker": ("health.breaker", "exceptions"),
    "run": ("exceptions",),
    "server": ("config.server",),
    "verdict": ("health.verdict",),
}
_RENAMED = {"Attempt": "Call"}


class _Former(ModuleType):
    def __getattr__(self, name: str) -> Any:
        for present in _MOVED[self.__name__.rpartition(".")[2]]:
            module = import_module(f"airflow_provider_hokusai_dns.{present}")
            if hasattr(module, _RENAMED.get(name, name)):
                return getattr(module, _RENAMED.get(name, name))
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


for _name in _MOVED:
    sys.modules[f"{__name__}.{_name}"] = _Former(f"{__name__}.{_name}")
