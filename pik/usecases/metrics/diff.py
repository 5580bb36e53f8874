"""What the numbers should be, against what they are: recomputed from raw under a scenario. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from operator import attrgetter

from pik.errors import NothingSelected
from pik.model.calendar import UTC_DAYS
from pik.model.run import Run
from pik.model.scenario import PLAIN, Scenario
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.fleet import Fleet
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.runtime import SILENT, Progress, showing
from pik.runtime.storage import sort_bounded
from pik.usecases import Listing
from pik.usecases.availability import expect_held
from pik.usecases.inspect.events import nothing_counted, nothing_selected
from pik.usecases.metrics.compare_stretches import FleetComparison, Stretch, compare_on
from pik.usecases.metrics.comparison import NOTHING, Basis, Comparison, Difference, Stats
from pik.usecases.metrics.computation import (
    BYTES_AT_ONCE,
    by_buckets,
    sized_stretches,
    stretches,
    widest,
)
from pik.usecases.metrics.definitions import of_entities, pin
from pik.usecases.metrics.file_numbers import FileNumbers
from pik.usecases.metrics.scenario import applied, definitions, resolved
from pik.usecases.metrics.selections import refuse_empty_selections
from pik.usecases.metrics.sides import RecordedSide
from pik.usecases.metrics.tolerance import Tolerance
from pik.usecases.metrics.totals import DiffTotals

_ORDER = attrgetter("metric", "bucket", "entity_id")


@dataclass(frozen=True, slots=True)
class Diff:
    """Differences, ordered by metric, bucket, entity; `stats` and `basis` are known once they have been read.

    `effective` is what the whole buckets cover that the window touches, `scenario` what the right side was computed
    from. `file` or `left` has the left side, where that is not what is current; `right` the right one, where that is
    not recomputed. `run` is the run on the right whose values were compared; `unlisted` counts the aggregates that
    failed in it and are not among the rows, since a run keeps only the first. `left_out` are metrics over all entities,
    where some were named; `tolerated` are rows that are left out, but not of totals that are explained.
    """

    window: Window
    effective: Window
    rows: Listing[Difference, tuple[Stats, Basis]]
    run: Run | None = None
    unlisted: int = 0
    scenario: Scenario = PLAIN
    file: FileNumbers | None = None
    left: RecordedSide | None = None
    right: RecordedSide | None = None
    left_out: tuple[str, ...] = ()
    tolerated: Iterable[Difference] = ()

    @property
    def stats(self) -> Stats:
        """What was compared. Raises RuntimeError while there are rows to read."""
        return self.rows.summary[0]

    @property
    def basis(self) -> Basis:
        """What the right side rests on. Raises RuntimeError while there are rows to read."""
        return self.rows.summary[1]


def diff_aggregates(
    store: Store,
    engine: Engine,
    window: Window,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    tolerances: Sequence[Tolerance] = (),
    changed_only: bool = False,
    scenario: Scenario = PLAIN,
    file: FileNumbers | None = None,
    left: RecordedSide | None = None,
    totals: DiffTotals | None = None,
    sums: dict[str, Decimal] | None = None,
    fleet: Fleet | None = None,
    progress: Progress = SILENT,
) -> Diff:
    """Recompute from raw, under the scenario, and compare with what is current, with the numbers of a file, or with
    what is recorded as the `left` side; with `changed_only` only where both have a value.

    A run is compared in the values that it wrote. `totals` are known when the rows have been read, and so is by metric
    in `sums` what all recomputed values come to. A `fleet` computes it, if there is one.

    What cannot be computed is a row like any other. Raises NothingSelected for an unknown metric, also in `tolerances`,
    for a store without any events, and while iterating where neither side has a value; NotHeld where raw of the whole
    buckets has expired or was not pulled; EngineError while iterating, where nothing can be computed.
    """
    scenario = resolved(store, scenario)
    named = list(file.metrics) if file else definitions(store, engine, scenario, metrics)
    wanted, left_out = of_entities(named, entities)
    comparison = Comparison(
        store, tolerances, {pin(metric) for metric in wanted}, set(entities), file, left, totals, sums
    )
    if totals is not None:
        totals.expect(wanted)
    together = by_buckets(wanted)
    groups = [group for _, group in together]
    effective = widest(window, wanted)
    expect_held(store, effective, entities)
    if store.copy is None and not store.index.totals().segments:
        raise NothingSelected("the store holds no events, so there is nothing to compare", hint="pik ingest FILE")

    def here(selection: Selection, each: Sequence[Stretch]) -> Iterator[Difference]:
        for one in each:
            pairs = comparison.recomputed(engine, groups[one.group], selection.within(one.window))
            yield from comparison.differences(pairs)
            progress.advance(one.size)

    def rows() -> Iterator[Difference]:
        with applied(store, engine, scenario, effective, entities) as overrides:
            selection = Selection(store, effective, entities, overrides)
            refuse_empty_selections(engine, scenario, selection)
            each = [  # metrics with the same buckets, over a stretch of their whole buckets
                Stretch(number, *stretch)
                for number, (buckets, _) in enumerate(together)
                for stretch in sized_stretches(selection.within(buckets.widened(window)), buckets, size=BYTES_AT_ONCE)
            ]
            if fleet is None or fleet.slots == 1:
                found = here(selection, each)
            else:
                split = None if totals is None else (totals.by, totals.explains)
                comparing = FleetComparison(selection, groups, tolerances, file, left, split, sums is not None)
                found = compare_on(fleet, comparing, each, comparison, progress)
            found = _shown(found, progress, sum(one.size for one in each))
            yield from sort_bounded(found, _ORDER) if len(each) > 1 and len(wanted) > 1 else found

    def nothing() -> NothingSelected:
        if scenario:
            return NothingSelected(
                f"{NOTHING} {effective.within}, assuming {', '.join(scenario.texts)}", hint="pik batches"
            )
        if events := _events(Selection(store, effective, entities), engine, fleet):
            return nothing_counted(NOTHING, sorted(comparison.versions), events, effective)
        return nothing_selected(store, NOTHING, effective, entities)

    listing = Listing(comparison.listed(rows(), nothing, changed_only))
    return Diff(
        *(window, effective, listing),
        scenario=scenario,
        file=file,
        left=left,
        left_out=left_out,
        tolerated=comparison.tolerated,
    )


def _shown(found: Iterator[Difference], progress: Progress, size: int) -> Iterator[Difference]:
    with showing(progress, "comparing", size, "bytes"):
        yield from found


def _events(selection: Selection, engine: Engine, fleet: Fleet | None) -> int:
    """Return how many events count in the window; a `fleet` counts them, if there is one."""
    counted = partial(_events_of, selection.fixed())
    windows = stretches(selection, UTC_DAYS, size=BYTES_AT_ONCE)
    if fleet is not None:
        return sum(fleet.map(counted, windows))
    return sum(events for window in windows for events in counted(selection.store, engine, window))


def _events_of(selection: Selection, _store: Store, engine: Engine, window: Window) -> Iterator[int]:
    with gather(selection.within(window)) as raw:
        of_days = engine.touched(
            raw.inputs, UTC_DAYS, window, entities=selection.entities, source=None, event_type=None
        )
        yield sum(one.events for one in of_days)


def basis_of(store: Store, run_id: str) -> Basis:
    """Return what the versions that a run wrote rest on."""
    versions, known_until = set[str](), 0
    for change in store.aggregates.changes(run_id):
        versions.add(f"{change.written.computed.metric}@{change.written.metric_version}")
        known_until = max(known_until, change.written.known_until)
    return Basis(frozenset(versions), known_until)
