"""The event model: what a valid event is, and the envelope in which raw keeps a delivery.

`read_event` is the one definition of what is valid. It first tries to decode the line into `_Line`, which takes the
plain shape only; whatever that refuses is read field by field, with a reason that a person understands.
"""

from __future__ import annotations

import re
from binascii import hexlify
from typing import TYPE_CHECKING, Any

import msgspec

from pik.errors import Invalid
from pik.model.identity import (
    Payload,
    check_json,
    content_hash,
    keyed_id,
    read_json_slowly,
    read_payload,
)
from pik.model.instant import full_instant, parse_instant, read_instant

if TYPE_CHECKING:
    from pik.model.zone import Zone

MAX_STRING = 256
"""Bytes (UTF-8) of source, event_type, entity_id and idempotency_key, at most."""

MAX_LINE = 1 << 20
"""Bytes of a line, at most, unless an option raises it."""

REQUIRED = ("source", "event_type", "entity_id", "event_time", "payload")
FIELDS = (*REQUIRED, "idempotency_key", "received_time")

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event as producers send it, in the shape that nearly all do."""

    source: str
    event_type: str
    entity_id: str
    event_time: str
    payload: msgspec.Raw
    idempotency_key: str | None = None
    received_time: str | None = None


class Event(msgspec.Struct, gc=False):
    """A valid event. Times are nanoseconds since the epoch; `payload`, `payload_text` and `extra` are JSON texts.

    `head` is the part of the envelope from source to event_time, `written` the part that says how its times were
    written, where that is not canonical.
    """

    source: str
    entity_id: str
    event_time: int
    received_time: int | None
    idempotency_key: str | None
    event_id: bytes
    content_hash: bytes
    head: bytes
    payload: bytes
    payload_text: bytes | None
    written: bytes | None = None
    extra: bytes | None = None


_NO_PAYLOAD = msgspec.Raw()
decode_line = msgspec.json.Decoder(_Line).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode
UNUSUAL = (msgspec.MsgspecError, ValueError, RecursionError)  # what decoders raise


def read_event(line: bytes, zone: Zone | None = None) -> Event:
    """The event of one line of JSON; times without an offset are in `zone`. Raises Invalid with field and reason."""
    try:
        read = decode_line(line)
    except UNUSUAL:
        return read_event_slowly(line, zone)
    payload = bytes(read.payload)
    return _event(read, payload, read_payload(payload), zone)


def read_event_slowly(line: bytes, zone: Zone | None = None) -> Event:
    """The definition that `read_event` must agree with: field by field, unknown ones kept, refusals with a reason."""
    try:
        members = _decode_object(line)
    except UnicodeDecodeError as error:
        raise Invalid(f"the line is not UTF-8: {error.reason}") from None
    except RecursionError:
        raise Invalid("the line is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise Invalid(f"an event is a JSON object; this is not: {error}") from None
    except (msgspec.DecodeError, ValueError) as error:
        expect_text(line)
        if b"\\u" in line:
            read_json_slowly(line, "the line")  # tells half of a surrogate pair from a line that is cut
        raise Invalid(f"the line is not JSON: {_plainly(error)}") from None
    missing = [name for name in REQUIRED if name not in members]
    if missing:
        raise Invalid(f"{missing[0]} is missing", field=missing[0])
    texts = {name: _text(name, members[name]) for name in FIELDS if name in members and name != "payload"}
    unknown = {name: raw for name, raw in members.items() if name not in FIELDS}
    read = _Line(
        source=texts["source"] or "",
        event_type=texts["event_type"] or "",
        entity_id=texts["entity_id"] or "",
        event_time=texts["event_time"] or "",
        payload=members["payload"],
        idempotency_key=texts.get("idempotency_key"),
        received_time=texts.get("received_time"),
    )
    payload = bytes(read.payload)
    event = _event(read, payload, read_payload(payload), zone)
    if unknown:
        extra = _encode(unknown)
        check_json(extra, "an unknown field")
        event.extra = one_line(extra)
    return event


def expect_text(line: bytes) -> None:
    """Raises Invalid for a record of NUL bytes."""
    if line.startswith(b"\0") and not line.strip(b"\0"):
        raise Invalid("a run of NUL bytes, as a loss of power or copytruncate leaves it in a log")


def _plainly(error: Exception) -> str:
    text = str(error).removeprefix("JSON is malformed: ")
    return "it ends too early" if text == "Input data was truncated" else text


def _text(name: str, raw: msgspec.Raw) -> str | None:
    try:
        return _decode_string(raw)
    except UnicodeDecodeError:
        raise Invalid(f"{name} is not UTF-8", field=name) from None
    except (msgspec.MsgspecError, ValueError):
        if bytes(raw) == b"null" and name not in REQUIRED:
            return None
        shown = bytes(raw)[:40].decode(errors="replace")
        raise Invalid(f"{name} is not a string: '{shown}'", field=name) from None


def event_of(
    source: str,
    event_type: str,
    entity_id: str,
    times: tuple[str, str | None],
    idempotency_key: str | None,
    payload: tuple[bytes, bytes],
    zone: Zone | None,
) -> Event:
    """The event with these fields. `times` are event_time and received_time, `payload` its text and its canonical JSON.

    Raises Invalid.
    """
    line = _Line(source, event_type, entity_id, times[0], _NO_PAYLOAD, idempotency_key, times[1])
    return _event(line, payload[0], (payload[1], None), zone)


def _event(line: _Line, raw: bytes, payload: Payload, zone: Zone | None) -> Event:
    """The checks that all readers share; `raw` is the payload's text, `payload` what was read of it.

    Most of the time of an ingest passes here, hence the look-ups in place.
    """
    source, entity_id = line.source, line.entity_id
    source_json = known_names.get(source) or name_json("source", source)
    type_json = known_names.get(line.event_type) or name_json("event_type", line.event_type)
    entity_json = known_names.get(entity_id) or name_json("entity_id", entity_id)
    key, received, name = line.idempotency_key, line.received_time, "event_time"
    try:
        time, time_json, time_text = read_instant(line.event_time, zone)
        name, received_time, received_text = "received_time", None, None
        if received is not None:
            received_time, _, received_text = read_instant(received, zone)
    except Invalid as error:
        raise Invalid(f"{name} {error.message}", field=name) from None
    canonical, payload_text = payload
    identity = content = content_hash(source_json, type_json, entity_json, time_json, canonical)
    if key is not None:
        check_name("idempotency_key", key)
        identity = keyed_id(source_json, type_json, entity_json, _encode(key))
    return Event(
        source,
        entity_id,
        time,
        received_time,
        key,
        identity,
        content,
        b'"source":%s,"event_type":%s,"entity_id":%s,"event_time":%s'
        % (source_json, type_json, entity_json, time_json),
        one_line(raw) if b"\r" in raw else raw,
        payload_text,
        None if time_text is None and received_text is None else as_written(time_text, received_text),
    )


def as_written(event_time: str | None, received_time: str | None) -> bytes | None:
    """The part of the envelope that tells how the times were written; None for those that are canonical."""
    written = b""
    if event_time is not None:
        written += b',"event_time_original":' + _encode(event_time)
    if received_time is not None:
        written += b',"received_time_original":' + _encode(received_time)
    return written or None


def check_name(name: str, value: str) -> None:
    """Raises Invalid unless `value` is a non-empty string of at most MAX_STRING bytes without control characters."""
    if value.isascii() and value.isprintable() and 0 < len(value) <= MAX_STRING:
        return
    if not value:
        raise Invalid(f"{name} is empty", field=name)
    if len(value.encode()) > MAX_STRING:
        raise Invalid(f"{name} is longer than {MAX_STRING} bytes", field=name)
    if _CONTROL.search(value):
        raise Invalid(f"{name} has a control character", field=name)


known_names: dict[str, bytes] = {}
"""JSON texts of checked names. Names repeat; a plain dict answers faster than lru_cache."""


def name_json(name: str, value: str) -> bytes:
    """The checked value as JSON text, remembered in `known_names`."""
    check_name(name, value)
    if len(known_names) >= 65536:
        known_names.clear()
    return known_names.setdefault(value, _encode(value))


def one_line(raw: bytes) -> bytes:
    """JSON text without line breaks: those between tokens become spaces (inside strings JSON allows none)."""
    return raw.replace(b"\n", b" ").replace(b"\r", b" ")


def raw_line(event: Event, seq: int, stamp: bytes, original: bytes | None = None) -> bytes:
    """The envelope: one line of raw, without its line break.

    `stamp` is the part that a whole chunk shares (see `stamp`). The order of the fields is part of the format; optional
    ones are left out where there is nothing to say.
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
    """The event as one line of JSON that a producer would send, without unknown fields."""
    more = b""
    if event.idempotency_key is not None:
        more += b',"idempotency_key":' + _encode(event.idempotency_key)
    if event.received_time is not None:
        more += b',"received_time":"%s"' % full_instant(event.received_time).encode()
    return b'{%s%s,"payload":%s}' % (event.head, more, one_line(event.payload))


def event_line_in(zone: Zone, event: Event) -> bytes:
    """`event_line`, of an event whose times were read in the zone: they have an offset now. The zone, and how they were
    written, are unknown fields of it, which raw keeps, beside those of the record itself."""
    fields = {"timezone": msgspec.Raw(_encode(zone.name))}
    if event.written is not None:
        fields |= _decode_object(b"{" + event.written[1:] + b"}")
    if event.extra is not None:
        fields |= _decode_object(event.extra)
    return b"%s,%s" % (event_line(event)[:-1], _encode(fields)[1:])


def stamp(ingest_time: int, batch_id: str) -> bytes:
    """The part of the envelope that all deliveries of a chunk share."""
    return b',"ingest_time":"%s","batch_id":"%s","seq":' % (full_instant(ingest_time).encode(), batch_id.encode())


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
    """A raw line as a Delivery. Raises Invalid if it is not one."""
    try:
        return _decode_delivery(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Invalid(f"a raw line is not a delivery: {error}") from None


def entity_mark(entity_id: str) -> bytes:
    """The bytes that every raw line of this entity contains and that no other entity's envelope does."""
    return b',"entity_id":' + _encode(entity_id) + b',"event_time":'


def event_id_text(line: bytes) -> bytes:
    """The event_id of a raw line, without decoding the line; empty if it does not begin with one."""
    return line[len(_EVENT_ID) : len(_EVENT_ID) + 32] if line.startswith(_EVENT_ID) else b""


def event_time_text(line: bytes) -> bytes:
    """The event_time of a raw line as it is written there, without decoding the line; empty if it has none.

    The text has always as many digits (docs/format.md), so texts compare as the times do. The key cannot occur before
    it: a quotation mark inside of a JSON string is escaped.
    """
    start = line.find(_EVENT_TIME)
    return b"" if start < 0 else line[start + len(_EVENT_TIME) : start + len(_EVENT_TIME) + _INSTANT_LENGTH]


_EVENT_ID = b'{"event_id":"'
_EVENT_TIME = b',"event_time":"'
_INSTANT_LENGTH = len("2026-01-31T23:59:59.000000000Z")


def to_json(value: Any) -> bytes:
    """JSON text of a value built from what `Delivery` holds."""
    return _encode(value)
