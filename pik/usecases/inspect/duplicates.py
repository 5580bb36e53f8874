"""Deliveries that came again: exact duplicates and conflicts, listed or counted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import msgspec

from pik.model.batch import BatchState, Segment, Verdict
from pik.model.delivery import Delivery, Filter, read_exactly
from pik.model.instant import parse_instant
from pik.model.path import EventPath
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.selection import RecordedDelivery
from pik.runtime import SILENT, Progress
from pik.runtime.storage import SORTED_IN_MEMORY, sort_bounded
from pik.usecases import Listing, ListingExtent
from pik.usecases.availability import expect_held
from pik.usecases.inspect.count_events import group_by
from pik.usecases.inspect.deliveries import read_locations, whole_id
from pik.usecases.inspect.events import PAGE, ordered

_FINISHED = 10_000  # batches for which it is remembered whether they are finished

# A delivery, its verdict, its day, the time that a correction replaced, and the ids of corrections. They are sorted on
# disk, and so carry nothing else of their segment: its frames would be written again with each.
_Duplicate = tuple[Delivery, Verdict, int, str | None, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class DuplicateFilter:
    """Selects duplicates: `kind` exact, conflict or None for both; of events with at least `min_deliveries`. With
    `as_received` no correction holds."""

    filter: Filter
    kind: str | None = None
    min_deliveries: int = 2
    as_received: bool = False

    @property
    def only(self) -> str:
        """What `deliveries` needs to yield."""
        return self.kind or "duplicate"


@dataclass(frozen=True, slots=True)
class DuplicateRow:
    """One duplicate delivery. `deliveries` counts those of its event; `changes` are where a conflict differs from the
    accepted one. Corrections hold; `received_event_time` is the time that one replaced."""

    event_id: str
    kind: str
    event_time: int
    ingest_time: int
    source: str
    event_type: str
    entity_id: str
    deliveries: int
    batch_id: str
    seq: int
    changes: tuple[FieldChange, ...] = ()
    received_event_time: int | None = None
    corrections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A place at which a conflict differs from the accepted delivery, and both values as JSON (None: absent)."""

    path: str
    accepted: bytes | None
    conflicting: bytes | None


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Duplicates counted under one value of what they are grouped by."""

    group: str
    exact: int
    conflict: int

    @property
    def duplicates(self) -> int:
        """exact + conflict."""
        return self.exact + self.conflict


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """The duplicates of all groups, and whether a limit left smaller groups out."""

    duplicates: int
    truncated: bool


def list_duplicates(
    store: Store,
    wanted: DuplicateFilter,
    *,
    limit: int | None = None,
    payload_diff: bool = False,
    progress: Progress = SILENT,
) -> Listing[DuplicateRow, ListingExtent]:
    """List the selected duplicates, by event_time, event_id, batch and seq; with a limit, the first ones.

    Raises NotHeld, and Damaged while iterating.
    """
    expect_held(store, wanted.filter.window, wanted.filter.entities)
    reader = _DuplicateReader(store, wanted)

    accepted = accepted_deliveries(store)

    def rows(page: list[_Duplicate]) -> Iterator[DuplicateRow]:
        for duplicate, count in zip(page, reader.delivery_counts(page), strict=True):
            delivery, kind, _, received, corrections = duplicate
            compared = payload_diff and kind == Verdict.CONFLICT
            yield DuplicateRow(
                delivery.event_id,
                kind,
                delivery.event_instant,
                parse_instant(delivery.ingest_time),
                delivery.source,
                delivery.event_type,
                delivery.entity_id,
                count,
                delivery.batch_id,
                delivery.seq,
                tuple(delivery_changes(accepted(delivery.event_id), delivery)) if compared else (),
                None if received is None else parse_instant(received),
                corrections,
            )

    found = ordered(
        *(store, wanted.filter, limit, reader.select, _key, rows),
        only=wanted.only,
        as_received=wanted.as_received,
        progress=progress,
    )
    return Listing(found)


def accepted_deliveries(store: Store) -> Callable[[str], Delivery]:
    """Return what reads the accepted delivery of an event."""

    @lru_cache(PAGE)  # conflicts of one key come many times
    def accepted(event_id: str) -> Delivery:
        return next(read_locations(store, store.index.deliveries(whole_id(store, event_id), 1))).delivery

    return accepted


def selected_duplicates(
    store: Store, wanted: DuplicateFilter, progress: Progress = SILENT
) -> Iterator[tuple[Delivery, Verdict]]:
    """Yield the selected duplicates, in no particular order. Raises NotHeld and Damaged."""
    expect_held(store, wanted.filter.window, wanted.filter.entities)
    found = deliveries(store, wanted.filter, only=wanted.only, progress=progress, as_received=wanted.as_received)
    return ((delivery, kind) for delivery, kind, *_ in _DuplicateReader(store, wanted).select(found))


def _key(item: _Duplicate) -> tuple[int, str, str, int]:
    delivery = item[0]
    return delivery.event_instant, delivery.event_id, delivery.batch_id, delivery.seq


def count_duplicates(
    store: Store, wanted: DuplicateFilter, by: str | EventPath, *, limit: int | None = None, progress: Progress = SILENT
) -> Listing[GroupRow, GroupTotals]:
    """Count the selected duplicates by source, type, entity, batch, day or hour (of event_time, in UTC), or by what a
    path finds in them, most first.

    Raises NotHeld, and while iterating Damaged, and UsageError for a path that cannot be evaluated.
    """
    expect_held(store, wanted.filter.window, wanted.filter.entities)
    return Listing(_groups(store, wanted, by, limit, progress))


def _groups(
    store: Store, wanted: DuplicateFilter, by: str | EventPath, limit: int | None, progress: Progress
) -> Generator[GroupRow, None, GroupTotals]:
    found = deliveries(store, wanted.filter, only=wanted.only, progress=progress, as_received=wanted.as_received)
    group = group_by(by)
    selected = _DuplicateReader(store, wanted).select(found)
    counts = counts_of((group(delivery), kind == Verdict.CONFLICT) for delivery, kind, *_ in selected)
    groups = duplicates = 0
    for row in sort_bounded(_added(counts), lambda row: (-row.duplicates, row.group)):
        groups, duplicates = groups + 1, duplicates + row.duplicates
        if limit is None or groups <= limit:
            yield row
    return GroupTotals(duplicates, limit is not None and groups > limit)


def _added(counts: Iterator[tuple[tuple[str, bool], int]]) -> Iterator[GroupRow]:
    """Yield the groups. What is counted is a group, and whether it is a conflict."""
    for group, of_group in groupby(counts, key=lambda one: one[0][0]):
        total = {is_conflict: count for (_, is_conflict), count in of_group}
        yield GroupRow(group, total.get(False, 0), total.get(True, 0))


Name = TypeVar("Name", str, tuple[str, bool], tuple[str, str])


def counts_of(names: Iterable[Name]) -> Iterator[tuple[Name, int]]:
    """Yield how often each name comes, by name. Memory holds SORTED_IN_MEMORY names at a time."""
    counts = sort_bounded(_counted(names), itemgetter(0))
    for name, of_name in groupby(counts, key=itemgetter(0)):
        yield name, sum(count for _, count in of_name)


def _counted(names: Iterable[Name]) -> Iterator[tuple[Name, int]]:
    counts: dict[Name, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        if len(counts) >= SORTED_IN_MEMORY:
            yield from counts.items()
            counts = {}
    yield from counts.items()


class _DuplicateReader:
    """Selects duplicates by what their deliveries alone do not tell, and counts those of their events, in one reading
    of a store.

    The index counts the deliveries of an event one by one, so each event is asked for once, as long as memory should
    hold the answers.
    """

    def __init__(self, store: Store, wanted: DuplicateFilter) -> None:
        self._store, self._wanted = store, wanted
        self._known: dict[tuple[int | None, str], int] = {}

        @lru_cache(_FINISHED)
        def is_finished(batch_id: str) -> bool:
            batch = next(store.index.batches(batch_id), None)
            return batch is not None and batch.state == BatchState.COMPLETE

        self._is_finished = is_finished

    def select(self, found: Iterable[RecordedDelivery]) -> Iterator[_Duplicate]:
        """Yield the selected ones, in no particular order."""
        uncounted: list[_Duplicate] = []
        for one in found:
            duplicate = one.delivery, one.kind, one.segment.day, one.received_event_time, one.corrections
            if self._wanted.min_deliveries <= 2 and self._is_recorded(one.segment):
                yield duplicate  # the event of every duplicate has that many
                continue
            uncounted.append(duplicate)
            if len(uncounted) == PAGE:
                yield from self._with_enough(uncounted)
                uncounted = []
        yield from self._with_enough(uncounted)

    def _with_enough(self, page: Sequence[_Duplicate]) -> Iterator[_Duplicate]:
        for duplicate, count in zip(page, self.delivery_counts(page), strict=True):
            if count >= self._wanted.min_deliveries:
                yield duplicate

    def _is_recorded(self, segment: Segment) -> bool:
        """Return whether the duplicates of the segment are recorded for certain. In a deployed store a writer that is
        running, or died, may have claimed deliveries and not yet recorded the duplicates among them."""
        return not self._store.deployed or segment.has_copy or self._is_finished(segment.batch_id)

    def delivery_counts(self, page: Sequence[_Duplicate]) -> list[int]:
        """Return how many deliveries the event of each duplicate has."""
        events = [
            (day if delivery.idempotency_key is None else None, delivery.event_id) for delivery, _, day, *_ in page
        ]
        if len(self._known) > SORTED_IN_MEMORY:
            self._known = {}
        new = list(dict.fromkeys(event for event in events if event not in self._known))
        if new:
            self._known.update(zip(new, self._store.repeats.counts(new), strict=True))
        return [1 + self._known[event] for event in events]


_ABSENT = object()
_encode = msgspec.json.Encoder(decimal_format="number").encode


def delivery_changes(accepted: Delivery, conflicting: Delivery) -> Iterator[FieldChange]:
    """Yield where a conflict differs from the accepted delivery of its event."""
    yield from _differences("event_time", accepted.event_time, conflicting.event_time)
    yield from _differences("payload", read_exactly(accepted.payload), read_exactly(conflicting.payload))


def _differences(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _differences(f"{path}.{name}", before.get(name, _ABSENT), after.get(name, _ABSENT))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{path}[{place}]", one, other)
    elif before != after or isinstance(before, bool) != isinstance(after, bool):  # to Python, true is 1
        yield FieldChange(path, *(None if value is _ABSENT else _encode(value) for value in (before, after)))
