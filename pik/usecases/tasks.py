"""One task of a run: its buckets computed from all of their events, and written. Any number of times, anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pik import __version__
from pik.model.metric import NO_INPUTS, Aggregate, Computed, Metric
from pik.model.run import RunRequest, Task
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.held import expect_held
from pik.usecases.metrics import pinned
from pik.usecases.raw_inputs import gather
from pik.usecases.recompute import compare, current_rows, recomputing


def perform(store: Store, engine: Engine, task: Task, request: RunRequest | None = None) -> int:
    """Compute the task's aggregates, write them beside the current ones, and return how many they are. `request` is
    that of its run, if the caller knows it already.

    Raises Damaged, EngineError and NotFound (NotHeld too) where the task cannot be done, other StoreErrors where the
    store cannot be used. Nothing is written then.
    """
    request = request or store.runs.get(task.run_id).request
    metrics = [pinned(store.metrics, text) for text in task.metrics]
    expect_held(store, task.window, task.entities)  # it may have waited for long
    with recomputing(
        store, engine, metrics, task.window, task.entities, include_duplicates=request.include_duplicates
    ) as recomputed:
        current = current_rows(store.aggregates, metrics, task.window, task.entities)
        rows = with_nulls(current, recomputed.rows)
        if request.source is not None or request.event_type is not None:
            touched = _touched(store, engine, request, task, metrics)
            rows = (row for row in rows if (row.bucket, row.entity_id) in touched)
        counted = _Counted(rows)
        store.aggregates.write(
            task,
            counted,
            versions={metric.name: metric.version for metric in metrics},
            known_until=recomputed.known_until,
            reason=request.reason,
            computed_by=f"pik {__version__}, {engine.version}",
        )
        return counted.count


class _Counted:
    """Rows that are counted as they pass."""

    def __init__(self, rows: Iterator[Computed]) -> None:
        self.rows, self.count = rows, 0

    def __iter__(self) -> Iterator[Computed]:
        for row in self.rows:
            self.count += 1
            yield row


def with_nulls(current: Iterator[Aggregate], computed: Iterator[Computed]) -> Iterator[Computed]:
    """What was computed, and a null wherever there is a current value that has no events any more."""
    for left, right in compare(current, computed):
        if right is not None:
            yield right
        elif left is not None and left.computed.value is not None:
            gone = left.computed
            yield Computed(gone.metric, gone.bucket, gone.entity_id, None, 0, NO_INPUTS, NO_INPUTS)


def _touched(
    store: Store, engine: Engine, request: RunRequest, task: Task, metrics: Sequence[Metric]
) -> set[tuple[int, str]]:
    """The (bucket, entity) pairs of the task that the request's filters choose."""
    start, end = max(request.start, task.start), min(request.end, task.end)
    if start >= end:
        return set()
    window = Window(start, end)
    with gather(store, window, task.entities, include_duplicates=request.include_duplicates) as gathered:
        if gathered.empty:
            return set()
        pairs = engine.touched(
            gathered.inputs,
            metrics[0].bucket_size,
            window,
            entities=task.entities,
            source=request.source,
            event_type=request.event_type,
        )
        return {(pair.bucket, pair.entity_id) for pair in pairs}
