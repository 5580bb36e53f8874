"""The comparison of a window with what is recomputed, stretch by stretch, each by whatever process of a fleet.

A stretch of whole buckets is compared by one task: it computes the values, reads those of the left side, and gives back
the differences and what it has counted. Where much raw lies in one stretch, tasks compute partial values of a share of
its segments each, and one merges these and compares.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pik.errors import Damaged
from pik.model.metric import Metric
from pik.model.share import Share
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.fleet import Fleet, Keyed
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.selection import Selection
from pik.runtime import Progress
from pik.runtime.storage import scratch
from pik.usecases.metrics.comparison import Comparison, Counted, Difference, Pairs
from pik.usecases.metrics.computation import ComputedStretch, recompute
from pik.usecases.metrics.definitions import pin
from pik.usecases.metrics.file_numbers import FileNumbers
from pik.usecases.metrics.sides import RecordedSide
from pik.usecases.metrics.tolerance import Tolerance
from pik.usecases.metrics.totals import Combinations, DiffTotals

SHARE_BYTES = 128 << 20
"""Raw of which one task computes partial values, about; a stretch with more than twice that is shared."""

SHARES_AT_ONCE = 256
"""Shares that are computed by one job, at least, where there are so many."""


@dataclass(frozen=True, slots=True)
class FleetComparison:
    """What is compared: the selection, metrics in groups that are computed together, and as in `diff_aggregates`. With
    `totals` it has how they are split, and whether they are explained."""

    selection: Selection
    groups: Sequence[Sequence[Metric]]
    tolerances: Sequence[Tolerance]
    file: FileNumbers | None
    left: RecordedSide | None
    totals: tuple[str | None, bool] | None
    sums: bool

    def comparison(self, store: Store, engine: Engine) -> Comparison:
        """Return a comparison of all of it, which has counted nothing yet."""
        metrics = [metric for group in self.groups for metric in group]
        totals = None
        if self.totals is not None:
            by, explains = self.totals
            totals = DiffTotals(by, Combinations(store, engine), explains)
            totals.expect(metrics)
        pins, entities = {pin(metric) for metric in metrics}, set(self.selection.entities)
        sums: dict[str, Decimal] | None = {} if self.sums else None
        return Comparison(store, self.tolerances, pins, entities, self.file, self.left, totals, sums)


class Stretch(NamedTuple):
    """Whole buckets of the metrics of a group, by its number, and the bytes of raw that they need, about."""

    group: int
    window: Window
    size: int


class _Tolerated(NamedTuple):
    difference: Difference


class _Shared(NamedTuple):
    key: int
    stretch: Stretch
    share: Share


def compare_on(
    fleet: Fleet, comparing: FleetComparison, stretches: Sequence[Stretch], comparison: Comparison, progress: Progress
) -> Iterator[Difference]:
    """Yield the differences of each stretch, in their order, counting in the comparison; `progress` is of their bytes.
    Deliveries count as far as they are recorded now."""
    comparing = replace(comparing, selection=comparing.selection.fixed())
    sizes = iter([stretch.size for stretch in stretches])
    for found in _results(fleet, comparing, stretches):
        if isinstance(found, Counted):
            comparison.add(found)
            progress.advance(next(sizes))
        elif isinstance(found, _Tolerated):
            comparison.tolerated.add(found.difference)
        else:
            yield found


_Result = Difference | _Tolerated | Counted


def _results(fleet: Fleet, comparing: FleetComparison, stretches: Iterable[Stretch]) -> Iterator[_Result]:
    sized = ((one, _shares(fleet, comparing, one)) for one in stretches)
    for is_shared, some in groupby(sized, key=lambda pair: pair[1] > 1):
        if not is_shared:
            yield from fleet.map(partial(_compared, comparing), (stretch for stretch, _ in some))
            continue
        for together in _together(some):
            parts = [
                _Shared(key, each, Share(n, count)) for key, (each, count) in enumerate(together) for n in range(count)
            ]
            merge = partial(_merged, comparing, [stretch for stretch, _ in together])
            yield from fleet.map_reduce(partial(_partial, comparing), parts, merge, keys=len(together))


def _together(shared: Iterable[tuple[Stretch, int]]) -> Iterator[list[tuple[Stretch, int]]]:
    """Yield stretches that are computed by one job, each with the number of its shares."""
    some: list[tuple[Stretch, int]] = []
    for one in shared:
        some.append(one)
        if sum(count for _, count in some) >= SHARES_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _shares(fleet: Fleet, comparing: FleetComparison, stretch: Stretch) -> int:
    """Return how many tasks a stretch is worth."""
    overrides = comparing.selection.overrides
    # Rules may refuse deliveries by their number, and added files count once: both take all of raw together.
    if fleet.slots == 1 or overrides.rules or overrides.added:
        return 1
    return 1 if stretch.size <= 2 * SHARE_BYTES else -(-stretch.size // SHARE_BYTES)


def _compared(comparing: FleetComparison, store: Store, engine: Engine, stretch: Stretch) -> Iterator[_Result]:
    """Compare a stretch."""
    comparison = comparing.comparison(store, engine)
    metrics, selection = comparing.groups[stretch.group], comparing.selection.within(stretch.window)
    yield from _counted(comparison, comparison.recomputed(engine, metrics, selection))


def _counted(comparison: Comparison, pairs: Pairs) -> Iterator[_Result]:
    yield from comparison.differences(pairs)
    yield from map(_Tolerated, comparison.tolerated)
    yield comparison.counted()


def _partial(comparing: FleetComparison, _store: Store, engine: Engine, shared: _Shared) -> Iterator[Keyed]:
    """Compute what a share of a stretch comes to."""
    definitions = [metric.definition for metric in comparing.groups[shared.stretch.group]]
    selection = comparing.selection.within(shared.stretch.window).sharing(shared.share)
    with scratch() as directory:
        target = directory / "partial"
        try:
            with gather(selection) as raw:
                engine.partial(raw.inputs, definitions, selection.window, target, selection.entities)
                found = raw.known_until, target.read_bytes()
        except Damaged:
            found = 0, b""  # the whole stretch says what of it can be computed
    yield shared.key, pickle.dumps(found)


def _merged(
    comparing: FleetComparison,
    stretches: Sequence[Stretch],
    store: Store,
    engine: Engine,
    key: int,
    values: Iterator[bytes],
) -> Iterator[_Result]:
    """Compare a stretch with what its shares come to."""
    stretch = stretches[key]
    metrics, selection = comparing.groups[stretch.group], comparing.selection.within(stretch.window)
    with scratch() as directory:
        comparison = comparing.comparison(store, engine)
        parts = _parts(selection, engine, metrics, values, directory)
        yield from _counted(comparison, comparison.recomputed(engine, metrics, selection, parts))


def _parts(
    selection: Selection, engine: Engine, metrics: Sequence[Metric], values: Iterator[bytes], directory: Path
) -> Generator[ComputedStretch, None, None]:
    files: list[Path] = []
    known_until = 0
    for number, value in enumerate(values):
        known, content = pickle.loads(value)
        if not content:
            yield from recompute(selection, engine, metrics)
            return
        files.append(directory / f"{number}.parquet")
        files[-1].write_bytes(content)
        known_until = max(known_until, known)
    with engine.merge(files, [metric.definition for metric in metrics]) as computation:
        yield ComputedStretch(selection.window, computation, known_until)
