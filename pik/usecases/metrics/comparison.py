"""Two sides side by side: how their values differ, by more than is tolerated, and what was counted of them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Context, Decimal
from enum import StrEnum
from functools import reduce
from operator import attrgetter
from typing import NamedTuple

import msgspec

from pik.errors import Damaged, NothingSelected
from pik.model.aggregate import NO_INPUTS, Aggregate, Computed, Failure
from pik.model.metric import ALL_ENTITIES, Metric
from pik.model.run import Run
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.runtime.storage import Spool
from pik.usecases.inspect.events import null_values
from pik.usecases.metrics.alike import no_common_key
from pik.usecases.metrics.computation import (
    NO_LINES,
    ComputedStretch,
    Values,
    compare,
    current_but,
    current_digests,
    current_rows,
    differing_lines,
    recompute,
    sound,
)
from pik.usecases.metrics.definitions import Scales, chosen
from pik.usecases.metrics.file_numbers import FileNumbers
from pik.usecases.metrics.sides import RecordedSide
from pik.usecases.metrics.tolerance import Tolerance
from pik.usecases.metrics.totals import Both, DiffTotals, Group, PairOutcome

NOTHING = "nothing to compare"

_WIDE = Context(prec=200)
"""Sums, differences and products of what a DECIMAL or a HUGEINT can hold, without rounding."""

_PERCENT = Context(prec=6)

_ORDER = attrgetter("metric", "bucket", "entity_id")

Pairs = Iterator[tuple[Aggregate | None, Computed | None]]


class Op(StrEnum):
    """How a value differs."""

    CHANGED = "~"
    ADDED = "+"
    REMOVED = "-"
    FAILED = "!"


_CHANGED, _ADDED, _REMOVED, _FAILED = Op  # members are slow to look up


class Difference(msgspec.Struct, frozen=True, gc=False):
    """A bucket with another value (`~`), with one that is not current yet (`+`), with a current value but no events
    (`-`), or that cannot be computed (`!`).

    `delta` and `percent` (of the current value, to six digits) are None where one of the two values is missing,
    `percent` also where the current value is 0. What cannot be computed has a `failure`, and no entity where raw of the
    whole bucket cannot be read. What numbers from outside were computed from is not known, nor what damaged raw held:
    these inputs are None.
    `version` is the left side's; a number from outside has one too, which says nothing else. `causes` are the shares of
    the delta by cause, if they were asked for, `proven` as in an Explanation, and `corrections` the ids of those behind
    the cause *corrected*.
    """

    op: Op
    metric: str
    bucket: int
    entity_id: str
    current: Decimal | None
    recomputed: Decimal | None
    delta: Decimal | None
    percent: Decimal | None
    inputs_before: int | None
    inputs_after: int | None
    failure: Failure | None = None
    version: Aggregate | None = None
    causes: tuple[tuple[str, Decimal], ...] = ()
    proven: bool | None = None
    corrections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    """What was compared: the sum of equal, tolerated (different, but within tolerance), changed, added and removed.
    `other_inputs` of the equal ones have the same value from other events. What `failed` was not compared."""

    compared: int = 0
    equal: int = 0
    tolerated: int = 0
    changed: int = 0
    added: int = 0
    removed: int = 0
    other_inputs: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Basis:
    """What the right side rests on: the versions of metrics (NAME@VERSION), and until when deliveries were known: the
    latest `recorded_at` of those that were listed (0: there were none). `without_value` are those of the named entities
    of which neither side has a value."""

    versions: frozenset[str]
    known_until: int = 0
    without_value: frozenset[str] = frozenset()


class Counted(NamedTuple):
    """What a comparison has counted, for one of which it is a part; as in Comparison."""

    counts: Counter[str]
    nulls: Mapping[str, tuple[int, int]]
    known_until: int
    without_value: set[str]
    sums: Mapping[str, Decimal]
    groups: Mapping[Group, Both]
    damaged: set[str]


@dataclass(slots=True)
class Comparison:
    """A comparison under way, and what it has counted. `nulls` has by metric how many buckets were computed as NULL,
    from how many events, without a current value: it is for saying why nothing was compared, and not all are looked at
    where other values are equal. `tolerated` are rows that are not listed, kept for totals that are explained. `sums`
    gets by metric what all recomputed values come to."""

    store: Store
    tolerances: Sequence[Tolerance]
    versions: set[str]
    without_value: set[str]
    file: FileNumbers | None = None
    left: RecordedSide | None = None
    totals: DiffTotals | None = None
    sums: dict[str, Decimal] | None = None
    known_until: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    nulls: dict[str, tuple[int, int]] = field(default_factory=dict)
    scales: Scales = field(init=False)
    tolerated: Spool[Difference] = field(default_factory=lambda: Spool(Difference))

    def __post_init__(self) -> None:
        self.scales = Scales(self.store.metrics)
        if named := [tolerance.metric for tolerance in self.tolerances if tolerance.metric]:
            chosen(self.store.metrics, named)  # one for an unknown metric would go unnoticed

    def counted(self) -> Counted:
        """Return what it has counted so far."""
        groups, damaged = ({}, set()) if self.totals is None else (self.totals.groups, self.totals.damaged)
        counted = self.counts, self.nulls, self.known_until, self.without_value
        return Counted(*counted, self.sums or {}, groups, damaged)

    def add(self, part: Counted) -> None:
        """Add what was counted in a part of the comparison."""
        self.counts.update(part.counts)
        self.known_until = max(self.known_until, part.known_until)
        self.without_value &= part.without_value
        for name, (buckets, events) in part.nulls.items():
            before = self.nulls.get(name, (0, 0))
            self.nulls[name] = before[0] + buckets, before[1] + events
        if self.sums is not None:
            for name, value in part.sums.items():
                self.sums[name] = _WIDE.add(self.sums.get(name, Decimal(0)), value)
        if self.totals is not None:
            self.totals.merge(part.groups, part.damaged)

    def listed(
        self, rows: Iterator[Difference], nothing: Callable[[], NothingSelected], changed_only: bool
    ) -> Generator[Difference, None, tuple[Stats, Basis]]:
        """Yield the rows, and return what they came to. Raises the error that explains it at their end where nothing
        was compared, so that it is not taken for "all is well"."""
        for row in rows if self.file is None else self._with_common_key(rows, self.file.name):
            if not changed_only or row.op in (_CHANGED, _FAILED):
                yield row
        if not self.counts["compared"] and not self.counts["failed"]:
            raise null_values(NOTHING, self.nulls) if self.nulls else nothing()
        basis = Basis(frozenset(self.versions), self.known_until, frozenset(self.without_value))
        return Stats(**self.counts), basis

    def _with_common_key(self, rows: Iterator[Difference], name: str) -> Iterator[Difference]:
        """Yield the rows, from the moment that a key was on both sides. Raises NothingSelected where none was."""
        held = Spool(Difference)
        examples: dict[Op, Difference] = {}
        for row in rows:
            held.add(row)
            examples.setdefault(row.op, row)
            if self._found_common_key():
                break
        if not self._found_common_key():
            raise no_common_key(self.store, name, examples[_REMOVED], examples.get(_ADDED))
        yield from held
        yield from rows

    def _found_common_key(self) -> bool:
        return any(self.counts[name] for name in ("equal", "tolerated", "changed", "failed"))

    def recomputed(
        self,
        engine: Engine,
        metrics: Sequence[Metric],
        selection: Selection,
        parts: Generator[ComputedStretch, None, None] | None = None,
    ) -> Pairs:
        """Yield pairs of metrics of one bucket size over the selection's whole buckets, from `parts` that are computed
        already, if they are. In a bucket whose aggregates are all equal they are only counted."""
        aggregates: Values = self.file or self.store.aggregates
        window, entities = selection.window, selection.entities
        with ThreadPoolExecutor(1) as beside, closing(parts or recompute(selection, engine, metrics)) as each:
            # The store is read while the engine computes.
            read = (
                None
                if entities or self.left or self.totals
                else beside.submit(current_digests, aggregates, metrics, window)
            )
            for part in each:
                if part.window != window and len(metrics) > 1:  # damage: one metric at a time, to keep the rows' order
                    for metric in metrics:
                        yield from self.recomputed(engine, [metric], selection)
                    return
                self.known_until = max(self.known_until, part.known_until)
                if self.sums is not None and not isinstance(part.computed, Damaged):
                    for name in [metric.name for metric in metrics]:
                        before = self.sums.get(name, Decimal(0))
                        self.sums[name] = reduce(_WIDE.add, part.computed.values(name), before)
                if isinstance(part.computed, Damaged):
                    reason = f"{part.computed.message}; {part.window} is not computed"
                    failure = Failure(reason, damage=True, until=part.window.end)
                    for metric in metrics:  # a failed row in place of all aggregates
                        place = metric.name, part.window.start, ALL_ENTITIES
                        yield None, Computed(*place, None, None, NO_INPUTS, NO_INPUTS, failure)
                elif read is None:
                    if self.left is None:
                        current = sound(current_rows(aggregates, metrics, part.window, entities))
                    else:
                        current = self.left.rows(metrics, part.window, entities)
                    pairs = compare(current, part.computed.rows())
                    is_of_run = self.left is not None and self.left.run is not None
                    yield from (pair for pair in pairs if pair[0] is not None or not is_of_run)
                else:
                    digests = read.result().items()
                    left = {bucket: one for bucket, one in digests if one.aggregates and bucket[1] in part.window}
                    computed = part.computed.value_digests() if self.file else part.computed.digests()
                    right = {(one.metric, one.bucket): one for one in computed}
                    equal = {
                        bucket for bucket in right if bucket in left and left[bucket].values == right[bucket].values
                    }
                    sizes = {
                        bucket: max(side[bucket].aggregates for side in (left, right) if bucket in side)
                        for bucket in left.keys() | right.keys()
                    }
                    lines = NO_LINES
                    if self.file is None:
                        lines = differing_lines(self.store.aggregates, part.computed, equal, sizes)
                    count = lines.equal + sum(right[bucket].aggregates for bucket in equal)
                    self.counts.update(compared=count, equal=count)
                    current = current_but(aggregates, equal, sizes, lines.differing)
                    yield from compare(current, part.computed.rows(skipping=equal, among=lines.differing))

    def written(
        self, run: Run, metrics: Sequence[Metric], versions: Mapping[str, Collection[int]], entities: Sequence[str]
    ) -> Iterator[Computed]:
        """Yield what a run wrote, and what failed in it, ordered by metric, bucket, entity."""
        names, some = {metric.name for metric in metrics}, set(entities)

        def is_wanted(metric: str, version: int, entity_id: str) -> bool:
            is_named = metric in names and (metric not in versions or version in versions[metric])
            return is_named and (not some or entity_id in some)

        def failed() -> Iterator[Computed]:
            for each in sorted(run.failures, key=_ORDER):
                if is_wanted(each.metric, each.metric_version, each.entity_id):
                    self.versions.add(f"{each.metric}@{each.metric_version}")
                    failure = Failure(each.reason, each.events, each.event_ids)
                    place = each.metric, each.bucket, each.entity_id
                    yield Computed(*place, None, each.inputs, NO_INPUTS, NO_INPUTS, failure)

        changes = (change.written for change in self.store.aggregates.changes(run.run_id))
        written = self.shown(
            row for row in changes if is_wanted(row.computed.metric, row.metric_version, row.computed.entity_id)
        )
        return heapq.merge(written, failed(), key=_ORDER)

    def shown(self, rows: Iterable[Aggregate]) -> Iterator[Computed]:
        """Yield the values of recorded versions, noting what they rest on."""
        for row in rows:
            self.versions.add(f"{row.computed.metric}@{row.metric_version}")
            self.known_until = max(self.known_until, row.known_until)
            if self.totals is not None:
                self.totals.combinations.of(row.computed.metric, row.metric_version)
            yield self.scales.shown(row).computed

    def differences(self, pairs: Pairs) -> Iterator[Difference]:
        """Yield the pairs that differ by more than is tolerated, counting all."""
        counts = self.counts
        for left, right in pairs:
            before = None if left is None else left.computed
            if self.without_value:
                self._note_values(before, right)
            if right is not None and right.failure is not None:
                counts["failed"] += 1
                self._add(left, right, PairOutcome.FAILED)
                yield self._difference(left, right)
                continue
            current = None if before is None else before.value
            value = None if right is None else right.value
            if current == value:
                if value is not None and before is not None and right is not None:
                    counts["compared"] += 1
                    counts["equal"] += 1
                    self._add(left, right, PairOutcome.EQUAL)
                    is_known = before.inputs is not None and right.inputs is not None
                    counts["other_inputs"] += is_known and before.counted != right.counted
                elif right is not None and right.inputs:
                    buckets, events = self.nulls.get(right.metric, (0, 0))
                    self.nulls[right.metric] = buckets + 1, events + right.inputs
                continue
            counts["compared"] += 1
            row = self._difference(left, right)
            if self.file is not None:
                row = msgspec.structs.replace(row, inputs_before=None)
            if row.delta is not None and current is not None and self._is_tolerated(row.metric, current, row.delta):
                counts["tolerated"] += 1
                if self.totals is not None and self.totals.explains:
                    self.tolerated.add(row)
                self._add(left, right, PairOutcome.EQUAL)
                continue
            self._add(left, right, PairOutcome.DIFFERENT)
            counts["changed" if row.op is _CHANGED else "added" if row.op is _ADDED else "removed"] += 1
            yield row

    def _difference(self, left: Aggregate | None, right: Computed | None) -> Difference:
        return _difference(left, None if left is None else self.scales.shown(left).computed, right)

    def _add(self, left: Aggregate | None, right: Computed | None, outcome: PairOutcome) -> None:
        if self.totals is not None:
            self.totals.add(left, right, outcome)

    def _is_tolerated(self, metric: str, current: Decimal, delta: Decimal) -> bool:
        return any(each.metric in (None, metric) and each.covers(current, delta) for each in self.tolerances)

    def _note_values(self, *sides: Computed | None) -> None:
        for side in sides:
            if side is None or (side.value is None and side.failure is None):
                continue
            if side.failure is not None and side.failure.damage:  # any entity may have a value there
                self.without_value.clear()
            else:
                self.without_value.discard(side.entity_id)


def _difference(version: Aggregate | None, before: Computed | None, after: Computed | None) -> Difference:
    here = before or after
    assert here is not None
    current = before.value if before else None
    value = after.value if after else None
    delta = percent = None
    if current is not None and value is not None:
        delta = _WIDE.subtract(value, current)
        if current:
            percent = _PERCENT.divide(_WIDE.multiply(delta, Decimal(100)), current.copy_abs()).normalize()
    failure = after.failure if after else None
    unknown = failure is not None and failure.damage
    op = _ADDED if current is None else _REMOVED if value is None else _CHANGED
    return Difference(
        op=op if failure is None else _FAILED,
        metric=here.metric,
        bucket=here.bucket,
        entity_id=here.entity_id,
        current=current,
        recomputed=value,
        delta=delta,
        percent=percent,
        inputs_before=before.inputs if before else None if unknown else 0,
        inputs_after=after.inputs if after else 0,
        failure=failure,
        version=version,
    )
