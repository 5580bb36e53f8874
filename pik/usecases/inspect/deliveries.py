"""All deliveries of one event, what corrections say of them, and what counted it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import attrgetter

import zstandard
from msgspec import structs

from pik.errors import CANDIDATES, NotFound, NotHeld, UsageError, ambiguous_id, command
from pik.model.aggregate import Aggregate
from pik.model.batch import Location, Segment, Verdict
from pik.model.delivery import Delivery
from pik.model.instant import day_text, full_instant, parse_instant
from pik.model.metric import ALL_ENTITIES, Definition
from pik.model.window import Window, covered
from pik.ports.engine import Engine, Inputs
from pik.ports.store import Store
from pik.rawlog.objects import damaged, frame_lines, parse
from pik.rawlog.sealed_records import parts
from pik.rawlog.selection import RecordedDelivery
from pik.runtime.storage import scratch
from pik.usecases.availability import expect_pulled, has_expired
from pik.usecases.inspect.story import Chapter, EventLog, EventState, chapters, event_log, place_of
from pik.usecases.metrics.computation import sound
from pik.usecases.metrics.definitions import Scales
from pik.usecases.metrics.winners import Winners

_HEX = re.compile(r"[0-9a-f]{1,32}")

_ASKED = 100
"""Segments that the index is asked for at once."""


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery of the event: where it is in raw, and when it came (`ingest_time`, `lag` in nanoseconds).

    `event_time_original` is the text of its time as it came, None if that was canonical. Corrections hold: `event_time`
    is when it happened, `received_event_time` when it says so itself (None: then), `corrections` are the ids of those
    that moved it, chose whether it counts, or took it out. Where several files are one batch, `file` and `record` are
    where it comes from.
    """

    kind: str
    batch_id: str
    seq: int
    event_time: int
    ingest_time: int
    lag: int
    content_hash: str
    segment: str
    frame: int
    line: bytes
    event_time_original: str | None = None
    counts: bool = True
    received_event_time: int | None = None
    corrections: tuple[str, ...] = ()
    file: str | None = None
    record: int | None = None


@dataclass(frozen=True, slots=True)
class EventDetail:
    """An event by the delivery of it that counts (if none does: by the accepted one), its deliveries (the accepted one
    first), what happened to it, and the aggregates that count it.

    `aggregates` are current ones of its entity and bucket, computed when the event was in the index already, by a
    definition whose filter selects it. None: unknown, in a copy into which another day of the event was pulled, but not
    that of its accepted delivery. Of `imported` metrics the current value was imported from a file, so it is not known
    whether it counts the event. `left_out` deliveries are not shown because of a limit.
    """

    event: Delivery
    deliveries: tuple[DeliveryRow, ...]
    aggregates: tuple[Aggregate, ...] | None
    left_out: int = 0
    imported: tuple[str, ...] = ()
    counts: bool = True
    received_event_time: int | None = None
    corrections: tuple[str, ...] = ()
    story: tuple[Chapter, ...] = ()


def show_event(store: Store, engine: Engine, prefix: str, limit: int | None = None) -> EventDetail:
    """Return the event whose id starts with `prefix`, with at most `limit` of its deliveries.

    Raises UsageError if that is not an id, NotFound if it fits no event or several, NotHeld if the store does not hold
    all of its deliveries.
    """
    event_id = whole_id(store, prefix)
    places = store.index.deliveries(event_id, limit)
    found = list(read_locations(store, places))
    left_out = 0
    if len(found) == limit:
        day = places[0].day if found[0].delivery.idempotency_key is None else None
        (duplicates,) = store.repeats.counts([(day, event_id)])
        left_out = 1 + duplicates - len(found)
    log = event_log(store, engine, event_id, found[0].delivery.entity_id, places, all_there=not left_out)
    state = log.state()
    rows = tuple(_row(one, place, state) for one, place in zip(found, places, strict=True))
    event, line = found[0].delivery, rows[0]
    if state.counting is not None and state.counting != places[0]:
        [counting] = read_locations(store, [state.counting])
        event, line = counting.delivery, _row(counting, state.counting, state)
    event = structs.replace(event, event_time=full_instant(line.event_time))
    shown = EventDetail(
        event,
        rows,
        None,
        left_out,
        counts=state.counting is not None,
        received_event_time=line.received_event_time,
        corrections=line.corrections,
    )
    received = {place: one.delivery.event_instant for one, place in zip(found, places, strict=True)}
    if not _is_pulled(store, found):
        return replace(shown, story=chapters(log, received))
    values = list(_counting(store, engine, found, log))
    imported = tuple(dict.fromkeys(one.computed.metric for one in values if one.is_imported))
    aggregates = tuple(one for one in values if not one.is_imported)
    story = chapters(log, received, aggregates)
    return replace(shown, aggregates=aggregates, imported=imported, story=story)


def _row(found: RecordedDelivery, location: Location, state: EventState) -> DeliveryRow:
    delivery, place = found.delivery, place_of(location)
    received = delivery.event_instant
    time = state.times.get(place, received)
    return DeliveryRow(
        found.kind,
        delivery.batch_id,
        delivery.seq,
        time,
        parse_instant(delivery.ingest_time),
        delivery.lag + received - time,
        delivery.content_hash,
        found.segment.key,
        location.frame,
        found.line,
        delivery.event_time_original,
        state.counting == location,
        None if time == received else received,
        state.corrections.get(place, ()),
        delivery.file or None,
        delivery.file_record,
    )


def _is_pulled(store: Store, found: Sequence[RecordedDelivery]) -> bool:
    """Return whether the store, if it is a copy, holds the day of the event's accepted delivery, which comes first.

    With any day of an event, all of its deliveries are pulled. Raises NotHeld if the event is only there because it
    shares a raw object with what was pulled.
    """
    if store.copy is None:
        return True
    pulled, entity = parts(store), found[0].delivery.entity_id
    days = [covered(pulled, Window.of_day(one.segment.day), [entity]) for one in found]
    if not any(days):
        expect_pulled(store, Window.of_day(found[0].segment.day), [entity])
    return days[0]


def whole_id(store: Store, prefix: str) -> str:
    """Return the id of the event whose id starts with `prefix`. Raises UsageError, NotFound."""
    prefix = prefix.lower()
    if not _HEX.fullmatch(prefix):
        error = UsageError(f"{prefix} is not an event id, nor the beginning of one", hint="for event ids: pik events")
        error.sought = ("event", prefix.partition(":")[0])  # of BATCH:SEQ the batch
        raise error
    found = store.index.locate(prefix, limit=CANDIDATES + 1)
    if len(found) != 1:
        raise ambiguous_id("event", prefix, found, hint="for event ids: pik events")
    return found[0]


def read_locations(store: Store, locations: Iterable[Location]) -> Iterator[RecordedDelivery]:
    """Read the deliveries of an event at these locations. A frame that several in a row lie in is read once.

    Raises NotHeld where raw has expired, Damaged if raw does not have a delivery there.
    """
    frames = (list(group) for _, group in groupby(locations, key=attrgetter("segment_key", "frame")))
    for located, segment in _with_segments(store, frames):
        key, number = segment.key, located[0].frame
        event_id = located[0].event_id
        lines = frame_lines(store.raw, segment, segment.frames[number])
        parsed = [(parse(key, line), line) for line in lines if event_id.encode() in line]
        found = {delivery.seq: (delivery, line) for delivery, line in parsed if delivery.event_id == event_id}
        for place in located:
            if place.seq not in found:
                raise damaged(key, f"delivery {place.seq} is not in frame {number}")
            delivery, line = found[place.seq]
            yield RecordedDelivery(delivery, place.kind, segment, line, place.kind == Verdict.ACCEPTED)


def _with_segments(store: Store, groups: Iterator[list[Location]]) -> Iterator[tuple[list[Location], Segment]]:
    """Yield groups of locations of one segment each, with that. Raises NotFound, and NotHeld if it has expired."""
    while some := list(islice(groups, _ASKED)):
        segments = store.index.segments_of([located[0] for located in some])
        for located in some:
            yield located, _expect_held(store, located[0], segments.get(located[0].segment_key))


def _expect_held(store: Store, location: Location, segment: Segment | None) -> Segment:
    """Return the segment of a location. Raises NotFound, and NotHeld if it has expired."""
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


def _counting(store: Store, engine: Engine, found: Sequence[RecordedDelivery], log: EventLog) -> Iterator[Aggregate]:
    """Yield the current aggregates that have the event among their inputs, and the imported ones that may have it:
    each counts what was known, and what corrections said, when its run was planned."""
    read = {(one.delivery.batch_id, one.delivery.seq): one for one in found}
    winners, scales, entity_id = Winners(store), Scales(store.metrics), found[0].delivery.entity_id

    def counted(known_until: int | None, until: int | None) -> RecordedDelivery | None:
        """Return the delivery that counts for a run, at the time at which it does."""
        state = log.state(until, known_until)
        if state.counting is None:
            return None
        place = place_of(state.counting)
        if place not in read:
            read[place] = next(read_locations(store, [state.counting]))
        one = read[place]
        return _moved(one, state.times.get(place, one.delivery.event_instant))

    ever = [counted(None, until) for until in ((0, *log.moments) if log.log else (None,))]
    instants = {one.delivery.event_instant for one in ever if one is not None}
    for metric in store.metrics.latest():
        # Earlier versions may have had other buckets, and what they made may be current still.
        definitions = {one.version: one.definition for one in store.metrics.versions(metric.name)}
        seen: set[int] = set()
        for instant in sorted(instants):
            start = min(definition.buckets.start_of(instant) for definition in definitions.values())
            entity = ALL_ENTITIES if metric.is_over_all else entity_id
            for aggregate in sound(store.aggregates.current(metric.name, Window(start, instant + 1), [entity])):
                definition, bucket = definitions[aggregate.metric_version], aggregate.computed.bucket
                if bucket in seen or instant not in definition.buckets.around(bucket):
                    continue
                if aggregate.is_imported:
                    one = counted(None, None)
                else:
                    planned = winners.planned(aggregate.run_id) if log.log else None
                    one = counted(aggregate.known_until, planned)
                if one is not None and one.delivery.event_instant in definition.buckets.around(bucket):
                    seen.add(bucket)
                    if _selects(engine, definition, one):
                        yield scales.shown(aggregate)


def _moved(found: RecordedDelivery, time: int) -> RecordedDelivery:
    """Return the delivery as one that happened at this time."""
    received, text = found.delivery.event_time, full_instant(time)
    if text == received:
        return found
    return replace(found, delivery=structs.replace(found.delivery, event_time=text), received_event_time=received)


def _selects(engine: Engine, definition: Definition, found: RecordedDelivery) -> bool:
    """Return whether the filter of a definition selects the event; the engine computes it from this event alone."""
    if definition.where is None:
        return True
    with scratch() as directory:
        file = directory / "event.ndjson.zst"
        file.write_bytes(zstandard.ZstdCompressor().compress(found.corrected_line + b"\n"))
        window = definition.buckets.around(found.delivery.event_instant)
        with engine.computation(Inputs([file], 1), [definition], window) as computation:
            return any(row.inputs for row in computation.rows())
