"""Raw: immutable objects under create-only keys, and the keys: one type builds and parses all of them.

One implementation is a directory, the next a bucket. docs/format.md lists the keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from pik.errors import Invalid
from pik.model.instant import day_of, day_text, parse_instant


@dataclass(frozen=True, slots=True)
class RawObject:
    """A key and the size in bytes of its object."""

    key: str
    size: int


Object = tuple[str, bytes]
"""A key, and the bytes that are to be stored under it."""


class ObjectReader(Protocol):
    """Reads single objects."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return the bytes of the object from `offset`, `length` of them (None: to the end). Raises Damaged if it is
        missing or shorter than that; Unreadable, which is a Damaged, if it is there and cannot be read at present."""


class Raw(ObjectReader, Protocol):
    """Picklable, so that worker processes can be handed one. Objects cannot be overwritten or deleted."""

    def create(self, key: str, data: bytes) -> None:
        """Store `data` under `key`; durable when this returns. Raises AlreadyExists, leaving what is there;
        StoreError when the storage refuses (full, no access). No reader ever sees part of an object."""

    def create_all(self, objects: Sequence[Object]) -> None:
        """Store several objects; all are durable when this returns. It costs less than storing one after the other.
        Raises as `create` does; then some of them are stored, each of these whole, and others are not."""

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes; None if it is missing. Raises Unreadable where that cannot be told."""

    def stored_digest(self, key: str) -> str | None:
        """Return the SHA-256 of the object, in hex, that the storage computed when it took the object in, and answers
        for since; None if it keeps none. Takes one call, and reads nothing of the object. Raises as `read` does."""

    def objects(self, prefix: str) -> Iterator[RawObject]:
        """Yield every object whose key starts with `prefix`, ordered by key. Raises Unreadable for a part of
        raw that cannot be listed."""

    def files(self, keys: Sequence[str]) -> AbstractContextManager[list[Path]]:
        """Whole objects as local files, for as long as the context lasts. Raises as `read` does, for
        those of which it shows."""


class RawKind(StrEnum):
    """A kind of object; the value is what its keys begin with."""

    SEGMENT = "raw/event_date="
    REJECTS = "raw/rejects/"
    BATCH = "raw/batches/"
    OPENING = "raw/openings/"
    BLOCK = "raw/blocks/"
    CLOSING = "raw/closings/"
    PULL = "raw/pulls/"
    PLAN = "raw/plans/"
    """Plans of bulk ingest. In the place of a batch's id is a digest of what is planned."""
    CORRECTION = "corrections/"
    LIST = "corrections/*/"
    """The listed deliveries of a correction, whose id is in the place of the asterisk."""

    def key(self, ulid: str, number: int | None = None, day: int | None = None) -> str:
        """Return the key of an object of this kind."""
        return str(RawKey(self, ulid, number, day))


NUMBERED = frozenset({RawKind.SEGMENT, RawKind.REJECTS, RawKind.BLOCK, RawKind.LIST, RawKind.PLAN})
"""Kinds of which a batch, a correction or a plan has several objects (of segments and lists, several a day)."""

DATED = frozenset({RawKind.SEGMENT, RawKind.LIST})
"""Kinds whose objects are of one day."""

_DATE, _ULID = r"\d{4}-\d\d-\d\d", "[0-9A-Z]{26}"
_KINDS = "|".join(re.escape(kind) for kind in RawKind if kind is not RawKind.LIST)
_KEY = re.compile(rf"({_KINDS})(?:({_DATE})/)?({_ULID})(?:-(\d+))?\.ndjson\.zst", re.ASCII)
_LIST_KEY = re.compile(rf"{RawKind.CORRECTION}({_ULID})/({_DATE})-(\d+)\.ndjson\.zst", re.ASCII)


class RawKey(NamedTuple):
    """The key of an object; `str(key)` is its text. `id` is the ULID of its batch, pull or correction; `day` (since
    1970-01-01) is that of a segment or a list."""

    kind: RawKind
    id: str
    number: int | None = None
    day: int | None = None

    def __str__(self) -> str:
        if self.kind is RawKind.LIST:
            assert self.day is not None
            return f"{RawKind.CORRECTION}{self.id}/{day_text(self.day)}-{self.number}.ndjson.zst"
        day = "" if self.day is None else f"{day_text(self.day)}/"
        number = "" if self.number is None else f"-{self.number}"
        return f"{self.kind}{day}{self.id}{number}.ndjson.zst"

    @classmethod
    def of(cls, text: str) -> RawKey:
        """Return the key with this text, which was built or parsed before."""
        key = cls.parse(text)
        assert key is not None, text
        return key

    @classmethod
    def parse(cls, text: str) -> RawKey | None:
        """Return the key with this text; None for what is not a key of raw."""
        if match := _KEY.fullmatch(text):
            kind, date, ulid, number = RawKind(match[1]), match[2], match[3], match[4]
        elif match := _LIST_KEY.fullmatch(text):
            kind, date, ulid, number = RawKind.LIST, match[2], match[1], match[3]
        else:
            return None
        if (kind in NUMBERED) != (number is not None) or (kind in DATED) != (date is not None):
            return None
        try:
            day = None if date is None else day_of(parse_instant(date, date_only=True))
        except Invalid:
            return None
        key = cls(kind, ulid, None if number is None else int(number), day)
        return key if str(key) == text else None


def keys_of(raw: Raw, kind: RawKind, batch_id: str = "") -> Iterator[RawKey]:
    """Yield the keys of all objects of a kind (of one batch, unless it has a day), in order. Objects with other names
    are skipped. The keys of lists follow those of their corrections."""
    prefix = RawKind.CORRECTION if kind is RawKind.LIST else kind
    for found in raw.objects(f"{prefix}{batch_id}"):
        if (key := RawKey.parse(found.key)) and key.kind is kind:
            yield key


def number_of(key: str) -> int:
    """Return the number in the key of a segment, a block record or a file of rejects, without checking the key."""
    return int(key.rpartition("-")[2].partition(".")[0])
