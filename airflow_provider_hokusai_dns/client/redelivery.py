"""Send a batch again if the process, and not the server or the batch, caused the failure.

:mod:`~.transport` repeats requests that fail on the network. Before a request gets there,
``requests`` iterates over ``os.environ`` for proxies, and fails if MLflow's telemetry thread
removes its variable at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_AGAIN = 5
#: The KeyError of a thread that iterates over ``os.environ``; MLflow passes its text on.
_ENVIRONMENT_CHANGED = "_MLFLOW_TELEMETRY_SESSION_ID"


def deliver(send: Callable[[], T]) -> T:
    """Call ``send``, and again if the environment changed during the call.

    :raises Exception: the last exception of ``send``.
    """
    for _ in range(_AGAIN):
        try:
            return send()
        except Exception as error:
            if _ENVIRONMENT_CHANGED not in str(error):
                raise
    return send()
