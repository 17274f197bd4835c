"""The raw answer to one request of a probe, as a value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: What a probe checks by default, and all that it can check.
DEFAULT_CHECKS = ("dns", "tracking", "registry")
ALL_CHECKS = (*DEFAULT_CHECKS, "artifact")
#: The checks that are sent without credentials, in this order, and their paths.
OPEN_CHECKS = {
    "health": "/health",
    "version": "/version",
    "server_info": "/api/3.0/mlflow/server-info",
}


class ReplyFailure(StrEnum):
    """Why a request got no complete answer."""

    REFUSED = "refused"
    CONNECT_TIMEOUT = "connect_timeout"
    NETWORK = "network"
    TIMEOUT = "timeout"
    BROKEN_OFF = "broken_off"
    PROXY_REFUSED = "proxy_refused"
    NOT_HTTP = "not_http"
    BODY_TOO_LARGE = "body_too_large"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NAME = "certificate_name"
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    TLS = "tls"
    TLS_FILE = "tls_file"


@dataclass(frozen=True, slots=True)
class Reply:
    """The raw answer to one request of a probe.

    :param check: ``health``, ``version``, ``server_info``, ``tracking``, ``registry`` or
        ``artifact``; the first three go without credentials.
    :param status: the HTTP status, 0 if there was none.
    :param body: the part of it that a probe reads.
    :param challenge: the ``WWW-Authenticate`` header.
    :param failure: why there is no complete answer, or ``None``.
    :param detail: more about the failure, for people; never a secret.
    """

    check: str
    status: int = 0
    body: bytes = b""
    location: str = ""
    challenge: str = ""
    milliseconds: float = 0.0
    failure: ReplyFailure | None = None
    detail: str = ""

    @property
    def document(self) -> dict[str, Any] | None:
        """The body as a JSON object, or ``None`` if it is not one."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):  # a foreign server may nest without limit
            return None
        return value if isinstance(value, dict) else None
