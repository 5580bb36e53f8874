"""Checks definitions: what they read, what they call, and that their results are exact whatever the order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from pik.engine.columns import COLUMNS
from pik.engine.exact import INTEGERS, LONGEST_SCALE, check_exact, is_exact, quotient_sql, scale_of
from pik.engine.session import first_line
from pik.engine.syntax import Aggregate, Expression, Reader
from pik.errors import Invalid
from pik.model.metric import Definition

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ORDERED = frozenset(
    "BOOLEAN VARCHAR JSON DATE TIME TIMESTAMP TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS FLOAT DOUBLE".split()
) | {"TIMESTAMP WITH TIME ZONE"}
_FLOATS = ("FLOAT", "DOUBLE")
_CASTABLE = (*_FLOATS, "VARCHAR", "JSON")
_DECLARE = f"CREATE TEMP TABLE IF NOT EXISTS event ({', '.join(f'{name} {it.type}' for name, it in COLUMNS.items())})"


@dataclass(frozen=True, slots=True)
class Checked:
    """A definition that may be computed. `where` is SQL, None for every event; `columns` are all that it reads; `scale`
    is how many digits its values have after the point. `denominator` is SQL that a failure is blamed on if it is 0."""

    name: str
    where: str | None
    value: Expression
    columns: frozenset[str]
    scale: int
    denominator: str | None


_KNOWN: dict[tuple[Definition, str], Checked] = {}
"""What was checked in this process: a check takes tens of milliseconds, and a replay has a task after the other."""

_MOST_KNOWN = 1000


def check(db: DuckDBPyConnection, definition: Definition, prefix: str = "_") -> Checked:
    """The definition, ready to be computed; the results of its aggregates are called PREFIX0, PREFIX1, …

    Raises Invalid with the reason, and where there is one the exact alternative.
    """
    key = definition, prefix
    if key not in _KNOWN:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = _check(db, definition, prefix)
    return _KNOWN[key]


def _check(db: DuckDBPyConnection, definition: Definition, prefix: str) -> Checked:
    db.execute(_DECLARE)
    where = None
    try:
        if definition.where is not None:
            reader = Reader(db, "where")
            where = reader.where(definition.where)
            _check_where(db, where)
            check_exact(reader, where.tree)
        reader = Reader(db, "value")
        value = reader.value(definition.value, prefix)
        value = replace(value, aggregates=tuple(_checked(db, aggregate) for aggregate in value.aggregates))
        check_exact(reader, value.tree)
        value, scale = _checked_result(db, definition, value, prefix)
    except RecursionError:
        raise Invalid(f"metric {definition.name}: it is nested too deeply", field="value") from None
    except Invalid as refused:
        message = f"metric {definition.name}, {refused.field}: {refused.message}"
        raise Invalid(message, field=refused.field, hint=refused.hint) from None
    columns = value.columns | (where.columns if where else frozenset())
    denominator = value.quotient[1] if value.quotient else None
    return Checked(definition.name, where.sql if where else None, value, columns, scale, denominator)


def _check_where(db: DuckDBPyConnection, where: Expression) -> None:
    found = _types(db, "where", [where.sql])[0]
    if found != "BOOLEAN":
        _refuse("where", f"it is {found}, not BOOLEAN", "where is a condition such as event_type = 'purchase'")


def _checked(db: DuckDBPyConnection, aggregate: Aggregate) -> Aggregate:
    """The aggregate with the type of its argument, which is one whose aggregate is the same in any order."""
    if aggregate.condition and (condition := _types(db, "value", [aggregate.condition])[0]) != "BOOLEAN":
        _refuse("value", f"the FILTER of {aggregate.function} is {condition}, not BOOLEAN")
    if aggregate.argument is None:
        return aggregate
    found = _types(db, "value", [aggregate.argument])[0]
    name, exact = aggregate.function, is_exact(found)
    if name == "sum" and (not (exact or found == "BOOLEAN") or found == "UHUGEINT"):
        why = "adds in floating point, so the order of events would change it" if found in _FLOATS else "cannot add it"
        hint = f"exact is sum({_exact(db, aggregate.argument)})" if found in _CASTABLE else ""
        _refuse("value", f"the argument of sum is {found}; sum {why}", hint)
    if name in ("min", "max") and not (exact or found in _ORDERED):
        hint = "a difference in microseconds is epoch_us(received_time) - epoch_us(event_time)"
        why = f"the argument of {name} is {found}, and unequal ones of those may rank the same"
        _refuse("value", why, hint if found == "INTERVAL" else "")
    if name.startswith("bit_") and found not in INTEGERS:
        _refuse("value", f"the argument of {name} is {found}, not an integer")
    return replace(aggregate, type=found)


def _checked_result(
    db: DuckDBPyConnection, definition: Definition, value: Expression, prefix: str
) -> tuple[Expression, int]:
    """The expression, a quotient written out in whole numbers, and the scale of its result."""
    results = ", ".join(
        f"{aggregate.over(None)} AS {prefix}{number}" for number, aggregate in enumerate(value.aggregates)
    )
    source = f"(SELECT {results} FROM event)"
    found = _types(db, "value", [value.sql], source)[0]
    if value.quotient is not None:
        x, y = value.quotient
        x_type, y_type = _types(db, "value", [x, y], source)
        _check_scales(x_type, y_type, found)
        value = replace(value, sql=quotient_sql(x, x_type, y, y_type, found))
        found = _types(db, "value", [value.sql], source)[0]
    scale = scale_of(found)
    if scale is None:
        _refuse_result(definition, found)
    return value, scale


def _check_scales(*sql_types: str) -> None:
    """Both sides and the quotient leave room for the calculation in 128 bits."""
    for sql_type in sql_types:
        if (scale_of(sql_type) or 0) > LONGEST_SCALE:
            why = f"a quotient and its sides have at most {LONGEST_SCALE} digits after the point, not {sql_type}"
            _refuse("value", why, f"cast it to at most DECIMAL(38, {LONGEST_SCALE})")


def _refuse_result(definition: Definition, found: str) -> NoReturn:
    hints = {
        "BOOLEAN": f"as a number it is ({definition.value})::INTEGER",
        "VARCHAR": f"as a number it is ({definition.value})::DECIMAL(18, 6)",
        "TIMESTAMP": f"as a number it is epoch_us({definition.value})",
    } | dict.fromkeys(_FLOATS, f"rounded the same way everywhere it is ({definition.value})::DECIMAL(18, 6)")
    _refuse("value", f"its result is {found}, neither an integer nor a DECIMAL", hints.get(found, ""))


def _types(db: DuckDBPyConnection, field: str, expressions: Sequence[str], source: str = "event") -> list[str]:
    """The SQL types of the expressions. Running them over nothing finds what binding does not."""
    import duckdb

    query = f"SELECT {', '.join(expressions)} FROM {source} LIMIT 0"
    try:
        found = [str(row[1]).strip('"') for row in db.execute(f"DESCRIBE {query}").fetchall()]
        db.execute(query)
    except duckdb.Error as error:
        _refuse(field, first_line(error))
    return found


def _exact(db: DuckDBPyConnection, argument: str) -> str:
    """The argument as a DECIMAL: by its own casts where they make it a float, for there digits are lost."""
    for wide in _FLOATS:
        argument = argument.replace(f" AS {wide})", " AS DECIMAL(18, 6))")
    return argument if is_exact(_types(db, "value", [argument])[0]) else f"CAST({argument} AS DECIMAL(18, 6))"


def _refuse(field: str, reason: str, hint: str = "") -> NoReturn:
    raise Invalid(reason, field=field, hint=hint)
