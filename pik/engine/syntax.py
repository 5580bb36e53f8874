"""Reads the SQL of definitions with DuckDB's own parser, so that what is checked is what is run.

DuckDB serializes its syntax tree as JSON. A tree is refused unless every node is known to be harmless, and split:
aggregates are computed while raw is read, and the rest is an expression over their results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

from pik.engine.sandbox import (
    AGGREGATES,
    AS_SENT,
    COLUMN_TYPES,
    JOINS,
    LONGEST,
    MOST_JOINED,
    deep_path,
    first_line,
    refusal,
    unbounded,
)
from pik.errors import Invalid

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Node = dict[str, Any]

_EXPRESSIONS = frozenset("CONSTANT CAST TYPE CASE COMPARISON CONJUNCTION OPERATOR BETWEEN LAMBDA".split())
_REFUSED = {
    "SUBQUERY": "a subquery would read other events than the bucket's",
    "WINDOW": "a window function depends on the order of events",
    "PARAMETER": "there are no parameters to fill in",
    "POSITIONAL_REFERENCE": "columns are named, not numbered",
    "STAR": "columns are named; * is allowed only in count(*)",
    "COLLATE": "under a collation unequal texts are equal, and which one counts would depend on their order",
}
_NARROW = 18  # digits of a DECIMAL that DuckDB holds in 64 bits; 2^63 of those fit into the sum's 128
_SEVERAL = "it is more than one SQL expression"
_OF_LAMBDAS = ("list_transform", "list_filter")
_CLOCK = frozenset(
    "current_date current_time current_timestamp localtime localtimestamp current_user session_user user".split()
)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate of a definition: SQL of its only argument (None: count(*)) and of its FILTER, if any. Once it is
    checked, `type` is the argument's SQL type and `result` its own."""

    function: str
    distinct: bool
    argument: str | None
    condition: str | None
    type: str = ""
    result: str = ""

    @property
    def operand(self) -> str:
        """SQL of what is aggregated, NULL where the FILTER excludes a row. A FILTER clause would evaluate the argument
        of excluded rows as well, where a cast may fail."""
        argument = "1" if self.argument is None else self.argument
        return f"CASE WHEN {self.condition} THEN {argument} END" if self.condition is not None else argument

    @property
    def is_wide(self) -> bool:
        """Whether it is a sum that may overflow."""
        decimal = self.type.startswith("DECIMAL(") and int(self.type[8:].split(",")[0]) > _NARROW
        return self.function == "sum" and (decimal or self.type == "HUGEINT")

    def of(self, operand: str) -> str:
        """Return the SQL of the aggregate over that operand."""
        function = "count" if self.argument is None else self.function
        return f"{function}({'DISTINCT ' if self.distinct else ''}{operand})"

    def over(self, rows: str | None) -> str:
        """Return the SQL of the aggregate over the rows where `rows` holds (None: all); others are not evaluated."""
        return self.of(self.operand if rows is None else f"CASE WHEN {rows} THEN {self.operand} END")


@dataclass(frozen=True, slots=True)
class Expression:
    """A harmless expression. `sql` calls the results of `aggregates` by their names; it reads `columns`. `quotient` has
    the two sides of one."""

    sql: str
    aggregates: dict[str, Aggregate]
    columns: frozenset[str]
    tree: Node
    quotient: tuple[str, str] | None = None


class Reader:
    """Reads one expression of a definition's `field`, value or where. Raises Invalid for one that is refused."""

    def __init__(self, db: DuckDBPyConnection, field: str) -> None:
        self.db = db
        self.field = field
        self.columns: set[str] = set()
        self._joined = 0
        self._select_one: Node = self._serialized("SELECT 1")["statements"][0]["node"]

    def where(self, text: str) -> Expression:
        """Return an expression without aggregates."""
        tree = self._parse(text)
        self._check(tree, frozenset())
        for found in aggregates_of(tree):
            self.refuse(f"{_shown(found)} is an aggregate; where is evaluated for one event at a time")
        return Expression(self.sql(tree), {}, frozenset(self.columns), tree)

    def value(self, text: str, prefix: str) -> Expression:
        """Return an expression of aggregates, constants and functions of them; its aggregates are called PREFIX0,
        PREFIX1, …"""
        tree = self._parse(text)
        self._check(tree, frozenset())
        aggregates: dict[str, Aggregate] = {}
        whole, tree = tree, self._split(tree, prefix, aggregates)
        if not aggregates:
            self.refuse("it has no aggregate", hint="value is one aggregate expression such as count(*)")
        for name in columns_of(tree):
            if name in COLUMN_TYPES:
                self.refuse(
                    f"the column {name} is used outside an aggregate, and a bucket has many events",
                    hint=f"use it inside one, such as max({name})",
                )
        sides = quotient_of(tree)
        quotient = (self.sql(sides[0]), self.sql(sides[1])) if sides else None
        return Expression(self.sql(tree), aggregates, frozenset(self.columns), whole, quotient)

    def _parse(self, text: str) -> Node:
        if len(text) > LONGEST:
            self.refuse(f"it has {len(text):,} characters, more than {LONGEST:,}")
        # The line break ends a trailing comment. Whatever is more than one bare expression differs from `SELECT 1`
        # elsewhere, too: it has a FROM, an alias, another statement.
        answer = self._serialized("SELECT\n" + text + "\n")
        if answer["error"]:
            reason = str(answer["error_message"]).split("\n", 1)[0]
            only_select = answer["error_type"] == "not implemented"
            self.refuse(_SEVERAL if only_select else f"invalid SQL expression: {reason}")
        selects = [statement["node"] for statement in answer["statements"]]
        expressions = selects[0].get("select_list", [])
        alone = len(selects) == len(expressions) == 1 and not expressions[0].get("alias")
        if not alone or {**selects[0], "select_list": self._select_one["select_list"]} != self._select_one:
            self.refuse(_SEVERAL)
        tree: Node = expressions[0]
        return tree

    def _serialized(self, sql: str) -> Node:
        """Return the parser's answer, without the positions of nodes in the text."""
        import duckdb

        def unplaced(node: Node) -> Node:
            return {key: child for key, child in node.items() if not key.startswith("query_location")}

        try:
            row = self.db.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]).fetchone()
            assert row is not None
            answer: Node = json.loads(row[0], object_hook=unplaced)
        except (duckdb.Error, RecursionError) as error:
            self.refuse(f"invalid SQL expression: {first_line(error)}")
        return answer

    def sql(self, *trees: Node) -> str:
        """Return the SQL of trees as it is run."""
        return self._deserialized(*map(_with_types_as_sent, trees))

    def _deserialized(self, *trees: Node) -> str:
        """Return the SQL of trees, by DuckDB, which puts parentheses where they matter."""
        statement = {"node": {**self._select_one, "select_list": trees}, "named_param_map": []}
        row = self.db.execute(
            "SELECT json_deserialize_sql(CAST(? AS JSON))", [json.dumps({"error": False, "statements": [statement]})]
        ).fetchone()
        assert row is not None
        return str(row[0]).removeprefix("SELECT ")

    def shown(self, tree: Node) -> str:
        """Return the SQL of a tree for people."""
        return self._deserialized(tree).replace("count_star()", "count(*)")

    def types(self, expressions: Sequence[str], source: str = "event") -> list[str]:
        """Return the SQL types of the expressions."""
        rows = self._fetch(f"DESCRIBE SELECT {', '.join(expressions)} FROM {source}")
        return [str(row[1]).strip('"') for row in rows]

    def types_when_run(self, expressions: Sequence[str], source: str = "event") -> list[str]:
        """Return the SQL types of the expressions, once they ran over no rows, which finds what binding does not."""
        types = self.types(expressions, source)
        self._fetch(f"SELECT {', '.join(expressions)} FROM {source} LIMIT 0")
        return types

    def _fetch(self, query: str) -> list[Any]:
        import duckdb

        try:
            return self.db.execute(query).fetchall()
        except duckdb.Error as error:
            self.refuse(first_line(error))

    def _check(self, node: Any, lambdas: frozenset[str]) -> None:
        """Refuse what is not known to be harmless; collect the columns. `lambdas` has the names that lambdas bind."""
        if isinstance(node, list):
            for item in node:
                self._check(item, lambdas)
            return
        if not isinstance(node, dict):
            return
        kind = node.get("class")
        if kind == "COLUMN_REF":
            self._column(node["column_names"], lambdas)
        elif kind == "CONSTANT" and deep_path(node):
            self.refuse("a JSON path may search at any depth only once")
        elif kind == "FUNCTION":
            self._function(node, bool(lambdas))
            if name_of(node) == "json_type" and "payload" in columns_of(node):
                self.columns.add(AS_SENT)
        elif is_lambda(node):
            if lambdas:
                self.refuse("a lambda inside a lambda may take unbounded time")
            self._check(node["expr"], lambdas | set(columns_of(node["lhs"])))
            return
        elif kind is not None and kind not in _EXPRESSIONS:
            self.refuse(_REFUSED.get(kind, f"{kind.lower().replace('_', ' ')} is not allowed in a metric"))
        if node.get("type") == "GROUPING_FUNCTION":
            self.refuse("grouping() is not allowed in a metric")
        for child in node.values():
            self._check(child, lambdas)

    def _column(self, path: list[str], lambdas: frozenset[str]) -> None:
        name = path[0].lower()
        if name in lambdas:
            return
        if len(path) > 1:
            inside = f"payload->>'$.{'.'.join(path[1:])}'" if name == "payload" else path[-1]
            self.refuse(f"{'.'.join(path)} is not a column", hint=f"write {inside}")
        if name in _CLOCK:
            self.refuse(f"{name} depends on when and where it runs, so the same events would give another value")
        if name not in COLUMN_TYPES:
            self.refuse(f"unknown column {path[0]}", hint=_instead_of_column(path[0]))
        self.columns.add(name)

    def _function(self, node: Node, in_lambda: bool) -> None:
        name = name_of(node)
        if len(node["qualified_name"]["path"]) > 1:
            self.refuse(
                f"{'.'.join(node['qualified_name']['path'])} is not a function; call functions by their bare names"
            )
        arguments = [argument["expression"] for argument in node["arguments"]]
        if reason := refusal(self.db, name) or unbounded(name, arguments, in_lambda):
            self.refuse(reason)
        self._joined += len(arguments) if name in JOINS else 0
        if name in _OF_LAMBDAS and any(one["class"] == "LAMBDA" and not is_lambda(one) for one in arguments[1:]):
            self.refuse(f"-> reads a field of JSON, so {name} has no lambda", hint="write lambda x: … for x -> …")
        if self._joined > MOST_JOINED:
            self.refuse(f"it joins more than {MOST_JOINED} texts by || and concat")
        if node["order_bys"]["orders"]:
            self.refuse(f"{name} has an ORDER BY; an aggregate that needs one depends on order")
        if name not in AGGREGATES and (node["distinct"] or node["filter"]):
            self.refuse(f"{name} is not an aggregate, so it takes neither DISTINCT nor FILTER")

    def _split(self, node: Any, prefix: str, found: dict[str, Aggregate]) -> Any:
        """Return `node` with each aggregate replaced by the name of its result."""
        if isinstance(node, list):
            return [self._split(item, prefix, found) for item in node]
        if not isinstance(node, dict):
            return node
        if not is_aggregate(node):
            return {key: self._split(child, prefix, found) for key, child in node.items()}
        name = f"{prefix}{len(found)}"
        found[name] = self._aggregate(node)
        return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": node["alias"], "column_names": [name]}

    def _aggregate(self, node: Node) -> Aggregate:
        name, arguments, condition = name_of(node), node["arguments"], node["filter"]
        if any(aggregates_of([arguments, condition])):
            self.refuse(f"{_shown(node)} contains another aggregate")
        if len(arguments) != (0 if name == "count_star" else 1):
            self.refuse(f"{name} takes one argument here")
        argument = self.sql(arguments[0]["expression"]) if arguments else None
        return Aggregate(name, node["distinct"], argument, self.sql(condition) if condition else None)

    def refuse(self, reason: str, hint: str = "") -> NoReturn:
        """Raise Invalid for the field."""
        raise Invalid(reason, field=self.field, hint=hint)


def _instead_of_column(name: str) -> str:
    """Return what was perhaps meant by a name that is no column's. In double quotes a text is a name, too."""
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        quoted = name.replace("'", "''")
        return f"a text has single quotes: '{quoted}'; a field of the payload is payload->>'{quoted}'"
    near = get_close_matches(name.lower(), COLUMN_TYPES, 1, 0.75)
    meant = f"did you mean {near[0]}? " if near else ""
    columns = ", ".join(COLUMN_TYPES)
    return f"{meant}the columns are {columns}; a field of the payload is payload->>'$.{name}', a text '{name}'"


def _with_types_as_sent(tree: Any, *, inside: bool = False) -> Any:
    """Return the tree with the payload as it was sent in each json_type(…): in the column `payload`, numbers that no
    machine number holds are texts."""
    if isinstance(tree, list):
        return [_with_types_as_sent(item, inside=inside) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if inside and tree.get("class") == "COLUMN_REF" and columns_of(tree) == ["payload"]:
        return {**tree, "column_names": [AS_SENT]}
    inside = inside or (tree.get("class") == "FUNCTION" and name_of(tree) == "json_type")
    return {key: _with_types_as_sent(child, inside=inside) for key, child in tree.items()}


def name_of(node: Node) -> str:
    """Return the name of the function that the node calls."""
    return str(node["function_name"]).lower()


def _shown(node: Node) -> str:
    return name_of(node).replace("count_star", "count(*)")


def is_aggregate(node: Node) -> bool:
    """Return whether the node is an aggregate."""
    return node.get("class") == "FUNCTION" and name_of(node) in AGGREGATES


def nodes(tree: Any) -> Iterator[Node]:
    """Yield every node of a tree, parents first."""
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from nodes(child)
    elif isinstance(tree, list):
        for item in tree:
            yield from nodes(item)


def is_lambda(node: Node) -> bool:
    """Return whether the node is a lambda; to DuckDB's parser the arrow of payload->'$.a' is another kind of lambda."""
    return node.get("class") == "LAMBDA" and node["syntax_type"] == "LAMBDA_KEYWORD"


def aggregates_of(tree: Any) -> Iterator[Node]:
    """Yield the aggregates in a tree, which may be one itself."""
    return (node for node in nodes(tree) if is_aggregate(node))


def columns_of(tree: Any) -> list[str]:
    """Return the names in a tree, of columns and of the parameters of lambdas."""
    return [node["column_names"][0].lower() for node in nodes(tree) if node.get("class") == "COLUMN_REF"]


def children(node: Any) -> Iterator[Node]:
    """Yield the expressions directly below a node."""
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict) and child.get("class") not in (None, "TYPE"):
            yield child
        elif isinstance(child, dict | list):
            yield from children(child)


def quotient_of(tree: Node) -> tuple[Node, Node] | None:
    """Return numerator and denominator, if the tree is (x / y)::DECIMAL(p, s)."""
    if tree.get("class") != "CAST" or tree["try_cast"] or tree["type_expr"].get("type_name", "").upper() != "DECIMAL":
        return None
    child = tree["child"]
    if child.get("class") != "FUNCTION" or name_of(child) != "/":
        return None
    left, right = (argument["expression"] for argument in child["arguments"])
    return left, right
