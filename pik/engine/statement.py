"""Checks a statement before anything is loaded for it: one SELECT over known tables, which reads nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pik.engine.sandbox import first_line, path_hint, session
from pik.engine.syntax import nodes
from pik.errors import Invalid

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ROWS_OF = frozenset("unnest range generate_series json_each json_tree".split())
"""Functions that return rows and read nothing but their arguments."""

_SETTINGS = frozenset("current_setting getenv getvariable".split())

_ONLY_SELECT = "it is not one SELECT (or WITH … SELECT)"


def columns_read(text: str, tables: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return the columns that a statement may read, by table, of those `tables` that it names. Raises Invalid.

    Columns are found by their names, whatever table they are taken from; a statement with `*`, or with a row as a
    value, reads all.
    """
    with session() as db:
        for name, columns in tables.items():
            typed = ", ".join(f"{column} {sql_type}" for column, sql_type in columns.items())
            db.execute(f"CREATE TEMP TABLE {name} ({typed})")
        tree = _parsed(db, text)
        found = list(nodes(tree))
        used = _tables(found, tables)
        _expect_types(db, text)
    named = {name.lower() for node in found for name in _names(node)}
    aliases = {str(node["alias"]).lower() for node in found if node.get("type") == "BASE_TABLE"} | set(used)
    if any(_reads_all(node, aliases) for node in found):
        return {name: list(tables[name]) for name in used}
    return {name: [column for column in tables[name] if column in named] for name in used}


def _parsed(db: DuckDBPyConnection, text: str) -> Any:
    """Return the syntax tree of the statement."""
    import duckdb

    try:
        row = db.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [text]).fetchone()
        assert row is not None
        answer = json.loads(row[0])
    except (duckdb.Error, RecursionError) as error:
        raise Invalid(first_line(error)) from None
    if answer["error"]:
        if answer["error_type"] == "not implemented":
            raise Invalid(_ONLY_SELECT)
        raise Invalid(str(answer["error_message"]).split("\n", 1)[0])
    if len(answer["statements"]) != 1:
        raise Invalid(_ONLY_SELECT)
    return answer["statements"][0]["node"]


def _tables(found: Sequence[dict[str, Any]], tables: Mapping[str, Any]) -> list[str]:
    """Return which of the tables are named. Raises Invalid where anything else is read."""
    common = {entry["key"].lower() for node in found if "cte_map" in node for entry in node["cte_map"]["map"]}
    used: dict[str, None] = {}
    for node in found:
        kind = node.get("type")
        if kind == "BASE_TABLE":
            path = node["qualified_name"]["path"]
            name = ".".join(path).lower()
            if name in tables and name not in common:
                used[name] = None
            elif name not in common:
                raise Invalid(f"unknown table {'.'.join(path)!r}")
        elif kind == "SHOW_REF":
            raise Invalid(_ONLY_SELECT)
        elif kind == "TABLE_FUNCTION" and (name := _function(node["function"])) not in _ROWS_OF:
            raise Invalid(f"{name} is not available; rows come from tables, {', '.join(sorted(_ROWS_OF))}")
        elif node.get("class") == "FUNCTION" and (name := _function(node)) in _SETTINGS:
            raise Invalid(f"{name} is not available; a statement reads tables only")
    return list(used)


def _function(node: Mapping[str, Any]) -> str:
    return str(node["function_name"]).lower()


def _names(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names in a node that may be those of columns."""
    if node.get("class") == "COLUMN_REF":
        yield from node["column_names"]
    yield from node.get("using_columns") or ()


def _reads_all(node: Mapping[str, Any], rows: set[str]) -> bool:
    """Return whether a node stands for all columns: `*`, a row as a value, or a join by the names that tables share."""
    if node.get("class") == "COLUMN_REF":
        return str(node["column_names"][-1]).lower() in rows
    return "STAR" in (node.get("class"), node.get("type")) or (
        node.get("type") == "PIVOT" or node.get("ref_type") == "NATURAL"
    )


def _expect_types(db: DuckDBPyConnection, text: str) -> None:
    """Raise Invalid for a statement that names what is not there, or gives a function what it does not take."""
    import duckdb

    try:
        db.execute(f"DESCRIBE {text}")
    except duckdb.Error as error:
        raise Invalid(first_line(error), hint=path_hint(text)) from None
