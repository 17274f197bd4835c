"""Where an address came from and how long it is served, in words for logs, errors and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.resolver.model import Resolution, Source

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.config import ResolverConfig

#: After "from": which source gave it.
ORIGINS = {
    Source.LITERAL: "the connection itself",
    Source.HOSTS: "the hosts file",
    Source.CACHE: "memory",
    Source.DNS: "DNS",
    Source.SYSTEM: "the system's own lookup",
    Source.STALE: "memory",
    Source.STORE: "the shared Variable",
    Source.STATIC: "the static address",
}
#: An address that is not fresh, at the start of a sentence after one about the name.
ADDRESSES = {
    Source.STALE: "Its stale address",
    Source.STORE: "Its stored address",
    Source.STATIC: "The static address",
}
#: Why a source that is as good as DNS was chosen.
REASONS = {
    Source.LITERAL: "it is an address itself",
    Source.HOSTS: "the hosts file has it, and that goes before DNS",
    Source.CACHE: "DNS answered a moment ago",
    Source.DNS: "DNS answered",
    Source.SYSTEM: "the system's own lookup answered, and the nameservers gave no address",
}


def is_limited_by_no_such_name(found: Resolution, max_stale: float) -> bool:
    """Whether a stale answer is served for less than its maximum age (policy rules 6 and 7).

    The latest cause does not tell: no later failure extends the limit of rule 7 again.

    :param max_stale: seconds of age, by rule 6.
    """
    if found.resolved_at is None or found.stale_until is None:
        return False
    served = found.stale_until - found.resolved_at
    return served.total_seconds() < max_stale - 1  # timestamps are rounded on their way


def stale_limit(found: Resolution, config: ResolverConfig) -> str:
    """For how long a stale answer is served: ``900 s after the name went away``."""
    max_stale = config.max_stale_for(found.hostname)
    if is_limited_by_no_such_name(found, max_stale):
        return f"{config.max_stale_no_name:.0f} s after the name went away"
    return f"{max_stale:.0f} s of age"
