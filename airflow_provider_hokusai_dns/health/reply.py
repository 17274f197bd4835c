"""The raw answer to one request of a probe, and whether it is one of MLflow's."""

from __future__ import annotations

import json
import re
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
#: What a check with credentials lists: the field of the answer.
_LISTED = {"tracking": "experiments", "registry": "registered_models"}


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


#: Nothing accepted a connection.
NO_CONNECTION = frozenset(
    {ReplyFailure.REFUSED, ReplyFailure.CONNECT_TIMEOUT, ReplyFailure.NETWORK}
)


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

    @property
    def looks_like_mlflow(self) -> bool:
        """Whether an answer without credentials is typical of MLflow.

        ``/health`` returns just OK, as many servers do; the other two identify MLflow.
        """
        if self.failure is not None:
            return False
        if self.check != "health" and self.status == 401:
            return 'realm="mlflow"' in self.challenge
        if self.status != 200:
            return False
        text = self.body.strip()
        if self.check == "health":
            return text == b"OK"
        if self.check == "server_info":
            return "store_type" in (self.document or {})
        parts = text.split(b".")
        return len(text) < 40 and len(parts) >= 3 and all(part.isdigit() for part in parts[:2])

    @property
    def is_listing(self) -> bool:
        """Whether an answer with credentials is as expected of MLflow.

        Of one that is too long only its beginning was read: an object may have any number of tags.
        """
        if self.status != 200 or self.check not in _LISTED:
            return False
        listed = _LISTED[self.check]
        if self.failure is ReplyFailure.BODY_TOO_LARGE:
            return re.match(rb'\s*{\s*"%s"\s*:' % listed.encode(), self.body) is not None
        document = self.document if self.failure is None else None
        return document is not None and document.keys() <= {listed, "next_page_token"}
