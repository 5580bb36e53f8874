"""Duplicates: deliveries that came again, exact or in conflict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby, islice, starmap
from operator import attrgetter
from typing import Any, Literal

import msgspec

from pik.model.batch import BatchState, Segment, Verdict
from pik.model.event import Delivery
from pik.model.filter import Filter
from pik.model.instant import HOUR, format_instant, parse_instant
from pik.model.window import Window
from pik.ports.index import Index
from pik.ports.store import Store
from pik.rawlog.frames import Bound, Found, deliveries
from pik.runtime.interaction import SILENT, Progress
from pik.runtime.spool import SORTED_IN_MEMORY, sort_bounded
from pik.usecases.availability import expect_held
from pik.usecases.inspect.event_detail import locate, read_location
from pik.usecases.inspect.events import ordered_by_day

Group = Literal["source", "type", "entity", "batch", "hour"]

_PAGE = 500  # duplicates whose events' numbers of deliveries are asked for at once
_FINISHED = 10_000  # batches of which it is remembered whether they are finished

# A delivery, exact or conflict, and its day. They are sorted on disk, and so carry nothing else of their segment: its
# frames would be written again with each.
_Duplicate = tuple[Delivery, str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which duplicates are asked for: `kind` exact, conflict or None; of events with at least `min_deliveries`."""

    filter: Filter
    kind: str | None = None
    min_deliveries: int = 2


@dataclass(frozen=True, slots=True)
class DuplicateRow:
    """One duplicate delivery. `deliveries` counts all of its event; `changes` tells what a conflict says otherwise."""

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
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A place at which a conflict differs from the accepted delivery, and both values as JSON texts (None: nothing
    there)."""

    path: str
    accepted: bytes | None
    came: bytes | None


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


@dataclass(slots=True)
class DuplicateList:
    """The answer; `matched` and `truncated` are final once the rows are read.

    `truncated`: a limit left later ones out. How many is not known then, since they are not read; `matched` is None.
    """

    window: Window
    rows: Iterator[DuplicateRow]
    matched: int | None = 0
    truncated: bool = False


@dataclass(slots=True)
class GroupList:
    """The answer; `duplicates`, of all groups, and `truncated` are final once the rows are read.

    `truncated`: a limit left smaller groups out."""

    window: Window
    rows: Iterator[GroupRow]
    duplicates: int = 0
    truncated: bool = False


def list_duplicates(
    store: Store,
    wanted: Wanted,
    *,
    limit: int | None = None,
    payload_diff: bool = False,
    progress: Progress = SILENT,
) -> DuplicateList:
    """The duplicates asked for, by event_time, event_id, batch and seq; with a limit, the first so many.
    Raises NotHeld, and Damaged while iterating."""
    expect_held(store, wanted.filter.window, wanted.filter.entities)
    answer = DuplicateList(wanted.filter.window, iter(()))
    answer.rows = _rows(store, wanted, limit, payload_diff, answer, progress)
    return answer


def _rows(
    store: Store, wanted: Wanted, limit: int | None, payload_diff: bool, answer: DuplicateList, progress: Progress
) -> Iterator[DuplicateRow]:
    bound, counts, accepted = Bound(), _DeliveryCounts(store.index), _Accepted(store)
    found = deliveries(store, wanted.filter, only="duplicate", progress=progress, bound=bound)
    one_more = None if limit is None else limit + 1  # tells whether the limit leaves any out
    ordered = ordered_by_day(found, _Matching(store, wanted, counts).of, _key, one_more, bound)
    shown = 0
    for page in _pages(islice(ordered, limit)):
        for (delivery, kind, _), count in zip(page, counts.of(page), strict=True):
            shown += 1
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
                _changes(accepted.of(delivery.event_id), delivery) if payload_diff and kind == Verdict.CONFLICT else (),
            )
    answer.truncated = next(ordered, None) is not None
    answer.matched = None if answer.truncated else shown


def _key(item: _Duplicate) -> tuple[int, str, str, int]:
    delivery = item[0]
    return delivery.event_instant, delivery.event_id, delivery.batch_id, delivery.seq


def count_duplicates(
    store: Store, wanted: Wanted, by: Group, *, limit: int | None = None, progress: Progress = SILENT
) -> GroupList:
    """The duplicates asked for, counted by what `by` names, most first. An hour is that of event_time, in UTC.
    Raises NotHeld, and Damaged while iterating."""
    expect_held(store, wanted.filter.window, wanted.filter.entities)
    answer = GroupList(wanted.filter.window, iter(()))
    answer.rows = _groups(store, wanted, by, limit, answer, progress)
    return answer


def _groups(
    store: Store, wanted: Wanted, by: Group, limit: int | None, answer: GroupList, progress: Progress
) -> Iterator[GroupRow]:
    found = deliveries(store, wanted.filter, only="duplicate", progress=progress)
    parts = _partial_counts(_Matching(store, wanted, _DeliveryCounts(store.index)).of(found), by)
    by_name = sort_bounded(parts, attrgetter("group"))
    for number, row in enumerate(sort_bounded(_added(by_name), _most_first)):
        answer.duplicates += row.duplicates
        if limit is None or number < limit:
            yield row
        else:
            answer.truncated = True


def _partial_counts(found: Iterable[_Duplicate], by: Group) -> Iterator[GroupRow]:
    """Counts by group, of as many groups as memory should hold at a time."""
    counts: dict[str, list[int]] = {}
    for delivery, kind, _ in found:
        counts.setdefault(_group(delivery, by), [0, 0])[kind == Verdict.CONFLICT] += 1
        if len(counts) >= SORTED_IN_MEMORY:
            yield from starmap(_group_row, counts.items())
            counts = {}
    yield from starmap(_group_row, counts.items())


def _group_row(group: str, counts: Sequence[int]) -> GroupRow:
    return GroupRow(group, exact=counts[0], conflict=counts[1])


def _added(rows: Iterable[GroupRow]) -> Iterator[GroupRow]:
    for group, parts in groupby(rows, key=attrgetter("group")):
        several = list(parts)
        yield GroupRow(group, sum(one.exact for one in several), sum(one.conflict for one in several))


def _most_first(row: GroupRow) -> tuple[int, str]:
    return -row.duplicates, row.group


def _group(delivery: Delivery, by: Group) -> str:
    if by == "hour":
        instant = delivery.event_instant
        return format_instant(instant - instant % HOUR)
    return {
        "source": delivery.source,
        "type": delivery.event_type,
        "entity": delivery.entity_id,
        "batch": delivery.batch_id,
    }[by]


class _Matching:
    """Picks the duplicates that are asked for, of one reading of a store."""

    def __init__(self, store: Store, wanted: Wanted, counts: _DeliveryCounts) -> None:
        self._wanted, self._counts, self._deployed = wanted, counts, store.deployed
        self._is_finished = lru_cache(_FINISHED)(partial(_is_finished, store.index))

    def of(self, found: Iterable[Found]) -> Iterator[_Duplicate]:
        """Those among what was found, in no particular order."""
        asked: list[_Duplicate] = []
        for one in found:
            if self._wanted.kind is not None and one.kind != self._wanted.kind:
                continue
            duplicate = one.delivery, one.kind, one.segment.day
            if self._wanted.min_deliveries <= 2 and self._is_recorded(one.segment):
                yield duplicate  # its event has as many as every duplicate's event
                continue
            asked.append(duplicate)
            if len(asked) == _PAGE:
                yield from self._with_enough(asked)
                asked = []
        yield from self._with_enough(asked)

    def _is_recorded(self, segment: Segment) -> bool:
        """Whether the duplicates of the segment are surely written down. In a deployed store a writer that is at work,
        or died, may have claimed deliveries and not yet written down what came again of them."""
        return not self._deployed or bool(segment.inline) or self._is_finished(segment.batch_id)

    def _with_enough(self, asked: list[_Duplicate]) -> Iterator[_Duplicate]:
        for one, count in zip(asked, self._counts.of(asked), strict=True):
            if count >= self._wanted.min_deliveries:
                yield one


def _is_finished(index: Index, batch_id: str) -> bool:
    batch = next(index.batches(batch_id), None)
    return batch is not None and batch.state == BatchState.COMPLETE


def _pages(found: Iterator[_Duplicate]) -> Iterator[list[_Duplicate]]:
    while page := list(islice(found, _PAGE)):
        yield page


class _DeliveryCounts:
    """How many deliveries events have. The index counts those of an event one by one, so each is asked for once, as
    long as memory should hold the answer."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._known: dict[tuple[int, str], int] = {}

    def of(self, page: Sequence[_Duplicate]) -> list[int]:
        """The numbers of deliveries of the duplicates' events."""
        events = [(day, delivery.event_id) for delivery, _, day in page]
        if len(self._known) > SORTED_IN_MEMORY:
            self._known = {}
        new = list(dict.fromkeys(event for event in events if event not in self._known))
        if new:
            self._known.update(zip(new, self._index.repeats(new), strict=True))
        return [1 + self._known[event] for event in events]


class _Accepted:
    """The accepted deliveries of events, the last ones kept: conflicts of one key come many times."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Delivery] = {}

    def of(self, event_id: str) -> Delivery:
        """The one of this event."""
        if event_id not in self._known:
            if len(self._known) >= _PAGE:
                self._known = {}
            self._known[event_id] = read_location(self._store, locate(self._store, event_id)).delivery
        return self._known[event_id]


def _changes(accepted: Delivery, came: Delivery) -> tuple[Change, ...]:
    """What a conflict says otherwise than the accepted delivery of its event."""
    pairs: list[tuple[str, bytes | None, bytes | None]] = [
        ("event_time", msgspec.json.encode(accepted.event_time), msgspec.json.encode(came.event_time))
    ]
    pairs += _differences("payload", msgspec.json.decode(accepted.payload), msgspec.json.decode(came.payload))
    return tuple(Change(path, before, after) for path, before, after in pairs if before != after)


def _differences(path: str, before: Any, after: Any) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _members(f"{path}.{name}", before, after, name)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{path}[{place}]", one, other)
    elif before != after:
        yield path, msgspec.json.encode(before), msgspec.json.encode(after)


def _members(path: str, before: Any, after: Any, name: str) -> Iterable[tuple[str, bytes | None, bytes | None]]:
    if name not in before:
        return [(path, None, msgspec.json.encode(after[name]))]
    if name not in after:
        return [(path, msgspec.json.encode(before[name]), None)]
    return _differences(path, before[name], after[name])
