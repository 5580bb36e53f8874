"""The recorded corrections, and how they stand: which hold, and which values have been computed with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pik.model.correction import Correction, revoked
from pik.model.metric import Metric
from pik.model.run import RunRequest
from pik.model.window import ALL_TIME
from pik.ports.engine import Engine
from pik.ports.store import Store
from pik.rawlog.corrections import find_correction
from pik.rawlog.selection import Selection
from pik.usecases.availability import expect_pulled
from pik.usecases.correct.touched import touched
from pik.usecases.metrics.definitions import computed
from pik.usecases.metrics.winners import Winners
from pik.usecases.replay.chosen import chosen_buckets


@dataclass(frozen=True, slots=True)
class Standing:
    """A correction, the revocation that revokes it, if one does, and the record that it revokes itself."""

    correction: Correction
    revoked_by: str | None
    revoked: Correction | None = None


@dataclass(frozen=True, slots=True)
class MetricStanding:
    """Of the values of a metric in buckets that a correction left or entered: how many current ones were computed with
    it, how many before it, and how many buckets in which its events count have none."""

    metric: str
    computed: int
    outdated: int
    missing: int


def list_corrections(store: Store) -> Iterator[Standing]:
    """Yield the corrections and revocations, newest first."""
    log = store.corrections.recorded()
    gone = revoked(log)
    for one in reversed(log):
        yield Standing(one, gone.get(one.correction_id))


def show_correction(store: Store, engine: Engine, prefix: str) -> tuple[Standing, Iterator[MetricStanding]]:
    """Return the correction with this id or beginning of one, and how values stand to it, by metric. Raises NotFound;
    while values are looked at Damaged, NotHeld and EngineError."""
    correction, log = find_correction(store, prefix), store.corrections.recorded()
    target = next((one for one in log if one.correction_id == correction.revokes), None)
    standing = Standing(correction, revoked(log).get(correction.correction_id), target)
    return standing, standing_of(store, engine, correction)


def standing_of(
    store: Store, engine: Engine, correction: Correction, metric: str | None = None
) -> Iterator[MetricStanding]:
    """Yield how values, of one metric or of all, stand to a correction. Raises Damaged, NotHeld and EngineError."""
    # A copy does not know where the deliveries are that it lacks of a batch, or of what a revocation brings back.
    expect_pulled(store, touched(store, [correction]) if correction.lists else ALL_TIME)
    winners = Winners(store)
    for each in computed(store.metrics):
        if metric in (None, each.name):
            yield _standing(store, engine, correction, each, winners)


def _standing(store: Store, engine: Engine, correction: Correction, metric: Metric, winners: Winners) -> MetricStanding:
    window = metric.buckets.widened(touched(store, [correction]))
    request = RunRequest(start=window.start, end=window.end, correction=correction.correction_id)
    per = metric.definition.per
    pairs = chosen_buckets(Selection(store, window), engine, request, metric.buckets, per=per)
    current = store.aggregates.current(metric.name, window)
    computed = outdated = missing = 0
    row = next(current, None)
    for pair in pairs:
        place = pair.bucket, pair.entity_id
        while row is not None and (row.computed.bucket, row.computed.entity_id) < place:
            row = next(current, None)
        if row is None or (row.computed.bucket, row.computed.entity_id) != place:
            missing += pair.events > 0
        elif not row.is_imported and winners.planned(row.run_id) >= correction.recorded_at:
            computed += 1
        else:
            outdated += 1
    return MetricStanding(metric.name, computed, outdated, missing)
