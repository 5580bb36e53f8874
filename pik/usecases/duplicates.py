"""Duplicates: deliveries that came again, exact or in conflict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import msgspec

from pik.model.batch import CONFLICT, EXACT
from pik.model.event import Delivery
from pik.model.filter import Filter
from pik.model.instant import HOUR, format_instant, parse_instant
from pik.model.window import Window
from pik.ports.store import Store
from pik.usecases.event import locate, read_location
from pik.usecases.held import expect_held
from pik.usecases.ordering import sort_bounded
from pik.usecases.progress import SILENT, Progress
from pik.usecases.reading import deliveries

Group = Literal["source", "type", "entity", "batch", "hour"]

_PAGE = 500  # duplicates whose events' numbers of deliveries are asked for at once

# A delivery, exact or conflict, and the number of its event's deliveries. They are sorted on disk, and so carry nothing
# of their segment: its frames would be written again with each.
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
    """The answer; `matched` and `cut` are final once the rows are read."""

    window: Window
    rows: Iterator[DuplicateRow]
    matched: int = 0
    cut: bool = False


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
    matching = _matching(store, wanted, progress)
    answer.rows = _rows(store, matching, limit, payload_diff, answer)
    return answer


def _rows(
    store: Store, matching: Iterator[_Duplicate], limit: int | None, payload_diff: bool, answer: DuplicateList
) -> Iterator[DuplicateRow]:
    with store.raw.scratch() as scratch:
        for delivery, kind, count in sort_bounded(matching, _key, scratch):
            answer.matched += 1
            if limit is not None and answer.matched > limit:
                answer.cut = True
                continue
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
                _changes(store, delivery) if payload_diff and kind == CONFLICT else (),
            )


def _key(item: _Duplicate) -> tuple[int, str, str, int]:
    delivery = item[0]
    return delivery.event_instant, delivery.event_id, delivery.batch_id, delivery.seq


def count_duplicates(store: Store, wanted: Wanted, by: Group, *, progress: Progress = SILENT) -> list[GroupRow]:
    """The duplicates asked for, counted by what `by` names, most first. An hour is that of event_time, in UTC.
    Raises NotHeld, Damaged."""
    expect_held(store, wanted.filter.window, wanted.filter.entities)
    counts: Counter[tuple[str, str]] = Counter()
    for delivery, kind, _ in _matching(store, wanted, progress):
        counts[_group(delivery, by), kind] += 1
    rows = [GroupRow(group, counts[group, EXACT], counts[group, CONFLICT]) for group in {group for group, _ in counts}]
    return sorted(rows, key=lambda row: (-row.duplicates, row.group))


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


def _matching(store: Store, wanted: Wanted, progress: Progress) -> Iterator[_Duplicate]:
    all_of_them = deliveries(store, wanted.filter, only="duplicate", progress=progress)
    found = (one for one in all_of_them if wanted.kind in (None, one.kind))
    while page := list(islice(found, _PAGE)):
        repeats = store.index.repeats([(one.segment.day, one.delivery.event_id) for one in page])
        for one, repeated in zip(page, repeats, strict=True):
            if 1 + repeated >= wanted.min_deliveries:
                yield one.delivery, one.kind, 1 + repeated


def _changes(store: Store, came: Delivery) -> tuple[Change, ...]:
    """What a conflict says otherwise than the accepted delivery of its event."""
    accepted = read_location(store, locate(store, came.event_id)).delivery
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
