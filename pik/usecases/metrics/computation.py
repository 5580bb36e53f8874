"""Aggregates computed from raw, stretch by stretch, and compared with those that are current."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Protocol

from pik.errors import Damaged
from pik.model.aggregate import Aggregate, BucketDigest, Computed, DigestLines, joinable
from pik.model.calendar import Buckets, covering
from pik.model.instant import DAY, display_instant
from pik.model.metric import Metric, entity_text
from pik.model.window import Window
from pik.ports.engine import NOTHING, Bucket, Computation, Engine
from pik.ports.state import Aggregates
from pik.rawlog.gathering import cut_by_size, gather
from pik.rawlog.selection import Selection
from pik.runtime.storage import scratch

BYTES_AT_ONCE = 64 << 20
"""Raw that is read together, about: that of a deployed store is on the local disk meanwhile."""


def stretches(
    selection: Selection, buckets: Buckets, *, days: int = 0, deliveries: int = 0, size: int = 0
) -> list[Window]:
    """Cut the selection's window, of whole buckets, into stretches of whole buckets between days that have deliveries
    (of its entities). They leave nothing out: where events are lost there may still be aggregates.

    A stretch ends once it has so many days, deliveries, or bytes of raw (0: no bound); it has at least one day, or one
    bucket, whatever that holds.
    """
    return [window for window, _ in sized_stretches(selection, buckets, days=days, deliveries=deliveries, size=size)]


def sized_stretches(
    selection: Selection, buckets: Buckets, *, days: int = 0, deliveries: int = 0, size: int = 0
) -> list[tuple[Window, int]]:
    """Return the stretches, each with the bytes of raw that it has, about."""
    window = selection.window
    cuts, sizes = list[int](), list[int]()
    begun, held, read = None, 0, 0
    for day, needed in groupby(selection.needed(whole_days=True), key=lambda each: each.segment.day):
        if begun is not None and (0 < days <= day - begun or 0 < deliveries <= held or 0 < size <= read):
            cut = buckets.start_of(day * DAY)
            if window.start < cut < window.end and cut > (cuts[-1] if cuts else window.start):
                cuts.append(cut)
                sizes.append(read)
                begun, held, read = None, 0, 0
        begun = day if begun is None else begun
        for segment, frames in needed:
            held += segment.deliveries
            read += segment.size if selection.takes_all else sum(frame.length for frame in frames)
    bounds = pairwise([window.start, *cuts, window.end])
    return [(Window(*each), size) for each, size in zip(bounds, [*sizes, read], strict=True)]


@dataclass(frozen=True, slots=True)
class ComputedStretch:
    """Some whole buckets and what was computed of them, from what was known until then (0: no events); or why their raw
    cannot be read."""

    window: Window
    computed: Computation | Damaged
    known_until: int


def by_buckets(metrics: Iterable[Metric]) -> list[tuple[Buckets, list[Metric]]]:
    """Return the metrics that are computed together, by their buckets, those over all entities apart from the others;
    each group ordered by name."""
    ordered = sorted(metrics, key=lambda metric: (metric.buckets.order, metric.is_over_all, metric.name))
    groups = groupby(ordered, key=lambda metric: (metric.buckets, metric.is_over_all))
    return [(buckets, list(group)) for (buckets, _), group in groups]


def widest(window: Window, metrics: Sequence[Metric]) -> Window:
    """Return what the whole buckets of all these metrics cover that the window touches."""
    return covering(window, {metric.buckets for metric in metrics})


def recompute(
    selection: Selection, engine: Engine, metrics: Sequence[Metric], entities: Sequence[str] = ()
) -> Generator[ComputedStretch, None, None]:
    """Compute the metrics, all with the same buckets, over the whole buckets of the selection's window, from raw, of
    these entities (none: of those of the selection). One part, or where raw is damaged as many as it takes to have all
    days but the damaged ones. A part is valid until the next one is asked for. Raises EngineError, here and while its
    rows are iterated over.
    """
    window = selection.window
    with ExitStack() as stack:
        try:
            computation, known_until = stack.enter_context(_computation(selection, engine, metrics, entities))
        except Damaged as error:
            damage = error
        else:
            yield ComputedStretch(window, computation, known_until)
            return
    bounds = _bounds(selection, metrics[0].buckets)
    if len(bounds) <= 2:
        yield ComputedStretch(Window(bounds[0], bounds[-1]), damage, 0)
        return
    cut = bounds[len(bounds) // 2]
    for half in (Window(window.start, cut), Window(cut, window.end)):
        yield from recompute(selection.within(half), engine, metrics, entities)


@contextmanager
def _computation(
    selection: Selection, engine: Engine, metrics: Sequence[Metric], entities: Sequence[str]
) -> Iterator[tuple[Computation, int]]:
    """Compute the metrics over the selection's window, piece by piece where there is much raw. Provide what they come
    to, and the latest recorded_at among what was read."""
    definitions, entities = [metric.definition for metric in metrics], entities or selection.entities
    # Rules may refuse deliveries by their number, and added files count once: both take all of raw together.
    is_whole = selection.overrides.rules or selection.overrides.added
    pieces = None if is_whole else cut_by_size(selection)
    if pieces is None or len(pieces.counts) == 1:
        with (
            gather(selection, None if pieces is None else pieces.segments) as raw,
            engine.computation(raw.inputs, definitions, selection.window, entities) as computation,
        ):
            yield computation, raw.known_until
        return
    files: list[Path] = []
    known_until = 0
    with scratch() as directory:
        for segments in pieces:
            files.append(directory / f"{len(files)}.parquet")
            with gather(selection, segments) as raw:
                engine.partial(raw.inputs, definitions, selection.window, files[-1], entities)
                known_until = max(known_until, raw.known_until)
        with engine.merge(files, definitions) as computation:
            yield computation, known_until


def _bounds(selection: Selection, buckets: Buckets) -> list[int]:
    """Return where buckets meet between the days that have raw, and the ends of the first and the last of them."""
    window = selection.window
    days = sorted({segment.day for segment in selection.segments()})
    if not days:
        return [window.start, window.end]
    cuts = {buckets.start_of(day * DAY) for day in days}
    cuts.add(buckets.end_of((days[-1] + 1) * DAY - 1))
    return sorted({min(max(cut, window.start), window.end) for cut in cuts})


def sound(rows: Iterable[Aggregate]) -> Iterator[Aggregate]:
    """Yield the rows. Raises Damaged at one that is not as it was written; that is known where entities were named, or
    the rows were asked for as checked."""
    for row in rows:
        if not row.sound:
            one = row.computed
            raise Damaged(
                f"the version of {one.metric} of {entity_text(one.entity_id)} in {display_instant(one.bucket)} by run"
                f" {row.run_id} is not as it was written: its digest does not match",
                hint="what is damaged, and what recomputes or restores it: pik verify",
            )
        yield row


class Values(Protocol):
    """Values that are compared with others: those of a store, `Aggregates`, or of a file."""

    def current(self, metric: str, window: Window, entities: Sequence[str] = ()) -> Iterator[Aggregate]:
        """Yield the values as `Aggregates.current` does."""

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        """Yield digests as `Aggregates.digests` does."""


def current_rows(
    aggregates: Values, metrics: Iterable[Metric], window: Window, entities: Sequence[str] = ()
) -> Iterator[Aggregate]:
    """Yield what is current, ordered by (metric, bucket, entity)."""
    for name in sorted(metric.name for metric in metrics):
        yield from aggregates.current(name, window, entities)


def current_digests(aggregates: Values, metrics: Iterable[Metric], window: Window) -> dict[Bucket, BucketDigest]:
    """Return the digests of what is current."""
    return {(one.metric, one.bucket): one for metric in metrics for one in aggregates.digests(metric.name, window)}


def current_but(
    aggregates: Values,
    equal: Collection[Bucket],
    buckets: Iterable[Bucket],
    among: Mapping[Bucket, Sequence[str]] = NOTHING,
) -> Iterator[Aggregate]:
    """Yield what is current in `buckets` without the equal ones, and of those in `among` only these entities, ordered
    by (metric, bucket, entity).

    A current bucket may end elsewhere than the metric's: an earlier version wrote it. So a bucket is known by its
    start alone.
    """
    by_way = groupby(sorted(buckets), key=lambda bucket: (bucket[0], bucket in equal, among.get(bucket)))
    for (name, is_equal, entities), together in by_way:
        starts = [start for _, start in together]
        if not is_equal and entities != []:  # which would be all
            yield from aggregates.current(name, Window(starts[0], starts[-1] + 1), entities or ())


@dataclass(frozen=True, slots=True)
class Lines:
    """What the lines of some digests come to: the entities of the lines that are not on both sides, by bucket, and how
    many are."""

    differing: Mapping[Bucket, Sequence[str]]
    equal: int


NO_LINES = Lines(NOTHING, 0)

_FEW = 8
"""A bucket is looked at by its lines where at most one of so many differs."""

_NAMED = 50_000
"""Number of differing entities after which no more buckets are looked at by their lines."""


def differing_lines(
    aggregates: Aggregates,
    computation: Computation,
    equal: Collection[Bucket],
    sizes: Mapping[Bucket, int],
) -> Lines:
    """Compare the lines of the buckets that are not equal, which costs less than their values do. Buckets with many
    differences, and those of which memory should not hold all lines, are left out. `sizes` has how many lines each
    bucket has at most on one side."""
    differing: dict[Bucket, Sequence[str]] = {}
    count = named = 0
    for name, of_metric in groupby(sorted(sizes), key=itemgetter(0)):
        for window in _windows(list(of_metric), equal, sizes):
            left, right = (_by_bucket(side.lines(name, window)) for side in (aggregates, computation))
            few = 0
            for start in left.keys() | right.keys():
                mine, theirs = left[start], right[start]
                entities = sorted({line.partition("\x1f")[0] for line in mine ^ theirs})
                if len(entities) * _FEW <= len(mine):
                    differing[name, start] = entities
                    count, named, few = count + len(mine & theirs), named + len(entities), few + 1
            if named > _NAMED:
                return Lines(differing, count)
            if not few:  # nor will there be in the others
                break
    return Lines(differing, count)


def _windows(buckets: Sequence[Bucket], equal: Collection[Bucket], sizes: Mapping[Bucket, int]) -> Iterator[Window]:
    """Yield the windows of adjacent buckets that are not equal, of which memory may hold all lines."""
    for is_equal, together in groupby(buckets, key=equal.__contains__):
        if not is_equal:
            for first, last, is_small in joinable((bucket[1], sizes[bucket]) for bucket in together):
                if is_small:
                    yield Window(first, last + 1)


def _by_bucket(lines: Iterable[DigestLines]) -> defaultdict[int, set[str]]:
    found: defaultdict[int, set[str]] = defaultdict(set)
    for bucket, text, *_ in lines:
        if text:
            found[bucket].update(text[:-1].split("\n"))
    return found


def compare(
    current: Iterator[Aggregate], computed: Iterator[Computed]
) -> Iterator[tuple[Aggregate | None, Computed | None]]:
    """Yield both, side by side where metric, bucket and entity are the same; both come ordered by these.

    Text compares by code point, and so as its UTF-8 bytes do.
    """
    left, right = next(current, None), next(computed, None)
    while left is not None or right is not None:
        mine = None if left is None else _key(left.computed)
        theirs = None if right is None else _key(right)
        if mine == theirs:
            yield left, right
            left, right = next(current, None), next(computed, None)
        elif theirs is None or (mine is not None and mine < theirs):
            yield left, None
            left = next(current, None)
        else:
            yield None, right
            right = next(computed, None)


def _key(row: Computed) -> tuple[str, int, str]:
    return row.metric, row.bucket, row.entity_id
