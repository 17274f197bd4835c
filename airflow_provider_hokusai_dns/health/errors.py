"""The error of the circuit breaker."""

from __future__ import annotations

from airflow_provider_hokusai_dns.resolver.errors import PicklableError


class BreakerOpenError(PicklableError):
    """A call was refused because MLflow was down a moment ago.

    :param name: the server.
    :param reason: the last failure.
    :param retry_in: seconds until a call is allowed again.
    """

    def __init__(self, name: str, reason: str, retry_in: float) -> None:
        super().__init__(
            f"{name} is not called for another {retry_in:.0f} s, because it was down just now: "
            f"{reason}"
        )
        self.name = name
        self.reason = reason
        self.retry_in = retry_in
