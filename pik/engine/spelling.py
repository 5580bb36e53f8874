"""Whether a definition's value may depend on how the numbers of a payload are written: 1 and 1.0 are one content."""

from __future__ import annotations

from typing import Any

from pik.engine.syntax import Node, name_of


def reads_spelling(tree: Any) -> bool:
    """Return whether a tree reads a payload otherwise than to cast a place of it to a number, or to compare it with a
    text that is not one: then its result may depend on how a number is written there."""
    if not isinstance(tree, dict):
        return isinstance(tree, list) and any(map(reads_spelling, tree))
    if tree.get("class") == "COLUMN_REF":
        return str(tree["column_names"][0]).lower() == "payload"
    if tree.get("class") == "CAST" and _is_place(tree["child"]):
        return str(tree["type_expr"].get("type_name")).upper() not in _NUMBERS
    if tree.get("class") == "COMPARISON" and tree["type"] in ("COMPARE_EQUAL", "COMPARE_NOTEQUAL"):
        sides = tree["left"], tree["right"]
        if any(map(_is_place, sides)) and any(map(_is_word, sides)):
            return False
    return any(map(reads_spelling, tree.values()))


_NUMBERS = frozenset("DECIMAL NUMERIC BIGINT HUGEINT INTEGER INT SMALLINT TINYINT".split())


def _is_place(node: Node) -> bool:
    """Return whether a node is the text at a constant path of the payload."""
    if node.get("class") != "FUNCTION" or name_of(node) not in ("->>", "json_extract_string"):
        return False
    column, path = (one.get("expression", one) for one in node["arguments"])
    return bool(column.get("column_names") == ["payload"] and path.get("class") == "CONSTANT")


def _is_word(node: Node) -> bool:
    """Return whether a node is a constant text in which there is no number of JSON."""
    literal = node.get("literal") if node.get("class") == "CONSTANT" else None
    text = str(literal["text"]) if literal and literal.get("kind") == "STRING" else "0"
    return not text.startswith(("-", "{", "[", *"0123456789"))
