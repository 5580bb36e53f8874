"""How the values of a definition for parts make that for the whole: by the expression, as it is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pik.engine.check import check_definition, scale_of
from pik.engine.syntax import Node, Reader, is_aggregate, name_of
from pik.errors import Invalid
from pik.model.metric import Combination, Definition

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_COUNTS = frozenset("count count_star count_if countif".split())
_ADDED = _COUNTS | {"sum"}


def combination_of(db: DuckDBPyConnection, definition: Definition) -> Combination:
    """Return how the definition's values combine. Raises Invalid with the reason where they do not."""
    check_definition(db, definition)
    reader = Reader(db, "value")
    return _combination(reader, reader.value(definition.value, "_").tree)


def is_count(db: DuckDBPyConnection, definition: Definition) -> bool:
    """Return whether the definition is a count. Raises Invalid for one that is refused."""
    check_definition(db, definition)
    tree = Reader(db, "value").value(definition.value, "_").tree
    return is_aggregate(tree) and name_of(tree) in _COUNTS


def _combination(reader: Reader, tree: Node) -> Combination:
    if is_aggregate(tree):
        return _of_aggregate(reader, tree)
    kind = tree.get("class")
    if kind == "CAST":
        found = _combination(reader, tree["child"])
        if found == Combination.SUM and _loses_digits(reader, tree):
            _refuse(f"{reader.shown(tree)} rounds each value, so that their sum is not the rounded sum")
        return found
    if kind == "OPERATOR" and tree["type"] == "OPERATOR_COALESCE":
        first, *rest = tree["children"]
        if len(rest) == 1 and reader.shown(rest[0]) in ("0", "0.0", "0.00") and _added(reader, first):
            return Combination.SUM
    if kind == "FUNCTION" and name_of(tree) in ("+", "-"):
        sides = [argument["expression"] for argument in tree["arguments"]]
        for side in sides:
            if not _added(reader, side):
                _refuse(f"{reader.shown(side)} is neither a sum nor a count")
        return Combination.SUM
    if kind == "CONSTANT":
        raise Invalid(f"{reader.shown(tree)} would be added once for each value", field="value")
    raise Invalid(f"{reader.shown(tree)} of the whole does not follow from those of its parts", field="value")


def _added(reader: Reader, tree: Node) -> bool:
    return _combination(reader, tree) == Combination.SUM


def _of_aggregate(reader: Reader, tree: Node) -> Combination:
    name = name_of(tree)
    if name in ("min", "max"):
        return Combination(name)
    if tree["distinct"]:
        _refuse(f"{reader.shown(tree)} may count one value in several entities or buckets")
    if name not in _ADDED:
        _refuse(f"{reader.shown(tree)} is neither a sum nor a count, min or max")
    return Combination.SUM


def _loses_digits(reader: Reader, cast: Node) -> bool:
    """Return whether a cast of an aggregate's result has fewer digits after the point."""
    inner, outer = (scale_of(each) for each in reader.types([reader.sql(cast["child"]), reader.sql(cast)]))
    return inner is None or outer is None or outer < inner


def _refuse(reason: str) -> NoReturn:
    raise Invalid(reason, field="value")
