"""Deliveries: those that came again, exact or in conflict, and all of one event."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Literal

import msgspec
import zstandard

from pik.errors import CANDIDATES, NotFound, NotHeld, UsageError, ambiguous_id, command
from pik.model.batch import BatchState, Location, Segment, Verdict
from pik.model.delivery import Delivery, Filter
from pik.model.instant import DAY, HOUR, MIN_INSTANT, Window, covered, day_text, format_instant, parse_instant
from pik.model.metric import Aggregate, Definition
from pik.ports.engine import Engine, Inputs
from pik.ports.store import Store
from pik.rawlog.objects import damaged, frame_lines, parse
from pik.rawlog.sealed_records import parts
from pik.rawlog.selection import RecordedDelivery, deliveries
from pik.runtime import SILENT, Progress
from pik.runtime.storage import SORTED_IN_MEMORY, scratch, sort_bounded
from pik.usecases import Extent, Listing
from pik.usecases.availability import expect_held, expect_pulled, has_expired
from pik.usecases.inspect.events import PAGE, ordered, pages
from pik.usecases.metrics.computation import sound
from pik.usecases.metrics.definitions import Scales

Group = Literal["source", "type", "entity", "batch", "hour"]

_FINISHED = 10_000  # batches for which it is remembered whether they are finished

# A delivery, its verdict and its day. They are sorted on disk, and so carry nothing else of their segment: its frames
# would be written again with each.
_Duplicate = tuple[Delivery, Verdict, int]


@dataclass(frozen=True, slots=True)
class DuplicateFilter:
    """Selects duplicates: `kind` exact, conflict or None for both; of events with at least `min_deliveries`."""

    filter: Filter
    kind: str | None = None
    min_deliveries: int = 2


@dataclass(frozen=True, slots=True)
class DuplicateRow:
    """One duplicate delivery. `deliveries` counts those of its event; `changes` are where a conflict differs from the
    accepted one."""

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
) -> Listing[DuplicateRow, Extent]:
    """List the selected duplicates, by event_time, event_id, batch and seq; with a limit, the first ones.

    Raises NotHeld, and Damaged while iterating.
    """
    expect_held(store, wanted.filter.window, wanted.filter.entities)
    reader = _DuplicateReader(store, wanted)

    @lru_cache(PAGE)  # conflicts of one key come many times
    def accepted(event_id: str) -> Delivery:
        return next(read_locations(store, [locate(store, event_id)])).delivery

    def rows(page: list[_Duplicate]) -> Iterator[DuplicateRow]:
        for (delivery, kind, _), count in zip(page, reader.delivery_counts(page), strict=True):
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
                tuple(_changes(accepted(delivery.event_id), delivery)) if compared else (),
            )

    found = ordered(store, wanted.filter, limit, reader.select, _key, rows, only="duplicate", progress=progress)
    return Listing(found)


def _key(item: _Duplicate) -> tuple[int, str, str, int]:
    delivery = item[0]
    return delivery.event_instant, delivery.event_id, delivery.batch_id, delivery.seq


def count_duplicates(
    store: Store, wanted: DuplicateFilter, by: Group, *, limit: int | None = None, progress: Progress = SILENT
) -> Listing[GroupRow, GroupTotals]:
    """Count the selected duplicates by what `by` names, most first; an hour is that of event_time, in UTC.

    Raises NotHeld, and Damaged while iterating.
    """
    expect_held(store, wanted.filter.window, wanted.filter.entities)
    return Listing(_groups(store, wanted, by, limit, progress))


def _groups(
    store: Store, wanted: DuplicateFilter, by: Group, limit: int | None, progress: Progress
) -> Generator[GroupRow, None, GroupTotals]:
    found = deliveries(store, wanted.filter, only="duplicate", progress=progress)
    names = (
        (_group(delivery, by), kind == Verdict.CONFLICT)
        for delivery, kind, _ in _DuplicateReader(store, wanted).select(found)
    )
    groups = duplicates = 0
    for row in sort_bounded(_counted(names), lambda row: (-row.duplicates, row.group)):
        groups, duplicates = groups + 1, duplicates + row.duplicates
        if limit is None or groups <= limit:
            yield row
    return GroupTotals(duplicates, limit is not None and groups > limit)


def _counted(names: Iterator[tuple[str, bool]]) -> Iterator[GroupRow]:
    """Yield the groups of duplicates, each given by its group and whether it is a conflict."""
    # Counted first as far as memory should hold the names, so that few counts are sorted.
    counts = (one for page in pages(names, SORTED_IN_MEMORY) for one in Counter(page).items())
    for group, of_group in groupby(sort_bounded(counts, itemgetter(0)), key=lambda one: one[0][0]):
        total: Counter[bool] = Counter()
        for (_, is_conflict), count in of_group:
            total[is_conflict] += count
        yield GroupRow(group, total[False], total[True])


_FIELDS = {"source": "source", "type": "event_type", "entity": "entity_id", "batch": "batch_id"}


def _group(delivery: Delivery, by: Group) -> str:
    if by == "hour":
        instant = delivery.event_instant
        return format_instant(instant - instant % HOUR)
    return str(getattr(delivery, _FIELDS[by]))


class _DuplicateReader:
    """Selects duplicates by what their deliveries alone do not tell, and counts those of their events, in one reading
    of a store.

    The index counts the deliveries of an event one by one, so each event is asked for once, as long as memory should
    hold the answers.
    """

    def __init__(self, store: Store, wanted: DuplicateFilter) -> None:
        self._store, self._wanted = store, wanted
        self._known: dict[tuple[int, str], int] = {}

        @lru_cache(_FINISHED)
        def is_finished(batch_id: str) -> bool:
            batch = next(store.index.batches(batch_id), None)
            return batch is not None and batch.state == BatchState.COMPLETE

        self._is_finished = is_finished

    def select(self, found: Iterable[RecordedDelivery]) -> Iterator[_Duplicate]:
        """Yield the selected ones, in no particular order."""
        of_kind = (one for one in found if self._wanted.kind in (None, one.kind))
        for page in pages(of_kind, PAGE):
            uncounted: list[_Duplicate] = []
            for one in page:
                duplicate = one.delivery, one.kind, one.segment.day
                if self._wanted.min_deliveries <= 2 and self._is_recorded(one.segment):
                    yield duplicate  # the event of every duplicate has that many
                else:
                    uncounted.append(duplicate)
            for duplicate, count in zip(uncounted, self.delivery_counts(uncounted), strict=True):
                if count >= self._wanted.min_deliveries:
                    yield duplicate

    def _is_recorded(self, segment: Segment) -> bool:
        """Whether the duplicates of the segment are recorded for certain. In a deployed store a writer that is running,
        or died, may have claimed deliveries and not yet recorded the duplicates among them."""
        return not self._store.deployed or bool(segment.inline) or self._is_finished(segment.batch_id)

    def delivery_counts(self, page: Sequence[_Duplicate]) -> list[int]:
        """Return how many deliveries the event of each duplicate has."""
        events = [(day, delivery.event_id) for delivery, _, day in page]
        if len(self._known) > SORTED_IN_MEMORY:
            self._known = {}
        new = list(dict.fromkeys(event for event in events if event not in self._known))
        if new:
            self._known.update(zip(new, self._store.index.repeats(new), strict=True))
        return [1 + self._known[event] for event in events]


_ABSENT = object()


def _changes(accepted: Delivery, conflicting: Delivery) -> Iterator[FieldChange]:
    """Yield where a conflict differs from the accepted delivery of its event."""
    yield from _differences("event_time", accepted.event_time, conflicting.event_time)
    yield from _differences("payload", msgspec.json.decode(accepted.payload), msgspec.json.decode(conflicting.payload))


def _differences(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _differences(f"{path}.{name}", before.get(name, _ABSENT), after.get(name, _ABSENT))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{path}[{place}]", one, other)
    elif before != after:
        yield FieldChange(
            path, *(None if value is _ABSENT else msgspec.json.encode(value) for value in (before, after))
        )


_HEX = re.compile(r"[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery of the event: where it is in raw, and when it came (`ingest_time`, `lag` in nanoseconds).

    `event_time_original` is the text of its time as it came, None if that was canonical.
    """

    kind: str
    batch_id: str
    seq: int
    ingest_time: int
    lag: int
    content_hash: str
    segment: str
    frame: int
    line: bytes
    event_time_original: str | None = None


@dataclass(frozen=True, slots=True)
class EventDetail:
    """An event by its accepted delivery, its deliveries (that one first), and the aggregates that count it.

    `aggregates` are current ones of its entity and bucket, computed when the event was in the index already, by a
    definition whose filter selects it. None: unknown, in a copy into which another day of the event was pulled, but not
    that of its accepted delivery. `left_out` deliveries are not shown because of a limit.
    """

    event: Delivery
    deliveries: tuple[DeliveryRow, ...]
    aggregates: tuple[Aggregate, ...] | None
    left_out: int = 0


def show_event(store: Store, engine: Engine, prefix: str, limit: int | None = None) -> EventDetail:
    """Return the event whose id starts with `prefix`, with at most `limit` of its deliveries.

    Raises UsageError if that is not an id, NotFound if it fits no event or several, NotHeld if the store does not hold
    all of its deliveries.
    """
    accepted = locate(store, prefix)
    places = store.index.deliveries(accepted.event_id, limit)
    (repeats,) = store.index.repeats([(accepted.day, accepted.event_id)])
    found = list(read_locations(store, places))
    rows = tuple(
        DeliveryRow(
            one.kind,
            one.delivery.batch_id,
            one.delivery.seq,
            parse_instant(one.delivery.ingest_time),
            one.delivery.lag,
            one.delivery.content_hash,
            one.segment.key,
            place.frame,
            one.line,
            one.delivery.event_time_original,
        )
        for one, place in zip(found, places, strict=True)
    )
    aggregates = tuple(_counting(store, engine, found[0])) if _is_pulled(store, found) else None
    return EventDetail(found[0].delivery, rows, aggregates, left_out=1 + repeats - len(rows))


def _is_pulled(store: Store, found: Sequence[RecordedDelivery]) -> bool:
    """Whether the store, if it is a copy, holds the day of the event's accepted delivery, which comes first.

    With any day of an event, all of its deliveries are pulled. Raises NotHeld if the event is only there because it
    shares a raw object with what was pulled.
    """
    if store.copy is None:
        return True
    pulled, entity = parts(store), found[0].delivery.entity_id
    days = [covered(pulled, day_window(one.segment.day), [entity]) for one in found]
    if not any(days):
        expect_pulled(store, day_window(found[0].segment.day), [entity])
    return days[0]


def locate(store: Store, prefix: str) -> Location:
    """Return the location of the accepted delivery of the event whose id starts with `prefix`."""
    prefix = prefix.lower()
    if not _HEX.fullmatch(prefix):
        raise UsageError(f"{prefix} is not an event id, nor the beginning of one", hint="for event ids: pik events")
    found = store.index.locate(prefix, limit=CANDIDATES + 1)
    if len(found) != 1:
        raise ambiguous_id("event", prefix, [place.event_id for place in found], hint="for event ids: pik events")
    return found[0]


def read_locations(store: Store, locations: Iterable[Location]) -> Iterator[RecordedDelivery]:
    """Read the deliveries of an event at these locations. A frame that several in a row lie in is read once.

    Raises NotHeld where raw has expired, Damaged if raw does not have a delivery there.
    """
    for (key, number), group in groupby(locations, key=attrgetter("segment_key", "frame")):
        located = list(group)
        segment = _segment(store, located[0])
        event_id = located[0].event_id
        lines = frame_lines(store.raw, segment, segment.frames[number])
        parsed = [(parse(key, line), line) for line in lines if event_id.encode() in line]
        found = {delivery.seq: (delivery, line) for delivery, line in parsed if delivery.event_id == event_id}
        for place in located:
            if place.seq not in found:
                raise damaged(key, f"delivery {place.seq} is not in frame {number}")
            delivery, line = found[place.seq]
            yield RecordedDelivery(delivery, place.kind, segment, line)


def _segment(store: Store, location: Location) -> Segment:
    """Return the segment of a location. Raises NotFound, and NotHeld if it has expired."""
    of_batch = store.index.segments(day_window(location.day), batch_id=location.batch_id)
    segment = next((one for one in of_batch if one.key == location.segment_key), None)
    if segment is None:
        raise NotFound(f"segment {location.segment_key} is not in the index", hint="pik verify --rebuild-index")
    if has_expired(store, segment.ingest_time):
        raise NotHeld(
            f"raw of {day_text(segment.day)} has expired, and with it delivery {location.seq} of batch"
            f" {location.batch_id}, which is one of this event: this store keeps raw for {store.retention_days}"
            " days",
            hint=f"what it was read from: {command('batches', location.batch_id)}",
        )
    return segment


def day_window(day: int) -> Window:
    """Return the UTC day of this number."""
    return Window(max(day * DAY, MIN_INSTANT), (day + 1) * DAY)


def _counting(store: Store, engine: Engine, found: RecordedDelivery) -> Iterator[Aggregate]:
    """Yield the current aggregates that have the event among their inputs."""
    instant, scales = found.delivery.event_instant, Scales(store.metrics)
    for metric in store.metrics.latest():
        # Earlier versions may have had other buckets, and what they made may be current still.
        definitions = {one.version: one.definition for one in store.metrics.versions(metric.name)}
        start = min(_bucket(definition, instant).start for definition in definitions.values())
        current = store.aggregates.current(metric.name, Window(start, instant + 1), [found.delivery.entity_id])
        for aggregate in sound(current):
            definition = definitions[aggregate.metric_version]
            if (
                instant in _bucket(definition, aggregate.computed.bucket)
                and aggregate.known_until >= found.segment.recorded_at
                and _selects(engine, definition, found)
            ):
                yield scales.shown(aggregate)


def _bucket(definition: Definition, instant: int) -> Window:
    """Return the bucket of a definition that holds an instant."""
    return Window(instant, instant + 1).widened(definition.bucket_size)


def _selects(engine: Engine, definition: Definition, found: RecordedDelivery) -> bool:
    """Whether the filter of a definition selects the event; the engine computes it from this event alone."""
    if definition.where is None:
        return True
    with scratch() as directory:
        file = directory / "event.ndjson.zst"
        file.write_bytes(zstandard.ZstdCompressor().compress(found.line + b"\n"))
        window = _bucket(definition, found.delivery.event_instant)
        with engine.computation(Inputs([file], 1), [definition], window) as computation:
            return any(row.inputs for row in computation.rows())
