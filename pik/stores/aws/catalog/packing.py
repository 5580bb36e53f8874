"""Compacting a day's requests: their items go from the table into packs.

    body, directory   nothing refers to them yet, and their names are unique
    the pack's item   readers find in it what they find in the table, and drop what they have twice
    are both there?   a process that slept for a day may find that they were removed as left over
    the items         are deleted from the table

Each step may be the last one of a process that dies. What it left is found again in the table, or twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, groupby
from operator import itemgetter
from time import time_ns
from typing import Any

from pik.errors import Damaged, StoreError
from pik.model.batch import OF_REQUEST, Verdict
from pik.model.ids import MILLISECOND, TIME_DIGITS, creation_time, new_id, time_digits
from pik.model.instant import SECOND, day_text
from pik.model.retention import expired
from pik.ports.compaction import Packed
from pik.ports.raw import ObjectReader, RawKind
from pik.rawlog.replacements import ReplacingRaw
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.generation import Generation
from pik.stores.aws.catalog.layout import Listed
from pik.stores.aws.catalog.listing import Listing, merged, runs_of
from pik.stores.aws.catalog.packs import (
    BODIES,
    Member,
    NewPack,
    Pack,
    PackItem,
    body_key,
    directories_of,
    directory_key,
    name_of,
    packs_prefix,
    replaced_pk,
)
from pik.stores.aws.catalog.requests import Requests
from pik.stores.aws.clients import Flow
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.state.layout import US
from pik.stores.aws.table import Key, Table, key_of

BODY, SEGMENTS = 16 << 20, 100_000
"""Bytes of a pack's body, about, and segments in it, at most: a pack in the making is held in memory."""

KINDS = Listed.REQUEST, Listed.ARRAY
"""What is compacted. Files and buffered requests have few segments, and large ones."""

LARGE = 512 << 20
"""Bytes of a run from which on it is not merged any more: merging one must end before a function does."""

KEPT = 24 * 3600 * SECOND
"""How long objects that nothing names are kept, for those who are reading them or making a pack of them."""

_REASONS = 10


@dataclass(frozen=True, slots=True)
class Packing:
    """Moves lists of segments into packs. The caller holds the lease that keeps a rebuild away; a process that lost it
    does useless work, and nothing wrong."""

    table: Table
    raw: AwsRaw
    generation: Generation
    retention_days: int | None = None

    def days(self, first: int | None, last: int | None) -> Iterator[int]:
        """As the port has it."""
        g = self.generation.current()
        low, high = "-" if first is None else day_text(first), "~" if last is None else f"{day_text(last)}/~"
        days = self.table.query(layout.days_pk(g), between=(low, high))
        for day, of_day in groupby((item["sk"].split("/") for item in days), key=itemgetter(0)):
            if any(self._has_items(g, day, Listed(kind)) for _, kind in of_day if kind in KINDS):
                yield layout.day_number(day)

    def waiting(self, day: int, before: int) -> tuple[int, int]:
        """As the port has it."""
        listing = self._listing()
        items = chain.from_iterable(listing.in_table(day_text(day), kind) for kind in KINDS)
        are_due = Counter(item["recorded_at"] < before for item in items)
        return are_due[True], are_due[False]

    def pack(self, day: int, before: int) -> Iterator[Packed]:
        """As the port has it."""
        self.generation.announce_packs()
        objects = ReplacingRaw(self.raw)
        for kind in KINDS:
            yield from _Day(self._listing(), objects, day_text(day), kind, self.retention_days).pack(before)

    def tidy(self, now: int) -> int:
        """Remove the objects that nothing has named for a day, and bodies with bytes of raw that has expired; return
        the number of objects. What was listed stays listed, as everything does whose raw has expired."""
        listing = self._listing()
        g, raw = listing.generation, self.raw
        objects = [found.key for prefix in (BODIES, directories_of(g)) for found in raw.objects(prefix)]
        named = {pack.name: pack.item["oldest"] for pack in listing.packs()}
        replaced = {name_of(item["sk"]): item for item in self.table.query(replaced_pk(g))}
        begun = 0 if g == 1 else g * MILLISECOND  # until when bodies may have belonged to the generation before
        removed = 0
        for key in objects:
            with suppress(ValueError):  # not the name of a pack
                name = name_of(key)
                since = max(creation_time(name), begun, replaced[name]["replaced_at"] if name in replaced else 0)
                if name in named:
                    is_due = key.startswith(BODIES) and expired(named[name], self.retention_days, now)
                else:
                    is_due = since < now - KEPT
                if is_due:
                    raw.remove(key)
                    removed += 1
        self.table.write_many(deletes=[key_of({**one}) for one in replaced.values() if one["replaced_at"] < now - KEPT])
        return removed

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
    retention_days: int | None = None
    left: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """`young`: those that are too young."""

    def pack(self, before: int) -> Iterator[Packed]:
        """Move the items of the table into a new run of packs; those whose raw has expired into one without bodies."""
        yield from self._move(self._parts(self._settled(self._items(before, are_expired=False))))
        if self.retention_days is not None:
            yield from self._move(Member(item, b"") for item in self._settled(self._items(before, are_expired=True)))
        yield from self._merge()
        if self.left or self.counts["young"]:
            yield Packed(0, 0, *self._left(), self.counts["young"])

    def _items(self, before: int, *, are_expired: bool) -> Iterator[Any]:
        now = time_ns()
        for item in self.listing.in_table(self.day, self.kind):
            if self._has_expired(item["ingest_time"], now) == are_expired:
                if item["recorded_at"] < before:
                    yield item
                else:
                    self.counts["young"] += 1

    def _move(self, parts: Iterable[Member]) -> Iterator[Packed]:
        run = ""
        for pack, keys in self._packs(parts):
            run = run or self._new_name()
            self._write(pack, run)
            self.listing.table.write_many(deletes=keys)
            yield Packed(pack.segments, len(pack.body), *self._left())

    def _merge(self) -> Iterator[Packed]:
        """Merge the runs of which there are too many of a size, where that is due; yield after each pack."""
        now = time_ns()
        # The body of a pack whose oldest segment has expired is gone, or is going.
        kept = [
            run for run in runs_of(self._all()) if not any(self._has_expired(one.item["oldest"], now) for one in run)
        ]
        runs = to_merge(kept)
        if not runs:
            return
        run, made, is_done = self._new_name(), list[PackItem](), False
        try:
            for pack, _ in self._packs(self._copies(runs)):
                made.append(self._write(pack, run))
                yield Packed()
            is_done = True
        except Damaged as error:
            self.left.append(f"packs of {self.day} are not merged: {error.message}")
        finally:
            replaced = [pack.item for of_run in runs for pack in of_run] if is_done else made
            self._replace(replaced)

    def _has_expired(self, ingest_time: int, now: int) -> bool:
        return expired(ingest_time, self.retention_days, now)

    def _replace(self, replaced: Sequence[PackItem]) -> None:
        """Remove packs, whose objects are kept for those who are reading them."""
        table, pk, now = self.listing.table, replaced_pk(self.listing.generation), time_ns()
        table.write_many({"pk": pk, "sk": item["sk"], "replaced_at": now} for item in replaced)
        table.write_many(deletes=[key_of({**item}) for item in replaced])

    def _copies(self, runs: Sequence[Sequence[Pack]]) -> Iterator[Member]:
        """Yield what runs have, each once, with the bytes of its object. Raises Damaged, StoreError."""
        before = ""
        for item in merged(self.listing.raw, runs):
            if item["sk"] != before:
                yield Member(item, self._copy(item))
            before = item["sk"]

    def _copy(self, item: Mapping[str, Any]) -> bytes:
        """Return the bytes of an object from the body of its pack or, where that is damaged, from raw."""
        with suppress(Damaged):
            data = self.listing.raw.read(item["packed"].key, item["packed"].offset, item["size"])
            if sha256(data).digest() == item["digest"]:
                return data
        part, reason = self._part(item)
        if reason:
            raise Damaged(reason, hint="pik verify --full")
        return part.data

    def _all(self) -> list[Pack]:
        return [*self.listing.packs(packs_prefix(self.day, self.kind))]

    def _packs(self, parts: Iterable[Member]) -> Iterator[tuple[NewPack, list[Key[Any]]]]:
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
                    yield {**item, "skipped": codec.pack_skipped(delivery.skipped(kind))}
            return
        settled = (item for item in items if "skipped" in item)
        for item, batch in table.join(settled, lambda one: layout.batch_key(g, one["sk"].partition("-")[0])):
            if batch is not None and "pending" not in batch:
                yield item

    def _parts(self, items: Iterable[Any]) -> Iterator[Member]:
        """Yield the items with the bytes of their objects, where these are as recorded."""
        for part, reason in Flow().map(self._part, items):
            if reason:
                self.left.append(reason)
            else:
                yield part

    def _part(self, item: Mapping[str, Any]) -> tuple[Member, str]:
        key, data, reason = self._segment_key(item), item.get("inline", b""), ""
        if not data:
            try:
                data = self.objects.read(key)
            except Damaged as error:
                return Member(item, b""), error.message
        if sha256(data).digest() != item["digest"]:
            reason = f"the object {key} is not as recorded"
        return Member(item, data), reason

    def _segment_key(self, item: Mapping[str, Any]) -> str:
        day = layout.day_number(self.day)
        if self.kind == Listed.REQUEST:
            batch_id = item["sk"].rpartition(US)[2]
            return RawKind.SEGMENT.key(batch_id, OF_REQUEST, day)
        batch_id, _, n = item["sk"].partition("-")
        return RawKind.SEGMENT.key(batch_id, int(n), day)

    def _write(self, pack: NewPack, run: str) -> PackItem:
        """Write a pack of a run, and return its item."""
        name, raw, g = self._new_name(), self.listing.raw, self.listing.generation
        item = pack.item(g, self.day, self.kind, name, run)
        if pack.body:
            raw.create(body_key(self.day, name), bytes(pack.body))
        raw.create(directory_key(g, name), bytes(pack.directory))
        self.listing.table.put(item)
        self._expect_whole(item, name)
        return item

    def _expect_whole(self, item: PackItem, name: str) -> None:
        """Raise StoreError where a pack's objects have been removed before its item was there."""
        raw, objects = self.listing.raw, (body_key(self.day, name), directory_key(self.listing.generation, name))
        if [raw.size(key) for key in objects] != [item["body_size"] or None, item["directory_size"]]:
            self.listing.table.delete(key_of({**item}))
            raise StoreError("what was compacted was removed meanwhile", hint="run the same command again")

    def _new_name(self) -> str:
        """Return a name that sorts after those of all packs of the day and kind: a reader who passes one that is being
        replaced meets the one that replaces it later on."""
        last = max((pack.name for pack in self._all()), default="")
        name = new_id()
        return name if name > last else time_digits(creation_time(last) + MILLISECOND) + name[TIME_DIGITS:]


def to_merge(runs: Sequence[Sequence[Pack]]) -> list[Sequence[Pack]]:
    """Return the runs that are to be merged into one: the smallest ones, up to the last that is less than twice as
    large as all smaller ones together. So of those that are left each is at least twice as large, and their number
    grows by the logarithm. Runs that are large already are left as they are."""
    sizes = sorted(((sum(pack.size for pack in run), run) for run in runs), key=itemgetter(0))
    smaller, count = 0, 0
    for place, (size, _) in enumerate(sizes):
        if place and size < min(2 * smaller, LARGE):
            count = place + 1
        smaller += size
    return [run for _, run in sizes[:count]]
