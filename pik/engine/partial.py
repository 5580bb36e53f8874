"""Values computed in parts: what the parts of a bucket come to, as files, and the values that they make together.

Every aggregate that a definition may have is exact in any order, so parts of its events make it as well: a count adds
up, a minimum is the least of those of the parts, and what DISTINCT is over are the values of all parts. The expression
over the aggregates is evaluated once, of the whole.

A file has a row per bucket and entity, and a row per distinct value (with its aggregate's name as `_of`), so that no
row grows with the number of events. Numbers are texts: no format has all of the types that they are of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pik.engine.corrected_sql import CorrectedLines
from pik.engine.failure_sql import (
    HALVES,
    FailureKind,
    data_errors,
    explained,
    explanations,
    isolated_aggregates,
    isolated_distinct_values,
    outcomes,
    whole,
)
from pik.engine.grouped import (
    GroupedComputation,
    check_together,
    computing,
    expect_known_times,
    failure_of,
    group,
    hex_digits,
    measured,
    measures_of,
)
from pik.engine.sandbox import OutOfMemory, file_list, literal
from pik.engine.scan_sql import Measure, Scan, text_type
from pik.engine.syntax import Aggregate
from pik.errors import EngineError
from pik.model.aggregate import BLAMED
from pik.model.metric import Definition
from pik.model.window import Window
from pik.ports.engine import Inputs

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def write_partial(
    db: DuckDBPyConnection,
    inputs: Inputs,
    metrics: Sequence[Definition],
    window: Window,
    corrections: CorrectedLines,
    target: Path,
    *,
    chosen: bool,
) -> None:
    """Write what the inputs come to for the metrics, which are ordered by name."""
    import duckdb

    measures, scan = measured(db, inputs, metrics, window, corrections, chosen=chosen)
    with computing(db, measures, inputs.deliveries):
        expect_known_times(db, scan)
        try:
            try:
                group(db, scan.aggregated(measures, distinct=False), scan, inputs.deliveries)
                _keep_distinct_values(db, measures, scan.distinct_values(measures))
                has_failures = False
            except data_errors():
                _group_isolated(db, scan, measures, inputs.deliveries)
                has_failures = True
        except duckdb.Error as error:
            raise failure_of(db, scan, error, measures) from None
        _write(db, _columns(check_layout(db, metrics), measures, isolated=has_failures), target, _digest(metrics))


def write_nothing(db: DuckDBPyConnection, metrics: Sequence[Definition], target: Path) -> None:
    """Write the file of no inputs."""
    columns = _columns(layout := check_layout(db, metrics), layout, isolated=False)
    nothing = ", ".join(f"CAST(NULL AS {sql_type}) AS {name}" for name, (sql_type, _) in columns.items())
    _copy(db, f"SELECT {nothing} WHERE false", target, _digest(metrics))


def merge_partials(db: DuckDBPyConnection, files: Sequence[Path], metrics: Sequence[Definition]) -> GroupedComputation:
    """Create the table `grouped` of the metrics, which are ordered by name, from files of `write_partial`.
    Raises EngineError for those of other metrics."""
    import duckdb

    measures = check_layout(db, metrics)
    read = f"read_parquet({file_list(files)})"
    own = f"FROM parquet_kv_metadata({file_list(files)}) WHERE decode(key) = 'metrics' AND decode(value) = ?"
    same, rows = db.execute(
        f"SELECT (SELECT count(*) {own}), (SELECT count(*) FROM {read})", [_digest(metrics)]
    ).fetchone() or (0, 0)
    if same != len(files):
        raise EngineError(f"{len(files) - same} of {len(files)} files of partial values are of other metrics")
    with computing(db, measures, rows):
        try:
            db.execute(f"CREATE TEMP TABLE grouped AS {outcomes(_merged(measures, read), measures)}")
        except duckdb.OutOfMemoryException as error:
            raise OutOfMemory(error) from None

        def of_event(measure: Measure, bucket: int, entity_id: str, _: object) -> str:
            query = f"SELECT _m{measure.number} FROM grouped WHERE _bucket = ? AND _entity = ?"
            return str((db.execute(query, [bucket, entity_id]).fetchone() or ("",))[0])

        return GroupedComputation(db, measures, explained(db, measures, of_event))


def check_layout(db: DuckDBPyConnection, metrics: Sequence[Definition]) -> list[Measure]:
    """Return the measures whose columns a file has, whatever its inputs are."""
    return measures_of(metrics, check_together(db, metrics))


def _group_isolated(db: DuckDBPyConnection, scan: Scan, measures: Sequence[Measure], deliveries: int) -> None:
    """Create the same tables keeping apart what fails, and why it does as the table `message`."""
    failed = "".join(
        f", CASE WHEN _f{measure.number} > 0 THEN {literal(FailureKind.EVENTS)} END AS _x{measure.number}"
        for measure in measures
    )
    group(db, f"SELECT *{failed} FROM ({isolated_aggregates(scan, measures, distinct=False)})", scan, deliveries)
    _keep_distinct_values(db, measures, isolated_distinct_values(scan, measures))
    found = explanations(db, scan, measures)
    db.execute("CREATE OR REPLACE TEMP TABLE message (number BIGINT, bucket BIGINT, entity VARCHAR, text VARCHAR)")
    for key, text in found.items():
        db.execute("INSERT INTO message VALUES (?, ?, ?, ?)", [*key, text])


def _keep_distinct_values(db: DuckDBPyConnection, measures: Sequence[Measure], rows: str) -> None:
    nothing = "SELECT CAST(NULL AS BIGINT) AS _bucket, '' AS _entity, '' AS _of, '' AS _value WHERE false"
    is_needed = any(aggregate.distinct for measure in measures for aggregate in measure.aggregates.values())
    db.execute(f"CREATE OR REPLACE TEMP TABLE distinct_value AS {rows if is_needed else nothing}")


def _columns(layout: Sequence[Measure], measures: Sequence[Measure], *, isolated: bool) -> dict[str, tuple[str, str]]:
    """Return the columns of a file, with their types and with the SQL of those of a bucket and entity, of `grouped`."""
    found = {"_bucket": ("BIGINT", "_bucket"), "_entity": ("VARCHAR", "_entity")}
    for one, measure in zip(layout, measures, strict=True):
        n = one.number
        if one.counted == n:
            found[one.inputs] = "BIGINT", measure.inputs if not isolated else f"_n{n}"
            found[one.ids] = "VARCHAR", hex_digits(measure.ids if not isolated else f"_h{n}")
            found[one.contents] = "VARCHAR", hex_digits(measure.contents if not isolated else f"_c{n}")
        found[f"_f{n}"] = "BIGINT", f"_f{n}" if isolated else "0"
        ids = f"list_transform(_b{n}, lambda id: lpad(hex(id), 32, '0'))"
        found[f"_b{n}"] = "VARCHAR[]", ids if isolated else "NULL"
        message = f"SELECT text FROM message WHERE number = {n} AND bucket = _bucket AND entity = _entity"
        found[f"_m{n}"] = "VARCHAR", f"CASE WHEN _f{n} > 0 THEN coalesce(({message}), '') END" if isolated else "NULL"
        for name, aggregate in one.aggregates.items():
            if aggregate.distinct:
                continue
            if not aggregate.is_wide:
                found[name] = "VARCHAR", name
                continue
            for half, operator in HALVES.items():
                column = f"{name}_{half}"
                found[column] = "VARCHAR", column if isolated else f"{whole(name)} {operator}"
    return found | {"_of": ("VARCHAR", "NULL"), "_value": ("VARCHAR", "NULL")}


def _digest(metrics: Sequence[Definition]) -> str:
    """Return what tells files of these metrics from those of others."""
    return sha256(msgspec.json.encode(metrics)).hexdigest()


def _write(db: DuckDBPyConnection, columns: dict[str, tuple[str, str]], target: Path, digest: str) -> None:
    of_groups = ", ".join(f"CAST({sql} AS {sql_type}) AS {name}" for name, (sql_type, sql) in columns.items())
    own = ("_bucket", "_entity", "_of", "_value")
    of_values = ", ".join(name if name in own else f"CAST(NULL AS {columns[name][0]}) AS {name}" for name in columns)
    _copy(
        db,
        f"SELECT {of_groups} FROM grouped WHERE _bucket IS NOT NULL UNION ALL SELECT {of_values} FROM distinct_value",
        target,
        digest,
    )


def _copy(db: DuckDBPyConnection, rows: str, target: Path, digest: str) -> None:
    db.execute(
        f"COPY ({rows}) TO {literal(str(target.absolute()))}"
        " (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 16384, USE_TMP_FILE false,"
        f" KV_METADATA {{metrics: {literal(digest)}}})"
    )


def _merged(measures: Sequence[Measure], read: str) -> str:
    """Return the SQL of the rows of `isolated_aggregates` for all of the parts together."""
    results = ", ".join(result for measure in measures for result in _results(measure))
    values = f"SELECT DISTINCT _bucket, _entity, _of, _value FROM {read} WHERE _of IS NOT NULL"
    rows = f"SELECT * FROM {read} WHERE _of IS NULL UNION ALL BY NAME {values}"
    return f"SELECT _bucket, _entity, {results} FROM ({rows}) GROUP BY _bucket, _entity"


def _results(measure: Measure) -> Iterator[str]:
    n = measure.number
    yield f"CAST(coalesce(sum({measure.inputs}), 0) AS BIGINT) AS _n{n}"
    if measure.counted == n:
        for xor in (measure.ids, measure.contents):
            yield f"bit_xor(CAST('0x' || {xor} AS UHUGEINT)) AS {xor}"
    yield f"CAST(coalesce(sum(_f{n}), 0) AS BIGINT) AS _f{n}"
    first = f"list_sort(flatten(list(_b{n}) FILTER (WHERE _b{n} IS NOT NULL)))[1:{BLAMED}]"
    yield f"list_transform({first}, lambda id: CAST('0x' || id AS UHUGEINT)) AS _b{n}"
    yield f"arg_min(_m{n}, _b{n}[1]) AS _m{n}"
    for name, aggregate in measure.aggregates.items():
        yield from _over_values(name, aggregate) if aggregate.distinct else _over_parts(name, aggregate)


def _over_parts(name: str, aggregate: Aggregate) -> Iterator[str]:
    """Yield the SQL of an aggregate, given those of the parts."""
    if aggregate.is_wide:
        for half in HALVES:
            yield f"sum(CAST({name}_{half} AS HUGEINT)) AS {name}_{half}"
        return
    adds = aggregate.argument is None or aggregate.function in ("count", "count_if", "countif", "sum")
    of_parts = f"{'sum' if adds else aggregate.function}(CAST({name} AS {aggregate.result}))"
    yield f"CAST({of_parts} AS {aggregate.result}) AS {name}"


def _over_values(name: str, aggregate: Aggregate) -> Iterator[str]:
    """Yield the SQL of an aggregate with DISTINCT, given the values. No two rows have one text; of intervals, equal
    ones may have several."""
    sql_type = text_type(aggregate.type)
    value = f"CASE WHEN _of = {literal(name)} THEN CAST(_value AS {sql_type}) END"
    if aggregate.is_wide:
        for half, operator in HALVES.items():
            yield f"sum({whole(value)} {operator}) AS {name}_{half}"
        return
    distinct = "DISTINCT " if "INTERVAL" in sql_type else ""
    yield f"{aggregate.function}({distinct}{value}) AS {name}"
