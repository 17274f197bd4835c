"""The order in which the endpoints of one name are tried. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, groupby, zip_longest
from typing import TypeAlias

from airflow_provider_hokusai_dns.resolver.model import Endpoint

#: Address and port, as ``endpoint[:2]``.
AddressAndPort: TypeAlias = tuple[str, int | None]
#: Against a weight of 0 beside others: "a very small chance of being selected".
_SLIGHT = 0.01
#: Irrational steps: turns spread evenly over a circle, without randomness.
_STEP, _STEP_WITHIN = 0.618034, 0.414214


def in_turn(endpoints: Sequence[Endpoint], turn: int) -> list[Endpoint]:
    """The endpoints by priority, and by weight within a priority: RFC 2782, without randomness.

    Over many turns each comes first in proportion to its weight.
    """
    ordered: list[Endpoint] = []
    by_priority = sorted(endpoints, key=lambda endpoint: endpoint.priority)
    for _, group in groupby(by_priority, key=lambda endpoint: endpoint.priority):
        left, place = list(group), turn * _STEP % 1.0
        while left:
            marks = list(accumulate(endpoint.weight or _SLIGHT for endpoint in left))
            index = bisect_right(marks, place * marks[-1], hi=len(left) - 1)
            ordered.append(left.pop(index))
            place = (place + _STEP_WITHIN) % 1.0
    return ordered


def is_weighted(endpoints: tuple[Endpoint, ...]) -> bool:
    """Whether priorities or weights determine the order."""
    return len({(one.priority, one.weight) for one in endpoints}) > 1


def in_order(
    endpoints: tuple[Endpoint, ...],
    penalties: dict[AddressAndPort, float],
    now: float,
    *,
    ipv6_first: bool,
    rotation: int = 0,
) -> tuple[Endpoint, ...]:
    """The endpoints in the order to try: rotated, families interleaved, losers at the back."""
    if len(endpoints) == 1:
        return endpoints
    if is_weighted(endpoints):
        order = in_turn(endpoints, rotation)
    else:
        turn = rotation % len(endpoints)
        rotated = endpoints[turn:] + endpoints[:turn]
        six = [endpoint for endpoint in rotated if ":" in endpoint.address]
        four = [endpoint for endpoint in rotated if ":" not in endpoint.address]
        first, second = (six, four) if ipv6_first else (four, six)
        order = [e for e in chain.from_iterable(zip_longest(first, second)) if e is not None]
    # sorted() is stable: the order stays, and the list never becomes empty (rule 13)
    return tuple(sorted(order, key=lambda e: penalties.get(e[:2], now) > now))
