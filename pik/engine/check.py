"""Checks definitions: what they read, what they call, and that their results are exact whatever the order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from pik.engine.session import first_line
from pik.engine.syntax import (
    Aggregate,
    Expression,
    Node,
    Reader,
    aggregates_of,
    children,
    columns_of,
    is_aggregate,
    is_lambda,
    name_of,
    quotient_of,
)
from pik.engine.vocabulary import COLUMNS
from pik.errors import Invalid
from pik.model.metric import Definition

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


INTEGERS = frozenset("TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT".split())
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_OTHERS = frozenset(
    "NULL BOOLEAN VARCHAR JSON DATE TIME INTERVAL TIMESTAMP TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS".split()
) | {"TIMESTAMP WITH TIME ZONE"}
_TEXTS = ("VARCHAR", "JSON")
_MIXING = frozenset("+ - * / // % & | << >> greatest least if ifnull nullif mod abs round trunc".split())
"""Functions whose arguments DuckDB casts to one type."""
_INSTEAD = {
    "floor": "an integer needs none; floor(x::DECIMAL(38, 0)) stays exact",
    "ceil": "an integer needs none; ceil(x::DECIMAL(38, 0)) stays exact",
    "//": "cast both sides to integers, such as sum(x::BIGINT) // 2",
    "%": "cast both sides to DECIMALs that need at most 38 digits together",
    "mod": "cast both sides to DECIMALs that need at most 38 digits together",
    "date_part": "epoch_us(x)",
}
LONGEST_SCALE = 30
"""Digits after the point of a quotient and of its sides."""
QUOTIENT = "a quotient is written (x / y)::DECIMAL(p, s), with / outermost under one cast; it is rounded once"


def scale_of(sql_type: str) -> int | None:
    """The digits after the point of an exact number's type, None for any other type."""
    if sql_type in INTEGERS:
        return 0
    decimal = _DECIMAL.fullmatch(sql_type)
    return int(decimal[2]) if decimal else None


def is_exact(sql_type: str) -> bool:
    """Whether it is an integer or a DECIMAL."""
    return scale_of(sql_type) is not None


def check_exact(reader: Reader, tree: Node) -> None:
    """Refuse the tree where anything in it loses digits. Raises Invalid, with the exact alternative."""
    quotient = quotient_of(tree)
    divided = {id(tree["child"])} if quotient else set()
    _check_division(reader, tree, divided)
    single: list[tuple[Node, Node]] = []
    grouped: list[tuple[Node, Node]] = []
    for node, typed, in_aggregate in _expressions(tree, reader.field == "where"):
        if id(node) not in divided:
            (single if in_aggregate else grouped).append((node, typed))
    types: dict[int, str] = {}
    for expressions in (single, grouped):
        found = reader.types([typed for _, typed in expressions])
        for (node, typed), sql_type in zip(expressions, found, strict=True):
            types[id(node)] = sql_type if typed is node else sql_type.removesuffix("[]")  # a lambda's, in a list
    for node, _ in single + grouped:
        _check_type(reader, node, types[id(node)])
    for node, _ in single + grouped:
        _check_mixing(reader, node, types)
        _check_cast(reader, node, types)
    for side in quotient or ():
        if not is_exact(types[id(side)]):
            _refuse(reader.field, f"{reader.shown(side)} is {types[id(side)]}, and / needs exact numbers", QUOTIENT)


def _check_division(reader: Reader, tree: Node, allowed: set[int]) -> None:
    for node in [tree, *_below(tree)]:
        if node.get("class") == "FUNCTION" and name_of(node) == "/" and id(node) not in allowed:
            alone = next(aggregates_of(node), None) is not None
            instead = f"{QUOTIENT}; here perhaps {reader.shown(node)}::DECIMAL(18, 6)" if alone else QUOTIENT
            _refuse(reader.field, f"{reader.shown(node)} divides in floating point", instead)


def _below(node: Node) -> Iterator[Node]:
    for child in children(node):
        yield child
        yield from _below(child)


def _expressions(tree: Node, in_aggregate: bool) -> Iterator[tuple[Node, Node, bool]]:
    """Each expression, something of its type that may stand alone, and whether it is of one event."""
    if _is_interval(tree):
        yield tree, tree, in_aggregate
        return
    yield tree, tree, in_aggregate
    in_aggregate = in_aggregate or is_aggregate(tree)
    for child in children(tree):
        if not is_lambda(child):
            yield from _expressions(child, in_aggregate)
            continue
        of_list = tree["arguments"][0]
        for node, _, _ in _expressions(child["expr"], in_aggregate):
            # What a lambda's body consists of has a type only where its parameters are bound.
            body = {"name": "", "expression": {**child, "expr": node}}
            yield node, {**tree, "function_name": "list_transform", "arguments": [of_list, body]}, in_aggregate


def _is_interval(node: Node) -> bool:
    """INTERVAL 1 DAY: DuckDB's parser makes to_days(CAST(trunc(CAST(1 AS DOUBLE)) AS INTEGER)) of it."""
    return (
        node.get("class") == "FUNCTION"
        and name_of(node).startswith("to_")
        and not columns_of(node)
        and next(aggregates_of(node), None) is None
    )


def _check_type(reader: Reader, node: Node, sql_type: str) -> None:
    plain = sql_type
    while plain.endswith("[]"):
        plain = plain[:-2]
    if plain in _OTHERS or (is_exact(plain) and plain != "UHUGEINT"):
        return
    kind, hint = node.get("class"), ""
    name = name_of(node) if kind == "FUNCTION" else ""
    if plain in ("FLOAT", "DOUBLE"):
        why = f"is {plain}, a floating-point number, which has not all digits"
        if kind == "CAST":
            hint = f"exact is CAST({reader.shown(node['child'])} AS DECIMAL(18, 6))"
        elif kind == "CONSTANT":
            hint = "write it out, with at most 38 digits"
        else:
            hint = _INSTEAD.get(name.replace("ceiling", "ceil").replace("datepart", "date_part"), "")
    else:
        why = f"is {sql_type}, a type that has no place in a metric"
    _refuse(reader.field, f"{reader.shown(node)} {why}", hint)


def _check_mixing(reader: Reader, node: Node, types: dict[int, str]) -> None:
    """Texts and numbers side by side: DuckDB casts the text to the number's type, which cuts its digits in silence."""
    kind = node.get("class")
    mixes = kind in ("COMPARISON", "BETWEEN", "CASE") or (kind == "FUNCTION" and name_of(node) in _MIXING)
    if not (mixes or (kind == "OPERATOR" and node["type"] in ("COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE"))):
        return
    found = [(child, types[id(child)]) for child in children(node) if id(child) in types]
    text = next((child for child, sql_type in found if sql_type in _TEXTS), None)
    number = next((sql_type for _, sql_type in found if is_exact(sql_type)), None)
    if text is not None and number is not None:
        _refuse(
            reader.field,
            f"{reader.shown(node)} takes a text for a number, which would be rounded to {number}",
            f"cast it to what it holds, such as CAST({reader.shown(text)} AS DECIMAL(18, 6))",
        )


def _check_cast(reader: Reader, node: Node, types: dict[int, str]) -> None:
    """JSON becomes a number by way of a double; its text does not."""
    if node.get("class") != "CAST" or id(node["child"]) not in types:
        return
    source, target = (types[id(one)].rstrip("[]") for one in (node["child"], node))
    if not is_exact(target) or source not in _TEXTS:
        return
    if source == "JSON":
        _refuse(
            reader.field,
            f"{reader.shown(node)} reads a JSON number through floating point",
            "read its text: payload->>'$.field' instead of payload->'$.field', VARCHAR[] instead of JSON[]",
        )
    if "extra" in columns_of(node["child"]):
        _refuse(
            reader.field,
            f"{reader.shown(node)} reads a number of extra, and those are not kept digit by digit",
            "numbers belong into the payload; in extra there are texts to compare or to count",
        )


def quotient_sql(x: str, x_type: str, y: str, y_type: str, target: str) -> str:
    """SQL of x / y in whole numbers, rounded once to the target's scale, half away from zero.

    Raises in DuckDB where y is zero, or where x or y has so many digits that 128 bits do not hold the calculation.
    """
    scale = scale_of(target) or 0
    shift = max(scale_of(x_type) or 0, scale_of(y_type) or 0)
    n, d = (f"abs({_whole(sql, sql_type, shift)})" for sql, sql_type in ((x, x_type), (y, y_type)))
    digits = 10**scale
    rounded = f"({n} // {d}) * {digits}::HUGEINT + (({n} % {d}) * {2 * digits}::HUGEINT + {d}) // ({d} * 2::HUGEINT)"
    sign = f"CASE WHEN (({x}) < 0) <> (({y}) < 0) THEN -1 ELSE 1 END"
    return f"CAST({scaled(f'({rounded}) * {sign}', scale)} AS {target})"


def _whole(sql: str, sql_type: str, shift: int) -> str:
    """SQL of the number times 10^shift, as a HUGEINT. By its text, since a product of DECIMALs has digits to spare for
    both scales."""
    scale = scale_of(sql_type) or 0
    whole = f"CAST(replace(CAST({sql} AS VARCHAR), '.', '') AS HUGEINT)" if scale else f"CAST({sql} AS HUGEINT)"
    return f"({whole} * {10 ** (shift - scale)}::HUGEINT)" if shift > scale else whole


def scaled(sql: str, scale: int) -> str:
    """SQL of a whole number divided by 10^scale, as DECIMAL(38, scale)."""
    unit = f"0.{'0' * (scale - 1)}1"
    return f"CAST({sql} AS DECIMAL(38, 0))" + (f" * CAST('{unit}' AS DECIMAL({scale}, {scale}))" if scale else "")


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
