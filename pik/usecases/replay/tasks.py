"""Executing one task of a run: its buckets are computed from all of their events and written, any number of times,
anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain

from pik.errors import Damaged, Unreadable
from pik.model.aggregate import NO_INPUTS, Aggregate, Computed
from pik.model.metric import Metric
from pik.model.run import KEPT_FAILURES, FailedAggregate, Failures, Run, RunRequest, Task
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.usecases.availability import expect_held
from pik.usecases.metrics.computation import (
    ComputedStretch,
    compare,
    recompute,
)
from pik.usecases.metrics.definitions import pinned
from pik.usecases.metrics.zones import programs
from pik.usecases.replay.chosen import chosen_buckets, overrides_of
from pik.usecases.replay.shares import merged

_AGAIN = "pik dlq redrive --all"

_RESTORE = f"`pik verify --full` names the object; restore it from a copy of raw, then: {_AGAIN}"
"""What helps against damage to raw."""


def execute_task(store: Store, engine: Engine, task: Task, run: Run | None = None) -> ComputedTask:
    """Compute the task's aggregates, or its share of them, and write them beside the current ones, without those that
    fail and those in buckets whose raw is damaged. `run` is its run, if the caller knows it already.

    Raises EngineError and NotFound (NotHeld too) where the task cannot be done, other StoreErrors where the store
    cannot be used. Nothing is written then.
    """
    run = run or store.runs.get(task.run_id)
    request = run.request
    metrics = [pinned(store.metrics, text) for text in task.metrics]
    expect_held(store, task.window, task.entities)  # it may have waited for long
    overrides = overrides_of(request, run.corrections_until)
    if not task.share.is_all:
        overrides = replace(overrides, until=task.known_until)  # each task of the group knows the same
    selection = Selection(store, task.window, task.entities, overrides, task.entity_range)
    computed = ComputedTask(selection, engine, metrics, request)
    computing = recompute(selection, engine, metrics) if task.share.is_all else merged(selection, engine, metrics, task)
    with closing(computing) as parts:
        first = next(parts, None)
        if first is None:  # another task of the group merges
            return computed
        is_whole = first.window == task.window and not isinstance(first.computed, Damaged)
        store.aggregates.write(
            task,
            computed.rows(chain([first], parts)),
            versions={metric.name: metric.version for metric in metrics},
            # The same for all parts: what is recorded while they are read counts as late.
            known_until=first.known_until if is_whole else selection.known_until,
            reason=request.reason,
            actor=run.actor,
            computed_by=programs(metrics, engine.version),
        )
        return computed


@dataclass(slots=True)
class ComputedTask:
    """A task's rows as they are computed, and what is not among them: aggregates that failed on their events, and
    buckets whose raw is damaged."""

    selection: Selection
    engine: Engine
    metrics: Sequence[Metric]
    request: RunRequest
    written: int = 0
    failed: int = 0
    kept: list[FailedAggregate] = field(default_factory=list)
    damages: list[tuple[Window, Damaged]] = field(default_factory=list)

    def rows(self, parts: Iterable[ComputedStretch]) -> Iterator[Computed]:
        """Yield what is to be written."""
        for part in parts:
            if isinstance(part.computed, Damaged):
                self.damages.append((part.window, part.computed))
                continue
            current = self._current(part.window)
            touched = self._touched(part.window)
            for row in _with_nulls(current, part.computed.rows()):
                if touched is not None and (row.bucket, row.entity_id) not in touched:
                    continue
                if row.failure is None:
                    self.written += 1
                    yield row
                    continue
                self.failed += 1
                if len(self.kept) < KEPT_FAILURES:
                    self.kept.append(
                        FailedAggregate(
                            metric=row.metric,
                            metric_version=next(each.version for each in self.metrics if each.name == row.metric),
                            inputs=row.inputs or 0,
                            bucket=row.bucket,
                            entity_id=row.entity_id,
                            reason=row.failure.reason,
                            events=row.failure.events,
                            event_ids=row.failure.event_ids,
                        )
                    )

    def _current(self, part: Window) -> Iterator[Aggregate]:
        """Yield what is current of the task's entities, ordered by metric, bucket and entity."""
        entities, entity_range = self.selection.entities, self.selection.entity_range
        for name in sorted(metric.name for metric in self.metrics):
            yield from self.selection.store.aggregates.current(name, part, entities, entity_range=entity_range)

    def _touched(self, part: Window) -> set[tuple[int, str]] | None:
        """Return the (bucket, entity) pairs that the request's filters choose; None where it has none."""
        if not self.request.chooses_buckets:
            return None
        start, end = max(self.request.start, part.start), min(self.request.end, part.end)
        if start >= end:
            return set()
        selection, definition = self.selection.within(Window(start, end)), self.metrics[0].definition
        pairs = chosen_buckets(selection, self.engine, self.request, definition.buckets, per=definition.per)
        return {(pair.bucket, pair.entity_id) for pair in pairs}

    def failures(self) -> Failures:
        """Return what failed, once all rows were read."""
        return Failures(count=self.failed, kept=tuple(self.kept))

    def damage(self) -> Damaged | None:
        """Return all damage to raw, once all rows were read, as one error that names the first: Unreadable where that
        one is."""
        if not self.damages:
            return None
        window, damage = self.damages[0]
        others = f", nor {len(self.damages) - 1} other parts of its window" if len(self.damages) > 1 else ""
        found = copy(damage)
        found.message = f"{damage.message}; {window} is not computed{others}"
        found.hint = f"{damage.hint}; once it can be read: {_AGAIN}" if isinstance(damage, Unreadable) else _RESTORE
        return found


def _with_nulls(current: Iterator[Aggregate], computed: Iterator[Computed]) -> Iterator[Computed]:
    """Yield what was computed, and a null wherever there is a current value that has no events any more."""
    for left, right in compare(current, computed):
        if right is not None:
            yield right
        elif left is not None and left.computed.value is not None:
            gone = left.computed
            yield Computed(gone.metric, gone.bucket, gone.entity_id, None, 0, NO_INPUTS, NO_INPUTS)
