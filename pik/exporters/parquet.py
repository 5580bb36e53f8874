"""Parquet: typed columns, times as UTC timestamps to the nanosecond, payloads as JSON text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pik.errors import UsageError
from pik.exporters.envelope import SCHEMA, TIMESTAMP, integers, read_envelopes, strings
from pik.model.batch import Verdict
from pik.model.delivery import ExtractedColumn, Filter, extracted_values
from pik.model.instant import full_instant, parse_instant
from pik.model.window import ALL_TIME
from pik.ports.exporter import CORRECTED, DELIVERY, Block, Layout, Piece, Rows, local_date

ROW_GROUP = 64 * 1024
"""Rows after which a row group is written."""

BUFFERED = 64 << 20
"""Bytes of rows, about, that wait for their row groups; beyond that the largest group is written early."""

# Raw is sorted by entity, so entity_id compresses better without one.
_DICTIONARY = ("source", "event_type", "received_time", "ingest_time", "batch_id", DELIVERY)
_WITHOUT_STATISTICS = ("event_id", "content_hash", "idempotency_key", "payload", "extra")


class ParquetExporter:
    """Writes Parquet. All of its sinks together hold BUFFERED bytes."""

    suffix = ".parquet"

    def __init__(self, layout: Layout) -> None:
        # Arrow's own allocator hands memory back to the system at once, only to fetch it again for the next rows.
        pa.set_memory_pool(pa.system_memory_pool())
        self.layout = layout
        self._values = [name for name in layout.partition_by if name != "event_date"]
        fields = [field for field in SCHEMA if field.name not in self._values]
        if layout.include_duplicates:
            fields.append(pa.field(DELIVERY, pa.string()))
        if not layout.as_received:
            fields += [pa.field(name, kind) for name, kind in zip(CORRECTED, _CORRECTED_TYPES, strict=True)]
        fields += [pa.field(column.name, _column_type(column)) for column in layout.columns]
        if layout.microseconds:
            fields = [pa.field(field.name, _microseconds_type(field)) for field in fields]
        self._schema = pa.schema(fields)
        self._sinks: list[_ParquetSink] = []

    def cut(self, block: Block) -> Iterator[tuple[tuple[str, ...], Rows]]:
        table, exactly = read_envelopes(block, duplicates=self.layout.include_duplicates)
        table = self._selected(table, block.pieces)
        if table.num_rows:
            dates = self._dates(block, table)
            if self.layout.columns:
                table = self._with_extracted(table, exactly=exactly)
            if self.layout.microseconds:
                table = _with_microseconds(table)
            yield from self._partitioned(dates, table)

    def _dates(self, block: Block, table: pa.Table) -> list[str]:
        """Return the date of each event; of a block of one date just that."""
        days = self.layout.days
        if days is None or "event_date" not in self.layout.partition_by:
            return [block.day]
        dates = [local_date(days, time) for time in table.column("event_time").cast(pa.int64()).to_pylist()]
        return dates if len(set(dates)) > 1 else dates[:1]

    def _selected(self, table: pa.Table, pieces: Sequence[Piece]) -> pa.Table:
        masks = _masks(self.layout.selection, table)
        if self.layout.include_duplicates:
            kinds = _kinds(table, pieces)
            table = table.append_column(DELIVERY, kinds)
            masks.append(pc.not_equal(kinds, Verdict.UNRECORDED))
        if not self.layout.as_received:
            for name, values in zip(CORRECTED, _corrected(table, pieces), strict=True):
                table = table.append_column(name, values)
        return table.filter(reduce(pc.and_, masks)) if masks else table

    def _with_extracted(self, table: pa.Table, *, exactly: bool) -> pa.Table:
        events, payloads = table.column("event_id").to_pylist(), table.column("payload").to_pylist()
        columns = self.layout.columns
        rows = [
            extracted_values(columns, event_id, payload.encode(), exactly=exactly)
            for event_id, payload in zip(events, payloads, strict=True)
        ]
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            table = table.append_column(column.name, pa.array(values, _column_type(column)))
        return table

    def _partitioned(self, dates: Sequence[str], table: pa.Table) -> Iterator[tuple[tuple[str, ...], Rows]]:
        by = self.layout.partition_by
        if len(dates) == 1:
            if not self._values:
                yield (dates[0],) * len(by), table
                return
            dates = [dates[0]] * table.num_rows
        groups: dict[tuple[str, ...], list[int]] = {}
        keys = [dates if name == "event_date" else table.column(name).to_pylist() for name in by]
        for position, key in enumerate(zip(*keys, strict=True)):
            groups.setdefault(key, []).append(position)
        table = table.drop_columns(self._values)
        for key, positions in groups.items():
            yield key, table.take(pa.array(positions))

    def sink(self, file: BinaryIO) -> _ParquetSink:
        sink = _ParquetSink(file, self._schema, self.layout.compression, self._sinks)
        self._sinks.append(sink)
        return sink


class _ParquetSink:
    """A file that is written. `family` are the exporter's open sinks, which share its memory."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, compression: str, family: list[_ParquetSink]) -> None:
        self._schema = schema
        self._family = family
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self.waiting_bytes = 0
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression=compression,
            compression_level=1 if compression == "zstd" else None,
            use_dictionary=[name for name in schema.names if name in _DICTIONARY or name not in SCHEMA.names],
            write_statistics=[name for name in schema.names if name not in _WITHOUT_STATISTICS],
        )

    def write(self, rows: Rows) -> None:
        table = cast("pa.Table", rows)
        self._waiting.append(table)
        self._rows += table.num_rows
        self.waiting_bytes += table.nbytes
        if self._rows >= ROW_GROUP:
            self.flush()
        while sum(sink.waiting_bytes for sink in self._family) > BUFFERED:
            max(self._family, key=lambda sink: sink.waiting_bytes).flush()

    def flush(self) -> None:
        """Write the waiting rows as a row group."""
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=2 * ROW_GROUP)
        self._waiting, self._rows, self.waiting_bytes = [], 0, 0

    def close(self) -> None:
        self.flush()
        self._writer.close()
        self._family.remove(self)


def _column_type(column: ExtractedColumn) -> Any:
    if column.precision:
        return pa.decimal128(column.precision, column.scale)
    return {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": TIMESTAMP,
    }[column.type]


def _masks(wanted: Filter, table: pa.Table) -> list[Any]:
    """Return a mask for each restriction; together they are `wanted.matches`."""
    masks: list[Any] = []
    times, window = table.column("event_time"), wanted.window
    if window.start > ALL_TIME.start:
        masks.append(pc.greater_equal(times, _timestamp(window.start)))
    if window.end < ALL_TIME.end:
        masks.append(pc.less(times, _timestamp(window.end)))
    if wanted.entities:
        entities = strings([entity.encode() for entity in wanted.entities])
        masks.append(pc.is_in(table.column("entity_id"), value_set=entities))
    for name, text in (("source", wanted.source), ("event_type", wanted.event_type)):
        if text is not None:
            masks.append(pc.equal(table.column(name), strings([text.encode()])[0]))
    return masks


def _timestamp(nanos: int) -> Any:
    return integers([nanos]).cast(TIMESTAMP)[0]


def _kinds(table: pa.Table, pieces: Sequence[Piece]) -> Any:
    """Return the kind of each delivery. A seq identifies a delivery within its batch only."""
    kinds: list[str] = []
    accepted = Verdict.ACCEPTED  # members are slow to look up
    for piece in pieces:
        seqs = table.column("seq").slice(len(kinds), piece.lines)
        kinds += [piece.verdicts.get(seq, accepted) for seq in seqs.to_pylist()]
    return pa.array(kinds, pa.string())


_CORRECTED_TYPES = (TIMESTAMP, pa.string())


def _corrected(table: pa.Table, pieces: Sequence[Piece]) -> list[Any]:
    """Return the columns of CORRECTED. All lines of pieces with corrections are in the table."""
    if not any(piece.corrected for piece in pieces):
        return [pa.nulls(table.num_rows, kind) for kind in _CORRECTED_TYPES]
    found: list[tuple[str | None, str | None]] = []
    for piece in pieces:
        seqs = table.column("seq").slice(len(found), piece.lines)
        found += [piece.corrected.get(seq, (None, None)) for seq in seqs.to_pylist()]
    times = [None if time is None else parse_instant(time) for time, _ in found]
    return [pa.array(times, TIMESTAMP), pa.array([ids for _, ids in found], pa.string())]


# Microseconds, for readers of Parquet without nanoseconds, such as Spark. A time that microseconds do not hold is an
# error; but this store's own ingest_time, which nearly always is one, is written as its text.

_MICROSECONDS = pa.timestamp("us", tz="UTC")


def _microseconds_type(field: pa.Field) -> Any:
    if field.type != TIMESTAMP:
        return field.type
    return pa.string() if field.name == "ingest_time" else _MICROSECONDS


def _with_microseconds(table: pa.Table) -> pa.Table:
    """Return the table with microseconds for nanoseconds. Raises UsageError naming event, column and value."""
    for number, field in enumerate(table.schema):
        if field.type != TIMESTAMP:
            continue
        column = table.column(number)
        if field.name == "ingest_time":
            texts = [full_instant(one) for one in column.cast(pa.int64()).to_pylist()]
            converted = pa.chunked_array([pa.array(texts, pa.string())])
        else:
            try:
                converted = pc.cast(column, _MICROSECONDS, safe=True)
            except pa.ArrowInvalid:
                events, times = table.column("event_id").to_pylist(), column.cast(pa.int64()).to_pylist()
                event, time = next((e, t) for e, t in zip(events, times, strict=True) if t and t % 1000)
                raise UsageError(
                    f"event {event}: {field.name} {full_instant(time)} is not a whole number of microseconds",
                    hint="leave --microseconds out, or --as jsonl, which has times as text",
                ) from None
        table = table.set_column(number, pa.field(field.name, _microseconds_type(field)), converted)
    return table
