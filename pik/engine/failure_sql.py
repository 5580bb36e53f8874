"""The SQL of the pass over raw that keeps apart what fails, and of the messages that say why.

It has every expression of the plain pass under DuckDB's TRY, so that the rest is computed. That costs more, so the
plain pass is tried first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from pik.engine.check import scale_of, scaled
from pik.engine.sandbox import first_line
from pik.engine.scan_sql import Measure, Scan
from pik.engine.syntax import Aggregate
from pik.model.metric import BLAMED

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
    named = [(name, aggregate) for measure in measures for name, aggregate in measure.aggregates.items()]
    conditions = "".join(
        f", {_tried(f'CASE WHEN _bucket IS NOT NULL THEN {measure.where or True} END')} AS _w{measure.number}"
        for measure in measures
    )
    operands = "".join(
        f", {_tried(f'CASE WHEN _w{measure.number}.v THEN {aggregate.operand} END')} AS _a{name}"
        for measure in measures
        for name, aggregate in measure.aggregates.items()
    )
    results = ", ".join(result for measure in measures for result in _results(measure))
    sums = "".join(f", TRY({_whole_sum(name, aggregate)}) AS {name}" for name, aggregate in named if aggregate.is_wide)
    values = "".join(f", {_value(measure)} AS _s{measure.number}" for measure in measures)
    outcomes = "".join(f", {_outcome(measure)}" for measure in measures)
    return (
        f"SELECT *{outcomes} FROM (SELECT *{values} FROM (SELECT *{sums} FROM ("
        f"SELECT _bucket, _entity, count(_whole) AS _lines, {results} FROM (SELECT *{operands} FROM ("
        f"SELECT *{conditions} FROM ({scan.lines()}))) GROUP BY _bucket, _entity)))"
    )


def _tried(sql: str) -> str:
    return f"TRY(struct_pack(v := {sql}))"


def _results(measure: Measure) -> Iterator[str]:
    n = measure.number
    failed = " OR ".join([f"_w{n} IS NULL", *(f"_a{name} IS NULL" for name in measure.aggregates)])
    yield f"count(CASE WHEN _w{n}.v THEN 1 END) AS _n{n}"
    yield f"bit_xor(CASE WHEN _w{n}.v THEN _id END) AS _h{n}"
    yield f"bit_xor(CASE WHEN _w{n}.v THEN {measure.content} END) AS _c{n}"
    yield f"count(CASE WHEN {failed} THEN 1 END) AS _f{n}"
    yield f"min(CASE WHEN {failed} THEN _id END, {BLAMED}) AS _b{n}"
    for name, aggregate in measure.aggregates.items():
        if not aggregate.is_wide:
            yield f"{aggregate.of(f'_a{name}.v')} AS {name}"
            continue
        # A sum may overflow on its way to a result that fits, depending on the order of events. Its halves cannot.
        whole = f"CAST(replace(CAST(_a{name}.v AS VARCHAR), '.', '') AS HUGEINT)"
        for half, operator in (("high", "//"), ("low", "%")):
            if aggregate.distinct:
                yield (
                    f"list_sum(list_transform(list(DISTINCT {whole}) FILTER (WHERE _a{name}.v IS NOT NULL), "
                    f"lambda x: x {operator} {_HALF})) AS {name}_{half}"
                )
            else:
                yield f"sum({whole} {operator} {_HALF}) AS {name}_{half}"


def _whole_sum(name: str, aggregate: Aggregate) -> str:
    whole = f"{name}_high * {_HALF}::HUGEINT + {name}_low"
    if aggregate.type == "HUGEINT":
        return whole
    return scaled(whole, scale_of(aggregate.type) or 0)


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
    messages = {}
    for measure in measures:
        n, where = measure.number, measure.where or "true"
        failures = db.execute(_first_failures(measure, f"_bucket, _entity, _x{n}, _b{n}[1]")).fetchall()
        for bucket, entity_id, what, event in failures:
            queries: list[tuple[str, list[object]]] = []
            if what == FailureKind.EVENTS:
                operands = [f"CASE WHEN {where} THEN {one.operand} END" for one in measure.aggregates.values()]
                queries = [(f"SELECT {sql} FROM blamed WHERE _id = ?", [event]) for sql in operands]
            elif what == FailureKind.VALUE:
                query = f"SELECT {measure.value} FROM grouped WHERE _bucket = ? AND _entity = ?"
                queries = [(query, [bucket, entity_id])]
            if message := next(filter(None, (_failure(db, *query) for query in queries)), ""):
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
