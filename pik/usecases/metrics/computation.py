"""Aggregates computed from raw, stretch by stretch, and compared with those that are current."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter

from pik.errors import Damaged
from pik.model.batch import Segment
from pik.model.instant import DAY, format_instant
from pik.model.metric import Aggregate, Computed, Metric
from pik.model.window import Window
from pik.ports.engine import Bucket, Computation, Engine
from pik.ports.state import Aggregates
from pik.ports.store import Store
from pik.rawlog.frames import frames_of
from pik.rawlog.selection import Selection

BYTES_AT_ONCE = 64 << 20
"""Raw that is read together, about: of a deployed store it lies on the local disk meanwhile."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a stretch may hold before the next one begins: days, deliveries, bytes of raw; 0: no bound. A stretch
    has at least one day, or one bucket, whatever that holds."""

    days: int = 0
    deliveries: int = 0
    bytes: int = 0


def stretches(store: Store, window: Window, size: int, entities: Sequence[str], budget: Budget) -> list[Window]:
    """Cut the window, of whole buckets of `size`, into stretches of whole buckets between days that have deliveries (of
    these entities; none: of any). They leave nothing out: where events are lost there may still be aggregates."""
    cuts: list[int] = []
    begun, held = None, Budget()
    listed = store.index.segments(window, entities=entities)
    found = (segment for segment in listed if frames_of(segment, entities))  # which a store may have left out
    for day, segments in groupby(found, key=lambda segment: segment.day):
        if begun is not None and _full(held, budget, day - begun):
            cut = day * DAY - day * DAY % size
            if window.start < cut < window.end and cut > (cuts[-1] if cuts else window.start):
                cuts.append(cut)
                begun, held = None, Budget()
        begun = day if begun is None else begun
        held = _with(held, segments, entities)
    bounds = [window.start, *cuts, window.end]
    return [Window(left, right) for left, right in pairwise(bounds)]


def _full(held: Budget, budget: Budget, days: int) -> bool:
    return 0 < budget.days <= days or 0 < budget.deliveries <= held.deliveries or 0 < budget.bytes <= held.bytes


def _with(held: Budget, segments: Iterable[Segment], entities: Sequence[str]) -> Budget:
    deliveries, read = held.deliveries, held.bytes
    for segment in segments:
        deliveries += segment.deliveries
        read += sum(frame.length for frame in frames_of(segment, entities)) if entities else segment.size
    return Budget(0, deliveries, read)


@dataclass(frozen=True, slots=True)
class Part:
    """Some whole buckets and what was computed of them, from what was known until then (0: no events); or why their raw
    cannot be read."""

    window: Window
    computed: Computation | Damaged
    known_until: int


def by_bucket_size(metrics: Iterable[Metric]) -> list[tuple[int, list[Metric]]]:
    """The metrics by size of their buckets (nanoseconds), each group ordered by name."""
    ordered = sorted(metrics, key=lambda metric: (metric.bucket_size, metric.name))
    return [(size, list(group)) for size, group in groupby(ordered, key=lambda metric: metric.bucket_size)]


def widest(window: Window, metrics: Sequence[Metric]) -> Window:
    """What the whole buckets of all these metrics cover that the window touches."""
    windows = [window.widened(size) for size, _ in by_bucket_size(metrics)]
    return Window(min(each.start for each in windows), max(each.end for each in windows))


def recompute(
    store: Store,
    engine: Engine,
    metrics: Sequence[Metric],
    window: Window,
    entities: Sequence[str] = (),
    *,
    include_duplicates: bool = False,
) -> Generator[Part, None, None]:
    """Compute the metrics, all of one bucket size, over the whole buckets in `window`, from raw. One part, or where raw
    is damaged as many as it takes to have all days but the damaged ones. A part is valid until the next one is asked
    for. Raises EngineError, here and while its rows are iterated over.
    """
    with ExitStack() as stack:
        try:
            raw = Selection(store, window, entities).gather(include_duplicates=include_duplicates)
            gathered = stack.enter_context(raw)
            definitions = [metric.definition for metric in metrics]
            computation = stack.enter_context(engine.computation(gathered.inputs, definitions, window, entities))
        except Damaged as error:
            damage = error
        else:
            yield Part(window, computation, gathered.known_until)
            return
    size = metrics[0].bucket_size
    bounds = _bounds(store, window, entities, size)
    if len(bounds) <= 2:
        yield Part(Window(bounds[0], bounds[-1]), damage, 0)
        return
    cut = bounds[len(bounds) // 2]
    for half in (Window(window.start, cut), Window(cut, window.end)):
        yield from recompute(store, engine, metrics, half, entities, include_duplicates=include_duplicates)


def _bounds(store: Store, window: Window, entities: Sequence[str], size: int) -> list[int]:
    """Where buckets meet between the window's days that have raw, and the ends of the first and of the last of them."""
    days = sorted({segment.day for segment in store.index.segments(window, entities=entities)})
    if not days:
        return [window.start, window.end]
    cuts = {day * DAY - day * DAY % size for day in days}
    last = (days[-1] + 1) * DAY
    cuts.add(last + -last % size)
    return sorted({min(max(cut, window.start), window.end) for cut in cuts})


def sound(rows: Iterable[Aggregate]) -> Iterator[Aggregate]:
    """The rows. Raises Damaged at one that is not as it was written; that is known where entities were named, or the
    rows were asked for as checked."""
    for row in rows:
        if not row.sound:
            one = row.computed
            raise Damaged(
                f"the version of {one.metric} of {one.entity_id!r} in {format_instant(one.bucket)} by run {row.run_id}"
                " is not as it was written: its digest does not match",
                hint="what is damaged, and what recomputes or restores it: pik verify",
            )
        yield row


def current_rows(
    aggregates: Aggregates, metrics: Iterable[Metric], window: Window, entities: Sequence[str] = ()
) -> Iterator[Aggregate]:
    """What is current, ordered by (metric, bucket, entity)."""
    for name in sorted(metric.name for metric in metrics):
        yield from aggregates.current(name, window, entities)


def current_but(aggregates: Aggregates, equal: Collection[Bucket], buckets: Iterable[Bucket]) -> Iterator[Aggregate]:
    """What is current in `buckets` without the equal ones, ordered by (metric, bucket, entity).

    A current bucket may be of another size than the metric's: an earlier version wrote it. So a bucket is known by its
    start alone.
    """
    for name, group in groupby(sorted(buckets), key=itemgetter(0)):
        for is_equal, together in groupby(group, key=equal.__contains__):
            if not is_equal:
                starts = [start for _, start in together]
                yield from aggregates.current(name, Window(starts[0], starts[-1] + 1))


def compare(
    current: Iterator[Aggregate], computed: Iterator[Computed]
) -> Iterator[tuple[Aggregate | None, Computed | None]]:
    """Both, side by side where metric, bucket and entity are the same; both come ordered by these.

    Text compares by code point, and so as its UTF-8 bytes do.
    """
    left, right = next(current, None), next(computed, None)
    while left is not None and right is not None:
        mine, theirs = _key(left.computed), _key(right)
        if mine == theirs:
            yield left, right
            left, right = next(current, None), next(computed, None)
        elif mine < theirs:
            yield left, None
            left = next(current, None)
        else:
            yield None, right
            right = next(computed, None)
    while left is not None:
        yield left, None
        left = next(current, None)
    while right is not None:
        yield None, right
        right = next(computed, None)


def _key(row: Computed) -> tuple[str, int, str]:
    return row.metric, row.bucket, row.entity_id
