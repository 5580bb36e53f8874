"""The fields of sampled records: their values, and what their names speak for."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import msgspec

from pik.model.jmes import quoted

DEPTH = 6
"""Objects in objects that are looked into."""

PATHS = 2000
"""Different fields that are looked at."""

ENVELOPED = {"body", "message", "log"}
"""Fields, as of SQS, SNS and Docker, whose text is the event where it is JSON; those around it are the envelope's."""

Path = tuple[str, ...]

_TYPES = {"S", "N", "$date", "$oid", "$numberDecimal", "$numberLong", "$numberInt", "string", "long"}
"""What DynamoDB, MongoDB and Avro write around a value to say its type; it does not name the field."""

_RECEIVED = "received|ingested|ingestion|ingest|arrived|arrival|collected|collector|loaded|stored|inserted|processed"
_LATER = (
    "updated|modified|expires|expiry|expiration|due|birth|born|deleted|until|end|ended|closed|merged|pushed|scheduled|"
    "last"
)
_MESSAGE = "event|message|msg|delivery|record|insert|dedup|deduplication"
_WHO = "user|customer|account|device|client|member|subscriber|sensor|tenant|player"

_DONE = "created|ordered|paid|placed|sent|logged|published|requested|started|begin|start"
_UNIT = "(unix|epoch|seconds|ms|millis|us|micros|ns|nano|nanos)"

_AROUND = {
    "event",
    "event data",
    "data",
    "body",
    "message",
    "detail",
    "payload",
    "record",
    "attributes",
    "value",
    "after",
}
_AROUND |= {
    "properties",
    "metadata",
    "meta",
    "header",
    "headers",
    "log",
    "source",
    "fields",
    "params",
    "context",
    "action",
}
"""Names of objects whose field `type` is the event's, not that of a device or a user."""

_BARE = {"type", "kind", "name"}
"""Names that say of the object that has the field what it is."""

_NAMES: Mapping[str, Sequence[tuple[int, str]]] = {
    "event_time": (
        (0, rf"(.* )?({_RECEIVED})( .*)?"),
        (20, rf"(.* )?({_LATER})( .*)?"),
        (100, r"event (time|timestamp|date|at|ts)|occurred (at|on)|happened at"),
        (90, rf"(timestamp|time|ts|at|datetime|(date|client|event) time)( {_UNIT})*|time (stamp|local|iso)"),
        (80, rf"({_DONE})( at| on| time| date)?( {_UNIT})*"),
        (70, r".* (at|on|time|timestamp|ts|datetime|date)|date|day|when|t"),
    ),
    "received_time": ((90, rf"({_RECEIVED})( at| on| time| timestamp| date| ts)?"),),
    "event_type": (
        (100, r"event (type|name|kind)|type|event"),
        (90, r"action|kind|operation|op|verb|(message|detail) type|method"),
        (70, r"category|status|state|name|level|.* (type|kind|action)"),
    ),
    "entity_id": (
        (0, rf"({_MESSAGE}|request|trace|span|correlation) (id|uuid|key)|uuid|guid"),
        (100, rf"entity( id)?|({_WHO})( id)?|userid"),
        (80, rf"({_WHO}|actor|subject|principal) (name|email|arn|key|uuid|uid|login)"),
        (70, r"(.* )?email( address)?|login|username|host( name)?|hostname|repository|full name"),
        (70, r"key|subject|(session|order) id"),
        (60, r"(client|remote|source) (ip|addr|address)( address)?|client|ip|c ip"),
        (60, r".* arn|arn"),
        (50, r".* (id|uuid|key)|id"),
    ),
    "idempotency_key": (
        (100, rf"idempotency key|({_MESSAGE}) (id|uuid|key)"),
        (90, r"uuid|guid|(request|transaction|tx|log|notification) id|id"),
    ),
    "source": (
        (90, r"source|event source|producer|origin|app|application|service|service name|system|logger|channel"),
    ),
    "payload": ((90, r"payload|data|body|message|detail|properties|value"),),
}
"""How much the words of a field's name speak for it, by the first pattern that matches all of them."""


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
        own, *outer = [_words(name) for name in reversed(named[-2:])]
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
        return 10 * len({str(one) for one in self.values.values()}) < len(self.values)

    @property
    def first(self) -> Any:
        """The value of the first record that has it."""
        return next(iter(self.values.values()))

    def score(self, event_field: str) -> int:
        """Return how much its name speaks for that field of events."""
        own, *outer = self.names
        is_named = event_field != "event_type" or own not in _BARE or not outer
        is_of_another = not is_named and outer[0].removesuffix(f" {own}") not in _AROUND
        best = max(_score(event_field, name) for name in (outer if is_of_another else self.names))
        return max(0, best - 3 * (len(self.path) - 1))


def _words(name: str) -> str:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.findall(r"[a-z]+|[0-9]+", apart.lower()))


def _score(event_field: str, name: str) -> int:
    return next((score for score, pattern in _NAMES[event_field] if re.fullmatch(pattern, name)), 0)


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
            enveloped += _words(path[-1]) in ENVELOPED
        if path and value not in (None, "") and (expression in found or len(found) < PATHS):
            found.setdefault(expression, Column(path, expression, enveloped)).values[number] = value
        if isinstance(value, dict) and len(path) < DEPTH:
            for name, inner in value.items():
                to_it = f"{expression}.{quoted(name)}" if expression else quoted(name)
                add(number, (*path, name), to_it, enveloped, inner)

    for number, line in enumerate(lines):
        add(number, (), "", 0, json.loads(line, parse_float=Decimal))
    return list(found.values())


def _object_in(value: Any) -> dict[str, Any] | None:
    """Return the JSON object that a text is, if it is one and has fields."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(value, parse_float=Decimal)
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
