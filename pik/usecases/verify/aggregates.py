"""Verifying aggregates: the inputs of each current one against the events that its run knew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from pik.errors import EngineError
from pik.model.instant import DAY, MIN_INSTANT, day_text, format_instant
from pik.model.metric import NO_INPUTS, Aggregate, BucketDigest, Metric
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.gather import gather
from pik.usecases.metrics.computation import BYTES_AT_ONCE, Budget, by_bucket_size, compare, current_but, stretches
from pik.usecases.verify.findings import AGGREGATE, Problem, Tally


def aggregate_problems(store: Store, engine: Engine, tally: Tally) -> Iterator[Problem]:
    """Check every current aggregate of the window.

    First against all events there are now: those of a bucket together, by their digest, and one by one where that
    differs. Where they do, later events may be the reason; so those aggregates are compared once more with what was
    known at their time, to the definition of their time.
    """
    tally.aggregates = 0
    for size, metrics in by_bucket_size(store.metrics.latest()):
        for whole in _computable(tally.window.widened(size), size, tally.expired_days):
            for stretch in stretches(store, whole, size, (), Budget(bytes=BYTES_AT_ONCE)):
                yield from _of_stretch(store, engine, metrics, stretch, tally)


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


def _of_stretch(
    store: Store, engine: Engine, metrics: Sequence[Metric], window: Window, tally: Tally
) -> Iterator[Problem]:
    held = [metric for metric in metrics if next(store.aggregates.current(metric.name, window), None) is not None]
    if not held:
        return
    try:
        others = _others(store, engine, held, window, tally)
    except EngineError as error:
        if len(held) == 1:
            yield Problem(AGGREGATE, held[0].name, f"its inputs cannot be computed: {error.message}")
            return
        for metric in held:  # to tell which of them it is
            yield from _of_stretch(store, engine, [metric], window, tally)
        return
    for metric in held:
        try:
            yield from _as_known(store, engine, metric, others[metric.name], tally)
        except EngineError as error:
            yield Problem(AGGREGATE, metric.name, f"its inputs cannot be computed: {error.message}")


_Known = tuple[int, int]
"""What an aggregate was computed from: the version of its metric, and until when events were known."""


def _others(
    store: Store, engine: Engine, metrics: Sequence[Metric], window: Window, tally: Tally
) -> dict[str, dict[_Known, Window]]:
    """By metric, where there are current aggregates that the events there are now do not explain."""
    sizes = {metric.name: metric for metric in metrics}
    others: dict[str, dict[_Known, Window]] = {metric.name: {} for metric in metrics}
    checked = 0
    definitions = [metric.definition for metric in metrics]
    with gather(store, window) as gathered, engine.computation(gathered.inputs, definitions, window) as computation:
        current = {
            (digest.metric, digest.bucket): digest
            for metric in metrics
            for digest in store.aggregates.digests(metric.name, window)
        }
        equal = {
            (now.metric, now.bucket)
            for now in computation.digests()
            if _explained(current.get((now.metric, now.bucket)), now, sizes[now.metric])
        }
        checked += sum(current[bucket].aggregates for bucket in equal)
        for aggregate, found in compare(
            current_but(store.aggregates, equal, current), computation.rows(skipping=equal)
        ):
            if aggregate is None:
                continue
            checked += 1
            metric = sizes[aggregate.computed.metric]
            counted = (0, NO_INPUTS, NO_INPUTS) if found is None else found.counted
            if aggregate.computed.counted != counted or aggregate.metric_version != metric.version:
                _extend(others[metric.name], aggregate, metric.bucket_size)
    tally.aggregates = (tally.aggregates or 0) + checked
    return others


def _explained(current: BucketDigest | None, now: BucketDigest, metric: Metric) -> bool:
    """Whether the aggregates of a bucket are all what events there are now make of the latest definition."""
    if current is None or current.without_value:  # digests leave those without a value out
        return False
    versions = current.lowest_version, current.highest_version
    return current.values == now.values and versions == (metric.version, metric.version)


def _as_known(
    store: Store, engine: Engine, metric: Metric, others: Mapping[_Known, Window], tally: Tally
) -> Iterator[Problem]:
    """The aggregates that what was known to them does not explain either."""
    for (version, known_until), part in others.items():
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
    store: Store, engine: Engine, metric: Metric, window: Window, until: int
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
