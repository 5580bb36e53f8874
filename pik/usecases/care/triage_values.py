"""The checks of a triage that compare values: what moves them, and which runs left them as they are.

Each difference is reported once for each of its causes: under the check `late events` or `old definitions` where that
is the cause, otherwise under `differences`. A run whose better values are not current is not a separate cause: its
finding says who left which values behind, and what promoting it would move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import reduce
from itertools import groupby

from msgspec import structs

from pik.errors import Damaged, command, number_of
from pik.model.aggregate import Aggregate
from pik.model.correction import Correction
from pik.model.instant import SECOND, display_instant, format_instant
from pik.model.metric import Metric, entities_of
from pik.model.run import PromotionKind
from pik.model.window import Window
from pik.ports.state import Promotion
from pik.usecases.care.triage_corrections import LastCorrections
from pik.usecases.care.triage_findings import Finding, Scope
from pik.usecases.metrics.causes import ExplainedDifference, explained
from pik.usecases.metrics.chain import EXACT, Cause
from pik.usecases.metrics.comparison import Op
from pik.usecases.metrics.definitions import computed, pin, pinned
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.impact import adds_up
from pik.usecases.timing.late import find_late

_ZERO = Decimal(0)

_Key = tuple[str, str, str]
"""A metric, a cause and a scope."""


@dataclass(slots=True)
class _Sum:
    """What a cause, or a run, adds up to over the values of a metric."""

    delta: Decimal = _ZERO
    values: int = 0
    events: int = 0
    since: int | None = None
    proven: bool = True
    largest: tuple[str, str, int] | None = None
    share: Decimal = _ZERO
    rebuilt: int | None = None
    """When the first of the rebuilds was that changed which deliveries count."""

    def add(self, row: ExplainedDifference, share: Decimal) -> None:
        """Count a value."""
        one = row.difference
        self.delta = EXACT.add(self.delta, share)
        self.values += 1
        self.events += (row.late if row.current else one.inputs_after) or 0
        self.since = one.bucket if self.since is None else min(self.since, one.bucket)
        self.proven = self.proven and row.proven
        if row.rebuilt is not None:
            self.rebuilt = row.rebuilt if self.rebuilt is None else min(self.rebuilt, row.rebuilt)
        if self.largest is None or share.copy_abs() > self.share.copy_abs():
            self.largest, self.share = (one.metric, one.entity_id, one.bucket), share


@dataclass(slots=True)
class _Values:
    """What differs: what each cause comes to, what runs left behind, and how many values could not be computed."""

    scope: Scope
    causes: dict[_Key, _Sum] = field(default_factory=dict)
    behind: dict[tuple[str, str], _Sum] = field(default_factory=dict)
    """By metric and run: values that would be nearer to what raw says if the run's were current."""
    failed: dict[str, list[int]] = field(default_factory=dict)
    """By metric: the number of values that cannot be computed, and the first bucket."""
    unreadable: dict[str, list[int]] = field(default_factory=dict)
    """By metric: the number of stretches of which raw cannot be read, and the first bucket."""
    has_unmoved: bool = False
    """Whether late events may have fallen into values that they do not move."""
    sums: dict[str, bool] = field(default_factory=dict)
    totals: dict[str, Decimal] = field(default_factory=dict)
    """By metric: the sum of all recomputed values, and of the current ones that cannot be computed."""

    def read(self) -> None:
        """Compare."""
        scope = self.scope
        if not self.metrics:
            return  # all of them are retired
        diff = diff_aggregates(scope.store, scope.engine, scope.window, entities=scope.entities, sums=self.totals)
        if diff.left_out:
            scope.notes["differences"] = f"over all entities, and so left out: {', '.join(diff.left_out)}"
        rows = explained(scope.store, scope.engine, diff.rows)
        for metric, of_metric in groupby(rows, key=lambda row: row.difference.metric):
            with closing(_Behind(scope, self.metrics[metric])) as behind:
                for row in of_metric:
                    self._add(row, behind)
        self.has_unmoved = self.has_unmoved or diff.stats.other_inputs > 0

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The latest definitions."""
        return {one.name: one for one in computed(self.scope.store.metrics)}

    def _add(self, row: ExplainedDifference, behind: _Behind) -> None:
        one = row.difference
        if one.op == Op.FAILED:
            until = one.failure.until if one.failure is not None and one.failure.damage else None
            counts = self.failed if until is None else self.unreadable
            number, first = counts.get(one.metric, (0, one.bucket))
            counts[one.metric] = [number + 1, min(first, one.bucket)]
            kept = [one.current or _ZERO]
            if until is not None:
                window, aggregates = Window(one.bucket, until), self.scope.store.aggregates
                self.scope.note_unreadable(window)
                current = aggregates.current(one.metric, window, self.scope.entities)
                kept = [row.computed.value or _ZERO for row in current]
            self.totals[one.metric] = reduce(EXACT.add, kept, self.totals.get(one.metric, _ZERO))
            return
        self.has_unmoved = self.has_unmoved or (row.late > 0 and Cause.LATE not in row.shares)
        for correction_id, share in row.corrections.items() if Cause.CORRECTED in row.shares else ():
            self.causes.setdefault((one.metric, Cause.CORRECTED, correction_id), _Sum()).add(row, share)
        for cause, share in row.shares.items():
            if cause == Cause.CORRECTED:
                continue
            version = row.current.metric_version if cause == Cause.DEFINITION and row.current else None
            scope = "" if version is None else f"{one.metric}@{version}"
            self.causes.setdefault((one.metric, cause, scope), _Sum()).add(row, share)
        if (better := behind.better(row)) is not None:
            share = EXACT.subtract(better.computed.value or _ZERO, one.current or _ZERO)
            self.behind.setdefault((one.metric, better.run_id), _Sum()).add(row, share)

    def adds_up(self, metric: str, values: int) -> bool:
        """Return whether so many values of a metric have a sum."""
        if metric not in self.sums:
            self.sums[metric] = adds_up(self.scope.engine, self.metrics[metric])
        return values == 1 or self.sums[metric]

    def effect(self, metric: str, delta: Decimal) -> Decimal | None:
        """Return |delta| / |recomputed total|; None where that is 0."""
        total = self.totals.get(metric)
        return abs(delta / total) if total else None

    def finding(self, check: str, what: str, shown: str, key: _Key, of_cause: _Sum, events: int | None) -> Finding:
        """Return the finding; without a figure where the metric's values do not add up."""
        metric, cause, scope = key
        is_sum = self.adds_up(metric, of_cause.values)
        return Finding(
            check,
            what,
            shown,
            metric,
            cause,
            scope,
            since=of_cause.since,
            events=events,
            buckets=of_cause.values,
            delta=of_cause.delta if is_sum else None,
            effect=self.effect(metric, of_cause.delta) if is_sum else None,
        )

    def off_by(self, metric: str, of_cause: _Sum) -> str:
        """Return by how much a metric is off, in how many values."""
        amount = f" by {of_cause.delta}" if self.adds_up(metric, of_cause.values) else ""
        amount += " in total," if amount and not of_cause.delta else ""
        return f"{metric} is off{amount} in {number_of(of_cause.values, 'value')}"


class _Behind:
    """Finds the values of a metric that a rollback or a promotion in part left behind.

    It reads the versions of the window beside the differences, in their order, and only where there was such a move.
    """

    def __init__(self, scope: Scope, metric: Metric) -> None:
        self._moves = scope.moves
        self._suspects = {
            run_id for run_id, last in self._moves.last.items() if last.kind == PromotionKind.ROLLBACK or last.conflicts
        }
        window = metric.buckets.widened(scope.window)
        rows: Iterable[Aggregate] = ()
        if self._suspects:
            rows = scope.store.aggregates.versions(metric.name, window, scope.entities)
        self._rows = iter(rows)
        self._versions = groupby(self._rows, key=lambda one: (one.computed.bucket, one.computed.entity_id))
        self._at: tuple[tuple[int, str], list[Aggregate]] | None = None

    def better(self, row: ExplainedDifference) -> Aggregate | None:
        """Return the version that is nearest to what raw says, if a move of its run left another one current that is
        farther from it."""
        if not self._suspects:
            return None
        one = row.difference
        place = one.bucket, one.entity_id
        while self._at is None or self._at[0] < place:
            found = next(self._versions, None)
            if found is None:
                return None
            self._at = found[0], list(found[1])
        if self._at[0] != place:
            return None
        right, current = one.recomputed or _ZERO, row.current
        promoted = -1 if current is None else self._moves.promoted_at.get(current.run_id, -1)
        candidates = [
            (_distance(version.computed.value, right), -self._moves.last[version.run_id].at, version)
            for version in self._at[1]
            if not version.current
            and version.run_id in self._suspects
            and self._moves.last[version.run_id].at > promoted
        ]
        nearest = min(candidates, key=lambda one: one[:2], default=None)
        if nearest is None or nearest[0] >= _distance(one.current, right):
            return None
        return nearest[2]

    def close(self) -> None:
        """End the reading."""
        if close := getattr(self._rows, "close", None):
            close()


def _distance(value: Decimal | None, right: Decimal) -> Decimal:
    return EXACT.subtract(value or _ZERO, right).copy_abs()


def _values(scope: Scope) -> Iterator[Finding]:
    """Yield a finding for each metric and cause, for each run that left values behind, for each old definition, and for
    values that cannot be computed."""
    values = _Values(scope)
    values.read()
    log = {one.correction_id: one for one in scope.store.corrections.recorded()}
    for key, of_cause in values.causes.items():
        metric, cause, where = key
        if cause == Cause.CORRECTED:
            yield _corrected(values, key, of_cause, log[where])
        elif cause == Cause.DEFINITION:
            latest = values.metrics[metric]
            if _computes_other(pinned(scope.store.metrics, where), latest):
                continue  # it is among the old definitions
            zone = latest.definition.timezone
            what = f"{values.off_by(metric, of_cause)}: the rules of {zone} changed"
            yield values.finding("differences", what, _explain(of_cause), key, of_cause, None)
        elif cause != Cause.LATE:
            what = f"{values.off_by(metric, of_cause)}: {cause}{'' if of_cause.proven else ', inferred'}"
            if cause == Cause.VERDICT and of_cause.rebuilt is not None:
                what += f", by the rebuild of the index {display_instant(of_cause.rebuilt)}"
            events = of_cause.events if cause == Cause.NOT_COMPUTED else None
            is_new = events is not None and next(scope.store.runs.newest_first(), None) is None
            diff = command("diff", "aggregates", "--metric", metric, *scope.options)
            shown = diff if is_new else _explain(of_cause)  # of a new store all values are to be computed
            yield values.finding("differences", what, shown, key, of_cause, events)
    for metric, (count, since) in values.failed.items():
        what = f"{number_of(count, 'value')} of {metric} cannot be computed"
        yield _not_computable(scope, metric, what, "failed", count, since)
    for metric, (count, since) in values.unreadable.items():
        what = f"{metric} cannot be computed in {number_of(count, 'place')}, where raw cannot be read"
        yield _not_computable(scope, metric, what, "unreadable", None, since)
    yield from _late_events(values)
    yield from _old_definitions(values)
    for (metric, run_id), of_run in values.behind.items():
        yield _behind(values, metric, scope.moves.last[run_id], of_run)


def _corrected(values: _Values, key: _Key, of_cause: _Sum, correction: Correction) -> Finding:
    """Return the finding about a correction, or a revocation, whose replay would repair the values."""
    by = f" by {correction.actor}" if correction.actor else ""
    what = (
        f"{values.off_by(key[0], of_cause)}: corrected{by}{'' if of_cause.proven else ', inferred'},"
        f" {correction.statement} ({correction.reason})"
    )
    shown = command("replay", "--correction", correction.correction_id, "--dry-run")
    return replace(values.finding("differences", what, shown, key, of_cause, None), reason=correction.reason)


def _not_computable(scope: Scope, metric: str, what: str, cause: str, count: int | None, since: int) -> Finding:
    shown = command("diff", "aggregates", "--metric", metric, *scope.options)
    return Finding("differences", what, shown, metric, cause, since=since, buckets=count)


def _behind(values: _Values, metric: str, last: Promotion, of_run: _Sum) -> Finding:
    is_rollback = last.kind == PromotionKind.ROLLBACK
    cause = "rolled back" if is_rollback else "promoted in part"
    by = f" by {last.actor}" if last.actor else ""
    moved = f", which would move the metric by {of_run.delta}" if values.adds_up(metric, of_run.values) else ""
    what = (
        f"run {last.run_id} was {cause}{by} ({last.reason or 'no reason given'}): with it"
        f" {number_of(of_run.values, 'value')} of {metric} would be nearer to what raw says{moved}"
    )
    of_run.since = last.at
    shown = command("diff", "aggregates", "--run", last.run_id, "--metric", metric)
    return values.finding("promotions", what, shown, (metric, cause, last.run_id), of_run, None)


def _old_definitions(values: _Values) -> Iterator[Finding]:
    """Yield by version the values that were computed under an old definition, whether or not that moves them."""
    scope = values.scope
    for metric in values.metrics.values():
        if metric.version == 1:
            continue
        old = {one.version: one for one in scope.store.metrics.versions(metric.name) if _computes_other(one, metric)}
        counts: dict[int, list[int]] = {}
        for bucket in _buckets_of(scope, metric, max(old, default=0)):
            for row in scope.store.aggregates.current(metric.name, bucket, scope.entities):
                if row.metric_version in old and not row.is_imported:
                    number, first = counts.get(row.metric_version, (0, row.computed.bucket))
                    counts[row.metric_version] = [number + 1, min(first, row.computed.bucket)]
        for version, (count, since) in counts.items():
            key = metric.name, Cause.DEFINITION.value, pin(old[version])
            moved = values.causes.get(key, _Sum())
            applied_at = metric.applied_at - metric.applied_at % SECOND
            what = (
                f"{number_of(count, 'value')} of {metric.name} {'was' if count == 1 else 'were'} computed with"
                f" {pin(old[version])}; the definition is {pin(metric)} since {display_instant(applied_at)}"
            )
            if moved.values:
                what += f": {values.off_by(metric.name, moved)}"
            listed = command("aggregates", "--metric", pin(old[version]), *scope.options)
            shown = _explain(moved) if moved.values else listed
            moved.values, moved.since = count, since
            yield values.finding("old definitions", what, shown, key, moved, None)


def _computes_other(one: Metric, other: Metric) -> bool:
    """Return whether two definitions compute something else."""
    return structs.replace(one.definition, description="") != structs.replace(other.definition, description="")


def _buckets_of(scope: Scope, metric: Metric, newest: int) -> Iterator[Window]:
    """Yield windows that have all values of this version or an earlier one, from digests where all entities are
    wanted."""
    window = metric.buckets.widened(scope.window)
    if not newest:
        return
    if scope.entities:
        yield window
        return
    found = [one.bucket for one in scope.store.aggregates.digests(metric.name, window) if one.lowest_version <= newest]
    for bucket in found:
        yield Window(bucket, bucket + 1)


def _late_events(values: _Values) -> Iterator[Finding]:
    """Yield by metric the values that late events fell into, whether or not these move them."""
    scope = values.scope
    unmoved: dict[str, _Sum] = {}
    try:
        store = scope.readable("late events") if values.has_unmoved else scope.store
        late = find_late(store, scope.engine, scope.window, scope.entities).buckets if values.has_unmoved else ()
        corrected, metrics, left_out = LastCorrections(store), values.metrics, 0
        for one in late:
            if one.delta == 0 and corrected.since(metrics[one.metric].buckets, one.bucket, one.run_id):
                left_out += 1
            elif one.delta == 0:
                of_metric = unmoved.setdefault(one.metric, _Sum(since=one.bucket))
                of_metric.values += 1
                of_metric.events += one.late
        if left_out:
            scope.notes["late events"] = (
                f"those that move nothing are left out in {number_of(left_out, 'value')}: a correction was recorded"
                " since, which may be why they count"
            )
    except Damaged as error:  # what is moved is known all the same
        scope.failures["late events"] = error.message
    for metric in values.metrics:
        key, more = (metric, Cause.LATE, ""), unmoved.get(metric)
        if (moved := values.causes.get(key)) is not None:
            what = f"{values.off_by(metric, moved)}: {number_of(moved.events, 'late event')}"
            what += "" if moved.proven else ", inferred"
            what += f"; {more.events:,} more move no value" if more else ""
            yield values.finding("late events", what, _explain(moved), key, moved, moved.events)
        elif more is not None:
            what = (
                f"{number_of(more.events, 'late event')} in {number_of(more.values, 'value')} of {metric} move nothing"
            )
            shown = command("lag", "--late", "--metric", metric, *scope.options_of_one)
            yield values.finding("late events", what, shown, key, more, more.events)


def _explain(of_cause: _Sum) -> str:
    """Return the command that explains the value that the cause moves most."""
    assert of_cause.largest is not None
    metric, entity, bucket = of_cause.largest
    words = [metric, *entities_of(entity), format_instant(bucket)]
    # An entity that begins like an option needs -- before it.
    return command("explain", *(["--events", "--", *words] if entity.startswith("-") else [*words, "--events"]))


SEARCHES: tuple[tuple[Mapping[str, str], Callable[[Scope], Iterator[Finding]]], ...] = (
    (
        {
            "differences": "recomputed from raw and compared with every current value, by cause: all but the next two",
            "late events": "events that count, recorded after the known until of a current value",
            "old definitions": "current values that an earlier version of their metric computed",
            "promotions": (
                "runs that were rolled back, or promoted in part, and whose values are nearer to what raw says than the"
                " current ones"
            ),
        },
        _values,
    ),
)
"""What is looked for in values."""
