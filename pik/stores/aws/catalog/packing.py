"""Compacting a day's requests: their items go from the table into packs.

    body, directory   nothing refers to them yet; they have names that nobody else uses
    the pack's item   readers find in it what they find in the table, and drop what they have twice
    are both there?   a process that slept for a day may find that they were removed as left over
    the items         are deleted from the table

Each step may be the last one of a process that dies. What it left is found again in the table, or twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from pik.errors import Damaged, StoreError
from pik.model.batch import OF_REQUEST, Verdict
from pik.model.ids import ID_LENGTH, MILLISECOND, creation_time, new_id, time_digits
from pik.model.instant import day_text
from pik.ports.compaction import Packed
from pik.ports.raw import ObjectReader, RawKind
from pik.rawlog.replacements import ReplacingRaw
from pik.stores.aws.catalog import layout
from pik.stores.aws.catalog.layout import Listed
from pik.stores.aws.catalog.listing import Listing
from pik.stores.aws.catalog.packs import NewPack, PackItem, Part, body_key, directory_key, packs_prefix
from pik.stores.aws.catalog.requests import Requests
from pik.stores.aws.clients import Flow
from pik.stores.aws.lease import Generation
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.state.layout import US
from pik.stores.aws.table import Key, Table, key_of

BODY, SEGMENTS = 16 << 20, 100_000
"""Bytes of a pack's body, about, and segments in it, at most: a pack in the making is held in memory."""

KINDS = Listed.REQUEST, Listed.ARRAY
"""What is compacted. Files and buffered requests have few segments, and large ones."""

_REASONS = 10


@dataclass(frozen=True, slots=True)
class Packing:
    """Moves lists of segments into packs. The caller holds the lease that keeps a rebuild away; a process that lost it
    does useless work, and nothing wrong."""

    table: Table
    raw: AwsRaw
    generation: Generation

    def days(self, first: int | None, last: int | None) -> Iterator[int]:
        """As the port has it."""
        g = self.generation.current()
        low, high = "-" if first is None else day_text(first), "~" if last is None else f"{day_text(last)}/~"
        days = self.table.query(layout.days_pk(g), between=(low, high))
        for day, of_day in groupby((item["sk"].split("/") for item in days), key=itemgetter(0)):
            if any(self._has_items(g, day, Listed(kind)) for _, kind in of_day if kind in KINDS):
                yield layout.day_number(day)

    def waiting(self, day: int, before: int) -> int:
        """As the port has it."""
        listing = self._listing()
        items = chain.from_iterable(listing.in_table(day_text(day), kind) for kind in KINDS)
        return sum(item["recorded_at"] < before for item in items)

    def pack(self, day: int, before: int) -> Iterator[Packed]:
        """As the port has it."""
        self.generation.announce_packs()
        objects = ReplacingRaw(self.raw)
        for kind in KINDS:
            yield from _Day(self._listing(), objects, day_text(day), kind).pack(before)

    def _listing(self) -> Listing:
        return Listing(self.table, self.raw, self.generation.current(), self.generation)

    def _has_items(self, g: int, day: str, kind: Listed) -> bool:
        first = Flow().map(lambda pk: next(self.table.query(pk, first=1), None), layout.partitions(g, day, kind))
        return any(item is not None for item in first)


@dataclass(frozen=True, slots=True)
class _Day:
    """The segments of a day and kind. `left` is why some were left."""

    listing: Listing
    objects: ObjectReader
    day: str
    kind: Listed
    left: list[str] = field(default_factory=list)

    def pack(self, before: int) -> Iterator[Packed]:
        """Move the items of the table into a new run of packs."""
        items = (item for item in self.listing.in_table(self.day, self.kind) if item["recorded_at"] < before)
        run = ""
        for pack, keys in self._packs(self._parts(self._settled(items))):
            run = self._write(pack, run)
            self.listing.table.write_many(deletes=keys)
            yield Packed(pack.segments, len(pack.body), *self._left())
        if self.left:
            yield Packed(0, 0, *self._left())

    def _packs(self, parts: Iterable[Part]) -> Iterator[tuple[NewPack, list[Key[Any]]]]:
        """Yield packs of these parts, each with the keys of their items."""
        pack, keys = NewPack(), list[Key[Any]]()
        for part in parts:
            pack.add(part)
            keys.append(key_of({**part.item}))
            if len(pack.body) >= BODY or pack.segments >= SEGMENTS:
                yield pack, keys
                pack, keys = NewPack(), []
        if pack.segments:
            yield pack, keys

    def _left(self) -> tuple[int, tuple[str, ...]]:
        """Return how many segments were left since this was asked last, and why the first of them were."""
        found = len(self.left), tuple(self.left[:_REASONS])
        self.left.clear()
        return found

    def _settled(self, items: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
        """Yield those of the items that never change any more, each with its duplicates."""
        table, g = self.listing.table, self.listing.generation
        if self.kind == Listed.REQUEST:
            for item, delivery, kind in Requests(table, g).with_verdicts(items):
                if kind != Verdict.UNRECORDED:
                    yield {**item, "skipped": layout.pack_skipped(delivery.skipped(kind))}
            return
        settled = (item for item in items if "skipped" in item)
        for item, batch in table.join(settled, lambda one: layout.batch_key(g, one["sk"].partition("-")[0])):
            if batch is not None and "pending" not in batch:
                yield item

    def _parts(self, items: Iterable[Any]) -> Iterator[Part]:
        """Yield the items with the bytes of their objects, where these are as recorded."""
        for part, reason in Flow().map(self._part, items):
            if reason:
                self.left.append(reason)
            else:
                yield part

    def _part(self, item: Mapping[str, Any]) -> tuple[Part, str]:
        key, data, reason = self._segment_key(item), item.get("inline", b""), ""
        if not data:
            try:
                data = self.objects.read(key)
            except Damaged as error:
                return Part(item, b""), error.message
        if sha256(data).digest() != item["digest"]:
            reason = f"the object {key} is not as recorded"
        return Part(item, data), reason

    def _segment_key(self, item: Mapping[str, Any]) -> str:
        day = layout.day_number(self.day)
        if self.kind == Listed.REQUEST:
            batch_id = item["sk"].rpartition(US)[2]
            return RawKind.SEGMENT.key(batch_id, OF_REQUEST, day)
        batch_id, _, n = item["sk"].partition("-")
        return RawKind.SEGMENT.key(batch_id, int(n), day)

    def _write(self, pack: NewPack, run: str) -> str:
        """Write a pack, and return the name of its run."""
        name, raw, g = self._name(), self.listing.raw, self.listing.generation
        item = pack.item(g, self.day, self.kind, name, run or name)
        raw.create(body_key(self.day, name), bytes(pack.body))
        raw.create(directory_key(g, name), bytes(pack.directory))
        self.listing.table.put(item)
        self._expect_whole(item, name)
        return item["run"]

    def _expect_whole(self, item: PackItem, name: str) -> None:
        """Raise StoreError where a pack's objects have been removed before its item was there."""
        raw, objects = self.listing.raw, (body_key(self.day, name), directory_key(self.listing.generation, name))
        if [raw.size(key) for key in objects] != [item["body_size"], item["directory_size"]]:
            self.listing.table.delete(key_of({**item}))
            raise StoreError("what was compacted was removed meanwhile", hint="run the same command again")

    def _name(self) -> str:
        """Return a new name, which sorts after those of all packs of the day and kind: a reader who passes one that is
        being replaced meets the one that replaces it later on."""
        last = max((pack.name for pack in self.listing.packs(packs_prefix(self.day, self.kind))), default="")
        name = new_id()
        if name <= last:
            name = time_digits(creation_time(last) + MILLISECOND) + name[-(ID_LENGTH - 10) :]
        return name
