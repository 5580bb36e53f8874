"""What an assumption would do if it were recorded: to which deliveries, how many events would not count, move or count
by another delivery, and which corrections are about the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pik.model.correction import Correction, CorrectionKind, active
from pik.model.instant import day_text
from pik.model.scenario import Assumption, WithoutBatch
from pik.ports.engine import Tables
from pik.ports.store import Store
from pik.rawlog.corrected import first_known, withdrawn_by
from pik.runtime.storage import Spool
from pik.usecases.correct.hits import EVENT, KINDS, Hits, day_sql, listed_by
from pik.usecases.correct.search import add_conflicting

_SHOWN = 5
"""Names of each kind that a plan shows: those with the most deliveries."""


@dataclass(frozen=True, slots=True)
class NameCount:
    """How many of the deliveries have this name."""

    name: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Facet:
    """The sources, types, entities or days of the deliveries: how many there are, and those with the most of them, the
    days all and in order."""

    by: str
    distinct: int
    top: tuple[NameCount, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Another correction that is about some of the same deliveries, and how many these and their events are. Where it
    is planned by the same command, `correction` is None and `number` its place there, from 1."""

    kind: CorrectionKind
    correction: Correction | None
    number: int | None
    deliveries: int
    events: int


@dataclass(frozen=True, slots=True)
class PlannedCorrection:
    """An assumption, resolved, that is to be recorded, and the deliveries that it is about.

    Of their `events`, those `taken_out` count no more, those `moved` count at another time, and those `replaced` by
    another delivery; the others stay as they are. `overlaps` are with corrections that hold, in the order of the log,
    then with those before it in the command. `collisions` counts moved events that are then equal to another one, by
    source, type, entity, time and payload; `partial` events that are hit in some of their deliveries only;
    `repeated` events whose new delivery has the content of the accepted one, as the one that counts now has. `farther`
    counts deliveries that are moved away from when they were received, where others are moved towards it.
    """

    assumption: Assumption
    kind: CorrectionKind
    deliveries: int
    events: int
    taken_out: int
    moved: int
    replaced: int
    facets: tuple[Facet, ...]
    overlaps: tuple[Overlap, ...]
    collisions: int
    partial: int
    repeated: int
    farther: int

    @property
    def unchanged(self) -> int:
        """How many of the events stay as they are."""
        return self.events - self.taken_out - self.moved - self.replaced

    @property
    def overridden(self) -> list[str]:
        """The ids of the corrections of the same step that do not hold for some of the deliveries any more."""
        return [
            one.correction.correction_id
            for one in self.overlaps
            if one.correction is not None and _same_step(one.kind, self.kind)
        ]


class Hit(NamedTuple):
    """A delivery that another assumption of the same command is about."""

    number: int
    event_id: str
    batch_id: str
    seq: int


@dataclass(slots=True)
class EarlierHits:
    """The deliveries that the assumptions before one are about, of several in a command."""

    kinds: list[CorrectionKind] = field(default_factory=list)
    hits: Spool[Hit] = field(default_factory=lambda: Spool(Hit))

    def add(self, hit: Hits) -> None:
        """Add those of the next assumption."""
        self.kinds.append(hit.kind)
        for row in hit.tables.rows("SELECT event_id, batch_id, seq FROM hit"):
            self.hits.add(Hit(len(self.kinds), *row))


def related(store: Store, assumption: Assumption) -> list[Correction]:
    """Return the corrections that hold and matter for what one that records this assumption does: those of the same
    step, and those that take events out."""
    kind = KINDS.get(type(assumption))
    return [one for one in active(store.corrections.recorded()) if kind is not None and _matters(one.kind, kind)]


def planned(store: Store, assumption: Assumption, hit: Hits, until: int, earlier: EarlierHits) -> PlannedCorrection:
    """Return what recording this assumption would do, after `earlier` ones; collisions are not counted. The table
    `listed` has what related corrections list. Raises Damaged and EngineError."""
    tables = hit.tables
    taken_out, moved, replaced = _effects(store, assumption, hit)
    return PlannedCorrection(
        assumption,
        hit.kind,
        hit.deliveries,
        hit.events,
        taken_out,
        moved,
        replaced,
        (*(_facet(tables, by, column) for by, column in _FACETS.items()), _days(tables)),
        tuple(_overlaps(related(store, assumption), hit, earlier)),
        0,
        _partial(store, hit, until),
        _repeated(hit),
        _farther(hit),
    )


def _farther(hit: Hits) -> int:
    if not hit.kind.moves:
        return 0
    then = "abs(lag_ns - (time_ns - event_ns))"
    sql = f"SELECT count(*) FILTER ({then} > abs(lag_ns)), count(*) FILTER ({then} < abs(lag_ns)) FROM hit"
    [[farther, nearer]] = hit.tables.rows(sql)
    return int(farther) if nearer else 0


_FACETS = {"source": "source", "type": "event_type", "entity": "entity_id"}


def _facet(tables: Tables, by: str, column: str) -> Facet:
    [[distinct]] = tables.rows(f"SELECT count(DISTINCT {column}) FROM hit")
    rows = tables.rows(f"SELECT {column}, count(*) AS n FROM hit GROUP BY 1 ORDER BY n DESC, 1 LIMIT {_SHOWN}")
    return Facet(by, distinct, tuple(NameCount(name, count) for name, count in rows))


def _days(tables: Tables) -> Facet:
    rows = tables.rows(f"SELECT {day_sql('event_ns')}, count(*) FROM hit GROUP BY 1 ORDER BY 1")
    days = tuple(NameCount(day_text(day), count) for day, count in rows)
    return Facet("day", len(days), days)


def _effects(store: Store, assumption: Assumption, hit: Hits) -> tuple[int, int, int]:
    """Return how many events would be taken out, moved, and replaced. Those that count now have one row each."""
    if isinstance(assumption, WithoutBatch):
        return _withdrawn(store, assumption.batch_id, hit.tables)
    if hit.kind.moves:
        is_moved = "events JOIN hit USING (batch_id, seq) WHERE hit.time_ns <> events.event_ns"
        return 0, _count(hit.tables, is_moved), 0
    if hit.kind.chooses:
        is_other = "(events.batch_id, events.seq) <> (hit.batch_id, hit.seq)"
        return 0, 0, _count(hit.tables, f"{hit.counting} JOIN hit USING (event_id) WHERE hit.counts AND {is_other}")
    return _count(hit.tables, f"{hit.counting} SEMI JOIN hit USING (event_id)"), 0, 0


def _withdrawn(store: Store, batch_id: str, tables: Tables) -> tuple[int, int, int]:
    """Return the same for a batch: of its events that count now, the first other delivery that is left counts."""
    withdrawn = {*withdrawn_by(active(store.corrections.recorded())), batch_id}
    tables.add("bequeathed", {"event_id": "VARCHAR", "has_heir": "BOOLEAN"}, _heirs(store, withdrawn))
    of_batch = "events SEMI JOIN hit USING (batch_id, seq)"
    counting = _count(tables, of_batch)
    # The others have their accepted delivery in a batch that stays, unless it is the one that counts.
    without = (
        f"{of_batch} LEFT JOIN bequeathed USING (event_id) WHERE coalesce(NOT has_heir, events.verdict = 'accepted')"
    )
    taken_out = _count(tables, without)
    return taken_out, 0, counting - taken_out


def _heirs(store: Store, withdrawn: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield the events with several deliveries, the accepted one in one of these batches, and whether any is left."""
    for one in sorted(withdrawn):
        for deliveries in store.repeats.repeated_from(one):
            yield deliveries[0].event_id, first_known(deliveries, frozenset(withdrawn), None) is not None


def _repeated(hit: Hits) -> int:
    """Return how many events would count by another delivery with the same content: that of the accepted one."""
    if not hit.kind.chooses:
        return 0
    hit.tables.define("same", "SELECT batch_id, seq FROM place WHERE NOT is_conflict")
    new = "SELECT * FROM hit SEMI JOIN same USING (batch_id, seq) WHERE counts"
    now = f"SELECT * FROM {hit.counting} SEMI JOIN same USING (batch_id, seq)"
    is_other = "(now.batch_id, now.seq) <> (new.batch_id, new.seq)"
    return _count(hit.tables, f"({new}) AS new JOIN ({now}) AS now USING (event_id) WHERE {is_other}")


def _count(tables: Tables, rows: str) -> int:
    [[count]] = tables.rows(f"SELECT count(*) FROM {rows}")
    return int(count)


def _overlaps(log: list[Correction], hit: Hits, earlier: EarlierHits) -> Iterator[Overlap]:
    """Yield the corrections, recorded or before this one in the command, that matter for what this one does: those of
    the same step, and those that take events out."""
    if log:
        hit.tables.define("of_log", listed_by(log))
        for number, deliveries, events in _shared(hit, "of_log", [one.kind for one in log]):
            yield Overlap(log[number].kind, log[number], None, deliveries, events)
    if earlier.kinds:
        columns = {"number": "INTEGER", "event_id": "VARCHAR", "batch_id": "VARCHAR", "seq": "BIGINT"}
        hit.tables.add("earlier", columns, earlier.hits)
        kinds = [CorrectionKind.VERDICT, *earlier.kinds]  # numbers are from 1
        for number, deliveries, events in _shared(hit, "earlier", kinds):
            if _matters(kinds[number], hit.kind) or hit.kind.removes:
                yield Overlap(kinds[number], None, number, deliveries, events)


def _shared(hit: Hits, listed: str, kinds: list[CorrectionKind]) -> list[tuple[int, int, int]]:
    """Return the numbers of those in a table that list some of the deliveries that are hit, each with how many these
    and their events are; one that takes out events is about all deliveries of each."""
    out = [number for number, kind in enumerate(kinds) if CorrectionKind.WITHOUT in (kind, hit.kind)]
    is_out = f"number IN ({', '.join(map(str, out))})" if out else "false"
    rows = hit.tables.rows(
        "SELECT number, count(*), count(DISTINCT event_id) FROM ("
        f"SELECT DISTINCT number, hit.event_id, batch_id, seq FROM {listed} JOIN hit USING (batch_id, seq)"
        f" WHERE NOT {is_out} UNION ALL SELECT number, event_id, hit.batch_id, hit.seq FROM"
        f" (SELECT DISTINCT number, event_id FROM {listed} WHERE {is_out}) JOIN hit USING (event_id)"
        ") GROUP BY 1 ORDER BY 1"
    )
    return [(number, deliveries, events) for number, deliveries, events in rows]


def _matters(other: CorrectionKind, kind: CorrectionKind) -> bool:
    return other.removes or _same_step(other, kind)


def _same_step(one: CorrectionKind, other: CorrectionKind) -> bool:
    return (one.moves and other.moves) or (one.chooses and other.chooses)


def _partial(store: Store, hit: Hits, until: int) -> int:
    """Return how many events are hit in some of their deliveries only."""
    if not hit.kind.moves:
        return 0
    tables = hit.tables
    others = "SELECT event_id FROM deliveries ANTI JOIN hit USING (batch_id, seq)"
    tables.keep("partial", f"SELECT DISTINCT event_id FROM hit SEMI JOIN ({others}) USING (event_id)")
    partial = _count(tables, "partial")
    tables.define("whole", "SELECT hit.* FROM hit ANTI JOIN partial USING (event_id)")
    if add_conflicting(tables, store, "whole", until):
        others = "SELECT event_id FROM conflicting ANTI JOIN hit USING (batch_id, seq)"
        [[more]] = tables.rows(f"SELECT count(DISTINCT {EVENT}) FROM whole SEMI JOIN ({others}) USING (event_id)")
        partial += more
    return partial
