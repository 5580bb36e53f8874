"""From raw lines to Arrow columns.

`read_slowly` is the definition: each line parsed, each field put into its column. `read_envelopes` cuts the same
columns out of all lines at once. It relies on what docs/format.md promises, the order of the fields and that names hold
no bare quote, and hands everything unusual to the slow way: escapes in names, and fields within fields that look like
the envelope's. It does not look into payloads: the checksums of their frames vouch for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pik.exporters.cutting import Lines, Unusual, after, strings
from pik.model.event import Delivery
from pik.model.instant import parse_instant
from pik.ports.exporter import COLUMNS, Piece

TIMESTAMP = pa.timestamp("ns", tz="UTC")

SCHEMA = pa.schema(
    [(name, TIMESTAMP if name.endswith("_time") else pa.int64() if name == "seq" else pa.string()) for name in COLUMNS]
)


@dataclass(frozen=True, slots=True)
class Envelopes:
    """A row a line, of SCHEMA. `exactly`: some payload has numbers that no machine number holds."""

    table: pa.Table
    exactly: bool


def read_envelopes(pieces: Sequence[Piece]) -> Envelopes:
    """The lines of all pieces, in order. Raises Damaged."""
    text = pieces[0].text if len(pieces) == 1 else b"".join(piece.text for piece in pieces)
    try:
        return _cut(text, sum(piece.lines for piece in pieces))
    except (Unusual, pa.ArrowInvalid, msgspec.MsgspecError, ValueError, OverflowError):
        return read_slowly(pieces)


def read_slowly(pieces: Sequence[Piece]) -> Envelopes:
    """The definition that `read_envelopes` must agree with."""
    found = [piece.read(line) for piece in pieces for line in piece.text.split(b"\n")[:-1]]
    columns = [pa.array([_field(one, name) for one in found], SCHEMA.field(name).type) for name in COLUMNS]
    return Envelopes(pa.Table.from_arrays(columns, schema=SCHEMA), any(bytes(one.payload_text) for one in found))


def _field(delivery: Delivery, name: str) -> Any:
    value = getattr(delivery, name)
    if isinstance(value, msgspec.Raw):
        return bytes(value) or None
    return parse_instant(value) if value is not None and name.endswith("_time") else value


class _Optional(msgspec.Struct):
    """What may stand between seq and payload."""

    idempotency_key: str | None = None
    extra: msgspec.Raw = msgspec.Raw(b"")
    original: msgspec.Raw = msgspec.Raw(b"")
    payload_text: msgspec.Raw = msgspec.Raw(b"")


_decode_optional = msgspec.json.Decoder(_Optional).decode


def _cut(text: bytes, count: int) -> Envelopes:
    """The columns of all lines. Raises Unusual, ArrowInvalid or a decoding error where they must be read slowly."""
    lines = Lines(text, count)
    names, at = _names(lines)
    times, at = _times_and_batch(lines, at)
    # That seq is here in every line tells that everything before it was where it should be.
    at = lines.behind(at, _SEQ)
    comma = lines.find(at, b",")
    payload = lines.find(comma, _PAYLOAD)
    optional, exactly = _optional(lines.between(comma, payload))
    columns = {
        **names,
        **times,
        **optional,
        "seq": lines.between(at, comma).cast(pa.int64()),
        "payload": lines.between(after(payload, len(_PAYLOAD)), after(lines.ends, -1)),
    }
    return Envelopes(pa.Table.from_arrays([columns[name] for name in COLUMNS], schema=SCHEMA), exactly)


_ID, _HASH, _SOURCE = b'{"event_id":"', b'","content_hash":"', b'","source":"'
_RECEIVED, _INGEST, _BATCH = b'","received_time":"', b'","ingest_time":"', b'","batch_id":"'
_SEQ, _PAYLOAD = b'","seq":', b',"payload":'
_ID_SIZE, _TIME_SIZE, _BATCH_SIZE = 32, 30, 26
_NOTHING = pa.nulls(1, pa.string())[0]


def _names(lines: Lines) -> tuple[dict[str, Any], Any]:
    """The columns from event_id to entity_id, and where event_time begins."""
    event_id = after(lines.starts, len(_ID))
    content_hash = after(event_id, _ID_SIZE + len(_HASH))
    columns = {"event_id": lines.fixed(event_id, _ID_SIZE), "content_hash": lines.fixed(content_hash, _ID_SIZE)}
    at = after(content_hash, _ID_SIZE + len(_SOURCE))
    for name, following in (("source", b"event_type"), ("event_type", b"entity_id"), ("entity_id", b"event_time")):
        border = b'","%s":"' % following
        end = lines.find(at, border)
        columns[name] = lines.between(at, end)
        if pc.any(pc.match_substring(columns[name], pattern="\\")).as_py():
            raise Unusual
        at = after(end, len(border))
    return columns, at


def _times_and_batch(lines: Lines, at: Any) -> tuple[dict[str, Any], Any]:
    """The columns from event_time to batch_id, and where that ends."""
    columns = {"event_time": lines.fixed(at, _TIME_SIZE).cast(TIMESTAMP)}
    at = after(at, _TIME_SIZE)
    received = lines.has(at, _RECEIVED)
    if pc.any(received).as_py():
        value = after(at, len(_RECEIVED))
        columns["received_time"] = pc.if_else(received, lines.fixed(value, _TIME_SIZE), _NOTHING).cast(TIMESTAMP)
        at = pc.if_else(received, after(value, _TIME_SIZE), at)
    else:
        columns["received_time"] = pa.nulls(lines.count, TIMESTAMP)
    ingest = after(at, len(_INGEST))
    batch = after(ingest, _TIME_SIZE + len(_BATCH))
    columns["ingest_time"] = lines.fixed(ingest, _TIME_SIZE).cast(TIMESTAMP)
    columns["batch_id"] = lines.fixed(batch, _BATCH_SIZE)
    return columns, after(batch, _BATCH_SIZE)


def _optional(texts: Any) -> tuple[dict[str, Any], bool]:
    """The columns between seq and payload, and whether some payload has a `payload_text`."""
    some = pc.binary_length(texts).cast(pa.bool_())
    # Had a payload been found inside another field, the braces would not match here.
    fields = [_decode_optional(f"{{{text[1:]}}}") for text in texts.filter(some).to_pylist()]
    keys = [(one.idempotency_key or "").encode() for one in fields]
    extras = [bytes(one.extra) for one in fields]
    columns = {"idempotency_key": _placed(keys, some), "extra": _placed(extras, some)}
    return columns, any(bytes(one.payload_text) for one in fields)


def _placed(texts: list[bytes], where: Any) -> Any:
    """A column with these texts in the rows that `where` marks; empty ones are nothing."""
    nothing = pa.nulls(len(where), pa.string())
    if not any(texts):
        return nothing
    placed = pc.replace_with_mask(nothing, where, strings(texts))
    return pc.if_else(pc.binary_length(placed).cast(pa.bool_()), placed, _NOTHING)
