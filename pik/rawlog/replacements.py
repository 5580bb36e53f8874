"""Replacements: whole copies of damaged objects, which stay as evidence.

The object KEY is never overwritten. Its copy is `raw/copies/N/KEY`, its record `raw/replacements/N/KEY`, N counting the
copies from 1. From the record on, every reader of KEY gets the copy with the highest N; which copies there are follows
from the names of the records alone, so it takes one listing. docs/format.md specifies both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import merge
from pathlib import Path
from time import monotonic, time_ns

import msgspec

from pik.errors import AlreadyExists, Damaged
from pik.ports.raw import Object, ObjectReader, Raw, RawObject
from pik.rawlog.objects import packed, record_lines

RECORDS = "raw/replacements/"
COPIES = "raw/copies/"

_RECENT = 60.0
"""Seconds for which a process relies on the replacements that it has listed."""


class ReplacementLine(msgspec.Struct, frozen=True, kw_only=True, tag="replacement"):
    """The line of a record: since when `copy`, of this size and SHA-256, is read in the place of `key`, and who made
    it. `damaged` is the SHA-256 of the object that it replaces, as it was then."""

    format: int
    key: str
    copy: str
    size: int
    digest: str
    damaged: str
    recorded_at: int
    actor: str = ""


_decode = msgspec.json.Decoder(ReplacementLine).decode


def parse_name(text: str) -> tuple[str, int, str] | None:
    """Return the prefix, the number and the key of the replaced object in the name of a copy or a record; None for
    another name."""
    for prefix in (RECORDS, COPIES):
        if text.startswith(prefix):
            number, _, key = text.removeprefix(prefix).partition("/")
            if number.isascii() and number.isdigit() and number == str(int(number)) and number != "0" and key:
                return prefix, int(number), key
    return None


def replaced_keys(raw: Raw) -> dict[str, int]:
    """Return the keys of the objects that have been replaced, each with the number of the copy that counts."""
    found: dict[str, int] = {}
    for one in raw.objects(RECORDS):
        if name := parse_name(one.key):
            _, number, key = name
            found[key] = max(number, found.get(key, 0))
    return found


def read_replacement(raw: ObjectReader, key: str) -> ReplacementLine:
    """Return the line of a record. Raises Damaged."""
    name = parse_name(key)
    for line in record_lines(raw, key, _decode):
        if name and (line.key, line.copy) == (name[2], f"{COPIES}{name[1]}/{name[2]}"):
            return line
    raise Damaged(f"record {key} is that of another replacement", hint="pik verify --full")


def replace_object(raw: Raw, key: str, data: bytes, *, format_version: int, actor: str) -> str:
    """Create a whole copy of a damaged object, and the record that makes it count; return the key of the copy. What a
    killed process left of the same replacement is completed."""
    number = 1
    while not _is_created(raw, f"{COPIES}{number}/{key}", data):
        number += 1
    copy, damage = f"{COPIES}{number}/{key}", ""
    with suppress(Damaged):
        damage = sha256(raw.read(key)).hexdigest()
    line = ReplacementLine(
        format=format_version,
        key=key,
        copy=copy,
        size=len(data),
        digest=sha256(data).hexdigest(),
        damaged=damage,
        recorded_at=time_ns(),
        actor=actor,
    )
    with suppress(AlreadyExists):  # its copy was lost
        raw.create(f"{RECORDS}{number}/{key}", packed([line]))
    return copy


def _is_created(raw: Raw, key: str, data: bytes) -> bool:
    """Create the object and return whether it has these bytes now: one that was there may have others."""
    try:
        raw.create(key, data)
    except AlreadyExists:
        with suppress(Damaged):
            return raw.read(key) == data
        return False
    return True


@dataclass(slots=True)
class ReplacingRaw:
    """Raw in which the copies of replaced objects are read in their place. A replacement that another process makes is
    noticed within a minute."""

    raw: Raw
    _copies: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    _listed_at: float | None = field(default=None, repr=False, compare=False)

    def create(self, key: str, data: bytes) -> None:
        self.create_all([(key, data)])

    def create_all(self, objects: Sequence[Object]) -> None:
        if len(objects) == 1:
            self.raw.create(*objects[0])
        else:
            self.raw.create_all(objects)
        if any(key.startswith(RECORDS) for key, _ in objects):
            self._listed_at = None

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.raw.read(self._place(key), offset, length)

    def size(self, key: str) -> int | None:
        return self.raw.size(self._place(key))

    def stored_digest(self, key: str) -> str | None:
        return self.raw.stored_digest(self._place(key))

    def objects(self, prefix: str) -> Iterator[RawObject]:
        """Replaced objects have the size of their copy, and are listed even where the damaged one is gone."""
        replaced = sorted(key for key in self._current() if key.startswith(prefix))
        if not replaced:
            yield from self.raw.objects(prefix)
            return
        of_copies = [RawObject(key, size) for key in replaced if (size := self.size(key)) is not None]
        others = (found for found in self.raw.objects(prefix) if found.key not in self._copies)
        yield from merge(others, of_copies, key=lambda found: found.key)

    def files(self, keys: Sequence[str]) -> AbstractContextManager[list[Path]]:
        return self.raw.files([self._place(key) for key in keys])

    def _place(self, key: str) -> str:
        return self._current().get(key, key)

    def _current(self) -> dict[str, str]:
        if self._listed_at is None or monotonic() - self._listed_at > _RECENT:
            listed_at = monotonic()
            self._copies = {key: f"{COPIES}{number}/{key}" for key, number in replaced_keys(self.raw).items()}
            self._listed_at = listed_at
        return self._copies
