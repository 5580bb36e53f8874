"""Redaction: deliveries without the values at some paths, so that evidence can leave the company.

A value is replaced by a keyed hash of its canonical JSON (HMAC-SHA-256, cut to 128 bits): equal values have equal
hashes, other values others, and without the key none can be found by trying. What remains is an event like any other:
its id and its content hash are those of what it holds now. So nothing in a redacted bundle is a hash of what was
redacted, but for keyed ones; and duplicates stay duplicates, conflicts stay conflicts.

What may repeat a redacted value is left out or hashed as well, whatever is redacted: the record that a delivery was
mapped from, unknown fields, idempotency keys, names of files, rejected records.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec
import zstandard
from msgspec import structs

from pik.errors import InputError, UsageError
from pik.model.batch import Frame, Origin, Reject, RejectFile, Segment, frame_of
from pik.model.delivery import Delivery, actor_field, file_field, raw_line, read_delivery, stamp
from pik.model.event import EventLine, as_written, event_of
from pik.model.identity import read_payload
from pik.model.instant import parse_instant
from pik.model.metric import ALL_ENTITIES
from pik.model.zone import NO_ZONES
from pik.rawlog.segment_writer import COMPRESSION_LEVEL, frame_bounds
from pik.usecases.bundle.left_in_clear import places_of, texts_in

MARK = "redacted:"
"""Begins every hash that stands in the place of a text."""

REDACTED_REASON = "redacted"

_PLACES = 100
"""Places that are counted each by itself."""

_DIGITS = 32
_SMALLEST_KEY = 16

_Tree = dict[str, "_Tree"]
"""Names of fields below one another; one without any is redacted."""

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class RedactedEvent(msgspec.Struct, frozen=True):
    """An event: its id in the bundle, and the keyed hash of its id in the store; empty where that is the same."""

    event_id: str
    original: str


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is redacted, with which key. `paths` are as they were typed."""

    key: bytes
    paths: tuple[str, ...]
    payload: _Tree
    entities: bool
    names: frozenset[str]
    """The last name of each path."""
    hit: set[tuple[str, ...]] = field(default_factory=set)
    """Paths at which there was a value."""
    left: Counter[str] = field(default_factory=Counter)
    """Places where redacted values of the same delivery stay in clear, with the number of deliveries."""
    _removed: list[bytes] = field(default_factory=list, repr=False)
    """The values that were replaced in the delivery at hand, as JSON."""

    @property
    def missed(self) -> tuple[str, ...]:
        """The paths, as they were typed, at which there was no value: perhaps mistyped."""
        return tuple(
            text
            for text in self.paths
            if (path := _path(text)) != (ENTITY,) and not any(path[: len(hit)] == hit for hit in self.hit)
        )

    def most_left(self, count: int) -> list[tuple[str, int]]:
        """Return the places where most redacted values stay in clear, and in how many deliveries."""
        return sorted(self.left.items(), key=lambda one: (-one[1], one[0]))[:count]

    def entity(self, entity_id: str) -> str:
        """Return what an entity is called in the bundle."""
        if not self.entities or entity_id == ALL_ENTITIES:
            return entity_id
        return self.hashed("entity", entity_id.encode())

    def hashed(self, kind: str, data: bytes) -> str:
        """Return the text in the place of another one; those of other kinds are not equal to it."""
        return MARK + self.digest(kind, data)

    def digest(self, kind: str, data: bytes) -> str:
        """Return the keyed hash of bytes, in hex."""
        return hmac.new(self.key, f"pik.redact.1.{kind}\n".encode() + data, sha256).hexdigest()[:_DIGITS]

    def content(self, canonical: bytes) -> bytes:
        """Return a payload, given as canonical JSON, without the values at the paths."""
        if not self.payload:
            return canonical
        if not self.payload[_PAYLOAD]:
            self.hit.add((_PAYLOAD,))
            self._removed.append(canonical)
            return _encode({"redacted": self.hashed("value", canonical)})
        return self._without(canonical, self.payload[_PAYLOAD], (_PAYLOAD,))

    def _without(self, text: bytes, tree: _Tree, path: tuple[str, ...]) -> bytes:
        """Return the value at the path without what the tree names in it; of an array, in each of its elements."""
        if not tree:
            self.hit.add(path)
            self._removed.append(text)
            return _encode(self.hashed("value", text))
        if text[:1] == b"{":
            fields = _decode_object(text)
            for name in fields.keys() & tree.keys():
                fields[name] = msgspec.Raw(self._without(bytes(fields[name]), tree[name], (*path, name)))
            return _encode(fields)
        if text[:1] == b"[":
            return _encode([msgspec.Raw(self._without(bytes(item), tree, path)) for item in _decode_array(text)])
        return text

    def line(self, line: bytes) -> tuple[tuple[str, int], bytes, RedactedEvent]:
        """Return a line of raw as the bundle has it, what it is sorted by, and what became of its id."""
        was = read_delivery(line)
        payload = bytes(was.payload)
        canonical, _ = read_payload(payload)
        self._removed.clear()
        content = self.content(canonical)
        self._note_left(was, content)
        if self.payload:  # as it came, it may hold what a repeated key has replaced
            payload = content
        key = None if was.idempotency_key is None else self.hashed("key", was.idempotency_key.encode())
        sent = EventLine(
            was.source,
            was.event_type,
            self.entity(was.entity_id),
            was.event_time,
            msgspec.Raw(payload),
            was.received_time,
            key,
        )
        event = event_of(sent, payload, read_payload(payload), NO_ZONES)
        event.written = as_written(was.event_time_original, was.received_time_original)
        more = file_field(self.hashed("file", was.file.encode()), was.file_first_seq) if was.file else b""
        stamped = stamp(parse_instant(was.ingest_time), was.batch_id)
        made = raw_line(event, was.seq, stamped, None, actor_field(was.actor) + more)
        event_id = event.event_id.hex()
        original = "" if event_id == was.event_id else self.digest("event", was.event_id.encode())
        return (event.entity_id, event.event_time), made, RedactedEvent(event_id, original)

    def _note_left(self, was: Delivery, content: bytes) -> None:
        """Note where what was redacted of a delivery stays in clear."""
        texts = {text for value in self._removed for text in texts_in(value)}
        if self.entities:
            texts.add(was.entity_id)
        elif was.entity_id in texts:
            self._note(ENTITY)
        if texts:
            for place in places_of(texts, content, MARK, source=was.source, event_type=was.event_type):
                self._note(place)

    def _note(self, place: str) -> None:
        self.left[place if place in self.left or len(self.left) < _PLACES else "other places"] += 1

    def segment(self, segment: Segment, lines: Sequence[bytes]) -> tuple[Segment, bytes, list[RedactedEvent]]:
        """Return a segment with these lines as the bundle has it, its bytes, and what became of the ids. Memory: one
        segment."""
        made = sorted((self.line(line) for line in lines), key=lambda one: one[0])
        texts = [text for _, text, _ in made]
        compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
        frames: list[Frame] = []
        data = b""
        for begin, end in frame_bounds(texts):
            frame = compressor.compress(b"\n".join(texts[begin:end]) + b"\n")
            frames.append(frame_of(len(data), len(frame), [entity for (entity, _), _, _ in made[begin:end]]))
            data += frame
        digest = sha256(data).hexdigest()
        kept = structs.replace(segment, size=len(data), digest=digest, frames=tuple(frames), inline=b"", packed=None)
        return kept, data, [event for _, _, event in made]

    def rejects(self, file: RejectFile, rejects: Sequence[Reject]) -> tuple[RejectFile, bytes]:
        """Return a file of rejects that only says how many there were, and where; and its bytes."""
        kept = [Reject(seq=one.seq, reason=REDACTED_REASON, actor=one.actor, record=one.record) for one in rejects]
        compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
        data = compressor.compress(b"".join(msgspec.json.encode(one) + b"\n" for one in kept))
        return structs.replace(file, size=len(data), digest=sha256(data).hexdigest()), data

    def origin(self, origin: Origin) -> Origin:
        """Return where a batch came from, without its file's name, its digest, and how it was read."""
        return Origin(
            name=self.hashed("file", origin.name.encode()),
            content=self.digest("content", origin.content.encode()),
            again=origin.again,
        )


_PAYLOAD = "payload"
ENTITY = "entity_id"


def read_redaction(paths: Sequence[str], key_file: Path | None) -> Redaction | None:
    """Return what the options say; None without a path. Raises UsageError, InputError."""
    if not paths:
        if key_file is not None:
            raise UsageError("--redact-key is for --redact", hint="--redact payload.email, for example")
        return None
    if key_file is None:
        raise UsageError(
            "--redact hashes with a key, and --redact-key is missing",
            hint="head -c 32 /dev/urandom > redact.key, then --redact-key redact.key",
        )
    tree: _Tree = {}
    names = set()
    for text in paths:
        path = _path(text)
        names.add(path[-1])
        _add(tree, path)
    entities = tree.pop(ENTITY, None) is not None
    return Redaction(_read_key(key_file), tuple(dict.fromkeys(paths)), tree, entities, frozenset(names))


def _path(text: str) -> tuple[str, ...]:
    from pik.model.jmes import Expression  # imports jmespath

    plain = text.replace("[]", "").replace("[*]", "")
    path = Expression(plain, f"--redact {plain}").path
    if path is None or (path[0] != _PAYLOAD and path != (ENTITY,)):
        raise UsageError(
            f"--redact {text}: not the path to a value of the payload",
            hint=f"names with points between them: payload.customer.email, payload.items[].note; or {ENTITY}",
        )
    return path


def _add(tree: _Tree, path: Sequence[str]) -> None:
    """Add a path. One that begins with another one is in it already."""
    for number, name in enumerate(path):
        is_last = number == len(path) - 1
        if name in tree and not tree[name]:
            return
        if is_last:
            tree[name] = {}
            return
        tree = tree.setdefault(name, {})


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InputError(f"--redact-key: cannot read {str(path)!r}: {error.strerror}") from None
    if len(key) < _SMALLEST_KEY:
        raise InputError(
            f"--redact-key: {str(path)!r} has {len(key)} bytes; a key has at least {_SMALLEST_KEY}",
            hint="head -c 32 /dev/urandom > redact.key",
        )
    return key
