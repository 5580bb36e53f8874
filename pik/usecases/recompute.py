"""Aggregates computed from raw, and compared with those that are current."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from pik.errors import Damaged, EngineError
from pik.model.instant import format_instant
from pik.model.metric import Aggregate, Computed, Metric
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.state import Aggregates
from pik.ports.store import Store
from pik.usecases.raw_inputs import gather


@dataclass(frozen=True, slots=True)
class Recomputed:
    """Rows ordered by (metric, bucket, entity), and the time up to which their events were known (0: no events)."""

    rows: Iterator[Computed]
    known_until: int


def by_bucket_size(metrics: Iterable[Metric]) -> list[tuple[int, list[Metric]]]:
    """The metrics by size of their buckets (nanoseconds), each group ordered by name."""
    ordered = sorted(metrics, key=lambda metric: (metric.bucket_size, metric.name))
    return [(size, list(group)) for size, group in groupby(ordered, key=lambda metric: metric.bucket_size)]


def widest(window: Window, metrics: Sequence[Metric]) -> Window:
    """What the whole buckets of all these metrics cover that the window touches."""
    windows = [window.widened(size) for size, _ in by_bucket_size(metrics)]
    return Window(min(each.start for each in windows), max(each.end for each in windows))


@contextmanager
def recomputing(
    store: Store,
    engine: Engine,
    metrics: Sequence[Metric],
    window: Window,
    entities: Sequence[str] = (),
    *,
    include_duplicates: bool = False,
) -> Iterator[Recomputed]:
    """The metrics, all of one bucket size, over the whole buckets in `window`, from raw; valid while the context lasts.

    Raises Damaged and EngineError, here and while iterating.
    """
    with gather(store, window, entities, include_duplicates=include_duplicates) as gathered:
        definitions = [metric.definition for metric in metrics]
        rows = engine.compute(gathered.inputs, definitions, window, entities)
        yield Recomputed(without_failures(rows), gathered.known_until)


def without_failures(rows: Iterable[Computed]) -> Iterator[Computed]:
    """The rows. Raises EngineError for one that failed."""
    for row in rows:
        if row.failure is not None:
            name, reason, bucket = row.metric, row.failure.reason, format_instant(row.bucket)
            events = f" (event {', '.join(row.failure.event_ids)})" if row.failure.event_ids else ""
            raise EngineError(
                f"metric {name} cannot be computed for {row.entity_id} in the bucket of {bucket}: {reason}{events}",
                hint=f"pik metrics show {name}",
            )
        yield row


def sound(rows: Iterable[Aggregate]) -> Iterator[Aggregate]:
    """The rows. Raises Damaged at one that is not as it was written; that is known where entities were named."""
    for row in rows:
        if not row.sound:
            one = row.computed
            raise Damaged(
                f"the version of {one.metric} of {one.entity_id!r} in {format_instant(one.bucket)} by run {row.run_id}"
                " is not as it was written: its digest does not hold",
                hint="pik verify names all that is damaged, and what recomputes or restores it",
            )
        yield row


def current_rows(
    aggregates: Aggregates, metrics: Iterable[Metric], window: Window, entities: Sequence[str] = ()
) -> Iterator[Aggregate]:
    """What is current, ordered by (metric, bucket, entity)."""
    for name in sorted(metric.name for metric in metrics):
        yield from aggregates.current(name, window, entities)


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
