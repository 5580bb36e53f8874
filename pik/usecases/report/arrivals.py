"""What arrived in a window, and when: deliveries over time by what became of them, and how long they took. Both come
from one reading of raw."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pik.errors import EngineError, Invalid, command
from pik.model.batch import Verdict
from pik.model.calendar import Buckets, buckets_of
from pik.model.delivery import Filter
from pik.model.instant import MIN_INSTANT
from pik.model.metric import ALL_ENTITIES, Metric
from pik.model.window import Window
from pik.ports.engine import DELIVERY_COLUMNS, Engine, Tables
from pik.ports.report import Timeline, Volume
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import Selection
from pik.usecases.availability import expect_held
from pik.usecases.inspect.effects import EFFECT_COLUMNS, Effects, are_concerned, count_effects
from pik.usecases.metrics.computation import sound
from pik.usecases.metrics.definitions import pin
from pik.usecases.report.kept import Kept, kept
from pik.usecases.timing.grouping import read_grouping
from pik.usecases.timing.lag import Distribution, LagReport, lag_columns, lag_in
from pik.usecases.timing.late import earliest_known_until

BUCKETS = ("1h", "1d", "1w", "364d")
"""Sizes of the buckets of a timeline: the first of which there are at most MOST in it, else the last."""

MOST = 200

_BY_SOURCE = read_grouping("source", ("source",))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Deliveries over time, and the lags of the events that count: of all, and by source. `late` are those that count
    in a current value of the `metrics` (NAME@VERSION, of the values) and were recorded after its known until. `effects`
    is what corrections changed; None: no correction concerns the window."""

    timeline: Timeline
    lag: LagReport
    sources: Kept[Distribution, None]
    metrics: tuple[str, ...]
    effects: Effects | None

    def total(self, name: str) -> int:
        """Return how many deliveries are accepted, late, exact or conflicts (the name) over all buckets."""
        return sum(getattr(one, name) for one in self.timeline.volumes)


def read_arrivals(store: Store, engine: Engine, wanted: Filter, metrics: Sequence[Metric]) -> Arrivals:
    """Read the window once. Raises NotHeld and Damaged, and EngineError where a metric's condition fails."""
    window, entities = wanted.window, wanted.entities
    expect_held(store, window, entities)
    selection = Selection(store, window, entities)
    latest = selection.known_until
    computed = [
        (left, known_until)
        for metric in metrics
        for left, (_, known_until) in earliest_known_until(store, metric, window, entities)[0].items()
    ]
    behind = [left for left, known_until in computed if known_until < latest]
    is_corrected = are_concerned(store, wanted)
    columns = {"event_ns", "entity_id", "batch_id", "seq", "verdict", "recorded_at", *lag_columns(wanted, _BY_SOURCE)}
    columns |= EFFECT_COLUMNS if is_corrected else set()
    columns |= {name for left in behind for name in DELIVERY_COLUMNS if _names(left.definition.where, name)}
    with gather_deliveries(selection) as files, engine.tables(files, columns, window, entities) as tables:
        for number, left in enumerate(behind):
            _keep_late(store, tables, f"late_{number}", left, latest, wanted)
        lag = lag_in(tables, wanted, _BY_SOURCE)
        return Arrivals(
            _timeline(tables, [f"late_{number}" for number in range(len(behind))]),
            replace(lag, groups=()),
            kept(lag.groups, None),
            tuple(pin(left) for left, _ in computed),
            count_effects(tables, wanted) if is_corrected else None,
        )


def _names(where: str | None, column: str) -> bool:
    return where is not None and re.search(rf"\b{column}\b", where, re.IGNORECASE) is not None


def _keep_late(store: Store, tables: Tables, name: str, left: Metric, latest: int, wanted: Filter) -> None:
    """Keep as a table the deliveries (batch_id, seq) that count in a current value of this version and were recorded
    after its known until."""
    window = left.buckets.widened(wanted.window)

    def values() -> Iterator[tuple[int, str, int]]:
        for row in sound(store.aggregates.current(left.name, window, wanted.entities)):
            if row.metric_version == left.version and not row.is_imported and row.known_until < latest:
                yield row.computed.bucket, row.computed.entity_id, row.known_until // 1000

    tables.add(f"known_{name}", {"bucket": "HUGEINT", "entity": "VARCHAR", "known": "BIGINT"}, values())
    _add_spans(tables, f"span_{name}", left.buckets, window)
    entity = f"'{ALL_ENTITIES}'" if left.is_over_all else "entity_id"
    try:
        tables.keep(
            name,
            "SELECT counted.batch_id, counted.seq FROM (SELECT event_ns, batch_id, seq, epoch_us(recorded_at) AS"
            f" recorded, {entity} AS entity FROM events WHERE ({left.definition.where or 'true'})) AS counted"
            f" ASOF JOIN span_{name} AS span ON counted.event_ns >= span.start JOIN known_{name} AS known"
            f" ON known.bucket = {_START.format('counted')} AND known.entity = counted.entity"
            " WHERE counted.recorded > known.known",
        )
    except Invalid as error:
        raise EngineError(
            f"the condition of {pin(left)} cannot be evaluated: {error.message}",
            hint=command("metrics", "show", left.name),
        ) from None


_START = f"greatest({{0}}.event_ns - ({{0}}.event_ns - span.start) % span.size, {MIN_INSTANT})"
"""The SQL of the start of an event's bucket, joined with its span."""


def _add_spans(tables: Tables, name: str, buckets: Buckets, window: Window) -> None:
    tables.add(name, {"start": "HUGEINT", "size": "HUGEINT"}, buckets.spans(window))


def _timeline(tables: Tables, late: Sequence[str]) -> Timeline:
    """Count the deliveries by bucket."""
    [(first, last)] = tables.rows("SELECT min(event_ns), max(event_ns) FROM deliveries")
    if first is None:
        return Timeline(BUCKETS[0], ())
    text = next((text for text in BUCKETS if _number(buckets_of(text), first, last) <= MOST), BUCKETS[-1])
    _add_spans(tables, "span_timeline", buckets_of(text), Window(first, last + 1))
    if late:
        tables.keep("late", " UNION ".join(f"SELECT batch_id, seq FROM {name}" for name in late))
    else:
        tables.add("late", {"batch_id": "VARCHAR", "seq": "BIGINT"}, ())
    is_late = "late.seq IS NOT NULL"
    counts = ", ".join(
        [
            f"count(*) FILTER (NOT {is_late} AND verdict = '{Verdict.ACCEPTED}')",
            f"count(*) FILTER ({is_late})",
            *(f"count(*) FILTER (NOT {is_late} AND verdict = '{kind}')" for kind in (Verdict.EXACT, Verdict.CONFLICT)),
        ]
    )
    rows = tables.rows(
        f"SELECT {_START.format('deliveries')} AS bucket, {counts} FROM deliveries LEFT JOIN late USING (batch_id, seq)"
        " ASOF JOIN span_timeline AS span ON deliveries.event_ns >= span.start GROUP BY 1 ORDER BY 1"
    )
    return Timeline(text, tuple(Volume(*row) for row in rows))


def _number(buckets: Buckets, first: int, last: int) -> int:
    """Return how many buckets there are from one instant to another one: all of these are of one size."""
    start = buckets.start_of(first)
    return (buckets.start_of(last) - start) // (buckets.end_of(last) - buckets.start_of(last)) + 1
