"""The words in which the little DNS server is told what to do, and says what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

#: Every name without a fault of its own.
ANY = "*"

#: What a garbled answer consists of: bytes, or a function of the right answer.
Payload: TypeAlias = bytes | Callable[[bytes], bytes]


class Fault(StrEnum):
    """What may go wrong with the answer for a name."""

    #: Nothing goes wrong: the records, as they were set.
    ANSWER = "answer"
    NO_SUCH_NAME = "no_such_name"
    NO_DATA = "no_data"
    SERVFAIL = "servfail"
    REFUSED = "refused"
    FORMERR = "formerr"
    #: No packet at all.
    SILENT = "silent"
    #: Only "truncated" over UDP; the whole answer over TCP.
    TRUNCATE = "truncate"
    #: The right answer under another message id, as a blind forger would send it.
    WRONG_ID = "wrong_id"
    #: Bytes that are no DNS message, under the right message id.
    GARBAGE = "garbage"
    #: The right question, but records of another name in the answer.
    OTHER_NAME = "other_name"
    #: An answer to a question that was not asked.
    OTHER_QUESTION = "other_question"
    #: Over TCP the connection is closed without an answer; over UDP it is silence.
    HANG_UP = "hang_up"


class Query(NamedTuple):
    """One question that arrived. The name is in lower case, without the final dot."""

    name: str
    rdtype: str
    transport: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one query.

    :param payload: the bytes to send, or ``None`` for silence.
    :param delay: seconds to wait before that.
    :param hang_up: close the connection instead.
    :param held: the query waits until its name is released.
    """

    payload: bytes | None = None
    delay: float = 0.0
    hang_up: bool = False
    held: bool = False


@dataclass(slots=True)
class Trouble:
    """The faults of one name and type, gone through in a circle; ``turn`` counts the queries."""

    pattern: tuple[Fault, ...]
    every: int = 1
    payload: Payload | None = None
    turn: int = 0

    def next(self) -> Fault:
        """The fault for the query at hand."""
        fault = self.pattern[self.turn // self.every % len(self.pattern)]
        self.turn += 1
        return fault
