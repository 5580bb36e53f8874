"""`pik sql`: a SELECT over what a window holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pik.cli import options
from pik.cli.command import FOUND, cli_command
from pik.cli.commands.inspect.corrected import EFFECTS, effects_finder, effects_note, effects_of, notes
from pik.cli.context import Context
from pik.cli.document import NOTE, TRUNCATED, Column, Field, Object, Rows, Schema
from pik.cli.options import argument, option
from pik.cli.values import Count, Json
from pik.config import Format
from pik.errors import UsageError
from pik.model.instant import format_instant
from pik.model.window import Window

if TYPE_CHECKING:
    from pik.usecases.inspect.effects import Effects
    from pik.usecases.inspect.sql import ResultColumn, SqlQuery


@cli_command(
    "sql",
    examples="""
    # events of an hour by source
    pik sql "SELECT source, count(*) FROM events GROUP BY ALL ORDER BY 2 DESC" --since 1h

    # what differs most, with the run that wrote the current value
    pik sql "SELECT d.*, run_id FROM differences d LEFT JOIN aggregates USING (metric, bucket, entity_id)
        ORDER BY abs(delta) DESC LIMIT 10" --from 2026-01-31 --to 2026-02-01

    # a statement from a file, its rows into a Parquet file
    pik sql @late.sql --since 7d --output late.parquet
    """,
)
def sql(
    cli: Context,
    statement: Annotated[str, argument("STATEMENT", "One SELECT; @FILE or - reads it from a file or stdin.")],
    entity: options.Entities = None,
    *,
    period: options.WindowOptions,
    metric: options.Metrics = None,
    output: Annotated[
        str | None, option("--output FILE.parquet", "Write the rows to this new file instead of showing them.")
    ] = None,
    as_received: options.AsReceived = False,
    limit: options.Limit = None,
    fail_if_any: Annotated[bool, option("--fail-if-any", "Exit with 1 if there is any row.")] = False,
) -> int | None:
    """Run a SELECT over the tables events, deliveries, batches, aggregates and differences of a window.

    docs/sql.md lists their columns. DuckDB evaluates the statement; it reads these tables and nothing else, and changes
    nothing. Recorded corrections hold in events and deliveries, unless --as-received is given. Only the columns that
    the statement names are read. On a terminal the first 50 rows are shown, without --limit. DECIMAL and integer
    columns are exact; those of type DOUBLE or FLOAT are approximate, and named as such.
    """
    from pik.usecases.inspect.sql import SqlQuery

    text = _statement(statement)
    window = period.window()
    if output is not None and not output.endswith(".parquet"):
        raise UsageError(f"--output {output}: it does not end in .parquet", hint="for CSV: --format csv > FILE")
    query = SqlQuery(cli.open_store(), cli.engine(), text, window, entity or (), metric or (), as_received)
    options.note_left_out(cli, query.left_out)
    found = _show(cli, query, limit or cli.default_limit) if output is None else _write(cli, query, output)
    return FOUND if found and fail_if_any else None


def _statement(given: str) -> str:
    """Return the SQL: as given, or from a file or stdin."""
    text = given
    if given == "-" or given.startswith("@"):
        from pik.inputs.whole_text import whole_text

        text = whole_text(given.removeprefix("@"), "what can be read: a statement of SQL, as text")
    text = text.strip().rstrip(";").rstrip()
    if not text:
        raise UsageError("the statement is empty", hint="pik sql 'SELECT count(*) FROM events'")
    return text


def _head(query: SqlQuery, columns: Sequence[ResultColumn]) -> dict[str, Any]:
    return {
        "window": query.window,
        "entities": list(query.entities),
        "left_out": query.left_out,
        "columns": columns,
        "approximate": [column.name for column in columns if column.approximate],
    }


def _show(cli: Context, query: SqlQuery, limit: int | None) -> bool:
    """Show the rows, and return whether there is any."""
    with query.result(limit) as found:
        columns = [_column(number, column) for number, column in enumerate(found.columns)]
        head = _head(query, found.columns)

        def note() -> str | None:
            names = ", ".join(head["approximate"])
            more = f"--limit N shows more than the first {limit:,} rows" if found.rows.summary.truncated else None
            return notes(f"approximate, of type DOUBLE: {names}" if names else None, more)

        effects = _effects(cli, query)
        schema = RESULT.replaced("rows.any_column", *columns)
        cli.show(
            schema.without("columns", "approximate") if cli.settings.format in _FOR_PEOPLE else schema,
            head,
            rows=found.rows,
            matched=lambda: None if found.rows.summary.truncated else found.rows.summary.rows,
            truncated=lambda: found.rows.summary.truncated,
            corrected=lambda: effects_of(effects()),
            note=lambda: notes(note(), effects_note(effects())),
        )
        return found.rows.summary.rows > 0


def _effects(cli: Context, query: SqlQuery) -> Callable[[], Effects | None]:
    """Return what finds what corrections changed of the events that the statement reads."""
    from pik.model.delivery import Filter

    reads = {"events", "deliveries"} & query.read.keys()
    wanted = Filter(query.window, tuple(query.entities))
    return effects_finder(cli, query.store, wanted, as_received=query.as_received or not reads)


_FOR_PEOPLE = (Format.TABLE, Format.MD)
"""Formats in which the note has what is approximate."""


def _column(number: int, column: ResultColumn) -> Column:
    return Column(column.name, get=lambda row: value_of(row[number], column.type), cut=60)


def _write(cli: Context, query: SqlQuery, output: str) -> bool:
    """Write the rows to a file, and return whether there is any."""
    columns, count = query.write(Path(output))
    effects = _effects(cli, query)()
    given = {"output": output, "rows": count, "corrected": effects_of(effects)}
    cli.show(WRITTEN, {**_head(query, columns), **given}, note=effects_note(effects))
    return count > 0


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def value_of(value: Any, sql_type: str) -> object:
    """Return a value of DuckDB's as it is shown: JSON as it is, times as text in UTC, whatever zone tables
    are shown in, and what is not a number as text, too."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return format_instant((value.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) * 1000)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str) and (sql_type == "JSON" or _is_nested(sql_type)):
        return Json(value.encode())
    return value


def _is_nested(sql_type: str) -> bool:
    from pik.usecases.inspect.sql import is_nested

    return is_nested(sql_type)


_COLUMNS = Field(
    "columns",
    Object(
        Field("name", str, "of a name that comes twice, the second has `_1` at its end"),
        Field("type", str, "the SQL type"),
        many=True,
    ),
)
_APPROXIMATE = Field("approximate", list[str], "columns whose values went through floating point")

RESULT = Schema(
    "pik sql",
    Field("window", Window),
    Field("entities", list[str], "none: all"),
    options.LEFT_OUT,
    _COLUMNS,
    _APPROXIMATE,
    Rows(
        "rows",
        "as the statement orders them",
        Column("any_column", Json | None, "each column of the statement, under its name", only="as the statement says"),
        empty="no rows",
    ),
    Field("matched", Count | None, "how many rows there are; null where a limit left some out"),
    TRUNCATED,
    EFFECTS,
    NOTE,
)

WRITTEN = Schema(
    "pik sql --output",
    Field("window", Window),
    Field("entities", list[str], "none: all"),
    options.LEFT_OUT,
    _COLUMNS,
    _APPROXIMATE,
    Field("output", str, "the file; HUGEINT columns are DECIMAL(38, 0) there"),
    Field("rows", Count),
    EFFECTS,
    NOTE,
)
