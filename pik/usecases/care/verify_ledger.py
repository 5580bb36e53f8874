"""What a verification has seen of the index's segments, kept by batch and by key."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

from pik.model.batch import Counts, Segment, Verdict
from pik.ports.index import Index, Totals
from pik.ports.raw import RawKey
from pik.runtime.storage import Sorter

_Name = TypeVar("_Name", int, str)


@dataclass(frozen=True, slots=True)
class Holding:
    """What segments of one batch hold; times in nanoseconds. `sound`: all of them are there and as they were written.
    `lags`, `sources` and `actor` are known of requests only, if all of them were `read`. `recorded_last` is when the
    last of them was recorded, `recorded_first` when the first was of those whose time is not guessed."""

    segments: int = 0
    counts: Counts = field(default_factory=Counts)
    first_event: int | None = None
    last_event: int | None = None
    sound: bool = True
    recorded_first: int | None = None
    recorded_last: int | None = None
    lags: Mapping[int, int] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)
    actor: str = ""
    read: bool = True

    def plus(self, other: Holding) -> Holding:
        """Return what both hold together."""
        return Holding(
            self.segments + other.segments,
            self.counts + other.counts,
            min(_known(self.first_event, other.first_event), default=None),
            max(_known(self.last_event, other.last_event), default=None),
            self.sound and other.sound,
            min(_known(self.recorded_first, other.recorded_first), default=None),
            max(_known(self.recorded_last, other.recorded_last), default=None),
            _sum(self.lags, other.lags),
            _sum(self.sources, other.sources),
            max(self.actor, other.actor),
            self.read and other.read,
        )


def _known(*times: int | None) -> list[int]:
    return [time for time in times if time is not None]


def _sum(some: Mapping[_Name, int], others: Mapping[_Name, int]) -> Mapping[_Name, int]:
    return Counter(some) + Counter(others) if others else some


def segment_holding(index: Index, segment: Segment) -> Holding:
    """Return what one sound segment holds. Deliveries that are not recorded yet do not count."""
    kinds = Counter(index.skipped(segment).values())
    recorded = segment.deliveries - kinds[Verdict.UNRECORDED]
    accepted = recorded - kinds[Verdict.EXACT] - kinds[Verdict.CONFLICT]
    return Holding(
        1,
        Counts(recorded, accepted, kinds[Verdict.EXACT], kinds[Verdict.CONFLICT]),
        segment.first_event,
        segment.last_event,
        recorded_first=None if segment.guessed else segment.recorded_at,
        recorded_last=segment.recorded_at,
    )


@dataclass(slots=True)
class Entries:
    """Segments that the index lists: what those of a batch hold, and of how many deliveries it should have a row."""

    by_batch: dict[str, Holding] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """By the key of the segment."""
    raw_bytes: int = 0

    def add(self, segment: Segment, holding: Holding) -> None:
        """Note a segment, and what it holds."""
        before = self.by_batch.get(segment.batch_id)
        self.by_batch[segment.batch_id] = holding if before is None else before.plus(holding)
        self.raw_bytes += segment.size

    def expect_rows(self, segment: Segment) -> None:
        """Note that the index should have a row for each of the segment's deliveries."""
        self.rows[segment.key] = segment.deliveries


class Ledger:
    """Collects entries of the index's segments, and yields them by key, and summed up by batch. It sorts them on disk,
    so that memory does not grow with them.

    `totals` are those of all segments, without a number of batches; `unsettled` the batches of which `differing_rows`
    found segments that are being recorded, or whose writer died while it recorded them.
    """

    def __init__(self) -> None:
        self._by_batch: Sorter[tuple[str, Holding]] = Sorter(itemgetter(0), reverse=True)
        self._expected: Sorter[tuple[str, int, int | None]] = Sorter(itemgetter(0))
        self._all, self._raw_bytes = Holding(), 0
        self.unsettled: set[str] = set()

    def take(self, entries: Entries) -> None:
        """Add what was noted of some segments."""
        for batch_id, holding in entries.by_batch.items():
            self._by_batch.add((batch_id, holding))
            self._all = self._all.plus(replace(holding, lags={}, sources={}))
        for key, deliveries in entries.rows.items():
            self._expected.add((key, deliveries, 0))
        self._raw_bytes += entries.raw_bytes

    def totals(self, batches: int) -> Totals:
        """Return the totals of all segments, which belong to so many batches."""
        counts = self._all.counts
        times = self._all.first_event, self._all.last_event
        return Totals(counts.accepted, counts.read, self._all.segments, batches, self._raw_bytes, *times)

    def batches(self) -> Iterator[tuple[str, Holding]]:
        """Yield each batch with what its segments hold, the newest first."""
        for batch_id, entries in groupby(self._by_batch, key=itemgetter(0)):
            yield batch_id, reduce(Holding.plus, map(itemgetter(1), entries))

    def differing_rows(self, rows: Iterable[tuple[str, int | None]]) -> Iterator[tuple[str, int, int]]:
        """Yield the segments whose numbers of deliveries and of rows differ: key, deliveries, rows. Those that were not
        seen as sound should have no rows."""
        counted: Sorter[tuple[str, int, int | None]] = Sorter(itemgetter(0))
        for key, count in rows:
            counted.add((key, 0, count))
        both = heapq.merge(self._expected, counted, key=itemgetter(0))
        for key, entries in groupby(both, key=itemgetter(0)):
            deliveries = found = 0
            is_settled = True
            for _, expected, count in entries:
                deliveries += expected
                found += count or 0
                is_settled &= count is not None
            if not is_settled:
                parsed = RawKey.parse(key)
                self.unsettled.add(parsed.id if parsed else key)
            elif found != deliveries:
                yield key, deliveries, found
