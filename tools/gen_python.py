"""The reference of `import pik`, from its signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pik
from pik import api

PAGE = Path(__file__).parent.parent / "docs" / "python-reference.md"

_PREFACE = """# Python reference

<!-- Generated from the docstrings of `pik.api` by `make docs`; do not edit. -->

[Python](python.md) explains how to use it.

Types of arguments: `When` is an `Instant`, a datetime with a time zone, a date, or text such as `2026-01-31T08:00:00Z`
or `2026-01-31`; `Duration` a timedelta or text such as `2h`; `Names` one name, several, or None for all.
"""


def page() -> str:
    """The whole page."""
    names = [name for name in api.__all__ if name not in ("open", "Store")]
    lines = [_PREFACE, *_function("pik.open", pik.open), *_class("Store", pik.Store)]
    for name in names:
        lines += _class(name, getattr(pik, name))
    errors = [name for name, home in pik._HOMES.items() if home == "pik.errors"]
    lines.append("## Errors\n")
    lines += [f"- `pik.{name}`: {_first_line(getattr(pik, name))}" for name in errors]
    return "\n".join(lines).rstrip() + "\n"


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def _function(name: str, function: Any, level: str = "##") -> Iterator[str]:
    yield f"{level} {name}\n"
    yield f"```python\n{_signature(name.rpartition('.')[2], function)}\n```\n"
    yield f"{inspect.getdoc(function)}\n"


def _signature(name: str, function: Any) -> str:
    """Return the signature, one parameter per line where there are several."""
    parameters, is_named = [], False
    signature = inspect.signature(function)
    for one in signature.parameters.values():
        if one.kind == one.KEYWORD_ONLY and not is_named:
            is_named = True
            parameters.append("*")
        if one.name != "self":
            default = "" if one.default is one.empty else f" = {one.default!r}"
            star = "*" if one.kind == one.VAR_POSITIONAL else ""
            parameters.append(f"{star}{one.name}: {one.annotation}{default}")
    inside = "".join(f"\n    {one}," for one in parameters) + "\n" if len(parameters) > 1 else ", ".join(parameters)
    return f"{name}({inside}) -> {signature.return_annotation}"


def _class(name: str, kind: Any) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{inspect.getdoc(kind)}\n"
    if is_dataclass(kind):
        yield "| field | type |\n| --- | --- |"
        yield from (f"| `{one.name}` | `{str(one.type).replace('|', chr(92) + '|')}` |" for one in fields(kind))
        yield ""
    members = inspect.getmembers(kind, lambda one: inspect.isfunction(one) or isinstance(one, property))
    for attribute, member in members:
        if attribute.startswith("_") or attribute == "keep" or not _is_ours(kind, attribute):
            continue
        if isinstance(member, property):
            yield f"### {name}.{attribute}\n"
            yield f"{inspect.getdoc(member)}\n"
        else:
            yield from _function(f"{name}.{attribute}", member, "###")


def _is_ours(kind: Any, attribute: str) -> bool:
    """Return whether the attribute is the class's own, or of a part of Store, not of another class in the reference."""
    home = next(one for one in kind.__mro__ if attribute in vars(one))
    return home is kind or home.__name__ not in api.__all__
