"""The deliveries of a republish in the order in which they are sent: by entity, then by the time that counts.

The engine says which deliveries count, and when they happened; their lines come from raw. Lines are put down in a
temporary file and only their places are sorted, so that memory does not depend on how long the lines are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import BinaryIO, NamedTuple

from msgspec import structs

from pik.model.batch import Verdict, with_names
from pik.model.delivery import Delivery, Filter
from pik.model.instant import DAY
from pik.model.republish import RepublishRequest, SendingPlace
from pik.ports.engine import Engine, Tables
from pik.ports.store import Store
from pik.rawlog.corrected import Corrected, concerning
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.objects import frame_lines, parse
from pik.rawlog.selection import Overrides, Selection
from pik.runtime import Progress, showing
from pik.runtime.storage import Sorter, scratch
from pik.usecases.availability import expect_held
from pik.usecases.inspect.effects import EFFECT_COLUMNS
from pik.usecases.inspect.where import Places, matching

ID = 26
"""Bytes of a batch's id: a ULID."""


@dataclass(frozen=True, slots=True)
class SentDelivery:
    """A delivery that is to be sent: its place in the order, its raw line, read back, and its verdict."""

    place: SendingPlace
    delivery: Delivery
    verdict: Verdict


@dataclass(slots=True)
class SelectionSize:
    """What a list comes to: how many events (or deliveries) of how many entities, sources, types and days; corrections
    moved `moved` of them, and took `taken_out` others out (only counted when it is planned); `size` is the bytes of
    their raw lines, `digest` tells one list from another."""

    events: int = 0
    entities: int = 0
    moved: int = 0
    taken_out: int = 0
    size: int = 0
    first: int | None = None
    last: int | None = None
    sources: Mapping[str, int] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    days: set[int] = field(default_factory=set)
    _xor: int = 0

    @property
    def digest(self) -> str:
        """The XOR of the digests of all places, in hex."""
        return f"{self._xor:032x}"

    def add(self, place: SendingPlace, size: int) -> None:
        """Count a delivery."""
        self.events += 1
        self.size += size
        self.first = place.event_time if self.first is None else min(self.first, place.event_time)
        self.last = place.event_time if self.last is None else max(self.last, place.event_time)
        self.days.add(place.event_time // DAY)
        text = f"{place.event_id} {place.event_time} {place.batch_id} {place.seq}"
        self._xor ^= int.from_bytes(sha256(text.encode()).digest()[:16])


_Sorted = tuple[str, int, str, str, int, str, int, int]
"""The fields of a SendingPlace, the verdict, and where the line is in the file: offset and length."""


class Known(NamedTuple):
    """The latest recording of a delivery, and of a correction (0: none), that a list knows."""

    deliveries: int
    corrections: int


@dataclass(slots=True)
class OrderedDeliveries:
    """A list, to be iterated over in order any number of times, one after the other, and what it knows."""

    extent: SelectionSize
    known: Known
    _lines: BinaryIO
    _sorter: Sorter[_Sorted]

    def __iter__(self) -> Iterator[SentDelivery]:
        return self.after(None, lambda _: False)

    def after(self, cursor: SendingPlace | None, is_due: Callable[[tuple[str, int]], bool]) -> Iterator[SentDelivery]:
        """Yield the deliveries after the cursor and, in their order, those before it whose batch and seq are due."""
        for entity, event_time, event_id, batch_id, seq, verdict, offset, length in self._sorter:
            place = SendingPlace(entity, event_time, event_id, batch_id, seq)
            if cursor is None or place > cursor or is_due((batch_id, seq)):
                self._lines.seek(offset)
                yield SentDelivery(place, parse("", self._lines.read(length)), Verdict(verdict))


@contextmanager
def order_deliveries(
    store: Store, engine: Engine, request: RepublishRequest, progress: Progress, known: Known | None = None
) -> Iterator[OrderedDeliveries]:
    """Provide what the request selects among the deliveries recorded until then, under the corrections recorded until
    then (None: until now). As received, no correction holds. Raises UsageError for a condition that is not valid,
    NotHeld, Damaged, StoreError."""
    window, entities = request.window, request.entities
    expect_held(store, window, entities)
    is_planned = known is None
    if known is None:
        corrections = max((one.recorded_at for one in store.corrections.recorded()), default=0)
        known = Known(0, 0 if request.as_received else corrections)
        overrides = Overrides(corrected_until=known.corrections)
        known = known._replace(deliveries=Selection(store, window, entities, overrides).known_until)
    selection = Selection(store, window, entities, Overrides(until=known.deliveries, corrected_until=known.corrections))
    chosen = _chosen(store, engine, request, selection)
    with scratch() as directory, open(directory / "lines", "w+b") as lines:
        taken_out = _taken_out(store, engine, request, selection) if is_planned and known.corrections else 0
        extent = SelectionSize(taken_out=taken_out)
        ordered = OrderedDeliveries(extent, known, lines, Sorter(key=itemgetter(0, 1, 2, 3, 4)))
        with showing(progress, "reading raw", len(chosen), "deliveries"):
            _read(selection, chosen, ordered, progress)
        yield ordered


def _read(selection: Selection, chosen: Chosen, ordered: OrderedDeliveries, progress: Progress) -> None:
    """Read the lines of the chosen deliveries."""
    extent, lines, sorter = ordered.extent, ordered._lines, ordered._sorter
    for segment, frames in selection.needed(whole_days=True):
        verdicts = selection.store.index.skipped(segment)
        for frame in frames:
            before, sources, types = extent.events, Counter[str](), Counter[str]()
            for line in frame_lines(selection.store.raw, segment, frame):
                delivery = parse(segment.key, line)
                batch_id, seq = delivery.batch_id, delivery.seq
                event_time = chosen.event_time(batch_id, seq)
                if event_time is None:
                    continue
                place = SendingPlace(delivery.entity_id, event_time, delivery.event_id, batch_id, seq)
                verdict = verdicts.get(seq, Verdict.ACCEPTED).value
                sorter.add((*structs.astuple(place), verdict, lines.tell(), len(line)))
                lines.write(line)
                extent.add(place, len(line))
                extent.moved += event_time != delivery.event_instant
                sources[delivery.source] += 1
                types[delivery.event_type] += 1
            extent.sources, extent.types = with_names(extent.sources, sources), with_names(extent.types, types)
            progress.advance(extent.events - before)
    extent.entities = sum(1 for _ in groupby(sorter, key=itemgetter(0)))


class Chosen:
    """The deliveries that are to be sent, and when they happened: 16 bytes for each, and 34 for each batch."""

    def __init__(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """Take (batch_id, seq, event_time), ordered by the first two."""
        self._seqs, self._times = array("q"), array("q")
        self._batches, self._starts = bytearray(), array("q")
        self._latest = ("", 0, 0)  # lines of one batch follow one another
        latest = ""
        for batch_id, seq, event_time in rows:
            if batch_id != latest:
                latest = batch_id
                self._batches += batch_id.encode()
                self._starts.append(len(self._seqs))
            self._seqs.append(seq)
            self._times.append(event_time)
        self._starts.append(len(self._seqs))

    def __len__(self) -> int:
        return len(self._seqs)

    def event_time(self, batch_id: str, seq: int) -> int | None:
        """Return the time that counts of a delivery; None if it is not among them."""
        if self._latest[0] != batch_id:
            self._latest = (batch_id, *self._extent(batch_id.encode()))
        _, start, end = self._latest
        at = bisect_left(self._seqs, seq, start, end)
        return self._times[at] if at < end and self._seqs[at] == seq else None

    def _extent(self, batch_id: bytes) -> tuple[int, int]:
        """Return where the deliveries of a batch begin and end."""
        batches = self._batches
        numbers = range(len(batches) // ID)
        number = bisect_left(numbers, batch_id, key=lambda at: bytes(batches[at * ID : (at + 1) * ID]))
        if batches[number * ID : (number + 1) * ID] != batch_id:
            return 0, 0
        return self._starts[number], self._starts[number + 1]


def _chosen(store: Store, engine: Engine, request: RepublishRequest, selection: Selection) -> Chosen:
    places = _meeting(store, engine, request, selection.overrides, duplicates=request.as_received)
    table = "deliveries" if request.as_received else "events"
    with _tables(engine, request, selection, {"batch_id", "seq", "event_ns"}) as (tables, condition, values):
        sql = f"SELECT batch_id, seq, event_ns FROM {table} WHERE {condition} ORDER BY batch_id, seq"
        rows = tables.rows(sql, values)
        return Chosen(row for row in rows if places is None or (row[0], row[1]) in places)


def _taken_out(store: Store, engine: Engine, request: RepublishRequest, selection: Selection) -> int:
    """Return how many events the request would also select if no correction had taken them out."""
    active = selection.corrected.active
    if not concerning(store, active, request.window):
        return 0
    moves = [one for one in active if one.kind.moves]
    only_moved = Overrides(until=selection.overrides.until, corrected=Corrected(store, moves))
    places = _meeting(store, engine, request, only_moved)
    columns = {"batch_id", "seq", *EFFECT_COLUMNS}
    with _tables(engine, request, selection, columns) as (tables, condition, values):
        condition = f"correction IS NOT NULL AND {condition}"
        sql = (
            f"SELECT batch_id, seq FROM deliveries WHERE {condition} AND verdict = 'accepted'"
            f" AND event_id NOT IN (SELECT event_id FROM events WHERE {condition})"
        )
        rows = tables.rows(sql, values * 2)
        return sum(1 for row in rows if places is None or (row[0], row[1]) in places)


def _meeting(
    store: Store, engine: Engine, request: RepublishRequest, overrides: Overrides, *, duplicates: bool = False
) -> Places | None:
    """Return the deliveries that meet the request's condition; None: it has none."""
    if request.where is None:
        return None
    wanted = Filter(request.window, request.entities, request.source, request.event_type)
    return matching(store, engine, wanted, request.where, duplicates=duplicates, overrides=overrides)


@contextmanager
def _tables(
    engine: Engine, request: RepublishRequest, selection: Selection, columns: set[str]
) -> Iterator[tuple[Tables, str, list[str]]]:
    """Provide tables with these columns of what is selected, and the condition for the source and the type with its
    values."""
    given = {"source": request.source, "event_type": request.event_type}
    given = {name: text for name, text in given.items() if text is not None}
    condition = " AND ".join(f"{name} = ?" for name in given) or "true"
    with (
        gather_deliveries(selection) as files,
        engine.tables(files, columns | given.keys(), request.window, request.entities) as tables,
    ):
        yield tables, condition, [text for text in given.values() if text is not None]
