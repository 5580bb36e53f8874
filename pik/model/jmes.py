"""JMESPath expressions (https://jmespath.org), compiled, checked before anything is read, and bounded.

Most expressions of a mapping are paths, constants and objects made of them: what those can make of a record is known
before. What any other expression makes is weighed at each step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any, cast

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.visitor import Options, TreeInterpreter

from pik.errors import Invalid, UsageError
from pik.model.functions import MOST, OF_PLACE, OF_TEXT, USAGE, Meter, ValueFunctions, expect_constants
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

    def levels(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return the paths that lead to the value from the outside in, if that is all, each with the function that
        makes of the value before what it is a path in: of `parse_json(a.b).c`, a.b and c in what parse_json() makes."""
        return _levels(self._tree) or []

    def indexes(self) -> dict[str, tuple[str, ...]]:
        """Return the paths to lists of which it takes one element: by what takes it, such as `Records[0]`."""
        found: dict[str, tuple[str, ...]] = {}
        _follow(self._tree, (), found)
        return found

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


def applied(function: str, value: Any) -> Any:
    """Return what a function of one argument makes of a value. Raises Invalid."""
    try:
        return ValueFunctions(Meter(MAX_MADE)).call_function(function, [value])
    except (JMESPathError, TypeError, ValueError) as error:
        raise Invalid(_one_sentence(error)) from None


def _parsed(text: str, option: str) -> Node:
    if len(text) > MAX_LENGTH:
        raise UsageError(f"{option}: the expression has {len(text):,} characters, more than {MAX_LENGTH:,}", hint=HINT)
    too_deep = UsageError(f"{option}: the expression is nested deeper than {MAX_DEPTH} levels", hint=HINT)
    try:
        tree: Any = jmespath.compile(text).parsed
    except JMESPathError as error:
        raise _not_an_expression(text, option, error) from None
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


def _follow(node: Node, at: tuple[str, ...] | None, found: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """Note which lists a node takes an element of, where it is applied to the value at a path. Return the path to what
    it finds, if it is a path."""
    kind, children = node["type"], [child for child in node["children"] if isinstance(child, dict)]
    if kind == "field":
        return None if at is None else (*at, node["value"])
    if kind in ("identity", "current"):
        return at
    if kind in ("subexpression", "pipe"):
        for child in children:
            at = _follow(child, at, found)
        return at
    if kind == "index_expression":
        there = _follow(children[0], at, found)
        if there and children[1]["type"] == "index":
            found[f"{quoted(*there)}[{children[1]['value']}]"] = there
    elif kind.endswith("projection") or kind == "flatten":
        _follow(children[0], at, found)
    elif kind != "expref":
        for child in children:
            _follow(child, at, found)
    return None


_OTHER_NAMES = {
    **dict.fromkeys(("fromjson", "from_json", "json_parse", "json", "json_extract"), "parse_json"),
    **dict.fromkeys(("concat", "concat_ws"), "join"),
    **dict.fromkeys(("nvl", "ifnull", "if_null"), "coalesce"),
    **dict.fromkeys(("md5", "sha1", "hash"), "sha256"),
    **dict.fromkeys(("unquote", "urldecode"), "url_decode"),
    **dict.fromkeys(("gunzip", "base64_gzip", "powertools_base64_gzip"), "base64_gunzip"),
    **dict.fromkeys(("filename", "file_name", "input_file_name"), "file"),
    **dict.fromkeys(("extract", "year", "month", "day", "hour", "date_trunc"), "date_part"),
}
"""What functions are called elsewhere."""

_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


def _expect_function(node: Node, option: str) -> None:
    """There is a function of that name, and it takes that many arguments, and those that are constants."""
    name, children = node["value"], node["children"]
    known = ValueFunctions.FUNCTION_TABLE
    if name not in known:
        near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else get_close_matches(name.lower(), known, 2)
        usages = " or ".join(USAGE.get(one, f"{one}()") for one in near)
        functions = f"perhaps {usages}" if near else f"functions: {', '.join(sorted(known))}"
        raise UsageError(f"{option}: unknown function {name}()", hint=functions)
    usage = USAGE.get(name, HINT)
    arguments, given = known[name]["signature"], len(children)
    most = MOST.get(name, len(arguments))
    variadic = bool(arguments) and arguments[-1].get("variadic") and name not in MOST
    if given < len(arguments) or (given > most and not variadic):
        wanted = f"{len(arguments)}" if most == len(arguments) else f"{len(arguments)} or {most}"
        wanted = f"{'at least ' if variadic else ''}{wanted} argument{'' if wanted == '1' else 's'}"
        raise UsageError(f"{option}: {name}() takes {wanted}, not {given}", hint=usage)
    for child, argument in zip(children, arguments, strict=False):
        types = [one.partition("-")[0] for one in argument["types"]]
        found = _TYPES.get(type(child.get("value")), "null")
        if child["type"] == "literal" and types and found not in types:
            wrong = JMESPathTypeError(name, child["value"], found, types)
            raise UsageError(f"{option}: {_one_sentence(wrong)}", hint=usage)
    constants = [child["value"] if child["type"] == "literal" else None for child in children]
    try:
        expect_constants(name, constants)
        if children and name not in OF_PLACE and all(child["type"] == "literal" for child in children):
            _Interpreter(MAX_MADE, NOWHERE).visit(node, None)
    except (Invalid, JMESPathError, TypeError, ValueError) as error:
        message = error.message if isinstance(error, Invalid) else _one_sentence(error)
        raise UsageError(f"{option}: {message}", hint=usage) from None


_SPECIAL = re.compile(r"[\[\]|&(){}`'\"\\,*?!<>=:]")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def quoted(*names: str) -> str:
    """Return the expression for a path of fields with these names."""
    return ".".join(name if _PLAIN.fullmatch(name) else msgspec.json.encode(name).decode() for name in names)


def _not_an_expression(text: str, option: str, error: JMESPathError) -> UsageError:
    """Return the error for a text that cannot be parsed: where, and what was perhaps meant."""
    position = getattr(error, "lex_position", None)
    if not text.strip():
        return UsageError(f"{option}: {_one_sentence(error)}", hint=HINT)
    rest = "" if position is None else text[position : position + 20]
    where = f" at '{rest}' (character {position + 1})" if rest and position is not None else ": it ends too early"
    shown = text if len(text) <= 200 else text[:199] + "…"
    what = option if option.endswith((f"={text}", f" {text}")) else f"{option}: {shown}"
    return UsageError(f"{what} is not a JMESPath expression{where}", hint=_syntax_hint(text, option))


def _syntax_hint(text: str, option: str) -> str:
    """Return what is usually meant by a text that cannot be parsed; otherwise where the language is described."""
    called = [name for name in re.findall(r"\w+", text) if name in USAGE]
    if called and re.match(rf"{called[0]} +\w", text):
        return f"a function has parentheses: {USAGE[called[0]]}"
    if rooted := re.fullmatch(r"\$?\.(?=[^.])(.+)|\$(\[.+)", text):  # as in JSONPath and jq
        typed = shell_option(option, text, _without_root(rooted[1] or rooted[2]))
        return f"a path begins with the name of a field: {typed}"
    plain = text
    names = [text] if text.endswith(".") and ".." not in text else text.split(".")
    if re.fullmatch(r"[^()]+ \([^()]*\)", text) and not called:
        names, plain = [text], re.sub(r"[()]", "", text)
    if not _SPECIAL.search(plain) and all(names) and not all(_PLAIN.fullmatch(name) for name in names):
        typed = shell_option(option, text, quoted(*names))
        return f"a name with other characters than letters, digits and _ needs quotes: {typed}"
    if named := re.fullmatch(r"((?:\w+\.)*)(\w[\w-]* [^.'\"|,&!<>=?*{}]+)", text):
        typed = shell_option(option, text, named[1] + quoted(named[2]))
        return f"a name with other characters than letters, digits and _ needs quotes: {typed}"
    if odd := next((quote for quote in "'\"`" if text.count(quote) % 2), ""):
        return f"a quote is not closed: {odd}"
    if text.count("(") != text.count(")"):
        return f"the parentheses do not match: {text.count('(')} are opened, {text.count(')')} closed"
    if re.search(r"[])]\.\d", text):
        return "an element of a list is in brackets: [0] is the first, [-1] the last"
    if re.search(r"[)'\w]\s*[-+/]\s*[('\w]", text):
        return f"texts are put together by {USAGE['join']}"
    return USAGE[called[0]] if called else HINT


def _without_root(path: str) -> str:
    """Return the expression for what follows the root of a path of JSONPath or jq; of filters, what was typed."""
    dotted = re.sub(r"\[(['\"])([^'\"\]]+)\1\]", r".\2", path).lstrip(".")
    parts = [re.fullmatch(r"([^\[\]]+)((?:\[\d*\])*)", one) for one in dotted.split(".")]
    if not all(part and not _SPECIAL.search(part[1]) for part in parts):
        return path
    return ".".join(quoted(part[1]) + part[2] for part in parts if part)


def shell_option(option: str, text: str, expression: str) -> str:
    """`--map FIELD=EXPRESSION` or `--by EXPRESSION` as it is typed, given how complaints call it, with the text in the
    place of the expression."""
    is_whole = option.endswith((f"={text}", f" {text}"))
    start = option.removesuffix(text) if is_whole else f"{option.partition('=')[0]}="
    return f"{start}'{expression}'" if "'" not in expression else f'{start}"{expression}"'


_OPTIONS = Options(custom_functions=ValueFunctions(Meter(0)))
_LIBRARY = TreeInterpreter(_OPTIONS)
"""Evaluates what needs not be weighed, which calls no function."""


class _Interpreter(TreeInterpreter):
    """The library's, which counts its steps and weighs what it makes, each part as often as the result has it."""

    def __init__(self, allowed: int, place: Place) -> None:
        super().__init__(_OPTIONS)
        self._meter = Meter(allowed)
        self._called = ValueFunctions(self._meter, place)

    def visit(self, node: Any, value: Any) -> Any:
        self._meter.take(1)
        return getattr(self, "visit_" + node["type"])(node, value)

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        return self._meter.weighed(super().visit_multi_select_dict(node, value))

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        return self._meter.weighed(super().visit_multi_select_list(node, value))

    def visit_flatten(self, node: Any, value: Any) -> Any:
        return self._meter.weighed(super().visit_flatten(node, value))

    def visit_function_expression(self, node: Any, value: Any) -> Any:
        name, children = node["value"], node["children"]
        if name == "coalesce":  # what comes after the first that is not null may fail
            found = (self.visit(child, value) for child in children)
            return next((one for one in found if one is not None), None)
        made = self._called.call(name, [self.visit(child, value) for child in children])
        return made if name == "parse_json" else self._meter.weighed(made)  # that is weighed as text


def _path(node: Node) -> tuple[str, ...] | None:
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] != "subexpression":
        return None
    parts = [_path(child) for child in node["children"]]
    return tuple(name for part in parts for name in part or ()) if all(parts) else None


def _levels(node: Node) -> list[tuple[str, tuple[str, ...]]] | None:
    """Return the paths that lead to a value, each with the function before it; None where it is anything else."""
    path = _path(node)
    if path is not None:
        return [("", path)]
    children = node["children"]
    if node["type"] == "function_expression" and node["value"] in OF_TEXT:
        inner = _levels(children[0])
        return inner and [*inner, (node["value"], ())]
    if node["type"] == "subexpression":
        inner, path = _levels(children[0]), _path(children[1])
        if inner and path:
            return [*inner[:-1], (inner[-1][0], inner[-1][1] + path)]
    return None


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


_ARRAYS = {"array-string": "an array of strings", "array-number": "an array of numbers"}
_ELEMENTS = {"NoneType": "null", "str": "a string", "bool": "a boolean", "dict": "an object", "list": "an array"} | (
    dict.fromkeys(("int", "float", "Decimal", "_Number"), "a number")
)
"""What JMESPath calls an element of an array that has not the type of all."""


def _one_sentence(error: Exception) -> str:
    if isinstance(error, JMESPathTypeError):
        found, value = error.actual_type.replace("unknown", "number"), error.current_value  # a Decimal
        shown = "" if value is None else f": '{value!s:.40}'"
        if element := _ELEMENTS.get(found):
            found = f"one with {element}"
        wanted = " or ".join(_ARRAYS.get(one, one) for one in error.expected_types)
        return f"{error.function_name}() takes {wanted}, not {found}{shown}"
    return " ".join(str(error).split())
