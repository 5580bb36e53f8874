"""What arrived: events, deliveries, lag, SQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from pik.api.charts import drawn
from pik.api.html import facts
from pik.api.opened import Names, Opened, checked_limit, frames, names_of
from pik.api.results import KEPT, Result
from pik.api.rows import Delivery, Event, LagBar, LagGroup
from pik.api.times import Duration, Instant, When, duration_of, nanos_of, window_of, zone_of
from pik.errors import UsageError
from pik.model.duration import format_duration
from pik.model.instant import MAX_INSTANT, MIN_INSTANT
from pik.model.window import Window
from pik.ports.frame import FrameColumn, Kind
from pik.ports.report import Histogram

if TYPE_CHECKING:
    from pik.model.delivery import Filter
    from pik.usecases.inspect.conditions import Conditions
    from pik.usecases.inspect.events import EventRow
    from pik.usecases.inspect.every_delivery import ListedDelivery
    from pik.usecases.inspect.sql import ResultColumn
    from pik.usecases.timing.lag import Distribution

Verdict = Literal["accepted", "exact", "conflict"]


class Inspect(Opened):
    """What arrived."""

    def events(
        self,
        entity: str | None = None,
        *,
        from_: When | None = None,
        to: When | None = None,
        since: Duration | None = None,
        timezone: str | None = None,
        type: str | None = None,  # noqa: A002 - the option's name
        source: str | None = None,
        batch: str | None = None,
        recorded_since: When | None = None,
        recorded_until: When | None = None,
        min_lag: Duration | None = None,
        where: str | None = None,
        not_counted: str | None = None,
        newest: bool = False,
        as_received: bool = False,
        limit: int | None = None,
    ) -> Result[Event]:
        """Return the events of an entity, or of a window over all, oldest first: `pik events`.

        `where` is a condition in SQL, as in a metric's; `not_counted` names a metric whose current values lack them.
        Recorded corrections hold, unless `as_received` asks for what came. Raises UsageError for a wrong argument,
        NotFound for an unknown batch; while iterating NotHeld and Damaged.
        """
        from pik.usecases.inspect.events import list_events
        from pik.usecases.inspect.where import matching

        if not_counted is not None and as_received:
            raise UsageError(
                "not_counted compares with a current value, and corrections hold in what that should count"
            )
        window = window_of(from_, to, since, timezone)
        recorded = _recorded(recorded_since, recorded_until, timezone)
        lag = None if min_lag is None else duration_of("min_lag", min_lag)
        wanted, conditions = self._conditions(window, entity, source, type, batch, recorded, as_received)
        conditions = replace(conditions, min_lag=lag)

        def ask(limit: int | None) -> Iterator[Event]:
            from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES

            chosen = conditions
            if where is not None:
                overrides = AS_RECEIVED if as_received else NO_OVERRIDES
                places = matching(self._store, self._engine, wanted, where, overrides=overrides)
                chosen = replace(chosen, places=places)
            if not_counted is not None:
                from pik.usecases.inspect.not_counted import CurrentValues

                chosen = replace(chosen, values=CurrentValues(self._store, self._engine, wanted, not_counted))
            yield from map(_event, list_events(self._store, wanted, limit, conditions=chosen, newest=newest))

        return self._result(Event, ask, limit, "events")

    def deliveries(
        self,
        entity: str | None = None,
        *,
        from_: When | None = None,
        to: When | None = None,
        since: Duration | None = None,
        timezone: str | None = None,
        type: str | None = None,  # noqa: A002 - the option's name
        source: str | None = None,
        batch: str | None = None,
        recorded_since: When | None = None,
        recorded_until: When | None = None,
        class_: Verdict | None = None,
        as_received: bool = False,
        limit: int | None = None,
    ) -> Result[Delivery]:
        """Return every delivery of a window, duplicates included, by event_time, event_id, batch and seq; `class_`
        keeps those with one verdict. Otherwise as `events`."""
        from pik.model.batch import Verdict as Kind
        from pik.usecases.inspect.every_delivery import list_deliveries

        if class_ not in (None, *Kind):
            raise UsageError(f"class_: invalid choice {class_!r}", hint="accepted, exact, conflict, or None for all")
        window = window_of(from_, to, since, timezone)
        recorded = _recorded(recorded_since, recorded_until, timezone)
        wanted, within = self._conditions(window, entity, source, type, batch, recorded, as_received)
        verdict = None if class_ is None else Kind(class_)

        def ask(limit: int | None) -> Iterator[Delivery]:
            yield from map(_delivery, list_deliveries(self._store, wanted, limit, verdict=verdict, within=within))

        return self._result(Delivery, ask, limit, "deliveries")

    def _conditions(
        self,
        window: Window,
        entity: str | None,
        source: str | None,
        event_type: str | None,
        batch: str | None,
        recorded: Window,
        as_received: bool,
    ) -> tuple[Filter, Conditions]:
        from pik.model.delivery import Filter
        from pik.ports.index import batch_of
        from pik.usecases.inspect.conditions import Conditions, within_batch

        wanted, batch_id = Filter(window, (entity,) if entity else (), source, event_type), None
        if batch is not None:
            found = batch_of(self._store.index, batch)
            batch_id, wanted = found.batch_id, within_batch(self._store, wanted, found, as_received=as_received)
        return wanted, Conditions(batch_id=batch_id, recorded=recorded, as_received=as_received)

    def lag(
        self,
        entity: str | None = None,
        *,
        from_: When | None = None,
        to: When | None = None,
        since: Duration | None = None,
        timezone: str | None = None,
        type: str | None = None,  # noqa: A002 - the option's name
        source: str | None = None,
        by: str = "source",
        as_received: bool = False,
    ) -> Lag:
        """Measure how long events took to arrive, by `source`, `type`, `hour`, `batch` or `payload.PATH`: `pik lag`.
        It is measured at once. Raises UsageError, NotHeld and Damaged."""
        from pik.model.delivery import Filter
        from pik.model.instant import format_instant
        from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES
        from pik.usecases.timing.grouping import read_grouping
        from pik.usecases.timing.lag import GROUPS, measure_lag

        wanted = Filter(window_of(from_, to, since, timezone), (entity,) if entity else (), source, type)
        overrides = AS_RECEIVED if as_received else NO_OVERRIDES
        found = measure_lag(self._store, self._engine, wanted, read_grouping(by, GROUPS), overrides=overrides)

        def named(group: LagGroup) -> LagGroup:
            return group if by != "hour" else replace(group, group=format_instant(int(group.group or 0)))

        return Lag(
            None if found.total is None else _group(found.total),
            self._result(LagGroup, lambda _: (named(_group(one)) for one in found.groups), None, "groups"),
            self._result(
                LagBar, lambda _: (LagBar(one.start, one.end, one.events) for one in found.histogram), None, "bars"
            ),
        )

    def sql(
        self,
        statement: str,
        *,
        entity: Names = None,
        from_: When | None = None,
        to: When | None = None,
        since: Duration | None = None,
        timezone: str | None = None,
        metric: Names = None,
        as_received: bool = False,
        limit: int | None = None,
    ) -> Result[dict[str, Any]]:
        """Return the rows of one SELECT over the tables events, deliveries, batches, aggregates and differences of a
        window, as dicts: `pik sql`. docs/sql.md lists the tables' columns.

        It is run at once. DECIMAL and integer columns are exact; those of type DOUBLE are named in `notes`. Times are
        Instants, lists and structs JSON text. Raises UsageError for a statement that is not one SELECT over those
        tables.
        """
        from pik.usecases.inspect.sql import SqlQuery

        window = window_of(from_, to, since, timezone)
        text = statement.strip().rstrip(";").rstrip()
        if not text:
            raise UsageError("the statement is empty", hint="store.sql('SELECT count(*) FROM events')")
        query = SqlQuery(
            self._store, self._engine, text, window, names_of(entity), names_of(metric), as_received=as_received
        )
        checked_limit(limit)
        with query.result(limit) as found:  # the types of the columns are known when it runs
            columns = found.columns
            first = list(islice(found.rows, KEPT + 1))
            is_whole = len(first) <= KEPT
            truncated = is_whole and found.rows.summary.truncated
        names = [column.name for column in columns]
        approximate = [column.name for column in columns if column.approximate]

        def ask(limit: int | None) -> Iterator[dict[str, Any]]:
            with query.result(limit) as found:
                yield from (_record(names, row) for row in found.rows)

        def notes() -> Iterable[str]:
            if approximate:
                yield f"approximate, of type DOUBLE: {', '.join(approximate)}"
            yield from self._left_out(query.left_out)

        result = Result(
            ask,
            [_frame_column(column) for column in columns],
            frames,
            limit=limit,
            cells=lambda row: [row[name] for name in names],
            notes=notes,
        )
        if is_whole:
            result.keep([_record(names, row) for row in first], truncated=truncated)
        return result


def _recorded(since: When | None, until: When | None, timezone: str | None) -> Window:
    zone = zone_of(timezone)
    start = MIN_INSTANT if since is None else nanos_of("recorded_since", since, zone)
    end = MAX_INSTANT + 1 if until is None else nanos_of("recorded_until", until, zone)
    if start >= end:
        raise UsageError("recorded_until is not later than recorded_since", hint="it is the end, itself left out")
    return Window(start, end)


def instant_or_none(nanos: int | None) -> Instant | None:
    """Return the instant, None for None."""
    return None if nanos is None else Instant(nanos)


def _event(row: EventRow) -> Event:
    return Event(
        row.event_id,
        Instant(row.event_time),
        row.source,
        row.event_type,
        row.entity_id,
        row.lag,
        row.deliveries,
        row.batch_id,
        row.seq,
        Instant(row.recorded_at),
        row.payload.decode(),
        instant_or_none(row.received_event_time),
        row.corrections,
        None if row.omission is None else str(row.omission.reason),
    )


def _delivery(row: ListedDelivery) -> Delivery:
    one = row.delivery
    return Delivery(
        one.event_id,
        Instant(one.event_instant),
        one.source,
        one.event_type,
        one.entity_id,
        str(row.verdict),
        row.counts,
        one.lag,
        one.batch_id,
        one.seq,
        Instant(row.recorded_at),
        one.content_hash,
        one.idempotency_key,
        bytes(one.payload).decode(),
        instant_or_none(row.received_event_time),
        row.corrections,
    )


@dataclass(frozen=True, slots=True)
class Lag:
    """How long events took to arrive: over `all` of them (None: there are none), by group (those with the greatest
    99th percentile first, hours in their order), and as a histogram from the first to the last bar with events."""

    all: LagGroup | None
    groups: Result[LagGroup]
    histogram: Result[LagBar]

    def _repr_html_(self) -> str:
        if self.all is None:
            return facts([("events", 0)])
        shown = [(name, getattr(self.all, name)) for name in ("events", "min_ns", "p50_ns", "p99_ns", "max_ns")]
        bars = [(_bounds(one), one.events) for one in self.histogram]
        return facts(shown) + drawn(Histogram("events", bars)) + self.groups._repr_html_()


def _bounds(bar: LagBar) -> str:
    """Return the bounds of a bar in words."""
    if bar.from_ns is None or bar.to_ns is None:
        end, start = format_duration(bar.to_ns or 0), format_duration(bar.from_ns or 0)
        return f"below {end}" if bar.from_ns is None else f"{start} or more"
    return f"{format_duration(bar.from_ns)} to {format_duration(bar.to_ns)}"


def _group(one: Distribution) -> LagGroup:
    return LagGroup(
        *(one.group, one.events, one.least, one.p50, one.p90, one.p95, one.p99, one.most, one.negative, one.at_ingest)
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGERS = frozenset("TINYINT SMALLINT INTEGER BIGINT UTINYINT USMALLINT UINTEGER".split())
_LONG = frozenset({"HUGEINT", "UHUGEINT", "UBIGINT"})
_TIMES = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE"})


def _frame_column(column: ResultColumn) -> FrameColumn:
    """Return the column of a frame for one of SQL's type; what is not a number, a time or a truth is text."""
    if column.type in _INTEGERS:
        return FrameColumn(column.name, Kind.INTEGER)
    if column.type in _LONG:
        return FrameColumn(column.name, Kind.DECIMAL)
    if column.type.startswith("DECIMAL(") and column.type.endswith(")"):
        return FrameColumn(column.name, Kind.DECIMAL, int(column.type[:-1].rpartition(",")[2]))
    kinds = {"DOUBLE": Kind.FLOAT, "FLOAT": Kind.FLOAT, "BOOLEAN": Kind.BOOLEAN}
    return FrameColumn(column.name, Kind.INSTANT if column.type in _TIMES else kinds.get(column.type, Kind.TEXT))


def _record(names: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, map(_value, row), strict=True))


def _value(value: Any) -> str | int | float | bool | Decimal | Instant | None:
    """Return a value of DuckDB's as the API has it."""
    if isinstance(value, datetime):
        return Instant((value.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) * 1000)
    return value if value is None or isinstance(value, (bool, int, float, Decimal, str)) else str(value)
