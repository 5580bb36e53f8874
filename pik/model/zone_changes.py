"""When the clocks of a zone change, over all of time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct, unpack_from

from pik.model.instant import SECOND
from pik.model.zone import load_zone, zone_data

_DAY = 86400
_HEADER = Struct(">4sc15x6l")
"""The header of a file of RFC 9636: its version, and how many UT and standard indicators, leap seconds, changes, types
and characters it has."""


def offset_changes(zone: str, first: int, end: int) -> list[tuple[int, int]]:
    """Return the zone's offset from UTC (seconds) at second `first`, and each later change before `end` with its new
    offset."""
    listed, has_rule = _listed(zone)
    found = [(first, _offset(zone, first))]
    seconds = list(listed[bisect_right(listed, first) : bisect_right(listed, end - 1)])
    if has_rule:
        seconds += _by_rule(zone, max(first, listed[-1]), end)
    for second in seconds:
        if (offset := _offset(zone, second)) != found[-1][1]:
            found.append((second, offset))
    return found


def _offset(zone: str, second: int) -> int:
    return load_zone(zone).offset_at(second * SECOND) // SECOND


@lru_cache(maxsize=64)
def _listed(zone: str) -> tuple[tuple[int, ...], bool]:
    """Return the changes that the zone's data lists, and whether a rule for each later year follows."""
    data = zone_data(zone)
    *_, ut, standard, leaps, changes, types, characters = _HEADER.unpack_from(data)
    # The first block is for programs that read 32 bits.
    second = _HEADER.size + changes * 5 + types * 6 + characters + leaps * 8 + standard + ut
    *_, changes, _, _ = _HEADER.unpack_from(data, second)
    return unpack_from(f">{changes}q", data, second + _HEADER.size), b"," in data.split(b"\n")[-2]


def _by_rule(zone: str, first: int, end: int) -> Iterator[int]:
    """Yield the changes between these seconds, of which no two are on one day."""
    before = _offset(zone, first)
    for second in range(first, end, _DAY):
        offset = _offset(zone, min(second + _DAY, end))
        if offset != before:
            low, high = second, min(second + _DAY, end)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if _offset(zone, middle) == offset else (middle, high)
            yield high
        before = offset
