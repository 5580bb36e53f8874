"""How hot the item collections of a table become: a model of what DynamoDB takes.

A partition takes 1,000 write units a second. DynamoDB splits a partition that is hot for a while, even within one item
collection, at a sort key. That helps where writes are spread over the sort keys. Where these rise, all writes go to
what is behind the last split, and where one item is written again and again, there is nothing to split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.aws.calls import Write

PARTITION = 1000
"""Write units a second that a partition takes."""


@dataclass(frozen=True)
class Heat:
    """What an item collection takes for each request."""

    writes: float
    units: float


def collections(writes: Iterable[Write], requests: int) -> dict[str, Heat]:
    """The collections that cannot be split, or of which too little is known, with the writes of so many requests, in
    their order."""
    by_pk: defaultdict[str, list[Write]] = defaultdict(list)
    for one in writes:
        by_pk[one.pk].append(one)
    return {
        pk: Heat(len(found) / requests, sum(one.units for one in found) / requests)
        for pk, found in by_pk.items()
        if not _is_spread(found)
    }


def _is_spread(writes: list[Write]) -> bool:
    """Whether most writes go somewhere between those before: of random sort keys, few are the greatest so far."""
    greatest, at_the_end = "", 0
    for one in writes:
        at_the_end += one.sk >= greatest
        greatest = max(greatest, one.sk)
    return at_the_end * 2 < len(writes)
