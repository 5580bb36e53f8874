"""Verifying aggregates: the inputs of each current one against the events that its run knew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from pik.errors import EngineError
from pik.model.instant import DAY, MIN_INSTANT, day_text, format_instant
from pik.model.metric import NO_INPUTS, Aggregate, Metric
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.usecases.raw_inputs import gather
from pik.usecases.recompute import compare
from pik.usecases.verify_findings import AGGREGATE, Problem, Tally


def aggregate_problems(store: Store, engine: Engine, tally: Tally) -> Iterator[Problem]:
    """Check every current aggregate of the window.

    First against all events there are now. Where that differs, later events may be the reason; so those aggregates are
    compared once more with what was known at their time, to the definition of their time.
    """
    tally.aggregates = 0
    for metric in store.metrics.latest():
        for whole in _computable(tally.window.widened(metric.bucket_size), metric.bucket_size, tally.expired_days):
            if next(store.aggregates.current(metric.name, whole), None) is None:
                continue
            try:
                yield from _of_metric(store, engine, metric, whole, tally)
            except EngineError as error:
                yield Problem(AGGREGATE, metric.name, f"its inputs cannot be computed: {error.message}")


def _computable(window: Window, size: int, expired_days: Iterable[int]) -> Iterator[Window]:
    """The window, made of whole buckets of `size`, without those that touch days with expired raw."""
    start = window.start
    for day in sorted(expired_days):
        gone = Window(max(day * DAY, MIN_INSTANT), (day + 1) * DAY).widened(size)
        if start < gone.start:
            yield Window(start, gone.start)
        start = max(start, gone.end)
    if start < window.end:
        yield Window(start, window.end)


def _of_metric(store: Store, engine: Engine, metric: Metric, window: Window, tally: Tally) -> Iterator[Problem]:
    older: dict[tuple[int, int], Window] = {}
    for aggregate, same in _compared(store, engine, metric, window):
        tally.aggregates = (tally.aggregates or 0) + 1
        if not same or aggregate.metric_version != metric.version:
            _extend(older, aggregate, metric.bucket_size)
    for (version, known_until), part in older.items():
        then = next(one for one in store.metrics.versions(metric.name) if one.version == version)
        for aggregate, same in chain.from_iterable(
            _compared(store, engine, then, whole, known_until)
            for whole in _computable(part.widened(then.bucket_size), then.bucket_size, tally.expired_days)
        ):
            if (aggregate.metric_version, aggregate.known_until) == (version, known_until) and not same:
                yield _aggregate_problem(aggregate)


def _extend(older: dict[tuple[int, int], Window], aggregate: Aggregate, size: int) -> None:
    key = aggregate.metric_version, aggregate.known_until
    start = aggregate.computed.bucket
    known = older.get(key, Window(start, start + size))
    older[key] = Window(min(known.start, start), max(known.end, start + size))


def _compared(
    store: Store, engine: Engine, metric: Metric, window: Window, until: int | None = None
) -> Iterator[tuple[Aggregate, bool]]:
    """Each current aggregate, and whether its inputs are those that the events up to `until` make."""
    with gather(store, window, until=until) as gathered:
        computed = iter(()) if gathered.empty else engine.compute(gathered.inputs, [metric.definition], window)
        for current, now in compare(store.aggregates.current(metric.name, window), computed):
            if current is not None:
                yield current, current.computed.counted == (now.counted if now else (0, NO_INPUTS, NO_INPUTS))


def _aggregate_problem(aggregate: Aggregate) -> Problem:
    row = aggregate.computed
    return Problem(
        AGGREGATE,
        f"{row.metric} of run {aggregate.run_id}",
        f"its {row.inputs} inputs are not the events of {format_instant(row.bucket)} that were known to it",
        day_text(row.bucket // DAY),
        (row.entity_id,),
    )
