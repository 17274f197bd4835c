"""The paths of before the packages ``health`` and ``client``, for code that still imports them."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_PACKAGE = "airflow_provider_hokusai_dns"
#: By former module: the present module of each name, and the present name where that is another.
_MOVED = {
    "auth": {"ConnectionAuthProvider": "client.auth"},
    "breaker": {
        "Attempt": "health.breaker:Call",
        "BreakerOpenError": "exceptions",
        "BreakerState": "health.breaker",
        "BreakerStatus": "health.breaker",
        "CircuitBreaker": "health.breaker",
        "breaker_for": "health.breaker",
    },
    "run": {"LostDataError": "exceptions", "RunEndError": "exceptions"},
    "server": {"Credentials": "server", "MLflowServer": "server", "StaleOverHTTP": "server"},
    "verdict": {
        "State": "health.verdict",
        "Verdict": "health.verdict",
        "VerdictDict": "health.verdict",
    },
}


class _Former(ModuleType):
    def __getattr__(self, name: str) -> Any:
        moved = _MOVED[self.__name__.rpartition(".")[2]]
        if name not in moved:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        module, _, present = moved[name].partition(":")
        return getattr(import_module(f"{_PACKAGE}.{module}"), present or name)


for _name in _MOVED:
    sys.modules[f"{__name__}.{_name}"] = _Former(f"{__name__}.{_name}")
