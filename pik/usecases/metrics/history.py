"""What changed numbers or could, newest first: batches, metrics, runs, imports, promotions, rollbacks, rebuilds;
corrections; and what was republished.

Each source has its own iterator, newest first; they are merged, so memory does not grow with the store. What became of
a run's versions is counted for the entries that are read, and only for those.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache, partial
from itertools import groupby
from operator import attrgetter
from os.path import commonprefix  # of texts, character by character
from typing import Any

from pik.errors import Damaged, NotFound, NotHeld, NothingSelected
from pik.model.batch import Batch, Counts, Segment
from pik.model.correction import Correction, CorrectionKind
from pik.model.delivery import Filter
from pik.model.ids import time_digits
from pik.model.instant import DAY, HOUR, MAX_INSTANT
from pik.model.metric import Metric
from pik.model.republish import Republish
from pik.model.run import PromotionKind, Run, RunKind
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Engine
from pik.ports.state import Promotion, Standing
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.usecases.availability import expect_held
from pik.usecases.correct.standing import standing_of
from pik.usecases.metrics.definitions import known, of_entities, pin
from pik.usecases.metrics.diff import diff_aggregates


class What(StrEnum):
    """What happened."""

    BATCH = "batch"
    REQUESTS = "requests"
    """API requests of one actor and day, one after the other."""
    METRIC = "metric"
    RETIREMENT = "retirement"
    REINSTATEMENT = "reinstatement"
    RUN = "run"
    IMPORT = "import"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    REBUILD = "rebuild"
    CORRECTION = "correction"
    REVOCATION = "revocation"
    REPUBLISH = "republish"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that changed numbers or could, at a moment (nanoseconds): `id` is that of the batch, run, promotion,
    correction or republish, or NAME@VERSION. `subject` is the batch, metric, run, promotion, correction or republish
    itself; rebuilds of the index and revocations are corrections, too.

    `counts` are those of batches, `deliveries` how many of them are about the entity asked for, `requests` how many
    there are. `moved` counts the aggregates that a promotion or rollback moved, `standing` those of its run that are
    now as it left them, `right` those of a promotion that are also what raw says today, `failed` those that cannot be
    computed (None: not asked, or raw has expired). A run `lacked` the batches that were recorded after its
    `known_until` in its window. Of the current values in buckets that a correction, or a revocation, changes, those
    `with_correction` were computed since, and those `before_correction` were not (None: not asked, or raw that tells so
    has expired or is damaged).
    """

    at: int
    what: What
    id: str
    actor: str
    reason: str = ""
    subject: Batch | Metric | Run | Promotion | Correction | Republish | None = None
    run: Run | None = None
    counts: Counts | None = None
    requests: int | None = None
    deliveries: int | None = None
    known_until: int | None = None
    lacked: int | None = None
    moved: int | None = None
    standing: int | None = None
    right: int | None = None
    failed: int | None = None
    of_retired: int | None = None
    with_correction: int | None = None
    before_correction: int | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which entries are asked for: those that happened in the window, and that concern the metric and the entity.
    `left_out` are metrics over all entities, where one is named; `deliveries` counts those of the entity by batch.

    That is None where no entity is named, or where `unread` says why it cannot be counted; all batches are listed then.
    """

    window: Window = ALL_TIME
    metric: str | None = None
    entity: str | None = None
    left_out: tuple[str, ...] = ()
    deliveries: Mapping[str, int] | None = None
    unread: str | None = None

    def has(self, run: Run | None) -> bool:
        """Return whether a run concerns the metric and the entity; one that is lost may."""
        if run is None:
            return True
        metrics, entities = run.request.metrics, run.request.entities
        if metrics and set(metrics).issubset(self.left_out):
            return False
        return (not self.metric or not metrics or self.metric in metrics) and (
            not self.entity or not entities or self.entity in entities
        )


def scope_of(store: Store, window: Window, metric: str | None = None, entity: str | None = None) -> Scope:
    """Return the scope. Raises NothingSelected for an unknown metric, UsageError for an entity and a metric over
    all, NotHeld."""
    metrics = known(store.metrics, [metric] if metric else ()) if metric or entity else []
    scope = Scope(window, metric, entity, of_entities(metrics, (entity,) if entity else ())[1])
    if entity is None:
        return scope
    if store.copy is None:
        expect_held(store, ALL_TIME, (entity,))
    try:
        found = Counter(one.delivery.batch_id for one in deliveries(store, Filter(ALL_TIME, (entity,))))
    except Damaged as error:
        return replace(scope, unread=error.message)
    return replace(scope, deliveries=found)


def history(store: Store, scope: Scope, checking: Engine | None = None) -> Iterator[HistoryEntry]:
    """Yield what happened, newest first; with an engine for `checking` also how many values are right today.

    Raises Damaged for a row of state that is not as it was written, StoreError.
    """
    run_of = lru_cache(1024)(partial(_run, store))
    sources = (
        _batches(store, scope),
        _metrics(store, scope),
        _runs(store, scope),
        _promotions(store, scope, run_of),
        _corrections(store, scope),
        _republishes(store, scope),
    )
    entries = heapq.merge(*sources, key=attrgetter("at"), reverse=True)
    return map(_Details(store, checking, scope.metric).added_to, entries)


_SLACK = HOUR
"""By how much an entry may be later than its id: a stack plans a large run some minutes after it was asked for."""


def _within(entries: Iterator[HistoryEntry], window: Window) -> Iterator[HistoryEntry]:
    """Yield the entries of the window, of those that come newest first by their ids."""
    for entry in entries:
        if entry.at < window.start - _SLACK:
            return
        if entry.at in window:
            yield entry


def _batches(store: Store, scope: Scope) -> Iterator[HistoryEntry]:
    def entry(batch: Batch) -> HistoryEntry:
        of_batch = None if scope.deliveries is None else scope.deliveries.get(batch.batch_id, 0)
        return HistoryEntry(
            batch.started_at,
            What.BATCH,
            batch.batch_id,
            batch.actor,
            subject=batch,
            counts=batch.counts,
            deliveries=of_batch,
        )

    entries = _within(map(entry, store.index.batches(_id_prefix(scope.window))), scope.window)
    entries = (one for one in entries if one.deliveries != 0)
    for (is_request, _, _), group in groupby(entries, key=_kind_of_batch):
        if is_request:
            yield _together(group)
        else:
            yield from group


def _kind_of_batch(entry: HistoryEntry) -> tuple[bool, int, str]:
    assert isinstance(entry.subject, Batch)
    return entry.subject.is_request, entry.at // DAY, entry.actor


def _together(requests: Iterator[HistoryEntry]) -> HistoryEntry:
    """Return API requests as one entry; it has the id and the time of the last one."""
    newest = next(requests)
    counts, number, of_entity = newest.counts or Counts(), 1, newest.deliveries
    for one in requests:
        counts += one.counts or Counts()
        number += 1
        of_entity = None if of_entity is None else of_entity + (one.deliveries or 0)
    return replace(newest, what=What.REQUESTS, counts=counts, requests=number, deliveries=of_entity)


def _id_prefix(window: Window) -> str:
    """Return what the ids of all batches of the window begin with."""
    if window.start < _SLACK or window.end > MAX_INSTANT - _SLACK:
        return ""
    ends = (window.start - _SLACK, window.end + _SLACK)
    return commonprefix([time_digits(end) for end in ends])  # noqa: RUF071


def _metrics(store: Store, scope: Scope) -> Iterator[HistoryEntry]:
    names = [scope.metric] if scope.metric else [metric.name for metric in store.metrics.latest()]
    names = [name for name in names if name not in scope.left_out]
    applied = [metric for name in names for metric in store.metrics.versions(name) if metric.applied_at]
    applied.sort(key=lambda metric: (metric.applied_at, metric.name, metric.version), reverse=True)
    retired = {(metric.name, metric.version) for metric in applied if metric.retired}

    def entry(one: Metric) -> HistoryEntry:
        what = What.RETIREMENT if one.retired else What.METRIC
        if (one.name, one.version - 1) in retired:
            what = What.REINSTATEMENT
        return HistoryEntry(one.applied_at, what, pin(one), one.actor, one.reason, one)

    return _within(map(entry, applied), scope.window)


def _runs(store: Store, scope: Scope) -> Iterator[HistoryEntry]:
    entries = (
        HistoryEntry(run.created_at, _OF_RUNS[run.kind], run.run_id, run.actor, run.request.reason, run, run)
        for run in store.runs.newest_first()
    )
    return (entry for entry in _within(entries, scope.window) if scope.has(entry.run))


def _promotions(store: Store, scope: Scope, run_of: Callable[[str], Run | None]) -> Iterator[HistoryEntry]:
    entries = (
        HistoryEntry(one.at, _KINDS[one.kind], one.promotion_id, one.actor, one.reason, one, moved=one.moved)
        for one in store.promotions.newest_first()
    )
    for entry in _within(entries, scope.window):
        assert isinstance(entry.subject, Promotion)
        run = run_of(entry.subject.run_id)
        if scope.has(run):
            yield replace(entry, run=run)


_OF_RUNS = {RunKind.REPLAY: What.RUN, RunKind.IMPORT: What.IMPORT}
_KINDS = {PromotionKind.PROMOTE: What.PROMOTE, PromotionKind.ROLLBACK: What.ROLLBACK}


def _run(store: Store, run_id: str) -> Run | None:
    try:
        return store.runs.get(run_id)
    except NotFound:  # lost, as `pik verify` says
        return None


def _corrections(store: Store, scope: Scope) -> Iterator[HistoryEntry]:
    def entry(one: Correction) -> HistoryEntry:
        what = _OF_CORRECTIONS.get(one.kind, What.CORRECTION)
        return HistoryEntry(one.recorded_at, what, one.correction_id, one.actor, one.reason, one)

    return _within(map(entry, reversed(store.corrections.recorded())), scope.window)


def _republishes(store: Store, scope: Scope) -> Iterator[HistoryEntry]:
    """Yield what was sent to consumers again; it concerns no metric."""
    if scope.metric:
        return
    entries = (
        HistoryEntry(one.created_at, What.REPUBLISH, one.republish_id, one.actor, one.request.reason, one)
        for one in store.republishes.newest_first()
    )
    for entry in _within(entries, scope.window):
        assert isinstance(entry.subject, Republish)
        entities = entry.subject.request.entities
        if not scope.entity or not entities or scope.entity in entities:
            yield entry


_OF_CORRECTIONS = {CorrectionKind.VERDICT: What.REBUILD, CorrectionKind.REVOCATION: What.REVOCATION}


@dataclass(slots=True)
class _Details:
    """Adds to entries what became of the versions of their run."""

    store: Store
    engine: Engine | None
    metric: str | None = None
    standings: dict[str, Standing] = field(default_factory=dict)
    lacking: dict[str, int | None] = field(default_factory=dict)
    retired: set[str] | None = None
    compared: dict[Any, _Compared | None] = field(default_factory=dict)
    """By scope; None where raw has expired."""

    def added_to(self, entry: HistoryEntry) -> HistoryEntry:
        if isinstance(entry.subject, Correction):
            return self._of_correction(entry, entry.subject)
        run_id = entry.subject.run_id if isinstance(entry.subject, Run | Promotion) else None
        if run_id is None:
            return entry
        if run_id not in self.standings:
            self.standings[run_id] = self.store.aggregates.standing(run_id)
        standing = self.standings[run_id]
        now = standing.restored if entry.what is What.ROLLBACK else standing.current
        entry = replace(entry, standing=now, known_until=standing.known_until or None)
        run = entry.run
        if run is None or not standing.versions:
            return entry
        if standing.known_until:
            if run_id not in self.lacking:
                self.lacking[run_id] = _lacked(self.store, run, standing.known_until)
            entry = replace(entry, lacked=self.lacking[run_id])
        if self.engine is None or entry.what is What.ROLLBACK:
            return entry
        compared = self._compared(run, self.engine) if now else _Compared()
        if compared is None:
            return entry
        wrong, failed = compared.wrong[run_id], compared.failed[run_id]
        of_retired = self._of_retired(run_id) if now else 0
        return replace(entry, right=now - wrong - failed - of_retired, failed=failed, of_retired=of_retired)

    def _of_retired(self, run_id: str) -> int:
        """Return how many of the run's values are current and of retired metrics, which are not compared."""
        if self.retired is None:
            self.retired = {metric.name for metric in self.store.metrics.latest() if metric.retired}
        if not self.retired:
            return 0
        written = (change.written for change in self.store.aggregates.changes(run_id))
        return sum(one.current and one.computed.metric in self.retired for one in written)

    def _of_correction(self, entry: HistoryEntry, correction: Correction) -> HistoryEntry:
        if self.engine is None or entry.what is What.REBUILD:
            return entry
        try:
            found = list(standing_of(self.store, self.engine, correction, self.metric))
        except (Damaged, NotHeld):
            return entry
        computed, outdated = sum(one.computed for one in found), sum(one.outdated for one in found)
        return replace(entry, with_correction=computed, before_correction=outdated)

    def _compared(self, run: Run, engine: Engine) -> _Compared | None:
        scope = run.effective, run.request.metrics, run.request.entities
        if scope not in self.compared:
            try:
                self.compared[scope] = _compare(self.store, engine, *scope)
            except NotHeld:
                self.compared[scope] = None
            except NothingSelected:  # it left no value, and raw still has none
                self.compared[scope] = _Compared()
        return self.compared[scope]


def _lacked(store: Store, run: Run, known_until: int) -> int | None:
    """Return how many batches were recorded after that moment with deliveries in the run's window, of its entities;
    None where raw that tells so has expired or is damaged."""
    window, entities = run.effective, run.request.entities
    segments: Iterator[Segment] = store.index.segments(window)
    if entities or window.start % DAY or window.end % DAY:  # a segment has more than that
        segments = (one.segment for one in deliveries(store, Filter(window, entities)))
    try:
        return len({one.batch_id for one in segments if one.recorded_at > known_until})
    except Damaged:
        return None


_AT_ONCE = 500
"""Values of a bucket that are looked up together."""


@dataclass(slots=True)
class _Compared:
    """How many current values are not what raw says today, and how many cannot be computed, by the run that wrote
    them."""

    wrong: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


def _compare(
    store: Store, engine: Engine, window: Window, metrics: tuple[str, ...], entities: tuple[str, ...]
) -> _Compared:
    compared = _Compared()
    still = [metric.name for metric in known(store.metrics, metrics) if not metric.retired]
    if not still:
        return compared
    found = diff_aggregates(store, engine, window, metrics=still if metrics else (), entities=entities)
    for (metric, bucket), of_bucket in groupby(found.rows, key=lambda row: (row.metric, row.bucket)):
        wrong, failed = list[str](), list[str]()
        for row in of_bucket:
            if row.failure is not None and row.failure.damage:
                unreadable = store.aggregates.current(metric, Window(bucket, row.failure.until), entities)
                compared.failed.update(one.run_id for one in unreadable)
            else:
                (wrong if row.failure is None else failed).append(row.entity_id)
        for runs, names in ((compared.wrong, wrong), (compared.failed, failed)):
            for first in range(0, len(names), _AT_ONCE):
                some = names[first : first + _AT_ONCE]
                runs.update(one.run_id for one in store.aggregates.current(metric, Window(bucket, bucket + 1), some))
    return compared
