"""One record as the event that it becomes, and where each field of the event comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from pik.inputs.mapping import RecordMapping
from pik.model.delivery import raw_line, read_delivery, stamp
from pik.model.event import ENVELOPE, read_event
from pik.model.place import NOWHERE, Place
from pik.model.zone import NO_ZONES, Zones

SENT = tuple(field.name for field in ENVELOPE if field.sent)
"""The fields of an event that a record can have."""


@dataclass(frozen=True, slots=True)
class FieldOrigin:
    """A field of an event: the `expression` that found it (None: the record's field of that name), what it `found` in
    the record, and the `value` that the event has. Both are JSON."""

    field: str
    expression: str | None
    found: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Preview:
    """A record that is a valid event: its position in the input, and its fields."""

    seq: int
    fields: tuple[FieldOrigin, ...]


def preview(
    line: bytes, seq: int, mapping: RecordMapping | None, zones: Zones = NO_ZONES, place: Place = NOWHERE
) -> Preview:
    """Return what becomes of a record. Raises Invalid if it is not an event.

    `zones` are those of times without an offset where records are events without a mapping.
    """
    if mapping is None:
        event, found = read_event(line, zones), _fields(line)
    else:
        event, found = mapping.read(line, place)[0], mapping.found(line, place)
    delivery = read_delivery(raw_line(event, seq, stamp(0, "")))
    return Preview(seq, tuple(_origins(mapping, found, delivery)))


def _fields(line: bytes) -> dict[str, Any]:
    """Return the fields of a record that is an event as it stands."""
    record = _decode(line)
    return {name: record[name] for name in SENT if name in record}


def _origins(mapping: RecordMapping | None, found: dict[str, Any], delivery: object) -> Iterator[FieldOrigin]:
    for name in SENT:
        value = getattr(delivery, name)
        if value is not None:
            expression = None if mapping is None else mapping.given(name)
            yield FieldOrigin(name, expression, _encode(found.get(name)), _encode(value))


_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode
