"""The errors of lookups, and the base of all errors with fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.resolver.model import Attempt, Cause


class PicklableError(Exception):
    """An error that is unpickled from its fields, which are named like its arguments.

    By default an exception pickles its message as its only argument, and unpickling fails.
    """

    def __reduce__(self) -> tuple[object, ...]:
        code = type(self).__init__.__code__
        names = code.co_varnames[1 : code.co_argcount]
        return (type(self), tuple(getattr(self, name) for name in names))


class DNSResolutionError(PicklableError):
    """There is no address to serve for a hostname.

    :param hostname: the name, without port or path.
    :param cause: why the live lookup failed.
    :param tried: the sources asked, in order; ends with the store and the static address.
    :param is_known: whether an address is known whose limit has passed (policy rules 6 and 7).
    :param is_unread: whether the shared store could not be read: it may have an address.
    """

    def __init__(
        self,
        hostname: str,
        cause: Cause,
        tried: Sequence[Attempt] = (),
        detail: str = "",
        is_known: bool = False,
        is_unread: bool = False,
    ) -> None:
        self.hostname = hostname
        self.cause = cause
        self.tried = tuple(tried)
        self.detail = detail
        self.is_known = is_known
        self.is_unread = is_unread
        steps = "; ".join(str(step) for step in self.tried) or "nothing was asked"
        super().__init__(
            f"{hostname!r} cannot be resolved ({cause.value}{': ' + detail if detail else ''}), "
            f"and there is no other address to serve. Tried: {steps}."
        )


class StoreUnreadableError(Exception):
    """The shared store could not be read; it has logged why."""


class StoreOverdue(StoreUnreadableError):
    """The shared store did not answer in time; its answer may be there when it is asked again."""


class LookupFailed(PicklableError):
    """A live lookup returned no address.

    :param cause: why, for programs.
    :param detail: one sentence for people.
    :param tried: the sources asked, in order.
    """

    def __init__(self, cause: Cause, detail: str = "", tried: Sequence[Attempt] = ()) -> None:
        super().__init__(detail or cause.value)
        self.cause = cause
        self.detail = detail or cause.value
        self.tried = tuple(tried)
