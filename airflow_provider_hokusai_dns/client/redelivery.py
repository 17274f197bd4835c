"""Send a batch again when what failed was its way to the server, and not the batch.

MLflow's client repeats a request that finds no server or gets a 5xx. It does not repeat one whose
answer broke off or stopped in the body, as when a server is stopped in that moment, nor one that
met a full connection pool in MLflow's database layer, which MLflow answers with 400, nor one that
read the environment in the moment in which MLflow's telemetry took its variable out. Sending a
batch twice is safe: MLflow's stores take the same metric, parameter or tag a second time without
effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Sendings after the first. Where the server is away, each waits for it as patiently as the pin.
_AGAIN = 5
_MAX_PAUSE = 5.0
#: What SQLAlchemy says when no connection comes free; MLflow passes the text on, and no code.
_POOL_IS_FULL = "QueuePool limit of size"
#: The KeyError of a thread that walks over ``os.environ`` (requests does, for proxies) while the
#: telemetry thread changes it; MLflow passes this text on, too.
_ENVIRONMENT_CHANGED = "_MLFLOW_TELEMETRY_SESSION_ID"


def deliver(send: Callable[[], T], *, pause: float = 0.2) -> T:
    """Call ``send``, and again with growing, random pauses while only the way was at fault.

    :param pause: seconds; where the pauses begin.
    :raises Exception: what ``send`` raised last.
    """
    import tenacity

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(was_on_the_way),
        stop=tenacity.stop_after_attempt(1 + _AGAIN),
        wait=tenacity.wait_random_exponential(multiplier=pause, max=_MAX_PAUSE),
        reraise=True,
    )(send)


def was_on_the_way(error: BaseException) -> bool:
    """Whether an error of MLflow's client leaves open that the same batch is taken next time."""
    from requests.exceptions import ChunkedEncodingError, ConnectionError
    from urllib3.exceptions import ReadTimeoutError

    # MLflow raises its own exception while it handles that of requests, without a code.
    cause = error.__context__
    if isinstance(cause, ConnectionError) and cause.args:
        return isinstance(cause.args[0], ReadTimeoutError)  # the answer had begun, and stopped
    text = str(error)
    return (
        isinstance(cause, ChunkedEncodingError)
        or _POOL_IS_FULL in text
        or _ENVIRONMENT_CHANGED in text
    )
