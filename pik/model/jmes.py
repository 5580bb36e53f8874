"""JMESPath expressions (https://jmespath.org), compiled, checked before anything is read, and bounded.

Most expressions of a mapping are paths, constants and objects made of them: what those can make of a record is known
before. What any other expression makes is weighed at each step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, cast

import jmespath
import msgspec
from jmespath.exceptions import ArityError, JMESPathError, JMESPathTypeError, VariadictArityError
from jmespath.functions import Functions, signature
from jmespath.visitor import Options, TreeInterpreter

from pik.errors import Invalid, UsageError
from pik.model.identity import canonical_number, is_machine_number
from pik.model.place import NOWHERE, Place

MAX_LENGTH = 16_384
"""Characters of an expression, at most."""

MAX_DEPTH = 100
"""Steps of an expression inside of each other, at most."""

MAX_MADE = 8 << 20
"""Bytes, about, that an expression may make of a record in all its steps; or eight times the record, where it is
larger."""

HINT = "https://jmespath.org has the language"

Node = dict[str, Any]

_encode = msgspec.json.Encoder(decimal_format="number").encode
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


class Expression:
    """A compiled expression. Raises UsageError, which names `option`, for one that never can be evaluated.

    `of_record`: it is evaluated on records of an input, so that it may ask for their place there.
    """

    def __init__(self, text: str, option: str, *, of_record: bool = False) -> None:
        self.text = text
        self._tree: Any = _parsed(text, option)
        self._calls = [node for node, _ in _nodes(self._tree) if node["type"] == "function_expression"]
        self.functions = frozenset(node["value"] for node in self._calls)
        """The names of the functions that it calls."""
        if not of_record and (asked := sorted(self.functions & OF_PLACE)):
            raise UsageError(f"{option}: {asked[0]}() is known only where a file is read, in --map", hint=HINT)
        self._growth = _growth(self._tree)
        self.path = _path(self._tree)
        """The names of the fields, if it is nothing but the path to one; else None."""

    @property
    def picks(self) -> bool:
        """Whether all numbers of what it finds are those of the value: it computes none and has none."""
        return not self._calls and all(node["type"] != "literal" for node, _ in _nodes(self._tree))

    def arguments(self, function: str) -> list[str | None]:
        """Return the first argument of each call of this function, None where it is not a constant."""
        firsts = [node["children"][0] for node in self._calls if node["value"] == function]
        return [first["value"] if first["type"] == "literal" else None for first in firsts]

    def search(self, value: Any, size: int, place: Place = NOWHERE) -> Any:
        """Return what the expression finds in a value, which stands there and whose JSON text has `size` bytes. Raises
        Invalid."""
        if self.path is not None:
            for name in self.path:
                value = value.get(name) if isinstance(value, dict) else None
            return value
        allowed = max(MAX_MADE, 8 * size)
        if self._growth and self._growth * (size + len(self.text)) <= allowed:
            return _LIBRARY.visit(self._tree, value)
        return self.search_slowly(value, allowed, place)

    def search_slowly(self, value: Any, allowed: int = MAX_MADE, place: Place = NOWHERE) -> Any:
        """The definition that `search` must agree with. Raises Invalid."""
        try:
            return _Interpreter(allowed, place).visit(self._tree, value)
        except (JMESPathError, TypeError, ValueError) as error:  # the latter two are gaps in JMESPath's checks
            raise Invalid(_one_sentence(error)) from None


def exact_number(text: str) -> int | float | Decimal:
    """Return the machine number that a JSON number's text is, or the Decimal where there is none."""
    canonical = canonical_number(text)
    if not is_machine_number(canonical):
        return Decimal(text)
    return int(canonical) if canonical.lstrip("-").isdigit() else float(canonical)


def _parsed(text: str, option: str) -> Node:
    if len(text) > MAX_LENGTH:
        raise UsageError(f"{option}: the expression has {len(text):,} characters, more than {MAX_LENGTH:,}", hint=HINT)
    too_deep = UsageError(f"{option}: the expression is nested deeper than {MAX_DEPTH} levels", hint=HINT)
    try:
        tree: Any = jmespath.compile(text).parsed
    except JMESPathError as error:
        shown = text if len(text) <= 200 else text[:199] + "…"
        raise UsageError(f"{option}: {_one_sentence(error, shown)}", hint=_quoted_hint(text, option)) from None
    except RecursionError:
        raise too_deep from None
    except (ValueError, TypeError, ArithmeticError) as error:  # gaps in JMESPath's checks
        raise UsageError(f"{option}: {_one_sentence(error)}", hint=HINT) from None
    for node, depth in _nodes(tree):
        if depth > MAX_DEPTH:
            raise too_deep
        if node["type"] == "function_expression":
            _expect_function(node, option)
    return cast(Node, tree)


def _nodes(tree: Node) -> Iterator[tuple[Node, int]]:
    """Yield every node, and how deep it lies. Not by recursion: there may be many levels."""
    waiting = [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        waiting += [(child, depth + 1) for child in node["children"] if isinstance(child, dict)]


def _expect_function(node: Node, option: str) -> None:
    """There is a function of that name, and it takes that many arguments."""
    name, given = node["value"], len(node["children"])
    known = _Functions.FUNCTION_TABLE
    if name not in known:
        raise UsageError(f"{option}: unknown function {name}()", hint=f"functions: {', '.join(sorted(known))}")
    arguments = known[name]["signature"]
    variadic = bool(arguments) and arguments[-1].get("variadic")
    if given < len(arguments) or (given > len(arguments) and not variadic):
        wanted = f"{'at least ' if variadic else ''}{len(arguments)}"
        raise UsageError(f"{option}: {name}() takes {wanted} arguments, not {given}", hint=HINT)


_SPECIAL = re.compile(r"[\[\]|&(){}`'\"\\,*?!<>=:]")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def quoted(*names: str) -> str:
    """Return the expression for a path of fields with these names."""
    return ".".join(name if _PLAIN.fullmatch(name) else msgspec.json.encode(name).decode() for name in names)


def _quoted_hint(text: str, option: str) -> str:
    """Return the hint for a path that lacks quotes; otherwise where the language is described."""
    names = text.split(".")
    if _SPECIAL.search(text) or not all(names) or all(_PLAIN.fullmatch(name) for name in names):
        return HINT
    return (
        f"a name with other characters than letters, digits and _ needs quotes: {shell_option(option, quoted(*names))}"
    )


def shell_option(option: str, expression: str) -> str:
    """`--map FIELD=EXPRESSION` as it is typed, given how complaints call it."""
    start = option.partition("=")[0]
    return f"{start}='{expression}'" if "'" not in expression else f'{start}="{expression}"'


OF_PLACE = frozenset(("file", "line", "partition", "parent"))
"""Functions whose value depends on where the record stands."""


class _Functions(Functions):
    """JMESPath's own functions, except the two that would round or mark a number that is not a machine number, and
    those of a record's place."""

    def __init__(self, place: Place = NOWHERE) -> None:
        self._place = place

    @signature({"types": []})
    def _func_to_string(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        return canonical_number(str(value)) if _is_number(value) else _encode(value).decode()

    @signature({"types": []})
    def _func_to_number(self, value: Any) -> int | float | Decimal | None:
        if _is_number(value):
            return value  # type: ignore[no-any-return]
        return exact_number(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None

    @signature()
    def _func_file(self) -> str:
        return self._place.file_name()

    @signature()
    def _func_line(self) -> int:
        return self._place.line

    @signature({"types": ["string"]})
    def _func_partition(self, name: str) -> str | None:
        return self._place.partition(name)

    @signature({"types": ["string"]})
    def _func_parent(self, name: str) -> Any:
        return self._place.parent(name)


_FUNCTIONS = _Functions()
_OPTIONS = Options(custom_functions=_FUNCTIONS)
_LIBRARY = TreeInterpreter(_OPTIONS)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


class _Interpreter(TreeInterpreter):
    """The library's, which counts its steps and weighs what it makes, each part as often as the result has it."""

    def __init__(self, allowed: int, place: Place) -> None:
        super().__init__(_OPTIONS)
        self._allowed = self._left = allowed
        self._called = _FUNCTIONS if place is NOWHERE else _Functions(place)

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        self._take(1)
        return super().visit(node, *args, **kwargs)

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        return self._weighed(super().visit_multi_select_dict(node, value))

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        return self._weighed(super().visit_multi_select_list(node, value))

    def visit_flatten(self, node: Any, value: Any) -> Any:
        return self._weighed(super().visit_flatten(node, value))

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        arguments = [self.visit(child, value) for child in node["children"]]
        if node["value"] == "join" and all(isinstance(one, (str, list)) for one in arguments):
            glue, parts = arguments
            self._take(len(glue) * len(parts))
        return self._weighed(self._called.call_function(node["value"], arguments))

    def _weighed(self, made: Any) -> Any:
        """Return what was made, if its JSON text is not too large."""
        waiting = [made]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self._take(len(one))
            elif isinstance(one, list):
                self._take(8 * len(one))
                waiting += one
            elif isinstance(one, dict):
                self._take(sum(map(len, one)) + 8 * len(one))
                waiting += one.values()
        return made

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"its expression makes more than {self._allowed >> 20} MiB of this record")


def _path(node: Node) -> tuple[str, ...] | None:
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] != "subexpression":
        return None
    parts = [_path(child) for child in node["children"]]
    return tuple(name for part in parts for name in part or ()) if all(parts) else None


_GROWTHS: dict[str, Callable[[Iterable[int]], int]] = {
    **dict.fromkeys(("field", "literal", "current", "identity", "index"), lambda _: 1),
    **dict.fromkeys(("subexpression", "index_expression", "pipe"), math.prod),
    **dict.fromkeys(("multi_select_dict", "multi_select_list", "key_val_pair"), sum),
    "or_expression": max,
}


def _growth(node: Node) -> int:
    """Return how many times over a result may hold what the record and the expression hold, 0 if that is unknown."""
    known = _GROWTHS.get(node["type"])
    if known is None:
        return 0
    inner = [_growth(child) for child in node["children"]]
    return known(inner) if all(inner) else 0


def _one_sentence(error: Exception, shown: str = "") -> str:
    if isinstance(error, JMESPathTypeError):
        expected = " or ".join(error.expected_types)
        return f"{error.function_name}() takes {expected}, not {error.actual_type}: '{error.current_value!s:.40}'"
    if isinstance(error, (ArityError, VariadictArityError)) or not shown:
        return " ".join(str(error).split())
    position = getattr(error, "lex_position", None)
    where = "" if position is None else f" (character {position + 1})"
    return f"{shown} is not a JMESPath expression{where}"
