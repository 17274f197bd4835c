"""What the errors of MLflow's client say of the server: it is down, or it refuses."""

from __future__ import annotations

from airflow_provider_hokusai_dns.client.retries import Try, is_switched_off
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError


def says_down(error: BaseException) -> bool:
    """Whether no server answered, or the answer was a 5xx, except of a part that is turned off.

    A 4xx is an answer, and an error that MLflow raises before it sends a request means nothing.
    """
    if isinstance(error, DNSResolutionError | ConnectionError):
        return True
    if is_switched_off(str(error)):
        return False
    if (status := _status(error)) is not None:
        return status >= 500
    from requests.exceptions import HTTPError, RequestException, RetryError

    cause = _cause(error)
    if isinstance(cause, RetryError):
        return "too many 4" not in str(cause)  # urllib3 gives the status as text only
    # A URL or a header that cannot be is a ValueError too.
    return isinstance(cause, RequestException) and not isinstance(cause, ValueError | HTTPError)


def is_refusal(error: BaseException) -> bool:
    """Whether a server has answered that it will not accept the same request later either."""
    status = _status(error) or 0
    return status >= 400 and not Try(status, body=str(error).encode()).may_pass


def _status(error: BaseException) -> int | None:
    """The status of the answer that an error is about; ``None`` if it is about none."""
    from mlflow.exceptions import MlflowException, RestException
    from requests.exceptions import HTTPError

    # Raised for an answer that was not JSON, such as a load balancer's: from 3.18 on, the class of
    # the error says so; before, its text, or the error of requests is its cause.
    error_class = str(getattr(error, "error_class", ""))
    is_of_an_answer = error_class.startswith("CP_") or " failed with error code " in str(error)
    if isinstance(error, RestException) or (isinstance(error, MlflowException) and is_of_an_answer):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    cause = _cause(error)
    if isinstance(cause, HTTPError) and cause.response is not None:
        return int(cause.response.status_code)
    return None


def _cause(error: BaseException) -> BaseException | None:
    """The error of requests: MLflow raises its own while it handles that one, without a code."""
    from requests.exceptions import RequestException

    is_it = isinstance(error, RequestException)
    return error if is_it else error.__cause__ or error.__context__
