"""What a verification has seen of the index's segments: sorted on disk, so that memory does not grow with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from pik.model.batch import CONFLICT, EXACT, UNRECORDED, Counts, Segment
from pik.ports.index import Index
from pik.usecases.ordering import Sorter


class Holding(NamedTuple):
    """What the segments of one batch hold, as far as they were seen; times in nanoseconds. `sound`: all of them are
    there and as they were written."""

    counts: Counts = Counts()
    first_event: int | None = None
    last_event: int | None = None
    sound: bool = True


class _Entry(NamedTuple):
    batch_id: str
    deliveries: int
    exact: int
    conflict: int
    first_event: int
    last_event: int
    sound: bool


@dataclass(slots=True, init=False)
class Ledger:
    """Takes in the segments day by day; gives them back by key, and summed up by batch."""

    _by_batch: Sorter[_Entry]
    _by_key: Sorter[tuple[str, int]]
    _scratch: Path

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._by_batch = Sorter(itemgetter(0), scratch, "batches", reverse=True)
        self._by_key = Sorter(itemgetter(0), scratch, "keys")

    def add(self, index: Index, segment: Segment, *, sound: bool) -> None:
        """Note a segment that the index lists."""
        self._by_batch.add(_entry(index, segment, sound))

    def expect_rows(self, segment: Segment) -> None:
        """Note that the index should have a row for each of the segment's deliveries."""
        self._by_key.add((segment.key, segment.deliveries))

    def batches(self) -> Iterator[tuple[str, Holding]]:
        """Each batch with what its segments hold, the newest first."""
        for batch_id, entries in groupby(self._by_batch, key=itemgetter(0)):
            yield batch_id, _summed(entries)

    def other_rows(self, rows: Iterable[tuple[str, int | None]]) -> Iterator[tuple[str, int, int]]:
        """The segments of which there are not as many rows as deliveries: key, deliveries, rows. Those that were not
        seen are left out: they were recorded later."""
        sorter: Sorter[tuple[str, int | None]] = Sorter(itemgetter(0), self._scratch, "rows")
        for row in rows:
            sorter.add(row)
        counted = groupby(sorter, key=itemgetter(0))
        key, entries = next(counted, _END)
        for expected, deliveries in self._by_key:
            while key and key < expected:
                key, entries = next(counted, _END)
            counts = [count for _, count in entries] if key == expected else [0]
            if None not in counts and (there := sum(filter(None, counts))) != deliveries:
                yield expected, deliveries, there


_END: tuple[str, Iterable[tuple[str, int | None]]] = ("", ())


def holding_of(index: Index, segments: Iterable[Segment]) -> Holding:
    """What these segments of one batch hold."""
    return _summed(_entry(index, segment, True) for segment in segments)


def _entry(index: Index, segment: Segment, sound: bool) -> _Entry:
    kinds = Counter(index.skipped(segment).values())
    times = segment.first_event, segment.last_event
    # What is not recorded yet does not count.
    recorded = segment.deliveries - kinds[UNRECORDED]
    return _Entry(segment.batch_id, recorded, kinds[EXACT], kinds[CONFLICT], *times, sound)


def _summed(entries: Iterable[_Entry]) -> Holding:
    holding = Holding()
    for entry in entries:
        accepted = entry.deliveries - entry.exact - entry.conflict
        holding = Holding(
            holding.counts + Counts(entry.deliveries, accepted, entry.exact, entry.conflict),
            min(entry.first_event, entry.first_event if holding.first_event is None else holding.first_event),
            max(entry.last_event, entry.last_event if holding.last_event is None else holding.last_event),
            holding.sound and entry.sound,
        )
    return holding
