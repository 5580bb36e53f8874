"""A reader of stores, written from docs/format.md alone: it knows nothing of pik. Whatever is not as that page says
makes an assertion fail."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import zstandard

FORMAT = 6
FRAME = 98_304
ORDER = (
    "event_id content_hash source event_type entity_id event_time received_time ingest_time batch_id seq actor"
    " idempotency_key event_time_original received_time_original extra original payload_text payload"
).split()
AS_IT_CAME = {"extra", "original", "payload", "payload_text"}
OPTIONAL = {"received_time", "actor", "idempotency_key", "extra", "original", "payload_text"}
OPTIONAL |= {"event_time_original", "received_time_original"}


class Number(str):
    """A number's text."""


class Members(list[tuple[str, Any]]):
    """An object's members, repeated keys included."""


def parse(text: str | bytes) -> Any:
    """The JSON value: objects as Members, numbers as Numbers."""
    return json.loads(text, parse_int=Number, parse_float=Number, object_pairs_hook=Members)


def number(text: str) -> str:
    """The page's table, row by row."""
    sign, figures, exponent = Decimal(text).as_tuple()
    written = "".join(map(str, figures)).lstrip("0")
    digits = written.rstrip("0")
    if not digits:
        return "0"
    k, n = len(digits), len(written) + int(exponent)
    if k <= n <= 21:
        plain = digits + "0" * (n - k)
    elif 0 < n <= 21:
        plain = digits[:n] + "." + digits[n:]
    elif -6 < n <= 0:
        plain = "0." + "0" * -n + digits
    else:
        point = "." if k > 1 else ""
        plain = f"{digits[0]}{point}{digits[1:]}e{'+' if n > 0 else '-'}{abs(n - 1)}"
    return "-" * sign + plain


def is_integer(text: str) -> bool:
    """Whether the canonical number is an integer that 64 bits hold."""
    return text.lstrip("-").isdigit() and -(2**63) <= int(text) < 2**64


def is_double(text: str) -> bool:
    """Whether the number is exactly what its double prints as."""
    return abs(float(text)) != float("inf") and number(repr(float(text))) == number(text)


def canonical(value: Any) -> str:
    """Canonical JSON."""
    if isinstance(value, Members):
        last = dict(value)
        return "{" + ",".join(f"{canonical(key)}:{canonical(last[key])}" for key in sorted(last)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, Number):
        return number(value)
    return json.dumps(value, ensure_ascii=False)


def for_doubles(value: Any) -> str:
    """The `payload_text` of a payload: in its own order and spelling but for what plain readers would see otherwise."""
    if isinstance(value, Members):
        return "{" + ",".join(f"{canonical(key)}:{for_doubles(one)}" for key, one in dict(value).items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(for_doubles, value)) + "]"
    if isinstance(value, Number) and value != "-0" and not needs_text(value):
        return value
    if isinstance(value, Number):
        text = number(value)
        return text if is_integer(text) else f'"{text}"'
    return json.dumps(value, ensure_ascii=False)


def needs_text(value: Any) -> bool:
    """Whether a payload has a `payload_text`."""
    if isinstance(value, Members):
        return len(dict(value)) < len(value) or any(needs_text(one) for _, one in value)
    if isinstance(value, list):
        return any(map(needs_text, value))
    if isinstance(value, Number):
        fraction = any(mark in value for mark in ".eE")
        return not is_double(value) and (fraction or not is_integer(number(value)))
    return False


def digest(*array: Any) -> str:
    """H of the page."""
    return sha256(canonical(list(array)).encode()).hexdigest()[:32]


def identify(event: dict[str, Any]) -> tuple[str, str]:
    """content_hash and event_id of an envelope."""
    names = [event["source"], event["event_type"], event["entity_id"]]
    content = digest("pik.content.1", *names, event["event_time"], event["payload"])
    key = event.get("idempotency_key")
    return content, content if key is None else digest("pik.key.1", *names, key)


@dataclass(frozen=True)
class Delivery:
    """A line and its verdict: accepted, exact or conflict."""

    fields: dict[str, Any]
    kind: str

    @property
    def place(self) -> tuple[str, int]:
        return self.fields["batch_id"], int(self.fields["seq"])


class Store:
    """A store whose batches are all finished."""

    def __init__(self, root: Path) -> None:
        self.root = root
        assert json.loads((root / "format.json").read_text()) == {"format": FORMAT}
        self.records = [self._record(path) for path in sorted((root / "raw" / "batches").iterdir())]

    def _record(self, path: Path) -> list[dict[str, Any]]:
        data = path.read_bytes()
        assert data[-40:] == bytes.fromhex("502a4d1820000000") + sha256(data[:-40]).digest()
        lines = [json.loads(line) for line in one_frame(data[:-40]).splitlines()]
        assert [line["type"] for line in lines] == sorted((line["type"] for line in lines), key=_ORDER.index)
        assert lines[0]["format"] == FORMAT
        assert path.name == lines[0]["batch_id"] + ".ndjson.zst"
        return lines

    def deliveries(self) -> Iterator[Delivery]:
        """Every delivery, segment by segment; each segment is checked as it is read."""
        for record in self.records:
            seen = 0
            for line in record[1:]:
                if line["type"] == "segment":
                    seen += line["segment"]["deliveries"]
                    yield from self._segment(line)
            read, *verdicts, rejected = record[0]["counts"]
            assert read == sum(verdicts) + rejected
            assert seen == sum(verdicts)

    def rejects(self) -> Iterator[dict[str, Any]]:
        """Every rejected record."""
        for record in self.records:
            for line in record[1:]:
                if line["type"] == "rejects":
                    lines = one_frame(self._object(line["rejects"])).splitlines()
                    assert len(lines) == line["rejects"]["records"]
                    yield from map(json.loads, lines)

    def superseded(self) -> list[str]:
        """Keys of objects that no record names."""
        named = {line[line["type"]]["key"] for record in self.records for line in record[1:]}
        there = {str(path.relative_to(self.root)) for path in (self.root / "raw").rglob("*-*.ndjson.zst")}
        assert named <= there
        return sorted(there - named)

    def _object(self, described: dict[str, Any]) -> bytes:
        data = (self.root / described["key"]).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (described["size"], described["digest"])
        return data

    def _segment(self, line: dict[str, Any]) -> Iterator[Delivery]:
        segment = line["segment"]
        data, position, before = self._object(segment), 0, (b"", "", 0)
        times = []
        for offset, length, count, first, last, names in segment["frames"]:
            assert offset == position
            position += length
            lines = frame_lines(data[offset:position], is_last=position == len(data))
            events = [dict(parse(text)) for text in lines]
            assert (len(events), events[0]["entity_id"], events[-1]["entity_id"]) == (count, first, last)
            assert not names or names == sorted({event["entity_id"] for event in events})
            for text, event in zip(lines, events, strict=True):
                check_envelope(text, event, segment)
                place = event["entity_id"].encode(), event["event_time"], int(event["seq"])
                assert before < place
                before = place
                times.append(nanoseconds(event["event_time"]))
                yield Delivery(event, verdict(line, int(event["seq"])))
        assert position == len(data)
        assert (len(times), min(times), max(times)) == tuple(
            segment[name] for name in ("deliveries", "first_event", "last_event")
        )


_ORDER = ["batch", "segment", "rejects"]


def verdict(line: dict[str, Any], seq: int) -> str:
    """What the record says of a seq of the segment."""
    for kind in ("exact", "conflict"):
        if any(first <= seq <= last for first, last in line[kind]):
            return kind
    return "accepted"


def one_frame(data: bytes) -> bytes:
    """The text of an object that is one frame, its checksum checked."""
    assert zstandard.get_frame_parameters(data).has_checksum
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=False) as reader:
        return reader.read()


def frame_lines(data: bytes, *, is_last: bool) -> list[bytes]:
    """The lines of a segment's frame, its checksum checked."""
    header = zstandard.get_frame_parameters(data)
    text = zstandard.ZstdDecompressor().decompress(data)
    assert (header.has_checksum, header.dict_id, header.content_size) == (True, 0, len(text))
    assert text.endswith(b"\n")
    lines = text[:-1].split(b"\n")
    assert is_last or len(text) >= FRAME
    assert len(text) - len(lines[-1]) - 1 < FRAME
    return lines


def check_envelope(text: bytes, event: dict[str, Any], segment: dict[str, Any]) -> None:
    """Fields, their order and spelling, identity, payload_text, and what line and segment both say."""
    check_spelling(text.decode(), event)
    assert list(event) == [name for name in ORDER if name in event]
    assert set(ORDER) - set(event) <= OPTIONAL
    assert identify(event) == (event["content_hash"], event["event_id"])
    expected = for_doubles(event["payload"]) if needs_text(event["payload"]) else None
    assert (json.loads(expected) if expected else None) == plainly(event.get("payload_text"))
    assert expected is None or b',"payload_text":%s,"payload":' % expected.encode() in text
    assert event["batch_id"] == segment["batch_id"]
    assert nanoseconds(event["ingest_time"]) == segment["ingest_time"]
    day = date.fromisoformat(segment["key"].split("event_date=")[1][:10])
    assert event["event_time"].startswith(day.isoformat())
    assert (day - date(1970, 1, 1)).days == segment["day"]


def check_spelling(text: str, event: dict[str, Any]) -> None:
    """The envelope is canonical JSON but for the order of its fields and the values that are kept as they came."""
    position, before = 0, "{"
    for name, value in event.items():
        head = f'{before}"{name}":'
        assert text.startswith(head, position)
        start = position + len(head)
        _, position = json.JSONDecoder().raw_decode(text, start)
        assert name in AS_IT_CAME or text[start:position] == canonical(value)
        before = ","
    assert text[position:] == "}"


def plainly(value: Any) -> Any:
    """The parsed value as json.loads would have given it."""
    return None if value is None else json.loads(canonical(value))


def nanoseconds(text: str) -> int:
    """The integer of a time."""
    assert len(text) == len("2026-03-02T09:14:05.000000000Z")
    seconds = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (seconds.days * 86_400 + seconds.seconds) * 10**9 + int(text[20:29])


def stream(data: bytes) -> Iterator[bytes]:
    """The lines of frames one after the other, as zstdcat gives them."""
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        yield from io.BufferedReader(reader)
