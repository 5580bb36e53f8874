"""What duplicates and suspects change: the values of a field, and the metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace

from pik.model.batch import Verdict
from pik.model.delivery import Delivery, Filter
from pik.model.path import EventPath
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.selection import NO_OVERRIDES, Overrides
from pik.runtime import SILENT, Progress
from pik.runtime.storage import sort_bounded
from pik.usecases import Listing
from pik.usecases.inspect.count_events import value_at
from pik.usecases.inspect.deliveries import read_locations
from pik.usecases.inspect.duplicates import (
    DuplicateFilter,
    accepted_deliveries,
    counts_of,
    selected_duplicates,
)
from pik.usecases.inspect.suspects import SuspectRule, list_suspects
from pik.usecases.metrics.impact import Impact, impact


@dataclass(frozen=True, slots=True)
class Change:
    """How often a field has this value in the accepted (of suspects: the earlier) delivery, and that one in the other.
    Both are JSON, `null` where there is nothing."""

    old: bytes
    new: bytes
    count: int


@dataclass(frozen=True, slots=True)
class ChangeTotals:
    """The pairs of all changes, how many of them have equal values, and whether a limit left changes out."""

    pairs: int
    unchanged: int
    truncated: bool


def conflict_changes(
    store: Store, wanted: DuplicateFilter, path: EventPath, *, limit: int | None = None, progress: Progress = SILENT
) -> Listing[Change, ChangeTotals]:
    """Count how the value at a path differs between each selected conflict and the accepted delivery of its event, the
    most frequent change first. Raises NotHeld, and while iterating Damaged and UsageError."""
    found = selected_duplicates(store, replace(wanted, kind=Verdict.CONFLICT), progress)
    accepted = accepted_deliveries(store)

    def pairs() -> Iterator[tuple[str, str]]:
        for conflict, _ in found:
            yield value_at(path, accepted(conflict.event_id)).decode(), value_at(path, conflict).decode()

    return Listing(_changes(pairs(), limit))


def suspect_changes(
    store: Store,
    engine: Engine,
    wanted: Filter,
    rule: SuspectRule,
    path: EventPath,
    *,
    limit: int | None = None,
    overrides: Overrides = NO_OVERRIDES,
) -> Listing[Change, ChangeTotals]:
    """Count how the value at a path differs between each suspect and the event that it looks like, the most frequent
    change first. Raises as `list_suspects` does."""
    found = list_suspects(store, engine, wanted, rule, paths=[path], overrides=overrides)
    return Listing(_changes(((row.earlier_values[0].decode(), row.values[0].decode()) for row in found), limit))


def _changes(pairs: Iterable[tuple[str, str]], limit: int | None) -> Generator[Change, None, ChangeTotals]:
    total = unchanged = changes = 0
    for (old, new), count in sort_bounded(counts_of(pairs), lambda one: (-one[1], one[0])):
        total += count
        if old == new:
            unchanged += count
            continue
        changes += 1
        if limit is None or changes <= limit:
            yield Change(old.encode(), new.encode(), count)
    return ChangeTotals(total, unchanged, limit is not None and changes > limit)


@dataclass(frozen=True, slots=True)
class DuplicateImpact:
    """What an assumption about some deliveries does to the metrics. `deliveries` counts those of which something is
    assumed."""

    assumption: str
    deliveries: int
    impact: Impact


def duplicate_impact(
    store: Store, engine: Engine, wanted: DuplicateFilter, progress: Progress = SILENT
) -> DuplicateImpact:
    """Compute the metrics as deliveries count, and with the selected duplicates counted too; of conflicts alone, with
    the last delivery of each event in the place of the accepted one. Raises NotHeld, Damaged and EngineError."""
    found = selected_duplicates(store, wanted, progress)
    if wanted.kind == Verdict.CONFLICT:
        return _with_the_last(store, engine, wanted, (delivery for delivery, _ in found))
    counting: dict[str, dict[int, bool]] = defaultdict(dict)
    number = 0
    for delivery, _ in found:
        number += 1
        counting[delivery.batch_id][delivery.seq] = True
    what = "exact duplicates" if wanted.kind == Verdict.EXACT else "duplicates"
    changed = impact(store, engine, wanted.filter.window, Overrides(counting=counting), entities=wanted.filter.entities)
    return DuplicateImpact(f"these {what} count too", number, changed)


def _with_the_last(
    store: Store, engine: Engine, wanted: DuplicateFilter, conflicts: Iterable[Delivery]
) -> DuplicateImpact:
    window = wanted.filter.window
    counting: dict[str, dict[int, bool]] = defaultdict(dict)
    events = set[str]()
    for conflict in conflicts:
        if conflict.event_id in events:
            continue
        events.add(conflict.event_id)
        known = (one for one in store.index.deliveries(conflict.event_id) if one.kind != Verdict.UNRECORDED)
        places = sorted(known, key=lambda one: one.order)
        for place in places:
            counting[place.batch_id][place.seq] = place is places[-1]
        # What counts moves to another bucket where the two times differ.
        moved = [place for place in places if place.kind == Verdict.ACCEPTED or place is places[-1]]
        for one in read_locations(store, moved):
            instant = one.delivery.event_instant
            window = Window(min(window.start, instant), max(window.end, instant + 1))
    found = impact(store, engine, window, Overrides(counting=counting), entities=wanted.filter.entities)
    return DuplicateImpact("the last delivery of each of these events counts", len(events), found)


def suspect_impact(store: Store, engine: Engine, wanted: Filter, rule: SuspectRule) -> DuplicateImpact:
    """Compute the metrics as deliveries count, and without the suspects. Raises as `list_suspects` does."""
    counting: dict[str, dict[int, bool]] = defaultdict(dict)
    number = 0
    for row in list_suspects(store, engine, wanted, rule):
        number += 1
        counting[row.batch_id][row.seq] = False
    found = impact(store, engine, wanted.window, Overrides(counting=counting), entities=wanted.entities)
    return DuplicateImpact("these suspects do not count", number, found)
