"""Deliveries: the envelope in which raw keeps an event, written and read back, filters of deliveries, and user-defined
columns: a value extracted from every payload with JMESPath, converted exactly or not at all."""

from __future__ import annotations

import json
import re
from binascii import hexlify
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from pik.errors import Invalid, UsageError, command
from pik.model.event import Event, one_line
from pik.model.identity import exact_number, name_of_number
from pik.model.instant import full_instant, parse_event_time, parse_instant
from pik.model.window import ALL_TIME, Window
from pik.model.zone import Zones

if TYPE_CHECKING:
    from pik.model.jmes import Expression  # imports jmespath, which only exports and mappings need

_encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def stamp(ingest_time: int, batch_id: str) -> bytes:
    """Return the part of the envelope that all deliveries of a chunk share."""
    return b',"ingest_time":"%s","batch_id":"%s","seq":' % (full_instant(ingest_time).encode(), batch_id.encode())


def actor_field(actor: str) -> bytes:
    """Return the part of the envelope that names who sent an API request; empty without an actor."""
    return b',"actor":' + _encode(actor) if actor else b""


def file_field(name: str, first_seq: int) -> bytes:
    """Return the part of the envelope that names the file of a batch of several, and the seq of its first record."""
    return b',"file":%s,"file_first_seq":%d' % (_encode(name), first_seq)


def raw_line(event: Event, seq: int, stamp: bytes, original: bytes | None = None, actor: bytes = b"") -> bytes:
    """Return the envelope: one line of raw, without its line break. `actor` is an `actor_field`, a `file_field`, or one
    after the other.

    The order of the fields is part of the format; optional ones are left out where there is nothing to write.
    """
    received = b""
    if event.received_time is not None:
        received = b',"received_time":"%s"' % full_instant(event.received_time).encode()
    tail = actor
    if event.idempotency_key is not None:
        tail += b',"idempotency_key":' + _encode(event.idempotency_key)
    if event.written is not None:
        tail += event.written
    if event.extra is not None:
        tail += b',"extra":' + event.extra
    if original is not None:
        tail += b',"original":' + original
    if event.payload_text is not None:
        tail += b',"payload_text":' + event.payload_text
    event_id = hexlify(event.event_id)
    return b'{"event_id":"%s","content_hash":"%s",%s%s%s%d%s,"payload":%s}' % (
        event_id,
        event_id if event.content_hash is event.event_id else hexlify(event.content_hash),
        event.head,
        received,
        stamp,
        seq,
        tail,
        event.payload,
    )


def event_line(event: Event) -> bytes:
    """Return the event as one line of JSON that a producer would send, without unknown fields."""
    more = b""
    if event.idempotency_key is not None:
        more += b',"idempotency_key":' + _encode(event.idempotency_key)
    if event.received_time is not None:
        more += b',"received_time":"%s"' % full_instant(event.received_time).encode()
    return b'{%s%s,"payload":%s}' % (event.head, more, one_line(event.payload))


def event_line_in(zones: Zones, event: Event) -> bytes:
    """Return `event_line` of an event whose times were read in the zones: they have an offset now. The zones, and how
    they were written, are unknown fields of it, which raw keeps, beside those of the record itself."""
    names = {field: zone.name for field, zone in zip(Zones._fields, zones, strict=True) if zone is not None}
    alike = len(names) == len(zones) and len(set(names.values())) == 1
    fields = {"timezone": msgspec.Raw(_encode(names["event_time"] if alike else names))}
    ambiguous = next((zone.notes.ambiguous for zone in zones if zone is not None and zone.notes is not None), None)
    if ambiguous is not None:
        fields["ambiguous"] = msgspec.Raw(_encode(ambiguous))
    if event.written is not None:
        fields |= _decode_object(b"{" + event.written[1:] + b"}")
    if event.extra is not None:
        fields |= _decode_object(event.extra)
    return b"%s,%s" % (event_line(event)[:-1], _encode(fields)[1:])


class Delivery(msgspec.Struct, gc=False):
    """A raw line, read back. Times are RFC 3339 texts; `payload` and its siblings are JSON texts, empty if absent."""

    event_id: str
    content_hash: str
    source: str
    event_type: str
    entity_id: str
    event_time: str
    ingest_time: str
    batch_id: str
    seq: int
    payload: msgspec.Raw
    received_time: str | None = None
    actor: str = ""
    file: str = ""
    file_first_seq: int = 0
    idempotency_key: str | None = None
    event_time_original: str | None = None
    received_time_original: str | None = None
    extra: msgspec.Raw = msgspec.Raw(b"")
    original: msgspec.Raw = msgspec.Raw(b"")
    payload_text: msgspec.Raw = msgspec.Raw(b"")

    @property
    def file_record(self) -> int | None:
        """The position of the record in its file, where several files are one batch."""
        return self.seq - self.file_first_seq + 1 if self.file else None

    @property
    def event_instant(self) -> int:
        """event_time in nanoseconds since the epoch."""
        return parse_instant(self.event_time)

    @property
    def lag(self) -> int:
        """Nanoseconds from event_time to received_time, or to ingest_time without one; negative is clock skew."""
        return parse_instant(self.received_time or self.ingest_time) - parse_instant(self.event_time)


_decode_delivery = msgspec.json.Decoder(Delivery).decode


def read_delivery(line: bytes) -> Delivery:
    """Return a raw line as a Delivery. Raises Invalid if it is not one."""
    try:
        return _decode_delivery(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Invalid(f"a raw line is not a delivery: {error}") from None


def entity_mark(entity_id: str) -> bytes:
    """Return bytes that every raw line of this entity contains and that no other entity's envelope does."""
    return b',"entity_id":' + _encode(entity_id) + b',"event_time":'


def event_id_text(line: bytes) -> bytes:
    """Return the event_id of a raw line, without decoding the line; empty if it does not begin with one."""
    return line[len(_EVENT_ID) : len(_EVENT_ID) + 32] if line.startswith(_EVENT_ID) else b""


def lines_of(lines: Iterable[bytes], event_ids: Container[bytes]) -> list[bytes]:
    """Return the raw lines of these events, without decoding the lines."""
    begin, end = len(_EVENT_ID), len(_EVENT_ID) + 32
    return [line for line in lines if line[begin:end] in event_ids]


def event_time_text(line: bytes) -> bytes:
    """Return the event_time of a raw line as it is written there, without decoding the line; empty if it has none.

    The text always has the same number of digits (docs/format.md), so texts compare as the times do. The key cannot
    occur before it: a quotation mark inside of a JSON string is escaped.
    """
    start = line.find(_EVENT_TIME)
    return b"" if start < 0 else line[start + len(_EVENT_TIME) : start + len(_EVENT_TIME) + _INSTANT_LENGTH]


def seq_text(line: bytes) -> bytes:
    """Return the seq of a raw line as it is written there, without decoding the line; empty if it has none. As with
    `event_time_text`, the key cannot occur before it."""
    start = line.find(_SEQ) + len(_SEQ)
    return b"" if start < len(_SEQ) else line[start : line.find(b",", start)]


_EVENT_ID = b'{"event_id":"'
_SEQ = b',"seq":'
_EVENT_TIME = b',"event_time":"'
_INSTANT_LENGTH = len("2026-01-31T23:59:59.000000000Z")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries are asked for. Empty or None: no restriction."""

    window: Window = ALL_TIME
    entities: tuple[str, ...] = ()
    source: str | None = None
    event_type: str | None = None

    def matches(self, delivery: Delivery) -> bool:
        """Return whether the delivery is asked for."""
        return (
            (not self.entities or delivery.entity_id in self.entities)
            and (self.source is None or delivery.source == self.source)
            and (self.event_type is None or delivery.event_type == self.event_type)
            and delivery.event_instant in self.window
        )


TYPES = "string, int64, double, decimal(PRECISION,SCALE), bool, timestamp"

MAX_PRECISION = 38
"""Digits of a decimal, at most."""

_OTHER_TYPES = ("string", "int64", "double", "bool", "timestamp")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_DECIMAL = re.compile(r"decimal\((\d{1,2}),(\d{1,2})\)")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{1,100})?(?:[eE][+-]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class ExtractedColumn:
    """`NAME=JMESPATH:TYPE`, taken apart. `precision` and `scale` are those of a decimal."""

    name: str
    expression: str
    type: str
    precision: int
    scale: int
    search: Expression = field(compare=False, repr=False)

    def value(self, payload: Any, size: int = 0) -> Any:
        """Return what the expression finds in a payload whose JSON text has `size` bytes.

        As str, int (a timestamp too: nanoseconds), float, Decimal, bool, or None where it finds nothing. Raises Invalid
        for a value that the type does not hold exactly.
        """
        found = self.search.search(payload, size)
        if found is None:
            return None
        try:
            return _convert(found, self)
        except (Invalid, ArithmeticError, ValueError, TypeError):
            shown = msgspec.json.encode(found).decode(errors="replace")
            wanted = " (RFC 3339 with an offset from UTC)" if self.type == "timestamp" else ""
            raise Invalid(f"{shown[:60]} is not a value of type {self.type}{wanted}") from None


def extracted_values(
    columns: Sequence[ExtractedColumn], event_id: str, payload: bytes | msgspec.Raw, *, exactly: bool
) -> list[Any]:
    """Return each column's value. `exactly` is needed for payloads with a `payload_text`, and slow.

    Raises UsageError naming the event and the column whose type does not hold the value.
    """
    value = read_exactly(payload) if exactly else read_plainly(payload)
    values: list[Any] = []
    for column in columns:
        try:
            values.append(column.value(value, len(payload)))
        except Invalid as error:
            raise UsageError(
                f"--column {column.name}: event {event_id}: {error.message}",
                hint=f"string takes texts and numbers as they are; for its payload: {command('show', event_id)}",
            ) from None
    return values


def parse_column(text: str) -> ExtractedColumn:
    """Return the column that `NAME=JMESPATH:TYPE` describes. Raises UsageError."""
    name, equals, rest = text.partition("=")
    expression, colon, type_ = rest.rpartition(":")
    name, expression, type_ = name.strip(), expression.strip(), type_.replace(" ", "")
    if not equals or not colon or not expression:
        raise UsageError(f"--column {text}: expected NAME=JMESPATH:TYPE", hint="--column 'amount=amount:decimal(18,2)'")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--column {text}: {name!r} is not a column name", hint="letters, digits and _, not beginning with a digit"
        )
    precision, scale = _precision(text, type_)
    from pik.model.jmes import Expression

    return ExtractedColumn(name, expression, type_, precision, scale, Expression(expression, f"--column {text}"))


def _precision(text: str, type_: str) -> tuple[int, int]:
    match = _DECIMAL.fullmatch(type_)
    if match is None:
        if type_ not in _OTHER_TYPES:
            raise UsageError(f"--column {text}: unknown type {type_!r}", hint=f"types: {TYPES}")
        return 0, 0
    precision, scale = int(match[1]), int(match[2])
    if not 0 <= scale <= precision or not 1 <= precision <= MAX_PRECISION:
        raise UsageError(
            f"--column {text}: invalid type {type_}",
            hint=f"decimal(PRECISION,SCALE) has 1 to {MAX_PRECISION} digits, at most as many of them after the point",
        )
    return precision, scale


_decode = msgspec.json.Decoder().decode


def read_plainly(payload: bytes | msgspec.Raw) -> Any:
    """Return the value of a payload without a `payload_text`: machine numbers hold all of its numbers."""
    return _decode(payload)


def read_exactly(payload: bytes | msgspec.Raw) -> Any:
    """Return the value of any payload: numbers that no machine number holds are Decimals. Otherwise as
    `read_plainly`."""
    return json.loads(bytes(payload), parse_float=exact_number, parse_int=exact_number)


def _number(found: Any) -> Decimal:
    """Return the exact number of a JSON number, or of a string that is written like one."""
    if isinstance(found, str):
        if not _JSON_NUMBER.fullmatch(found):
            raise ValueError(found)
        return Decimal(found)
    if isinstance(found, bool) or not isinstance(found, (int, float, Decimal)):
        raise TypeError(found)
    return Decimal(repr(found)) if isinstance(found, float) else Decimal(found)


def _convert(found: Any, column: ExtractedColumn) -> Any:
    """Return what was found as a value of the column's type. Raises Invalid, ArithmeticError, ValueError or TypeError
    where the type does not hold it exactly."""
    kind = column.type
    if kind == "timestamp":
        return parse_event_time(found, None)
    if kind == "bool":
        if not isinstance(found, bool):
            raise TypeError(found)
        return found
    if kind == "string" and isinstance(found, (str, bool)):
        return found if isinstance(found, str) else str(found).lower()
    number = _number(found)
    if kind == "string":
        return name_of_number(str(number))
    if kind == "double":
        value = float(number)
        # 0.1 is the double that prints as 0.1; of 9007199254740993 there is none.
        if Decimal(repr(value)) != number:
            raise ValueError(found)
        return value + 0.0  # no minus zero
    if kind == "int64":
        if abs(number) >= 2**64 or number != (whole := int(number)) or not -(2**63) <= whole < 2**63:
            raise ValueError(found)
        return whole
    if not number:
        return Decimal((0, (0,), -column.scale))
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "JSON has no NaN and no Infinity"
    shift = exponent + column.scale
    if len(digits) + shift > column.precision or (shift < 0 and any(digits[shift:])):
        raise ValueError(found)
    kept = (*digits, *(0,) * shift) if shift >= 0 else digits[:shift]
    return Decimal((sign, kept, -column.scale))
