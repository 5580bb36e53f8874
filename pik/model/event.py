"""The event model: the fields of an event, what a valid event is, and how lines of events are read.

`read_event` defines what is valid. It first decodes the line into `EventLine`, which takes only the usual shape;
whatever that refuses is read field by field by `read_event_slowly`, with a reason that a person understands.
`read_rows` reads many lines at once and agrees with both (a property test compares them).
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import NamedTuple

import msgspec

from pik.errors import Invalid
from pik.model.identity import (
    Payload,
    check_json,
    content_hash,
    keyed_id,
    read_json_slowly,
    read_payload,
    read_payloads,
)
from pik.model.instant import full_instant, read_instant
from pik.model.zone import NO_ZONES, Zones

MAX_STRING = 256
"""Bytes (UTF-8) of source, event_type, entity_id and idempotency_key, at most."""

MAX_LINE = 1 << 20
"""Bytes of a line, at most, unless an option raises it."""


class FieldType(StrEnum):
    """The type of a field of the envelope."""

    TEXT = "text"
    INSTANT = "instant"
    INTEGER = "integer"
    JSON = "json"


class Field(NamedTuple):
    """A field of the envelope. `sent`: producers send it, and must if it is `required`. `hashed`: the content hash
    covers it or is made of it, so it is the same for all deliveries with that hash."""

    name: str
    type: FieldType = FieldType.TEXT
    sent: bool = False
    required: bool = False
    hashed: bool = True


ENVELOPE = (
    Field("event_id"),
    Field("content_hash"),
    Field("source", sent=True, required=True),
    Field("event_type", sent=True, required=True),
    Field("entity_id", sent=True, required=True),
    Field("event_time", FieldType.INSTANT, sent=True, required=True),
    Field("received_time", FieldType.INSTANT, sent=True, hashed=False),
    Field("ingest_time", FieldType.INSTANT, hashed=False),
    Field("batch_id", hashed=False),
    Field("seq", FieldType.INTEGER, hashed=False),
    Field("idempotency_key", sent=True),
    Field("payload", FieldType.JSON, sent=True, required=True),
    Field("extra", FieldType.JSON, hashed=False),
)
"""The one declaration of an event's fields; the columns of exports and of metrics, in this order, derive from it.

A new optional field takes a line here, an attribute of `Delivery`, and the readers in this file that validate it.
"""

REQUIRED = tuple(each.name for each in ENVELOPE if each.required)
FIELDS = tuple(each.name for each in sorted(ENVELOPE, key=lambda one: not one.required) if each.sent)
"""The fields that producers send, the required ones first."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class EventLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event as producers send it, in the usual shape."""

    source: str
    event_type: str
    entity_id: str
    event_time: str
    payload: msgspec.Raw
    received_time: str | None = None
    idempotency_key: str | None = None


class Event(msgspec.Struct, gc=False):
    """A valid event. Times are nanoseconds since the epoch; `payload`, `payload_text` and `extra` are JSON texts.

    `head` is the part of the envelope from source to event_time, `written` the part that keeps the times as they were
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


_decode_line = msgspec.json.Decoder(EventLine).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode
_UNUSUAL = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoders raise."""


_KINDS = {b"[": "a list", b'"': "a text", b"t": "true", b"f": "false", b"n": "null"}


def read_event(line: bytes, zones: Zones = NO_ZONES) -> Event:
    """Return the event of one line of JSON; times without an offset are in `zones`. Raises Invalid with field and
    reason."""
    try:
        read = _decode_line(line)
    except _UNUSUAL:
        return read_event_slowly(line, zones)
    payload = bytes(read.payload)
    return event_of(read, payload, read_payload(payload), zones)


def read_event_slowly(line: bytes, zones: Zones = NO_ZONES) -> Event:
    """The definition that `read_event` must agree with: field by field, unknown ones kept, refusals with a reason."""
    try:
        members = _decode_object(line)
    except UnicodeDecodeError as error:
        raise Invalid(f"the line is not UTF-8: {error.reason}") from None
    except RecursionError:
        raise Invalid("the line is nested too deeply") from None
    except msgspec.ValidationError:
        raise Invalid(f"an event is a JSON object; this is {_KINDS.get(line.lstrip()[:1], 'a number')}") from None
    except (msgspec.DecodeError, ValueError) as error:
        expect_text(line)
        read_json_slowly(line, "the line")
        raise Invalid(f"the line is not JSON: {error}") from None
    missing = [name for name in REQUIRED if name not in members]
    if missing:
        raise Invalid(f"{missing[0]} is missing", field=missing[0])
    texts = {name: _text(name, members[name]) for name in FIELDS if name in members and name != "payload"}
    payload = bytes(members["payload"])
    read = EventLine(payload=members["payload"], **{name: text for name, text in texts.items() if text is not None})
    event = event_of(read, payload, read_payload(payload), zones)
    if unknown := {name: raw for name, raw in members.items() if name not in FIELDS}:
        extra = _encode(unknown)
        check_json(extra, "an unknown field")
        event.extra = one_line(extra)
    return event


def expect_text(line: bytes) -> None:
    """Raises Invalid for a record of NUL bytes."""
    if line.startswith(b"\0") and not line.strip(b"\0"):
        raise Invalid("a run of NUL bytes, as a loss of power or copytruncate leaves it in a log")


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


def event_of(line: EventLine, raw: bytes, payload: Payload, zones: Zones) -> Event:
    """Return the event with these fields, after the checks that all readers share; `raw` is the payload's text,
    `payload` what was read of it. Raises Invalid.

    Most of the time of a mapped ingest passes here, hence the look-ups in place.
    """
    source, entity_id = line.source, line.entity_id
    source_json = _known_names.get(source) or name_json("source", source)
    type_json = _known_names.get(line.event_type) or name_json("event_type", line.event_type)
    entity_json = _known_names.get(entity_id) or name_json("entity_id", entity_id)
    key, received, name = line.idempotency_key, line.received_time, "event_time"
    try:
        time, time_json, time_text = read_instant(line.event_time, zones[0])
        name, received_time, received_text = "received_time", None, None
        if received is not None:
            received_time, _, received_text = read_instant(received, zones[1])
    except Invalid as error:
        raise Invalid(f"{name} {error.message}", field=name, option=error.option) from None
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
    """Return the part of the envelope that keeps the times as they were written; None for those that are canonical."""
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


_known_names: dict[str, bytes] = {}
"""JSON texts of checked names. Names repeat; a plain dict answers faster than lru_cache."""


def name_json(name: str, value: str) -> bytes:
    """Return the checked value as JSON text, remembered in `_known_names`."""
    check_name(name, value)
    if len(_known_names) >= 65536:
        _known_names.clear()
    return _known_names.setdefault(value, _encode(value))


def one_line(raw: bytes) -> bytes:
    """Return JSON text without line breaks: those between tokens become spaces (inside strings JSON allows none)."""
    return raw.replace(b"\n", b" ").replace(b"\r", b" ")


@dataclass(slots=True)
class Rows:
    """Events in columns: the n-th item of each list belongs to the n-th event. `contents` has None where the event has
    no idempotency key, so that its content hash is its id; `lines` are the lines of raw."""

    entity_ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)
    event_ids: list[bytes] = field(default_factory=list)
    contents: list[bytes | None] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)


def read_rows(
    lines: Sequence[bytes],
    first_seq: int,
    ingest_time: int,
    stamped: bytes,
    zones: Zones = NO_ZONES,
    actor: bytes = b"",
) -> Rows | None:
    """Return what `read_event` and `raw_line` make of lines with consecutive seqs; None if one of them is unusual, let
    alone invalid. `stamped` is the stamp of `ingest_time` and the batch, `actor` the field of its actor.

    Nearly all of the time of an ingest passes here, hence no object per event.
    """
    try:
        read = list(map(_decode_line, lines))
        payloads = [bytes(line.payload) for line in read]
        if b"\r" in b"".join(payloads):
            return None
        rows = Rows()
        add_id, add_content, add_line = rows.event_ids.append, rows.contents.append, rows.lines.append
        add_time, add_lag = rows.times.append, rows.lags.append
        known = _known_names.get
        zone, received_zone = zones
        for seq, line, payload, (canonical, payload_text) in zip(
            count(first_seq), read, payloads, read_payloads(payloads), strict=False
        ):
            source = known(line.source) or name_json("source", line.source)
            event_type = known(line.event_type) or name_json("event_type", line.event_type)
            entity_id = known(line.entity_id) or name_json("entity_id", line.entity_id)
            time, time_json, time_text = read_instant(line.event_time, zone)
            received_time, received_text, received, tail = ingest_time, None, b"", actor
            if line.received_time is not None:
                received_time, _, received_text = read_instant(line.received_time, received_zone)
                received = b',"received_time":"%s"' % full_instant(received_time).encode()
            content = content_hash(source, event_type, entity_id, time_json, canonical)
            hex_content = hex_id = hexlify(content)
            if line.idempotency_key is None:
                add_id(content)
                add_content(None)
            else:
                check_name("idempotency_key", line.idempotency_key)
                key = _encode(line.idempotency_key)
                event_id = keyed_id(source, event_type, entity_id, key)
                hex_id, tail = hexlify(event_id), actor + b',"idempotency_key":' + key
                add_id(event_id)
                add_content(content)
            if time_text is not None or received_text is not None:
                tail += as_written(time_text, received_text) or b""
            if payload_text is not None:
                tail += b',"payload_text":' + payload_text
            add_time(time)
            add_lag(received_time - time)
            add_line(
                b'{"event_id":"%s","content_hash":"%s","source":%s,"event_type":%s,"entity_id":%s,"event_time":%s%s%s%d'
                b'%s,"payload":%s}'
                % (
                    hex_id,
                    hex_content,
                    source,
                    event_type,
                    entity_id,
                    time_json,
                    received,
                    stamped,
                    seq,
                    tail,
                    payload,
                )
            )
        rows.entity_ids += [line.entity_id for line in read]
        rows.sources += [line.source for line in read]
    except (*_UNUSUAL, Invalid):
        return None
    return rows
