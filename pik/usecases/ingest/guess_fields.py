"""The fields of sampled records, and their values."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

import msgspec

from pik.model.jmes import quoted
from pik.usecases.ingest.guess_names import score_of, words

DEPTH = 6
"""Objects in objects that are looked into."""

PATHS = 2000
"""Different fields that are looked at."""

ENVELOPED = {"body", "message", "log", "payload", "data", "text", "value"}
"""Fields, as of SQS, SNS and Docker, whose text is the event where it is JSON; those around it are the envelope's."""

Path = tuple[str, ...]

_TYPES = {"S", "N", "$date", "$oid", "$numberDecimal", "$numberLong", "$numberInt", "string", "long"}
"""What DynamoDB, MongoDB and Avro write around a value to say its type; it does not name the field."""


@dataclass(frozen=True, slots=True)
class FoundField:
    """A field of the records: how many have it, how many different values it has there, and one of them, as JSON."""

    path: str
    records: int
    distinct: int
    example: bytes


@dataclass
class Column:
    """A field of the records, the expression of it, and the values that it has, by the number of the record.
    `enveloped` is in how many texts of ENVELOPED it is."""

    path: Path
    expression: str
    enveloped: int = 0
    values: dict[int, Any] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The words of its name, in lower case, and of it with the name of the object that has it."""
        named = [name for name in self.path if name not in _TYPES] or self.path
        own, *outer = [words(name) for name in reversed(named[-2:])]
        return (own, *(f"{name} {own}" for name in outer))

    @cached_property
    def texts(self) -> list[str]:
        """The values as texts; none if one of them cannot name anything."""
        texts = [str(one) for one in self.values.values() if isinstance(one, str) or type(one) is int]
        fit = len(texts) == len(self.values) and all(
            one.isprintable() and 0 < len(one.encode()) <= 256 for one in texts
        )
        return texts if fit else []

    @property
    def preferred(self) -> int:
        """How much is added to its score when fields are ranked: an event comes before its envelope."""
        return 30 * self.enveloped

    @property
    def is_shared(self) -> bool:
        """Whether many records have the same value."""
        return self.distinct < max(2, len(self.values) / 10) and len(self.values) > 1

    @property
    def repeats(self) -> bool:
        """Whether one of ten records, or more, has a value that another one has, too."""
        return 10 * self.distinct <= 9 * len(self.values)

    @property
    def first(self) -> Any:
        """The value of the first record that has it."""
        return next(iter(self.values.values()))

    @property
    def distinct(self) -> int:
        """The number of different values."""
        return len({str(one) for one in self.values.values()})

    def score(self, event_field: str) -> int:
        """Return how much its name speaks for that field of events."""
        best = score_of(event_field, self.names)
        return max(1, best - 3 * (len(self.path) - 1)) if best else 0


def columns_of(lines: Iterable[bytes]) -> list[Column]:
    """Return the fields of records, those in objects too, without null values and empty texts; a list is a value, and
    a text that is a JSON object is that object, in base64 too."""
    found: dict[str, Column] = {}

    def add(number: int, path: Path, expression: str, enveloped: int, value: Any) -> None:
        if path and (encoded := _base64_object_in(value)) is not None:
            expression, value = f"parse_json(base64_decode({expression}))", encoded
            enveloped += 1
        elif path and (parsed := _object_in(value)) is not None:
            expression, value = f"parse_json({expression})", parsed
            enveloped += words(path[-1]) in ENVELOPED
        if path and value not in (None, "") and (expression in found or len(found) < PATHS):
            found.setdefault(expression, Column(path, expression, enveloped)).values[number] = value
        if isinstance(value, dict) and len(path) < DEPTH:
            for name, inner in value.items():
                to_it = f"{expression}.{quoted(name)}" if expression else quoted(name)
                add(number, (*path, name), to_it, enveloped, inner)

    for number, line in enumerate(lines):
        add(number, (), "", 0, json.loads(line, parse_float=Decimal))
    return _decoded(list(found.values()))


def _decoded(columns: Sequence[Column]) -> list[Column]:
    """Return fields, those with the texts whose base64 they have: as binary columns of Parquet. One that has so many
    that it is not by chance speaks for the others."""
    texts = {one.expression: found for one in columns if (found := _texts_in(one)) is not None}
    if not any(sum(map(len, set(found.values()))) >= _BY_CHANCE for found in texts.values()):
        return list(columns)
    return [
        replace(one, expression=f"base64_decode({one.expression})", values=texts[one.expression])
        if one.expression in texts
        else one
        for one in columns
    ]


def _texts_in(one: Column) -> dict[int, Any] | None:
    """Return the texts that all values of a field are the base64 of, if they can be printed."""
    try:
        found = {number: b64decode(value, validate=True).decode("ascii") for number, value in one.values.items()}
    except (TypeError, ValueError):
        return None
    return found if all(map(str.isprintable, found.values())) else None


_BY_CHANCE = 12
"""Characters that may be printable by chance."""


def _object_in(value: Any) -> dict[str, Any] | None:
    """Return the JSON object that a text is, if it is one and has fields."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(value, parse_float=Decimal)
        if "\\u" in value:
            encode(found)  # half of a surrogate pair is no character, here too
    except (ValueError, RecursionError):
        return None
    return found or None


def _base64_object_in(value: Any) -> dict[str, Any] | None:
    """Return the JSON object that a text is the base64 of, as Kinesis and Pub/Sub give the data of a message."""
    if not isinstance(value, str) or not value.startswith(_BASE64_OBJECT):
        return None
    try:
        return _object_in(b64decode(value, validate=True).decode())
    except ValueError:
        return None


_BASE64_OBJECT = "ey", "ew"
"""How the base64 of a brace begins, with what may follow it."""


def described(one: Column) -> FoundField:
    distinct = len({encode(value) for value in one.values.values()})
    return FoundField(one.expression, len(one.values), distinct, encode(one.first))


encode = msgspec.json.Encoder(decimal_format="number").encode
