"""Writes docs/json.md and docs/schemas/*.json: tools/json.md, and the JSON of each command as it is declared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from importlib import import_module
from itertools import groupby
from pathlib import Path
from pkgutil import walk_packages
from types import NoneType, UnionType
from typing import Any, NamedTuple

import pik.cli.commands
from pik.cli.app import COMMANDS
from pik.cli.commands.inspect.corrected import EFFECTS
from pik.cli.document import Column, Field, Object, Rows, Schema
from pik.cli.values import Bucket, Count, Entity, EventId, Instant, Json, Lag, Moment
from pik.model.window import Window

PAGE = Path(__file__).parent.parent / "docs" / "json.md"
SCHEMAS = PAGE.parent / "schemas"
_BY_HAND = Path(__file__).parent / "json.md"

_KINDS = (
    "`usage_error`, `input_error`, `invalid`, `nothing_selected`; `not_found`, `not_held`, `already_exists`, `busy`,"
    " `conflict_found`, `damaged`, `store_error`, `engine_error`, `target_unavailable`; `interrupted`; `pik_error`:"
    " others"
)

MANIFEST = Schema(
    "pik export, manifest",
    Field("pik", str, "the version that wrote it"),
    Field("store", str, "the store's path or URL"),
    Field("store_format", int, "the version of its format"),
    Field("created_at", Instant),
    Field("format", str, "`parquet`, `jsonl`, `csv`"),
    Field("compression", str, "`zstd`, `snappy`, `gzip`, `none`"),
    Field(
        "query",
        Object(
            Field("window", Window),
            Field("entities", list[str], "none: all"),
            Field("source", str | None),
            Field("event_type", str | None),
            Field("include_duplicates", bool),
            Field("as_received", bool),
            Field(
                "columns",
                Object(
                    Field("name", str),
                    Field("expression", str, "JMESPath over the payload"),
                    Field("type", str),
                    many=True,
                ),
                "those of `--column`",
            ),
            Field("partition_by", list[str]),
            Field("timezone", str | None, "the zone whose dates `event_date` has; null: UTC"),
        ),
        "what was asked for",
    ),
    Field("known_until", Instant | None, "as in `pik export`, as the following"),
    EFFECTS,
    Field("rows", Count),
    Rows(
        "files",
        "by path",
        Column("path", str, "relative to the manifest"),
        Column("rows", Count),
        Column("bytes", Count),
        Column("sha256", str),
    ),
)
"""What `pik export` writes beside its files."""

FAILURE = Schema(
    "pik, errors",
    Field("error", str, "what is wrong, in one sentence"),
    Field("hint", str | None, "what helps, mostly a command"),
    Field("kind", str, _KINDS),
    Field("exit_code", int, "as in [exit-codes.md](exit-codes.md)"),
)
"""What is written to standard error (pik.cli.failure)."""

_TIME = {
    "description": "RFC 3339 in UTC",
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}(\d{3}){0,2})?Z$",
}
_END = {"anyOf": [{"$ref": "#/$defs/time"}, {"type": "null"}]}
_WINDOW = {
    "description": "from (included) to (not included); null: no such end",
    "type": "object",
    "properties": {"from": _END, "to": _END},
    "required": ["from", "to"],
}


class _Type(NamedTuple):
    """A type of a field: its name in docs/json.md, and its JSON Schema."""

    name: str
    schema: dict[str, Any]


_TYPES: Sequence[tuple[tuple[Any, ...], _Type]] = (
    ((str, EventId, Entity), _Type("string", {"type": "string"})),
    ((int, Count), _Type("integer", {"type": "integer"})),
    ((float, Decimal, Lag), _Type("number", {"type": "number"})),
    ((Instant, Moment, Bucket), _Type("time", {"$ref": "#/$defs/time"})),
    ((bool,), _Type("boolean", {"type": "boolean"})),
    ((Window,), _Type("window", {"$ref": "#/$defs/window"})),
    ((Json,), _Type("JSON", {})),
    ((list[str],), _Type("strings", {"type": "array", "items": {"type": "string"}})),
    ((dict[str, int],), _Type("map", {"type": "object", "additionalProperties": {"type": "integer"}})),
    ((dict[str, str],), _Type("map of strings", {"type": "object", "additionalProperties": {"type": "string"}})),
    ((list[Json],), _Type("JSON", {"type": "array"})),
)


class Row(NamedTuple):
    """A field as docs/json.md lists it: its path, its type, and what it means."""

    path: str
    type: str
    meaning: str


def pages() -> dict[Path, str]:
    """Return the page and the schemas: path → text."""
    declared = schemas()
    found = {PAGE: _page(declared)}
    for schema in declared:
        for name in names(schema):
            text = json.dumps(json_schema(schema, name), indent=2, ensure_ascii=False)
            found[SCHEMAS / f"{slug(name)}.json"] = text + "\n"
    return found


def schemas() -> list[Schema]:
    """Return what the commands declare, one for each title, in the order of `pik --help`."""
    modules = [import_module(one.name) for one in walk_packages(pik.cli.commands.__path__, "pik.cli.commands.")]
    declared = [value for module in modules for value in vars(module).values() if isinstance(value, Schema)]
    order = list(COMMANDS)
    once = {schema.title: schema for schema in [*declared, MANIFEST, FAILURE]}
    return sorted(once.values(), key=lambda schema: order.index(_command(schema)) if schema != FAILURE else len(order))


def names(schema: Schema) -> list[str]:
    """Return what a schema is of: the commands in its title, or the title where it describes one of several results."""
    parts = schema.title.split(", ")
    return parts if all(part.startswith("pik ") for part in parts) else [schema.title]


def slug(name: str) -> str:
    """Return the name of the file, without its extension, that has the schema: `diff-aggregates`."""
    return "-".join(re.findall(r"\w+", name)[1:])


def rows(schema: Schema) -> Iterator[Row]:
    """Yield the fields of a command's JSON, in its order."""
    for field in _fields(schema.parts):
        yield from _rows(field, "")


def json_schema(schema: Schema, title: str) -> dict[str, Any]:
    """Return the JSON Schema of a command's JSON. It admits other fields, because fields may be added."""
    content = _object(_fields(schema.parts))
    text = json.dumps(content)
    used = {"window": _WINDOW} if "#/$defs/window" in text else {}
    defs = {"time": _TIME, **used} if used or "#/$defs/time" in text else {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **content,
        **({"$defs": defs} if defs else {}),
    }


def _heading(schema: Schema) -> str:
    return "Errors" if schema == FAILURE else COMMANDS[_command(schema)].heading


def _command(schema: Schema) -> str:
    return slug(schema.title).partition("-")[0]


def _fields(parts: Iterable[Field | Rows]) -> Iterator[Field]:
    """Yield the parts as fields; a table is a field whose kind is an array of objects."""
    for part in parts:
        if isinstance(part, Rows):
            kind = Object(*part.columns, many=True, null=part.absent is not None)
            yield Field(part.name, kind, part.about, only=part.only)
        else:
            yield part


def _rows(field: Field, prefix: str) -> Iterator[Row]:
    path = prefix + field.key
    only = f"only {field.only}" if field.only else ""
    yield Row(path, _type_name(field.kind), ": ".join(filter(None, (only, field.about))))
    if isinstance(field.kind, Object):
        for inner in field.kind.fields:
            yield from _rows(inner, f"{path}[]." if field.kind.many else f"{path}.")


def _object(fields: Iterable[Field]) -> dict[str, Any]:
    fields = list(fields)
    return {
        "type": "object",
        "properties": {field.key: _property(field) for field in fields},
        "required": [field.key for field in fields if not field.only],
    }


def _property(field: Field) -> dict[str, Any]:
    meaning = next(_rows(field, "")).meaning
    return {**({"description": meaning} if meaning else {}), **_schema_of(field.kind)}


def _schema_of(kind: Any) -> dict[str, Any]:
    if isinstance(kind, Object):
        inner = _object(kind.fields)
        found = {"type": "array", "items": inner} if kind.many else inner
        return _or_null(found) if kind.null else found
    if isinstance(kind, UnionType):
        (one,) = (one for one in kind.__args__ if one is not NoneType)
        return _or_null(_schema_of(one))
    return _known(kind).schema


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]} if schema else {}


def _type_name(kind: Any) -> str:
    if isinstance(kind, Object):
        return ("rows" if kind.many else "object") + (" or null" if kind.null else "")
    if isinstance(kind, UnionType):
        return " or ".join("null" if one is NoneType else _type_name(one) for one in kind.__args__)
    return _known(kind).name


def _known(kind: Any) -> _Type:
    return next(found for kinds, found in _TYPES if any(kind == one for one in kinds))


def _page(declared: Iterable[Schema]) -> str:
    lines = [_BY_HAND.read_text(encoding="utf-8")]
    for heading, group in groupby(declared, key=_heading):
        lines.append(f"## {heading}\n")
        for schema in group:
            lines += _section(schema)
    return "\n".join(lines).rstrip() + "\n"


def _section(schema: Schema) -> Iterator[str]:
    yield "### " + re.sub(r"pik [^,]+", r"`\g<0>`", schema.title) + "\n"
    links = ", ".join(f"[{slug(name)}.json](schemas/{slug(name)}.json)" for name in names(schema))
    yield f"Schema: {links}\n"
    yield "| field | type | meaning |\n| --- | --- | --- |"
    for row in rows(schema):
        cells = (f"`{row.path}`", row.type, row.meaning.replace("|", "\\|"))
        yield "| " + " | ".join(filter(None, cells)) + (" |" if row.meaning else " | |")
    yield ""
