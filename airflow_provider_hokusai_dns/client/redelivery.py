"""Send a batch again when the process, and not the server or the batch, was at fault.

What breaks on the way is sent again by :mod:`~.transport`. Before a request gets there,
``requests`` walks over ``os.environ`` for proxies, and fails when MLflow's telemetry thread takes
its variable out in that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_AGAIN = 5
#: The KeyError of a thread that walks over ``os.environ``; MLflow passes its text on.
_ENVIRONMENT_CHANGED = "_MLFLOW_TELEMETRY_SESSION_ID"


def deliver(send: Callable[[], T]) -> T:
    """Call ``send``, and again while the environment was changed under it.

    :raises Exception: what ``send`` raised last.
    """
    for _ in range(_AGAIN):
        try:
            return send()
        except Exception as error:
            if _ENVIRONMENT_CHANGED not in str(error):
                raise
    return send()
