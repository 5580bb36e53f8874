"""Comparing what is recorded: current values, earlier ones, what runs wrote, numbers of a file. Nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pik.errors import NothingSelected, command
from pik.model.aggregate import Aggregate, Computed
from pik.model.run import Run
from pik.model.window import Window
from pik.ports.store import Store
from pik.usecases import Listing
from pik.usecases.availability import expect_pulled
from pik.usecases.metrics.comparison import NOTHING, Comparison
from pik.usecases.metrics.computation import compare, current_rows, widest
from pik.usecases.metrics.definitions import comparable, of_entities
from pik.usecases.metrics.diff import Diff
from pik.usecases.metrics.file_numbers import FileNumbers
from pik.usecases.metrics.sides import RecordedSide
from pik.usecases.metrics.tolerance import Tolerance
from pik.usecases.metrics.totals import DiffTotals


def runs_of(*sides: RecordedSide | FileNumbers | None) -> list[Run]:
    """Return the runs among the sides."""
    return [side.run for side in sides if isinstance(side, RecordedSide) and side.run is not None]


def run_window(*sides: RecordedSide | FileNumbers | None) -> Window | None:
    """Return the window of the runs among the sides, None without any."""
    runs = runs_of(*sides)
    if not runs:
        return None
    return Window(min(run.request.start for run in runs), max(run.request.end for run in runs))


def diff_recorded(
    store: Store,
    left: RecordedSide | FileNumbers,
    right: RecordedSide,
    window: Window | None = None,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    tolerances: Sequence[Tolerance] = (),
    changed_only: bool = False,
    totals: DiffTotals | None = None,
) -> Diff:
    """Compare two recorded sides. Without a window that of the runs among them is compared, or all of time.

    A run is compared in the values that it wrote, and what failed in it is a row; two runs, or a run and a file, in
    those that either has. Raises as diff_aggregates does, and NotHeld.
    """
    file = left if isinstance(left, FileNumbers) else None
    named, versions = comparable(store.metrics, metrics)
    if isinstance(left, FileNumbers):
        named = list(left.metrics)
    wanted, left_out = of_entities(named, entities)
    runs = runs_of(left, right)
    window = window or run_window(left, right) or Window()
    effective = widest(window, wanted)
    if runs:
        effective = Window(min(run.effective_start for run in runs), max(run.effective_end for run in runs))
    else:
        expect_pulled(store, effective, entities)
    some = entities or (runs[0].request.entities if len(runs) == 1 else ())
    wanted = [metric for metric in wanted if not (some and metric.is_over_all)]  # a run of entities has none of those
    comparison = Comparison(store, tolerances, set(), set(entities), file, totals=totals)
    if totals is not None:
        totals.expect(wanted)

    def rows() -> Iterator[tuple[Aggregate | None, Computed | None]]:
        if isinstance(left, FileNumbers):
            before = current_rows(left, wanted, effective, some)
        else:
            before = left.rows(wanted, effective, some)
        if right.run is not None:
            after = comparison.written(right.run, wanted, versions, some)
        else:
            found = right.rows(wanted, effective, some)
            after = comparison.shown(
                row for row in found if row.metric_version in versions.get(row.computed.metric, (row.metric_version,))
            )
        pairs = compare(before, after)
        if len(runs) == 1 and file is None:  # the values of the run, whichever side it is
            place = 1 if right.run is not None else 0
            return (pair for pair in pairs if pair[place] is not None)
        return pairs

    def nothing() -> NothingSelected:
        if right.run is not None:
            wrote = f"{NOTHING}: run {right.run.run_id} wrote none of these values"
            return NothingSelected(wrote, hint=command("runs", "show", right.run.run_id))
        return NothingSelected(f"{NOTHING}: neither {left} nor {right} has a value {effective.within}")

    listing = Listing(comparison.listed(comparison.differences(rows()), nothing, changed_only))
    unlisted = right.run.failed_aggregates - len(right.run.failures) if right.run is not None else 0
    recorded = left if isinstance(left, RecordedSide) else None
    return Diff(
        *(window, effective, listing, right.run, unlisted),
        file=file,
        left=recorded,
        right=right,
        left_out=left_out,
        tolerated=comparison.tolerated,
    )
