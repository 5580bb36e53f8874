"""The events of a window, oldest first."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeVar

from pik.errors import Damaged, NothingSelected, command
from pik.model.batch import Verdict
from pik.model.event import Delivery, entity_mark
from pik.model.filter import Filter
from pik.model.instant import day_of, format_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.index import Index
from pik.ports.store import Store
from pik.rawlog.frames import Bound, Found, deliveries, frame_lines, frames_of
from pik.rawlog.gather import gather
from pik.runtime.interaction import SILENT, Progress
from pik.runtime.spool import sort_bounded
from pik.usecases.availability import expect_held

_PAGE = 200  # events whose numbers of deliveries are asked for at once
_REPEATED = 100_000  # events that came again and are remembered until they are listed


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as its accepted delivery told it. `lag` in nanoseconds, negative for clock skew; `deliveries` counts
    all."""

    event_id: str
    event_time: int
    source: str
    event_type: str
    entity_id: str
    lag: int
    deliveries: int
    batch_id: str
    seq: int
    payload: bytes


@dataclass(slots=True)
class EventList:
    """The answer; `matched` and `truncated` are final once the rows are read.

    `truncated`: a limit left later events out. How many is not known then, since they are not read; `matched` is None.
    """

    window: Window
    rows: Iterator[EventRow]
    matched: int | None = 0
    truncated: bool = False


_Accepted = tuple[int, str, Delivery]


def list_events(store: Store, wanted: Filter, limit: int | None = None, *, progress: Progress = SILENT) -> EventList:
    """The accepted events asked for, by event_time and then event_id; with a limit, the oldest so many. Raises NotHeld,
    and Damaged while iterating."""
    expect_held(store, wanted.window, wanted.entities)
    answer = EventList(wanted.window, iter(()))
    answer.rows = _rows(store, wanted, limit, answer, progress)
    return answer


def _rows(store: Store, wanted: Filter, limit: int | None, answer: EventList, progress: Progress) -> Iterator[EventRow]:
    bound, repeats = Bound(), _Repeats(store.index)
    found = deliveries(store, wanted, progress=progress, bound=bound)
    one_more = None if limit is None else limit + 1  # tells whether the limit leaves any out
    ordered = ordered_by_day(found, repeats.accepted, _key, one_more, bound)
    count = 0
    for page in _pages(islice(ordered, limit)):
        for (instant, event_id, delivery), repeated in zip(page, repeats.of(page), strict=True):
            count += 1
            yield EventRow(
                event_id,
                instant,
                delivery.source,
                delivery.event_type,
                delivery.entity_id,
                delivery.lag,
                1 + repeated,
                delivery.batch_id,
                delivery.seq,
                bytes(delivery.payload),
            )
    answer.truncated = next(ordered, None) is not None
    answer.matched = None if answer.truncated else count


class _Repeats:
    """How often events came again. All deliveries of an event without an idempotency key are of one time and entity, so
    they are read together with it and need not be asked for; of the others the index knows."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._read: Counter[str] = Counter()
        self._forgot = False

    def accepted(self, found: Iterable[Found]) -> Iterator[_Accepted]:
        """The accepted ones of these deliveries. The others are counted, as long as they are not too many."""
        for one in found:
            event_id = one.delivery.event_id
            if one.kind == Verdict.ACCEPTED:
                yield one.delivery.event_instant, event_id, one.delivery
            elif event_id in self._read or len(self._read) < _REPEATED:
                self._read[event_id] += 1
            else:
                self._forgot = True

    def of(self, page: Sequence[_Accepted]) -> list[int]:
        """The number of duplicates of each."""
        asked = {
            event_id: (day_of(instant), event_id)
            for instant, event_id, delivery in page
            if self._forgot or delivery.idempotency_key is not None
        }
        told = dict(zip(asked, self._index.repeats(list(asked.values())), strict=True)) if asked else {}
        read = [self._read.pop(event_id, 0) for _, event_id, _ in page]
        return [told.get(event_id, count) for (_, event_id, _), count in zip(page, read, strict=True)]


def _pages(rows: Iterator[_Accepted]) -> Iterator[list[_Accepted]]:
    while page := list(islice(rows, _PAGE)):
        yield page


def _key(item: _Accepted) -> tuple[int, str]:
    return item[0], item[1]


Item = TypeVar("Item")


def ordered_by_day(
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
                yield from sort_bounded(rows(of_day), key)
                continue
            first = _smallest(rows(of_day), key, left, partial(bound.lower, day))
            yield from first
            left -= len(first)
            if not left:
                return


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


_LOOKED_AT = 32
"""Frames that are read at most to find an entity that is written almost alike."""


def nothing_selected(store: Store, what: str, window: Window, entities: Sequence[str]) -> NothingSelected:
    """The error for a selection that is empty; `what` begins its sentence, such as `nothing to compare`."""
    whose = f" of {', '.join(map(repr, entities[:5]))}" if entities else ""
    alike = [found for entity in entities[:5] for found in written_alike(store, entity)]
    hint = "from when to when there are events: pik status"
    if alike:
        hint = f"did you mean {' or '.join(map(repr, alike))}?"
    elif entities:
        hint = "how entities are written: pik events --limit 20"
        if window != ALL_TIME:
            hint = f"its events of all time: {command('events', '--entity', entities[0])}"
    return NothingSelected(f"{what}: there is neither an event nor a current value{whose} in {window}", hint=hint)


def null_values(what: str, nulls: Mapping[str, tuple[int, int]]) -> NothingSelected:
    """The error for metrics whose value is NULL wherever there are events: a mistyped field, mostly. `nulls` are the
    buckets and events of each."""
    metric, *others = sorted(nulls)
    buckets, events = nulls[metric]
    where = "its 1 bucket" if buckets == 1 else f"each of its {buckets:,} buckets"
    read = f"{events:,} event{'' if events == 1 else 's'}"
    more = f"; {', '.join(others)} likewise" if others else ""
    return NothingSelected(
        f"{what}: the value of {metric} is NULL in {where}, with {read}{more}",
        hint=command("metrics", "show", metric),
    )


def nothing_counted(what: str, metrics: Sequence[str], events: int, window: Window) -> NothingSelected:
    """The error for metrics (NAME@VERSION) whose filters let none of the events in: a mistyped `where`, mostly."""
    count = "counts" if len(metrics) == 1 else "count"
    read = f"{events:,} event{'' if events == 1 else 's'}"
    return NothingSelected(
        f"{what}: {', '.join(metrics)} {count} none of the {read} in {window}",
        hint=command("metrics", "show", metrics[0].partition("@")[0]),
    )


def events_within(store: Store, engine: Engine, window: Window, size: int, entities: Sequence[str]) -> int:
    """How many events there are in whole buckets of this size."""
    with gather(store, window, entities) as gathered:
        if gathered.empty:
            return 0
        pairs = engine.touched(gathered.inputs, size, window, entities=entities, source=None, event_type=None)
        return sum(pair.events for pair in pairs)


def without_value(store: Store, entities: Collection[str], window: Window) -> str:
    """What to say of some of the named entities of which there is nothing, while there is something of others."""
    shown = sorted(entities)[:5]
    more = f" and {len(entities) - len(shown):,} more" if len(entities) > len(shown) else ""
    alike = [found for entity in shown for found in written_alike(store, entity)]
    question = f"; did you mean {' or '.join(map(repr, alike))}?" if alike else ""
    return f"no value of {', '.join(map(repr, shown))}{more} in {window}, computed or current{question}"


def written_alike(store: Store, entity: str, window: Window = ALL_TIME) -> list[str]:
    """Entities with events in the days of the window whose names differ from this one in case or in white space around
    them. The index is asked once, and only a few frames are read."""
    bare = entity.strip()
    forms = {bare, bare.lower(), bare.upper(), bare.title(), bare.capitalize(), f"{bare} ", f" {bare}"}
    marks = {form: entity_mark(form) for form in sorted(forms - {entity, ""})}
    frames = (
        (segment, frame)
        for segment in store.index.segments(window, entities=list(marks))
        for frame in frames_of(segment, list(marks))
    )
    found: list[str] = []
    for segment, frame in islice(frames, _LOOKED_AT):
        try:
            lines = frame_lines(store.raw, segment, frame)
        except Damaged:
            continue  # this is a search for a hint
        found += [form for form, mark in marks.items() if form not in found and any(mark in line for line in lines)]
    return found


def nothing_matches(things: str, store: Store, window: Window, entities: Sequence[str]) -> str:
    """`0 events match`, and where the window is to blame, when the store has events; where an entity may be, which one
    is written almost alike. A deployed store is not asked for that: it would take a call for each day."""
    totals = store.index.totals()
    found = f"0 {things} match"
    if totals.first_event is None or totals.last_event is None:
        return f"{found}: the store has no events"
    if totals.last_event < window.start or totals.first_event >= window.end:
        first, last = format_instant(totals.first_event), format_instant(totals.last_event)
        return f"{found}: the store has events from {first} to {last}"
    alike = [] if store.deployed else [near for one in entities[:5] for near in written_alike(store, one, window)]
    return f"{found}; did you mean {' or '.join(map(repr, alike))}?" if alike else found
