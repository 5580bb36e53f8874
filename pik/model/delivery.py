"""Deliveries: the envelope in which raw keeps an event, written and read back, and filters of deliveries."""

from __future__ import annotations

from binascii import hexlify
from dataclasses import dataclass
from typing import Any

import msgspec

from pik.errors import Invalid
from pik.model.event import Event, one_line
from pik.model.instant import Zone, full_instant, parse_instant
from pik.model.window import ALL_TIME, Window

_encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def stamp(ingest_time: int, batch_id: str) -> bytes:
    """Return the part of the envelope that all deliveries of a chunk share."""
    return b',"ingest_time":"%s","batch_id":"%s","seq":' % (full_instant(ingest_time).encode(), batch_id.encode())


def raw_line(event: Event, seq: int, stamp: bytes, original: bytes | None = None) -> bytes:
    """Return the envelope: one line of raw, without its line break.

    The order of the fields is part of the format; optional ones are left out where there is nothing to write.
    """
    received = b""
    if event.received_time is not None:
        received = b',"received_time":"%s"' % full_instant(event.received_time).encode()
    tail = b""
    if event.idempotency_key is not None:
        tail = b',"idempotency_key":' + _encode(event.idempotency_key)
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


def event_line_in(zone: Zone, event: Event) -> bytes:
    """Return `event_line` of an event whose times were read in the zone: they have an offset now. The zone, and how
    they were written, are unknown fields of it, which raw keeps, beside those of the record itself."""
    fields = {"timezone": msgspec.Raw(_encode(zone.name))}
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
    idempotency_key: str | None = None
    event_time_original: str | None = None
    received_time_original: str | None = None
    extra: msgspec.Raw = msgspec.Raw(b"")
    original: msgspec.Raw = msgspec.Raw(b"")
    payload_text: msgspec.Raw = msgspec.Raw(b"")

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


def event_time_text(line: bytes) -> bytes:
    """Return the event_time of a raw line as it is written there, without decoding the line; empty if it has none.

    The text always has the same number of digits (docs/format.md), so texts compare as the times do. The key cannot
    occur before it: a quotation mark inside of a JSON string is escaped.
    """
    start = line.find(_EVENT_TIME)
    return b"" if start < 0 else line[start + len(_EVENT_TIME) : start + len(_EVENT_TIME) + _INSTANT_LENGTH]


_EVENT_ID = b'{"event_id":"'
_EVENT_TIME = b',"event_time":"'
_INSTANT_LENGTH = len("2026-01-31T23:59:59.000000000Z")


def to_json(value: Any) -> bytes:
    """Return the JSON text of a value built from what `Delivery` holds."""
    return _encode(value)


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
