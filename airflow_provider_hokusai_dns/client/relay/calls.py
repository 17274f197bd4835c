"""One call of a client: what its tries have shown so far, and what follows from that. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.client.relay.bodies import Body
from airflow_provider_hokusai_dns.client.relay.records import LostCall, run_id_in
from airflow_provider_hokusai_dns.client.routes import error_code

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.client.creates import Create
    from airflow_provider_hokusai_dns.client.relay.messages import Answer, Request
    from airflow_provider_hokusai_dns.client.routes import Route


@dataclass
class Call:
    """One call under way."""

    request: Request
    route: Route
    counts: bool = True  # for the task; the relay tidies up as well as it can
    tries: int = 0
    sent: int = 0  # tries that may have reached MLflow
    maybe_done: bool = False  # an earlier try may have been carried out
    signed_in_again: bool = False
    reason: str = ""
    create: Create | None = None

    def is_taken(self, answer: Answer) -> bool:
        """Whether it is refused as made before, and an earlier try may have done it."""
        return (
            self.create is not None
            and self.maybe_done
            and self.create.may_be_made(answer.status, error_code(answer.head))
        )

    @property
    def is_delivered_in_any_case(self) -> bool:
        """Whether to deliver it even after its client has died: a complete write, and data.

        An object that is made for data to come is of use to its client only.
        """
        incoming = self.request.incoming
        return (
            self.route.writes
            and (self.create is None or self.create.is_data)
            and (incoming is None or incoming.is_complete)
        )

    def lost(self, reason: str, *, permanent: bool = False) -> LostCall:
        """It, as one that did not arrive."""
        run_id = run_id_in(self.request.path, self.request.text())
        return LostCall(self.route.name, run_id, reason, permanent)

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two calls the same: an artifact its path, everything else its body too."""
        request = self.request
        if request.method == "PUT":
            return request.method, request.path, ""
        if isinstance(request.body, Body):
            return request.method, request.path, request.body.digest.hexdigest()
        content = request.body or b""
        if self.create is not None:
            content = content.replace(self.create.token.encode(), b"")
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        return request.method, request.path, digest
