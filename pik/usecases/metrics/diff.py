"""What the numbers should be, against what they are: recomputed from raw, or written by a run. Writes nothing."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Context, Decimal
from operator import attrgetter

import msgspec

from pik.errors import Damaged, NothingSelected, command
from pik.model.metric import NO_INPUTS, Aggregate, BucketDigest, Computed, Failure, Metric
from pik.model.run import Run
from pik.model.window import Window
from pik.ports.engine import Bucket, Engine
from pik.ports.store import Store
from pik.runtime.spool import sort_bounded
from pik.usecases.availability import expect_held
from pik.usecases.inspect.events import events_within, nothing_counted, nothing_selected, null_values
from pik.usecases.metrics.computation import (
    BYTES_AT_ONCE,
    Budget,
    by_bucket_size,
    compare,
    current_but,
    current_rows,
    recompute,
    sound,
    stretches,
    widest,
)
from pik.usecases.metrics.definitions import Scales, chosen, pin
from pik.usecases.metrics.tolerance import WIDE_DECIMAL, Tolerances

CHANGED, ADDED, REMOVED, FAILED = "~", "+", "-", "!"

NOTHING = "nothing to compare"

_PERCENT = Context(prec=6)

_Pairs = Iterator[tuple[Aggregate | None, Computed | None]]


class Difference(msgspec.Struct, frozen=True, gc=False):
    """A bucket whose value is another one (`~`), is not current yet (`+`), is current without events (`-`), or cannot
    be computed (`!`).

    `delta` and `percent` (of the current value, to six digits) are None where one of the two values is missing,
    `percent` also where the current value is 0. What cannot be computed has a `failure`, and no entity where raw of the
    whole bucket cannot be read.
    """

    op: str
    metric: str
    bucket: int
    entity_id: str
    current: Decimal | None
    recomputed: Decimal | None
    delta: Decimal | None
    percent: Decimal | None
    inputs_before: int
    inputs_after: int
    failure: Failure | None = None


@dataclass(slots=True)
class Stats:
    """What was compared: the sum of equal, tolerated (different, but within tolerance), changed, added and removed.
    `other_inputs` of the equal ones have the same value from other events. What `failed` was not compared.

    `nulls` tells by metric how many buckets were computed as NULL, from how many events, and have no current value.
    Where other values are equal not all of them are looked at: it is for saying why nothing was compared."""

    compared: int = 0
    equal: int = 0
    tolerated: int = 0
    changed: int = 0
    added: int = 0
    removed: int = 0
    other_inputs: int = 0
    failed: int = 0
    nulls: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count_equal(self, aggregates: int) -> None:
        """Count as many that are equal, of the same events."""
        self.compared += aggregates
        self.equal += aggregates


@dataclass(slots=True)
class Basis:
    """What the right side rests on: the versions of metrics (NAME@VERSION), and until when deliveries were known: the
    latest `recorded_at` of those that were listed (0: there were none). `without_value` are those of the named entities
    of which neither side has a value."""

    versions: set[str] = field(default_factory=set)
    known_until: int = 0
    without_value: set[str] = field(default_factory=set)

    def add(self, written: Aggregate) -> None:
        """Add what a version that a run wrote rests on."""
        self.versions.add(f"{written.computed.metric}@{written.metric_version}")
        self.known_until = max(self.known_until, written.known_until)

    def watched(self, pairs: _Pairs) -> _Pairs:
        """The pairs, noting whose they are."""
        for left, right in pairs:
            if self.without_value:
                self._note(left, right)
            yield left, right

    def _note(self, left: Aggregate | None, right: Computed | None) -> None:
        before = None if left is None else left.computed
        for one in (before, right):
            if one is None or (one.value is None and one.failure is None):
                continue
            if one.entity_id:
                self.without_value.discard(one.entity_id)
            else:  # raw of the bucket cannot be read: anybody may have a value there
                self.without_value.clear()


@dataclass(frozen=True, slots=True)
class Diff:
    """Differences, ordered by metric, bucket, entity; `stats` and `basis` are whole once they have been iterated over.

    `effective` is what the whole buckets cover that the window touches. `run` is the run whose values were compared;
    `unlisted` counts the aggregates that failed in it and are not among the rows, since a run keeps only the first.
    """

    window: Window
    effective: Window
    rows: Iterator[Difference]
    stats: Stats
    basis: Basis
    run: Run | None = None
    unlisted: int = 0


def diff_aggregates(
    store: Store,
    engine: Engine,
    window: Window,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    tolerances: Tolerances | None = None,
    changed_only: bool = False,
) -> Diff:
    """Recompute from raw and compare with what is current; with `changed_only` only where both have a value.

    What cannot be computed is a row like any other. Raises NothingSelected for an unknown metric, also in `tolerances`,
    for a store without any events, and while iterating where neither side has a value; NotHeld where raw of the whole
    buckets has expired or was not pulled; EngineError while iterating, where nothing can be computed.
    """
    wanted = chosen(store.metrics, metrics)
    _expect_known(store, tolerances)
    effective = widest(window, wanted)
    expect_held(store, effective, entities)
    if store.copy is None and not store.index.totals().segments:
        raise NothingSelected("the store holds no events, so there is nothing to compare", hint="pik ingest FILE")
    stats, basis = Stats(), Basis({pin(metric) for metric in wanted}, without_value=set(entities))
    together = _cut(store, wanted, window, entities)
    pairs = (
        pair for group, stretch in together for pair in _stretch(store, engine, group, stretch, entities, stats, basis)
    )
    rows = _differences(basis.watched(pairs), tolerances or Tolerances(), stats, Scales(store.metrics))
    if len(together) > 1 and len(wanted) > 1:
        rows = _ordered(rows)

    def none() -> NothingSelected:
        if stats.nulls:
            return null_values(NOTHING, stats.nulls)
        events = events_within(store, engine, effective, max(each.bucket_size for each in wanted), entities)
        if events:
            return nothing_counted(NOTHING, sorted(basis.versions), events, effective)
        return nothing_selected(store, NOTHING, effective, entities)

    return Diff(window, effective, _or_nothing(_only(rows, changed_only), stats, none), stats, basis)


def diff_run(
    store: Store,
    run_id: str,
    *,
    metrics: Sequence[str] = (),
    entities: Sequence[str] = (),
    tolerances: Tolerances | None = None,
    changed_only: bool = False,
) -> Diff:
    """Compare what a run wrote with what is current now; what failed in it is a row, too. Raises NotFound, and as
    diff_aggregates does."""
    run = store.runs.get(run_id)
    wanted = chosen(store.metrics, metrics)
    _expect_known(store, tolerances)
    effective = run.effective
    stats, basis = Stats(), Basis(without_value=set(entities))
    pairs = _written(store, run, wanted, entities or run.request.entities, basis)
    rows = _differences(basis.watched(pairs), tolerances or Tolerances(), stats, Scales(store.metrics))

    def none() -> NothingSelected:
        if stats.nulls:
            return null_values(NOTHING, stats.nulls)
        wrote = f"{NOTHING}: run {run.run_id} wrote none of these values"
        return NothingSelected(wrote, hint=command("runs", "show", run.run_id))

    rows = _or_nothing(_only(rows, changed_only), stats, none)
    unlisted = run.failed_aggregates - len(run.failures)
    return Diff(run.request.window, effective, rows, stats, basis, run, unlisted)


def basis_of(store: Store, run_id: str) -> Basis:
    """What the versions that a run wrote rest on."""
    basis = Basis()
    for change in store.aggregates.changes(run_id):
        basis.add(change.written)
    return basis


def _expect_known(store: Store, tolerances: Tolerances | None) -> None:
    """A tolerance for a metric that is not there would otherwise go by unseen. Raises NotFound."""
    if tolerances is not None and tolerances.metrics:
        chosen(store.metrics, tuple(tolerances.metrics))


def _cut(
    store: Store, metrics: Sequence[Metric], window: Window, entities: Sequence[str]
) -> list[tuple[list[Metric], Window]]:
    """What is computed together: metrics of one bucket size, over a stretch of their whole buckets."""
    return [
        (group, stretch)
        for size, group in by_bucket_size(metrics)
        for stretch in stretches(store, window.widened(size), size, entities, Budget(bytes=BYTES_AT_ONCE))
    ]


def _stretch(
    store: Store,
    engine: Engine,
    metrics: Sequence[Metric],
    window: Window,
    entities: Sequence[str],
    stats: Stats,
    basis: Basis,
) -> _Pairs:
    """Pairs of metrics of one bucket size over whole buckets. What is equal in a bucket whose aggregates are all equal
    is counted, and looked at no closer."""
    with ThreadPoolExecutor(1) as beside, closing(recompute(store, engine, metrics, window, entities)) as parts:
        # The store is read while the engine computes.
        read = None if entities else beside.submit(_current_digests, store, metrics, window)
        for part in parts:
            if part.window != window and len(metrics) > 1:  # damage: one metric at a time, to keep the order of rows
                for metric in metrics:
                    yield from _stretch(store, engine, [metric], window, entities, stats, basis)
                return
            basis.known_until = max(basis.known_until, part.known_until)
            if isinstance(part.computed, Damaged):
                yield from ((None, row) for row in _unreadable(metrics, part.window, part.computed))
            elif read is None:
                current = sound(current_rows(store.aggregates, metrics, part.window, entities))
                yield from compare(current, part.computed.rows())
            else:
                left = {bucket: digest for bucket, digest in read.result().items() if bucket[1] in part.window}
                right = _by_bucket(part.computed.digests())
                equal = {bucket for bucket in right if bucket in left and left[bucket].values == right[bucket].values}
                stats.count_equal(sum(right[bucket].aggregates for bucket in equal))
                current = current_but(store.aggregates, equal, left.keys() | right.keys())
                yield from compare(current, part.computed.rows(skipping=equal))


def _unreadable(metrics: Sequence[Metric], window: Window, damage: Damaged) -> Iterator[Computed]:
    """A failed row for each metric, in place of all aggregates in the window."""
    failure = Failure(f"{damage.message}; {window} is not computed")
    for metric in metrics:
        yield Computed(metric.name, window.start, "", None, 0, NO_INPUTS, NO_INPUTS, failure)


def _by_bucket(digests: Iterable[BucketDigest]) -> dict[Bucket, BucketDigest]:
    return {(digest.metric, digest.bucket): digest for digest in digests}


def _current_digests(store: Store, metrics: Sequence[Metric], window: Window) -> dict[Bucket, BucketDigest]:
    digests = (digest for metric in metrics for digest in store.aggregates.digests(metric.name, window))
    return _by_bucket(digest for digest in digests if digest.aggregates)


def _written(store: Store, run: Run, metrics: Sequence[Metric], entities: Sequence[str], basis: Basis) -> _Pairs:
    names, some = {metric.name for metric in metrics}, set(entities)
    scales = Scales(store.metrics)
    window = run.effective

    def written() -> Iterator[Computed]:
        for change in store.aggregates.changes(run.run_id):
            row = change.written.computed
            if row.metric in names and (not some or row.entity_id in some):
                basis.add(change.written)
                yield scales.shown(change.written).computed

    def failed() -> Iterator[Computed]:
        for each in sorted(run.failures, key=attrgetter("metric", "bucket", "entity_id")):
            if each.metric in names and (not some or each.entity_id in some):
                basis.versions.add(f"{each.metric}@{each.metric_version}")
                place = each.metric, each.bucket, each.entity_id
                failure = Failure(each.reason, each.events, each.event_ids)
                yield Computed(*place, None, each.inputs, NO_INPUTS, NO_INPUTS, failure)

    computed = heapq.merge(written(), failed(), key=attrgetter("metric", "bucket", "entity_id"))
    pairs = compare(sound(current_rows(store.aggregates, metrics, window, entities)), computed)
    return (pair for pair in pairs if pair[1] is not None)


def _ordered(rows: Iterator[Difference]) -> Iterator[Difference]:
    return sort_bounded(rows, attrgetter("metric", "bucket", "entity_id"))


def _only(rows: Iterator[Difference], changed_only: bool) -> Iterator[Difference]:
    return (row for row in rows if row.op in (CHANGED, FAILED) or not changed_only)


def _or_nothing(rows: Iterator[Difference], stats: Stats, error: Callable[[], NothingSelected]) -> Iterator[Difference]:
    """The rows. Raises the error at their end where nothing was compared, so that it is not taken for "all is well"."""
    yield from rows
    if not stats.compared and not stats.failed:
        raise error()


def _differences(pairs: _Pairs, tolerances: Tolerances, stats: Stats, scales: Scales) -> Iterator[Difference]:
    for left, right in pairs:
        before = None if left is None else left.computed
        if right is not None and right.failure is not None:
            stats.failed += 1
            yield _difference(None if left is None else scales.shown(left).computed, right)
            continue
        current = None if before is None else before.value
        value = None if right is None else right.value
        if current == value:
            if value is not None and before is not None and right is not None:
                stats.compared += 1
                stats.equal += 1
                stats.other_inputs += before.counted != right.counted
            elif right is not None and right.inputs:
                buckets, events = stats.nulls.get(right.metric, (0, 0))
                stats.nulls[right.metric] = buckets + 1, events + right.inputs
            continue
        stats.compared += 1
        row = _difference(None if left is None else scales.shown(left).computed, right)
        if row.delta is not None and current is not None and tolerances.cover(row.metric, current, row.delta):
            stats.tolerated += 1
            continue
        stats.changed += row.op == CHANGED
        stats.added += row.op == ADDED
        stats.removed += row.op == REMOVED
        yield row


def _difference(before: Computed | None, after: Computed | None) -> Difference:
    here = before or after
    assert here is not None
    current = before.value if before else None
    value = after.value if after else None
    delta = percent = None
    if current is not None and value is not None:
        delta = WIDE_DECIMAL.subtract(value, current)
        if current:
            percent = _PERCENT.divide(WIDE_DECIMAL.multiply(delta, Decimal(100)), current.copy_abs()).normalize()
    failure = after.failure if after else None
    op = ADDED if current is None else REMOVED if value is None else CHANGED
    return Difference(
        op=op if failure is None else FAILED,
        metric=here.metric,
        bucket=here.bucket,
        entity_id=here.entity_id,
        current=current,
        recomputed=value,
        delta=delta,
        percent=percent,
        inputs_before=before.inputs if before else 0,
        inputs_after=after.inputs if after else 0,
        failure=failure,
    )
