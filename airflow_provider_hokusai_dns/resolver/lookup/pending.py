"""Lookups of any kind that are under way, which a caller drives. Imports no DNS code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from airflow_provider_hokusai_dns.resolver.errors import LookupFailed
from airflow_provider_hokusai_dns.resolver.model import Answer, Attempt, Lookup


class PendingLookup:
    """A lookup in progress. Any thread may drive it, one at a time.

    A :class:`~..model.Lookup` with a method ``begin``, with the parameters of ``lookup``, returns
    one. The caller then drives it within its own time limit, and passes it on to a thread.
    """

    #: Whether :meth:`run` keeps to the seconds that it is given.
    can_be_driven = True

    def __init__(self, outcome: Answer | LookupFailed | None = None) -> None:
        #: Whether to go on to further sources where DNS says that it cannot answer; see
        #: :meth:`~..model.Lookup.lookup`. May be set while the lookup is under way.
        self.thorough = True
        #: Whether the outcome is without those further sources.
        self.left_out = False
        self.outcome = outcome

    def run(self, seconds: float) -> bool:
        """Drive the lookup on this thread; returns whether there is an outcome."""
        return self.outcome is not None

    def run_to_outcome(self, seconds: float) -> Answer:
        """Drive the lookup on this thread to its outcome, and close everything.

        :param seconds: at least its timeout.
        :raises LookupFailed: the lookup failed.
        """
        with contextlib.closing(self):
            self.run(seconds)
        if isinstance(self.outcome, Answer):
            return self.outcome
        assert self.outcome is not None
        raise self.outcome

    def go_on(self, take: Callable[[Answer], None]) -> None:
        """Wait, on this thread, for replies still open at the outcome; then close everything.

        These may be a late family, DNS after another source, or another source after the timeout.

        :param take: called with each better answer, perhaps on another thread and much later.
        """
        self.close()

    def is_over(self) -> bool:
        """Whether nothing more can come, so that :meth:`go_on` returns at once."""
        return True

    def attempts(self) -> list[Attempt]:
        """The queries so far, and their results."""
        return []

    def close(self) -> None:
        """Close what is open."""


def begin(
    lookup: Lookup, hostname: str, *, timeout: float, hint: str | None, thorough: bool
) -> PendingLookup:
    """Start a lookup: as its own pending lookup if it has one, else as one blocking call."""
    own = getattr(lookup, "begin", None)
    if own is not None:
        return own(hostname, timeout=timeout, hint=hint, thorough=thorough)  # type: ignore[no-any-return]
    return _OneCall(
        lambda: lookup.lookup(hostname, timeout=timeout, hint=hint, thorough=thorough), thorough
    )


class _OneCall(PendingLookup):
    """A lookup that cannot be driven: one call, which blocks without a time limit."""

    can_be_driven = False

    def __init__(self, call: Callable[[], Answer], thorough: bool) -> None:
        super().__init__()
        self.left_out = not thorough
        self._call = call

    def run(self, seconds: float) -> bool:
        self.outcome = self._call()
        return True
