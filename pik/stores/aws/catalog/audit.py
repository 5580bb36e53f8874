"""Comparing the index table and the id files with raw, row by row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from msgspec import structs

from pik.errors import Damaged, StoreError
from pik.model.batch import Arrivals, Segment, Verdict
from pik.model.share import WHOLE, Share
from pik.ports.index import SegmentCopies
from pik.ports.raw import RawKind
from pik.stores.aws.catalog import codec, layout
from pik.stores.aws.catalog.deliveries import Delivery, Row, arrivals_of, claims_of, duplicate_items, rows_of
from pik.stores.aws.catalog.id_files import IdFiles, ListedRows
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.catalog.layout import ClaimItem, Listed, SegmentItem
from pik.stores.aws.catalog.listing import Listing
from pik.stores.aws.catalog.packs import Pack
from pik.stores.aws.catalog.rebuild import rows_in
from pik.stores.aws.catalog.recording_times import listed_items, packed_items
from pik.stores.aws.catalog.requests import Requests
from pik.stores.aws.table import Item, Key, KeyItem, key_of


@dataclass(slots=True)
class AwsAudit:
    """Reads the index table. Deliveries that are not recorded yet never differ."""

    index: AwsIndex
    _id_files: IdFiles | None = field(default=None, repr=False, compare=False)
    """Those of the generation that was read last."""

    def anew(self) -> AwsAudit:
        return AwsAudit(self.index)

    def differing(self, arrivals: Sequence[Arrivals]) -> dict[str, str]:
        g, table = self.index.generation.current(), self.index.table
        listing = self.index.listing(g)
        listed = self._listed(listing, [one.segment.key for one in arrivals])
        comparisons = [self._comparison(g, one, listed.get(one.segment.key)) for one in arrivals]
        keys = (delivery.claim_key for one in comparisons for delivery in one.deliveries)
        claims = table.get_many(dict.fromkeys(keys))
        items = listing.under(key for one in comparisons for key in one.item_keys())
        of_files = [one for one in comparisons if one.listed]
        in_files = self._in_files(g).of_each([one.segment for one in of_files])
        wrong = {one.segment.key: one.difference(claims, items) for one in comparisons}
        for one, found in zip(of_files, in_files, strict=True):
            wrong[one.segment.key] = wrong[one.segment.key] or one.difference_of_ids(found)
        return {key: detail for key, detail in wrong.items() if detail}

    def arrivals(self, segments: Sequence[Segment]) -> Iterator[Arrivals]:
        g = self.index.generation.current()
        for segment, found in zip(segments, self._in_files(g).of_each(segments), strict=True):
            if isinstance(found, ListedRows):
                yield arrivals_of(segment, found.rows)
            else:
                yield self.deliveries(segment, range(len(segment.frames)))

    def rows(self, share: Share = WHOLE) -> Iterator[tuple[str, int | None]]:
        g, table = self.index.generation.current(), self.index.table
        for item in table.scan("pk", "sk", "batch", "n", "day", share=share):
            if key := _segment_of_row(g, item):
                yield key, 1
        if share.number:  # what is being recorded comes once, with the first share
            return
        for listed in table.query(layout.days_pk(g)):
            day, _, kind = listed["sk"].partition("/")
            if kind != Listed.REQUEST:
                items = self.index.listing(g).in_table(day, Listed(kind))
                yield from ((codec.segment_of(one).key, None) for one in items if "skipped" not in one)

    def deliveries(self, segment: Segment, frames: Collection[int]) -> Arrivals:
        return rows_in(self.index.listing(self.index.generation.current()), segment, frames)

    def knows(self, batch_id: str) -> bool:
        return self.index.table.get(layout.batch_key(self.index.generation.current(), batch_id)) is not None

    def damage(self, *, quick: bool = False) -> Iterator[tuple[str, str]]:
        """Look at the items of packs, and at their directories, on which whatever lists segments depends."""
        g = self.index.generation
        for item in self.index.listing(g.current()).pack_items() if g.is_compacted() else ():
            try:
                pack = Pack.of(g.current(), item)
            except StoreError as error:
                yield f"item {item['pk']} {item['sk']}", error.message
            else:
                if wrong := self._wrong_directory(pack, quick=quick):
                    yield pack.directory, wrong

    def _wrong_directory(self, pack: Pack, *, quick: bool) -> str:
        """Return what is wrong with the directory of a pack; empty if nothing is."""
        raw, item = self.index.raw, pack.item
        if quick:
            size = raw.size(pack.directory)
            if size is None:
                return "it is missing"
            return "" if size == item["directory_size"] else "its size differs"
        try:
            found = raw.stored_digest(pack.directory) or sha256(raw.read(pack.directory)).hexdigest()
        except Damaged as error:
            return error.message
        return "" if found == item["directory_digest"].hex() else "it is not what was written"

    def copies(self) -> Iterator[SegmentCopies]:
        for pack in self._packs():
            item, day = pack.item, layout.day_number(pack.day)
            digest = item["body_digest"].hex()
            yield SegmentCopies(pack.body, item["body_size"], digest, day, item["segments"], item["oldest"])

    def _packs(self) -> Iterator[Pack]:
        g = self.index.generation
        return self.index.listing(g.current()).packs() if g.is_compacted() else iter(())

    def _listed(self, listing: Listing, keys: Sequence[str]) -> dict[str, SegmentItem]:
        """Return the items of segments, by key, but of requests with one event."""
        if not listing.pointer.is_compacted():
            places = {layout.segment_key(listing.generation, key): key for key in keys}
            return {places[Key(at)]: item for at, item in listing.table.get_many(places).items()}
        known = listed_items(listing, keys)
        return known.segments | packed_items(listing, known)

    def _comparison(self, g: int, arrived: Arrivals, listing: SegmentItem | None) -> _Comparison:
        segment, table = arrived.segment, self.index.table
        packed = None if listing is None else listing.get("skipped")
        return _Comparison(
            Requests(table, g),
            segment,
            list(map(claims_of(table, g, segment.batch_id, [segment]).delivery, rows_of([arrived]))),
            self.index.skipped(segment) if packed is None else codec.unpack_skipped(packed),
            listed=listing is not None,
            settled=listing is None or packed is not None,
        )

    def _in_files(self, g: int) -> IdFiles:
        if self._id_files is None or self._id_files.generation != g:
            self._id_files = IdFiles(self.index.raw, g)
        return self._id_files


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A segment's deliveries, and which of them the index calls duplicates. `listed` is false for a request with one
    event; `settled` is true once the segment's claims are finished."""

    requests: Requests
    segment: Segment
    deliveries: Sequence[Delivery]
    skipped: Mapping[int, Verdict]
    listed: bool
    settled: bool

    def item_keys(self) -> Iterator[Key[Any]]:
        """Yield the keys of the duplicates' items and of the batch's reference or, of a request with one event, of its
        own items."""
        if self.listed:
            yield self._reference
        for delivery in self.deliveries:
            if not self.listed:
                yield from self.requests.keys(self.segment, delivery.row)
            if self.settled and delivery.row.seq in self.skipped:
                yield from map(key_of, self._duplicates(delivery))

    def difference(self, claims: Mapping[tuple[str, str], ClaimItem], items: Mapping[tuple[str, str], Item]) -> str:
        """Return what is wrong; empty if nothing is."""
        wrong = [one.row.seq for one in self.deliveries if not self._is_right(one, claims.get(one.claim_key), items)]
        if not wrong:
            is_found = not self.listed or self._reference in items
            return "" if is_found else "the index does not find it by the id of its batch"
        return f"{len(wrong)} deliveries, the first of them record {min(wrong)}, are not in the index as in raw"

    @property
    def _reference(self) -> Key[Any]:
        return key_of(layout.reference(self.requests.generation, self.segment))

    def _is_right(self, delivery: Delivery, claim: ClaimItem | None, items: Mapping[tuple[str, str], Item]) -> bool:
        row = delivery.row
        if not self.listed and not self.requests.is_as_recorded(self.segment, row, items):
            return False
        kind = self.skipped.get(row.seq, Verdict.ACCEPTED)
        if kind == Verdict.UNRECORDED:
            return True
        if kind == Verdict.ACCEPTED:
            return claim == delivery.claim
        if claim is None or delivery.verdict(claim) != kind:
            return False
        return not self.settled or all(items.get(key_of(one)) == one for one in self._duplicates(delivery))

    def _duplicates(self, delivery: Delivery) -> Iterator[KeyItem]:
        return duplicate_items(self.segment.ingest_time, delivery, self.skipped[delivery.row.seq])

    def difference_of_ids(self, found: ListedRows | str) -> str:
        """Return what is wrong with the segment's rows in id files; empty if nothing is."""
        segment = self.segment
        if isinstance(found, str):
            return found or "no id file has its deliveries"
        recorded = {"recorded_at": segment.recorded_at, "guessed": segment.guessed}
        same = structs.replace(found.segment, **recorded) == structs.replace(segment, inline=b"", packed=None)
        mine = sorted(_without_place(one.row) for one in self.deliveries)
        if not same or sorted(map(_without_place, found.rows)) != mine:
            return f"{found.name} describes it and its deliveries in another way"
        return ""


def _without_place(row: Row) -> tuple[int, bytes, bytes, int, str]:
    return row.seq, row.event_id, row.content or b"", row.frame, row.entity


def _segment_of_row(g: int, item: Item) -> str | None:
    """Return the key of the segment of a claim or a duplicate; None for other items, and other generations."""
    generation, kind, *_ = f"{item['pk']}/".split("/")
    if generation != str(g):
        return None
    if kind == "claim":
        return RawKind.SEGMENT.key(item["batch"], item["n"], item["day"])
    if kind == "duplicate":
        return RawKind.SEGMENT.key(item["sk"].split("/")[1], item["n"], item["day"])
    return None
