"""Triage: what is wrong in a window, found by all checks at once and ranked by how much it moves numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from pik.errors import Damaged, EngineError, command
from pik.model.batch import Batch, BatchState, Verdict
from pik.model.delivery import Filter
from pik.model.instant import ALL_TIME, SECOND, Window, format_duration, format_instant
from pik.model.metric import PromotionKind, Run, RunState
from pik.ports.engine import Engine
from pik.ports.state import Promotion
from pik.ports.store import Store
from pik.rawlog.selection import Selection
from pik.runtime import SILENT, Progress
from pik.usecases.care.verify import verify
from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates
from pik.usecases.inspect.suspects import SuspectRule, count_suspects
from pik.usecases.metrics.causes import ExplainedDifference, explained
from pik.usecases.metrics.comparison import Op
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.metrics.explain import EXACT, Cause
from pik.usecases.metrics.impact import adds_up
from pik.usecases.timing.gaps import Question, find_gaps
from pik.usecases.timing.grouping import read_grouping
from pik.usecases.timing.skew import Verdict as SkewVerdict
from pik.usecases.timing.skew import find_skew

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may be wrong. `scope` is where: a source, a batch, a run, an object; `since` nanoseconds.

    `delta` is by how much it moves the metric, over all its values in the window; `effect` that, without its sign,
    divided by the metric's recomputed total (None: that is 0, or there is no delta). `command` shows it.
    """

    check: str
    what: str
    command: str
    metric: str = ""
    cause: str = ""
    scope: str = ""
    since: int | None = None
    events: int | None = None
    buckets: int | None = None
    delta: Decimal | None = None
    effect: Decimal | None = None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes it the same finding in two triages: figures, times and counts do not matter."""
        return self.check, self.metric, self.cause, self.scope


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check, its rule, and how many findings it had. `failure` is why it could not go on, if it could not;
    `note` what it cannot know."""

    check: str
    rule: str
    findings: int
    failure: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Triage:
    """All findings, ranked, and what was checked. `known` were in the baseline."""

    window: Window
    entities: tuple[str, ...]
    findings: tuple[Finding, ...]
    known: tuple[Finding, ...]
    checks: tuple[CheckResult, ...]


@dataclass(frozen=True, slots=True)
class _Scope:
    store: Store
    engine: Engine
    window: Window
    entities: tuple[str, ...]
    progress: Progress
    notes: dict[str, str] = field(default_factory=dict)
    """What checks cannot know, by check."""

    @property
    def options(self) -> list[str]:
        """The scope as it is typed."""
        options = [word for entity in self.entities for word in ("--entity", entity)]
        times = (("--from", self.window.from_text), ("--to", self.window.to_text))
        return options + [word for name, text in times if text for word in (name, text)]

    def meets(self, entities: Sequence[str], window: Window) -> bool:
        """Return whether what concerns these entities (none: all) in this window is of the scope."""
        is_of_entities = not self.entities or not entities or not set(entities).isdisjoint(self.entities)
        return is_of_entities and window.start < self.window.end and window.end > self.window.start

    def batches(self) -> Iterator[Batch]:
        """Yield the batches with events in the window (of the entities), and, unless entities were named, those begun
        in it that have no event at all; of a window without bounds all batches."""
        if self.window == ALL_TIME and not self.entities:
            yield from self.store.index.batches()
            return
        segments = Selection(self.store, self.window, self.entities).needed()
        with_events = {needed.segment.batch_id for needed in segments}
        for batch in () if self.entities else self.store.index.batches():
            if batch.started_at < self.window.start:
                break
            is_empty = batch.counts.read == batch.counts.rejected and batch.started_at < self.window.end
            if is_empty or batch.batch_id in with_events:
                with_events.discard(batch.batch_id)
                yield batch
        for batch_id in sorted(with_events):
            yield from self.store.index.batches(batch_id)


def triage(
    store: Store,
    engine: Engine,
    window: Window,
    entities: Sequence[str] = (),
    baseline: Iterable[tuple[str, str, str, str]] = (),
    progress: Progress = SILENT,
) -> Triage:
    """Run every check over the window. Findings whose identity is in the baseline are set apart. Raises NothingSelected
    where there is nothing in scope, NotHeld, and StoreError where the store cannot be read."""
    scope, known = _Scope(store, engine, window, tuple(entities), progress), set(baseline)
    found: list[Finding] = []
    checks: list[CheckResult] = []
    for name, (rule, check) in CHECKS.items():
        before, failure = len(found), ""
        try:
            found.extend(check(scope))
        except (Damaged, EngineError) as error:
            failure = error.message
        checks.append(CheckResult(name, rule, len(found) - before, failure, scope.notes.get(name, "")))
    ranked = sorted(found, key=_rank)
    return Triage(
        window,
        scope.entities,
        tuple(one for one in ranked if one.identity not in known),
        tuple(one for one in ranked if one.identity in known),
        tuple(checks),
    )


def _rank(finding: Finding) -> tuple[bool, bool, Decimal, int]:
    """Order by |delta| / |recomputed total| (a total of 0 first), then by buckets; those without a delta last."""
    return (
        finding.delta is None,
        finding.effect is not None,
        -(finding.effect or _ZERO),
        -(finding.buckets or 0),
    )


@dataclass(slots=True)
class _Sum:
    """What a cause adds up to over the values of a metric."""

    delta: Decimal = _ZERO
    buckets: int = 0
    since: int | None = None
    proven: bool = True
    largest: ExplainedDifference | None = None
    share: Decimal = field(default=_ZERO)

    def add(self, row: ExplainedDifference, share: Decimal) -> None:
        """Count a value."""
        self.delta = EXACT.add(self.delta, share)
        self.buckets += 1
        self.since = row.difference.bucket if self.since is None else min(self.since, row.difference.bucket)
        self.proven = self.proven and row.proven
        if self.largest is None or share.copy_abs() > self.share.copy_abs():
            self.largest, self.share = row, share


def _differences(scope: _Scope) -> Iterator[Finding]:
    """Yield a finding for each metric and cause, and one for each metric of which values cannot be computed."""
    diff = diff_aggregates(scope.store, scope.engine, scope.window, entities=scope.entities)
    sums: dict[tuple[str, Cause], _Sum] = {}
    changes: dict[str, Decimal] = {}
    failures: dict[str, int] = {}
    for row in explained(scope.store, scope.engine, diff.rows):
        metric = row.difference.metric
        if row.difference.op == Op.FAILED:
            failures[metric] = failures.get(metric, 0) + 1
        for cause, share in row.shares.items():
            sums.setdefault((metric, cause), _Sum()).add(row, share)
            changes[metric] = EXACT.add(changes.get(metric, _ZERO), share)
    totals = {metric: EXACT.add(_current_total(scope, metric), change) for metric, change in changes.items()}
    latest = {one.name: one for one in scope.store.metrics.latest()}
    for (metric, cause), total in sums.items():
        is_sum = total.buckets == 1 or adds_up(scope.engine, latest[metric])
        yield _difference(metric, cause, total, totals[metric], is_sum=is_sum)
    for metric, count in failures.items():
        shown = command("diff", "aggregates", "--metric", metric, *scope.options)
        yield Finding("differences", f"{count:,} values cannot be computed", shown, metric, "failed", buckets=count)


def _difference(metric: str, cause: Cause, total: _Sum, recomputed: Decimal, *, is_sum: bool) -> Finding:
    """Return the finding; without a figure where the metric's values do not add up (not `is_sum`)."""
    assert total.largest is not None
    largest = total.largest.difference
    certainty = "" if total.proven else ", inferred"
    values = "1 value" if total.buckets == 1 else f"{total.buckets:,} values"
    words = [metric, largest.entity_id, format_instant(largest.bucket)]
    # An entity that begins like an option needs -- before it.
    words = ["--events", "--", *words] if largest.entity_id.startswith("-") else [*words, "--events"]
    return Finding(
        "differences",
        f"{metric} is off{f' by {total.delta}' if is_sum else ''} in {values}: {cause}{certainty}",
        command("explain", *words),
        metric,
        cause,
        since=total.since,
        buckets=total.buckets,
        delta=total.delta if is_sum else None,
        effect=abs(total.delta / recomputed) if is_sum and recomputed else None,
    )


def _current_total(scope: _Scope, metric: str) -> Decimal:
    [latest] = [one for one in scope.store.metrics.latest() if one.name == metric]
    window = scope.window.widened(latest.bucket_size)
    rows = scope.store.aggregates.current(metric, window, scope.entities)
    total = _ZERO
    for row in rows:
        total = EXACT.add(total, row.computed.value or _ZERO)
    return total


def _conflicts(scope: _Scope) -> Iterator[Finding]:
    wanted = DuplicateFilter(Filter(scope.window, scope.entities), Verdict.CONFLICT)
    for group in count_duplicates(scope.store, wanted, "source", progress=scope.progress):
        yield Finding(
            "conflicts",
            f"{group.conflict:,} deliveries from {group.group} repeat an idempotency key with other content",
            command(
                "duplicates", "--class", "conflict", "--show-payload-diff", "--source", group.group, *scope.options
            ),
            scope=group.group,
            events=group.conflict,
        )


def _rejects(scope: _Scope) -> Iterator[Finding]:
    for batch in scope.batches():
        if batch.counts.rejected:
            yield Finding(
                "rejects",
                f"{batch.counts.rejected:,} of {batch.counts.read:,} records of {batch.origin.name} were rejected",
                command("batches", batch.batch_id, "--rejects"),
                scope=batch.batch_id,
                since=batch.started_at,
                events=batch.counts.rejected,
            )


def _interrupted(scope: _Scope) -> Iterator[Finding]:
    for batch in scope.batches():
        if batch.state == BatchState.INTERRUPTED:
            yield Finding(
                "interrupted batches",
                f"{batch.origin.name} was not ingested to its end: {batch.counts.read:,} records are recorded",
                command("batches", batch.batch_id),
                scope=batch.batch_id,
                since=batch.started_at,
                events=batch.counts.read,
            )


def _runs(scope: _Scope) -> Iterator[Finding]:
    """Yield runs whose values are not, or only partly, current although nothing newer replaced them."""
    promotions: dict[str, Promotion] = {}
    for one in scope.store.promotions.newest_first():
        promotions.setdefault(one.run_id, one)
    current: list[tuple[Run, int]] = []
    for run in scope.store.runs.newest_first():
        last = promotions.get(run.run_id)
        since = run.created_at if last is None else last.at
        what = _about(run, last) if scope.meets(run.request.entities, run.effective) else ""
        if what and not any(at > since and _covers(newer, run) for newer, at in current):
            yield Finding("runs", what, command("runs", "show", run.run_id), scope=run.run_id, since=run.created_at)
        if last is not None and last.kind == PromotionKind.PROMOTE and not _about(run, last):
            current.append((run, last.at))


def _covers(newer: Run, run: Run) -> bool:
    """Return whether a run computed all values that another one should have."""
    return (
        newer.effective_start <= run.effective_start
        and newer.effective_end >= run.effective_end
        and newer.request.source is newer.request.event_type is None
        and _includes(newer.request.entities, run.request.entities)
        and _includes(newer.request.metrics, run.request.metrics)
    )


def _includes(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether these names include the others, where none means all."""
    return not names or (bool(others) and set(names) >= set(others))


def _about(run: Run, last: Promotion | None) -> str:
    if run.state in (RunState.PARTIAL, RunState.FAILED):
        return f"run {run.run_id} is {run.state}: {run.failed:,} tasks and {run.failed_aggregates:,} values failed"
    if last is None:
        return ""
    if last.kind == PromotionKind.ROLLBACK:
        return f"run {run.run_id} was rolled back"
    if not last.conflicts:
        return ""
    return f"promoting run {run.run_id} left {last.conflicts:,} values as another run had made them"


def _dead_letters(scope: _Scope) -> Iterator[Finding]:
    for letter in scope.store.dead_letters.letters():
        task = letter.task
        if scope.meets(task.entities, task.window):
            yield Finding(
                "dead letters",
                f"a task of run {task.run_id} failed {letter.attempts:,} times: {letter.reason}",
                command("dlq", "show", letter.letter_id),
                scope=letter.letter_id,
                since=letter.failed_at,
            )


def _damage(scope: _Scope) -> Iterator[Finding]:
    if not scope.entities:
        for problem in verify(scope.store, scope.engine, scope.window, scope.progress, full=False):
            shown = problem.remedy or command("verify", "--full")
            yield Finding("damage", f"{problem.what}: {problem.detail}", shown, cause=problem.kind, scope=problem.what)
        return
    for segment, _ in Selection(scope.store, scope.window, scope.entities).needed():
        size = scope.store.raw.size(segment.key)
        if size != segment.size:
            detail = "is missing" if size is None else f"has {size:,} bytes, not {segment.size:,}"
            yield Finding("damage", f"{segment.key} {detail}", command("verify", "--full"), scope=segment.key)


_RETRY = SuspectRule(5 * SECOND)
_BY_SOURCE = read_grouping("source", ("source",))


def _suspects(scope: _Scope) -> Iterator[Finding]:
    wanted = Filter(scope.window, scope.entities)
    for group in count_suspects(scope.store, scope.engine, wanted, _RETRY, "source"):
        yield Finding(
            "suspects",
            f"{group.suspects:,} events from {group.group} may be retries that were stamped anew",
            command("duplicates", "--class", "suspect", "--source", group.group, *scope.options),
            scope=group.group,
            events=group.suspects,
        )


def _skew(scope: _Scope) -> Iterator[Finding]:
    report = find_skew(scope.store, scope.engine, Filter(scope.window, scope.entities), _BY_SOURCE)
    unknown = sum(group.verdict == SkewVerdict.UNKNOWN for group in report.groups)
    scope.notes.update(_unknown("skew", unknown, "too few events or hours"))
    for shift in report.shifts:
        near = f", about {format_duration(shift.zone)}: perhaps a time zone" if shift.zone else ""
        yield Finding(
            "skew",
            f"times from {shift.group} are off by {format_duration(shift.shift)}{near}",
            command("lag", "--skew", "--source", shift.group or "", *scope.options),
            scope=shift.group or "",
            since=shift.since,
            events=shift.events,
        )


def _gaps(scope: _Scope) -> Iterator[Finding]:
    report = find_gaps(scope.store, scope.engine, Question(Filter(scope.window, scope.entities), _BY_SOURCE))
    unknown = sum(group.learned_from is None for group in report.groups)
    scope.notes.update(_unknown("gaps", unknown, "too few earlier days to learn from"))
    for silence in report.silences:
        yield _gap(scope, silence.group or "", "silence", silence.start, silence.end, silence.expected, 0)
    for one in report.changes:
        yield _gap(scope, one.group or "", one.kind, one.start, one.end, one.expected, one.events)


def _gap(scope: _Scope, source: str, kind: str, start: int, end: int, expected: Decimal | None, events: int) -> Finding:
    usual = "" if expected is None else f", usually {expected}"
    return Finding(
        "gaps",
        f"{kind} of {source} for {format_duration(end - start)}: {events:,} events{usual}",
        command("gaps", "--source", source, *scope.options),
        cause=kind,
        scope=source,
        since=start,
        events=events,
    )


def _unknown(check: str, sources: int, why: str) -> dict[str, str]:
    """Return the note of a check that cannot judge some sources."""
    return (
        {check: f"cannot know for {'1 source' if sources == 1 else f'{sources:,} sources'}: {why}"} if sources else {}
    )


CHECKS: Mapping[str, tuple[str, Callable[[_Scope], Iterator[Finding]]]] = {
    "differences": ("recomputed from raw and compared with every current value, split by cause", _differences),
    "conflicts": ("deliveries with the idempotency key of an earlier one and other content", _conflicts),
    "suspects": (f"{_RETRY} (statistical)", _suspects),
    "skew": ("times of a source that are off by a constant, as lag --skew finds them (statistical)", _skew),
    "gaps": ("silences, drops and spikes of a source against earlier days, as gaps finds them (statistical)", _gaps),
    "rejects": ("batches with records that are not valid events", _rejects),
    "interrupted batches": ("batches whose input was not read to its end", _interrupted),
    "runs": ("runs that failed in part, were promoted in part, or were rolled back", _runs),
    "dead letters": ("tasks of replays that failed too often", _dead_letters),
    "damage": ("objects of raw that are missing or have another size (verify --quick)", _damage),
}
"""Every check, with the rule that it follows."""
