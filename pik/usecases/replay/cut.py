"""Cutting the entities of a window into ranges, each of which a task can read and write in its time."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple

from pik.model.entity_range import EntityRange
from pik.rawlog.selection import Selection
from pik.runtime.storage import Sorter

_Held = tuple[str, str, int, int]
"""A frame: its first and its last entity, its deliveries, its bytes."""


class CutRange(NamedTuple):
    """A range of entities, and how many bytes of raw are needed for it."""

    entities: EntityRange
    size: int


def entity_ranges(selection: Selection, deliveries: int, size: int) -> list[CutRange]:
    """Cut all entities into ranges, in order, of each of which about so many deliveries, or bytes of raw, are needed.

    Segments are sorted by entity, so a range is some frames of each; the frame on a border is read for both sides. A
    range therefore grows until most of what it reads is its own: together they read at most twice what there is,
    however many entities are in one frame. An entity is not cut.
    """
    frames = Sorter[_Held](itemgetter(0))
    for _, needed in selection.needed(whole_days=True):
        for frame in needed:
            frames.add((frame.first, frame.last, frame.lines, frame.length))
    cuts, sizes = [""], list[int]()
    reaching: list[tuple[str, int, int]] = []  # a heap of frames that hold later entities, too
    lines = read = shared_lines = shared = 0
    for first, together in groupby(frames, itemgetter(0)):
        while reaching and reaching[0][0] < first:
            _, of_one, length = heappop(reaching)
            shared_lines, shared = shared_lines - of_one, shared - length
        if (lines >= deliveries or read >= size) and 2 * shared <= read:
            cuts.append(first)
            sizes.append(read)
            lines, read = shared_lines, shared
        for _, last, of_one, length in together:
            lines, read = lines + of_one, read + length
            if last > first:
                heappush(reaching, (last, of_one, length))
                shared_lines, shared = shared_lines + of_one, shared + length
    ranges = (EntityRange(left, right) for left, right in pairwise([*cuts, ""]))
    return list(map(CutRange, ranges, [*sizes, read]))
