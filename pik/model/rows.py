"""From many lines to what raw and the index take of them, without an object for each event in between.

Nearly all of the time of an ingest passes here. `read_event` and `raw_line` define what is valid and what is written;
this says the same of lines in the usual shape, and leaves all others to them.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from pik.errors import Invalid
from pik.model.event import UNUSUAL, as_written, check_name, decode_line, known_names, name_json
from pik.model.identity import content_hash, keyed_id, read_payloads
from pik.model.instant import full_instant, read_instant

if TYPE_CHECKING:
    from pik.model.zone import Zone

_encode = msgspec.json.encode


@dataclass(slots=True)
class Rows:
    """Events in columns: the n-th of each list is of the n-th event. `contents` has None where the event has no
    idempotency key, so that its content hash is its id; `lines` are those of raw."""

    entity_ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)
    event_ids: list[bytes] = field(default_factory=list)
    contents: list[bytes | None] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)


def read_rows(
    lines: Sequence[bytes], first_seq: int, ingest_time: int, stamped: bytes, zone: Zone | None = None
) -> Rows | None:
    """What `read_event` and `raw_line` make of lines with consecutive seqs; None if one of them is unusual, let alone
    invalid. `stamped` is the stamp of `ingest_time` and the batch."""
    try:
        read = list(map(decode_line, lines))
        payloads = [bytes(line.payload) for line in read]
        if b"\r" in b"".join(payloads):
            return None
        rows = Rows()
        add_id, add_content, add_line = rows.event_ids.append, rows.contents.append, rows.lines.append
        add_time, add_lag = rows.times.append, rows.lags.append
        known = known_names.get
        for seq, line, payload, (canonical, payload_text) in zip(
            count(first_seq), read, payloads, read_payloads(payloads), strict=False
        ):
            source = known(line.source) or name_json("source", line.source)
            event_type = known(line.event_type) or name_json("event_type", line.event_type)
            entity_id = known(line.entity_id) or name_json("entity_id", line.entity_id)
            time, time_json, time_text = read_instant(line.event_time, zone)
            received_time, received_text, received, tail = ingest_time, None, b"", b""
            if line.received_time is not None:
                received_time, _, received_text = read_instant(line.received_time, zone)
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
                hex_id, tail = hexlify(event_id), b',"idempotency_key":' + key
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
    except (*UNUSUAL, Invalid):
        return None
    return rows
