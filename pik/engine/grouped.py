"""Values computed by groups: the scan of raw as a table of buckets and entities, and what is read of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pik.engine import sandbox
from pik.engine.check import CheckedDefinition, check_definition
from pik.engine.corrected_sql import CorrectedLines
from pik.engine.failure_sql import REASONS, data_errors, explanations, isolated
from pik.engine.figures import digest_lines
from pik.engine.rules import NO_RULES, read_rules
from pik.engine.sandbox import FETCH, OTHER_VALUES, OutOfMemory, bounded, damaged_file, first_line
from pik.engine.scan_sql import MICROSECOND, Measure, Scan, load_spans, refuse_unknown_times
from pik.errors import Damaged, EngineError, PikError, UsageError, command
from pik.model.aggregate import NO_INPUTS, BucketDigest, Computed, DigestLines, Failure, bucket_digests
from pik.model.metric import Definition
from pik.model.window import Window
from pik.ports.engine import NOTHING, Bucket, Inputs

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Reasons = Mapping[tuple[int, int, str], str]
"""DuckDB's messages, by (number of the metric, bucket in microseconds, entity), for some of the failures."""


class NothingComputed:
    """A Computation over no raw at all."""

    def digests(self) -> Iterator[BucketDigest]:
        return iter(())

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:  # noqa: ARG002 - the port's arguments
        return iter(())

    def value_digests(self) -> Iterator[BucketDigest]:
        return iter(())

    def rows(
        self,
        *,
        skipping: Collection[Bucket] = (),  # noqa: ARG002 - the port's arguments
        among: Mapping[Bucket, Sequence[str]] = NOTHING,  # noqa: ARG002
    ) -> Iterator[Computed]:
        return iter(())

    def values(self, metric: str) -> Iterator[Decimal]:  # noqa: ARG002
        return iter(())


@dataclass(frozen=True, slots=True)
class GroupedComputation:
    """A Computation over the table `grouped`."""

    db: DuckDBPyConnection
    measures: Sequence[Measure]
    reasons: Reasons | None
    """Why some values failed; None where none did."""

    def digests(self) -> Iterator[BucketDigest]:
        for measure in self.measures:
            yield from bucket_digests(measure.name, self._lines(measure, _inputs(measure)))

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:
        [measure] = [each for each in self.measures if each.name == metric]
        first, last = window.start // MICROSECOND, (window.end - 1) // MICROSECOND
        return self._lines(measure, _inputs(measure), f"_bucket BETWEEN {first} AND {last}")

    def value_digests(self) -> Iterator[BucketDigest]:
        for measure in self.measures:
            yield from bucket_digests(measure.name, self._lines(measure, ""))

    def _lines(self, measure: Measure, inputs: str, where: str = "true") -> Iterator[DigestLines]:
        """Yield lines that end with these columns. concat_ws leaves out what is NULL."""
        n = measure.number
        some = f"(_v{n} IS NOT NULL{f' OR _x{n} IS NOT NULL' if self.reasons is not None else ''})"
        values = f"(SELECT *, CAST(_v{n} AS VARCHAR) AS value FROM grouped WHERE {some} AND {where})"
        plain = "CASE WHEN contains(value, '.') THEN rtrim(rtrim(value, '0'), '.') ELSE value END"
        line = f"concat_ws(chr(31), _entity, {plain}{f', {inputs}' if inputs else ''}) || chr(10)"
        return digest_lines(self.db, values, line)

    def rows(
        self, *, skipping: Collection[Bucket] = (), among: Mapping[Bucket, Sequence[str]] = NOTHING
    ) -> Iterator[Computed]:
        for measure in self.measures:
            starts = [start for metric, start in skipping if metric == measure.name]
            named = {start: names for (metric, start), names in among.items() if metric == measure.name}
            yield from _values(self.db, measure, self.reasons, starts, named)

    def values(self, metric: str) -> Iterator[Decimal]:
        [n] = [each.number for each in self.measures if each.name == metric]
        where = f"_bucket IS NOT NULL AND _v{n} IS NOT NULL"
        self.db.execute(f"SELECT CAST(_v{n} AS VARCHAR) FROM grouped WHERE {where}")
        while rows := self.db.fetchmany(FETCH):
            yield from (Decimal(value) for (value,) in rows)


def _inputs(measure: Measure) -> str:
    """Return the SQL of what ends a line after its value."""
    contents = f"CASE WHEN {measure.contents} IS DISTINCT FROM {measure.ids} THEN {hex_digits(measure.contents)} END"
    return f"{measure.inputs}, {hex_digits(measure.ids)}, {contents}"


def compute_groups(
    db: DuckDBPyConnection,
    inputs: Inputs,
    metrics: Sequence[Definition],
    window: Window,
    corrections: CorrectedLines,
    *,
    chosen: bool,
) -> GroupedComputation:
    """Create the table `grouped` of the metrics, which are ordered by name."""
    measures, scan = measured(db, inputs, metrics, window, corrections, chosen=chosen)
    with computing(db, measures, inputs.deliveries):
        expect_known_times(db, scan)
        reasons = _compute(db, scan, measures, inputs.deliveries)
    return GroupedComputation(db, measures, reasons)


def measured(
    db: DuckDBPyConnection,
    inputs: Inputs,
    metrics: Sequence[Definition],
    window: Window,
    corrections: CorrectedLines,
    *,
    chosen: bool,
) -> tuple[list[Measure], Scan]:
    """Return what the metrics measure, and the scan that reads it."""
    checked = check_together(db, metrics)
    measures = measures_of(metrics, checked, duplicates=inputs.duplicates)
    scan = Scan(
        inputs.files,
        load_spans(db, metrics[0].buckets, window),
        window,
        frozenset[str]().union(*(metric.columns for metric in checked)),
        chosen=chosen,
        skipping=inputs.skip is not None,
        delivered=any(measure.delivered for measure in measures),
        rules=read_rules(db, inputs.rules),
        per=metrics[0].per,
        corrections=corrections,
        entity_range=inputs.entity_range,
    )
    return measures, scan


def computing(db: DuckDBPyConnection, measures: Sequence[Measure], deliveries: int) -> AbstractContextManager[None]:
    """Bound the time that the measures take for so many deliveries. Raises EngineError."""
    seconds = len(measures) * (sandbox.SCAN_SECONDS + sandbox.DELIVERY_SECONDS * deliveries)
    names = ", ".join(measure.name for measure in measures)
    return bounded(db, seconds, f"computing {names} from {deliveries:,} deliveries")


def check_together(db: DuckDBPyConnection, metrics: Sequence[Definition]) -> list[CheckedDefinition]:
    """Return the metrics, ready to be computed together."""
    return [check_definition(db, metric, f"_{number}_") for number, metric in enumerate(metrics)]


def measures_of(
    definitions: Sequence[Definition], metrics: Sequence[CheckedDefinition], *, duplicates: bool = False
) -> list[Measure]:
    """Return what to compute. Metrics with one condition count the same lines, which is done for the first of them."""
    measures: list[Measure] = []
    first: dict[tuple[str | None, bool], int] = {}
    for number, (definition, metric) in enumerate(zip(definitions, metrics, strict=True)):
        name = definition.name
        delivered = duplicates or metric.reads_delivery
        counted, where = first.setdefault((metric.where, delivered), number), metric.where
        value, zero = metric.value, metric.denominator
        measures.append(Measure(name, number, counted, where, metric.aggregates, value, zero, delivered=delivered))
    return measures


def expect_known_times(db: DuckDBPyConnection, scan: Scan) -> None:
    """Raise UsageError for deliveries that a rule moves to a time that cannot be known, Damaged and EngineError."""
    import duckdb

    try:
        refuse_unknown_times(db, scan)
    except duckdb.Error as error:
        raise failure_of(db, scan, error) from None


def _compute(db: DuckDBPyConnection, scan: Scan, measures: Sequence[Measure], deliveries: int) -> Reasons | None:
    """Create the table `grouped`. Return the reasons of what failed on the data, None where nothing did."""
    import duckdb

    try:
        try:
            group(db, scan.grouped(measures), scan, deliveries)
            return None
        except data_errors():
            group(db, isolated(scan, measures), scan, deliveries)
            return explanations(db, scan, measures)
    except duckdb.Error as error:
        raise failure_of(db, scan, error, measures) from None


def group(db: DuckDBPyConnection, grouped: str, scan: Scan, deliveries: int) -> None:
    """Create the table `grouped`. Raises Damaged unless the scan read as many whole lines as there are deliveries."""
    db.execute(f"CREATE OR REPLACE TEMP TABLE grouped AS {grouped}")
    row = db.execute("SELECT coalesce(sum(_lines), 0) FROM grouped").fetchone()
    if row is None or row[0] != deliveries:
        first = scan.files[0].name
        files = first if len(scan.files) == 1 else f"{len(scan.files)} files, {first} the first"
        raise damaged(f"raw has {row and row[0]} whole deliveries of {deliveries} ({files})")


def failure_of(db: DuckDBPyConnection, scan: Scan, error: Exception, measures: Sequence[Measure] = ()) -> PikError:
    """Return the error that names the file, the rule or the metric that made the scan fail: the first that fails
    alone."""
    import duckdb

    if isinstance(error, duckdb.InterruptException):
        raise error
    if isinstance(error, duckdb.OutOfMemoryException):
        return OutOfMemory(error)
    read = "SELECT count(_whole), max(_id), max(_bucket) FROM ({})"
    for file in scan.files:
        try:
            db.execute(read.format(replace(scan, files=[file], rules=NO_RULES).lines()))
        except duckdb.Error as damage:
            if "maximum_object_size" in str(damage):
                return EngineError(f"raw file {file.name} has a line of more than 16 MiB, too long for DuckDB")
            return damaged_file(file, damage)
    try:
        db.execute(read.format(scan.lines()))
    except duckdb.Error as failure:
        what = f"an assumption cannot be evaluated for every event: {first_line(failure)}"
        return UsageError(what, hint=OTHER_VALUES)
    for measure in measures:
        try:
            db.execute(f"CREATE OR REPLACE TEMP TABLE alone AS {isolated(scan, [measure])}")
        except duckdb.Error as failure:
            message = f"the metric {measure.name} cannot be computed: {first_line(failure)}"
            return EngineError(message, hint=command("metrics", "show", measure.name))
    return EngineError(f"the metrics cannot be computed together: {first_line(error)}")


def hex_digits(column: str) -> str:
    """Return the SQL of a column as 32 upper-case hex digits. lpad is slow, and needed for one value in 16."""
    return f"CASE WHEN {column} >= {16**31} THEN hex({column}) ELSE lpad(hex({column}), 32, '0') END"


def _values(
    db: DuckDBPyConnection,
    measure: Measure,
    reasons: Reasons | None,
    skipping: Sequence[int],
    among: Mapping[int, Sequence[str]],
) -> Iterator[Computed]:
    """Yield a metric's rows, those that failed too."""
    n, condition = measure.number, f"{measure.inputs} > 0"
    # Text is how a DECIMAL or a HUGEINT reaches Python fastest, and exactly.
    ids, contents = (f"lower({hex_digits(xor)})" for xor in (measure.ids, measure.contents))
    columns = f"CAST(_v{n} AS VARCHAR), {measure.inputs}, {ids}, {contents}"
    if reasons is not None:
        columns, condition = f"{columns}, _x{n}, _f{n}, _b{n}", f"({condition} OR _x{n} IS NOT NULL)"
    for row in grouped_rows(db, columns, condition, skipping, among):
        bucket, entity_id, value, inputs, ids, contents = row[:6]
        exact = None if value is None else Decimal(value)
        failure = None
        if reasons is not None and row[6] is not None:
            what, events, blamed = row[6:]
            to_blame = tuple(f"{event:032x}" for event in blamed or ())
            failure = Failure(reasons.get((n, bucket, entity_id)) or REASONS[what], events, to_blame)
        start, ids, contents = bucket * MICROSECOND, ids or NO_INPUTS, contents or NO_INPUTS
        yield Computed(measure.name, start, entity_id, exact, inputs, ids, contents, failure)


def grouped_rows(
    db: DuckDBPyConnection,
    columns: str,
    condition: str,
    skipping: Sequence[int] = (),
    among: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> Iterator[tuple[Any, ...]]:
    """Yield (bucket in microseconds, entity, columns…) of the groups that meet the condition, by bucket and entity,
    without the buckets (nanoseconds) to skip, and of those in `among` only these entities."""
    parameters: list[object] = []
    if others := [*skipping, *among]:
        condition += " AND (_bucket NOT IN (SELECT unnest(CAST(? AS BIGINT[])))"
        parameters.append([bucket // MICROSECOND for bucket in others])
        if named := [(bucket // MICROSECOND, entity) for bucket, names in among.items() for entity in names]:
            condition += " OR (_bucket, _entity) IN (SELECT unnest(CAST(? AS BIGINT[])), unnest(CAST(? AS VARCHAR[])))"
            parameters += [bucket for bucket, _ in named], [entity for _, entity in named]
        condition += ")"
    db.execute(
        f"SELECT _bucket, _entity, {columns} FROM grouped WHERE _bucket IS NOT NULL AND {condition} "
        "ORDER BY _bucket, _entity",
        parameters or None,
    )
    while rows := db.fetchmany(FETCH):
        yield from rows


def damaged(message: str) -> Damaged:
    """Return the error for raw that cannot be computed from."""
    return Damaged(message, hint="what is affected: pik verify --full")
