"""Lookups of any kind as searches; without what it takes to ask DNS, which not all of them do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver.model import Answer, Cause, Search

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.model import Lookup


def begin(
    lookup: Lookup, hostname: str, *, timeout: float, hint: str | None, thorough: bool
) -> Search:
    """Begin a lookup: as a search of its own where it makes one, else as one call that blocks."""
    own = getattr(lookup, "begin", None)
    if own is not None:
        return own(hostname, timeout=timeout, hint=hint, thorough=thorough)  # type: ignore[no-any-return]
    return _OneCall(
        lambda: lookup.lookup(hostname, timeout=timeout, hint=hint, thorough=thorough), thorough
    )


class Known(Search):
    """A search that is over before it begins."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.outcome = answer


class _OneCall(Search):
    """A lookup that cannot be driven: one call, which blocks for as long as it likes."""

    can_be_driven = False

    def __init__(self, call: Callable[[], Answer], thorough: bool) -> None:
        super().__init__()
        self.left_out = not thorough
        self._call = call

    def run(self, seconds: float) -> bool:
        del seconds
        try:
            self.outcome = self._call()
        except LookupFailed as failed:
            self.outcome = failed
        except Exception as error:
            self.outcome = LookupFailed(Cause.MALFORMED, f"{type(error).__name__}: {error}")
        return True
