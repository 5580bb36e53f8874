"""Suspects: events that say what an earlier one said, a moment later or at the same time under another idempotency key.
Perhaps retries with a new time or key.

That is a guess about what a producer did, so suspects are listed and never counted as duplicates. DuckDB finds the
events that have a neighbour in time; of those alone the payloads are read, and compared as identity compares them: by
their canonical JSON, so that key order, white space and how a number is written do not matter. Of events at the same
time the one that was recorded first is the earlier one: what comes later never makes it a suspect.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from pik.errors import Damaged, NotHeld
from pik.model.delivery import Delivery, Filter, read_delivery
from pik.model.duration import format_duration
from pik.model.identity import read_payload
from pik.model.instant import DAY, MIN_INSTANT
from pik.model.path import EventPath
from pik.model.scenario import RETRIED_WITHIN
from pik.model.window import Window
from pik.ports.engine import DeliveryFiles, Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.objects import raw_lines, segment_lines
from pik.rawlog.selection import NO_OVERRIDES, Overrides, Selection
from pik.runtime.storage import sort_bounded
from pik.usecases import Listing
from pik.usecases.availability import expect_held
from pik.usecases.inspect.count_events import FIELDS, time_group, value_at
from pik.usecases.inspect.duplicates import counts_of

HELD = 100_000
"""Events whose payloads are compared at a time, about."""

_COLUMNS = ("event_id", "source", "event_type", "entity_id", "event_ns", "batch_id", "seq")

_PLACE = {name: place for place, name in enumerate(_COLUMNS)}

SUSPECT_COLUMNS = (*_COLUMNS, "received_ns")
"""The columns that `suspects_in` reads."""


@dataclass(frozen=True, slots=True)
class SuspectRule:
    """What makes an event a suspect: another one of the same source, type and entity, at most `within` nanoseconds
    before it or at the same time and recorded before it, with the same payload, or where there are paths with the same
    values there; with `any_source` also one of another source.

    Two events with the same time and payload differ in their idempotency keys: without, they are one event.
    """

    within: int = RETRIED_WITHIN
    same: tuple[EventPath, ...] = ()
    any_source: bool = False

    @property
    def owner(self) -> tuple[str, ...]:
        """The columns that are equal in both."""
        return ("event_type", "entity_id") if self.any_source else ("source", "event_type", "entity_id")

    def __str__(self) -> str:
        same = ", ".join(path.text for path in self.same)
        equal = f"entity and {same}" if same else "entity and payload (as JSON values)"
        source = "any source; same" if self.any_source else "same source,"
        return f"{source} type, {equal}, 0s to {format_duration(self.within)} apart"


@dataclass(frozen=True, slots=True)
class SuspectRow:
    """An event that looks like the one before it, and which that is. Times and `distance` in nanoseconds.

    `values` are the JSON of what the paths find in the suspect, `earlier_values` in the event before it.
    """

    event_id: str
    event_time: int
    source: str
    event_type: str
    entity_id: str
    batch_id: str
    seq: int
    earlier_event_id: str
    earlier_time: int
    earlier_source: str
    earlier_batch_id: str
    earlier_seq: int
    values: tuple[bytes, ...] = ()
    earlier_values: tuple[bytes, ...] = ()

    @property
    def distance(self) -> int:
        """Nanoseconds between the two."""
        return self.event_time - self.earlier_time


@dataclass(frozen=True, slots=True)
class SuspectTotals:
    """How many suspects there are, and whether a limit left some out.

    `incomparable` events have a neighbour in time, but nothing at one of the paths that must be equal. `cut` says that
    events before the window are not held, and so were not compared with those at its beginning.
    """

    suspects: int
    truncated: bool
    incomparable: int
    cut: bool


def list_suspects(
    store: Store,
    engine: Engine,
    wanted: Filter,
    rule: SuspectRule,
    *,
    paths: Sequence[EventPath] = (),
    limit: int | None = None,
    overrides: Overrides = NO_OVERRIDES,
) -> Listing[SuspectRow, SuspectTotals]:
    """List the suspects among the events that the filter selects, by event_time and event_id, each with what the paths
    find; with a limit the first ones.

    Raises NotHeld, and while iterating Damaged, and UsageError for a path that cannot be evaluated.
    """
    reached = suspects_reach(store, wanted, rule)
    search = _Search(wanted, rule, tuple(paths))
    cut = reached == wanted.window and wanted.window.start > MIN_INSTANT

    def listed() -> Generator[SuspectRow, None, SuspectTotals]:
        count = 0
        with (
            gather_deliveries(Selection(store, reached, wanted.entities, overrides)) as files,
            engine.tables(files, SUSPECT_COLUMNS, reached, wanted.entities) as tables,
        ):
            for row in search.suspects(files, tables):
                count += 1
                if limit is None or count <= limit:
                    yield row
        return SuspectTotals(count, limit is not None and count > limit, search.incomparable, cut)

    return Listing(listed())


def suspects_reach(store: Store, wanted: Filter, rule: SuspectRule) -> Window:
    """Return the filter's window with the events before it that those at its beginning are compared with, as far as the
    store holds them. Raises NotHeld."""
    expect_held(store, wanted.window, wanted.entities)
    reached = Window(max(wanted.window.start - rule.within, MIN_INSTANT), wanted.window.end)
    try:
        expect_held(store, reached, wanted.entities)
    except NotHeld:
        return wanted.window
    return reached


def suspects_in(files: DeliveryFiles, tables: Tables, wanted: Filter, rule: SuspectRule) -> Iterator[SuspectRow]:
    """Yield the suspects by event_time and event_id among the events of these files, which are in the tables with the
    SUSPECT_COLUMNS, for the `suspects_reach` and the filter's entities. Raises Damaged."""
    return _Search(wanted, rule).suspects(files, tables)


@dataclass(frozen=True, slots=True)
class SuspectGroup:
    """Suspects counted under one value of what they are grouped by."""

    group: str
    suspects: int


def count_suspects(
    store: Store,
    engine: Engine,
    wanted: Filter,
    rule: SuspectRule,
    by: str | EventPath,
    *,
    limit: int | None = None,
    overrides: Overrides = NO_OVERRIDES,
) -> Listing[SuspectGroup, SuspectTotals]:
    """Count the suspects by source, type, entity, batch, day or hour, or by what a path finds in them, most first.
    Raises as `list_suspects` does."""
    paths = () if isinstance(by, str) else (by,)
    found = list_suspects(store, engine, wanted, rule, paths=paths, overrides=overrides)
    return Listing(_groups(found, by, limit))


def _groups(
    found: Listing[SuspectRow, SuspectTotals], by: str | EventPath, limit: int | None
) -> Generator[SuspectGroup, None, SuspectTotals]:
    groups = 0
    counts = counts_of(_group(row, by) for row in found)
    for name, count in sort_bounded(counts, lambda one: (-one[1], one[0])):
        groups += 1
        if limit is None or groups <= limit:
            yield SuspectGroup(name, count)
    return replace(found.summary, truncated=limit is not None and groups > limit)


def _group(row: SuspectRow, by: str | EventPath) -> str:
    if isinstance(by, EventPath):
        return row.values[0].decode()
    return str(getattr(row, FIELDS[by])) if by in FIELDS else time_group(by, row.event_time)


@dataclass(frozen=True, slots=True)
class _Content:
    """What is compared of an event (None: it cannot be), what the paths find in it, and its block, by batch and
    ingest_time."""

    key: bytes | None
    values: tuple[bytes, ...]
    block: tuple[str, str]


@dataclass(slots=True)
class _Search:
    wanted: Filter
    rule: SuspectRule
    paths: tuple[EventPath, ...] = ()
    incomparable: int = 0

    def suspects(self, files: DeliveryFiles, tables: Tables) -> Iterator[SuspectRow]:
        """Yield them by time and event_id."""
        tables.keep("neighbour", *_neighbours(self.wanted, self.rule))
        for part in _parts(tables, self.wanted.window):
            where = "event_ns >= ? AND event_ns < ?"
            bounds = [part.start - self.rule.within, part.end]
            contents = self._contents(tables, files, where, bounds, part)
            columns = ", ".join(_COLUMNS)
            rows = tables.rows(
                f"SELECT {columns} FROM neighbour WHERE {where} ORDER BY {', '.join(self.rule.owner)}, event_ns",
                bounds,
            )
            pairs = self._pairs(_in_order(rows, self.rule, contents, files), contents, part)
            yield from sort_bounded(pairs, lambda row: (row.event_time, row.event_id))

    def _contents(
        self, tables: Tables, files: DeliveryFiles, where: str, bounds: list[int], part: Window
    ) -> dict[str, _Content]:
        """Return the contents of the neighbours in these bounds, by event_id. Raises Damaged if one is not in the
        files."""
        columns = "event_id, batch_id, seq, entity_id, event_ns, received_ns"
        found = tables.rows(f"SELECT {columns} FROM neighbour WHERE {where}", bounds)
        places: dict[bytes, tuple[str, int]] = {}
        times: dict[str, int] = {}
        entities: defaultdict[tuple[str, int], set[str]] = defaultdict(set)  # by what segments are of
        for event_id, batch_id, seq, entity_id, event_ns, received_ns in found:
            places[event_id.encode()] = batch_id, seq
            times[event_id] = event_ns
            entities[batch_id, received_ns // DAY].add(entity_id)
        contents: dict[str, _Content] = {}
        for line in _lines(files, entities, places) if places else ():
            delivery = read_delivery(line)
            if places[delivery.event_id.encode()] == (delivery.batch_id, delivery.seq):
                key = self._key(delivery, times[delivery.event_id] in part)
                values = tuple(value_at(path, delivery) for path in self.paths)
                contents[delivery.event_id] = _Content(key, values, (delivery.batch_id, delivery.ingest_time))
        if len(contents) < len(places):
            raise Damaged(f"raw has {len(contents):,} of {len(places):,} events", hint="pik verify --full")
        return contents

    def _key(self, delivery: Delivery, is_in_part: bool) -> bytes | None:
        if not self.rule.same:
            canonical = read_payload(bytes(delivery.payload))[0]
        else:
            found = [value_at(path, delivery) for path in self.rule.same]
            if b"null" in found:
                self.incomparable += is_in_part
                return None
            canonical = b"\n".join(found)
        return sha256(canonical).digest()[:16]

    def _pairs(
        self, rows: Iterable[tuple[Any, ...]], contents: dict[str, _Content], part: Window
    ) -> Iterator[SuspectRow]:
        """Yield each event in this part that has an earlier one of the same content within reach; the rows come in
        order of owner, time, and recording. Of several earlier ones it is the latest."""
        owner: tuple[str, ...] | None = None
        latest: dict[bytes, tuple[Any, ...]] = {}
        last = 0
        for row in rows:
            event_id, source, event_type, entity_id, time, batch_id, seq = row
            its_owner = row[_PLACE[self.rule.owner[0]] : _PLACE["entity_id"] + 1]
            if its_owner != owner or time - last > self.rule.within:
                owner, latest = its_owner, {}
            last = time
            content = contents[event_id]
            if content.key is None:
                continue
            before = latest.get(content.key)
            latest[content.key] = row
            if before is None or time - before[4] > self.rule.within or time not in part:
                continue
            values = content.values, contents[before[0]].values
            earlier = before[0], before[4], before[1], before[5], before[6]
            yield SuspectRow(event_id, time, source, event_type, entity_id, batch_id, seq, *earlier, *values)


def _in_order(
    rows: Iterable[tuple[Any, ...]], rule: SuspectRule, contents: Mapping[str, _Content], files: DeliveryFiles
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows, which come by owner and time, with those of the same owner and time in recording order."""
    recorded: dict[tuple[str, str], int] | None = None
    for _, group in groupby(rows, key=itemgetter(*(_PLACE[name] for name in (*rule.owner, "event_ns")))):
        tied = list(group)
        if len(tied) > 1:
            if recorded is None:
                recorded = _recorded(files, {content.block for content in contents.values()})
            moments = recorded
            tied.sort(key=lambda row: (moments[contents[row[0]].block], row[5], row[6]))
        yield from tied


def _recorded(files: DeliveryFiles, blocks: Container[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return when the index recorded these blocks."""
    with open(files.blocks, encoding="ascii") as lines:
        every = (line.split(",") for line in lines)
        return {(batch, ingested): int(at) for batch, ingested, at in every if (batch, ingested) in blocks}


def _lines(
    files: DeliveryFiles, entities: Mapping[tuple[str, int], Collection[str]], wanted: Container[bytes]
) -> Iterator[bytes]:
    """Yield the lines whose event_id is wanted. Their entities are given by batch and day, so that little else is
    read."""
    for segment, path in zip(files.segments, files.files, strict=False):
        if names := entities.get((segment.batch_id, segment.day)):
            yield from segment_lines(path, segment, sorted(names), wanted)
    yield from raw_lines(files.files[len(files.segments) :], wanted)


def _neighbours(wanted: Filter, rule: SuspectRule) -> tuple[str, list[object]]:
    """Return the SQL of the events with another one of the same owner within reach, and its parameters."""
    chosen = {"source": wanted.source, "event_type": wanted.event_type}
    conditions = [f"{name} = ?" for name, value in chosen.items() if value is not None]
    parameters: list[object] = [value for value in chosen.values() if value is not None]
    # One number sorts faster than three texts. Where two owners have the same one, they are only compared in vain.
    owner, where = f"hash({', '.join(rule.owner)})", " AND ".join(conditions) or "true"
    sql = (
        "WITH near AS MATERIALIZED (SELECT owner, unnest([before, event_ns]) AS event_ns FROM (SELECT owner, event_ns,"
        " lag(event_ns) OVER (PARTITION BY owner ORDER BY event_ns) AS before"
        f" FROM (SELECT {owner} AS owner, event_ns FROM events WHERE {where})) WHERE event_ns - before <= ?)"
        f" SELECT {', '.join(_COLUMNS)}, received_ns FROM events WHERE {where}"
        f" AND event_ns IN (SELECT event_ns FROM near) AND ({owner}, event_ns) IN (FROM near)"
    )
    return sql, [*parameters, rule.within, *parameters]


def _parts(tables: Tables, window: Window) -> Iterator[Window]:
    """Yield the window in parts of about HELD neighbours each."""
    [[count]] = tables.rows("SELECT count(*) FROM neighbour")
    cuts: list[int] = []
    if count > HELD:
        sql = (
            "SELECT min(event_ns) FROM (SELECT event_ns, ntile(?) OVER (ORDER BY event_ns) AS part FROM neighbour "
            "WHERE event_ns >= ?) GROUP BY part ORDER BY 1"
        )
        cuts = [cut for [cut] in tables.rows(sql, [count // HELD + 1, window.start])][1:]
    for start, end in pairwise([window.start, *dict.fromkeys(cuts), window.end]):
        yield Window(start, end)
