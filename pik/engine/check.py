"""Checks definitions: what they read, what they call, and that their results are exact whatever the order.

DuckDB rounds half away from zero where a cast or `round` narrows a DECIMAL, and raises where digits do not fit; both
are exact in that the same number always becomes the same one. What would lose digits in silence is refused: floating
point, implicit casts, quotients other than one at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pik.engine.sandbox import AS_SENT, COLUMN_TYPES, path_hint, type_hint
from pik.engine.spelling import reads_spelling
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
    nodes,
    quotient_of,
)
from pik.engine.text_order import BY_ORDER, as_numbers, check_cast_of_texts, check_text_order
from pik.errors import Invalid
from pik.model.aggregate import DELIVERY_FACTS
from pik.model.metric import Definition

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

INTEGERS = frozenset("TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT".split())
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_TIMES = frozenset("DATE TIME TIMESTAMP TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS".split()) | {"TIMESTAMP WITH TIME ZONE"}
_FLOATS = ("FLOAT", "DOUBLE")
_TEXTS = ("VARCHAR", "JSON")
_ORDERED = _TIMES | {"BOOLEAN", *_TEXTS, *_FLOATS}
_NOT_NUMBERS = _TIMES | {"NULL", "BOOLEAN", "INTERVAL", *_TEXTS}
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
_MAX_SCALE = 30
"""Digits after the point of a quotient and of its sides, at most, so that 128 bits have room for the calculation."""
_QUOTIENT = "a quotient is written (x / y)::DECIMAL(p, s), with / outermost under one cast; it is rounded once"


@dataclass(frozen=True, slots=True)
class CheckedDefinition:
    """A definition that may be computed. `where` is SQL, None for every event; `value` is SQL over the results of
    `aggregates`, by their names; `columns` are all that they read; `scale` is how many digits its values have after the
    point. `denominator` is SQL: where it is 0, it is why a value fails."""

    where: str | None
    value: str
    aggregates: Mapping[str, Aggregate]
    columns: frozenset[str]
    scale: int
    denominator: str | None

    reads_spelling: bool
    """Whether the value may depend on how a number of a payload is written: 1 or 1.0 are one content."""

    @property
    def reads_delivery(self) -> bool:
        """Whether the value may depend on which delivery of an event counts, though they have the same content."""
        return not DELIVERY_FACTS.isdisjoint(self.columns)


_CACHED = 1000
_cache: dict[tuple[Definition, str], CheckedDefinition] = {}
"""What was checked in this process: a check takes tens of milliseconds, and a replay has one task after the other."""


def check_definition(db: DuckDBPyConnection, definition: Definition, prefix: str = "_") -> CheckedDefinition:
    """Return the definition, ready to be computed; the results of its aggregates are called PREFIX0, PREFIX1, …

    Raises Invalid with the reason, and where there is one the exact alternative.
    """
    key = definition, prefix
    if key not in _cache:
        if len(_cache) >= _CACHED:
            _cache.clear()
        _cache[key] = _uncached(db, definition, prefix)
    return _cache[key]


def _uncached(db: DuckDBPyConnection, definition: Definition, prefix: str) -> CheckedDefinition:
    columns = ", ".join(f"{name} {sql_type}" for name, sql_type in {**COLUMN_TYPES, AS_SENT: "JSON"}.items())
    db.execute(f"CREATE TEMP TABLE IF NOT EXISTS event ({columns})")
    try:
        where = None if definition.where is None else _checked_where(Reader(db, "where"), definition.where)
        reader = Reader(db, "value")
        value = reader.value(definition.value, prefix)
        check_text_order(reader, value.tree)
        aggregates = {name: _checked_aggregate(reader, aggregate) for name, aggregate in value.aggregates.items()}
        _check_exact(reader, value.tree)
        sql, scale = _checked_result(reader, definition.value, value)
        results = reader.types([aggregate.over(None) for aggregate in aggregates.values()])
    except RecursionError:
        raise Invalid(f"metric {definition.name}: it is nested too deeply", field="value") from None
    except Invalid as error:
        message = f"metric {definition.name}, {error.field}: {error.message}"
        text = definition.where if error.field == "where" else definition.value
        raise Invalid(
            message, field=error.field, hint=error.hint or path_hint(text or "") or type_hint(text or "")
        ) from None
    read = value.columns | (where.columns if where else frozenset())
    aggregates = {
        name: replace(one, result=result) for (name, one), result in zip(aggregates.items(), results, strict=True)
    }
    denominator = value.quotient[1] if value.quotient else None
    spelling = any(reads_spelling(one.tree) for one in (value, where) if one is not None)
    return CheckedDefinition(where.sql if where else None, sql, aggregates, read, scale, denominator, spelling)


def _checked_where(reader: Reader, text: str) -> Expression:
    where = reader.where(text)
    check_text_order(reader, where.tree)
    [sql_type] = reader.types_when_run([where.sql])
    if sql_type != "BOOLEAN":
        reader.refuse(f"it is {sql_type}, not BOOLEAN", "where is a condition such as event_type = 'purchase'")
    _check_exact(reader, where.tree)
    return where


def _checked_aggregate(reader: Reader, aggregate: Aggregate) -> Aggregate:
    """Return the aggregate with the type of its argument. Raises Invalid where its result depends on the order."""
    if aggregate.condition and (condition := reader.types_when_run([aggregate.condition])[0]) != "BOOLEAN":
        reader.refuse(f"the FILTER of {aggregate.function} is {condition}, not BOOLEAN")
    if aggregate.argument is None:
        return aggregate
    [sql_type] = reader.types_when_run([aggregate.argument])
    name, exact = aggregate.function, scale_of(sql_type) is not None
    if name == "sum" and (not (exact or sql_type == "BOOLEAN") or sql_type == "UHUGEINT"):
        floating = sql_type in _FLOATS
        why = "adds in floating point, so the order of events would change it" if floating else "cannot add it"
        hint = f"exact is sum({_exact(reader, aggregate.argument)})" if floating or sql_type in _TEXTS else ""
        reader.refuse(f"the argument of sum is {sql_type}; sum {why}", hint)
    if name in ("min", "max") and not (exact or sql_type in _ORDERED):
        hint = "a difference in microseconds is epoch_us(received_time) - epoch_us(event_time)"
        why = f"the argument of {name} is {sql_type}, and unequal ones of those may rank the same"
        reader.refuse(why, hint if sql_type == "INTERVAL" else "")
    if name.startswith("bit_") and sql_type not in INTEGERS:
        reader.refuse(f"the argument of {name} is {sql_type}, not an integer")
    return replace(aggregate, type=sql_type)


def _exact(reader: Reader, argument: str) -> str:
    """Return the argument as a DECIMAL: by its own casts where they make it a float, for there digits are lost."""
    for wide in _FLOATS:
        argument = argument.replace(f" AS {wide})", " AS DECIMAL(18, 6))")
    exact = scale_of(reader.types_when_run([argument])[0]) is not None
    return argument if exact else f"CAST({argument} AS DECIMAL(18, 6))"


def _checked_result(reader: Reader, text: str, value: Expression) -> tuple[str, int]:
    """Return the SQL of the value, a quotient written out in whole numbers, and the scale of its result."""
    results = ", ".join(f"{aggregate.over(None)} AS {name}" for name, aggregate in value.aggregates.items())
    source = f"(SELECT {results} FROM event)"
    sql = value.sql
    [sql_type] = reader.types_when_run([sql], source)
    if value.quotient is not None:
        x, y = value.quotient
        x_type, y_type = reader.types_when_run([x, y], source)
        for each in (x_type, y_type, sql_type):
            if (scale_of(each) or 0) > _MAX_SCALE:
                why = f"a quotient and its sides have at most {_MAX_SCALE} digits after the point, not {each}"
                reader.refuse(why, f"cast it to at most DECIMAL(38, {_MAX_SCALE})")
        sql = _quotient_sql(x, x_type, y, y_type, sql_type)
        [sql_type] = reader.types_when_run([sql], source)
    scale = scale_of(sql_type)
    if scale is None:
        tree = value.tree
        extreme = tree.get("class") == "FUNCTION" and name_of(tree) in BY_ORDER
        as_number = as_numbers(reader, tree) if extreme else f"({text})::DECIMAL(18, 6)"
        hints = {
            "BOOLEAN": f"as a number it is ({text})::INTEGER",
            "VARCHAR": f"as a number it is {as_number}",
            "TIMESTAMP": f"as a number it is epoch_us({text})",
        } | dict.fromkeys(_FLOATS, f"rounded the same way everywhere it is ({text})::DECIMAL(18, 6)")
        reader.refuse(f"its result is {sql_type}, neither an integer nor a DECIMAL", hints.get(sql_type, ""))
    return sql, scale


def scale_of(sql_type: str) -> int | None:
    """Return the digits after the point of an exact number's type, an integer's or a DECIMAL's; None for any other."""
    if sql_type in INTEGERS:
        return 0
    decimal = _DECIMAL.fullmatch(sql_type)
    return int(decimal[2]) if decimal else None


def _check_exact(reader: Reader, tree: Node) -> None:
    """Raise Invalid, with the exact alternative, where anything in the tree loses digits."""
    quotient = quotient_of(tree)
    divided = {id(tree["child"])} if quotient else set()
    for node in nodes(tree):
        if node.get("class") == "FUNCTION" and name_of(node) == "/" and id(node) not in divided:
            over_aggregates = any(aggregates_of(node))
            hint = f"{_QUOTIENT}; here perhaps {reader.shown(node)}::DECIMAL(18, 6)" if over_aggregates else _QUOTIENT
            reader.refuse(f"{reader.shown(node)} divides in floating point", hint)
    single: list[tuple[Node, Node]] = []
    grouped: list[tuple[Node, Node]] = []
    for node, typed, of_event in _expressions(tree, reader.field == "where"):
        if id(node) not in divided:
            (single if of_event else grouped).append((node, typed))
    types: dict[int, str] = {}
    for expressions in (single, grouped):
        sql_types = reader.types([reader.sql(*[typed for _, typed in expressions])]) if expressions else []
        for (node, typed), sql_type in zip(expressions, sql_types, strict=True):
            types[id(node)] = sql_type if typed is node else sql_type.removesuffix("[]")  # a lambda's, in a list
    for node, _ in single + grouped:
        _check_type(reader, node, types[id(node)])
    for node, _ in single + grouped:
        _check_mixing(reader, node, types)
        _check_cast(reader, node, types)
    for side in quotient or ():
        if scale_of(types[id(side)]) is None:
            problem = f"{reader.shown(side)} is {types[id(side)]}, and / needs exact numbers"
            reader.refuse(problem, _QUOTIENT)


def _expressions(tree: Node, of_event: bool) -> Iterator[tuple[Node, Node, bool]]:
    """Yield each expression, something of its type that can be evaluated alone, and whether it is of one event."""
    yield tree, tree, of_event
    if _is_interval(tree):
        return
    of_event = of_event or is_aggregate(tree)
    for child in children(tree):
        if not is_lambda(child):
            yield from _expressions(child, of_event)
            continue
        of_list = tree["arguments"][0]
        for node, _, _ in _expressions(child["expr"], of_event):
            # The parts of a lambda's body have a type only where its parameters are bound.
            body = {"name": "", "expression": {**child, "expr": node}}
            yield node, {**tree, "function_name": "list_transform", "arguments": [of_list, body]}, of_event


def _is_interval(node: Node) -> bool:
    """Return whether it is INTERVAL 1 DAY, of which DuckDB's parser makes to_days(CAST(trunc(CAST(1 AS DOUBLE)) AS
    …))."""
    return (
        node.get("class") == "FUNCTION"
        and name_of(node).startswith("to_")
        and not columns_of(node)
        and not any(aggregates_of(node))
    )


def _check_type(reader: Reader, node: Node, sql_type: str) -> None:
    element = sql_type
    while element.endswith("[]"):
        element = element[:-2]
    if element in _NOT_NUMBERS or (scale_of(element) is not None and element != "UHUGEINT"):
        return
    kind, hint, why = node.get("class"), "", f"is {sql_type}, a type that a metric cannot use"
    if element in _FLOATS:
        why = f"is {element}, a floating-point number, which loses digits"
        if kind == "CAST":
            hint = f"exact is CAST({reader.shown(node['child'])} AS DECIMAL(18, 6))"
        elif kind == "CONSTANT":
            hint = "write it out, with at most 38 digits"
        elif kind == "FUNCTION":
            hint = _INSTEAD.get(name_of(node).replace("ceiling", "ceil").replace("datepart", "date_part"), "")
    reader.refuse(f"{reader.shown(node)} {why}", hint)


def _check_mixing(reader: Reader, node: Node, types: dict[int, str]) -> None:
    """Refuse a text beside a number: DuckDB casts the text to the number's type, which cuts its digits in silence."""
    kind = node.get("class")
    mixes = kind in ("COMPARISON", "BETWEEN", "CASE") or (kind == "FUNCTION" and name_of(node) in _MIXING)
    if not (mixes or (kind == "OPERATOR" and node["type"] in ("COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE"))):
        return
    typed = [(child, types[id(child)]) for child in children(node) if id(child) in types]
    text = next((child for child, sql_type in typed if sql_type in _TEXTS), None)
    number = next((sql_type for _, sql_type in typed if scale_of(sql_type) is not None), None)
    if text is not None and number is not None:
        reader.refuse(
            f"{reader.shown(node)} takes a text for a number, which would be rounded to {number}",
            f"cast it to what it holds, such as {as_numbers(reader, text)}",
        )


def _check_cast(reader: Reader, node: Node, types: dict[int, str]) -> None:
    """Refuse a cast to a number of JSON, which goes through a double (a cast of its text does not), and of the first or
    the last of texts, which is not that of the numbers in them."""
    if node.get("class") != "CAST" or id(node["child"]) not in types:
        return
    many, one = types[id(node["child"])], types[id(node)]
    if many.endswith("[]") and scale_of(one) is not None:
        each = f"list_sum(CAST({reader.shown(node['child'])} AS {one}[]))"
        reader.refuse(f"{reader.shown(node)} takes a list for a number", f"the sum of its elements is {each}")
    source, target = many.rstrip("[]"), one.rstrip("[]")
    if scale_of(target) is None or source not in _TEXTS:
        return
    check_cast_of_texts(reader, node["child"], types, target)
    if source == "JSON":
        reader.refuse(
            f"{reader.shown(node)} reads a JSON number through floating point",
            "read its text: payload->>'$.field' instead of payload->'$.field', VARCHAR[] instead of JSON[]",
        )
    if "extra" in columns_of(node["child"]):
        reader.refuse(
            f"{reader.shown(node)} reads a number of extra, which are not kept digit by digit",
            "numbers belong in the payload; extra has texts to compare or to count",
        )


def _quotient_sql(x: str, x_type: str, y: str, y_type: str, target: str) -> str:
    """Return the SQL of x / y in whole numbers, rounded once to the target's scale, half away from zero.

    It raises in DuckDB where y is zero, or where x or y has so many digits that 128 bits do not hold the calculation.
    """
    scale = scale_of(target) or 0
    shift = max(scale_of(x_type) or 0, scale_of(y_type) or 0)
    n, d = (f"abs({_whole(sql, sql_type, shift)})" for sql, sql_type in ((x, x_type), (y, y_type)))
    digits = 10**scale
    rounded = f"({n} // {d}) * {digits}::HUGEINT + (({n} % {d}) * {2 * digits}::HUGEINT + {d}) // ({d} * 2::HUGEINT)"
    sign = f"CASE WHEN (({x}) < 0) <> (({y}) < 0) THEN -1 ELSE 1 END"
    return f"CAST({scaled(f'({rounded}) * {sign}', scale)} AS {target})"


def _whole(sql: str, sql_type: str, shift: int) -> str:
    """Return the SQL of the number times 10^shift, as a HUGEINT. It uses the number's text, since a product of DECIMALs
    has digits to spare for both scales."""
    scale = scale_of(sql_type) or 0
    whole = f"CAST(replace(CAST({sql} AS VARCHAR), '.', '') AS HUGEINT)" if scale else f"CAST({sql} AS HUGEINT)"
    return f"({whole} * {10 ** (shift - scale)}::HUGEINT)" if shift > scale else whole


def scaled(sql: str, scale: int) -> str:
    """Return the SQL of a whole number divided by 10^scale, as DECIMAL(38, scale)."""
    unit = f"0.{'0' * (scale - 1)}1"
    return f"CAST({sql} AS DECIMAL(38, 0))" + (f" * CAST('{unit}' AS DECIMAL({scale}, {scale}))" if scale else "")
