"""Late events: recorded after the current value of their bucket was computed, and how they move it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import groupby, islice
from operator import attrgetter

from pik.errors import EngineError, Invalid, command
from pik.model.aggregate import Aggregate, Computed, with_scale
from pik.model.instant import MAX_INSTANT, MIN_INSTANT
from pik.model.metric import ALL_ENTITIES, Metric
from pik.model.scenario import Scenario
from pik.model.window import Window
from pik.ports.engine import DELIVERY_COLUMNS, Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Selection
from pik.runtime.storage import Sorter
from pik.usecases.availability import expect_held
from pik.usecases.metrics.causes import TOGETHER
from pik.usecases.metrics.computation import sound, widest
from pik.usecases.metrics.definitions import computed_by, of_entities, pin, pinned
from pik.usecases.metrics.values import values_under
from pik.usecases.metrics.winners import Winners


@dataclass(frozen=True, slots=True)
class LateBucket:
    """A current value (of a metric, entity, and bucket by its start) and its late events: those that its definition
    counts and that were recorded after its `known_until`.

    `before` and `after` are the value without and with them, under the metric's latest definition, or where that has
    buckets of another size, under the one that computed the current value; None: no value. A value that cannot be
    computed is `failed`. `proven` says whether the current value counted exactly what raw holds of what was known then.
    """

    metric: str
    bucket: int
    entity_id: str
    late: int
    known_until: int
    run_id: str
    current: Decimal | None
    before: Decimal | None = None
    after: Decimal | None = None
    failed: bool = False
    proven: bool = False

    @property
    def delta(self) -> Decimal | None:
        """after - before, no value counted as 0; None where one cannot be computed."""
        return None if self.failed else (self.after or Decimal(0)) - (self.before or Decimal(0))


@dataclass(frozen=True, slots=True)
class LateReport:
    """Late events by metric, bucket and entity, over the whole buckets that the window touches (`effective`).
    `versions` are the metrics that were looked at, `values` their current values, `late` the late ones' buckets. Of
    `imported` values it is not known what they know, so they are not among these. `left_out` are metrics over all
    entities, where some were named."""

    effective: Window
    versions: tuple[str, ...]
    values: int
    imported: int
    late: int
    buckets: Iterable[LateBucket]
    left_out: tuple[str, ...] = ()


def find_late(
    store: Store, engine: Engine, window: Window, entities: Sequence[str] = (), metrics: Sequence[str] = ()
) -> LateReport:
    """Find the current values with late events. Raises NothingSelected for an unknown metric, NotHeld, Damaged, and
    EngineError where a definition's condition fails on an event."""
    wanted, left_out = of_entities(computed_by(store.metrics, metrics), entities)
    known = {metric: earliest_known_until(store, metric, window, entities) for metric in wanted}
    effective = widest(window, [*wanted, *(left for lefts, _ in known.values() for left in lefts)])
    expect_held(store, effective, entities)
    values, late = 0, 0
    found: Sorter[LateBucket] = Sorter(attrgetter("metric", "bucket", "entity_id"))
    for metric, (lefts, _) in known.items():
        values += sum(count for count, _ in lefts.values())
        for left, (_, known_until) in lefts.items():
            definition = metric if metric.buckets == left.buckets else left
            buckets = _late_of(store, engine, left, known_until, window, entities)
            while some := list(islice(buckets, TOGETHER)):
                for one in _moved(store, engine, definition, some):
                    late += 1
                    found.add(one)
    names = tuple(pin(metric) for metric in wanted)
    imported = sum(outside for _, outside in known.values())
    return LateReport(effective, names, values, imported, late, found, left_out)


def earliest_known_until(
    store: Store, metric: Metric, window: Window, entities: Sequence[str]
) -> tuple[dict[Metric, tuple[int, int]], int]:
    """Return by version of the metric how many current values it has whose bucket the window touches, and the earliest
    of their known until; and how many were imported."""
    lefts: dict[int, tuple[Metric, Window]] = {}
    found: dict[int, tuple[int, int]] = {}
    imported = 0
    for row in store.aggregates.current(metric.name, widest(window, store.metrics.versions(metric.name)), entities):
        version = row.metric_version
        if version not in lefts:
            left = pinned(store.metrics, f"{metric.name}@{version}")
            lefts[version] = left, left.buckets.widened(window)
        if row.computed.bucket not in lefts[version][1]:
            continue
        if row.is_imported:
            imported += 1
            continue
        count, known_until = found.get(version, (0, MAX_INSTANT))
        found[version] = count + 1, min(known_until, row.known_until)
    return {lefts[version][0]: counts for version, counts in found.items()}, imported


def _late_of(
    store: Store, engine: Engine, left: Metric, known_until: int, window: Window, entities: Sequence[str]
) -> Iterator[tuple[LateBucket, Aggregate]]:
    """Yield the current values of a version that have late events, by bucket and entity, without their movements."""
    window = left.buckets.widened(window)
    if Selection(store, window, entities).known_until <= known_until:
        return  # nothing was recorded since
    where = left.definition.where
    columns = {"entity_id", "event_ns", "recorded_at"}
    if where is not None:
        columns |= {name for name in DELIVERY_COLUMNS if re.search(rf"\b{name}\b", where, re.IGNORECASE)}
    with (
        gather_deliveries(Selection(store, window, entities)) as files,
        engine.tables(files, columns, window, entities) as tables,
    ):
        rows = groupby(_recorded_since(tables, left, window, known_until), key=lambda row: row[:2])
        late = next(rows, None)
        for value in sound(store.aggregates.current(left.name, window, entities)):
            place = value.computed.bucket, value.computed.entity_id
            while late is not None and late[0] < place:
                late = next(rows, None)
            if late is None:
                return
            if late[0] == place and value.metric_version == left.version and not value.is_imported:
                count = sum(events for *_, recorded, events in late[1] if recorded > value.known_until // 1000)
                if count:
                    yield _bucket(left, value, count), value


def _recorded_since(
    tables: Tables, left: Metric, window: Window, known_until: int
) -> Iterator[tuple[int, str, int, int]]:
    """Yield bucket, entity, moment of recording (microseconds) and number of the events in the window that the metric
    counts."""
    entity = f"'{ALL_ENTITIES}'" if left.is_over_all else "entity_id"
    tables.add("span", {"start": "HUGEINT", "size": "HUGEINT"}, left.buckets.spans(window))
    try:
        tables.keep(
            "late",
            f"SELECT greatest(event_ns - (event_ns - span.start) % span.size, {MIN_INSTANT}) AS bucket,"
            f" {entity} AS entity, epoch_us(recorded_at) AS recorded, count(*) AS n"
            " FROM events ASOF JOIN span ON event_ns >= span.start"
            f" WHERE epoch_us(recorded_at) > {known_until // 1000} AND ({left.definition.where or 'true'})"
            " GROUP BY 1, 2, 3",
        )
    except Invalid as error:
        raise EngineError(
            f"the condition of {pin(left)} cannot be evaluated: {error.message}",
            hint=command("metrics", "show", left.name),
        ) from None
    yield from tables.rows("SELECT bucket, entity, recorded, n FROM late ORDER BY 1, 2, 3")


def _bucket(left: Metric, value: Aggregate, count: int) -> LateBucket:
    one = value.computed
    current = None if one.value is None else with_scale(one.value, left.scale)
    return LateBucket(left.name, one.bucket, one.entity_id, count, value.known_until, value.run_id, current)


def _moved(
    store: Store, engine: Engine, metric: Metric, found: Sequence[tuple[LateBucket, Aggregate]]
) -> Iterator[LateBucket]:
    """Yield them with the values before and after the late events, both by what counted when the value was computed."""
    winners = Winners(store)

    def known(one: tuple[LateBucket, Aggregate]) -> tuple[tuple[int, int], int]:
        run_id = one[0].run_id
        moments = winners.known_to(run_id), winners.corrections_known_to(run_id)
        return moments, one[0].known_until

    ordered = sorted(found, key=known)
    after: dict[tuple[int, str], Computed] = {}
    for moments, together in groupby(ordered, key=lambda one: known(one)[0]):
        keys = {(one.bucket, one.entity_id) for one, _ in together}
        scenario = Scenario(None, (), *moments)
        after |= values_under(store, engine, {metric: keys}, scenario, winners)[metric.name]
    for (moments, known_until), group in groupby(ordered, key=known):
        some = list(group)
        keys = {(one.bucket, one.entity_id) for one, _ in some}
        scenario = Scenario(known_until, (), *moments)
        before = values_under(store, engine, {metric: keys}, scenario, winners)[metric.name]
        for one, value in some:
            was, now = before.get((one.bucket, one.entity_id)), after.get((one.bucket, one.entity_id))
            yield replace(
                one,
                before=None if was is None else was.value,
                after=None if now is None else now.value,
                failed=now is None or now.failure is not None or (was is not None and was.failure is not None),
                proven=was is not None and was.failure is None and was.counted == value.computed.counted,
            )
