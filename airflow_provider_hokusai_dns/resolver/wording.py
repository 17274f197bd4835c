"""Where an address came from and how long it is served, in words for logs, errors and tables."""

from __future__ import annotations

from airflow_provider_hokusai_dns.resolver.model import Cause, Resolution, Source

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
    Source.CACHE: "it was looked up a moment ago",
    Source.DNS: "DNS answered",
    Source.SYSTEM: "the system's own lookup answered, and the nameservers gave no address",
}


def what_to_check(cause: Cause | None, *, is_known: bool) -> str:
    """What to check while DNS returns no address: a name that was answered is no typo.

    :param cause: why DNS returns no address; ``None`` while the lookup is under way.
    :param is_known: whether an address is remembered.
    """
    if cause is None or not cause.says_no_such_name:
        return "Check DNS"
    if is_known:
        return "Check whether the server behind the name is running, then check DNS"
    return "Check the name for a typo, then check DNS"


def what_is_remembered(*, is_known: bool, is_unread: bool) -> str:
    """Why no other address is served while DNS returns none.

    :param is_known: whether an address is remembered.
    :param is_unread: whether the shared store could not be read.
    """
    if is_unread:
        return "the stored one could not be read"
    return "the one that is remembered may no longer be used" if is_known else "none is remembered"


def stale_limit_in_words(found: Resolution) -> str:
    """For how long a stale answer is served: ``900 s after the name went away``."""
    limit = found.stale_limit
    if limit is None:
        return "no limit"
    return f"{limit.seconds:.0f} s {'after the name went away' if limit.no_such_name else 'of age'}"
