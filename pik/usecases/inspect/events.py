"""The events of a window, oldest first, and what may be wrong where there are none."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from time import time_ns
from typing import TYPE_CHECKING, Any, TypeVar

from pik.errors import NothingSelected, command, number_of
from pik.model.batch import Segment, Verdict
from pik.model.delivery import Delivery, Filter
from pik.model.instant import DAY, MAX_INSTANT, MIN_INSTANT, day_of, display_instant, parse_instant
from pik.model.window import ALL_TIME, Window
from pik.ports.index import Repeats
from pik.ports.store import Store
from pik.rawlog.corrected import corrected_until
from pik.rawlog.deliveries import deliveries
from pik.rawlog.selection import Bound, RecordedDelivery
from pik.runtime import SILENT, Progress
from pik.runtime.storage import sort_bounded
from pik.usecases import Listing, ListingExtent
from pik.usecases.availability import expect_held
from pik.usecases.inspect.conditions import ACCEPTED, Conditions
from pik.usecases.inspect.near_names import did_you_mean, meant_names, meant_sources

if TYPE_CHECKING:
    from pik.usecases.inspect.not_counted import Omission

REMEMBERED = 100_000
"""Repeated events whose duplicates are counted while raw is read; the index is asked about the others."""

PAGE = 500
"""Events whose duplicates are counted by one request to the index."""

_SLACK = 100  # rows that are held beyond twice the limit before the largest are dropped

Item = TypeVar("Item")
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class EventRow:
    """A delivery of an event, mostly the one that counts. `lag` in nanoseconds, negative for clock skew; `deliveries`
    counts all of the event. Corrections hold; `received_event_time` is the time that one replaced, `corrections` are
    the ids of those that concern the delivery."""

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
    recorded_at: int
    delivery: Delivery
    omission: Omission | None = None
    received_event_time: int | None = None
    corrections: tuple[str, ...] = ()


_Found = tuple[int, str, str, int, int, Delivery, Any, int, str | None, tuple[str, ...]]
"""Time and id of an event, batch and seq of its delivery, when that was recorded, the delivery, why a value does not
count it, if that was asked for, the day of its segment, the time that a correction replaced, and ids of corrections."""


def _oldest(found: _Found) -> tuple[int, str, str, int]:
    return found[:4]


def _newest(found: _Found) -> tuple[int, int, str, int]:
    return -found[0], -int(found[1], 16), found[2], found[3]


def list_events(
    store: Store,
    wanted: Filter,
    limit: int | None = None,
    *,
    progress: Progress = SILENT,
    conditions: Conditions = ACCEPTED,
    newest: bool = False,
    remembered: int = REMEMBERED,
) -> Listing[EventRow, ListingExtent]:
    """List the events that the filter selects, by event_time and then event_id; with a limit, the oldest ones.

    The deliveries that meet the conditions are listed, those that count unless they say otherwise. With `newest` the
    order is the other way round. Raises NotHeld, and Damaged while iterating.
    """
    expect_held(store, wanted.window, wanted.entities)
    repeats = _Repeats(store.repeats, remembered, conditions)
    if newest:
        return Listing(_newest_first(store, wanted, limit, repeats, progress))
    return Listing(
        ordered(
            *(store, wanted, limit, repeats.found, _oldest, repeats.rows),
            only=conditions.only,
            holds=conditions.holds if conditions.chooses_segments else None,
            as_received=conditions.as_received,
            progress=progress,
        )
    )


class _Repeats:
    """Counts the duplicates of events.

    All deliveries of an event with the same content have the same time and entity, so they are read together with it.
    Only of events with conflicts, which may have happened at any time, is the index asked how many there are.
    """

    def __init__(self, index: Repeats, remembered: int, conditions: Conditions) -> None:
        self._index, self._remembered, self.conditions = index, remembered, conditions
        self._read: Counter[str] = Counter()
        self._forgot = False

    def found(self, found: Iterable[RecordedDelivery]) -> Iterator[_Found]:
        """Yield the deliveries that meet the conditions, and count duplicates, as long as they are not too many."""
        for one in found:
            delivery = one.delivery
            event_id = delivery.event_id
            if one.corrections:
                self._forgot = True  # its other deliveries may have happened on another day
            if one.kind != Verdict.ACCEPTED:
                if event_id in self._read or len(self._read) < self._remembered:
                    self._read[event_id] += 1
                else:
                    self._forgot = True
            if self.conditions.meets(one):
                place, values = (delivery.batch_id, delivery.seq), self.conditions.values
                omission = None if values is None else values.omission(one)
                more = one.segment.day, one.received_event_time, one.corrections
                yield delivery.event_instant, event_id, *place, one.segment.recorded_at, delivery, omission, *more

    def rows(self, page: Sequence[_Found]) -> Iterator[EventRow]:
        """Yield the rows of the deliveries. Each event is asked for once."""
        events = {
            event_id: (day if delivery.idempotency_key is None else None, event_id)
            for _, event_id, _, _, _, delivery, _, day, _, _ in page
        }
        if not self._forgot:
            keyed = [event_id for event_id, (day, _) in events.items() if day is None]
            events = {event_id: events[event_id] for event_id in (self._index.conflicted(keyed) if keyed else ())}
        known = dict(zip(events, self._index.counts(list(events.values())), strict=True)) if events else {}
        once = self.conditions.kind == Verdict.ACCEPTED
        for instant, event_id, batch_id, seq, recorded_at, delivery, omission, _, received, corrections in page:
            read = self._read.pop(event_id, 0) if once else self._read[event_id]
            yield EventRow(
                event_id,
                instant,
                delivery.source,
                delivery.event_type,
                delivery.entity_id,
                delivery.lag,
                1 + known.get(event_id, read),
                batch_id,
                seq,
                bytes(delivery.payload),
                recorded_at,
                delivery,
                omission,
                None if received is None else parse_instant(received),
                corrections,
            )


def pages(rows: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of at most `size` rows."""
    while page := list(islice(rows, size)):
        yield page


def ordered(
    store: Store,
    wanted: Filter,
    limit: int | None,
    items: Callable[[Iterable[RecordedDelivery]], Iterable[Item]],
    key: Callable[[Item], Any],
    rows: Callable[[list[Item]], Iterable[Row]],
    *,
    only: str | None = None,
    holds: Callable[[Segment], bool] | None = None,
    as_received: bool = False,
    progress: Progress,
) -> Generator[Row, None, ListingExtent]:
    """Yield rows of the deliveries that the filter selects, ordered by a key that begins with time and id; with a limit
    the first ones.

    `items` makes what is sorted of the deliveries of a day, and `rows` makes rows of that, a page at a time. `holds`
    and `as_received` as for `deliveries`.
    """
    bound = Bound()
    found = deliveries(store, wanted, only=only, progress=progress, bound=bound, holds=holds, as_received=as_received)
    one_more = None if limit is None else limit + 1  # to see whether the limit leaves any out
    in_order = _by_day(found, items, key, one_more, bound)
    count = 0
    for page in pages(islice(in_order, limit), PAGE):
        yield from rows(page)
        count += len(page)
    return ListingExtent(count if next(in_order, None) is None else None)


def _newest_first(
    store: Store, wanted: Filter, limit: int | None, repeats: _Repeats, progress: Progress
) -> Generator[EventRow, None, ListingExtent]:
    """Yield rows as `ordered` does, the newest event first."""
    conditions = repeats.conditions

    def in_order(left: int | None) -> Iterator[_Found]:
        for window in days_backwards(store, wanted):
            of_day = repeats.found(
                deliveries(
                    *(store, replace(wanted, window=window)),
                    only=conditions.only,
                    progress=progress,
                    holds=conditions.holds if conditions.chooses_segments else None,
                    as_received=conditions.as_received,
                )
            )
            if left is None:
                yield from sort_bounded(of_day, _newest)
                continue
            first = _smallest(of_day, _newest, left, lambda *_: None)
            yield from first
            left -= len(first)
            if not left:
                return

    count, found = 0, in_order(None if limit is None else limit + 1)
    for page in pages(islice(found, limit), PAGE):
        yield from repeats.rows(page)
        count += len(page)
    return ListingExtent(count if next(found, None) is None else None)


def days_backwards(store: Store, wanted: Filter) -> Iterator[Window]:
    """Yield the parts of the window that lie in days with segments, or to which corrections move deliveries, the newest
    day first.

    Days without any are passed over in ever longer stretches: a request of a deployed store lists a whole one.
    """
    window, index, corrected = wanted.window, store.index, corrected_until(store)
    first, last = window.days
    tomorrow, length = day_of(time_ns()) + 1, 1
    while last >= first:
        start = max(first, tomorrow + 1 if last > tomorrow else last - length + 1)
        stretch = Window(max(start * DAY, MIN_INSTANT), min((last + 1) * DAY, MAX_INSTANT + 1))
        days = {segment.day for segment in index.segments(stretch, entities=wanted.entities)} | corrected.reached(
            stretch
        )
        for day in sorted(days, reverse=True):
            yield Window(max(window.start, day * DAY), min(window.end, (day + 1) * DAY))
        last, length = start - 1, 1 if days else 2 * length


def _by_day(
    found: Generator[RecordedDelivery, None, None],
    items: Callable[[Iterable[RecordedDelivery]], Iterable[Item]],
    key: Callable[[Item], Any],
    limit: int | None,
    bound: Bound,
) -> Iterator[Item]:
    """Yield the items of deliveries, which come day by day, in order. With a limit only the days that hold the first
    ones are read, and the beginning of the next day."""
    left = limit
    with closing(found):
        for day, of_day in groupby(found, key=lambda one: one.day):
            if left is None:
                yield from sort_bounded(items(of_day), key)
                continue
            first = _smallest(items(of_day), key, left, partial(bound.lower, day))
            yield from first
            left -= len(first)
            if not left:
                return


def _smallest(
    items: Iterable[Item], key: Callable[[Item], Any], count: int, lower: Callable[[int, str], None]
) -> list[Item]:
    """Return the `count` smallest items, in order. `lower` is called with the time and id after which no other item can
    be one of them."""
    kept: list[Item] = []
    for item in items:
        kept.append(item)
        if len(kept) >= 2 * count + _SLACK:
            kept = heapq.nsmallest(count, kept, key=key)
            lower(*key(kept[-1])[:2])
    return heapq.nsmallest(count, kept, key=key)


def nothing_matches(things: str, store: Store, wanted: Filter) -> str:
    """Return the note `0 events match`, with when the store has events if that is not in the window, else with
    entities, sources and types of similar names. In a deployed store only sources are looked for: the others would
    take a request for each day."""
    window = wanted.window
    totals = store.index.totals()
    found = f"0 {things} match"
    if totals.first_event is None or totals.last_event is None:
        return f"{found}: the store has no events"
    if totals.last_event < window.start or totals.first_event >= window.end:
        first, last = display_instant(totals.first_event), display_instant(totals.last_event)
        return f"{found}: the store has events from {first} to {last}"
    if store.deployed:
        return found + meant_sources(store, wanted.source)
    return found + did_you_mean(store, wanted.entities[:5], window, before="; ") + meant_names(store, wanted)


def nothing_selected(store: Store, what: str, window: Window, entities: Sequence[str]) -> NothingSelected:
    """Return the error for an empty selection; `what` begins its sentence, such as `nothing to compare`."""
    whose = f" of {', '.join(map(repr, entities[:5]))}" if entities else ""
    hint = "from when to when there are events: pik status"
    if similar := did_you_mean(store, entities[:5]):
        hint = similar
    elif entities:
        hint = "how entities are written: pik events --limit 20"
        if window != ALL_TIME:
            hint = f"its events of all time: {command('events', '--entity', entities[0])}"
    return NothingSelected(f"{what}: there is neither an event nor a current value{whose} {window.within}", hint=hint)


def null_values(what: str, nulls: Mapping[str, tuple[int, int]]) -> NothingSelected:
    """Return the error for metrics whose value is NULL wherever there are events: a mistyped field, mostly.
    `nulls` has the buckets and events of each."""
    metric, *others = sorted(nulls)
    buckets, events = nulls[metric]
    where = "its 1 bucket" if buckets == 1 else f"each of its {buckets:,} buckets"
    more = f"; {', '.join(others)} likewise" if others else ""
    return NothingSelected(
        f"{what}: the value of {metric} is NULL in {where}, with {number_of(events, 'event')}{more}",
        hint=command("metrics", "show", metric),
    )


def nothing_counted(what: str, metrics: Sequence[str], events: int, window: Window) -> NothingSelected:
    """Return the error for metrics (NAME@VERSION) whose filters match no event: a mistyped `where`, mostly."""
    count = "counts" if len(metrics) == 1 else "count"
    return NothingSelected(
        f"{what}: {', '.join(metrics)} {count} none of the {number_of(events, 'event')} {window.within}",
        hint=command("metrics", "show", metrics[0].partition("@")[0]),
    )


def without_value(store: Store, entities: Collection[str], window: Window) -> str:
    """Return the note for entities that were named and have no value, while others have."""
    shown = sorted(entities)[:5]
    more = f" and {len(entities) - len(shown):,} more" if len(entities) > len(shown) else ""
    question = did_you_mean(store, shown, before="; ")
    return f"no value of {', '.join(map(repr, shown))}{more} {window.within}, computed or current{question}"
