"""SQL over what a window holds: its deliveries, batches, current values, and where those differ from raw."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from pathlib import Path
from shutil import copyfileobj
from typing import Any, NamedTuple

from pik.errors import Invalid, UsageError
from pik.model.batch import Batch
from pik.model.window import Window
from pik.ports.engine import DeliveryFiles, Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.selection import AS_RECEIVED, NO_OVERRIDES, Selection
from pik.runtime.new_file import created_whole, expect_new
from pik.runtime.storage import scratch
from pik.usecases import Listing
from pik.usecases.availability import expect_held
from pik.usecases.inspect.batches import with_closing
from pik.usecases.metrics.definitions import defined_by, list_aggregates, of_entities
from pik.usecases.metrics.diff import diff_aggregates

_MICROSECOND = 1000
_DIGITS = 38
_NUMBER = "DECIMAL"
"""Stands for DECIMAL with 38 digits, and as many of them after the point as any of the metrics has."""


class SqlColumn(NamedTuple):
    """A column of a table: its SQL type, and what it holds."""

    type: str
    about: str


_DELIVERY = {
    "event_id": SqlColumn("VARCHAR", "the identity of the event"),
    "content_hash": SqlColumn("VARCHAR", "tells an exact duplicate from a conflict"),
    "source": SqlColumn("VARCHAR", ""),
    "event_type": SqlColumn("VARCHAR", ""),
    "entity_id": SqlColumn("VARCHAR", ""),
    "event_time": SqlColumn("TIMESTAMP", "UTC, as all times, cut to microseconds"),
    "received_time": SqlColumn("TIMESTAMP", "when the pipeline received it, as it says; NULL where it does not"),
    "ingest_time": SqlColumn("TIMESTAMP", "when this store received it"),
    "batch_id": SqlColumn("VARCHAR", ""),
    "seq": SqlColumn("BIGINT", "its position in the batch's input, from 1"),
    "idempotency_key": SqlColumn("VARCHAR", "NULL where there is none"),
    "payload": SqlColumn("JSON", "`payload->>'amount'` is a field as text"),
    "extra": SqlColumn("JSON", "unknown fields of the event"),
    "verdict": SqlColumn("VARCHAR", "`accepted`, `exact` or `conflict`"),
    "recorded_at": SqlColumn("TIMESTAMP", "when the index recorded it"),
    "event_ns": SqlColumn("BIGINT", "event_time in nanoseconds since 1970"),
    "lag_ns": SqlColumn("HUGEINT", "received_time (or ingest_time without one) minus event_time, in nanoseconds"),
    "received_event_time": SqlColumn("TIMESTAMP", "event_time as it came: event_time itself is as corrections have it"),
    "received_ns": SqlColumn("BIGINT", "the same in nanoseconds since 1970"),
    "correction": SqlColumn(
        "VARCHAR", "ids of the corrections that moved it, chose whether it counts, or took it out; NULL: none"
    ),
}

TABLES: Mapping[str, Mapping[str, SqlColumn]] = {
    "events": _DELIVERY,
    "deliveries": _DELIVERY,
    "batches": {
        "batch_id": SqlColumn("VARCHAR", ""),
        "source": SqlColumn("VARCHAR", "the file, stream or request that it was"),
        "state": SqlColumn("VARCHAR", "`COMPLETE`, `RUNNING`, `INTERRUPTED`, `REPLACED`, `PULLED`"),
        "read": SqlColumn("BIGINT", "records: accepted + exact + conflict + rejected"),
        "accepted": SqlColumn("BIGINT", ""),
        "exact": SqlColumn("BIGINT", ""),
        "conflict": SqlColumn("BIGINT", ""),
        "rejected": SqlColumn("BIGINT", ""),
        "started_at": SqlColumn("TIMESTAMP", ""),
        "finished_at": SqlColumn("TIMESTAMP", "NULL where it is not"),
        "recorded_at": SqlColumn("TIMESTAMP", "when its last block was recorded"),
        "first_event": SqlColumn("TIMESTAMP", "NULL in a batch without events"),
        "last_event": SqlColumn("TIMESTAMP", ""),
    },
    "aggregates": {
        "metric": SqlColumn("VARCHAR", ""),
        "bucket": SqlColumn("TIMESTAMP", "its start"),
        "entity_id": SqlColumn("VARCHAR", "NULL: over all entities"),
        "value": SqlColumn(_NUMBER, ""),
        "inputs": SqlColumn("BIGINT", "how many events it counts; NULL: it was imported"),
        "run_id": SqlColumn("VARCHAR", "that wrote it"),
        "metric_version": SqlColumn("BIGINT", "the definition that it was computed with"),
        "known_until": SqlColumn("TIMESTAMP", "the last recording that it knew; NULL: it was imported"),
        "reason": SqlColumn("VARCHAR", "why it was computed"),
        "retired_at": SqlColumn("TIMESTAMP", "since when its metric is retired; NULL: it is not"),
        "bucket_local": SqlColumn("VARCHAR", "`bucket` as text in the metric's timezone; NULL: it has none"),
    },
    "differences": {
        "op": SqlColumn("VARCHAR", "`~` changed, `+` not current yet, `-` without events, `!` cannot be computed"),
        "metric": SqlColumn("VARCHAR", ""),
        "bucket": SqlColumn("TIMESTAMP", "its start"),
        "entity_id": SqlColumn("VARCHAR", "NULL: over all entities, or raw of the whole bucket is damaged"),
        "current": SqlColumn(_NUMBER, ""),
        "recomputed": SqlColumn(_NUMBER, "from raw"),
        "delta": SqlColumn(_NUMBER, "recomputed - current; NULL where one is missing"),
        "inputs_before": SqlColumn("BIGINT", "NULL: it was imported"),
        "inputs_after": SqlColumn("BIGINT", ""),
        "reason": SqlColumn("VARCHAR", "why it cannot be computed"),
        "bucket_local": SqlColumn("VARCHAR", "`bucket` as text in the metric's timezone; NULL: it has none"),
    },
}
"""What a statement can read; docs/sql.md lists them."""


class ResultColumn(NamedTuple):
    """A column of a result. `approximate`: its values went through floating point."""

    name: str
    type: str
    approximate: bool


class SqlTotals(NamedTuple):
    """How many rows were read, and whether a limit left some out."""

    rows: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class SqlResult:
    """The columns of a result, and its rows as tuples."""

    columns: tuple[ResultColumn, ...]
    rows: Listing[tuple[Any, ...], SqlTotals]


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """A statement, checked, and the part of the store that it reads: a window, some entities (none: all) and metrics.
    With `as_received` no correction holds in its deliveries. Raises UsageError for a statement that is not one SELECT
    over TABLES."""

    store: Store
    engine: Engine
    text: str
    window: Window
    entities: Sequence[str] = ()
    metrics: Sequence[str] = ()
    as_received: bool = False
    read: Mapping[str, Sequence[str]] = field(init=False)
    scale: int = field(init=False)

    def __post_init__(self) -> None:
        scale = max((metric.scale for metric in defined_by(self.store.metrics, self.metrics)), default=0)
        object.__setattr__(self, "scale", scale)
        typed = {name: self._types(name, columns) for name, columns in TABLES.items()}
        with _usage(self.text):
            object.__setattr__(self, "read", self.engine.columns_read(self.text, typed))

    def _types(self, table: str, names: Sequence[str] | Mapping[str, object]) -> dict[str, str]:
        number = f"DECIMAL({_DIGITS}, {self.scale})"
        types = {name: TABLES[table][name].type for name in names}
        return {name: number if sql_type == _NUMBER else sql_type for name, sql_type in types.items()}

    @property
    def left_out(self) -> tuple[str, ...]:
        """Metrics over all entities that tables of values lack, because entities are named."""
        if not self.entities or not {"aggregates", "differences"} & self.read.keys():
            return ()
        return of_entities(defined_by(self.store.metrics, self.metrics), self.entities)[1]

    @contextmanager
    def result(self, limit: int | None = None) -> Iterator[SqlResult]:
        """Run the statement, and provide its rows for as long as the context lasts; with a limit the first ones."""
        with self._tables() as tables, _usage(self.text):
            columns = _columns(tables.columns(self.text))
            statement = _readable(self.text, columns)
            yield SqlResult(tuple(columns), Listing(_rows(tables, statement, limit)))

    def write(self, path: Path) -> tuple[tuple[ResultColumn, ...], int]:
        """Write the rows to a new Parquet file, and return its columns and the number of rows. Raises UsageError,
        StoreError."""
        expect_new(path, "--output")
        with scratch() as directory:
            made = directory / "result.parquet"
            with self._tables(made) as tables, _usage(self.text):
                columns = _columns(tables.columns(self.text))
                tables.write(self.text, made)
                [(count,)] = tables.rows(f"SELECT count(*) FROM read_parquet('{made}')")
            with created_whole(path, "--output") as target, open(made, "rb") as file:
                copyfileobj(file, target)
        return tuple(columns), count

    @contextmanager
    def _tables(self, output: Path | None = None) -> Iterator[Tables]:
        """Provide the tables that the statement names, with the columns that it names."""
        of_raw = {name for table in ("events", "deliveries") for name in self.read.get(table, ())}
        with ExitStack() as stack:
            if {"events", "deliveries"} & self.read.keys():
                expect_held(self.store, self.window, self.entities)
                overrides = AS_RECEIVED if self.as_received else NO_OVERRIDES
                selection = Selection(self.store, self.window, self.entities, overrides)
                files = stack.enter_context(gather_deliveries(selection))
            else:
                files = _no_deliveries(stack.enter_context(scratch()))
            tables = stack.enter_context(self.engine.tables(files, of_raw, self.window, self.entities, output=output))
            for name, rows in _OTHERS.items():
                if name in self.read:
                    columns = self.read[name] or list(TABLES[name])[:1]
                    with _usage(self.text):
                        tables.add(name, self._types(name, columns), _selected(rows(self), columns))
            yield tables

    def value(self, metric: str, value: Decimal | None) -> Decimal | None:
        """Return the value of a metric, which must fit into the column of values. Raises UsageError."""
        if value is None or not value:
            return value
        if value.adjusted() + 1 + self.scale > _DIGITS:
            raise UsageError(
                f"a value of {metric} has too many digits for DECIMAL({_DIGITS}, {self.scale}), which holds the values"
                " of all metrics",
                hint="--metric chooses some",
            )
        return value


def _no_deliveries(directory: Path) -> DeliveryFiles:
    files = DeliveryFiles([], 0, directory / "verdicts.csv", directory / "blocks.csv")
    files.verdicts.touch()
    files.blocks.touch()
    return files


def _selected(rows: Iterator[Mapping[str, object]], columns: Sequence[str]) -> Iterator[list[object]]:
    for row in rows:
        yield [row[name] for name in columns]


def _microseconds(instant: int | None) -> int | None:
    return None if instant is None else instant // _MICROSECOND


def _batches(query: SqlQuery) -> Iterator[Mapping[str, object]]:
    """Yield the batches with events in the window; without a window all."""
    window = query.window

    def overlaps(batch: Batch) -> bool:
        if batch.first_event is None or batch.last_event is None:
            return window == Window()
        return batch.first_event < window.end and batch.last_event >= window.start

    for found in query.store.index.batches():
        if not overlaps(found):
            continue
        batch = with_closing(query.store, found)
        yield {
            "batch_id": batch.batch_id,
            "source": batch.origin.name,
            "state": batch.state,
            **{name: getattr(batch.counts, name) for name in ("read", "accepted", "exact", "conflict", "rejected")},
            "started_at": _microseconds(batch.started_at),
            "finished_at": _microseconds(batch.finished_at),
            "recorded_at": _microseconds(batch.recorded_at or None),
            "first_event": _microseconds(batch.first_event),
            "last_event": _microseconds(batch.last_event),
        }


def _local_text(query: SqlQuery) -> Callable[[str, int], str | None]:
    """Return what a bucket's start is called in its metric's timezone."""
    buckets = {metric.name: metric.buckets for metric in query.store.metrics.latest()}
    return lambda metric, start: buckets[metric].local_text(start)


def _aggregates(query: SqlQuery) -> Iterator[Mapping[str, object]]:
    found = list_aggregates(query.store, query.window, metrics=query.metrics, entities=query.entities)
    local_text = _local_text(query)
    for row in found.rows:
        computed = row.computed
        yield {
            "metric": computed.metric,
            "bucket": _microseconds(computed.bucket),
            "bucket_local": local_text(computed.metric, computed.bucket),
            "entity_id": computed.entity_id or None,
            "value": query.value(computed.metric, computed.value),
            "inputs": computed.inputs,
            "run_id": row.run_id,
            "metric_version": row.metric_version,
            "known_until": _microseconds(row.known_until or None),
            "reason": row.reason or None,
            "retired_at": _microseconds(row.retired_at or None),
        }


def _differences(query: SqlQuery) -> Iterator[Mapping[str, object]]:
    diff = diff_aggregates(query.store, query.engine, query.window, metrics=query.metrics, entities=query.entities)
    local_text = _local_text(query)
    for row in diff.rows:
        yield {
            "op": row.op,
            "metric": row.metric,
            "bucket": _microseconds(row.bucket),
            "bucket_local": local_text(row.metric, row.bucket),
            "entity_id": row.entity_id or None,
            **{name: query.value(row.metric, getattr(row, name)) for name in ("current", "recomputed", "delta")},
            "inputs_before": row.inputs_before,
            "inputs_after": row.inputs_after,
            "reason": None if row.failure is None else row.failure.reason,
        }


_OTHERS: Mapping[str, Callable[[SqlQuery], Iterator[Mapping[str, object]]]] = {
    "batches": _batches,
    "aggregates": _aggregates,
    "differences": _differences,
}


@contextmanager
def _usage(statement: str) -> Iterator[None]:
    """Raise UsageError for what the statement is to blame for."""
    try:
        yield
    except Invalid as error:
        quotes = "in double quotes is a name, in single quotes a text; " if '"' in statement else ""
        hint = error.hint or f"{quotes}tables: {', '.join(TABLES)}; docs/sql.md"
        raise UsageError(f"SQL: {error.message}", hint=hint) from None


_PLAIN = frozenset(
    "BOOLEAN TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT FLOAT DOUBLE "
    "VARCHAR JSON TIMESTAMP".split()
)
"""Types whose values arrive as they are; others are written as text, and nested ones as JSON."""

_INEXACT = ("DOUBLE", "FLOAT")
_TIMES = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS"}


def _columns(types: Sequence[tuple[str, str]]) -> list[ResultColumn]:
    """Return the columns of a result under names of which each is there once."""
    columns: list[ResultColumn] = []
    seen: set[str] = set()
    for name, sql_type in types:
        unique = next(
            one for one in chain([name], (f"{name}_{n}" for n in range(1, len(types) + 1))) if one not in seen
        )
        seen.add(unique)
        columns.append(ResultColumn(unique, sql_type, is_approximate(sql_type)))
    return columns


def is_nested(sql_type: str) -> bool:
    """Return whether values of the type are lists or structs, which are written as JSON."""
    return sql_type.endswith("]") or sql_type.startswith(("STRUCT", "MAP", "UNION"))


def is_approximate(sql_type: str) -> bool:
    """Return whether values of the type go through floating point; in JSON exact numbers do so too."""
    inexact = (*_INEXACT, "DECIMAL", "HUGEINT") if is_nested(sql_type) else _INEXACT
    return any(one in sql_type for one in inexact)


def _readable(text: str, columns: Sequence[ResultColumn]) -> str:
    """Return the statement, values of types that are not read as they are converted by DuckDB."""

    def converted(number: int, sql_type: str) -> str:
        if sql_type in _PLAIN or sql_type.startswith("DECIMAL"):
            return f"c{number}"
        if sql_type in _TIMES:
            return f"CAST(c{number} AS TIMESTAMP)"
        if is_nested(sql_type):
            return f"to_json(c{number})"
        return f"CAST(c{number} AS VARCHAR)"

    shown = [converted(number, column.type) for number, column in enumerate(columns)]
    names = [f"c{number}" for number in range(len(columns))]
    if shown == names:
        return text
    return f"SELECT {', '.join(shown)} FROM (\n{text}\n) AS result({', '.join(names)})"


def _rows(tables: Tables, statement: str, limit: int | None) -> Generator[tuple[Any, ...], None, SqlTotals]:
    count = 0
    with _usage(""):
        for row in tables.rows(statement):
            if limit is not None and count == limit:
                return SqlTotals(count, truncated=True)
            count += 1
            yield row
    return SqlTotals(count, truncated=False)
