"""Finds where a definition takes texts for numbers or times: ranked as texts, 10 comes before 9, and DuckDB says
nothing.

What a field of the payload holds is not known, so it is refused where its text is ranked against a number, a time or
another field, or cast to a number once it is ranked. A cast says what is meant, and is never refused.
"""

from __future__ import annotations

import re

from pik.engine.sandbox import constant_text
from pik.engine.syntax import Node, Reader, children, is_lambda, name_of, nodes

BY_ORDER = frozenset("min max greatest least list_min list_max".split())
"""Functions whose result is the first or the last of what they take."""

_TEXTS = ("VARCHAR", "JSON")
_ORDERS = frozenset(f"COMPARE_{which}THAN{equal}" for which in ("LESS", "GREATER") for equal in ("", "OREQUALTO"))
_FIELDS = frozenset("->> json_extract_string json_extract_path_text json_value".split())
_AS_JSON = frozenset("json_extract json_extract_path".split())
_CHOICES = frozenset("if ifnull nullif trim ltrim rtrim".split())
"""Functions whose result is the text of one of their arguments."""
_TEXT_FUNCTIONS = frozenset(
    "|| concat replace regexp_replace regexp_extract translate substr substring left right upper ucase lower lcase"
    " split_part lpad rpad reverse strip_accents".split()
)
"""Functions that make another text of a text."""
_CALCULATIONS = frozenset("+ - * / // %".split())
_FIGURES = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*")
_TIME = re.compile(r"\s*\d{4}-\d\d?-\d\d?(?:[Tt]|\s+)\d.*", re.DOTALL)
"""A time: texts of dates alone rank as they should."""

_WHY = "compares texts, and as a text '10' is less than '9'"


def check_text_order(reader: Reader, tree: Node) -> None:
    """Raise Invalid where a field of the payload is ranked as a text, but is compared with a number, a time or another
    field, or where an operator binds its path before the arrow does."""
    for node in nodes(tree):
        _check_arrow(reader, node)
        if node.get("class") == "FUNCTION" and name_of(node) in _CALCULATIONS:
            _check_calculation(reader, node)
        if node.get("class") != "BETWEEN" and node.get("type") not in _ORDERS:
            continue
        sides = list(children(node))
        texts = [side for side in sides if _is_text(side)]
        if not texts:
            continue
        as_number, fields = as_numbers(reader, texts[0]), [side for side in texts if is_field(side)]
        literal = next((side for side in sides if _FIGURES.fullmatch(constant_text(side) or "")), None)
        if literal is not None:
            without = f"{(constant_text(literal) or '').strip()} without quotes"
            reader.refuse(f"{reader.shown(node)} {_WHY}", f"compare numbers: {as_number}, and {without}")
        if any(_TIME.fullmatch(constant_text(side) or "") for side in sides):
            why = "compares texts, and as a text '2026-01-31 08:00' is less than '2026-01-31T07:00'"
            as_time = f"CAST({text_sql(reader, texts[0])} AS TIMESTAMPTZ)"
            reader.refuse(f"{reader.shown(node)} {why}", f"compare times: {as_time}, with the same text")
        if any(_is_number(side) for side in sides):
            reader.refuse(
                f"{reader.shown(node)} takes a text for a number", f"cast it to what it holds, such as {as_number}"
            )
        if len(fields) > 1:
            other = f"CAST({reader.shown(fields[0])} AS %s)"
            others = f"{other % 'TIMESTAMPTZ'} for times, {other % 'VARCHAR'} for texts"
            reader.refuse(f"{reader.shown(node)} {_WHY}", f"cast both sides: {as_number} for numbers, {others}")


def check_cast_of_texts(reader: Reader, child: Node, types: dict[int, str], target: str) -> None:
    """Raise Invalid where what is cast to a number is the first or the last of texts."""
    if ordered := _text_by_order(child, types):
        reader.refuse(
            f"{reader.shown(ordered)} {_WHY}",
            f"compare numbers: {as_numbers(reader, ordered, target.replace(',', ', '))}",
        )


def as_numbers(reader: Reader, node: Node, sql_type: str = "DECIMAL(18, 6)") -> str:
    """Return the SQL of what the node's text is as a number: a call that ranks texts ranks the numbers in them."""
    if node.get("class") == "FUNCTION" and name_of(node) in BY_ORDER:
        arguments = [as_numbers(reader, each["expression"], sql_type) for each in node["arguments"]]
        return f"{name_of(node)}({', '.join(arguments)})"
    return f"CAST({text_sql(reader, node)} AS {sql_type})"


def text_sql(reader: Reader, node: Node) -> str:
    """Return the SQL of a node for people; of a JSON value that of its text, since its cast goes through a double."""
    if node.get("class") == "LAMBDA":
        return f"{reader.shown(node['lhs'])} ->> {reader.shown(node['expr'])}"
    if node.get("class") == "FUNCTION" and name_of(node) == "json_extract":
        return reader.shown(node).replace("json_extract(", "json_extract_string(", 1)
    return reader.shown(node)


def is_field(node: Node) -> bool:
    """Return whether the node is the text or the JSON of one field of the payload, or one of several such texts."""
    if node.get("class") == "LAMBDA":
        return not is_lambda(node) and _is_one(node["expr"])
    if node.get("class") == "FUNCTION":
        arguments = [argument["expression"] for argument in node["arguments"]]
        if name_of(node) in _FIELDS | _AS_JSON:
            return all(map(_is_one, arguments[1:]))
        return name_of(node) in _CHOICES and any(map(is_field, arguments))
    return (node.get("class") == "CASE" or node.get("type") == "OPERATOR_COALESCE") and any(
        map(is_field, children(node))
    )


def _is_text(node: Node) -> bool:
    """Return whether the node is a field's text, or made of one."""
    if node.get("class") == "FUNCTION" and name_of(node) in _TEXT_FUNCTIONS | _CHOICES:
        return any(_is_text(argument["expression"]) for argument in node["arguments"])
    return is_field(node)


def _is_one(path: Node) -> bool:
    """Return whether a path leads to one value, not to a list of them."""
    text = constant_text(path)
    return "*" not in text if text is not None else path.get("class") == "CONSTANT"


def _is_number(node: Node) -> bool:
    return node.get("class") == "CONSTANT" and (node.get("literal") or {}).get("kind") in ("INTEGER", "NUMERIC")


def _check_calculation(reader: Reader, node: Node) -> None:
    """Refuse a field of the payload in a calculation."""
    for side in children(node):
        if is_field(side):
            reader.refuse(
                f"{reader.shown(node)} takes a text for a number",
                f"cast it to what it holds, such as {as_numbers(reader, side)}",
            )


def _check_arrow(reader: Reader, node: Node) -> None:
    """Refuse payload->>'$.a' + 1, in which the + takes the path, and not the field that it leads to."""
    if node.get("class") == "LAMBDA" and not is_lambda(node):
        arrow, taken = "->", node["expr"]
    elif node.get("class") == "FUNCTION" and name_of(node) == "->>":
        arrow, taken = "->>", node["arguments"][1]["expression"]
    else:
        return
    calculates = taken.get("class") == "FUNCTION" and name_of(taken) in _CALCULATIONS
    if not calculates and taken.get("class") not in ("COMPARISON", "BETWEEN", "CONJUNCTION"):
        return
    path = next(iter(children(taken)))
    field = f"payload{arrow}{reader.shown(path)}"
    reader.refuse(f"{arrow} binds after the operator to the right of it", f"put the field in parentheses: ({field})")


def _text_by_order(node: Node, types: dict[int, str]) -> Node | None:
    """Return what takes the first or the last of texts, where that is what the node passes on."""
    name = name_of(node) if node.get("class") == "FUNCTION" else ""
    if name in BY_ORDER and types.get(id(node)) in _TEXTS:
        return node
    if name in _CHOICES or node.get("class") == "CASE" or node.get("type") == "OPERATOR_COALESCE":
        return next((found for child in children(node) if (found := _text_by_order(child, types))), None)
    return None
