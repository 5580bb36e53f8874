"""The SQL of one pass over raw lines, which decides which count and groups those by bucket and entity.

Where that fails on the data, failure_sql has the same pass, slower, which keeps what fails apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pik.engine.corrected_sql import UNCORRECTED, CorrectedLines, load_corrections
from pik.engine.rules import NO_RULES, Rules
from pik.engine.sandbox import column_sql, file_list, literal, raw_fields
from pik.engine.syntax import Aggregate
from pik.errors import UsageError
from pik.model.calendar import ONE_BUCKET, Buckets, Span
from pik.model.entity_range import EVERY_ENTITY, EntityRange
from pik.model.instant import DAY, MAX_INSTANT, MIN_INSTANT, SECOND, full_instant
from pik.model.metric import ALL_ENTITIES, Per
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import Inputs

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


MICROSECOND = 1000

_KEYS = ("event_id", "content_hash", "entity_id", "event_time")


def _hash(*columns: str) -> str:
    """Return the SQL of what model.aggregate.delivery_hash is; what is NULL is left out."""
    return f"CAST('0x' || sha256(concat_ws('/', line.content_hash, {', '.join(columns)}))[1:32] AS UHUGEINT)"


@dataclass(frozen=True, slots=True)
class Measure:
    """What to compute of each group for the metric `name`: `value`, an expression over aggregates, as `_v<number>`.

    The aggregates are over the lines for which `where` holds (None: all). `inputs` is the number of those lines, and
    unless `hashed` is false `ids` is the XOR of their ids and `contents` that of their contents, or with `delivered` of
    their contents and places in their batches, as in model.aggregate.delivery_hash. Where another measure counts the
    same lines, these are the columns of that one, whose number is `counted`. `denominator` is that of a quotient.
    """

    name: str
    number: int
    counted: int
    where: str | None
    aggregates: Mapping[str, Aggregate]
    value: str = "NULL"
    denominator: str | None = None
    hashed: bool = True
    delivered: bool = False

    @property
    def inputs(self) -> str:
        """The column of the number of lines."""
        return f"_n{self.counted}"

    @property
    def ids(self) -> str:
        """The column of the XOR of their ids."""
        return f"_h{self.counted}"

    @property
    def contents(self) -> str:
        """The column of the XOR of their contents."""
        return f"_c{self.counted}"

    @property
    def content(self) -> str:
        """The column whose XOR `contents` is."""
        return "_delivery" if self.delivered else "_content"


@dataclass(frozen=True, slots=True)
class Scan:
    """Which lines of `files` count, in buckets of the `spans` that `load_spans` returned: in `window`, of the wanted
    entities if `chosen`, of those in the range, not skipped if `skipping`. With `delivered` some measure needs their
    places in their batches. `corrections` and then `rules` move lines or take them out. `per` is what they are grouped
    by beside their bucket."""

    files: Sequence[Path]
    spans: Sequence[Span]
    window: Window
    columns: frozenset[str]
    chosen: bool
    skipping: bool
    delivered: bool = False
    rules: Rules = NO_RULES
    per: Per = Per.ENTITY
    corrections: CorrectedLines = UNCORRECTED
    entity_range: EntityRange = EVERY_ENTITY

    def grouped(self, measures: Sequence[Measure]) -> str:
        """Return the SQL of one row per bucket and entity: _bucket (microseconds), _entity, _lines, and the measures.

        Lines that don't count are one more row, whose _bucket is NULL: they are counted, and nothing else of them is
        evaluated, so that a value that no metric may see cannot make one fail.
        """
        columns = ["_bucket", "_entity", "_lines"]
        for measure in measures:
            if measure.counted == measure.number:
                columns += [measure.inputs, *([measure.ids, measure.contents] if measure.hashed else [])]
            has_inputs = f"_bucket IS NOT NULL AND {measure.inputs} > 0"
            columns.append(f"CASE WHEN {has_inputs} THEN {measure.value} END AS _v{measure.number}")
        return f"SELECT {', '.join(columns)} FROM ({self.aggregated(measures)})"

    def aggregated(self, measures: Sequence[Measure], *, distinct: bool = True) -> str:
        """Return the SQL of the rows of `grouped` with the aggregates of the measures, by their names, in place of
        their values; without `distinct` those with DISTINCT are left out."""
        results: list[str] = []
        for measure in measures:
            rows = self._rows(measure)
            if measure.counted == measure.number:
                results.append(f"{Aggregate('count_star', False, None, None).over(rows)} AS {measure.inputs}")
                if measure.hashed:
                    xors = {measure.ids: "_id", measure.contents: measure.content}
                    results += [
                        f"{Aggregate('bit_xor', False, column, None).over(rows)} AS {xor}"
                        for xor, column in xors.items()
                    ]
            results += [
                f"{aggregate.over(rows)} AS {name}"
                for name, aggregate in measure.aggregates.items()
                if distinct or not aggregate.distinct
            ]
        return (
            f"SELECT _bucket, _entity, count(_whole) AS _lines, {', '.join(results)} "
            f"FROM ({self._judged(measures)}) GROUP BY _bucket, _entity"
        )

    def distinct_values(self, measures: Sequence[Measure]) -> str:
        """Return the SQL of what the aggregates with DISTINCT of the measures are over: rows as of `distinct_rows`."""
        operands = {
            name: aggregate.operand
            if (rows := self._rows(measure)) is None
            else f"CASE WHEN {rows} THEN {aggregate.operand} END"
            for measure in measures
            for name, aggregate in measure.aggregates.items()
        }
        return distinct_rows(measures, operands, self._judged(measures))

    def _rows(self, measure: Measure) -> str | None:
        """Return the SQL of whether the measure counts a row of `_judged`; None: it counts all."""
        if measure.where is not None:
            return f"_w{measure.number}"
        return "_bucket IS NOT NULL" if self._filters() else None

    def _judged(self, measures: Iterable[Measure]) -> str:
        """Return the SQL of the lines with whether each measure's condition holds."""
        conditions = [
            f", {f'CASE WHEN _bucket IS NOT NULL THEN {measure.where} END' if self._filters() else measure.where}"
            f" AS _w{measure.number}"
            for measure in measures
            if measure.where is not None
        ]
        return f"SELECT *{''.join(conditions)} FROM ({self.lines()})"

    def lines(self) -> str:
        """Return the SQL of one row per line: _bucket and _entity (NULL in lines that don't count), _id, _content,
        _delivery, _whole, and the columns."""
        fields: dict[str, str] = {}
        places = ["batch_id", "seq"] if self.skipping or self.delivered else []
        for name in {*_KEYS, *self.columns, *self.rules.columns, *places, *self.corrections.fields}:
            fields |= raw_fields(name)
        filters = " AND ".join(self._filters())
        entity = "line.entity_id" if self.per == Per.ENTITY else literal(ALL_ENTITIES)
        keys = {"_bucket": self._bucket(), "_entity": entity}
        if filters:
            keys = {name: f"CASE WHEN {filters} THEN {sql} END" for name, sql in keys.items()}
        columns = [f"{sql} AS {name}" for name, sql in keys.items()]
        columns.append("CAST('0x' || line.event_id AS UHUGEINT) AS _id")
        # Nearly every delivery has its content_hash as its id: one conversion does for both.
        moved = f"WHEN line._corrected IS NOT NULL THEN {_hash('line._corrected')} " if self.corrections.moved else ""
        columns.append(
            f"CASE {moved}WHEN line.content_hash = line.event_id THEN _id "
            "ELSE CAST('0x' || line.content_hash AS UHUGEINT) END AS _content"
        )
        if self.delivered:
            corrected = ["line._corrected"] * self.corrections.moved
            columns.append(f"{_hash('line.batch_id', 'line.seq', *corrected)} AS _delivery")
        columns.append(f"CASE WHEN {' AND '.join(f'line.{field} IS NOT NULL' for field in _KEYS)} THEN 1 END AS _whole")
        columns += [f"{column_sql(name)} AS {name}" for name in sorted(self.columns)]
        source = self.rules.applied(
            self.corrections.applied(self._read(fields), fields), [*fields, *self.corrections.columns]
        )
        return f"SELECT {', '.join(columns)} FROM {source} AS line{self._joins()}"

    def counts(self, conditions: Iterable[str]) -> str:
        """Return the SQL of how many lines meet each of these conditions on a line, among those that are not skipped
        and whose entity is wanted, whatever their time."""
        fields: dict[str, str] = {}
        for name in {*_KEYS, *self.rules.columns, "batch_id", "seq"}:
            fields |= raw_fields(name)
        read = self.corrections.applied(self._read(fields), fields)
        columns = "".join(f", {column_sql(name)} AS {name}" for name in sorted(self.rules.columns))
        filters = " AND ".join(replace(self, window=ALL_TIME, rules=NO_RULES)._filters()) or "true"
        counts = ", ".join(f"count(CASE WHEN {condition} THEN 1 END)" for condition in conditions)
        # Joined within: a condition names its columns alone, and joined tables have columns of these names too.
        lines = f"SELECT line{columns} FROM {read} AS line{self._joins()} WHERE {filters}"
        return f"SELECT {counts} FROM ({lines})"

    def _read(self, fields: Mapping[str, str]) -> str:
        types = ", ".join(f"{name}: '{sql_type}'" for name, sql_type in sorted(fields.items()))
        # Without `records` and with one column, read_json looks at each line for what kind of JSON it is: 10 × slower.
        return (
            f"read_json({file_list(self.files)}, format = 'newline_delimited', compression = 'zstd', records = true, "
            f"columns = {{{types}}})"
        )

    def _joins(self) -> str:
        joins = ""
        if self.skipping:
            joins += " LEFT JOIN skipped ON skipped.batch_id = line.batch_id AND skipped.seq = line.seq"
        if self.chosen:
            joins += " LEFT JOIN wanted ON wanted.entity_id = line.entity_id"
        if len(self.spans) > 1:
            within = "line.event_time >= span.from_text AND line.event_time < span.to_text"
            joins += f" LEFT JOIN span ON span.day = line.event_time[1:10] AND {within}"
        return joins

    def _filters(self) -> list[str]:
        """Return conditions on a line, none where all count. Raw's times have nine digits, so they compare as text."""
        filters = []
        if self.window.start > MIN_INSTANT:
            filters.append(f"line.event_time >= {literal(full_instant(self.window.start))}")
        if self.window.end <= MAX_INSTANT:
            filters.append(f"line.event_time < {literal(full_instant(self.window.end))}")
        if self.skipping:
            filters.append("skipped.seq IS NULL")
        if self.chosen:
            filters.append("wanted.entity_id IS NOT NULL")
        if self.entity_range.first:
            filters.append(f"line.entity_id >= {literal(self.entity_range.first)}")
        if self.entity_range.end:
            filters.append(f"line.entity_id < {literal(self.entity_range.end)}")
        return filters + self.corrections.filters + self.rules.filters

    def _bucket(self) -> str:
        if len(self.spans) == 1:
            [span] = self.spans
            whole_days = span.start % DAY == span.size % DAY == 0
            start = _start_in(str(span.start // MICROSECOND), str(span.size // MICROSECOND), whole_days=whole_days)
        elif all(span.size >= DAY for span in self.spans):
            start = "span.start"
        else:
            start = f"CASE WHEN span.size IS NULL THEN span.start ELSE {_start_in('span.start', 'span.size')} END"
        # The first bucket begins with the first instant there is.
        return start if self.spans[0].start >= MIN_INSTANT else f"greatest({start}, {MIN_INSTANT // MICROSECOND})"


def distinct_rows(measures: Iterable[Measure], operands: Mapping[str, str], source: str) -> str:
    """Return the SQL of a row per distinct value that an aggregate with DISTINCT is over: _bucket, _entity, the name of
    the aggregate as _of, and the value's text as _value. `operands` has the SQL of the value of a row of the source."""
    found = [
        f"struct_pack(_of := {literal(name)}, _value := {text_of(aggregate.type, operands[name])})"
        for measure in measures
        for name, aggregate in measure.aggregates.items()
        if aggregate.distinct
    ]
    return (
        "SELECT DISTINCT _bucket, _entity, one._of AS _of, one._value AS _value FROM (SELECT _bucket, _entity,"
        f" unnest([{', '.join(found)}]) AS one FROM ({source}) WHERE _bucket IS NOT NULL) WHERE one._value IS NOT NULL"
    )


def text_of(sql_type: str, sql: str) -> str:
    """Return the SQL of the text of a value of this type, from which `text_type` makes the same value."""
    return f"CAST({sql if sql_type == text_type(sql_type) else f'CAST({sql} AS {text_type(sql_type)})'} AS VARCHAR)"


def text_type(sql_type: str) -> str:
    """Return the type that equal values of this type have in the same way, and that their texts can be cast to: not
    so a list of JSON, whose text quotes nothing, and NULL's own type."""
    if sql_type == "NULL":
        return "BOOLEAN"
    return sql_type.replace("JSON[", "VARCHAR[")


def _start_in(start: str, size: str, *, whole_days: bool = False) -> str:
    """Return the SQL of the start of a line's bucket, where buckets of this size (microseconds) follow a start."""
    # The text truncated to days or seconds is its floor.
    time = f"epoch_us(CAST(line.event_time[1:{10 if whole_days else 19}] AS TIMESTAMP))"
    return f"{time} - ({time} - ({start})) % {size}"


def load_spans(db: DuckDBPyConnection, buckets: Buckets, window: Window) -> Sequence[Span]:
    """Return the spans of the buckets in the window. Several are loaded into a table for the scan to join: a row is a
    bucket, or a span of smaller ones than a day, within one UTC day, as a join by the day is fast."""
    spans = buckets.spans(window)
    if len(spans) > 1:
        end = (window.end // SECOND + 1) * SECOND // MICROSECOND
        until, day = f"lead(start, 1, {end}) OVER (ORDER BY start) AS until", DAY // MICROSECOND
        db.execute(
            "CREATE OR REPLACE TEMP TABLE span AS WITH given AS ("
            f"SELECT *, {until} FROM (SELECT unnest(CAST(? AS BIGINT[])) AS start, unnest(CAST(? AS BIGINT[])) AS size)"
            f"), each AS (SELECT *, {until} FROM (SELECT CASE WHEN size < {day} THEN size END AS size, unnest("
            f"generate_series(start, until - 1, CASE WHEN size >= {day} THEN size ELSE until - start END)) AS start"
            " FROM given)) SELECT start, size, strftime(make_timestamp(start), '%Y-%m-%dT%H:%M:%S') AS from_text,"
            " strftime(make_timestamp(until), '%Y-%m-%dT%H:%M:%S') AS to_text, strftime(unnest(generate_series("
            "date_trunc('day', make_timestamp(start)), make_timestamp(until - 1), INTERVAL 1 DAY)), '%Y-%m-%d') AS day"
            " FROM each",
            [
                [span.start // MICROSECOND for span in spans],
                [None if span.size == ONE_BUCKET else span.size // MICROSECOND for span in spans],
            ],
        )
    return spans


def load(db: DuckDBPyConnection, inputs: Inputs, entities: Sequence[str]) -> CorrectedLines:
    """Load the skipped deliveries, the wanted entities and the corrections, where there are any, into tables for the
    scan to join. Return how lines are corrected. Raises Damaged."""
    if inputs.skip is not None:
        db.execute(
            "CREATE OR REPLACE TEMP TABLE skipped AS SELECT DISTINCT batch_id, seq "
            f"FROM read_csv({file_list([inputs.skip])}, header = false, auto_detect = false, "
            "columns = {batch_id: 'VARCHAR', seq: 'BIGINT'})"
        )
    if entities:
        db.execute(
            "CREATE OR REPLACE TEMP TABLE wanted AS SELECT DISTINCT unnest(CAST(? AS VARCHAR[])) AS entity_id",
            [list(entities)],
        )
    return load_corrections(db, inputs.corrections)


def refuse_unknown_times(db: DuckDBPyConnection, scan: Scan) -> None:
    """Raise UsageError, with how many they are, for deliveries that a rule moves to a time that cannot be known."""
    unknown = scan.rules.unknown
    if not unknown:
        return
    found = db.execute(scan.counts([condition for condition, _ in unknown])).fetchone() or ()
    for count, (_, reason) in zip(found, unknown, strict=True):
        if count:
            raise UsageError(f"{count:,} of the selected times {reason}")
