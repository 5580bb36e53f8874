"""Read the fields of each command's JSON from their declarations, without running a command."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from importlib import import_module
from types import GenericAlias, NoneType, UnionType
from typing import Any, NamedTuple

from pik.cli.app import COMMANDS
from pik.cli.render import Bucket, Count, EventId, Field, Instant, Json, Lag, Moment, Object, Rows, Schema
from pik.model.window import Window


class FieldRow(NamedTuple):
    """A field as docs/json.md lists it: its path, its type, and what it means."""

    path: str
    kind: str
    about: str


_NAMES: dict[Any, str] = {
    **dict.fromkeys((str, EventId), "string"),
    **dict.fromkeys((int, Count), "integer"),
    **dict.fromkeys((float, Decimal, Lag), "number"),
    **dict.fromkeys((Instant, Moment, Bucket), "time"),
    bool: "boolean",
    Window: "window",
    Json: "JSON",
    list[str]: "strings",
    dict[str, int]: "map",
    list[Json]: "JSON",
    NoneType: "null",
}


def schemas() -> Iterator[Schema]:
    """Yield what the commands declare, in the order of `pik --help`."""
    modules = dict.fromkeys(entry.module for entry in COMMANDS.values())
    for module in [*modules, "pik.cli.commands.ingest.report"]:
        yield from (value for value in vars(import_module(module)).values() if isinstance(value, Schema))


def rows(schema: Schema) -> Iterator[FieldRow]:
    """Yield the fields of a command's JSON, in its order."""
    for part in schema.parts:
        if isinstance(part, Rows):
            yield FieldRow(part.name, "rows or null" if part.absent else "rows", part.about)
            yield from _fields(part.columns, f"{part.name}[].")
        else:
            yield from _fields([part], "")


def _fields(fields: Any, prefix: str) -> Iterator[FieldRow]:
    field: Field
    for field in fields:
        path = prefix + field.key
        yield FieldRow(path, _type(field.kind), field.about)
        if isinstance(field.kind, Object):
            yield from _fields(field.kind.fields, f"{path}[]." if field.kind.many else f"{path}.")


def _type(kind: Any) -> str:
    if isinstance(kind, Object):
        return ("rows" if kind.many else "object") + (" or null" if kind.null else "")
    if isinstance(kind, UnionType):
        return " or ".join(map(_type, kind.__args__))
    if isinstance(kind, GenericAlias):
        return next(name for known, name in _NAMES.items() if known == kind)
    return _NAMES[kind]
