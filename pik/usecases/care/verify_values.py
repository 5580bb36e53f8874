"""Verifying current aggregates: whether they are what raw makes of what was known to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

from pik.errors import Damaged, EngineError
from pik.model.aggregate import NO_INPUTS, Aggregate, BucketDigest
from pik.model.calendar import Buckets
from pik.model.metric import Metric
from pik.model.scenario import Scenario
from pik.model.window import Window
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.gathering import gather
from pik.rawlog.sealed_records import parts
from pik.rawlog.selection import Selection
from pik.usecases.care.verify_corrections import values_under
from pik.usecases.care.verify_findings import NotProvable, Problem, ProblemKind
from pik.usecases.care.verify_remaining import Remaining
from pik.usecases.care.verify_run import Verification
from pik.usecases.care.verify_segments import note_lost_in
from pik.usecases.metrics.computation import (
    BYTES_AT_ONCE,
    by_buckets,
    compare,
    current_but,
    current_digests,
    stretches,
)
from pik.usecases.metrics.scenario import applied
from pik.usecases.metrics.winners import Winners

_Known = tuple[int, int, int, int]
"""What an aggregate was computed from: the version of its metric, until when events were known, until when rebuilds had
changed which of their deliveries count, and until when other corrections were recorded."""


def _known_to(aggregate: Aggregate, winners: Winners) -> _Known:
    run_id = aggregate.run_id
    corrections = winners.known_to(run_id), winners.corrections_known_to(run_id)
    return aggregate.metric_version, aggregate.known_until, *corrections


_NOTHING = (0, NO_INPUTS, NO_INPUTS)

_COUNTED = {ProblemKind.UNPROVEN: "unproven", ProblemKind.UNCERTAIN: "uncertain"}
"""What counts values with a problem, by its kind."""


@dataclass(frozen=True, slots=True)
class _Scope:
    """What is the same for all stretches: metrics with the same buckets, what raw has lost, and days whose aggregates
    cannot be checked."""

    metrics: Sequence[Metric]
    remaining: Remaining
    without: Set[int]


class _Checked(NamedTuple):
    """How many values of a stretch were compared with raw, and those that were imported."""

    aggregates: int
    imported: Sequence[NotProvable]


class _Unproven(NamedTuple):
    """The problem of a value that what was known to it does not explain."""

    problem: Problem


_Result = Problem | _Checked | _Unproven


def aggregate_problems(run: Verification, engine: Engine) -> Iterator[Problem]:
    """Check every current aggregate of the window.

    First against all events there are now: those of a bucket together, by their digest, and one by one where that
    differs. Where they do, later events may be the reason; so those aggregates are compared once more with what was
    known at their time, to the definition of their time. What raw has lost is left out of both; of an aggregate that
    differs then, it may be the reason.
    """
    winners = Winners(run.store)
    try:
        winners.changes()
    except Damaged:  # which is reported of that record
        return
    run.aggregates = 0
    latest = run.store.metrics.latest()
    run.retired = tuple(metric.name for metric in latest if metric.retired)
    for buckets, metrics in by_buckets([metric for metric in latest if not metric.retired]):
        for metric in metrics:
            yield from values_under(run, metric, winners)
        without = _without(run)
        for whole in (part for held in _held(run, buckets) for part in _computable(held, buckets, without)):
            if whole != run.window:
                note_lost_in(run, whole)
            remaining = Remaining(run.store, run.lost, run.unknown_losses, winners)
            check = partial(_check, _Scope(metrics, remaining, without))
            wanted = stretches(Selection(run.store, whole), buckets, size=BYTES_AT_ONCE)
            results = (
                run.fleet.map(check, wanted)
                if run.fleet is not None
                else chain.from_iterable(check(run.store, engine, part) for part in wanted)
            )
            yield from _added(run, results)
            yield from _incomplete(run, metrics, buckets, whole, remaining)


def _added(run: Verification, results: Iterable[_Result]) -> Iterator[Problem]:
    """Yield the problems among the results, and count the others."""
    for found in results:
        if isinstance(found, _Checked):
            run.aggregates = (run.aggregates or 0) + found.aggregates
            run.note_imported(found.imported)
        elif isinstance(found, _Unproven):
            run.counts["not_proven"] += 1
            if found.problem.kind in _COUNTED:
                run.counts[_COUNTED[found.problem.kind]] += 1
            yield found.problem
        else:
            yield found


def _incomplete(
    run: Verification, metrics: Sequence[Metric], buckets: Buckets, window: Window, remaining: Remaining
) -> Iterator[Problem]:
    """Yield the current aggregates that lack deliveries which were recorded later and are lost."""
    reached = window.start
    for day in sorted({lost.segment.day for lost in run.lost.values()}):
        part = buckets.widened(Window.of_day(day))
        start, reached = max(part.start, reached), max(min(part.end, window.end), reached)
        if start >= reached:
            continue
        for metric in metrics:
            for current in run.store.aggregates.current(metric.name, Window(start, reached)):
                if not current.is_imported and (problem := remaining.recorded_since(current, metric)) is not None:
                    run.counts["incomplete"] += 1
                    yield problem


def _held(run: Verification, buckets: Buckets) -> Iterator[Window]:
    """Yield the window, of whole buckets; of a copy, what it holds of them: it lacks what corrections list on
    other days."""
    wanted = buckets.widened(run.window)
    if run.store.copy is None:
        yield wanted
        return
    reached = wanted.start
    for part in sorted(parts(run.store), key=lambda one: one.window.start):
        found = buckets.widened(part.window)
        start, end = max(found.start, reached), min(found.end, wanted.end)
        if start < end:
            yield Window(start, end)
            reached = end


def _without(run: Verification) -> set[int]:
    """Return the days whose aggregates cannot be checked: raw has expired, or a correction cannot be read."""
    return run.expired_days.union(*(one.days for one in run.unreadable))


def _computable(window: Window, buckets: Buckets, expired_days: Iterable[int]) -> Iterator[Window]:
    """Yield the parts of the window, of whole buckets, that touch none of these days."""
    start = window.start
    for day in sorted(expired_days):
        gone = buckets.widened(Window.of_day(day))
        if start < gone.start:
            yield Window(start, gone.start)
        start = max(start, gone.end)
    if start < window.end:
        yield Window(start, window.end)


def _check(scope: _Scope, store: Store, engine: Engine, window: Window) -> Iterator[_Result]:
    """Check the current aggregates of a stretch."""
    aggregates = store.aggregates
    present = [metric for metric in scope.metrics if next(aggregates.current(metric.name, window), None) is not None]
    if not present:
        return
    scope = replace(scope, metrics=present)
    try:
        checked, unexplained = _unexplained(scope, store, engine, window)
    except EngineError as error:
        if len(present) == 1:
            yield _not_computable(present[0], error)
            return
        for metric in present:  # to learn which of them it is
            yield from _check(replace(scope, metrics=[metric]), store, engine, window)
        return
    yield checked
    for metric in present:
        try:
            yield from _as_known(scope, store, engine, metric, unexplained[metric.name])
        except EngineError as error:
            yield _not_computable(metric, error)


def _not_computable(metric: Metric, error: EngineError) -> Problem:
    return Problem(ProblemKind.AGGREGATE, metric.name, f"its inputs cannot be computed: {error.message}")


def _unexplained(
    scope: _Scope, store: Store, engine: Engine, window: Window
) -> tuple[_Checked, dict[str, dict[_Known, Window]]]:
    """Return, by metric and what was known, where the events there are now do not explain a current aggregate."""
    metrics, remaining = scope.metrics, scope.remaining
    aggregates, by_name = store.aggregates, {metric.name: metric for metric in metrics}
    unexplained: dict[str, dict[_Known, Window]] = {metric.name: {} for metric in metrics}
    checked, imported = 0, dict[tuple[str, str], NotProvable]()
    definitions = [metric.definition for metric in metrics]
    with (
        gather(Selection(store, window, overrides=remaining.overrides)) as gathered,
        engine.computation(gathered.inputs, definitions, window) as computation,
    ):
        current = current_digests(aggregates, metrics, window)
        equal = {
            (now.metric, now.bucket)
            for now in computation.digests()
            if _is_explained(current.get((now.metric, now.bucket)), now, by_name[now.metric])
        }
        checked += sum(current[bucket].aggregates for bucket in equal)
        for aggregate, found in compare(current_but(aggregates, equal, current), computation.rows(skipping=equal)):
            if aggregate is None:
                continue
            if aggregate.file_digest is not None:
                place, start = (aggregate.run_id, aggregate.computed.metric), aggregate.computed.bucket
                one = NotProvable(*place, aggregate.file_digest, 1, start, start)
                imported[place] = imported[place].plus(one) if place in imported else one
                continue
            checked += 1
            metric = by_name[aggregate.computed.metric]
            counted = _NOTHING if found is None else found.counted
            if aggregate.computed.counted != counted or aggregate.metric_version != metric.version:
                start, of_metric = aggregate.computed.bucket, unexplained[metric.name]
                key = _known_to(aggregate, remaining.winners)
                end = metric.buckets.end_of(start)
                known = of_metric.get(key, Window(start, end))
                of_metric[key] = Window(min(known.start, start), max(known.end, end))
    return _Checked(checked, tuple(imported.values())), unexplained


def _is_explained(current: BucketDigest | None, now: BucketDigest, metric: Metric) -> bool:
    """Return whether the aggregates of a bucket are all what the latest definition makes of the events there are
    now."""
    if current is None or current.without_value:  # digests leave those without a value out
        return False
    versions = current.lowest_version, current.highest_version
    return current.values == now.values and versions == (metric.version, metric.version)


def _as_known(
    scope: _Scope, store: Store, engine: Engine, metric: Metric, unexplained: Mapping[_Known, Window]
) -> Iterator[_Unproven]:
    """Yield the aggregates that what was known to them does not explain either."""
    remaining = scope.remaining
    for key, part in unexplained.items():
        version, *moments = key
        scenario = Scenario(moments[0], (), *moments[1:])
        then = next(one for one in store.metrics.versions(metric.name) if one.version == version)
        for whole in _computable(then.buckets.widened(part), then.buckets, scope.without):
            with (
                applied(store, engine, scenario, whole, winners=remaining.winners) as known,
                gather(Selection(store, whole, overrides=remaining.of(known))) as gathered,
                engine.computation(gathered.inputs, [then.definition], whole) as computation,
            ):
                for current, now in compare(store.aggregates.current(metric.name, whole), computation.rows()):
                    if current is None:
                        continue
                    if _known_to(current, remaining.winners) != key:
                        continue
                    if current.computed.counted != (_NOTHING if now is None else now.counted):
                        yield _Unproven(remaining.problem(current, now, then))
