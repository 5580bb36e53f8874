"""What is counted over a batch's deliveries, in bounded memory: lags, sources, reasons of rejection.

Each function adds the counts of a further part of the batch. The result does not depend on how the batch was cut into
parts, so that an ingest that was interrupted ends with the same counts as one that was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import repeat
from operator import floordiv
from typing import TypeVar

from pik.model.instant import SECOND

Name = TypeVar("Name")

EXACT_LAGS = 1000
"""Deliveries of a batch up to which lags are exact. Those of a larger one are cut to three significant digits."""

NAMES = 1000
"""Names (sources, reasons) of a batch that are counted one by one: the first that came."""

OTHERS = ""
"""Counts all other names together. No source and no reason is called so."""


def with_names(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """The counts with `more`, whose names stand in the order in which they came."""
    total = dict(counts)
    for name, count in more.items():
        known = name if name in total or len(total) - (OTHERS in total) < NAMES else OTHERS
        total[known] = total.get(known, 0) + count
    return total


def with_lags(counts: Mapping[int, int], more: Mapping[int, int]) -> dict[int, int]:
    """The counts with `more`."""
    total = Counter(counts)
    total.update(more)
    if are_exact(total) or not (are_exact(counts) or are_exact(more)):
        return dict(total)
    return _cut(total)


def are_exact(counts: Mapping[int, int]) -> bool:
    """Whether the lags are exact, not cut."""
    return sum(counts.values()) <= EXACT_LAGS


def count_lags(lags: Iterable[int]) -> dict[int, int]:
    """How many there are of each lag."""
    every = list(lags)
    if len(every) <= EXACT_LAGS:
        return dict(Counter(every))
    # From 10^5 s on a thousand seconds are fine enough, and make few distinct numbers out of many.
    coarse: Counter[int] = Counter()
    near = False
    for kiloseconds, count in Counter(map(floordiv, every, repeat(1000 * SECOND))).items():
        if -100 <= kiloseconds < 100:
            near = True
        else:
            coarse[three_digits(kiloseconds) * 1000 * SECOND] += count
    if near:
        coarse.update(three_digits(lag) for lag in every if -100 <= lag // (1000 * SECOND) < 100)
    return dict(coarse)


def three_digits(number: int) -> int:
    """The number cut to three significant digits, toward smaller ones."""
    unit: int = 10 ** max(0, len(str(abs(number))) - 3)
    return number // unit * unit


def _cut(counts: Mapping[int, int]) -> dict[int, int]:
    cut: Counter[int] = Counter()
    for lag, count in counts.items():
        cut[three_digits(lag)] += count
    return dict(cut)
