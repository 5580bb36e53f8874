"""Packs: what lists segments of a day's requests, moved from the table to S3, with copies of their objects.

A pack is two objects and an item. The body has the bytes of the segments' objects one after the other; the directory
has the items that listed them, in the same order, in zstd frames, with their offsets in the body. The pack's item says
where each frame of the directory begins, so that a key is found by one read of each object. docs/dev/aws-layout.md
describes them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple, cast

import msgspec
import zstandard

from pik.errors import Damaged, NoAccess, StoreError, Unreadable
from pik.model.batch import PackedCopy
from pik.model.ids import creation_time
from pik.ports.raw import ObjectReader
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.deliveries import prefix_of
from pik.stores.aws.catalog.layout import Listed
from pik.stores.aws.state.layout import US
from pik.stores.aws.table import KeyItem, Partition

FRAME = 128 << 10
"""Bytes of items in a frame of a directory, about."""

_APART = ("pk", "sk", "inline", "packed")
"""What a directory does not have of an item: its key follows from its place, its bytes are in the body."""

_LAST = "\U0010ffff"

BODIES = "compact/"
"""What the keys of bodies begin with."""


class PackItem(KeyItem):
    """A pack, listed under its day and kind. The packs of one run have no keys of listed items in common ranges: each
    `first` comes after the `last` before it. `oldest` is the least ingest time of its segments."""

    run: str
    first: str
    last: str
    oldest: int
    segments: int
    body_size: int
    body_digest: bytes
    directory_size: int
    directory_digest: bytes
    frames: bytes


class ReplacedItem(KeyItem):
    """A pack that was merged into others, under the sk that its item had: whoever reads it meanwhile needs its
    objects for a while."""

    replaced_at: int


class Member(NamedTuple):
    """An item that lists a segment, and the bytes of its object."""

    item: Mapping[str, Any]
    data: bytes


class DirectoryEntry(NamedTuple):
    """A segment in a directory: its sk, where its bytes begin in the body, and the attributes of its item."""

    sk: str
    offset: int
    attributes: dict[str, Any]


_Frame = tuple[int, int, str]
"""Offset and length of a frame of a directory, and a text that is greater than every sk before it, but not than any in
it."""


def packs_pk(g: int) -> Partition[PackItem]:
    """Return the partition with the packs of a generation. Their sk is DAY/KIND/NAME; NAME is a ULID, and later than
    those of the packs that it replaces."""
    return Partition(f"{g}/pack")


def replaced_pk(g: int) -> Partition[ReplacedItem]:
    """Return the partition with the packs that were replaced not long ago."""
    return Partition(f"{g}/replaced")


def packs_prefix(day: str, kind: Listed) -> str:
    """Return the prefix of the sk of the packs of a day and kind."""
    return f"{day}/{kind}/"


def body_key(day: str, name: str) -> str:
    """Return the key of a pack's body."""
    return f"{BODIES}event_date={day}/{name}.ndjson.zst"


def directory_key(g: int, name: str) -> str:
    """Return the key of a pack's directory."""
    return f"{directories_of(g)}{name}"


def directories_of(g: int) -> str:
    """Return the prefix of the keys of a generation's directories."""
    return f"{prefix_of(g)}packs/"


def name_of(key: str) -> str:
    """Return the name of the pack that has an object under this key."""
    return key.rpartition("/")[2].partition(".")[0]


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that is read."""

    generation: int
    day: str
    kind: Listed
    name: str
    item: PackItem
    frames: Sequence[_Frame]

    @classmethod
    def of(cls, g: int, item: PackItem) -> Pack:
        """Return the pack of an item. Raises StoreError."""
        with codec.decoding(f"item {item['pk']} {item['sk']}"):
            day, kind, name = item["sk"].split("/")
            layout.day_number(day), creation_time(name)
            whole = msgspec.convert(item, PackItem)
            return cls(g, day, Listed(kind), name, whole, _read_frames(codec.unpacked(whole["frames"])))

    @property
    def run(self) -> str:
        """The name of its run."""
        return self.item["run"]

    @property
    def size(self) -> int:
        """The bytes of both objects."""
        return self.item["body_size"] + self.item["directory_size"]

    @property
    def body(self) -> str:
        """The key of the body."""
        return body_key(self.day, self.name)

    @property
    def directory(self) -> str:
        """The key of the directory."""
        return directory_key(self.generation, self.name)

    def items(self, raw: ObjectReader, prefix: str = "") -> Iterator[Any]:
        """Yield the items whose sk begins so, in order, each with the place of its segment's copy. Raises
        StoreError."""
        if not prefix <= self.item["last"] or self.item["first"] > prefix + _LAST:
            return
        for frame in self.frames[self._frame_of(prefix) :]:
            if prefix and frame[2] > prefix + _LAST:
                return
            yield from (self._item(entry) for entry in self.entries(raw, frame) if entry.sk.startswith(prefix))

    def find(self, raw: ObjectReader, sks: Sequence[str]) -> Iterator[Any]:
        """Yield the items under these sks, given in order, as far as the pack has them. Raises StoreError."""
        mine = sks[bisect_left(sks, self.item["first"]) : bisect_right(sks, self.item["last"])]
        frames: dict[int, set[str]] = {}
        for sk in mine:
            frames.setdefault(self._frame_of(sk), set()).add(sk)
        for number, wanted in frames.items():
            entries = self.entries(raw, self.frames[number])
            yield from (self._item(entry) for entry in entries if entry.sk in wanted)

    def entries(self, raw: ObjectReader, frame: _Frame) -> list[DirectoryEntry]:
        """Return what a frame of the directory has. Raises StoreError."""
        try:
            data = zstandard.ZstdDecompressor().decompress(raw.read(self.directory, frame[0], frame[1]))
            entries: list[DirectoryEntry] = _read_entries(data)
        except Unreadable as error:  # which a rebuild would not change
            raise NoAccess(error.message, hint=error.hint) from None
        except (zstandard.ZstdError, msgspec.MsgspecError, Damaged) as error:
            message = error.message if isinstance(error, Damaged) else f"{self.directory}: {error}"
            raise StoreError(f"the index is damaged: {message}", hint="pik verify --rebuild-index") from None
        return entries

    def _frame_of(self, sk: str) -> int:
        """Return the number of the frame that has the first item from this sk on."""
        return max(0, bisect_right(self.frames, sk, key=lambda frame: frame[2]) - 1)

    def _item(self, entry: DirectoryEntry) -> dict[str, Any]:
        copy = PackedCopy(self.body, entry.offset)
        return {"pk": self._pk(entry.sk), "sk": entry.sk, **entry.attributes, "packed": copy}

    def _pk(self, sk: str) -> str:
        g, day = self.generation, layout.day_number(self.day)
        if self.kind == Listed.REQUEST:
            return layout.entity_requests_pk(g, day, sk.partition(US)[0])
        batch_id, _, n = sk.partition("-")
        return layout.numbered_key(g, day, batch_id, int(n))[0]


@dataclass(slots=True)
class NewPack:
    """A pack in the making: parts are added in the order of their sk."""

    body: bytearray = field(default_factory=bytearray)
    directory: bytearray = field(default_factory=bytearray)
    segments: int = 0
    first: str = ""
    last: str = ""
    oldest: int = 0
    _frames: list[_Frame] = field(default_factory=list)
    _entries: list[bytes] = field(default_factory=list)
    _held: int = 0
    _begin: str = ""

    def add(self, part: Member) -> None:
        """Add a segment."""
        sk = part.item["sk"]
        if not self._entries:
            self._begin = _separator(self.last, sk)
        attributes = {name: value for name, value in part.item.items() if name not in _APART}
        self._entries.append(msgspec.msgpack.encode(DirectoryEntry(sk, len(self.body), attributes)))
        self._held += len(self._entries[-1])
        self.body += part.data
        self.segments += 1
        self.first, self.last = self.first or sk, sk
        self.oldest = min(self.oldest or part.item["ingest_time"], part.item["ingest_time"])
        if self._held >= FRAME:
            self._end_frame()

    def item(self, g: int, day: str, kind: Listed, name: str, run: str) -> PackItem:
        """Return the item of the pack, complete."""
        self._end_frame()
        return {
            "pk": packs_pk(g),
            "sk": f"{packs_prefix(day, kind)}{name}",
            "run": run,
            "first": self.first,
            "last": self.last,
            "oldest": self.oldest,
            "segments": self.segments,
            "body_size": len(self.body),
            "body_digest": sha256(self.body).digest(),
            "directory_size": len(self.directory),
            "directory_digest": sha256(self.directory).digest(),
            "frames": codec.packed(self._frames),
        }

    def _end_frame(self) -> None:
        if not self._entries:
            return
        data = b"".join([_array_header(len(self._entries)), *self._entries])
        frame = zstandard.ZstdCompressor(write_checksum=True).compress(data)
        self._frames.append((len(self.directory), len(frame), self._begin))
        self.directory += frame
        self._entries, self._held = [], 0


def _separator(before: str, sk: str) -> str:
    """Return the shortest beginning of an sk that is greater than the one before."""
    differing = (place for place, (one, other) in enumerate(zip(before, sk, strict=False)) if one != other)
    return sk[: next(differing, len(before)) + 1] if before else ""


def _array_header(length: int) -> bytes:
    """Return what begins a MessagePack array of so many elements (array 32)."""
    return b"\xdd" + length.to_bytes(4, "big")


_read_frames = msgspec.json.Decoder(list[_Frame]).decode
_read_entries = cast(Any, msgspec.msgpack.Decoder(list[DirectoryEntry])).decode
