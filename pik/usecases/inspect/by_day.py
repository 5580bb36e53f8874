"""Rows of deliveries ordered by event time: day by day, so that a limit stops the reading and memory is bounded."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, groupby, islice
from typing import Any, TypeVar

from pik.ports.raw import Raw
from pik.rawlog.frames import Bound, Found
from pik.runtime import external_sort as ordering
from pik.runtime.external_sort import sort_bounded

Item = TypeVar("Item")


def ordered_by_day(
    raw: Raw,
    found: Generator[Found, None, None],
    rows: Callable[[Iterable[Found]], Iterable[Item]],
    key: Callable[[Item], Any],
    limit: int | None,
    bound: Bound,
) -> Iterator[Item]:
    """The rows of the deliveries `found`, which come day by day, ordered by a key that begins with event time and id.

    With a limit only the first so many: only the days that hold them are read, and the beginning of the next one.
    `bound` is the one that the deliveries are read with.
    """
    left = limit
    with closing(found):
        for day, of_day in groupby(found, key=lambda one: one.segment.day):
            if left is None:
                yield from _sorted(raw, iter(rows(of_day)), key)
                continue
            first = _smallest(rows(of_day), key, left, partial(bound.lower, day))
            yield from first
            left -= len(first)
            if not left:
                return


def _sorted(raw: Raw, items: Iterator[Item], key: Callable[[Item], Any]) -> Iterator[Item]:
    """The items in order. Few days have so many that it takes a directory for temporary files."""
    held = list(islice(items, ordering.RUN))
    if len(held) < ordering.RUN:
        yield from sorted(held, key=key)
        return
    with raw.scratch() as scratch:
        yield from sort_bounded(chain(held, items), key, scratch)


def _smallest(
    items: Iterable[Item], key: Callable[[Item], Any], count: int, tell: Callable[[int, str], None]
) -> list[Item]:
    """The `count` smallest, in order. `tell` gets the time and the id after which no other item can be one of them."""
    kept: list[Item] = []
    for item in items:
        kept.append(item)
        if len(kept) >= 2 * count + _MORE:
            kept = heapq.nsmallest(count, kept, key=key)
            tell(*key(kept[-1])[:2])
    return heapq.nsmallest(count, kept, key=key)


_MORE = 100
