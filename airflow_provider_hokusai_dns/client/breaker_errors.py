"""Which errors of MLflow's client count as failures for the breaker."""

from __future__ import annotations

from airflow_provider_hokusai_dns.client.retries import is_switched_off
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError


def says_down(error: BaseException) -> bool:
    """Whether no server answered, or the answer was a 5xx, except of a part that is turned off.

    A 4xx is an answer, and an error that MLflow raises before it sends a request means nothing.
    """
    if isinstance(error, DNSResolutionError | ConnectionError):
        return True
    if is_switched_off(str(error)):
        return False
    from mlflow.exceptions import MlflowException, RestException
    from requests.exceptions import HTTPError, RequestException, RetryError

    # Raised for an answer that was not JSON, such as a load balancer's: from 3.18 on, the class of
    # the error says so; before, the error of requests is its cause.
    is_of_an_answer = str(getattr(error, "error_class", "")).startswith("CP_")
    if isinstance(error, RestException) or (isinstance(error, MlflowException) and is_of_an_answer):
        return int(error.get_http_status_code()) >= 500  # type: ignore[no-untyped-call]
    # MLflow raises its own exception while it handles that of requests, without a code.
    cause = error if isinstance(error, RequestException) else error.__cause__ or error.__context__
    if isinstance(cause, HTTPError):
        return cause.response is not None and cause.response.status_code >= 500
    if isinstance(cause, RetryError):
        return "too many 4" not in str(cause)  # urllib3 gives the status as text only
    # A URL or a header that cannot be is a ValueError too.
    return isinstance(cause, RequestException) and not isinstance(cause, ValueError)
