"""Holding the index table and the id files against raw, row by row.

Claims, duplicates and listings are asked for a hundred at a time, whatever segments they are of.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pik.errors import Damaged
from pik.model.batch import Arrivals, Segment, Verdict
from pik.rawlog.keys import RawKind, number_of
from pik.stores.aws.catalog.claims import Claims, claim_of, places
from pik.stores.aws.catalog.id_files import Row, prefix_of, read_ids, rows_of
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.catalog.items import (
    REQUEST,
    batch_key,
    day_number,
    duplicate_item,
    listing_key,
    request_key,
    segment_of,
    unpack_skipped,
)
from pik.stores.aws.catalog.requests import Requests, request_segment
from pik.stores.aws.table import Item, Key


@dataclass(frozen=True, slots=True)
class AwsAudit:
    """Reads the index table. Deliveries that are not recorded yet differ from nothing."""

    index: AwsIndex

    def differing(self, arrivals: Sequence[Arrivals]) -> dict[str, str]:
        g, table = self.index.generation.current(), self.index.table
        listed = table.get_many(dict.fromkeys(listing_key(g, one.segment) for one in arrivals))
        comparisons = [self._comparison(g, one, listed.get(listing_key(g, one.segment))) for one in arrivals]
        claims = table.get_many(dict.fromkeys(key for one in comparisons for key in one.claim_keys()))
        items = table.get_many(dict.fromkeys(key for one in comparisons for key in one.item_keys()))
        ids = _IdFiles(self.index, g)
        wrong = {}
        for one in comparisons:
            if detail := one.difference(claims, items) or (ids.difference(one.arrived, one.rows) if one.listed else ""):
                wrong[one.arrived.segment.key] = detail
        return wrong

    def rows(self) -> Iterator[tuple[str, int | None]]:
        g = self.index.generation.current()
        for item in self.index.table.scan("pk", "sk", "batch", "n", "day"):
            if key := _counts_for(g, item):
                yield key, 1
        for item in self.index.table.query(f"{g}/days"):
            day, _, kind = item["sk"].partition("/")
            if kind == REQUEST:
                yield from ((key, 1) for key in self._of_requests(g, day_number(day)))
            else:
                unsettled = (item for item in self.index.table.query(f"{g}/day/{day}") if "skipped" not in item)
                yield from ((segment_of(item).key, None) for item in unsettled)

    def knows(self, batch_id: str) -> bool:
        return self.index.table.get(batch_key(self.index.generation.current(), batch_id)) is not None

    def damage(self) -> Iterator[tuple[str, str]]:
        return iter(())  # DynamoDB and S3 check what they hold

    def corrections(self) -> set[str]:
        g = self.index.generation.current()
        return {item["sk"] for item in self.index.table.query(f"{g}/correction")}

    def follow(self, corrections: Sequence[str]) -> None:
        g = self.index.generation.current()
        self.index.table.write_many({"pk": f"{g}/correction", "sk": key} for key in corrections)

    def _of_requests(self, g: int, day: int) -> Iterator[str]:
        """The segments of requests whose event had come before: that the claim names another is their only row."""
        requests = Requests(self.index.table, g, set())
        judged = requests.judged(requests.of_day(day))
        return (request_segment(item).key for item, kind in judged if kind != Verdict.ACCEPTED)

    def _comparison(self, g: int, arrived: Arrivals, listing: Item | None) -> _Comparison:
        segment, rows = arrived.segment, rows_of([arrived])
        packed = None if listing is None else listing.get("skipped")
        skipped = self.index.skipped(segment) if packed is None else unpack_skipped(packed)
        claims = Claims(self.index.table, g, segment.batch_id, places([segment]))
        return _Comparison(g, arrived, rows, skipped, claims, listed=listing is not None, settled=packed is not None)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A segment's deliveries, and which of them the index calls duplicates. `listed` is one of a file, or of a request
    with several events; `settled` one whose claims are finished."""

    generation: int
    arrived: Arrivals
    rows: Sequence[Row]
    skipped: Mapping[int, Verdict]
    claims: Claims
    listed: bool
    settled: bool

    def claim_keys(self) -> Iterator[Key]:
        return (self.claims.key(row) for row in self.rows)

    def item_keys(self) -> Iterator[Key]:
        """Of duplicates' items and, where the segment is a request's, of its own."""
        if not self.listed:
            batch = batch_key(self.generation, self.arrived.segment.batch_id)
            return (key for row in self.rows for key in (self._request_key(row), batch))
        again = (self._duplicate(row) for row in self.rows if self.settled and row.seq in self.skipped)
        return ((item["pk"], item["sk"]) for item in again)

    def difference(self, claims: Mapping[Key, Item], items: Mapping[Key, Item]) -> str:
        wrong = [row.seq for row in self.rows if not self._right(row, claims, items)]
        if not wrong:
            return ""
        return f"{len(wrong)} deliveries, the first of them record {min(wrong)}, are not in the index as in raw"

    def _right(self, row: Row, claims: Mapping[Key, Item], items: Mapping[Key, Item]) -> bool:
        if not self.listed and not self._request_is_right(row, items):
            return False
        kind, claim = self.skipped.get(row.seq, Verdict.ACCEPTED), claims.get(self.claims.key(row))
        if kind == Verdict.UNRECORDED:
            return True
        if kind == Verdict.ACCEPTED:
            return claim == self.claims.item(row)
        if claim is None or self.claims.verdict(row, {row.event_id: claim_of(claim)}) != kind:
            return False
        expected = self._duplicate(row)
        return not self.settled or items.get((expected["pk"], expected["sk"])) == expected

    def _duplicate(self, row: Row) -> Item:
        segment = self.arrived.segment
        return duplicate_item(self.generation, segment, row, self.skipped[row.seq])

    def _request_key(self, row: Row) -> Key:
        segment = self.arrived.segment
        return request_key(self.generation, segment.day, row.entity, row.event_id, segment.batch_id)

    def _request_is_right(self, row: Row, items: Mapping[Key, Item]) -> bool:
        """Whether a request's own item says what its event is, and that of its batch where the request is listed."""
        requests = Requests(self.claims.table, self.generation, set())
        listing = requests.listing(self.arrived, row, self.arrived.segment.recorded_at, b"")
        batch = requests.listed(self.arrived, row)
        of_batch = items.get(
            batch_key(self.generation, self.arrived.segment.batch_id), batch
        )  # missing: told elsewhere
        return _says(items.get(self._request_key(row), {}), listing) and _says(of_batch, batch)


def _says(item: Item, expected: Item) -> bool:
    return all(item.get(name) == value for name, value in expected.items() if name not in ("pk", "sk"))


class _IdFiles:
    """The id files of chunks, by which events are found."""

    def __init__(self, index: AwsIndex, generation: int) -> None:
        self._index, self._generation = index, generation
        self._read: dict[tuple[str, int], list[tuple[str, Segment, list[Row]]]] = {}

    def difference(self, arrived: Arrivals, rows: Sequence[Row]) -> str:
        """What is wrong with what id files say of a segment."""
        segment = arrived.segment
        try:
            files = self._of_chunk(segment.batch_id, number_of(segment.key))
        except (Damaged, ValueError, struct.error) as error:
            return f"an id file of its batch cannot be read: {error}"
        for name, described, there in files:
            if described.key == segment.key:
                same = (described.day, described.digest) == (segment.day, segment.digest)
                if not same or sorted(map(_without_place, there)) != sorted(map(_without_place, rows)):
                    return f"{name} does not have its deliveries as raw has them"
                return ""
        return "no id file has its deliveries: they are not found by their ids"

    def _of_chunk(self, batch_id: str, n: int) -> list[tuple[str, Segment, list[Row]]]:
        if (batch_id, n) not in self._read:
            found = []
            for each in self._index.raw.objects(f"{prefix_of(self._generation)}{batch_id}-{n}-"):
                header, rows = read_ids(self._index.raw, each.key)
                for place, segment in enumerate(header.segments):
                    found.append((each.key, segment, [row for row in rows if row.segment == place]))
            self._read[batch_id, n] = found
        return self._read[batch_id, n]


def _without_place(row: Row) -> tuple[int, bytes, bytes, int, str]:
    return row.seq, row.event_id, row.content or b"", row.frame, row.entity


def _counts_for(g: int, item: Item) -> str | None:
    """The key of the segment that an item is a row of, if it is one: a claim or a duplicate."""
    generation, _, rest = item["pk"].partition("/")
    kind, _, rest = rest.partition("/")
    if generation != str(g):
        return None
    if kind == "claim":
        return RawKind.SEGMENT.key(item["batch"], item["n"], day_number(rest.partition("/")[0]))
    if kind == "key":
        return RawKind.SEGMENT.key(item["batch"], item["n"], item["day"])
    if kind == "duplicate":
        return RawKind.SEGMENT.key(item["sk"].split("/")[1], item["n"], item["day"])
    return None
