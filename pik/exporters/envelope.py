"""From raw lines to Arrow columns.

`read_slowly` is the definition: it parses each line. `read_envelopes` slices the same columns out of all lines at once,
without a Python object per line. It relies on what docs/format.md promises, the order of the fields and that names hold
no bare quote, and leaves everything unusual to the slow way: escapes in names, and fields within fields that look like
the envelope's. It does not parse payloads: the checksums of their frames vouch for those.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pik.model.delivery import Delivery
from pik.model.event import ENVELOPE, FieldType
from pik.model.instant import parse_instant
from pik.ports.exporter import Block, Piece

# pa.array and pa.scalar import pandas where that is installed, which takes longer than a hundred thousand events.


def integers(values: Iterable[int]) -> Any:
    """Return an Arrow array. Raises OverflowError for more than 64 bits."""
    numbers = array("q", values)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def strings(texts: Sequence[bytes]) -> Any:
    """Return an Arrow array. Raises ArrowInvalid for what is not UTF-8."""
    offsets = _positions(accumulate(map(len, texts), initial=0)).buffers()[1]
    made = pa.Array.from_buffers(pa.string(), len(texts), [None, offsets, pa.py_buffer(b"".join(texts))])
    made.validate(full=True)
    return made


def _positions(values: Iterable[int]) -> Any:
    numbers = array("i", values)
    return pa.Array.from_buffers(pa.int32(), len(numbers), [None, pa.py_buffer(numbers)])


@lru_cache(maxsize=64)
def _scalar(value: int) -> Any:
    return _positions([value])[0]


def after(at: Any, size: int) -> Any:
    """Return the positions `size` bytes further on."""
    return pc.add(at, _scalar(size))


class Unusual(Exception):
    """The lines are not written alike."""


class Lines:
    """Lines of a text, sliced by positions, one for each line.

    `starts` and `ends` are the positions of each line's first byte and of its line break. Every method raises Unusual
    or ArrowInvalid rather than read beyond the text.
    """

    def __init__(self, text: bytes, ends: array[int]) -> None:
        self.ends = integers(ends).cast(pa.int32())
        self.starts = pa.concat_arrays([_positions([0]), after(self.ends.slice(0, len(ends) - 1), 1)])
        self._size = _positions([len(text)])
        self._buffer = pa.py_buffer(text)

    def _split(self, at: Any) -> Any:
        """Return the bytes from each position up to the next one; the last go to the end."""
        offsets = pa.concat_arrays([at, self._size]).buffers()[1]
        made = pa.Array.from_buffers(pa.binary(), len(at), [None, offsets, self._buffer])
        made.validate(full=True)  # positions in order, and all of them inside
        return made

    def fixed(self, at: Any, size: int) -> Any:
        """Return the `size` bytes at each position, as texts."""
        return pc.binary_slice(self._split(at), 0, size).cast(pa.string())

    def between(self, begin: Any, end: Any) -> Any:
        """Return the bytes from each begin to its end, as texts."""
        count = len(begin)
        twice, odd, evens = _interleaving(1 << max(14, count.bit_length()))
        order = pc.add(twice.slice(0, 2 * count), pc.multiply(odd.slice(0, 2 * count), _scalar(count)))
        bounds = pa.concat_arrays([begin, end]).take(order)
        return self._split(bounds).take(evens.slice(0, count)).cast(pa.string())

    def find(self, at: Any, text: bytes) -> Any:
        """Return the position of the first such text after each position."""
        found = pc.find_substring(self._split(at), pattern=text)
        if pc.min_max(found)["min"].as_py() < 0:
            raise Unusual
        return pc.add(at, found)

    def has(self, at: Any, text: bytes) -> Any:
        """Return whether this text is at each position."""
        return pc.equal(pc.binary_slice(self._split(at), 0, len(text)), strings([text]).cast(pa.binary())[0])

    def past(self, at: Any, text: bytes) -> Any:
        """Return the positions after this text, which must be at all of them."""
        if not pc.all(self.has(at, text)).as_py():
            raise Unusual
        return after(at, len(text))


@lru_cache(maxsize=2)
def _interleaving(size: int) -> tuple[Any, Any, Any]:
    """0 0 1 1 2 2 …, 0 1 0 1 0 1 …, 0 2 4 6 …"""
    numbers = range(2 * size)
    return (
        _positions([number >> 1 for number in numbers]),
        _positions([number & 1 for number in numbers]),
        _positions(numbers[::2]),
    )


TIMESTAMP = pa.timestamp("ns", tz="UTC")

_TYPES = {FieldType.INSTANT: TIMESTAMP, FieldType.INTEGER: pa.int64()}
SCHEMA = pa.schema([(field.name, _TYPES.get(field.type, pa.string())) for field in ENVELOPE])


def read_envelopes(block: Block, *, duplicates: bool) -> tuple[pa.Table, bool]:
    """Return the lines of a block as rows of SCHEMA, in order; with `duplicates` false without those. And whether some
    payload has numbers that no machine number holds. Raises Damaged."""
    try:
        return _sliced(block, duplicates)
    except (Unusual, pa.ArrowInvalid, msgspec.MsgspecError, ValueError, OverflowError):
        return read_slowly(block, duplicates=duplicates)


def read_slowly(block: Block, *, duplicates: bool) -> tuple[pa.Table, bool]:
    """The definition that `read_envelopes` must agree with."""
    found = []
    for piece, line in block.lines():
        delivery = piece.read(line)
        if duplicates or delivery.seq not in piece.verdicts:
            found.append(delivery)
    columns = [pa.array([_value(one, field) for one in found], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA), any(bytes(one.payload_text) for one in found)


def _value(delivery: Delivery, field: pa.Field) -> Any:
    value = getattr(delivery, field.name)
    if isinstance(value, msgspec.Raw):
        return bytes(value) or None
    return parse_instant(value) if value is not None and field.type == TIMESTAMP else value


_ID, _HASH, _SOURCE = b'{"event_id":"', b'","content_hash":"', b'","source":"'
_TYPE, _ENTITY, _TIME = b'","event_type":"', b'","entity_id":"', b'","event_time":"'
_RECEIVED, _INGEST, _BATCH = b'","received_time":"', b'","ingest_time":"', b'","batch_id":"'
_SEQ, _PAYLOAD = b'","seq":', b',"payload":'
_ID_SIZE, _TIME_SIZE, _BATCH_SIZE = 32, 30, 26
_SOURCE_AT = len(_ID) + _ID_SIZE + len(_HASH) + _ID_SIZE + len(_SOURCE)
_NOTHING = pa.nulls(1, pa.string())[0]


def _sliced(block: Block, duplicates: bool) -> tuple[pa.Table, bool]:
    """Slice the columns out of all lines, copying only what is wanted. Raises Unusual, ArrowInvalid or a decoding error
    where they must be read slowly."""
    lines = Lines(block.text, block.ends)
    places = _places(lines)
    seq = lines.between(places["seq"], places["seq_end"]).cast(pa.int64())
    if not duplicates and any(piece.verdicts for piece in block.pieces):
        accepted = _accepted(seq, block.pieces)
        places, seq = places.filter(accepted), seq.filter(accepted)
    optional, exactly = _optional(lines.between(places["seq_end"], after(places["payload"], -len(_PAYLOAD))))
    columns = {**_columns(lines, places), **optional, "seq": seq}
    if b"\\" in block.text:
        for name in ("source", "event_type", "entity_id"):
            if pc.any(pc.match_substring(columns[name], pattern="\\")).as_py():
                raise Unusual
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA), exactly


def _places(lines: Lines) -> pa.RecordBatch:
    """Return where values begin in each line, and in `received` whether a received_time precedes ingest_time."""
    event_type = after(lines.find(after(lines.starts, _SOURCE_AT), _TYPE), len(_TYPE))
    entity_id = after(lines.find(event_type, _ENTITY), len(_ENTITY))
    event_time = after(lines.find(entity_id, _TIME), len(_TIME))
    at = after(event_time, _TIME_SIZE)
    received = lines.has(at, _RECEIVED)
    if pc.any(received).as_py():
        at = pc.if_else(received, after(at, len(_RECEIVED) + _TIME_SIZE), at)
    ingest_time = after(at, len(_INGEST))
    # Where seq is here in every line, everything before it was where it should be.
    seq = lines.past(after(ingest_time, _TIME_SIZE + len(_BATCH) + _BATCH_SIZE), _SEQ)
    seq_end = lines.find(seq, b",")
    payload = after(lines.find(seq_end, _PAYLOAD), len(_PAYLOAD))
    places = {
        "start": lines.starts,
        "event_type": event_type,
        "entity_id": entity_id,
        "event_time": event_time,
        "received": received,
        "ingest_time": ingest_time,
        "seq": seq,
        "seq_end": seq_end,
        "payload": payload,
        "end": lines.ends,
    }
    return pa.RecordBatch.from_arrays(list(places.values()), list(places))


def _columns(lines: Lines, places: pa.RecordBatch) -> dict[str, Any]:
    """Return the columns without seq and the optional ones."""
    start, event_time, ingest_time = places["start"], places["event_time"], places["ingest_time"]
    columns = {
        "event_id": lines.fixed(after(start, len(_ID)), _ID_SIZE),
        "content_hash": lines.fixed(after(start, len(_ID) + _ID_SIZE + len(_HASH)), _ID_SIZE),
        "source": lines.between(after(start, _SOURCE_AT), after(places["event_type"], -len(_TYPE))),
        "event_type": lines.between(places["event_type"], after(places["entity_id"], -len(_ENTITY))),
        "entity_id": lines.between(places["entity_id"], after(event_time, -len(_TIME))),
        "event_time": lines.fixed(event_time, _TIME_SIZE).cast(TIMESTAMP),
        "received_time": pa.nulls(len(start), TIMESTAMP),
        "ingest_time": lines.fixed(ingest_time, _TIME_SIZE).cast(TIMESTAMP),
        "batch_id": lines.fixed(after(ingest_time, _TIME_SIZE + len(_BATCH)), _BATCH_SIZE),
        "payload": lines.between(places["payload"], after(places["end"], -1)),
    }
    if pc.any(places["received"]).as_py():
        times = lines.fixed(after(event_time, _TIME_SIZE + len(_RECEIVED)), _TIME_SIZE)
        columns["received_time"] = pc.if_else(places["received"], times, _NOTHING).cast(TIMESTAMP)
    return columns


def _accepted(seqs: Any, pieces: Sequence[Piece]) -> Any:
    """Return which lines are not duplicates. A seq identifies a delivery within its batch only."""
    chunks, begin = [], 0
    for piece in pieces:
        skipped = pc.is_in(seqs.slice(begin, piece.lines), value_set=integers(piece.verdicts))
        chunks.append(pc.invert(skipped))
        begin += piece.lines
    return pa.concat_arrays(chunks)


_OPTIONAL = [field for field in ENVELOPE[SCHEMA.get_field_index("seq") + 1 :] if not field.required]
"""What may be between seq and payload, beside `original`, `payload_text` and the times as they were written."""

_decode_optional = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode

_KEY = ',"idempotency_key":"'
_ONLY_KEY = rf'^{_KEY}[^"\\]*"$'


def _optional(texts: Any) -> tuple[dict[str, Any], bool]:
    """Return the columns between seq and payload, and whether some payload has a `payload_text`."""
    some = pc.binary_length(texts).cast(pa.bool_())
    found = texts.filter(some)
    nothing = pa.nulls(len(texts), pa.string())
    if pc.all(pc.match_substring_regex(found, pattern=_ONLY_KEY)).as_py():
        keys = pc.utf8_slice_codeunits(found, len(_KEY), -1)
        columns = dict.fromkeys([field.name for field in _OPTIONAL], nothing)
        return {**columns, "idempotency_key": pc.replace_with_mask(nothing, some, keys)}, False
    # Had a payload been found inside another field, the braces would not match here.
    members = [_decode_optional(f"{{{text[1:]}}}") for text in found.to_pylist()]
    columns = {}
    for field in _OPTIONAL:
        values = [one.get(field.name) for one in members]
        is_text = field.type == FieldType.TEXT
        made = strings([b"" if raw is None else _decode_text(raw).encode() if is_text else raw for raw in values])
        filled = pc.if_else(pc.binary_length(made).cast(pa.bool_()), made, _NOTHING)
        columns[field.name] = pc.replace_with_mask(nothing, some, filled)
    return columns, any("payload_text" in one for one in members)
