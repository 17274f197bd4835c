"""The errors of calls to MLflow."""

from __future__ import annotations

from airflow_provider_hokusai_dns.resolver.errors import PicklableError


class MLflowUnreachableError(PicklableError, ConnectionError):
    """No address of MLflow accepts a connection.

    :param uri: the tracking URI, with the hostname.
    :param addresses: the addresses that were tried.
    """

    def __init__(self, uri: str, addresses: tuple[str, ...]) -> None:
        super().__init__(
            f"{uri} cannot be reached: nothing accepts a connection at {', '.join(addresses)}. Is "
            "MLflow running, and is the port right? A gate (MLflowHealthSensor) would have waited."
        )
        self.uri = uri
        self.addresses = addresses


class MLflowRestError(PicklableError, RuntimeError):
    """A call to the REST API failed.

    :param method: the HTTP method.
    :param path: the requested path, without the query.
    :param status: the HTTP status; 0 when there was no answer, 495 when TLS failed.
    :param code: MLflow's own ``error_code``, empty if there was none. In lower case it is ours:
        ``unresolved``, ``unreachable``, ``tls_error``, ``body_too_large``.
    :param reason: one sentence.
    :param retry_after: seconds that the answer asked to wait, at most 30; 0 if it did not.
    """

    def __init__(
        self, method: str, path: str, status: int, code: str, reason: str, retry_after: float = 0.0
    ) -> None:
        outcome = f"{status or 'no answer'} {code}".rstrip()
        super().__init__(f"{method} {path} failed ({outcome}): {reason}")
        self.method = method
        self.path = path
        self.status = status
        self.code = code
        self.reason = reason
        self.retry_after = retry_after

    @property
    def says_down(self) -> bool:
        """Whether this error means that MLflow is down; a 404 does not."""
        from airflow_provider_hokusai_dns.client.retries import is_switched_off

        return self.status == 0 or (self.status >= 500 and not is_switched_off(str(self)))


class MLflowRefusedError(PicklableError, RuntimeError):
    """MLflow cannot be used with this connection, and retrying will not help.

    :param sentence: what is wrong and what to do, as a gate says it.
    :param state: the state of the server.
    """

    def __init__(self, sentence: str, state: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.state = state
