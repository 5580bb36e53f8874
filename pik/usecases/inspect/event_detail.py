"""One event: every delivery, its raw bytes, and which aggregates counted it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import zstandard

from pik.errors import CANDIDATES, NotFound, NotHeld, UsageError, ambiguous_id, command
from pik.model.batch import Location, Segment
from pik.model.delivery import Delivery
from pik.model.instant import DAY, MIN_INSTANT, day_text, parse_instant
from pik.model.metric import Aggregate, Definition
from pik.model.window import Window, covered
from pik.ports.engine import Engine, Inputs
from pik.ports.store import Store
from pik.rawlog.frames import damaged, frame_lines, parse
from pik.rawlog.selection import RecordedDelivery
from pik.rawlog.store_records import parts
from pik.usecases.availability import expect_pulled, has_expired
from pik.usecases.metrics.computation import sound
from pik.usecases.metrics.definitions import Scales

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
    reader = _Reader(store)
    found = [reader.read(place) for place in places]
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


def read_location(store: Store, location: Location) -> RecordedDelivery:
    """Read the delivery at a location. Raises NotHeld if its raw has expired, Damaged if raw does not have it there."""
    return _Reader(store).read(location)


class _Reader:
    """Reads deliveries of one event, which mostly are in the same frame: the last frame is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._place: tuple[str, int] | None = None
        self._found: dict[int, tuple[Delivery, bytes, Segment]] = {}

    def read(self, location: Location) -> RecordedDelivery:
        """Read as `read_location` does."""
        place = location.segment_key, location.frame
        if self._place != place:
            segment = self._segment(location)
            mark = b'"event_id":"%s"' % location.event_id.encode()
            lines = frame_lines(self._store.raw, segment, segment.frames[location.frame])
            parsed = [(parse(segment, line), line, segment) for line in lines if mark in line]
            self._found = {one[0].seq: one for one in parsed if one[0].event_id == location.event_id}
            self._place = place
        if location.seq not in self._found:
            raise damaged(location.segment_key, f"delivery {location.seq} is not in frame {location.frame}")
        delivery, line, segment = self._found[location.seq]
        return RecordedDelivery(delivery, location.kind, segment, line)

    def _segment(self, location: Location) -> Segment:
        """Return the segment of a location. Raises NotFound, and NotHeld if it has expired."""
        store = self._store
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
                and _selects(store, engine, definition, found)
            ):
                yield scales.shown(aggregate)


def _bucket(definition: Definition, instant: int) -> Window:
    """Return the bucket of a definition that holds an instant."""
    return Window(instant, instant + 1).widened(definition.bucket_size)


def _selects(store: Store, engine: Engine, definition: Definition, found: RecordedDelivery) -> bool:
    """Whether the filter of a definition selects the event; the engine computes it from this event alone."""
    if definition.where is None:
        return True
    with store.raw.scratch() as scratch:
        file = scratch / "event.ndjson.zst"
        file.write_bytes(zstandard.ZstdCompressor().compress(found.line + b"\n"))
        window = _bucket(definition, found.delivery.event_instant)
        return any(row.inputs for row in engine.compute(Inputs([file], 1), [definition], window))
