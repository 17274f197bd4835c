"""Old addresses of the hosts beside MLflow, where presigned artifacts live (``also_pin``).

A presigned URL is a credential of its own. Such a host cannot be asked whether it is the right one,
so over plain http only the author's choice and the age of the address can decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.tracking.probe import MAX_AGE_WITH_CREDENTIALS
from airflow_provider_hokusai_dns.tracking.server import StaleOverHTTP

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.model import Resolution
    from airflow_provider_hokusai_dns.tracking.server import MLflowServer

_HTTPS = 443


def vet_old_file_host(
    server: MLflowServer, resolution: Resolution, address: str, port: int
) -> str | None:
    """Whether an address that is not fresh may be used; ``None`` means that it may.

    On the port of https the certificate decides. Elsewhere ``checked`` allows what ``always`` does,
    up to the age at which credentials may go to an old address.

    :returns: ``None``, or a sentence why not.
    """
    if port == _HTTPS or server.allow_stale_over_http is StaleOverHTTP.ALWAYS:
        return None
    told = f"DNS gives no address for {resolution.hostname!r} now, and"
    if server.allow_stale_over_http is StaleOverHTTP.NEVER:
        return (
            f"{told} {server.named} does not allow the old one, {address}, over "
            "plain http (allow_stale_over_http is never): use https, or allow it with checked."
        )
    age = resolution.age()
    if age is not None and age > MAX_AGE_WITH_CREDENTIALS:
        return (
            f"{told} the old one, {address}, is {age:.0f} s old: over plain http no presigned URL "
            f"goes to an address older than {MAX_AGE_WITH_CREDENTIALS:.0f} s. Use https, or set "
            "allow_stale_over_http to always."
        )
    return None
