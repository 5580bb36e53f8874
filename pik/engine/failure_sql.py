"""The SQL of the pass over raw that keeps apart what fails, and of the messages that say why.

It has every expression of the plain pass under DuckDB's TRY, so that the rest is computed. That costs more, so the
plain pass is tried first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from pik.engine.check import scale_of, scaled
from pik.engine.sandbox import first_line
from pik.engine.scan_sql import Measure, Scan, distinct_rows
from pik.engine.syntax import Aggregate
from pik.model.aggregate import BLAMED

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


EXPLAINED = 100
"""Failures of one metric that quote DuckDB's message, each for a query or two; further ones have a general reason."""


class FailureKind(StrEnum):
    """What failed."""

    EVENTS = "events"
    """The condition or an argument, on single events."""
    SUM = "sum"
    ZERO = "zero"
    """A quotient, whose denominator is 0."""
    VALUE = "value"
    """The expression over the aggregates, in another way."""


REASONS = {
    FailureKind.EVENTS: "its condition or an argument of an aggregate cannot be evaluated for some of the events",
    FailureKind.SUM: "a sum has too many digits",
    FailureKind.ZERO: "its denominator is 0",
    FailureKind.VALUE: "the expression over its aggregates cannot be evaluated",
}

_LONG = 300

_HALF = 10**19


def isolated(scan: Scan, measures: Sequence[Measure]) -> str:
    """Return the SQL of the rows of `scan.grouped` with three more columns per measure.

    `_x` is NULL, or what failed; `_v` is NULL then. `_f` is how many events fail by themselves, `_b` the smallest of
    their ids. A value is evaluated inside a struct, so that NULL (in it) differs from a failure (in its place).
    """
    return outcomes(isolated_aggregates(scan, measures), measures)


def isolated_aggregates(scan: Scan, measures: Sequence[Measure], *, distinct: bool = True) -> str:
    """Return the SQL of the rows of `scan.aggregated` with `_f` and `_b`. A sum that may overflow is in two halves."""
    results = ", ".join(result for measure in measures for result in _results(measure, distinct))
    tried = _tried_lines(scan, measures)
    return f"SELECT _bucket, _entity, count(_whole) AS _lines, {results} FROM ({tried}) GROUP BY _bucket, _entity"


def isolated_distinct_values(scan: Scan, measures: Sequence[Measure]) -> str:
    """Return the SQL of the rows of `scan.distinct_values`, without those that cannot be evaluated."""
    names = [name for measure in measures for name in measure.aggregates]
    return distinct_rows(measures, {name: f"_a{name}.v" for name in names}, _tried_lines(scan, measures))


def outcomes(aggregated: str, measures: Sequence[Measure]) -> str:
    """Return the SQL of the rows of `isolated`, given those of `isolated_aggregates`."""
    named = [(name, aggregate) for measure in measures for name, aggregate in measure.aggregates.items()]
    sums = "".join(f", TRY({_whole_sum(name, aggregate)}) AS {name}" for name, aggregate in named if aggregate.is_wide)
    values = "".join(f", {_value(measure)} AS _s{measure.number}" for measure in measures)
    found = "".join(f", {_outcome(measure)}" for measure in measures)
    return f"SELECT *{found} FROM (SELECT *{values} FROM (SELECT *{sums} FROM ({aggregated})))"


def _tried_lines(scan: Scan, measures: Sequence[Measure]) -> str:
    """Return the SQL of the lines with each measure's condition as `_w` and each operand as `_a`: NULL where it
    fails."""
    conditions = "".join(
        f", {_tried(f'CASE WHEN _bucket IS NOT NULL THEN {measure.where or True} END')} AS _w{measure.number}"
        for measure in measures
    )
    operands = "".join(
        f", {_tried(f'CASE WHEN _w{measure.number}.v THEN {aggregate.operand} END')} AS _a{name}"
        for measure in measures
        for name, aggregate in measure.aggregates.items()
    )
    return f"SELECT *{operands} FROM (SELECT *{conditions} FROM ({scan.lines()}))"


def _tried(sql: str) -> str:
    return f"TRY(struct_pack(v := {sql}))"


def _results(measure: Measure, distinct: bool) -> Iterator[str]:
    n = measure.number
    failed = " OR ".join([f"_w{n} IS NULL", *(f"_a{name} IS NULL" for name in measure.aggregates)])
    yield f"count(CASE WHEN _w{n}.v THEN 1 END) AS _n{n}"
    yield f"bit_xor(CASE WHEN _w{n}.v THEN _id END) AS _h{n}"
    yield f"bit_xor(CASE WHEN _w{n}.v THEN {measure.content} END) AS _c{n}"
    yield f"count(CASE WHEN {failed} THEN 1 END) AS _f{n}"
    yield f"min(CASE WHEN {failed} THEN _id END, {BLAMED}) AS _b{n}"
    for name, aggregate in measure.aggregates.items():
        if aggregate.distinct and not distinct:
            continue
        if not aggregate.is_wide:
            yield f"{aggregate.of(f'_a{name}.v')} AS {name}"
            continue
        # A sum may overflow on its way to a result that fits, depending on the order of events. Its halves cannot.
        for half, operator in HALVES.items():
            if aggregate.distinct:
                yield (
                    f"list_sum(list_transform(list(DISTINCT {whole(f'_a{name}.v')}) FILTER (WHERE _a{name}.v IS NOT "
                    f"NULL), lambda x: x {operator})) AS {name}_{half}"
                )
            else:
                yield f"sum({whole(f'_a{name}.v')} {operator}) AS {name}_{half}"


HALVES = {"high": f"// {_HALF}", "low": f"% {_HALF}"}
"""What makes the halves of a whole number, which its sign is with both."""


def whole(sql: str) -> str:
    """Return the SQL of the digits of an integer or a DECIMAL as a whole number."""
    return f"CAST(replace(CAST({sql} AS VARCHAR), '.', '') AS HUGEINT)"


def _whole_sum(name: str, aggregate: Aggregate) -> str:
    total = f"{name}_high * {_HALF}::HUGEINT + {name}_low"
    if aggregate.type == "HUGEINT":
        return total
    return scaled(total, scale_of(aggregate.type) or 0)


def _overflown(measure: Measure) -> str:
    found = [f"{name}_high IS NOT NULL AND {name} IS NULL" for name, one in measure.aggregates.items() if one.is_wide]
    return " OR ".join(found) or "false"


def _value(measure: Measure) -> str:
    n = measure.number
    return f"CASE WHEN _n{n} > 0 AND _f{n} = 0 AND NOT ({_overflown(measure)}) THEN {_tried(measure.value)} END"


def _outcome(measure: Measure) -> str:
    n, kinds = measure.number, FailureKind
    zero = "" if measure.denominator is None else f"WHEN TRY({measure.denominator}) = 0 THEN '{kinds.ZERO}' "
    return (
        f"_s{n}.v AS _v{n}, CASE WHEN _f{n} > 0 THEN '{kinds.EVENTS}' WHEN _n{n} = 0 OR _s{n} IS NOT NULL THEN NULL "
        f"WHEN {_overflown(measure)} THEN '{kinds.SUM}' {zero}ELSE '{kinds.VALUE}' END AS _x{n}"
    )


def explanations(db: DuckDBPyConnection, scan: Scan, measures: Sequence[Measure]) -> dict[tuple[int, int, str], str]:
    """Return DuckDB's messages for each measure's first failures in `grouped`, by (measure, bucket in µs, entity)."""
    blamed = " UNION ALL ".join(f"({_first_failures(measure, f'_b{measure.number}[1]')})" for measure in measures)
    db.execute(
        "CREATE OR REPLACE TEMP TABLE blamed AS "
        f"SELECT * FROM ({scan.lines()}) WHERE _bucket IS NOT NULL AND _id IN ({blamed})"
    )

    def of_event(measure: Measure, _: int, __: str, event: object) -> str:
        where = measure.where or "true"
        operands = [f"CASE WHEN {where} THEN {one.operand} END" for one in measure.aggregates.values()]
        found = (_failure(db, f"SELECT {sql} FROM blamed WHERE _id = ?", [event]) for sql in operands)
        return next(filter(None, found), "")

    return explained(db, measures, of_event)


def explained(
    db: DuckDBPyConnection, measures: Sequence[Measure], of_event: Callable[[Measure, int, str, object], str]
) -> dict[tuple[int, int, str], str]:
    """Return the messages as `explanations` does; `of_event` returns that of an event, of the measure, bucket and
    entity that it makes fail."""
    messages = {}
    for measure in measures:
        n = measure.number
        failures = db.execute(_first_failures(measure, f"_bucket, _entity, _x{n}, _b{n}[1]")).fetchall()
        for bucket, entity_id, what, event in failures:
            message = ""
            if what == FailureKind.EVENTS:
                message = of_event(measure, bucket, entity_id, event)
            elif what == FailureKind.VALUE:
                query = f"SELECT {measure.value} FROM grouped WHERE _bucket = ? AND _entity = ?"
                message = _failure(db, query, [bucket, entity_id])
            if message:
                messages[n, bucket, entity_id] = message
    return messages


def _first_failures(measure: Measure, columns: str) -> str:
    n = measure.number
    return f"SELECT {columns} FROM grouped WHERE _x{n} IS NOT NULL ORDER BY _bucket, _entity LIMIT {EXPLAINED}"


def _failure(db: DuckDBPyConnection, query: str, values: Sequence[object]) -> str:
    """Return the message with which a query fails, an empty text if it does not."""
    try:
        db.execute(query, values).fetchall()
    except data_errors() as error:
        message = first_line(error)
        return message if len(message) <= _LONG else message[:_LONG] + "…"
    return ""


def data_errors() -> tuple[type[Exception], ...]:
    """Return the errors that DuckDB raises because of a value; TRY turns the same ones into NULL."""
    import duckdb

    return duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException
